//! The answer of `explain`: every fact about a key, every judgement with its reason and the option
//! or inventory entry that it comes from, and its alerts. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::alerts::{self, Alert, Subject};
use crate::domain::allow_list::Ipv6Count;
use crate::domain::assessment::{Severity, ThresholdSource};
use crate::domain::inventory::Entry;
use crate::domain::key::{Expiry, LastUse, Mode, Scopes};
use crate::domain::policy::Policy;
use crate::domain::span;
use crate::pages::check::{self, Status};
use crate::pages::rows::{KeyRow, Overview};
use crate::pages::words;

/// Where the configuration says what applies to a key.
#[derive(Debug, Default)]
pub struct Origins {
    /// For each option, `section.name`, its value and its origin in words.
    pub options: HashMap<String, String>,
    /// For each inventory entry, in order, where it is.
    pub entries: Vec<String>,
}

/// The width of the terms before their meaning.
const TERM_WIDTH: usize = 18;

/// Everything about the key of `row`; and its status.
pub fn explain(overview: &Overview, row: &KeyRow<'_>, origins: &Origins) -> (String, Status) {
    let status = check::status(row);
    let mut out = Answer(String::new());
    let word = check::word(row, status);
    out.line(format_args!("{}: {word}", row.title()));
    out.line(format_args!(
        "as of {}; listed {}",
        words::minute(overview.now),
        row.account
            .last_success_at
            .map_or("never".to_owned(), words::minute),
    ));
    facts(&mut out, overview, row);
    inventory(&mut out, row, origins);
    expiry(&mut out, overview, row, origins);
    policies(&mut out, overview, row, origins);
    key_alerts(&mut out, overview, row);
    (out.0, status)
}

/// The text as it grows.
struct Answer(String);

impl Answer {
    fn line(&mut self, words: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{words}").expect("writing to a String cannot fail");
    }

    fn heading(&mut self, words: &str) {
        self.line(format_args!("\n{words}"));
    }

    fn row(&mut self, term: &str, meaning: impl AsRef<str>) {
        let meaning = meaning.as_ref();
        self.line(format_args!("  {term:TERM_WIDTH$} {meaning}"));
    }

    fn optional(&mut self, term: &str, meaning: Option<impl AsRef<str>>) {
        if let Some(meaning) = meaning {
            self.row(term, meaning);
        }
    }
}

impl Origins {
    fn option(&self, path: &str) -> String {
        let known = self.options.get(path);
        known.map_or_else(|| path.to_owned(), |words| format!("{path} {words}"))
    }

    /// Whether the option at `path` exists without a value.
    fn is_unset(&self, path: &str) -> bool {
        let known = self.options.get(path);
        known.is_some_and(|words| !words.starts_with('='))
    }

    /// What says which scopes are privileged: the policy, else the definition of the provider.
    fn privileged_scopes(&self, overview: &Overview, row: &KeyRow<'_>) -> String {
        let of_provider = format!("providers.{}.privileged_scopes", row.provider());
        let of_policy = &overview.rules.policy.privileged_scopes;
        if of_policy.is_none() && self.options.contains_key(&of_provider) {
            self.option(&of_provider)
        } else if of_policy.is_none() && !overview.rules.usual_scopes(row.account_name()).is_empty()
        {
            format!("the built-in list of {}", row.provider())
        } else {
            self.option("policy.privileged_scopes")
        }
    }

    fn entry(&self, row: &KeyRow<'_>) -> String {
        let index = row.assessment.entry_index;
        let known = index.and_then(|index| self.entries.get(index));
        known.cloned().unwrap_or_else(|| "the inventory".to_owned())
    }
}

fn facts(out: &mut Answer, overview: &Overview, row: &KeyRow<'_>) {
    let (key, now) = (row.key, overview.now);
    out.heading("Facts");
    out.row("id", key.id.as_str());
    out.row("account", row.account_name());
    out.row("provider", row.provider());
    out.optional("environment", row.api_env());
    out.optional("label", key.label.as_deref());
    out.optional("organization", key.organization_id.as_deref());
    out.optional("mode", key.mode.map(Mode::as_str));
    if key.is_own {
        out.row("own", "the exporter lists the account with this key");
    }
    if key.is_disabled {
        out.row(
            "disabled",
            "the provider reports it as revoked, disabled or inactive",
        );
    }
    let expires = match key.expiry {
        Expiry::At(end) => moment(end, now),
        Expiry::Never => "never".to_owned(),
        Expiry::Unknown => "unknown".to_owned(),
    };
    out.row("expires", expires);
    if key.is_expiry_unknown() {
        out.row(
            "expires_at",
            "the API lists an expiry that cannot be read as a time",
        );
    }
    out.optional("created", key.created_at.map(|at| moment(at, now)));
    out.optional("updated", key.updated_at.map(|at| moment(at, now)));
    let scopes: Vec<&str> = key.scopes.iter().flat_map(Scopes::iter).collect();
    let scopes = match &key.scopes {
        None => "unknown".to_owned(),
        Some(_) if scopes.is_empty() => "none".to_owned(),
        Some(_) => scopes.join(", "),
    };
    out.row("scopes", scopes);
    let list = key.allow_list.as_ref().map(|list| {
        let networks = list.networks().iter().map(ToString::to_string);
        let mut networks: Vec<String> = networks.collect();
        match list.invalid_entries() {
            0 => {}
            1 => networks.push("1 invalid entry".to_owned()),
            count => networks.push(format!("{count} invalid entries")),
        }
        if networks.is_empty() {
            "empty: every address may use the key".to_owned()
        } else {
            networks.join(", ")
        }
    });
    out.row(
        "IP allow list",
        list.unwrap_or_else(|| "unknown".to_owned()),
    );
    match &key.details {
        None => out.row("details", "not read"),
        Some(details) => {
            out.row(
                "last used",
                match details.last_use {
                    LastUse::At(at) => moment(at, now),
                    LastUse::Never => "never".to_owned(),
                    LastUse::Unknown => "unknown".to_owned(),
                },
            );
            out.optional("requests", details.requests.map(|count| count.to_string()));
        }
    }
}

fn inventory(out: &mut Answer, row: &KeyRow<'_>, origins: &Origins) {
    out.heading("Inventory");
    let Some(entry) = row.assessment.entry else {
        out.row("entry", "no entry matches the key");
        return;
    };
    let Entry {
        name,
        team,
        rotate_url,
        runbook_url,
        muted_until,
        ..
    } = entry;
    out.row("entry", origins.entry(row));
    out.row("match", entry.pattern.as_str());
    out.optional("name", name.as_deref());
    out.optional("team", team.as_deref());
    out.optional("rotate_url", rotate_url.as_deref());
    out.optional("runbook_url", runbook_url.as_deref());
    let reason = entry.reason.as_deref().unwrap_or_default();
    if let Some(until) = muted_until {
        let state = if row.assessment.is_muted {
            "its alerts are muted"
        } else {
            "the mute has ended"
        };
        let until = words::minute(*until);
        out.row("muted_until", format!("{until}: {state} ({reason})"));
    }
    let exempt: Vec<&str> = row.exemptions().map(Policy::as_str).collect();
    if !exempt.is_empty() {
        out.row("exempt", format!("{} ({reason})", exempt.join(", ")));
    }
}

fn expiry(out: &mut Answer, overview: &Overview, row: &KeyRow<'_>, origins: &Origins) {
    out.heading("Expiry");
    let notice = row.assessment.notice;
    let (left, severity) = (row.time_left(), row.assessment.severity);
    let judgement = match (left, severity) {
        _ if row.key.is_disabled => "a disabled key does not alert".to_owned(),
        (None, _) if row.key.is_expiry_unknown() => {
            "cannot be read, so no alert about it can fire".to_owned()
        }
        (None, _) => "never expires".to_owned(),
        (Some(left), Severity::Expired) => words::expires(left),
        (Some(left), severity) => {
            let what = match severity {
                Severity::Critical => "inside the critical threshold",
                Severity::Warning => "inside the warning threshold",
                Severity::None | Severity::Expired => "outside the thresholds",
            };
            format!("{}: {what}", words::expires(left))
        }
    };
    out.row("judgement", judgement);
    let thresholds = overview.rules.thresholds;
    let [warning, critical] = thresholds.with_sources(row.key, row.assessment.entry);
    debug_assert_eq!((warning.0, critical.0), (notice.warning, notice.critical));
    // The critical threshold is never longer than the warning threshold.
    for (option, (threshold, source), changed, other) in [
        ("warning", warning, "raised", "critical"),
        ("critical", critical, "lowered", "warning"),
    ] {
        let own = if row.key.is_own { "own_" } else { "" };
        let usual = || origins.option(&format!("thresholds.{own}{option}"));
        let source = match source {
            ThresholdSource::OfAll => format!("--{option}"),
            ThresholdSource::Entry => format!("{option} of {}", origins.entry(row)),
            ThresholdSource::Other => format!("{changed} to the {other} threshold"),
            ThresholdSource::Usual => usual(),
            ThresholdSource::Lifetime(lifetime) => format!(
                "{}, shortened for a lifetime of {} by {}",
                usual(),
                span::words(lifetime),
                origins.option("thresholds.lifetime_fraction")
            ),
        };
        let from = left.and_then(|left| (overview.now + left).checked_sub_signed(threshold));
        let from = from.map(|from| format!(", from {}", words::minute(from)));
        out.row(
            option,
            format!(
                "{}{}: {source}",
                span::words(threshold),
                from.unwrap_or_default()
            ),
        );
    }
    let successors = overview.successors(row);
    for successor in &successors {
        let created = successor.key.created_at.map(words::minute);
        let expires = match successor.key.expiry {
            Expiry::At(end) => format!("expires {}", words::minute(end)),
            Expiry::Never | Expiry::Unknown => "never expires".to_owned(),
        };
        out.row(
            "superseded by",
            format!(
                "{}: the same name and mode, created {}, {expires}",
                successor.key.id,
                created.unwrap_or_default(),
            ),
        );
    }
    if successors.is_empty() {
        let why = match row.name() {
            None => "none: a key without a name has no successor",
            Some(_) => "none: no newer key of this exact name and mode expires later",
        };
        out.row("successor", why);
    }
}

fn policies(out: &mut Answer, overview: &Overview, row: &KeyRow<'_>, origins: &Origins) {
    out.heading("Policies");
    let (rules, key, now) = (&overview.rules, row.key, overview.now);
    let limits = &rules.policy;
    let usual = rules.usual_scopes(row.account_name());
    let before_exemptions = limits.broken(key, now, usual);
    let exempt: Vec<Policy> = row.exemptions().collect();
    for policy in Policy::ALL {
        let (option, is_off, why) = reason(policy, overview, row);
        let option = if policy == Policy::PrivilegedScope {
            origins.privileged_scopes(overview, row)
        } else {
            origins.option(&format!("policy.{option}"))
        };
        let last_use = format!("providers.{}.last_used_at", row.provider());
        let verdict = if before_exemptions.contains(policy) {
            let why = why.unwrap_or_default();
            if exempt.contains(&policy) {
                format!("exempt by {}: {why}", origins.entry(row))
            } else {
                format!("broken: {why}")
            }
        } else if is_off {
            "off".to_owned()
        } else if key.is_disabled {
            "kept: a disabled key breaks no policy".to_owned()
        } else if let Some(why) = why {
            format!("kept: {why}")
        } else if policy == Policy::Unused && origins.is_unset(&last_use) {
            format!("not known: {last_use} is not set")
        } else {
            "not known: the API does not say, or not readably".to_owned()
        };
        out.row(policy.as_str(), format!("{verdict} ({option})"));
    }
}

/// The option of a policy, whether it is off, and why a key breaks or keeps it, if that is known.
fn reason(
    policy: Policy,
    overview: &Overview,
    row: &KeyRow<'_>,
) -> (&'static str, bool, Option<String>) {
    let (limits, key, now) = (&overview.rules.policy, row.key, overview.now);
    let list = key.allow_list.as_ref();
    match policy {
        Policy::NeverExpires => {
            let why = match key.expiry {
                Expiry::Never => Some("the key has no expiry"),
                Expiry::At(_) => Some("the key expires"),
                Expiry::Unknown => None,
            };
            let why = why.map(str::to_owned);
            ("never_expires", !limits.never_expires, why)
        }
        Policy::NoIpAllowList => {
            let why = list.map(|list| {
                let why = if list.is_unrestricted() {
                    "the allow list is empty or allows all of an address family"
                } else {
                    "the allow list restricts the key"
                };
                why.to_owned()
            });
            let is_off = !limits.no_ip_allow_list;
            ("no_ip_allow_list", is_off, why)
        }
        Policy::WideIpAllowList => {
            let why = list.map(|list| match list.ipv6_addresses() {
                Ipv6Count::All => "every address may use the key".to_owned(),
                Ipv6Count::Some(ipv6) => {
                    let count = ipv6.saturating_add(list.ipv4_addresses().into());
                    format!("addresses that may use the key: {count}")
                }
            });
            let is_off = limits.max_allowed_addresses.is_none();
            ("max_allowed_addresses", is_off, why)
        }
        Policy::PrivilegedScope => {
            let usual = overview.rules.usual_scopes(row.account_name());
            let scopes: Vec<&str> = limits.privileged_scopes_of(key, usual).collect();
            let why = match (scopes.is_empty(), &key.scopes) {
                (true, None) => None,
                (true, Some(_)) => Some("no scope is privileged".to_owned()),
                (false, _) => Some(scopes.join(", ")),
            };
            let is_off = limits
                .privileged_scopes
                .as_deref()
                .unwrap_or(usual)
                .is_empty();
            ("privileged_scopes", is_off, why)
        }
        Policy::TooOld => {
            let why = key
                .created_at
                .map(|at| format!("created {}", moment(at, now)));
            let is_off = limits.max_age.is_none();
            ("max_age", is_off, why)
        }
        Policy::LifetimeTooLong => {
            let why = key.lifetime();
            let why = why.map(|it| format!("a lifetime of {}", span::words(it)));
            let is_off = limits.max_lifetime.is_none();
            ("max_lifetime", is_off, why)
        }
        Policy::Unused => {
            let why = match row.last_use() {
                LastUse::At(at) => Some(format!("last used {}", moment(at, now))),
                LastUse::Never => Some("never used".to_owned()),
                LastUse::Unknown => None,
            };
            ("max_unused", limits.max_unused.is_none(), why)
        }
    }
}

fn key_alerts(out: &mut Answer, overview: &Overview, row: &KeyRow<'_>) {
    out.heading("Alerts (deploy/prometheus/rules.yml)");
    let now = overview.now;
    let subject = Subject {
        rules: &overview.rules,
        account: row.account_name(),
        key: row.key,
        is_superseded: row.is_superseded,
    };
    let firing = alerts::alerts(row.key, &row.assessment, row.is_superseded);
    for alert in &firing {
        let since = subject.since(*alert, now);
        let since = since.map(|at| format!(", since {}", moment(at, now)));
        out.row(
            "now",
            format!(
                "{}{}; waits {} before it fires",
                name(*alert),
                since.unwrap_or_default(),
                span::words(alert.wait),
            ),
        );
    }
    if firing.is_empty() {
        out.row("now", "none");
    }
    match subject.next(now) {
        None => out.row("next", "none, as long as nothing about the key changes"),
        Some((at, alerts)) => {
            for alert in alerts {
                out.row("next", format!("{} at {}", name(alert), moment(at, now)));
            }
        }
    }
}

/// `ApiKeyPolicyBroken (warning, policy too_old)`.
fn name(alert: Alert) -> String {
    let policy = alert
        .policy
        .map(|policy| format!(", policy {}", policy.as_str()));
    let severity = alert.severity.as_str();
    format!("{} ({severity}{})", alert.name, policy.unwrap_or_default())
}

/// `2026-01-31 09:15 UTC (in 5 days)`.
fn moment(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let span: TimeDelta = at - now;
    format!("{} ({})", words::minute(at), words::from_now(span))
}
