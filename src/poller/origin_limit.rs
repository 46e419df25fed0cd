//! The rate limit of an origin (scheme, host and port), which all accounts there share: when the
//! next listing may start.
//!
//! [`Turns`] is pure: times are arguments. [`OriginLimit`] shares it between pollers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Origin;

use crate::config::Account;
use crate::domain::failure::{Failure, Reason};
use crate::poller::retry::{first_wait_max, obeyed};
use crate::provider::Answer;
use crate::provider::quota::Quota;

/// When listings of one origin may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The earliest request that the API allows.
    not_before: Instant,
    /// The earliest start of the next listing that keeps the gap to the last one.
    next: Instant,
    /// The shortest time between the starts of two listings.
    gap: Duration,
}

impl Turns {
    /// No limit is known at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            not_before: now,
            next: now,
            gap: Duration::ZERO,
        }
    }

    /// Spreads the listings of `accounts` accounts, of which the most frequent polls every
    /// `interval`, over half of the interval: enough to separate them, and twice as many turns as
    /// listings, so that none has to wait for long.
    #[must_use]
    pub fn spread(self, accounts: u32, interval: Duration) -> Self {
        let gap = match accounts {
            0 | 1 => Duration::ZERO,
            _ => interval / accounts.saturating_mul(2),
        };
        Self { gap, ..self }
    }

    /// After an answer at `now`: a `failure`, or the last one of a listing of `requests` requests.
    /// A 429 or 503 with a wait pauses the origin, and so does a quota that is too small for
    /// another listing like this one. No pause exceeds the limit of [`obeyed`].
    #[must_use]
    pub fn after(
        self,
        failure: Option<&Failure>,
        quota: Option<Quota>,
        requests: u32,
        now: Instant,
    ) -> Self {
        let asked = failure
            .filter(|failure| matches!(failure.http_status, Some(429 | 503)))
            .and_then(|failure| failure.retry_after);
        let exhausted = quota
            .filter(|quota| quota.remaining < u64::from(requests.max(1)))
            .map(|quota| quota.resets_in);
        let pause = obeyed(asked.max(exhausted).unwrap_or_default(), Duration::ZERO);
        Self {
            not_before: self.not_before.max(now + pause),
            ..self
        }
    }

    /// Takes the next turn at `now` or later and returns its start. After a pause, turns are
    /// delayed by `jitter`, so that several exporters do not return at the same moment. A first
    /// listing does not keep the gap: its account has nothing to serve yet.
    #[must_use]
    pub fn take(self, is_first: bool, jitter: Duration, now: Instant) -> (Self, Instant) {
        let allowed = if self.not_before > now {
            self.not_before + jitter
        } else {
            now
        };
        let start = if is_first {
            allowed
        } else {
            allowed.max(self.next)
        };
        let next = self.next.max(start + self.gap);
        (Self { next, ..self }, start)
    }
}

/// The turns of one origin, shared by the pollers of its accounts.
#[derive(Debug)]
pub struct OriginLimit(Mutex<Turns>);

impl Default for OriginLimit {
    fn default() -> Self {
        Self(Mutex::new(Turns::new(Instant::now())))
    }
}

impl OriginLimit {
    /// The earliest request that the API allows.
    pub fn not_before(&self) -> Instant {
        self.turns().not_before
    }

    /// Takes the next turn and returns its start; see [`Turns::take`].
    pub fn take(&self, is_first: bool, jitter: Duration) -> Instant {
        let mut turns = self.turns();
        let (next, start) = turns.take(is_first, jitter, Instant::now());
        *turns = next;
        start
    }

    /// Makes one attempt within `deadline`, and learns from its answer. If another account's answer
    /// has paused the origin in the meantime, the attempt waits, or is postponed.
    pub async fn attempt(
        &self,
        deadline: Duration,
        attempt: impl AsyncFnOnce(Duration) -> Answer,
    ) -> Answer {
        let wait = self.time_left();
        if wait >= deadline {
            let why = "another account of this host was asked to wait";
            let failure = Failure {
                retry_after: Some(wait),
                ..Failure::new(Reason::RateLimited, why)
            };
            return Answer {
                is_postponed: true,
                ..Answer::failed(failure)
            };
        }
        sleep(wait).await;
        let answer = attempt(deadline.saturating_sub(wait)).await;
        let (failure, traffic) = (answer.result.as_ref().err(), &answer.traffic);
        self.learn(failure, traffic.quota, traffic.requests);
        answer
    }

    /// Waits for the end of a pause, asks within the rest of `deadline`, and learns from a failure.
    pub async fn ask<T>(
        &self,
        deadline: Duration,
        ask: impl AsyncFnOnce(Duration) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let wait = self.time_left();
        sleep(wait).await;
        let result = ask(deadline.saturating_sub(wait)).await;
        self.learn(result.as_ref().err(), None, 1);
        result
    }

    fn time_left(&self) -> Duration {
        self.not_before().saturating_duration_since(Instant::now())
    }

    fn learn(&self, failure: Option<&Failure>, quota: Option<Quota>, requests: u32) {
        let mut turns = self.turns();
        *turns = turns.after(failure, quota, requests, Instant::now());
    }

    /// Never locked across an await. A panic while it is locked leaves every value intact.
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of all origins.
#[derive(Debug, Default)]
pub struct OriginLimits(HashMap<Origin, Arc<OriginLimit>>);

impl OriginLimits {
    /// Keeps a limit for each origin of `accounts`, and what is known of it.
    pub fn arrange(&mut self, accounts: &[Account]) {
        let mut sizes: HashMap<Origin, (u32, Duration)> = HashMap::new();
        for account in accounts {
            let size = sizes.entry(account.base_url.origin());
            let (count, interval) = size.or_insert((0, account.interval));
            *count += 1;
            *interval = account.interval.min(*interval);
        }
        self.0.retain(|origin, _| sizes.contains_key(origin));
        for (origin, (count, interval)) in sizes {
            let limit = self.0.entry(origin).or_default();
            let mut turns = limit.turns();
            *turns = turns.spread(count, interval);
        }
    }

    /// The limit of the account's origin.
    pub fn of(&self, account: &Account) -> Arc<OriginLimit> {
        let known = self.0.get(&account.base_url.origin());
        known.cloned().unwrap_or_default()
    }
}

/// The longest delay that [`Turns::take`] adds after a pause.
pub fn jitter_max(interval: Duration) -> Duration {
    first_wait_max(interval, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn failure(status: u16, retry_after: Option<u64>) -> Failure {
        Failure {
            http_status: Some(status),
            retry_after: retry_after.map(seconds),
            ..Failure::new(Reason::of_status(status), "")
        }
    }

    #[test]
    fn an_answer_pauses_the_origin_for_as_long_as_it_asks_and_no_longer_than_an_hour() {
        let now = Instant::now() + seconds(10_000);
        let left = |remaining, resets_in| {
            Some(Quota {
                remaining,
                resets_in: seconds(resets_in),
            })
        };
        let cases = [
            (None, None, 1, 0),
            (Some(failure(429, Some(30))), None, 1, 30),
            (Some(failure(503, Some(30))), None, 1, 30),
            // Of these, only the account itself is asked to wait.
            (Some(failure(500, Some(30))), None, 1, 0),
            (Some(failure(429, None)), None, 1, 0),
            (Some(failure(429, Some(u64::MAX))), None, 1, 3_600),
            // Enough is left for another listing of the same size.
            (None, left(3, 60), 3, 0),
            (None, left(2, 60), 3, 60),
            (None, left(0, 60), 0, 60),
            (None, left(1, 60), 0, 0),
            (None, left(0, 0), 1, 0),
            (None, left(0, u64::MAX), 1, 3_600),
            (Some(failure(429, Some(5))), left(0, 60), 1, 60),
            (Some(failure(429, Some(90))), left(0, 60), 1, 90),
        ];
        for (failure, quota, requests, expected) in cases {
            let turns = Turns::new(now).after(failure.as_ref(), quota, requests, now);
            let pause = turns.not_before - now;
            assert_eq!(
                pause,
                seconds(expected),
                "{failure:?}, {quota:?}, {requests}"
            );
            // A shorter pause does not end a longer one.
            let later = turns.after(None, left(0, 1), 1, now);
            assert_eq!(later.not_before - now, seconds(expected.max(1)));
        }
    }

    #[test]
    fn turns_are_spread_over_half_of_the_interval() {
        let now = Instant::now();
        let mut turns = Turns::new(now).spread(5, seconds(300));
        let mut starts = Vec::new();
        for _ in 0..5 {
            let (next, start) = turns.take(false, Duration::ZERO, now);
            starts.push((start - now).as_secs());
            turns = next;
        }
        assert_eq!(starts, [0, 30, 60, 90, 120]);
        // Listings that are apart do not wait.
        let later = now + seconds(300);
        assert_eq!(turns.take(false, Duration::ZERO, later).1, later);
        // A first listing does not keep the gap, and a single account has none.
        assert_eq!(turns.take(true, Duration::ZERO, now).1, now);
        let alone = Turns::new(now).spread(1, seconds(300));
        let (alone, _) = alone.take(false, Duration::ZERO, now);
        assert_eq!(alone.take(false, Duration::ZERO, now).1, now);
    }

    #[test]
    fn after_a_pause_turns_keep_their_gap_and_are_delayed_at_random() {
        let now = Instant::now();
        let turns = Turns::new(now).spread(2, seconds(40));
        let turns = turns.after(Some(&failure(429, Some(100))), None, 1, now);
        let (turns, first) = turns.take(false, seconds(3), now);
        let (_, second) = turns.take(false, seconds(1), now);
        assert_eq!((first - now, second - now), (seconds(103), seconds(113)));
        let (_, first_poll) = turns.take(true, seconds(2), now);
        assert_eq!(first_poll - now, seconds(102));
    }
}
