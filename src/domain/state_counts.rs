//! Counts the keys in each state at any time, without visiting each key again.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::key::{Expiry, Key, KeyState};

/// The times at which keys change state, sorted, so that counting takes two searches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// When each key enters its warning threshold.
    expiring: Box<[DateTime<Utc>]>,
    /// When each key expires.
    expired: Box<[DateTime<Utc>]>,
    never_expires: usize,
    unknown: usize,
    disabled: usize,
}

impl StateCounts {
    /// Takes each key with its warning threshold, which must not be negative.
    pub fn new<'a>(keys: impl Iterator<Item = (&'a Key, TimeDelta)>) -> Self {
        let (mut expiring, mut expired) = (Vec::new(), Vec::new());
        let (mut never_expires, mut unknown, mut disabled) = (0, 0, 0);
        for (key, warning) in keys {
            match key.expiry {
                _ if key.is_disabled => disabled += 1,
                // At any time, even if the clock was set back since.
                _ if key.unlisted_since.is_some() => {
                    expiring.push(DateTime::<Utc>::MIN_UTC);
                    expired.push(DateTime::<Utc>::MIN_UTC);
                }
                Expiry::At(end) => {
                    // Before the earliest time of chrono, every key is far from its expiry.
                    let start = end.checked_sub_signed(warning);
                    expiring.push(start.unwrap_or(DateTime::<Utc>::MIN_UTC));
                    expired.push(end);
                }
                Expiry::Never => never_expires += 1,
                Expiry::Unknown => unknown += 1,
            }
        }
        expiring.sort_unstable();
        expired.sort_unstable();
        Self {
            expiring: expiring.into(),
            expired: expired.into(),
            never_expires,
            unknown,
            disabled,
        }
    }

    /// The number of keys in each state at `now`, in the order of [`KeyState::ALL`].
    pub fn at(&self, now: DateTime<Utc>) -> [(KeyState, usize); KeyState::ALL.len()] {
        let expired = self.expired.partition_point(|end| *end <= now);
        // Each expired key entered its threshold before.
        let entered = self.expiring.partition_point(|start| *start <= now);
        KeyState::ALL.map(|state| {
            let count = match state {
                KeyState::Valid => self.expired.len() - entered,
                KeyState::Expiring => entered - expired,
                KeyState::Expired => expired,
                KeyState::NeverExpires => self.never_expires,
                KeyState::Unknown => self.unknown,
                KeyState::Disabled => self.disabled,
            };
            (state, count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::{at, key};

    #[test]
    fn it_counts_as_the_keys_themselves_would_at_every_boundary() {
        let ends = |end| Expiry::At(at(end));
        let keys = [
            (ends(1_000), 100),
            (ends(1_000), 900),
            (ends(1_001), 0),
            (ends(500), 499),
            (Expiry::Never, 100),
            (Expiry::Unknown, 100),
        ];
        let mut keys: Vec<(Key, TimeDelta)> = keys
            .map(|(expiry, warning)| {
                let warning = TimeDelta::seconds(warning);
                (Key { expiry, ..key("a") }, warning)
            })
            .into();
        let (disabled, unlisted) = (
            Key {
                is_disabled: true,
                expiry: ends(1_000),
                ..key("disabled")
            },
            Key {
                unlisted_since: Some(at(1)),
                expiry: ends(1_000),
                ..key("unlisted")
            },
        );
        keys.extend([disabled, unlisted].map(|key| (key, TimeDelta::zero())));
        let state_counts = StateCounts::new(keys.iter().map(|(key, warning)| (key, *warning)));
        for now in [0, 1, 99, 100, 499, 500, 899, 900, 901, 999, 1_000, 1_001] {
            let now = at(now);
            for (state, count) in state_counts.at(now) {
                let asked = keys
                    .iter()
                    .filter(|(key, warning)| key.state(now, *warning) == state);
                assert_eq!(count, asked.count(), "{state:?} at {now}");
            }
        }
        let at_900: Vec<usize> = state_counts
            .at(at(900))
            .iter()
            .map(|(_, count)| *count)
            .collect();
        assert_eq!(at_900, [1, 2, 2, 1, 1, 1]);
    }

    #[test]
    fn an_endless_threshold_and_no_key_at_all_are_counted_too() {
        let first = Key {
            expiry: Expiry::At(DateTime::<Utc>::MIN_UTC),
            ..key("a")
        };
        let state_counts = StateCounts::new([(&first, TimeDelta::MAX)].into_iter());
        assert_eq!(state_counts.at(at(0))[2], (KeyState::Expired, 1));
        assert!(
            StateCounts::default()
                .at(at(0))
                .iter()
                .all(|(_, n)| *n == 0)
        );
    }
}
