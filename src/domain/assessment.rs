//! Assesses what a key's facts mean to the operator: its owner, its severity, and its violations.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::glob::Glob;
use crate::domain::inventory::{Entry, Inventory};
use crate::domain::key::Key;
use crate::domain::listing::Listing;
use crate::domain::policy::{Limits, Policies};

/// Everything an assessment depends on besides the key and the time: one value, always replaced as
/// a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssessmentRules {
    /// The operator's entries about single keys.
    pub inventory: Inventory,
    /// How early keys alert.
    pub thresholds: Thresholds,
    /// The policies that keys must comply with.
    pub policy: Limits,
    /// For each account, the scopes that count as privileged unless the policy says otherwise.
    pub privileged_scopes: BTreeMap<Box<str>, Box<[Glob]>>,
}

/// `[thresholds]` of the configuration. No duration is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// A key is in its warning threshold from this long before its expiry.
    pub warning: TimeDelta,
    /// A key is critical from this long before its expiry; not more than `warning`.
    pub critical: TimeDelta,
    /// The warning threshold of the key that the exporter itself uses.
    pub own_warning: TimeDelta,
    /// The critical threshold of the key that the exporter itself uses.
    pub own_critical: TimeDelta,
    /// Largest fraction of a key's lifetime that `warning` may take, above 0; the other three
    /// shrink by the same factor.
    pub lifetime_fraction: f64,
    /// The warning threshold of every key, whatever the others are: for one run of a command.
    pub warning_of_all: Option<TimeDelta>,
    /// The critical threshold of every key, likewise.
    pub critical_of_all: Option<TimeDelta>,
}

/// Where a threshold of a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThresholdSource {
    /// It applies to every key.
    OfAll,
    /// The key's inventory entry.
    Entry,
    /// The other threshold: the critical one never exceeds the warning.
    Other,
    /// The configured threshold for keys in general.
    Usual,
    /// The configured threshold, shortened because the key lives only for so long.
    Lifetime(TimeDelta),
}

/// How long before its expiry one key alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The warning threshold.
    pub warning: TimeDelta,
    /// The critical threshold; not more than `warning`.
    pub critical: TimeDelta,
}

/// How close a key is to its expiry, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Outside all thresholds, or without a readable expiry.
    None,
    /// Inside the warning threshold.
    Warning,
    /// Inside the critical threshold.
    Critical,
    /// Past its expiry.
    Expired,
}

/// The assessment of one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment<'a> {
    /// The index of the matching inventory entry.
    pub entry_index: Option<usize>,
    /// That entry.
    pub entry: Option<&'a Entry>,
    /// How early it alerts.
    pub notice: Notice,
    /// How close its expiry is.
    pub severity: Severity,
    /// Whether its alerts are muted.
    pub is_muted: bool,
    /// The policies that it violates, without exemptions.
    pub broken: Policies,
}

/// A key that moved closer to its expiry than at the last check.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing<'a> {
    /// The key.
    pub key: &'a Key,
    /// Its current assessment.
    pub assessment: Assessment<'a>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            // A month leaves time for a change that needs a release; a week still contains working
            // days.
            warning: TimeDelta::days(30),
            critical: TimeDelta::days(7),
            // Twice that: without this key the exporter loses visibility of all others.
            own_warning: TimeDelta::days(60),
            own_critical: TimeDelta::days(14),
            lifetime_fraction: 0.25,
            warning_of_all: None,
            critical_of_all: None,
        }
    }
}

impl Thresholds {
    /// The notice for `key`. Thresholds from its inventory entry apply as they are. If the entry
    /// sets only one, the other never precedes the warning, nor follows the critical one, that it
    /// sets.
    pub fn notice(&self, key: &Key, entry: Option<&Entry>) -> Notice {
        let [(warning, _), (critical, _)] = self.with_sources(key, entry);
        Notice { warning, critical }
    }

    /// The warning and the critical threshold of `key`, as in its notice, and the source of each.
    pub fn with_sources(
        &self,
        key: &Key,
        entry: Option<&Entry>,
    ) -> [(TimeDelta, ThresholdSource); 2] {
        let usual = if key.is_own {
            (self.own_warning, self.own_critical)
        } else {
            (self.warning, self.critical)
        };
        let said = |of_all: Option<TimeDelta>, of_entry: Option<TimeDelta>| {
            let of_all = of_all.map(|it| (it, ThresholdSource::OfAll));
            of_all.or(of_entry.map(|it| (it, ThresholdSource::Entry)))
        };
        let scale = self.scale(key);
        let shrunk = |usual| {
            let source = match key.lifetime() {
                Some(lifetime) if scale < 1.0 => ThresholdSource::Lifetime(lifetime),
                _ => ThresholdSource::Usual,
            };
            (shrink(usual, scale), source)
        };
        let entry = (
            entry.and_then(|entry| entry.warning),
            entry.and_then(|entry| entry.critical),
        );
        let warning = said(self.warning_of_all, entry.0).unwrap_or_else(|| shrunk(usual.0));
        let critical = said(self.critical_of_all, entry.1).unwrap_or_else(|| shrunk(usual.1));
        if critical.0 <= warning.0 {
            return [warning, critical];
        }
        // They were set in different places; the more specific one applies as it is.
        let other = |it: TimeDelta| (it, ThresholdSource::Other);
        match (warning.1, critical.1) {
            (_, ThresholdSource::OfAll)
            | (ThresholdSource::Usual | ThresholdSource::Lifetime(_), ThresholdSource::Entry) => {
                [other(critical.0), critical]
            }
            _ => [warning, other(warning.0)],
        }
    }

    /// The factor by which the thresholds shrink for a short-lived key; 1 leaves them unchanged.
    fn scale(&self, key: &Key) -> f64 {
        let Some(lifetime) = key.lifetime() else {
            return 1.0;
        };
        let most = lifetime.num_seconds() as f64 * self.lifetime_fraction;
        (most / (self.warning.num_seconds().max(1) as f64)).min(1.0)
    }
}

impl Notice {
    /// How close `key` is to its expiry at `now`. The expiry of a disabled key is ignored.
    pub fn severity(self, key: &Key, now: DateTime<Utc>) -> Severity {
        let Some(left) = key.time_left(now).filter(|_| !key.is_disabled) else {
            return Severity::None;
        };
        if key.is_expired(now) {
            Severity::Expired
        } else if left <= self.critical {
            Severity::Critical
        } else if left <= self.warning {
            Severity::Warning
        } else {
            Severity::None
        }
    }
}

impl AssessmentRules {
    /// Assesses a key of `account` at `now`.
    pub fn assess(&self, account: &str, key: &Key, now: DateTime<Utc>) -> Assessment<'_> {
        let entry_index = self.inventory.find(account, key);
        let entry = entry_index.and_then(|index| self.inventory.entries().get(index));
        let notice = self.thresholds.notice(key, entry);
        let exempt = entry.map(|entry| entry.exempt).unwrap_or_default();
        Assessment {
            entry_index,
            entry,
            notice,
            severity: notice.severity(key, now),
            is_muted: entry.is_some_and(|entry| entry.is_muted(now)),
            broken: self
                .policy
                .broken(key, now, self.usual_scopes(account))
                .without(exempt),
        }
    }

    /// The scopes that count as privileged in `account` unless the policy says otherwise.
    pub fn usual_scopes(&self, account: &str) -> &[Glob] {
        self.privileged_scopes
            .get(account)
            .map(|scopes| &**scopes)
            .unwrap_or_default()
    }

    /// The times at which the mute state or the policy violations of a key with this assessment
    /// change without a poll.
    pub fn turning_points(
        &self,
        key: &Key,
        assessment: &Assessment<'_>,
    ) -> impl Iterator<Item = DateTime<Utc>> {
        let unmuted = assessment.entry.and_then(|entry| entry.muted_until);
        self.policy.turning_points(key).chain(unmuted)
    }

    /// The keys of `account` in `listing` that moved closer to their expiry since the last check:
    /// compared with those of `before`, as of its time. A key that was not listed then counts as
    /// outside all thresholds. Depends on nothing else, so it is enough to save a listing and its
    /// time.
    pub fn crossings<'a>(
        &'a self,
        account: &'a str,
        before: Option<(&'a Listing, DateTime<Utc>)>,
        listing: &'a Listing,
        now: DateTime<Utc>,
    ) -> impl Iterator<Item = Crossing<'a>> {
        let longest = self.longest_notice();
        let is_near = move |key: &&Key| key.time_left(now).is_some_and(|left| left <= longest);
        // Nearly all keys are far from their expiry and need only this check.
        listing
            .keys()
            .iter()
            .filter(is_near)
            .filter_map(move |key| {
                let severity_before = before.and_then(|(listing, then)| {
                    let key = listing.get(key.id.as_str())?;
                    Some(self.severity(account, key, then))
                });
                let is_nearer =
                    self.severity(account, key, now) > severity_before.unwrap_or(Severity::None);
                is_nearer.then(|| Crossing {
                    key,
                    assessment: self.assess(account, key, now),
                })
            })
    }

    fn severity(&self, account: &str, key: &Key, now: DateTime<Utc>) -> Severity {
        let entry = self.inventory.find(account, key);
        let entry = entry.and_then(|index| self.inventory.entries().get(index));
        self.thresholds.notice(key, entry).severity(key, now)
    }

    /// No key alerts earlier than this before its expiry.
    fn longest_notice(&self) -> TimeDelta {
        let entries = self.inventory.entries().iter();
        let said = entries.flat_map(|entry| [entry.warning, entry.critical]);
        let thresholds = &self.thresholds;
        let usual = thresholds.warning.max(thresholds.own_warning);
        let of_all = [thresholds.warning_of_all, thresholds.critical_of_all];
        let said = said.chain(of_all);
        said.flatten().fold(usual, TimeDelta::max)
    }
}

impl<'a> Assessment<'a> {
    /// The display name of `key`: the inventory's name, else its label.
    pub fn name(&self, key: &'a Key) -> Option<&'a str> {
        let said = self.entry.and_then(|entry| entry.name.as_deref());
        said.or(key.label.as_deref())
    }

    /// The owner of the key.
    pub fn team(&self) -> Option<&'a str> {
        self.entry.and_then(|entry| entry.team.as_deref())
    }
}

/// Whole seconds, rounded down.
fn shrink(threshold: TimeDelta, scale: f64) -> TimeDelta {
    if scale >= 1.0 {
        return threshold;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product of a threshold and a part of 1 is smaller than the threshold"
    )]
    let seconds = (threshold.num_seconds() as f64 * scale).floor() as i64;
    TimeDelta::seconds(seconds)
}

#[cfg(test)]
mod tests;
