//! Compares two listings of an account, and decides whether a listing that lost many keys is
//! accepted yet. Pure.

use chrono::{DateTime, Utc};

use crate::domain::key::{Field, Key, KeyId};
use crate::domain::listing::Listing;

/// What changed about a key. The words are label values and part of the metrics contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not in the listing before.
    Added,
    /// It is no longer in the listing.
    Removed,
    /// Its expiry changed.
    Expiry,
    /// Its scopes changed.
    Scopes,
    /// The addresses that may use it changed.
    IpAllowList,
    /// Its label changed.
    Name,
    /// It was disabled or enabled.
    Disabled,
}

impl Change {
    /// How many kinds there are.
    pub const COUNT: usize = 7;

    /// Every kind, in the order of the metric.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Added,
        Self::Removed,
        Self::Expiry,
        Self::Scopes,
        Self::IpAllowList,
        Self::Name,
        Self::Disabled,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Expiry => "expiry",
            Self::Scopes => "scopes",
            Self::IpAllowList => "ip_allow_list",
            Self::Name => "name",
            Self::Disabled => "disabled",
        }
    }
}

/// One thing that changed about one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyChange<'a> {
    /// The kind of change.
    pub change: Change,
    /// The key before; `None` if it was added.
    pub before: Option<&'a Key>,
    /// The key now; `None` if it was removed.
    pub after: Option<&'a Key>,
}

impl<'a> KeyChange<'a> {
    /// The key's id.
    pub fn key_id(&self) -> Option<&'a KeyId> {
        self.after.or(self.before).map(|key| &key.id)
    }

    /// Whether the key may now do more than before, or be used from more addresses.
    pub fn is_widened(&self) -> bool {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return false;
        };
        let scopes = before.scopes.as_ref().zip(after.scopes.as_ref());
        let allow_lists = before.allow_list.as_ref().zip(after.allow_list.as_ref());
        match self.change {
            Change::Scopes => scopes.is_some_and(|(before, after)| {
                let is_new = |scope| before.iter().all(|known| known != scope);
                after.iter().any(is_new)
            }),
            Change::IpAllowList => allow_lists.is_some_and(|(before, after)| !before.covers(after)),
            Change::Disabled => !after.is_disabled,
            Change::Added | Change::Removed | Change::Expiry | Change::Name => false,
        }
    }
}

/// All changes from `before` to `after`, sorted by key.
pub fn between<'a>(before: &'a Listing, after: &'a Listing) -> Vec<KeyChange<'a>> {
    let mut changes = Vec::new();
    let (mut olds, mut news) = (
        before.keys().iter().peekable(),
        after.keys().iter().peekable(),
    );
    // Both are sorted by id, so one pass over the two finds the pairs.
    loop {
        let (old, new) = match (olds.peek(), news.peek()) {
            (None, None) => return changes,
            (Some(old), Some(new)) if old.id == new.id => (olds.next(), news.next()),
            (Some(old), Some(new)) if old.id > new.id => (None, news.next()),
            (Some(_), _) => (olds.next(), None),
            (None, Some(_)) => (None, news.next()),
        };
        let kinds = Change::ALL
            .into_iter()
            .filter(|kind| differs(*kind, old, new));
        changes.extend(kinds.map(|change| KeyChange {
            change,
            before: old,
            after: new,
        }));
    }
}

fn differs(kind: Change, before: Option<&Key>, after: Option<&Key>) -> bool {
    match (before, after) {
        (None, after) => kind == Change::Added && after.is_some(),
        (Some(_), None) => kind == Change::Removed,
        (Some(before), Some(after)) => match kind {
            Change::Added | Change::Removed => false,
            Change::Expiry => !before.expiry.is_same(after.expiry),
            // If the value is or was unknown, it did not change.
            Change::Scopes => {
                let known = before.scopes.as_ref().zip(after.scopes.as_ref());
                known.is_some_and(|(before, after)| before != after)
            }
            Change::IpAllowList => {
                let known = before.allow_list.as_ref().zip(after.allow_list.as_ref());
                known.is_some_and(|(before, after)| before != after)
            }
            // A label read for the first time, from the key's details, is not new.
            Change::Name => {
                let is_learned = before.details.is_none() && after.details.is_some();
                let is_known = !before.unreadable.contains(Field::Label) || before.label.is_some();
                before.label.as_deref() != after.label.as_deref()
                    && !(before.label.is_none() && is_learned)
                    && is_known
            }
            Change::Disabled => before.is_disabled != after.is_disabled,
        },
    }
}

/// What a listing lost compared with the keys that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Held keys that the listing also has.
    kept: usize,
    /// Held keys that the listing lacks, except those that expired since: many APIs hide expired
    /// keys.
    lost: usize,
}

impl Loss {
    /// What `listing`, taken at `now`, lost compared with `held`.
    pub fn between(held: &Listing, listing: &Listing, now: DateTime<Utc>) -> Self {
        let (mut kept, mut lost) = (0, 0);
        for key in held.keys() {
            if key.unlisted_since.is_some() {
                continue;
            }
            if listing.has_entry(&key.id) {
                kept += 1;
            } else if !has_vanished_at_its_end(key, now) {
                lost += 1;
            }
        }
        Self { kept, lost }
    }

    /// The number of keys that were held.
    pub fn held(self) -> usize {
        self.kept + self.lost
    }
}

/// Whether `key`, which a listing taken at `now` lacks, is missing because it expired: the last
/// listing that contains it was taken before its expiry.
pub fn has_vanished_at_its_end(key: &Key, now: DateTime<Utc>) -> bool {
    !key.is_listed_expired && !key.is_disabled && key.is_expired(now)
}

/// Holds back a listing that lost suspiciously many keys. A failing API may return half of the keys
/// or none and report success; this must not resolve alerts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShrinkGuard {
    /// How many such listings in a row are needed before one is accepted, ignoring failed polls
    /// between them; 1 accepts the first.
    pub confirmations: u32,
    /// A listing with less than this fraction of the held keys is suspicious, however many other
    /// keys it has; an empty listing always is. 0 to 1.
    pub ratio: f64,
}

impl Default for ShrinkGuard {
    /// A second listing one interval later distinguishes a transient error from a real loss, and
    /// more than half of the keys are rarely deleted by hand within five minutes.
    fn default() -> Self {
        Self {
            confirmations: 2,
            ratio: 0.5,
        }
    }
}

impl ShrinkGuard {
    /// Whether to distrust a listing that lost `loss`. `is_empty` says whether it has no keys at
    /// all.
    pub fn is_suspicious(&self, loss: Loss, is_empty: bool) -> bool {
        // Exact for any number of keys below 2^53.
        let is_small = (loss.kept as f64) < self.ratio * loss.held() as f64;
        loss.lost > 0 && (is_empty || is_small)
    }

    /// Whether to hold back such a listing, where `seen` of them precede it.
    pub fn holds_back(&self, loss: Loss, is_empty: bool, seen: u32) -> bool {
        self.is_suspicious(loss, is_empty) && seen.saturating_add(1) < self.confirmations
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::allow_list::AllowList;
    use crate::domain::key::tests::{at, key};
    use crate::domain::key::{Expiry, Scopes};
    use crate::domain::listing::Rejects;

    fn listing(keys: Vec<Key>) -> Listing {
        Listing::new(keys, Rejects::default(), None)
    }

    fn list(entries: &[&str]) -> AllowList {
        AllowList::parse(entries.iter().map(|entry| Some(*entry)))
    }

    #[test]
    fn each_kind_of_change_is_found_once() {
        let before = listing(vec![
            key("a-same"),
            key("b-removed"),
            key("d-ends"),
            key("e-scopes"),
            key("f-list"),
            key("g-name"),
            key("h-all"),
        ]);
        let all = Key {
            label: Some("n".into()),
            is_disabled: true,
            expiry: Expiry::Unknown,
            scopes: Some(Scopes::new(vec!["s"])),
            allow_list: Some(list(&["10.0.0.1"])),
            ..key("h-all")
        };
        let after = listing(vec![
            key("a-same"),
            key("c-added"),
            Key {
                expiry: Expiry::At(at(5)),
                ..key("d-ends")
            },
            Key {
                scopes: all.scopes.clone(),
                ..key("e-scopes")
            },
            Key {
                allow_list: all.allow_list.clone(),
                ..key("f-list")
            },
            Key {
                label: all.label.clone(),
                ..key("g-name")
            },
            all,
            key("i-added"),
        ]);
        let found = between(&before, &after);
        let found: Vec<(&str, &str)> = found
            .iter()
            .map(|change| (change.key_id().unwrap().as_str(), change.change.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("b-removed", "removed"),
                ("c-added", "added"),
                ("d-ends", "expiry"),
                ("e-scopes", "scopes"),
                ("f-list", "ip_allow_list"),
                ("g-name", "name"),
                ("h-all", "expiry"),
                ("h-all", "scopes"),
                ("h-all", "ip_allow_list"),
                ("h-all", "name"),
                ("h-all", "disabled"),
                ("i-added", "added"),
            ]
        );
        assert!(between(&after, &after).is_empty());
    }

    #[test]
    fn what_lets_a_key_do_more_is_widened() {
        let scopes = |names: &[&'static str]| Key {
            scopes: Some(Scopes::new(names.to_vec())),
            ..key("a")
        };
        let from = |entries: &[&str]| Key {
            allow_list: Some(list(entries)),
            ..key("a")
        };
        let cases = [
            ("one scope more", scopes(&["a"]), scopes(&["a", "b"]), true),
            ("another scope", scopes(&["a"]), scopes(&["b"]), true),
            ("one scope less", scopes(&["a", "b"]), scopes(&["a"]), false),
            (
                "a larger network",
                from(&["10.0.0.0/24"]),
                from(&["10.0.0.0/23"]),
                true,
            ),
            (
                "a part of it",
                from(&["10.0.0.0/24"]),
                from(&["10.0.0.7"]),
                false,
            ),
            (
                "in pieces",
                from(&["10.0.0.0/24"]),
                from(&["10.0.0.0/25", "10.0.0.128/25"]),
                false,
            ),
            ("the list taken away", from(&["10.0.0.1"]), from(&[]), true),
            (
                "a list put up",
                from(&[]),
                from(&["10.0.0.1", "::1"]),
                false,
            ),
            (
                "enabled again",
                Key {
                    is_disabled: true,
                    ..key("a")
                },
                key("a"),
                true,
            ),
            (
                "another family",
                from(&["10.0.0.1"]),
                from(&["10.0.0.1", "::1"]),
                true,
            ),
        ];
        for (name, before, after, expected) in cases {
            let (before, after) = (listing(vec![before]), listing(vec![after]));
            let changes = between(&before, &after);
            assert_eq!(changes.len(), 1, "{name}");
            assert_eq!(changes[0].is_widened(), expected, "{name}");
        }
    }

    #[test]
    fn fewer_than_the_ratio_or_none_at_all_is_held_back_until_confirmed() {
        let guard = ShrinkGuard {
            confirmations: 2,
            ratio: 0.5,
        };
        let cases = [
            (0, 0, 0, 0, false),
            (1, 0, 0, 0, true),
            (2, 1, 0, 0, false),
            (3, 1, 0, 0, true),
            (10, 5, 0, 0, false),
            (10, 4, 0, 0, true),
            (10, 4, 0, 1, false),
            (10, 10, 10, 0, false),
            // As many new keys as lost ones.
            (10, 4, 6, 0, true),
            (10, 0, 10, 0, true),
            (10, 0, 1_000, 1, false),
        ];
        for (held, kept, new, seen, expected) in cases {
            let loss = Loss {
                kept,
                lost: held - kept,
            };
            let holds_back = guard.holds_back(loss, kept + new == 0, seen);
            assert_eq!(
                holds_back, expected,
                "{held}: {kept} and {new}, seen {seen}"
            );
        }
        let (all, some) = (Loss { kept: 0, lost: 10 }, Loss { kept: 1, lost: 9 });
        let off = ShrinkGuard {
            confirmations: 1,
            ..guard
        };
        assert!(!off.holds_back(all, true, 0));
        let only_empty = ShrinkGuard {
            confirmations: 3,
            ratio: 0.0,
        };
        assert!(!only_empty.holds_back(some, false, 0));
        assert!(only_empty.holds_back(all, true, 1) && !only_empty.holds_back(all, true, 2));
    }

    #[test]
    fn a_loss_is_of_keys_that_were_listed_and_had_not_expired() {
        let ends = |id: &str, end| Key {
            expiry: Expiry::At(at(end)),
            ..key(id)
        };
        let held = listing(vec![
            key("a"),
            key("b"),
            key("refused"),
            ends("expired", 100),
            ends("later", 300),
            Key {
                is_listed_expired: true,
                ..ends("listed-expired", 100)
            },
            Key {
                unlisted_since: Some(at(1)),
                ..ends("unlisted", 1)
            },
        ]);
        let now = listing(vec![key("a"), key("new")]);
        let now = now.with_rejected_ids(vec![key("refused").id]);
        let loss = |second| Loss::between(&held, &now, at(second));
        assert_eq!(loss(200), Loss { kept: 2, lost: 3 });
        assert_eq!(loss(300), Loss { kept: 2, lost: 2 });
    }

    #[test]
    fn what_was_not_known_before_or_is_not_now_did_not_change() {
        let before = listing(vec![
            Key {
                scopes: None,
                allow_list: None,
                ..key("a")
            },
            key("b"),
            Key {
                expiry: Expiry::At(at(5)),
                ..key("c")
            },
        ]);
        let end = DateTime::from_timestamp_millis(5_900).unwrap();
        let after = listing(vec![
            Key {
                scopes: Some(Scopes::new(vec!["s"])),
                ..key("a")
            },
            Key {
                scopes: None,
                allow_list: None,
                ..key("b")
            },
            Key {
                expiry: Expiry::At(end),
                ..key("c")
            },
        ]);
        assert_eq!(between(&before, &after), []);
        assert_eq!(between(&after, &before), []);
    }
}
