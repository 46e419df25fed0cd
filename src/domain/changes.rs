//! What differs between two listings of an account, and whether a listing that lost many keys is to
//! be believed yet. Pure.

use crate::domain::key::{Key, KeyId};
use crate::domain::listing::Listing;

/// What changed about a key. The words are label values and part of the metrics contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not in the listing before.
    Added,
    /// It is no longer in the listing.
    Removed,
    /// It ends at another time.
    Expiry,
    /// It may do other things.
    Scopes,
    /// It may be used from other addresses.
    IpAllowList,
    /// Its label is another.
    Name,
}

impl Change {
    /// How many kinds there are.
    pub const COUNT: usize = 6;

    /// Every kind, in the order of the metric.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Added,
        Self::Removed,
        Self::Expiry,
        Self::Scopes,
        Self::IpAllowList,
        Self::Name,
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
        }
    }
}

/// One thing that changed about one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KeyChange<'a> {
    /// What.
    pub change: Change,
    /// The key before; `None` where it was added.
    pub before: Option<&'a Key>,
    /// The key now; `None` where it was removed.
    pub after: Option<&'a Key>,
}

impl<'a> KeyChange<'a> {
    /// The key's id.
    pub fn key_id(&self) -> Option<&'a KeyId> {
        self.after.or(self.before).map(|key| &key.id)
    }

    /// Whether the key may now do more than before, or be used from more places.
    pub fn is_widened(&self) -> bool {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return false;
        };
        match self.change {
            Change::Scopes => after
                .scopes
                .iter()
                .any(|scope| before.scopes.iter().all(|known| known != scope)),
            Change::IpAllowList => !before.allow_list.covers(&after.allow_list),
            Change::Added | Change::Removed | Change::Expiry | Change::Name => false,
        }
    }
}

/// Everything that changed from `before` to `after`, sorted by key.
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
            Change::Expiry => before.expiry != after.expiry,
            Change::Scopes => before.scopes != after.scopes,
            Change::IpAllowList => before.allow_list != after.allow_list,
            // A label that is read for the first time, from the key's own page, was there before.
            Change::Name => {
                let is_learned = before.details.is_none() && after.details.is_some();
                before.label != after.label && !(before.label.is_none() && is_learned)
            }
        },
    }
}

/// Holds back a listing that lost suspiciously many keys. An API in trouble may answer with half of
/// the keys or none and call it a success; alerts must not resolve because of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShrinkGuard {
    /// How many such listings in a row it takes to be believed; 1 believes the first.
    pub confirmations: u32,
    /// A listing with fewer keys than this part of those held is suspicious; an empty one always
    /// is. 0 to 1.
    pub ratio: f64,
}

impl Default for ShrinkGuard {
    /// A second listing an interval later tells a hiccup from the truth, and nobody deletes more
    /// than half of the keys in five minutes by hand.
    fn default() -> Self {
        Self {
            confirmations: 2,
            ratio: 0.5,
        }
    }
}

impl ShrinkGuard {
    /// Whether a listing of `keys` keys has lost suspiciously many while `held` are known.
    pub fn is_suspicious(&self, held: usize, keys: usize) -> bool {
        // Exact for any number of keys below 2^53.
        held > 0 && (keys == 0 || (keys as f64) < self.ratio * held as f64)
    }

    /// Whether to hold back a listing of `keys` keys while `held` are known. `seen` such listings
    /// came in a row before this one.
    pub fn holds_back(&self, held: usize, keys: usize, seen: u32) -> bool {
        self.is_suspicious(held, keys) && seen.saturating_add(1) < self.confirmations
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
            expiry: Expiry::Unknown,
            scopes: Scopes::new(vec!["s"]),
            allow_list: list(&["10.0.0.1"]),
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
                ("i-added", "added"),
            ]
        );
        assert!(between(&after, &after).is_empty());
    }

    #[test]
    fn what_lets_a_key_do_more_is_widened() {
        let scopes = |names: &[&str]| Key {
            scopes: Scopes::new(names.to_vec()),
            ..key("a")
        };
        let from = |entries: &[&str]| Key {
            allow_list: list(entries),
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
            (0, 0, 0, false),
            (1, 0, 0, true),
            (2, 1, 0, false),
            (3, 1, 0, true),
            (10, 5, 0, false),
            (10, 4, 0, true),
            (10, 4, 1, false),
            (10, 20, 0, false),
        ];
        for (held, keys, seen, expected) in cases {
            let holds_back = guard.holds_back(held, keys, seen);
            assert_eq!(holds_back, expected, "{held} to {keys}, seen {seen}");
        }
        let off = ShrinkGuard {
            confirmations: 1,
            ..guard
        };
        assert!(!off.holds_back(10, 0, 0));
        let only_empty = ShrinkGuard {
            confirmations: 3,
            ratio: 0.0,
        };
        assert!(!only_empty.holds_back(10, 1, 0));
        assert!(only_empty.holds_back(10, 0, 1) && !only_empty.holds_back(10, 0, 2));
    }
}
