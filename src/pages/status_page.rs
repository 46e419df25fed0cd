//! The status page at `/`. Pure.
//!
//! One file without scripts or external resources. The template escapes its input; the policy in
//! [`CONTENT_SECURITY_POLICY`] allows only its own style.

mod accounts;

use std::sync::LazyLock;

use askama::Template;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;
use ring::digest::{SHA256, digest};

use crate::domain::allow_list::AllowList;
use crate::domain::key::{KeyState, LastUse, Mode, Scopes};
use crate::domain::policy::Policy;
use crate::pages::json::time;
use crate::pages::query::{Filter, Query, StateFilter};
use crate::pages::rows::{AccountRow, KeyRow, Overview, Urgency};
use crate::pages::status_page::accounts::{ACCOUNTS_MAX, AccountView, account_views, unlisted};
use crate::pages::timeline::{Size, Sums, Timeline};
use crate::pages::words;

const STYLE: &str = include_str!("../../templates/status_page.css");

/// What the page may load: the icon in its head, and its one style, identified by its hash. Forms
/// may only be sent to this server, and other sites may not embed the page in a frame.
pub static CONTENT_SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = digest(&SHA256, STYLE.as_bytes());
    let hash = BASE64_STANDARD.encode(hash);
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'"
    )
});

/// Maximum entries in the list of items that need attention.
const TASKS_MAX: usize = 6;

/// Maximum accounts or teams in a selection list; if there are more, users type the name.
const CHOICES_MAX: usize = 200;

/// Maximum scopes, or networks, shown per key; the JSON has all.
const LISTED_MAX: usize = 50;

/// If scopes and networks together exceed this number, they are collapsed.
const OPEN_MAX: usize = 4;

/// The exporter's own state, as shown on the page.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// Whether the poll loops are alive.
    pub is_alive: bool,
    /// Whether the last reload of the configuration succeeded.
    pub is_config_current: bool,
    /// The prefix of all paths, without the trailing `/`; may be empty.
    pub links: String,
    /// The path of the metrics, after the prefix.
    pub telemetry_path: String,
}

#[derive(Template)]
#[template(path = "status_page.html")]
struct StatusPage<'a> {
    style: &'static str,
    version: &'static str,
    title: String,
    icon_colour: &'static str,
    now: Moment,
    refresh: Option<u32>,
    refresh_link: String,
    links: &'a str,
    telemetry_path: &'a str,
    /// The query with the filters only, including its `?`; empty without filters.
    filters: String,
    next: Option<KeyView<'a>>,
    tasks: Vec<Task<'a>>,
    more_tasks: usize,
    more_tasks_link: String,
    health: Health,
    timelines: [Timeline; 2],
    timeline_words: String,
    form: Form<'a>,
    is_filtered: bool,
    /// The number of keys that the filter leaves, and of all.
    filtered: String,
    unfiltered: String,
    /// Why there are no `keys`.
    empty_words: String,
    pages: Pages,
    keys: Vec<KeyView<'a>>,
    accounts: Vec<AccountView<'a>>,
    accounts_left_out: usize,
}

/// A time in human-readable and machine-readable form.
struct Moment {
    /// RFC 3339; empty for years that it cannot represent.
    iso: String,
    words: String,
    /// Relative to now.
    relative: String,
}

/// An item that needs attention today.
struct Task<'a> {
    class: &'static str,
    word: &'static str,
    subject: &'a str,
    words: String,
    link: String,
}

/// Whether the exporter is healthy.
struct Health {
    is_well: bool,
    headline: String,
    lines: Vec<String>,
}

struct Form<'a> {
    fields: [Field<'a>; 2],
    states: Vec<(&'static str, &'static str, bool)>,
    text: &'a str,
    limit: usize,
    is_default_limit: bool,
    refresh: Option<u32>,
    is_default_refresh: bool,
}

/// A filter by name.
struct Field<'a> {
    name: &'static str,
    title: &'static str,
    value: &'a str,
    /// Empty if there are too many.
    choices: Vec<&'a str>,
}

struct Pages {
    /// `1 to 100 of 10000 keys`.
    words: String,
    first: Option<String>,
    previous: Option<String>,
    next: Option<String>,
    last: Option<String>,
}

struct KeyView<'a> {
    class: &'static str,
    /// Empty for a row that needs no attention.
    row_class: &'static str,
    state: &'static str,
    title: &'a str,
    is_named: bool,
    id: &'a str,
    link: String,
    team: Option<&'a str>,
    account: &'a str,
    provider: &'a str,
    mode: Option<&'static str>,
    expires: Option<Moment>,
    tags: Vec<&'static str>,
    muted_until: Option<Moment>,
    findings: Vec<(&'static str, &'static str)>,
    exempt: Vec<&'static str>,
    reason: Option<&'a str>,
    scopes: Listed<'a>,
    networks: Listed<'a>,
    is_folded: bool,
    access: String,
    /// Additional facts besides them.
    no_networks: Option<String>,
    no_scopes: Option<&'static str>,
    last_used: Option<String>,
    rotate_url: Option<&'a str>,
    runbook_url: Option<&'a str>,
}

/// The first entries of a long list.
struct Listed<'a> {
    shown: Vec<std::borrow::Cow<'a, str>>,
    more: usize,
}

/// The page as HTML.
pub(super) fn page(overview: &Overview, exporter: &Exporter, query: &Query) -> String {
    let everything = overview.select(&Filter::default());
    let selected: Vec<KeyRow<'_>> = everything
        .iter()
        .filter(|row| query.filter.matches(row))
        .copied()
        .collect();
    let now = overview.now;
    let all_accounts: Vec<AccountRow<'_>> = overview.accounts().collect();
    let account = query.filter.account.as_deref();
    let is_selected = |row: &&AccountRow<'_>| account.is_none_or(|name| name == row.name());
    let accounts: Vec<AccountRow<'_>> = all_accounts.iter().filter(is_selected).copied().collect();
    let unlisted = unlisted(&accounts);
    let mut tasks = tasks(&selected, &accounts, query, now);
    let more_tasks = tasks.len().saturating_sub(TASKS_MAX);
    tasks.truncate(TASKS_MAX);
    let health = Health::new(&all_accounts, exporter, now);
    let next = selected
        .iter()
        .filter(|row| !row.is_quiet() && row.time_left() > Some(TimeDelta::zero()))
        .min_by_key(|row| row.expires_at());
    let thresholds = &overview.rules.thresholds;
    let offset = query
        .offset
        .min(selected.len().saturating_sub(1) / query.limit * query.limit);
    let shown = selected.iter().skip(offset).take(query.limit);
    let are_unknown = !accounts.is_empty() && !accounts.iter().any(AccountRow::is_listed);
    let why_empty = why_empty(&everything, &all_accounts, are_unknown, query);
    let empty_words = [why_empty, unlisted.clone()];
    let accounts_left_out = accounts.len().saturating_sub(ACCOUNTS_MAX);
    let page = StatusPage {
        style: STYLE,
        version: env!("CARGO_PKG_VERSION"),
        title: title(&selected, &health, query),
        icon_colour: icon_colour(&selected, &health),
        now: Moment::new(now, now),
        refresh: query.refresh,
        refresh_link: link(&Query {
            refresh: match query.refresh {
                Some(_) => None,
                None => Query::default().refresh,
            },
            ..query.clone()
        }),
        links: &exporter.links,
        telemetry_path: &exporter.telemetry_path,
        filters: filters(query),
        next: next.map(|row| KeyView::new(row, query, now)),
        more_tasks,
        more_tasks_link: attention_link(query),
        health,
        timelines: [Size::WIDE, Size::NARROW]
            .map(|size| Timeline::new(&selected, thresholds, now, size)),
        timeline_words: timeline_words(&selected, unlisted),
        form: Form::new(&everything, &all_accounts, query),
        is_filtered: query.is_filtered(),
        filtered: format!(
            "{} of {}",
            selected.len(),
            words::count(everything.len(), "key")
        ),
        unfiltered: link(&query.without_filter().at(0)),
        pages: Pages::new(query, offset, selected.len(), everything.len()),
        keys: shown.map(|row| KeyView::new(row, query, now)).collect(),
        empty_words: sentences(empty_words),
        accounts: account_views(accounts, query, now),
        accounts_left_out,
        tasks,
    };
    // Writing to memory cannot fail.
    page.render().unwrap_or_default()
}

fn title(keys: &[KeyRow<'_>], health: &Health, query: &Query) -> String {
    let count = |urgency| keys.iter().filter(|row| row.urgency() == urgency).count();
    let mut parts: Vec<String> = [
        (Urgency::Expired, "expired"),
        (Urgency::Critical, "critical"),
    ]
    .into_iter()
    .map(|(urgency, word)| (count(urgency), word))
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    if !health.is_well {
        parts.push("polling fails".to_owned());
    }
    let what = if query.is_filtered() {
        "API keys (filtered)"
    } else {
        "API keys"
    };
    if parts.is_empty() {
        return what.to_owned();
    }
    format!("{} · {what}", parts.join(", "))
}

fn icon_colour(keys: &[KeyRow<'_>], health: &Health) -> &'static str {
    if keys.iter().any(KeyRow::needs_attention) {
        "%23cf222e"
    } else if keys.iter().any(|row| row.urgency() == Urgency::Warning) || !health.is_well {
        "%23d4a72c"
    } else {
        "%232da44e"
    }
}

/// The caption of the timeline of `keys`.
fn timeline_words(keys: &[KeyRow<'_>], unlisted: Option<String>) -> String {
    let sums = Sums::new(keys).0;
    let has_quiet = keys.iter().any(KeyRow::is_quiet);
    let parts = [
        (!sums.is_empty()).then(|| sums.join(" · ")),
        (sums.is_empty() && unlisted.is_none()).then(|| "No keys".to_owned()),
        has_quiet.then(|| "Hollow: muted, superseded or disabled".to_owned()),
        unlisted,
    ];
    sentences(parts)
}

fn sentences(parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}.", parts.join(". "))
}

/// Why the page lists no keys, if it does not. `keys` and `accounts` are all that there are;
/// `are_unknown` says that no account that the filter leaves was ever listed.
fn why_empty(
    keys: &[KeyRow<'_>],
    accounts: &[AccountRow<'_>],
    are_unknown: bool,
    query: &Query,
) -> Option<String> {
    let Filter { account, team, .. } = &query.filter;
    let is_account = |name: &&String| accounts.iter().any(|row| row.name() == *name);
    let is_team = |name: &&String| keys.iter().any(|row| row.team() == Some(name.as_str()));
    if let Some(name) = account.as_ref().filter(|it| !is_account(it)) {
        Some(format!("There is no account “{name}”"))
    } else if let Some(name) = team.as_ref().filter(|it| !is_team(it)) {
        Some(format!("No known key belongs to a team “{name}”"))
    } else if are_unknown {
        None
    } else if query.is_filtered() {
        Some("No key matches".to_owned())
    } else {
        Some("No keys are known".to_owned())
    }
}

/// The items that need attention today, most urgent first.
fn tasks<'a>(
    keys: &[KeyRow<'a>],
    accounts: &[AccountRow<'a>],
    query: &Query,
    now: DateTime<Utc>,
) -> Vec<Task<'a>> {
    let of_key = |row: &KeyRow<'a>| {
        let left = row.expires_at().map(|end| words::from_now(end - now));
        let ((class, word), words) = match (row.urgency(), left) {
            (Urgency::Expired, Some(left)) => (
                state_words(row),
                format!("expired {left}: rotate or delete it"),
            ),
            (Urgency::Critical, Some(left)) => {
                (state_words(row), format!("expires {left}: rotate it"))
            }
            (_, left) => {
                let last = left.map(|left| format!(" (the last known one is {left})"));
                let last = last.unwrap_or_default();
                let words = format!("its expiry{last} cannot be read: look it up");
                (("unknown", "unreadable"), words)
            }
        };
        Task {
            class,
            word,
            subject: row.title(),
            words,
            link: key_link(row, query),
        }
    };
    let failing = accounts.iter().filter(|row| row.is_up() == Some(false));
    let of_account = |row: &AccountRow<'a>| {
        let reason = row.last_failure().map(|last| last.failure.reason.as_str());
        let age = row.age().map_or_else(
            || "never listed".to_owned(),
            |age| format!("last listed {} ago", words::rough(age)),
        );
        Task {
            class: "failing",
            word: "failing",
            subject: row.name(),
            words: format!("{}; {age}", reason.unwrap_or_default()),
            link: "#accounts".to_owned(),
        }
    };
    let keys = keys.iter().filter(|row| row.needs_attention());
    keys.map(of_key).chain(failing.map(of_account)).collect()
}

/// A style-sheet class, and the state in words.
fn state_words(row: &KeyRow<'_>) -> (&'static str, &'static str) {
    match row.state {
        KeyState::Expired => ("expired", "expired"),
        KeyState::Expiring if row.is_critical() => ("critical", "critical"),
        KeyState::Expiring => ("warning", "expiring"),
        KeyState::Valid => ("valid", "valid"),
        KeyState::NeverExpires => ("never", "never expires"),
        KeyState::Unknown => ("unknown", "unreadable"),
        KeyState::Disabled => ("never", "disabled"),
    }
}

/// A policy in words.
fn policy_words(policy: Policy) -> &'static str {
    match policy {
        Policy::NeverExpires => "never expires",
        Policy::NoIpAllowList => "no IP allow list",
        Policy::WideIpAllowList => "wide IP allow list",
        Policy::PrivilegedScope => "privileged scope",
        Policy::TooOld => "too old",
        Policy::LifetimeTooLong => "lifetime too long",
        Policy::Unused => "unused",
    }
}

/// A link to the page for this query. An empty query must not become an empty link, which would
/// keep the current query.
fn link(query: &Query) -> String {
    format!("?{}", query.encode())
}

/// The same keys on another page.
fn filters(query: &Query) -> String {
    let filters = query.filters_only().encode();
    if filters.is_empty() {
        return filters;
    }
    format!("?{filters}")
}

/// A link to the page with only this key.
fn key_link(row: &KeyRow<'_>, query: &Query) -> String {
    let mut only = Query {
        refresh: query.refresh,
        ..Query::default()
    };
    only.filter.account = Some(row.account_name().to_owned());
    only.filter.text = Some(row.key.id.as_str().to_lowercase());
    format!("{}#keys", link(&only))
}

/// A link to the page with the keys that need attention, of those that the filter leaves.
fn attention_link(query: &Query) -> String {
    let mut query = query.at(0);
    // Keys in a chosen state are in order of urgency.
    query.filter.state.get_or_insert(StateFilter::Attention);
    format!("{}#keys", link(&query))
}

impl Moment {
    fn new(at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            iso: time(at).unwrap_or_default(),
            words: words::minute(at),
            relative: words::from_now(at - now),
        }
    }
}

impl Health {
    fn new(accounts: &[AccountRow<'_>], exporter: &Exporter, now: DateTime<Utc>) -> Self {
        let up = accounts
            .iter()
            .filter(|row| row.is_up() == Some(true))
            .count();
        let waiting = accounts.iter().filter(|row| row.is_up().is_none()).count();
        let failing = accounts.len() - up - waiting;
        let mut lines = Vec::new();
        let problems = [
            (!exporter.is_alive, "A poll loop is stuck."),
            (
                !exporter.is_config_current,
                "The last reload failed; the previous configuration is active.",
            ),
        ];
        lines.extend(
            problems
                .iter()
                .filter(|(is_it, _)| *is_it)
                .map(|(_, words)| (*words).to_owned()),
        );
        let is_well = failing == 0 && lines.is_empty();
        lines.push(format!(
            "{up} of {} polled successfully",
            words::count(accounts.len(), "account")
        ));
        if waiting > 0 {
            lines.push(format!("{waiting} not polled yet"));
        }
        let oldest = accounts.iter().filter_map(AccountRow::age).max();
        lines.extend(oldest.map(|age| format!("oldest listing: {} old", words::rough(age))));
        let next = accounts
            .iter()
            .filter_map(|row| row.state.next_poll_at)
            .min();
        // The time of the next poll stays until the poll has finished.
        lines.extend(next.map(|at| match at - now {
            left if left <= TimeDelta::zero() => "polling now".to_owned(),
            left => format!("next poll {}", words::from_now(left)),
        }));
        let headline = match (is_well, waiting) {
            (true, 0) => "Working".to_owned(),
            (true, _) => "Starting".to_owned(),
            (false, _) if failing > 0 => format!("{} failing", words::count(failing, "account")),
            (false, _) => "Needs attention".to_owned(),
        };
        Self {
            is_well,
            headline,
            lines,
        }
    }
}

impl<'a> Form<'a> {
    fn new(keys: &[KeyRow<'a>], accounts: &[AccountRow<'a>], query: &'a Query) -> Self {
        let filter = &query.filter;
        let field = |name, title, value: &'a Option<String>, mut choices: Vec<&'a str>| {
            let value = value.as_deref().unwrap_or_default();
            // A selected name stays selected when it no longer exists.
            choices.extend(Some(value).filter(|value| !value.is_empty()));
            choices.sort_unstable();
            choices.dedup();
            if choices.len() > CHOICES_MAX {
                choices.clear();
            }
            Field {
                name,
                title,
                value,
                choices,
            }
        };
        let names = accounts.iter().map(AccountRow::name).collect();
        let teams = keys.iter().filter_map(KeyRow::team).collect();
        let states = StateFilter::all().map(|(value, state)| {
            let words = match state {
                StateFilter::State(KeyState::Valid) => "valid",
                StateFilter::State(KeyState::Expiring) => "expiring or critical",
                StateFilter::State(KeyState::Expired) => "expired",
                StateFilter::State(KeyState::NeverExpires) => "never expires",
                StateFilter::State(KeyState::Unknown) => "unreadable expiry",
                StateFilter::State(KeyState::Disabled) => "disabled",
                StateFilter::Critical => "critical",
                StateFilter::Attention => "needs attention",
            };
            (value, words, filter.state == Some(state))
        });
        Self {
            fields: [
                field("account", "Account", &filter.account, names),
                field("team", "Team", &filter.team, teams),
            ],
            states: states.collect(),
            text: filter.text.as_deref().unwrap_or_default(),
            limit: query.limit,
            is_default_limit: query.limit == Query::default().limit,
            refresh: query.refresh,
            is_default_refresh: query.refresh == Query::default().refresh,
        }
    }
}

impl Pages {
    fn new(query: &Query, offset: usize, total: usize, all: usize) -> Self {
        let to = |offset: usize| format!("{}#keys", link(&query.at(offset)));
        let next = offset + query.limit;
        let last = total.saturating_sub(1) / query.limit * query.limit;
        let of = if total == all {
            words::count(total, "key")
        } else {
            format!("{total} matching, {}", words::count(all, "key"))
        };
        let words = match total {
            0 => of,
            _ if total <= query.limit => of,
            _ => format!("{} to {} of {of}", offset + 1, next.min(total)),
        };
        Self {
            words,
            first: (offset > 0).then(|| to(0)),
            previous: (offset > 0).then(|| to(offset.saturating_sub(query.limit))),
            next: (next < total).then(|| to(next)),
            last: (next < total).then(|| to(last)),
        }
    }
}

impl<'a> KeyView<'a> {
    fn new(row: &KeyRow<'a>, query: &Query, now: DateTime<Utc>) -> Self {
        let (class, state) = state_words(row);
        let key = row.key;
        let tags = [
            (row.assessment.is_muted, "muted"),
            (row.is_superseded, "superseded"),
            (key.unlisted_since.is_some(), "no longer listed"),
            (
                key.is_expiry_unknown() && row.state != KeyState::Unknown,
                "expiry unreadable",
            ),
            (key.is_own, "exporter’s own"),
        ];
        let scopes = key.scopes.as_ref().map_or(0, Scopes::len);
        let allow_list = key.allow_list.as_ref();
        let networks = allow_list.map_or(&[][..], AllowList::networks);
        let invalid = allow_list.map_or(0, AllowList::invalid_entries);
        let access = [
            Some(words::count(scopes, "scope")),
            (!networks.is_empty()).then(|| words::count(networks.len(), "network")),
            (invalid > 0).then(|| format!("{invalid} invalid")),
        ];
        let access: Vec<String> = access.into_iter().flatten().collect();
        let shown = networks.iter().map(|network| short(network).into());
        Self {
            class,
            row_class: if row.is_quiet() { "" } else { class },
            state,
            title: row.title(),
            is_named: row.name().is_some(),
            id: key.id.as_str(),
            link: key_link(row, query),
            team: row.team(),
            account: row.account_name(),
            provider: row.provider(),
            mode: key.mode.map(Mode::as_str),
            expires: row.expires_at().map(|at| Moment::new(at, now)),
            tags: tags
                .into_iter()
                .filter(|(is_it, _)| *is_it)
                .map(|(_, word)| word)
                .collect(),
            muted_until: row.muted_until().map(|at| Moment::new(at, now)),
            findings: row
                .broken_policies()
                .map(|it| (it.as_str(), policy_words(it)))
                .collect(),
            exempt: row.exemptions().map(policy_words).collect(),
            reason: row.reason(),
            is_folded: scopes + networks.len() > OPEN_MAX,
            scopes: Listed::new(row.scopes().map(Into::into), scopes),
            no_scopes: match &key.scopes {
                Some(scopes) if scopes.is_empty() => Some("no scopes"),
                Some(_) => None,
                None => Some("scopes unknown"),
            },
            networks: Listed::new(shown, networks.len()),
            access: access.join(", "),
            no_networks: match allow_list {
                Some(list) if list.is_unrestricted() => Some("any address".to_owned()),
                Some(_) if invalid > 0 => Some(format!("{invalid} invalid")),
                Some(_) => None,
                None => Some("addresses unknown".to_owned()),
            },
            last_used: match row.last_use() {
                LastUse::At(at) => Some(format!("used {}", words::from_now(at - now))),
                LastUse::Never => Some("never used".to_owned()),
                LastUse::Unknown => None,
            },
            rotate_url: row.rotate_url(),
            runbook_url: row.runbook_url(),
        }
    }
}

/// A single-address network is shown as an address.
fn short(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        return network.addr().to_string();
    }
    network.to_string()
}

impl<'a> Listed<'a> {
    fn new(all: impl Iterator<Item = std::borrow::Cow<'a, str>>, len: usize) -> Self {
        Self {
            shown: all.take(LISTED_MAX).collect(),
            more: len.saturating_sub(LISTED_MAX),
        }
    }
}
