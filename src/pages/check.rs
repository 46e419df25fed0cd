//! What `check` found: the chosen keys, worst first, the accounts, and the status. Pure.
//!
//! [`table`](super::table), [`nagios`](super::nagios) and the JSON document show it.

use std::cmp::Reverse;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::domain::alerts::{self, AlertSeverity};
use crate::domain::assessment::Severity;
use crate::domain::listing::Reject;
use crate::domain::span;
use crate::pages::json::{self, AccountJson, KeyJson};
use crate::pages::rows::{AccountRow, KeyRow, Overview};
use crate::pages::words;

/// How a key, an account or a whole check turned out, with the exit code that monitoring plugins
/// use. In ascending order: an account that could not be listed never hides a critical key, and is
/// never hidden by a key that merely needs attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Ok,
    /// A key is inside its warning threshold, or needs attention for another reason.
    Warning,
    /// Something could not be found out.
    Unknown,
    /// A key is inside its critical threshold, or expired.
    Critical,
}

/// Which keys are checked; all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Only keys of these teams, unless empty.
    pub teams: Vec<String>,
    /// Only keys that have expired or expire within this time, or may do so: their expiry cannot be
    /// read.
    pub within: Option<TimeDelta>,
}

/// What a check found.
#[derive(Debug)]
pub struct Check<'a> {
    /// The states that were checked; its `now` is the moment as of which they are judged.
    pub overview: &'a Overview,
    /// The chosen keys with their status, worst first.
    pub keys: Vec<(KeyRow<'a>, Status)>,
    /// How many keys the chosen teams have, whenever they expire.
    pub total: usize,
    /// The time within which the chosen keys expire.
    pub within: Option<TimeDelta>,
    /// The worst status.
    pub status: Status,
    /// How many keys there are of each kind.
    pub counts: Counts,
}

/// How many of the chosen keys are of each kind. Keys that do not alert count in no kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Expired keys.
    pub expired: usize,
    /// Keys inside their critical threshold.
    pub critical: usize,
    /// Keys inside their warning threshold only.
    pub warning: usize,
    /// Keys with an expiry that cannot be read.
    pub unreadable: usize,
    /// Keys that break a policy.
    pub policy: usize,
    /// Keys with a successor that are still used near their expiry or after it.
    pub superseded_in_use: usize,
    /// Accounts that could not be listed.
    pub failed_accounts: usize,
    /// Entries of listings that could not be used, or not as a whole.
    pub rejected_entries: usize,
}

impl Status {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    /// The word for it, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

impl Choice {
    fn has_team_of(&self, row: &KeyRow<'_>) -> bool {
        let is_of_team = |team: &str| self.teams.iter().any(|wanted| wanted == team);
        self.teams.is_empty() || row.team().is_some_and(is_of_team)
    }

    fn is_within(&self, row: &KeyRow<'_>) -> bool {
        self.within.is_none_or(|within| match row.time_left() {
            Some(left) => left <= within,
            None => row.key.is_expiry_unknown(),
        })
    }
}

impl<'a> Check<'a> {
    /// Checks the keys of `choice`.
    pub fn new(overview: &'a Overview, choice: &Choice) -> Self {
        let mut rows = overview.select(&super::Filter::default());
        rows.retain(|row| choice.has_team_of(row));
        let total = rows.len();
        let rows = rows.into_iter().filter(|row| choice.is_within(row));
        let mut keys: Vec<_> = rows.map(|row| (row, status(&row))).collect();
        // Stable: keys of the same status stay in the order of the pages.
        keys.sort_by_key(|(_, status)| Reverse(*status));
        let accounts = overview.accounts().map(|row| account_status(&row));
        let all = keys.iter().map(|(_, status)| *status).chain(accounts);
        Self {
            // Without accounts, nothing is known.
            status: all.max().unwrap_or(Status::Unknown),
            counts: Counts::new(&keys, overview),
            overview,
            keys,
            total,
            within: choice.within,
        }
    }

    /// The accounts that could not be listed.
    pub fn failed_accounts(&self) -> impl Iterator<Item = AccountRow<'a>> {
        let accounts = self.overview.accounts();
        accounts.filter(|row| row.is_up() != Some(true))
    }

    /// `2 critical, 1 warning, 1 account not listed; 12 keys in 2 listed accounts`.
    pub fn summary(&self) -> String {
        let Counts {
            expired,
            critical,
            warning,
            unreadable,
            policy,
            superseded_in_use,
            failed_accounts,
            rejected_entries: _,
        } = self.counts;
        let counts = [
            (expired, "expired"),
            (critical, "critical"),
            (warning, "warning"),
            (unreadable, "with an unreadable expiry"),
            (policy, "breaking a policy"),
            (superseded_in_use, "superseded but still used"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let mut parts: Vec<String> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let listings = || self.overview.states.iter().flat_map(|state| &state.held);
        let left_out = listings().flat_map(|it| Reject::ALL.map(|reason| it.left_out(reason)));
        match left_out.sum() {
            0 => {}
            count => parts.push(format!("{} left out", words::entries(count))),
        }
        match listings().map(|it| it.used_in_part().count()).sum() {
            0 => {}
            count => {
                let keys = words::count(count, "key");
                parts.push(format!("{keys} with an unreadable field"));
            }
        }
        if failed_accounts > 0 {
            let accounts = words::count(failed_accounts, "account");
            parts.push(format!("{accounts} not listed"));
        }
        if parts.is_empty() {
            let words = match self.status {
                Status::Ok => "all is well",
                Status::Unknown => "no account to list",
                Status::Warning | Status::Critical => "a key needs attention",
            };
            parts.push(words.to_owned());
        }
        // Without a listing, there may be any number of keys.
        let keys = self.keys_in_words().map(|keys| format!("; {keys}"));
        parts.join(", ") + &keys.unwrap_or_default()
    }

    /// `12 keys in 2 accounts`, `1 of 12 keys in 2 listed accounts expires within 7d`; `None` if no
    /// account was listed.
    fn keys_in_words(&self) -> Option<String> {
        let failed = self.counts.failed_accounts;
        let listed = self.overview.states.len() - failed;
        let noun = if failed > 0 {
            "listed account"
        } else {
            "account"
        };
        let accounts = words::count(listed, noun);
        let words = match self.within.map(span::words) {
            None => format!("{} in {accounts}", words::count(self.total, "key")),
            Some(within) => {
                let (chosen, total) = (self.keys.len(), self.total);
                let verb = if chosen == 1 { "expires" } else { "expire" };
                format!("{chosen} of {total} keys in {accounts} {verb} within {within}")
            }
        };
        (listed > 0).then_some(words)
    }

    /// The JSON document. `at` is the moment of `--at`.
    pub fn json(&self, generated_at: DateTime<Utc>, at: Option<DateTime<Utc>>) -> String {
        let keys = self.keys.iter().map(|(row, status)| CheckedKey {
            status: status.as_str(),
            key: json::key(row, self.overview),
        });
        let accounts = self.overview.accounts();
        let accounts = accounts.map(|row| json::account(&row, self.overview));
        let document = Document {
            generated_at: json::time(generated_at).unwrap_or_default(),
            judged_at: json::time(at.unwrap_or(generated_at)),
            status: self.status.as_str(),
            exit_code: self.status.code(),
            counts: self.counts,
            total: self.keys.len(),
            keys: keys.collect(),
            accounts: accounts.collect(),
        };
        let mut text = Vec::new();
        json::write(&mut text, &document);
        text.push(b'\n');
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Counts {
    fn new(keys: &[(KeyRow<'_>, Status)], overview: &Overview) -> Self {
        let count = |is_counted: &dyn Fn(&KeyRow<'_>) -> bool| {
            keys.iter().filter(|(row, _)| is_counted(row)).count()
        };
        let of = |severity| {
            count(&|row| alerts_at_threshold(row) && row.assessment.severity == severity)
        };
        let states = overview.states.iter();
        Self {
            expired: of(Severity::Expired),
            critical: of(Severity::Critical),
            warning: of(Severity::Warning),
            unreadable: count(&|row| row.is_expiry_unreadable()),
            policy: count(&|row| is_loud(row) && row.broken_policies().next().is_some()),
            superseded_in_use: count(&|row| {
                let alerts = alerts::alerts(row.key, &row.assessment, row.is_superseded);
                alerts.iter().any(|alert| alert.is_about_use())
            }),
            failed_accounts: overview
                .accounts()
                .filter(|row| row.is_up() != Some(true))
                .count(),
            rejected_entries: states
                .flat_map(|state| &state.held)
                .map(|held| held.rejects().total() as usize)
                .sum(),
        }
    }
}

/// Whether alerts about `row` other than those about its expiry fire.
fn is_loud(row: &KeyRow<'_>) -> bool {
    !row.assessment.is_muted && !row.key.is_disabled
}

/// Whether the expiry of `row` alerts. That of the exporter's own key always does.
fn alerts_at_threshold(row: &KeyRow<'_>) -> bool {
    !row.is_quiet() || row.key.is_own
}

/// The status of a key: the worst of its alerts. The alert about the exporter's own key is critical
/// from the warning threshold on; here, the thresholds mean the same as for other keys.
pub(super) fn status(row: &KeyRow<'_>) -> Status {
    let alerts = alerts::alerts(row.key, &row.assessment, row.is_superseded);
    let statuses = alerts.into_iter().map(|alert| {
        if alert.is_about_own_key() && row.assessment.severity == Severity::Warning {
            return Status::Warning;
        }
        match alert.severity {
            AlertSeverity::Info => Status::Ok,
            AlertSeverity::Warning => Status::Warning,
            AlertSeverity::Critical => Status::Critical,
        }
    });
    statuses.max().unwrap_or(Status::Ok)
}

/// The status of an account: whether its keys are known, all of them.
fn account_status(row: &AccountRow<'_>) -> Status {
    match (row.is_up(), &row.state.held) {
        (Some(true), Some(held)) if held.rejects().total() > 0 => Status::Warning,
        (Some(true), Some(_)) => Status::Ok,
        _ => Status::Unknown,
    }
}

/// The state of a key in one word.
pub(super) fn word(row: &KeyRow<'_>, status: Status) -> &'static str {
    match (status, row.assessment.severity) {
        (Status::Critical, Severity::Expired) => "expired",
        (Status::Ok, _) if row.key.is_disabled => "disabled",
        (Status::Ok, _) if row.is_superseded => "superseded",
        (Status::Ok, _) if row.assessment.is_muted => "muted",
        (Status::Ok | Status::Warning | Status::Critical | Status::Unknown, _) => status.as_str(),
    }
}

/// Why an account could not be listed:
/// `unauthorized (HTTP 401): Authentication failed (support_id support_1)`.
pub(super) fn failure(row: &AccountRow<'_>) -> String {
    let Some(failure) = row.last_failure().map(|last| &last.failure) else {
        return "no poll yet".to_owned();
    };
    let mut words = failure.reason.as_str().to_owned();
    let mut add = |text: fmt::Arguments<'_>| words.push_str(&text.to_string());
    if let Some(status) = failure.http_status {
        add(format_args!(" (HTTP {status})"));
    }
    if let Some(error) = &failure.error {
        add(format_args!(": {}", error.as_str()));
    }
    if let Some(id) = &failure.support_id {
        add(format_args!(" (support_id {})", id.as_str()));
    }
    words
}

/// The JSON document of a check.
#[derive(Debug, Serialize)]
struct Document<'a> {
    generated_at: String,
    judged_at: Option<String>,
    status: &'static str,
    exit_code: u8,
    counts: Counts,
    total: usize,
    keys: Vec<CheckedKey<'a>>,
    accounts: Vec<AccountJson<'a>>,
}

#[derive(Debug, Serialize)]
struct CheckedKey<'a> {
    status: &'static str,
    #[serde(flatten)]
    key: KeyJson<'a>,
}
