//! When clocks disagree enough for a line in the log: ours with the API's, or the times of keys
//! with both. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::key::Key;
use crate::domain::listing::Listing;

/// A synchronised clock is never off by as much. The alert `ApiKeyClockSkew` says the same.
const SKEW_MAX: TimeDelta = TimeDelta::seconds(60);

/// Clocks that parted agree again below this. Less than above, or a clock that is off by just a
/// minute would fill the log.
const SKEW_GONE: TimeDelta = TimeDelta::seconds(30);

/// A key may be this much younger than now: clocks of one data centre differ by less, and time
/// zones, which are the usual cause, by more.
const FUTURE_MAX: TimeDelta = TimeDelta::minutes(5);

/// What was told so far.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// The API's clock and ours have parted.
    have_parted: bool,
    /// There are keys from the future.
    has_future_keys: bool,
}

/// News about the API's clock and ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SkewNews {
    Parted,
    Agree,
}

/// Keys that were created in the future.
#[derive(Debug, PartialEq)]
pub(super) struct FutureKeys<'a> {
    /// The one that is furthest off.
    pub(super) furthest: &'a Key,
    pub(super) count: usize,
}

impl Clocks {
    /// What `skew` brings that was not told; nothing where the API named no time.
    pub(super) fn skew_news(&self, skew: Option<TimeDelta>) -> Option<SkewNews> {
        let off_by = skew?.abs();
        match self.have_parted {
            false if off_by > SKEW_MAX => Some(SkewNews::Parted),
            true if off_by < SKEW_GONE => Some(SkewNews::Agree),
            _ => None,
        }
    }

    /// Remembers what was told.
    pub(super) fn told_skew(&mut self, news: SkewNews) {
        self.have_parted = news == SkewNews::Parted;
    }

    /// The keys of `listing` that are younger than `now` allows, unless such keys were told before
    /// and have not been away since.
    pub(super) fn future_keys<'a>(
        &mut self,
        listing: &'a Listing,
        now: DateTime<Utc>,
    ) -> Option<FutureKeys<'a>> {
        let is_future = |key: &&Key| key.created_at.is_some_and(|at| at - now > FUTURE_MAX);
        let keys = || listing.keys().iter().filter(is_future);
        let Some(furthest) = keys().max_by_key(|key| key.created_at) else {
            self.has_future_keys = false;
            return None;
        };
        (!self.has_future_keys).then(|| FutureKeys {
            furthest,
            count: keys().count(),
        })
    }

    /// Remembers that keys from the future were told.
    pub(super) fn told_future_keys(&mut self) {
        self.has_future_keys = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::{at, key};
    use crate::domain::listing::Rejects;

    #[test]
    fn fault_d7_clocks_part_once_and_agree_once() {
        let mut clocks = Clocks::default();
        let cases = [
            (Some(60), None),
            (Some(-61), Some(SkewNews::Parted)),
            (Some(3600), None),
            (None, None),
            (Some(45), None),
            (Some(61), None),
            (Some(-29), Some(SkewNews::Agree)),
            (Some(45), None),
            (None, None),
            (Some(61), Some(SkewNews::Parted)),
        ];
        for (skew, expected) in cases {
            let news = clocks.skew_news(skew.map(TimeDelta::seconds));
            assert_eq!(news, expected, "{skew:?}");
            if let Some(news) = news {
                clocks.told_skew(news);
            }
        }
    }

    #[test]
    fn fault_c13_keys_from_the_future_are_told_once_until_they_are_gone() {
        let mut clocks = Clocks::default();
        let listing = |created: &[i64]| {
            let keys = created.iter().enumerate().map(|(number, seconds)| Key {
                created_at: Some(at(*seconds)),
                ..key(&number.to_string())
            });
            Listing::new(keys.collect(), Rejects::default(), None)
        };
        let mut told = |created: &[i64]| {
            let listing = listing(created);
            let news = clocks.future_keys(&listing, at(1_000));
            let news = news.map(|keys| (keys.furthest.id.to_string(), keys.count));
            if news.is_some() {
                clocks.told_future_keys();
            }
            news
        };
        assert_eq!(told(&[1_300, 0]), None, "five minutes are allowed");
        let furthest = || Some(("1".to_owned(), 2));
        assert_eq!(told(&[1_301, 9_000, 0]), furthest());
        assert_eq!(told(&[1_301, 9_000, 0]), None);
        assert_eq!(told(&[0]), None);
        assert_eq!(told(&[1_301, 9_000]), furthest());
    }
}
