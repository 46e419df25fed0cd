//! Detects when clocks disagree enough to report it: the API's clock with ours, the creation times
//! of keys with both, or the age of a response with its arrival time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::event::Event;
use crate::domain::listing::Listing;

/// A synchronized clock is never off by this much. The alert `ApiKeyClockSkew` uses the same value.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);

/// Clock skew ends below this. Lower than the value above, because otherwise a clock that is off by
/// just a minute would flood the log.
const SKEW_GONE: TimeDelta = TimeDelta::seconds(30);

/// A key may be created this much later than now: clocks within one data centre differ by less, and
/// time zones, the usual cause, by more.
const FUTURE_MAX: TimeDelta = TimeDelta::minutes(5);

/// The disagreements in effect; each is reported when it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// The API's clock and ours differ.
    has_skew: bool,
    /// There are keys that were created in the future.
    has_future_keys: bool,
    /// A cache responds instead of the API.
    has_cache: bool,
}

impl Clocks {
    /// Compares the API's clock with ours; nothing changes if the API sent no time.
    pub fn compare(&mut self, skew: Option<TimeDelta>) -> Option<Event> {
        let skew = skew?;
        match self.has_skew {
            false if skew.abs() > SKEW_MAX => {
                self.has_skew = true;
                Some(Event::ClockSkewFound { skew })
            }
            true if skew.abs() < SKEW_GONE => {
                self.has_skew = false;
                Some(Event::ClockSkewGone { skew })
            }
            _ => None,
        }
    }

    /// Whether a cache has begun to respond instead of the API; `age` is the age of its copy.
    pub fn look_for_cache(&mut self, age: Option<Duration>) -> Option<Event> {
        let had_cache = std::mem::replace(&mut self.has_cache, age.is_some());
        let age = age.filter(|_| !had_cache)?;
        Some(Event::CachedAnswer { age })
    }

    /// Finds keys of `listing` created later than `now` allows. `now` is the later of the API's
    /// clock and ours: clock skew is reported separately.
    pub fn look_for_future_keys(&mut self, listing: &Listing, now: DateTime<Utc>) -> Option<Event> {
        let future = listing
            .keys()
            .iter()
            .filter(|key| key.created_at.is_some_and(|at| at - now > FUTURE_MAX));
        let keys = future.clone().count();
        let had_future_keys = std::mem::replace(&mut self.has_future_keys, keys > 0);
        let furthest = future.max_by_key(|key| key.created_at)?;
        (!had_future_keys).then(|| Event::KeysFromTheFuture {
            key_id: furthest.id.clone(),
            created_at: furthest.created_at,
            keys,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::{at, key};
    use crate::domain::key::{Key, KeyId};
    use crate::domain::listing::Rejects;

    #[test]
    fn clock_skew_is_found_once_and_gone_once() {
        let mut clocks = Clocks::default();
        let cases = [
            (Some(60), None),
            (Some(-61), Some(true)),
            (Some(3600), None),
            (None, None),
            (Some(45), None),
            (Some(61), None),
            (Some(-29), Some(false)),
            (Some(45), None),
            (None, None),
            (Some(61), Some(true)),
        ];
        for (seconds, is_found) in cases {
            let skew = seconds.map(TimeDelta::seconds);
            let expected = is_found.zip(skew).map(|(is_found, skew)| {
                if is_found {
                    Event::ClockSkewFound { skew }
                } else {
                    Event::ClockSkewGone { skew }
                }
            });
            assert_eq!(clocks.compare(skew), expected, "{seconds:?}");
        }
    }

    #[test]
    fn keys_from_the_future_are_reported_once_until_they_are_gone() {
        let mut clocks = Clocks::default();
        let mut look = |created: &[i64]| {
            let keys = created.iter().enumerate().map(|(number, seconds)| Key {
                created_at: Some(at(*seconds)),
                ..key(&number.to_string())
            });
            let listing = Listing::new(keys.collect(), Rejects::default(), None);
            clocks.look_for_future_keys(&listing, at(1_000))
        };
        assert_eq!(look(&[1_300, 0]), None, "five minutes are allowed");
        let found = Some(Event::KeysFromTheFuture {
            key_id: KeyId::parse("1").unwrap(),
            created_at: Some(at(9_000)),
            keys: 2,
        });
        assert_eq!(look(&[1_301, 9_000, 0]), found);
        assert_eq!(look(&[1_301, 9_000, 0]), None);
        assert_eq!(look(&[0]), None);
        assert_eq!(look(&[1_301, 9_000]), found);
    }
}
