//! What a key's facts mean to the operator: whose it is, how urgent, and what it breaks.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::glob::Glob;
use crate::domain::inventory::{Entry, Inventory};
use crate::domain::key::Key;
use crate::domain::listing::Listing;
use crate::domain::policy::{Limits, Policies};

/// All that a judgement depends on besides the key and the time: one value, replaced whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssessmentRules {
    /// What the operator says of single keys.
    pub inventory: Inventory,
    /// How much notice keys need.
    pub thresholds: Thresholds,
    /// What keys must not be.
    pub policy: Limits,
    /// For each account, the scopes that count as privileged unless the policy says otherwise.
    pub privileged_scopes: BTreeMap<Box<str>, Box<[Glob]>>,
}

/// `[thresholds]` of the configuration. No time is negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// From this long before its end a key is urgent.
    pub warning: TimeDelta,
    /// And from this long critical; not more than `warning`.
    pub critical: TimeDelta,
    /// The same for the key that the exporter itself uses.
    pub own_warning: TimeDelta,
    /// Likewise.
    pub own_critical: TimeDelta,
    /// Most part of a key's lifetime that `warning` may take, above 0; the other three shrink as
    /// much as it does.
    pub lifetime_fraction: f64,
}

/// How long before its end one key should alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The first time.
    pub warning: TimeDelta,
    /// The last time; not more than `warning`.
    pub critical: TimeDelta,
}

/// How near a key is to its end, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Far away, or it has no readable end.
    None,
    /// Inside the warning threshold.
    Warning,
    /// Inside the critical threshold.
    Critical,
    /// Past its end.
    Expired,
}

/// One key, judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assessment<'a> {
    /// The number of the inventory's entry about it.
    pub entry_index: Option<usize>,
    /// That entry.
    pub entry: Option<&'a Entry>,
    /// How much notice it needs.
    pub notice: Notice,
    /// How near its end is.
    pub severity: Severity,
    /// Whether alerts about it are unwanted.
    pub is_muted: bool,
    /// What it breaks, exemptions left out.
    pub broken: Policies,
}

/// A key that came nearer to its end than it was when last looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing<'a> {
    /// The key.
    pub key: &'a Key,
    /// How it stands now.
    pub assessment: Assessment<'a>,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            // A month is time for a change that needs a release; a week still has working days in
            // it.
            warning: TimeDelta::days(30),
            critical: TimeDelta::days(7),
            // Twice that: with this key the exporter goes blind to all others.
            own_warning: TimeDelta::days(60),
            own_critical: TimeDelta::days(14),
            lifetime_fraction: 0.25,
        }
    }
}

impl Thresholds {
    /// The notice for `key`. What the inventory says of it is taken as it is; one threshold that it
    /// leaves out never comes before the warning, nor after the critical one, that it names.
    pub fn notice(&self, key: &Key, entry: Option<&Entry>) -> Notice {
        let (warning, critical) = if key.is_own {
            (self.own_warning, self.own_critical)
        } else {
            (self.warning, self.critical)
        };
        let scale = self.scale(key);
        let said = (
            entry.and_then(|entry| entry.warning),
            entry.and_then(|entry| entry.critical),
        );
        let (warning, critical) = (shrink(warning, scale), shrink(critical, scale));
        let (warning, critical) = match said {
            (Some(warning), Some(critical)) => (warning, critical),
            (Some(warning), None) => (warning, critical.min(warning)),
            (None, Some(critical)) => (warning.max(critical), critical),
            (None, None) => (warning, critical),
        };
        Notice { warning, critical }
    }

    /// By how much the thresholds shrink for a key that lives a short time: 1 is not at all.
    fn scale(&self, key: &Key) -> f64 {
        let Some(lifetime) = key.lifetime() else {
            return 1.0;
        };
        let most = lifetime.num_seconds() as f64 * self.lifetime_fraction;
        (most / (self.warning.num_seconds().max(1) as f64)).min(1.0)
    }
}

impl Notice {
    /// How near `key` is to its end at `now`. A disabled key has no end that matters.
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
    /// Judges a key of `account` at `now`.
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

    fn usual_scopes(&self, account: &str) -> &[Glob] {
        self.privileged_scopes
            .get(account)
            .map(|scopes| &**scopes)
            .unwrap_or_default()
    }

    /// The moments at which what is muted, or which policies are broken, changes by itself for a
    /// key with this assessment.
    pub fn turning_points(
        &self,
        key: &Key,
        assessment: &Assessment<'_>,
    ) -> impl Iterator<Item = DateTime<Utc>> {
        let unmuted = assessment.entry.and_then(|entry| entry.muted_until);
        self.policy.turning_points(key).chain(unmuted)
    }

    /// The keys of `account` in `listing` that came nearer to their end since they were last looked
    /// at: those of `before`, as of its time. A key that was not there then was far from its end.
    /// Depends on nothing else, so that a saved listing and its time are all that has to be kept.
    pub fn crossings<'a>(
        &'a self,
        account: &'a str,
        before: Option<(&'a Listing, DateTime<Utc>)>,
        listing: &'a Listing,
        now: DateTime<Utc>,
    ) -> impl Iterator<Item = Crossing<'a>> {
        let longest = self.longest_notice();
        let is_near = move |key: &&Key| key.time_left(now).is_some_and(|left| left <= longest);
        // Nearly all keys are far from their end, and need no more than that look.
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

    /// No key alerts earlier than this before its end.
    fn longest_notice(&self) -> TimeDelta {
        let entries = self.inventory.entries().iter();
        let said = entries.flat_map(|entry| [entry.warning, entry.critical]);
        let usual = self.thresholds.warning.max(self.thresholds.own_warning);
        said.flatten().fold(usual, TimeDelta::max)
    }
}

impl<'a> Assessment<'a> {
    /// What people call `key`: the inventory's name, else its label.
    pub fn name(&self, key: &'a Key) -> Option<&'a str> {
        let said = self.entry.and_then(|entry| entry.name.as_deref());
        said.or(key.label.as_deref())
    }

    /// Whose the key is.
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
