//! The operator's inventory: the owner of a key, how early it alerts, and its exemptions.

use std::collections::{BTreeMap, HashMap};

use aho_corasick::AhoCorasick;
use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::glob::Glob;
use crate::domain::key::Key;
use crate::domain::policy::Policies;
use crate::domain::shard::Shard;

/// One entry: the operator's information about the keys that it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The id or the label of the matching keys.
    pub pattern: Glob,
    /// The account to which the entry is restricted; `None` means all.
    pub account: Option<Box<str>>,
    /// The display name of the key; usable as a label value.
    pub name: Option<Box<str>>,
    /// The owner of the key; usable as a label value.
    pub team: Option<Box<str>>,
    /// The URL for replacing the key.
    pub rotate_url: Option<Box<str>>,
    /// The runbook link for on-call.
    pub runbook_url: Option<Box<str>>,
    /// The warning threshold; applies as it is, however short the key's lifetime.
    pub warning: Option<TimeDelta>,
    /// The critical threshold; applies as it is, too.
    pub critical: Option<TimeDelta>,
    /// Its alerts are muted before this time.
    pub muted_until: Option<DateTime<Utc>>,
    /// Policies from which it is exempt.
    pub exempt: Policies,
    /// Why it is muted or exempt; required for either.
    pub reason: Option<Box<str>>,
}

impl Entry {
    /// An entry that matches and carries no information.
    pub fn new(pattern: Glob) -> Self {
        Self {
            pattern,
            account: None,
            name: None,
            team: None,
            rotate_url: None,
            runbook_url: None,
            warning: None,
            critical: None,
            muted_until: None,
            exempt: Policies::default(),
            reason: None,
        }
    }

    /// Whether alerts about the key are muted at `now`.
    pub fn is_muted(&self, now: DateTime<Utc>) -> bool {
        self.muted_until.is_some_and(|until| now < until)
    }

    fn is_for(&self, account: &str) -> bool {
        self.account.as_deref().is_none_or(|only| only == account)
    }

    fn matches(&self, account: &str, key: &Key) -> bool {
        self.is_for(account) && names(key).any(|name| self.pattern.matches(name))
    }
}

/// All entries, in the order in which they are matched.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    entries: Box<[Entry]>,
    /// The entries for each exact text: thousands of them cost no more than one.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// The entries with wildcards.
    globs: GlobIndex,
    /// The shard of the exporter that uses this inventory.
    shard: Shard,
}

/// Finds the patterns with wildcards that may match a text by their literals: one pass over the
/// text, regardless of the number of patterns.
#[derive(Clone, Debug, Default)]
struct GlobIndex {
    /// Finds the literals; `None` where there are none.
    literals: Option<AhoCorasick>,
    /// For each literal, the entries with it as their longest literal.
    by_literal: Vec<Vec<usize>>,
    /// Entries without a literal, which have to be tried on every text.
    always: Vec<usize>,
}

impl PartialEq for Inventory {
    /// The other fields are derived from the entries.
    fn eq(&self, other: &Self) -> bool {
        (&self.entries, self.shard) == (&other.entries, other.shard)
    }
}

impl Inventory {
    /// An inventory of `entries`; earlier ones take precedence.
    pub fn new(entries: Vec<Entry>) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut globs = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if entry.pattern.is_exact() {
                let same = exact.entry(entry.pattern.as_str().into()).or_default();
                same.push(index);
            } else {
                globs.push((index, entry.pattern.literal()));
            }
        }
        Self {
            globs: GlobIndex::new(&globs),
            entries: entries.into(),
            exact,
            shard: Shard::default(),
        }
    }

    /// The inventory as `shard` uses it.
    #[must_use]
    pub fn for_shard(self, shard: Shard) -> Self {
        Self { shard, ..self }
    }

    /// The shard that uses the inventory.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Whether this shard has every account that `entry` may be for, so that it can tell whether
    /// the entry is unused.
    pub fn is_decidable(&self, entry: &Entry) -> bool {
        match &entry.account {
            Some(account) => self.shard.takes(account),
            None => !self.shard.is_one_of_several(),
        }
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of the first entry that matches `key`, a key of `account`.
    pub fn find(&self, account: &str, key: &Key) -> Option<usize> {
        let entry = |index: &usize| self.entries.get(*index);
        let exact = names(key)
            .filter_map(|name| self.exact.get(name))
            .flatten()
            .filter(|index| entry(index).is_some_and(|entry| entry.is_for(account)))
            .min()
            .copied();
        let glob = self
            .globs
            .candidates(key)
            .into_iter()
            .take_while(|index| exact.is_none_or(|exact| *index < exact))
            .find(|index| entry(index).is_some_and(|entry| entry.matches(account, key)));
        glob.or(exact)
    }
}

impl GlobIndex {
    /// An index of entries by their longest literal.
    fn new(globs: &[(usize, &str)]) -> Self {
        let mut index = Self::default();
        let mut by_literal: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (entry, literal) in globs {
            by_literal.entry(literal).or_default().push(*entry);
        }
        index.always = by_literal.remove("").unwrap_or_default();
        if !by_literal.is_empty() {
            // Building fails for more text than a configuration may have; then every pattern is
            // tried.
            index.literals = AhoCorasick::new(by_literal.keys()).ok();
        }
        match index.literals {
            Some(_) => index.by_literal = by_literal.into_values().collect(),
            None => index.always.extend(by_literal.into_values().flatten()),
        }
        index.always.sort_unstable();
        index
    }

    /// The entries that may match `key`, in order, each at most once.
    fn candidates(&self, key: &Key) -> Vec<usize> {
        let mut candidates = self.always.clone();
        let Some(literals) = &self.literals else {
            return candidates;
        };
        let mut is_found = vec![false; self.by_literal.len()];
        for found in names(key).flat_map(|name| literals.find_overlapping_iter(name)) {
            let literal = found.pattern().as_usize();
            let is_known = is_found
                .get_mut(literal)
                .map(|it| std::mem::replace(it, true));
            if is_known == Some(false) {
                candidates.extend(self.by_literal.get(literal).into_iter().flatten());
            }
        }
        candidates.sort_unstable();
        candidates
    }
}

/// The texts that a pattern may match: the id, and the label if there is one.
fn names(key: &Key) -> impl Iterator<Item = &str> {
    [Some(key.id.as_str()), key.label.as_deref()]
        .into_iter()
        .flatten()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::key::tests::{at, key};
    use crate::domain::text::Label;

    pub(crate) fn entry(pattern: &str) -> Entry {
        Entry::new(Glob::parse(pattern).unwrap())
    }

    fn labelled(id: &str, label: &'static str) -> Key {
        Key {
            label: Some(label.into()),
            ..key(id)
        }
    }

    #[test]
    fn the_first_entry_that_matches_id_or_label_wins() {
        let within = Entry {
            account: Some("shop".into()),
            ..entry("ci-*")
        };
        let exact_within = Entry {
            account: Some("office".into()),
            ..entry("key_9")
        };
        let inventory = Inventory::new(vec![
            entry("key_1"),           // 0
            within,                   // 1
            entry("*-build"),         // 2
            entry("checkout"),        // 3
            entry("key_1"),           // 4: never reached
            exact_within,             // 5
            entry("check*"),          // 6
            entry("?ey_9"),           // 7
            entry("late but *exact"), // 8
        ]);
        for (account, key, expected) in [
            ("shop", key("key_1"), Some(0)),
            ("office", key("key_1"), Some(0)),
            ("shop", labelled("key_1", "checkout"), Some(0)),
            ("shop", labelled("key_2", "ci-build"), Some(1)),
            ("office", labelled("key_2", "ci-build"), Some(2)),
            ("shop", labelled("key_2", "checkout"), Some(3)),
            ("shop", labelled("key_2", "check"), Some(6)),
            ("office", key("key_9"), Some(5)),
            ("shop", key("key_9"), Some(7)),
            ("shop", key("key_2"), None),
            ("shop", labelled("key_2", "Checkout"), None),
        ] {
            assert_eq!(inventory.find(account, &key), expected, "{account} {key:?}");
        }
        assert_eq!(Inventory::default().find("shop", &key("key_1")), None);
    }

    #[test]
    fn whatever_the_patterns_the_entry_is_the_one_that_trying_all_of_them_finds() {
        let mut random = fastrand::Rng::with_seed(11);
        let any = |random: &mut fastrand::Rng, letters: &[char], most: usize| -> String {
            (0..random.usize(1..=most))
                .map(|_| *random.choice(letters).unwrap())
                .collect()
        };
        for _ in 0..300 {
            let count = random.usize(..30);
            let entries: Vec<Entry> = (0..count)
                .map(|_| Entry {
                    account: random.bool().then(|| "shop".into()),
                    ..entry(&any(&mut random, &['a', 'b', 'é', '*', '?'], 8))
                })
                .collect();
            let inventory = Inventory::new(entries.clone());
            for _ in 0..50 {
                let mut key = key(&any(&mut random, &['a', 'b'], 10));
                key.label = Label::saved(&any(&mut random, &['a', 'b', 'é'], 10), true);
                for account in ["shop", "office"] {
                    let first = entries.iter().position(|it| it.matches(account, &key));
                    assert_eq!(inventory.find(account, &key), first, "{entries:?} {key:?}");
                }
            }
        }
    }

    #[test]
    fn a_mute_ends_at_the_second_that_it_names() {
        let muted = Entry {
            muted_until: Some(at(1_000)),
            ..entry("*")
        };
        for (now, expected) in [(-1, true), (999, true), (1_000, false), (1_001, false)] {
            assert_eq!(muted.is_muted(at(now)), expected, "at {now}");
        }
        assert!(!entry("*").is_muted(at(0)));
    }
}
