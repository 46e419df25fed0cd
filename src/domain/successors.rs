//! Which keys of an account have a successor: a newer key of the same name that expires later.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::domain::assessment::Assessment;
use crate::domain::key::{Expiry, Key, Mode};

/// For each of `keys`, keys of one account, in order: whether it has a successor. That is a key of
/// the same mode and the same exact name that was created later, expires later and is not disabled.
/// `assessments` are those of the keys, in order. A key without a creation time or a readable
/// expiry is never superseded and supersedes no key; a successor may never expire.
pub fn superseded(keys: &[Key], assessments: &[Assessment<'_>]) -> Vec<bool> {
    let shared = SharedNames::new(keys, assessments);
    let assessed = keys.iter().zip(assessments).enumerate();
    let mut sorted: Vec<_> = assessed
        .filter_map(|(index, (key, assessment))| {
            let name = shared.exact_name(key, assessment)?;
            let mode = key.mode.map(Mode::as_str);
            let created_at = Reverse(key.created_at?);
            Some(((name, mode), created_at, End::of(key.expiry), index))
        })
        .collect();
    sorted.sort_unstable();
    let mut superseded = vec![false; keys.len()];
    // Newest first, so that one pass knows the latest expiry of all newer keys: keys are never
    // compared pairwise, even if all share one name.
    for same_name in sorted.chunk_by(|(a, ..), (b, ..)| a == b) {
        let mut latest_of_newer = None;
        for of_one_moment in same_name.chunk_by(|(_, a, ..), (_, b, ..)| a == b) {
            for (_, _, end, index) in of_one_moment {
                if let Some(is_superseded) = superseded.get_mut(*index) {
                    *is_superseded = end.is_some() && *end < latest_of_newer;
                }
            }
            let is_enabled = |index: &usize| keys.get(*index).is_some_and(|key| !key.is_disabled);
            let successors = of_one_moment
                .iter()
                .filter(|(_, _, _, index)| is_enabled(index));
            let latest = successors.map(|(_, _, end, _)| *end).max();
            latest_of_newer = latest_of_newer.max(latest.flatten());
        }
    }
    superseded
}

/// The positions of the keys because of which the key at `position` is superseded, as in
/// [`superseded`].
pub fn successors(keys: &[Key], assessments: &[Assessment<'_>], position: usize) -> Vec<usize> {
    let shared = SharedNames::new(keys, assessments);
    let facts = |(key, assessment): (&'_ Key, &Assessment<'_>)| {
        let name = shared.exact_name(key, assessment)?.to_owned();
        Some((name, key.mode, key.created_at?, End::of(key.expiry)?))
    };
    let mut all = keys.iter().zip(assessments);
    let Some((name, mode, created_at, end)) = all.nth(position).and_then(facts) else {
        return Vec::new();
    };
    let is_successor = |pair: (&Key, &Assessment<'_>)| {
        facts(pair).is_some_and(|of| {
            !pair.0.is_disabled && (&of.0, of.1) == (&name, mode) && of.2 > created_at && of.3 > end
        })
    };
    let all = keys.iter().zip(assessments).enumerate();
    all.filter(|(_, pair)| is_successor(*pair))
        .map(|(position, _)| position)
        .collect()
}

/// Entries with wildcards that give a name to the keys they match.
struct SharedNames<'a> {
    /// The label shared by all keys of an entry; `None` if labels differ or a key has no exact
    /// label.
    labels: HashMap<usize, Option<&'a str>>,
}

impl<'a> SharedNames<'a> {
    fn new(keys: &'a [Key], assessments: &[Assessment<'_>]) -> Self {
        let mut labels = HashMap::new();
        for (key, assessment) in keys.iter().zip(assessments) {
            let is_shared = assessment
                .entry
                .is_some_and(|entry| !entry.pattern.is_exact());
            let Some(index) = assessment.entry_index.filter(|_| is_shared) else {
                continue;
            };
            let label = exact_label(key);
            let known = labels.entry(index).or_insert(label);
            if *known != label {
                *known = None;
            }
        }
        Self { labels }
    }

    /// The name of `key`, where keys of the same name are for the same purpose.
    fn exact_name(&self, key: &'a Key, assessment: &Assessment<'a>) -> Option<&'a str> {
        let entry = assessment.entry.filter(|entry| entry.name.is_some());
        let Some(entry) = entry else {
            return exact_label(key);
        };
        let is_exact = if entry.pattern.is_exact() {
            entry.pattern.as_str() == key.id.as_str() || exact_label(key).is_some()
        } else {
            let index = assessment.entry_index?;
            self.labels.get(&index).copied().flatten().is_some()
        };
        entry.name.as_deref().filter(|_| is_exact)
    }
}

fn exact_label(key: &Key) -> Option<&str> {
    key.label
        .as_ref()
        .filter(|label| label.is_exact())
        .map(|label| &**label)
}

/// A readable expiry, ordered by time; no expiry is the latest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(DateTime<Utc>),
    Never,
}

impl End {
    fn of(expiry: Expiry) -> Option<Self> {
        match expiry {
            Expiry::At(end) => Some(Self::At(end)),
            Expiry::Never => Some(Self::Never),
            Expiry::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::assessment::AssessmentRules;
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
    use crate::domain::text;
    use crate::domain::text::{Cleaner, Secrets};

    fn labelled(id: &str, label: &str, created: i64, expiry: Expiry) -> Key {
        Key {
            label: Cleaner::new(Secrets::new(0)).label(label),
            created_at: Some(at(created)),
            expiry,
            ..key(id)
        }
    }

    /// A key created at `created` that expires 100 later.
    fn ending(id: &str, label: &str, created: i64) -> Key {
        labelled(id, label, created, Expiry::At(at(created + 100)))
    }

    fn named(pattern: &str, name: &str) -> Entry {
        Entry {
            name: Some(name.into()),
            ..entry(pattern)
        }
    }

    /// The ids of the keys that have a successor.
    fn ids(keys: &[Key], entries: Vec<Entry>) -> Vec<String> {
        let rules = AssessmentRules {
            inventory: Inventory::new(entries),
            ..AssessmentRules::default()
        };
        let assess = |key| rules.assess("a", key, at(0));
        let assessments: Vec<Assessment<'_>> = keys.iter().map(assess).collect();
        let is_superseded = superseded(keys, &assessments);
        for (position, is_superseded) in is_superseded.iter().enumerate() {
            let successors = successors(keys, &assessments, position);
            assert_eq!(
                !successors.is_empty(),
                *is_superseded,
                "{position}: {successors:?}"
            );
        }
        let all = keys.iter().zip(is_superseded);
        let superseded = all.filter(|(_, is_superseded)| *is_superseded);
        superseded.map(|(key, _)| key.id.to_string()).collect()
    }

    #[test]
    fn a_newer_key_of_the_same_name_that_expires_later_supersedes() {
        let keys = [
            labelled("a-old", "ci", 10, Expiry::At(at(100))),
            labelled("b-new", "ci", 20, Expiry::At(at(200))),
            labelled("c-newer-but-shorter", "ci", 30, Expiry::At(at(150))),
            labelled("d-other-name", "web", 5, Expiry::At(at(50))),
            key("e-nameless"),
            labelled("f-unknown", "ci", 1, Expiry::Unknown),
            labelled("g-same-moment", "pair", 10, Expiry::At(at(100))),
            labelled("h-same-moment", "pair", 10, Expiry::At(at(200))),
            labelled("i-ends", "db", 10, Expiry::At(at(100))),
            labelled("j-never-ends", "db", 20, Expiry::Never),
        ];
        assert_eq!(ids(&keys, vec![]), ["a-old", "i-ends"]);
    }

    #[test]
    fn only_a_key_of_the_same_mode_that_is_not_disabled_is_a_successor() {
        let of = |mode, key| Key { mode, ..key };
        let (live, test) = (Some(Mode::Live), Some(Mode::Test));
        let disabled = Key {
            is_disabled: true,
            ..ending("z", "ci", 3)
        };
        let old = ending("a", "ci", 1);
        for (name, keys, expected) in [
            (
                "modes differ",
                vec![of(live, old.clone()), of(test, ending("b", "ci", 2))],
                &[][..],
            ),
            (
                "one mode is unknown",
                vec![of(live, old.clone()), ending("b", "ci", 2)],
                &[],
            ),
            (
                "the same mode",
                vec![of(test, old.clone()), of(test, ending("b", "ci", 2))],
                &["a"],
            ),
            ("disabled", vec![old.clone(), disabled.clone()], &[]),
            (
                "disabled, and another one",
                vec![old, ending("b", "ci", 2), disabled],
                &["a"],
            ),
        ] {
            assert_eq!(ids(&keys, vec![]), expected, "{name}");
        }
    }

    #[test]
    fn labels_that_only_look_the_same_make_no_successors() {
        let long = "x".repeat(300);
        for (old, new, expected) in [
            ("ci", "ci", true),
            (&*long, &*format!("{long}y"), false),
            (&long, &long, false),
            ("ci\u{202e}", "ci\u{202d}", false),
            ("ci sk_live_abc", "ci sk_live_def", false),
            ("[redacted]", "[redacted]", false),
        ] {
            let keys = [ending("a", old, 1), ending("b", new, 2)];
            assert_eq!(ids(&keys, vec![]) == ["a"], expected, "{old:?}, {new:?}");
        }
    }

    #[test]
    fn a_name_that_a_wildcard_gives_to_different_labels_makes_no_successors() {
        let unlabelled = |id: &str, created| Key {
            label: None,
            ..ending(id, "x", created)
        };
        let wildcard = || vec![named("ci-*", "CI")];
        for (name, entries, keys, expected) in [
            (
                "different labels",
                wildcard(),
                vec![ending("a", "ci-one", 1), ending("b", "ci-two", 2)],
                &[][..],
            ),
            (
                "one label",
                wildcard(),
                vec![ending("a", "ci-one", 1), ending("b", "ci-one", 2)],
                &["a"],
            ),
            (
                "one label twice, and another one",
                wildcard(),
                vec![
                    ending("a", "ci-one", 1),
                    ending("b", "ci-one", 2),
                    ending("c", "ci-two", 3),
                ],
                &[],
            ),
            (
                "no labels",
                vec![named("key_*", "Keys")],
                vec![unlabelled("key_1", 1), unlabelled("key_2", 2)],
                &[],
            ),
            (
                "two ids of one name",
                vec![named("key_1", "Shop"), named("key_2", "Shop")],
                vec![unlabelled("key_1", 1), unlabelled("key_2", 2)],
                &["key_1"],
            ),
            (
                "one exact name, one of a wildcard",
                vec![named("key_1", "CI"), named("ci-*", "CI")],
                vec![
                    unlabelled("key_1", 1),
                    ending("b", "ci-one", 2),
                    ending("c", "ci-two", 3),
                ],
                &[],
            ),
            (
                "a wildcard that names nothing",
                vec![entry("ci-*")],
                vec![
                    ending("a", "ci-one", 1),
                    ending("b", "ci-one", 2),
                    ending("c", "ci-two", 3),
                ],
                &["a"],
            ),
            (
                "a label that was cut, matched as it is shown",
                vec![named(&text::label(&"x".repeat(300)), "Long")],
                vec![
                    ending("a", &"x".repeat(300), 1),
                    ending("b", &"x".repeat(301), 2),
                ],
                &[],
            ),
        ] {
            assert_eq!(ids(&keys, entries), expected, "{name}");
        }
    }
}
