//! What a poll found out, as facts: the input of the log, and of anything else that reports on
//! accounts and keys.
//!
//! Events own their data and are few: an account with more changes than [`CHANGES_MAX`] yields that
//! many, and the number of those left out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ipnet::IpNet;

use crate::domain::allow_list::AllowList;
use crate::domain::assessment::{Assessment, AssessmentRules, Crossing, Severity};
use crate::domain::changes::{Change, KeyChange};
use crate::domain::failure::Failure;
use crate::domain::key::{Expiry, Key, KeyId, Scopes};
use crate::domain::listing::Rejects;
use crate::domain::text::{Label, Line, join_truncated};

/// Most changed keys reported individually for a poll: a busy day's work. An API that invents new
/// ids at each poll must not fill a disk.
pub const CHANGES_MAX: usize = 20;

/// Most crossed thresholds reported individually for a poll. The first poll of an account with a
/// thousand expired keys must not fill the log.
pub const CROSSINGS_MAX: usize = 50;

/// Most urgent keys named in the daily summary: what fits a readable line.
pub const URGENT_MAX: usize = 10;

/// A fact about one account, as of the end of a poll or of a request for details.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The poll failed.
    PollFailed(Box<Failure>),
    /// The poll returned a listing, whether it is held back or not.
    PollSucceeded {
        /// Keys in the listing.
        keys: usize,
        /// Entries that were rejected.
        rejected: u32,
    },
    /// The poll succeeded after failures.
    PollRecovered {
        /// Keys in the listing.
        keys: usize,
        /// Failed polls in a row before it.
        failures: u64,
    },
    /// The first poll since the start returned a listing.
    FirstListing {
        /// Keys in the listing.
        keys: usize,
    },
    /// The listing has unusable entries, and the counts differ from those of the last listing.
    EntriesRejected {
        /// How many, by reason.
        rejects: Rejects,
        /// The first ids of the entries that have one.
        key_ids: Option<String>,
    },
    /// The listing lost most keys and is not used until it is confirmed.
    ListingHeldBack {
        /// Keys of the listing that stays in use.
        held: usize,
        /// Keys of the new listing.
        listed: usize,
        /// Such listings in a row, this one included.
        seen: u32,
        /// Such listings in a row that are needed for confirmation.
        needed: u32,
    },
    /// The listing was read with a different token and has none of its keys: it belongs to another
    /// organization, and replaces the current listing at once.
    OrganizationChanged {
        /// Keys of the listing that was in use.
        held: usize,
        /// Keys of the new listing.
        listed: usize,
    },
    /// Keys are no longer listed because they expired. They are kept as expired for a while.
    KeysUnlisted {
        /// How many.
        keys: usize,
        /// The first of them.
        key_ids: Option<String>,
    },
    /// The last success was in the future: the clock was set back since, or it was ahead when the
    /// listing was saved. The last success is set to now.
    ClockSetBack {
        /// How far in the future.
        by: TimeDelta,
    },
    /// The keys within their thresholds, once a day and after each start.
    UrgentKeys(Box<UrgentKeys>),
    /// The poll after a held-back listing determined whether keys are gone.
    HeldListingResolved {
        /// Whether the keys are gone. Otherwise they are listed again.
        is_confirmed: bool,
        /// Keys of the listing that was in use.
        held: usize,
        /// Keys of the new listing.
        listed: usize,
    },
    /// A key was added, removed or changed.
    KeyChanged(Box<KeyChanged>),
    /// More than [`CHANGES_MAX`] keys changed.
    ChangesOmitted {
        /// How many changes were left out.
        count: usize,
    },
    /// A key entered its warning or critical threshold, or expired.
    ThresholdCrossed(Box<ThresholdCrossed>),
    /// More than [`CROSSINGS_MAX`] keys crossed a threshold.
    CrossingsOmitted {
        /// How many keys were left out.
        count: usize,
    },
    /// A cache has begun to respond instead of the API.
    CachedAnswer {
        /// How old its copy was.
        age: Duration,
    },
    /// The API's clock and ours differ by more than a synchronized clock can be off.
    ClockSkewFound {
        /// The API's clock minus ours.
        skew: TimeDelta,
    },
    /// The clocks agree again.
    ClockSkewGone {
        /// The API's clock minus ours.
        skew: TimeDelta,
    },
    /// Keys were created in the future, which no clock skew explains.
    KeysFromTheFuture {
        /// The key that is furthest in the future.
        key_id: KeyId,
        /// When it was created.
        created_at: Option<DateTime<Utc>>,
        /// How many there are.
        keys: usize,
    },
    /// The key that the exporter itself uses is in the listing.
    OwnKeyRecognized(Box<NamedKey>),
    /// The key that the exporter itself uses is not in the listing, or cannot be identified.
    OwnKeyAbsent,
    /// The key that the exporter itself uses has more scopes than listing needs.
    OwnKeySurplusScopes {
        /// The key.
        key: Box<NamedKey>,
        /// The scope that listing needs.
        needed: Box<str>,
        /// The first of the scopes that it does not need.
        scopes: String,
    },
    /// The details of a key were read.
    DetailsRead {
        /// The key.
        key_id: KeyId,
    },
    /// The details of a key could not be read.
    DetailsFailed {
        /// The key.
        key_id: KeyId,
        /// Why.
        failure: Box<Failure>,
        /// How long reading details is suspended because of it; zero if it concerns this key only.
        paused_for: Duration,
    },
}

/// The identification of a key in all reports about it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedKey {
    /// Its public id.
    pub id: KeyId,
    /// The inventory's name, else its label.
    pub name: Option<Box<str>>,
    /// The owning team, if the inventory names one.
    pub team: Option<Box<str>>,
    /// When it expires.
    pub expiry: Expiry,
    /// Time until then; negative afterwards.
    pub time_left: Option<TimeDelta>,
}

/// The keys of an account that need attention.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UrgentKeys {
    /// How many have expired.
    pub expired: usize,
    /// How many are in their critical threshold.
    pub critical: usize,
    /// How many are in their warning threshold.
    pub warning: usize,
    /// The first of them, those that expire soonest first; at most [`URGENT_MAX`].
    pub soonest: Vec<NamedKey>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChanged {
    /// The key after the change; before it, if it was removed.
    pub key: NamedKey,
    /// What changed, and the values.
    pub difference: Difference,
}

/// What changed about a key, with old and new values.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// It was not in the listing before.
    Added,
    /// It is no longer in the listing.
    Removed,
    /// It expires at another time.
    Expiry {
        /// Before.
        from: Expiry,
        /// Now.
        to: Expiry,
    },
    /// Its scopes changed.
    Scopes {
        /// The first of the scopes that it did not have.
        added: Option<Line>,
        /// The first of those that it no longer has.
        removed: Option<Line>,
    },
    /// The addresses that may use it changed.
    IpAllowList {
        /// The first networks that were not in the list.
        added: Option<Line>,
        /// The first of those that no longer are.
        removed: Option<Line>,
        /// Whether it allows addresses that it did not allow before.
        is_widened: bool,
    },
    /// Its label changed.
    Name {
        /// Before.
        from: Option<Label>,
        /// Now.
        to: Option<Label>,
    },
    /// It was disabled, or enabled again.
    Disabled {
        /// Whether it is disabled now.
        is_disabled: bool,
    },
}

/// A key that entered a threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct ThresholdCrossed {
    /// The key.
    pub key: NamedKey,
    /// The threshold.
    pub severity: Severity,
    /// The URL for replacing the key.
    pub rotate_url: Option<Box<str>>,
    /// The runbook for on-call.
    pub runbook_url: Option<Box<str>>,
    /// Until when its alerts are muted, if they are.
    pub muted_until: Option<DateTime<Utc>>,
    /// Why its alerts are muted.
    pub mute_reason: Option<Box<str>>,
}

impl NamedKey {
    /// Identifies a key of `account`, with the details that the inventory in `rules` has.
    pub fn new(account: &str, key: &Key, rules: &AssessmentRules, now: DateTime<Utc>) -> Self {
        Self::assessed(key, &rules.assess(account, key, now), now)
    }

    pub(super) fn assessed(key: &Key, assessment: &Assessment<'_>, now: DateTime<Utc>) -> Self {
        Self {
            id: key.id.clone(),
            name: assessment.name(key).map(Into::into),
            team: assessment.team().map(Into::into),
            expiry: key.expiry,
            time_left: key.time_left(now),
        }
    }
}

impl KeyChanged {
    /// The event of a change of one of `account`'s keys.
    pub fn new(
        account: &str,
        change: &KeyChange<'_>,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let key = change.after.or(change.before)?;
        Some(Self {
            key: NamedKey::new(account, key, rules, now),
            difference: Difference::of(change)?,
        })
    }
}

impl Difference {
    /// The kind of change.
    pub fn kind(&self) -> Change {
        match self {
            Self::Added => Change::Added,
            Self::Removed => Change::Removed,
            Self::Expiry { .. } => Change::Expiry,
            Self::Scopes { .. } => Change::Scopes,
            Self::IpAllowList { .. } => Change::IpAllowList,
            Self::Name { .. } => Change::Name,
            Self::Disabled { .. } => Change::Disabled,
        }
    }

    /// `None` for a change of a key that did not exist before or no longer exists.
    fn of(change: &KeyChange<'_>) -> Option<Self> {
        let both = change.before.zip(change.after);
        Some(match change.change {
            Change::Added => Self::Added,
            Change::Removed => Self::Removed,
            Change::Expiry => {
                let (before, after) = both?;
                Self::Expiry {
                    from: before.expiry,
                    to: after.expiry,
                }
            }
            Change::Scopes => {
                let (before, after) = both?;
                let (before, after) = before.scopes.as_ref().zip(after.scopes.as_ref())?;
                Self::Scopes {
                    added: scopes_missing_in(before, after),
                    removed: scopes_missing_in(after, before),
                }
            }
            Change::IpAllowList => {
                let (before, after) = both?;
                let (before, after) = before.allow_list.as_ref().zip(after.allow_list.as_ref())?;
                Self::IpAllowList {
                    added: networks_missing_in(before, after),
                    removed: networks_missing_in(after, before),
                    is_widened: change.is_widened(),
                }
            }
            Change::Name => {
                let (before, after) = both?;
                Self::Name {
                    from: before.label.clone(),
                    to: after.label.clone(),
                }
            }
            Change::Disabled => Self::Disabled {
                is_disabled: both?.1.is_disabled,
            },
        })
    }
}

impl ThresholdCrossed {
    /// The event of a crossing.
    pub fn new(crossing: &Crossing<'_>, now: DateTime<Utc>) -> Self {
        let Crossing { key, assessment } = crossing;
        let entry = assessment.entry;
        let muted = entry.filter(|_| assessment.is_muted);
        Self {
            key: NamedKey::assessed(key, assessment, now),
            severity: assessment.severity,
            rotate_url: entry.and_then(|entry| entry.rotate_url.clone()),
            runbook_url: entry.and_then(|entry| entry.runbook_url.clone()),
            muted_until: muted.and_then(|entry| entry.muted_until),
            mute_reason: muted.and_then(|entry| entry.reason.clone()),
        }
    }
}

/// The first scopes of `scopes` that are not in `others`.
fn scopes_missing_in(others: &Scopes, scopes: &Scopes) -> Option<Line> {
    let is_missing = |scope: &&str| others.iter().all(|other| other != *scope);
    join_truncated(scopes.iter().filter(is_missing)).map(|names| Line::own(&names))
}

/// The first networks of `list` that are not in `other`.
fn networks_missing_in(other: &AllowList, list: &AllowList) -> Option<Line> {
    let has_no_entries = |list: &AllowList| list.networks().is_empty() && list.is_unrestricted();
    if has_no_entries(list) {
        return Some(Line::own("any address"));
    }
    let missing = list
        .networks()
        .iter()
        .filter(|network| other.networks().binary_search(network).is_err());
    let mut names: Vec<String> = missing.map(network_name).collect();
    let invalid = list.invalid_entries();
    if invalid > 0 && invalid != other.invalid_entries() {
        names.push(format!("{invalid} unreadable entries"));
    }
    join_truncated(names.iter().map(String::as_str)).map(|names| Line::own(&names))
}

/// A network of one address is shown as that address.
fn network_name(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::changes;
    use crate::domain::inventory::Inventory;
    use crate::domain::inventory::tests::entry;
    use crate::domain::key::tests::{at, key};
    use crate::domain::listing::Listing;
    use crate::domain::text::Name;

    fn difference(before: Key, after: Key) -> Difference {
        let listing = |key| Listing::new(vec![key], Rejects::default(), None);
        let (before, after) = (listing(before), listing(after));
        let changes = changes::between(&before, &after);
        assert_eq!(changes.len(), 1, "{changes:?}");
        let rules = AssessmentRules::default();
        let event = KeyChanged::new("a", &changes[0], &rules, at(0)).unwrap();
        assert_eq!(event.difference.kind(), changes[0].change);
        event.difference
    }

    #[test]
    fn a_change_of_scopes_or_networks_names_what_was_added_and_removed() {
        let line = |text: Option<&str>| text.map(Line::own);
        let scopes = |names: &[&'static str]| Key {
            scopes: Some(Scopes::new(names.to_vec())),
            ..key("a")
        };
        for (before, after, added, removed) in [
            (
                &["a", "b"][..],
                &["b", "c", "d"][..],
                Some("c, d"),
                Some("a"),
            ),
            (&[], &["a"], Some("a"), None),
            (&["a"], &[], None, Some("a")),
        ] {
            let expected = Difference::Scopes {
                added: line(added),
                removed: line(removed),
            };
            assert_eq!(difference(scopes(before), scopes(after)), expected);
        }
        let networks = |entries: &[&str]| Key {
            allow_list: Some(AllowList::parse(entries.iter().map(|entry| Some(*entry)))),
            ..key("a")
        };
        let any = Some("any address");
        for (before, after, added, removed, is_widened) in [
            (&[][..], &["10.0.0.1"][..], Some("10.0.0.1"), any, false),
            (&["::1"], &[], any, Some("::1"), true),
            (
                &["10.0.0.0/8", "::1"],
                &["10.0.0.0/9", "::1"],
                Some("10.0.0.0/9"),
                Some("10.0.0.0/8"),
                false,
            ),
            (
                &["::1"],
                &["::1", "what"],
                Some("1 unreadable entries"),
                None,
                false,
            ),
        ] {
            let expected = Difference::IpAllowList {
                added: line(added),
                removed: line(removed),
                is_widened,
            };
            assert_eq!(difference(networks(before), networks(after)), expected);
        }
    }

    #[test]
    fn a_change_of_expiry_or_label_has_both_values() {
        let ends = |expiry| Key { expiry, ..key("a") };
        assert_eq!(
            difference(ends(Expiry::Never), ends(Expiry::At(at(5)))),
            Difference::Expiry {
                from: Expiry::Never,
                to: Expiry::At(at(5)),
            }
        );
        let named = |label: Option<&'static str>| Key {
            label: label.map(Into::into),
            ..key("a")
        };
        assert_eq!(
            difference(named(Some("old")), named(None)),
            Difference::Name {
                from: Some("old".into()),
                to: None,
            }
        );
    }

    #[test]
    fn values_are_short_however_many_there_are() {
        let names: Vec<String> = (0..1000)
            .map(|number| format!("scope.{number:04}"))
            .collect();
        let many = Key {
            scopes: Some(Scopes::new(
                names.iter().map(|name| Name::saved(name)).collect(),
            )),
            ..key("a")
        };
        let Difference::Scopes { added, .. } = difference(key("a"), many) else {
            panic!("not a change of scopes");
        };
        let added = added.unwrap();
        assert!(added.as_str().ends_with(" and 990 more"), "{added:?}");
    }

    #[test]
    fn the_inventory_names_the_key() {
        let mut known = entry("a");
        known.name = Some("Build".into());
        known.team = Some("platform".into());
        let rules = AssessmentRules {
            inventory: Inventory::new(vec![known]),
            ..AssessmentRules::default()
        };
        let labelled = |id| Key {
            label: Some("ci".into()),
            expiry: Expiry::At(at(60)),
            ..key(id)
        };
        for (id, name, team) in [("a", "Build", Some("platform")), ("b", "ci", None)] {
            let expected = NamedKey {
                id: KeyId::parse(id).unwrap(),
                name: Some(name.into()),
                team: team.map(Into::into),
                expiry: Expiry::At(at(60)),
                time_left: Some(TimeDelta::seconds(-10)),
            };
            assert_eq!(NamedKey::new("x", &labelled(id), &rules, at(70)), expected);
        }
    }
}
