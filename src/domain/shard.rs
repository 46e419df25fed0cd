//! Assigns each account to one of several exporters, its shard. Pure.
//!
//! Rendezvous hashing: every shard has a weight for every name, and the shard with the highest
//! weight takes the account. A shard that is added takes accounts of all others, and no account
//! moves between those. The weights must never change, because every account would move.

use std::fmt;

use crate::domain::fnv;

/// Maximum number of shards. With 10,000 accounts each, they hold far more accounts than one
/// configuration file can name; an assignment takes one step for each shard.
pub const TOTAL_MAX: u16 = 1_000;

/// One of several exporters that share the accounts. Displayed as `1 of 4`, where 1 is the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u16,
    total: u16,
}

impl Default for Shard {
    /// The only shard, which takes every account.
    fn default() -> Self {
        Self { index: 0, total: 1 }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.total)
    }
}

impl Shard {
    /// The shard `index`, from 0, of `total`; `None` unless `index` is less than `total`.
    pub fn new(index: u16, total: u16) -> Option<Self> {
        (index < total && total <= TOTAL_MAX).then_some(Self { index, total })
    }

    /// Its index, from 0.
    pub fn index(self) -> u16 {
        self.index
    }

    /// The number of shards, at least 1.
    pub fn total(self) -> u16 {
        self.total
    }

    /// Whether there is more than one shard.
    pub fn is_one_of_several(self) -> bool {
        self.total > 1
    }

    /// Whether this shard takes the account with this name.
    pub fn takes(self, account: &str) -> bool {
        shard_of(account, self.total) == self.index
    }
}

/// The index of the shard, of `total`, that takes the account with this name: the one with the
/// highest weight, or the first of those.
pub fn shard_of(account: &str, total: u16) -> u16 {
    let seed = fnv::hash(account.as_bytes());
    // `max_by_key` returns the last of equals.
    let heaviest = (0..total).rev().max_by_key(|index| weight(seed, *index));
    heaviest.unwrap_or(0)
}

/// The output of `SplitMix64` at the position `index`
/// (<https://prng.di.unimi.it/splitmix64.c>, as in Java's `SplittableRandom`). FNV alone would do
/// badly: names that differ in their last character have hashes that differ little.
fn weight(seed: u64, index: u16) -> u64 {
    let position = u64::from(index) + 1;
    let z = seed.wrapping_add(position.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand names: `style` with a number.
    fn names(style: &str) -> Vec<String> {
        let name = |number: u16| style.replace("{}", &number.to_string());
        (0..1_000).map(name).collect()
    }

    /// How many of `names` one more shard takes. No other may move.
    fn moves(names: &[String], total: u16) -> usize {
        let moved = names.iter().filter(|name| {
            let (before, after) = (shard_of(name, total), shard_of(name, total + 1));
            assert!(before == after || after == total, "{name} of {total}");
            before != after
        });
        moved.count()
    }

    /// How many of `names` each of `total` shards takes.
    fn counts(names: &[String], total: u16) -> Vec<usize> {
        let mut counts = vec![0; total.into()];
        for name in names {
            counts[usize::from(shard_of(name, total))] += 1;
        }
        counts
    }

    #[test]
    fn weights_are_the_published_outputs_of_splitmix64() {
        let outputs = [0, 1, 2].map(|index| weight(1_234_567, index));
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(outputs, expected);
    }

    /// Never change these: in an upgrade, every account would move to another shard.
    #[test]
    fn the_assignment_of_a_name_never_changes() {
        for (name, of_2, of_3, of_4, of_8) in [
            ("default", 1, 1, 1, 1),
            ("shop", 1, 1, 1, 6),
            ("office", 1, 1, 1, 5),
            ("warehouse", 0, 2, 2, 2),
            ("payments", 0, 2, 2, 5),
            ("team-a/production", 0, 2, 2, 7),
            ("team-b/production", 1, 1, 1, 1),
            ("account-1", 0, 0, 0, 0),
            ("account-2", 1, 2, 3, 5),
            ("büro", 0, 0, 0, 0),
            ("日本", 0, 0, 0, 0),
            ("a \"quoted\" name", 1, 1, 3, 7),
        ] {
            let shards = [2, 3, 4, 8].map(|total| shard_of(name, total));
            assert_eq!(shards, [of_2, of_3, of_4, of_8], "{name:?}");
        }
    }

    #[test]
    fn a_shard_is_one_of_the_total() {
        assert_eq!(Shard::new(0, 1), Some(Shard::default()));
        assert_eq!(Shard::new(2, 3).unwrap().to_string(), "2 of 3");
        for (index, total) in [(0, 0), (1, 1), (3, 3), (0, TOTAL_MAX + 1)] {
            assert_eq!(Shard::new(index, total), None, "{index} {total}");
        }
        assert!(Shard::new(TOTAL_MAX - 1, TOTAL_MAX).is_some());
    }

    #[test]
    fn every_account_belongs_to_exactly_one_shard() {
        for total in [1, 2, 7, TOTAL_MAX] {
            for name in ["", "default", "shop", "büro", "a b"] {
                let takers = (0..total).filter(|index| {
                    let shard = Shard::new(*index, total).unwrap();
                    shard.takes(name)
                });
                assert_eq!(takers.count(), 1, "{name:?} of {total}");
            }
        }
    }

    /// The figures of docs/scaling.md.
    #[test]
    fn a_thousand_accounts_are_balanced_and_an_added_shard_moves_only_what_it_takes() {
        for (total, expected, moved) in [
            (2, vec![503, 497], 336),
            (3, vec![322, 342, 336], 247),
            (4, vec![253, 263, 237, 247], 195),
            (8, vec![122, 146, 122, 116, 127, 140, 116, 111], 93),
        ] {
            let names = names("account-{}");
            assert_eq!(counts(&names, total), expected);
            assert_eq!(moves(&names, total), moved, "from {total}");
        }
    }

    #[test]
    fn names_of_any_style_are_balanced() {
        for style in ["{}", "team-{}-production", "https://{}.example.com/"] {
            let names = names(style);
            for total in [2, 3, 4, 8, 16] {
                // Within four standard deviations of an even, random distribution.
                let is_near = |count: usize, shards: u16| {
                    let share = 1.0 / f64::from(shards);
                    let deviation = (1_000.0 * share * (1.0 - share)).sqrt();
                    (count as f64 - 1_000.0 * share).abs() < 4.0 * deviation
                };
                let counts = counts(&names, total);
                assert!(
                    counts.iter().all(|count| is_near(*count, total)),
                    "{style} {counts:?}"
                );
                let moves = moves(&names, total);
                assert!(is_near(moves, total + 1), "{style} {total}: {moves}");
            }
        }
    }
}
