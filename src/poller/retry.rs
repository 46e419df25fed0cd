//! When to try again and when to leave the API alone. Pure: random numbers, times and waits are
//! handed in.

use std::time::Duration;

use crate::domain::failure::Failure;

/// A backoff grows from this.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// Shortest wait before a retry. Full jitter alone may say zero, and a server in trouble deserves a
/// breath.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest backoff within a poll; the next poll comes anyway.
const BACKOFF_MAX: Duration = Duration::from_secs(20);

/// Longest that a `Retry-After` is obeyed. A server that says "next year" has a bug, and keys
/// expire meanwhile.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Longest that a poll may take, retries and all, however long its interval is.
const POLL_MAX: Duration = Duration::from_mins(1);

/// Retries saved up. Enough to ride out a bad minute, far too few to add to an outage.
const BUDGET_MAX_TENTHS: u32 = 100;
/// What a retry costs, in tenths.
const RETRY_COST_TENTHS: u32 = 10;
/// What a successful poll gives back, in tenths.
const SUCCESS_GAIN_TENTHS: u32 = 1;

/// How long first polls are spread over, where few accounts start together.
const FIRST_WAIT_FEW: Duration = Duration::from_secs(5);

/// The same where many do. After that long an operator wonders.
const FIRST_WAIT_MANY: Duration = Duration::from_secs(30);

/// Time that each of many accounts gets. A first poll takes some milliseconds of CPU, with its TLS
/// handshake and a listing that is all new.
const FIRST_WAIT_PER_ACCOUNT: Duration = Duration::from_millis(30);

/// Over how long the first polls are spread where `accounts` start together, so that neither they
/// nor a hundred exporters started together arrive together. At most a tenth of the interval.
pub fn first_wait_max(interval: Duration, accounts: usize) -> Duration {
    let accounts = u32::try_from(accounts).unwrap_or(u32::MAX);
    FIRST_WAIT_PER_ACCOUNT
        .saturating_mul(accounts)
        .clamp(FIRST_WAIT_FEW, FIRST_WAIT_MANY)
        .min(interval / 10)
}

/// How long a first poll waits: a random part of `max`.
pub fn first_wait(max: Duration, random: f64) -> Duration {
    max.mul_f64(unit(random))
}

/// How long after the start of one poll the next one starts: the interval, give or take a tenth.
pub fn next_wait(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * unit(random))
}

/// How long a whole poll may take, all attempts and waits included. It ends before the next one can
/// start.
pub fn poll_limit(interval: Duration) -> Duration {
    interval.mul_f64(0.9).min(POLL_MAX)
}

/// Shortest time from the end of one poll to the start of the next: as before a retry, where the
/// interval is one that a configuration may have.
pub fn least_gap(interval: Duration) -> Duration {
    BACKOFF_MIN.min(interval / 10)
}

/// How long to wait before attempt number `retry` + 1, `retry` counting from 1: exponential, with
/// full jitter.
pub fn backoff(retry: u32, random: f64) -> Duration {
    let exponent = retry.saturating_sub(1).min(16);
    let ceiling = BACKOFF_BASE.saturating_mul(1 << exponent);
    ceiling
        .mul_f64(unit(random))
        .clamp(BACKOFF_MIN, BACKOFF_MAX)
}

/// How long the API is left alone because it asked for it: at least `backoff`, at most an hour.
pub fn obeyed(retry_after: Duration, backoff: Duration) -> Duration {
    retry_after.min(RETRY_AFTER_MAX).max(backoff)
}

/// Retries that may be made, shared by all polls of an account: 10 at most, one a retry, and a
/// tenth back for each success. So requests never exceed polls + 10 + a tenth of the successes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    tenths: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            tenths: BUDGET_MAX_TENTHS,
        }
    }
}

impl Budget {
    /// Takes one retry; `false` where there is none left.
    pub fn take(&mut self) -> bool {
        let left = self.tenths.checked_sub(RETRY_COST_TENTHS);
        self.tenths = left.unwrap_or(self.tenths);
        left.is_some()
    }

    /// Counts a successful poll.
    pub fn earn(&mut self) {
        self.tenths = (self.tenths + SUCCESS_GAIN_TENTHS).min(BUDGET_MAX_TENTHS);
    }
}

/// Whether, and after what wait, a poll makes another attempt.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Attempts made so far in this poll, from 1.
    pub attempts: u32,
    /// Most attempts of a poll.
    pub attempts_max: u32,
    /// What is left of the poll's own time.
    pub time_left: Duration,
    /// 0 to 1.
    pub random: f64,
}

impl Situation {
    /// The wait before the next attempt, or `None` where this poll ends here: the failure is not
    /// one that passes, the attempts or the budget are used up, or the wait would not leave time
    /// for an attempt.
    pub fn next_attempt(self, failure: &Failure, budget: &mut Budget) -> Option<Duration> {
        if !failure.is_transient() || self.attempts >= self.attempts_max {
            return None;
        }
        let backoff = backoff(self.attempts, self.random);
        let wait = failure
            .retry_after
            .map_or(backoff, |asked| obeyed(asked, backoff));
        (wait < self.time_left && budget.take()).then_some(wait)
    }
}

fn unit(random: f64) -> f64 {
    // A NaN would become 0.
    random.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::Reason;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn fault_b12_waits_between_polls_stay_within_a_tenth() {
        let interval = Duration::from_secs(300);
        for (random, first, next) in [(0.0, 0.0, 270.0), (0.5, 2.5, 300.0), (1.0, 5.0, 330.0)] {
            let max = first_wait_max(interval, 1);
            assert_eq!(first_wait(max, random), seconds(first));
            assert!((next_wait(interval, random).as_secs_f64() - next).abs() < 1e-6);
        }
        assert_eq!(poll_limit(Duration::from_secs(5)), seconds(4.5));
        assert_eq!(poll_limit(interval), seconds(60.0));
        assert_eq!(least_gap(Duration::from_secs(5)), seconds(0.5));
        assert_eq!(least_gap(interval), seconds(0.5));
    }

    #[test]
    fn first_polls_of_many_accounts_are_spread_over_more_time_but_no_more_than_half_a_minute() {
        for (interval, accounts, expected) in [
            (300, 0, 5.0),
            (300, 1, 5.0),
            (300, 166, 5.0),
            (300, 200, 6.0),
            (300, 1_000, 30.0),
            (300, 10_000, 30.0),
            (86_400, usize::MAX, 30.0),
            (60, 1, 5.0),
            (60, 10_000, 6.0),
            (5, 1, 0.5),
            (5, 10_000, 0.5),
        ] {
            let max = first_wait_max(Duration::from_secs(interval), accounts);
            assert_eq!(max, seconds(expected), "{accounts} every {interval} s");
            assert_eq!(first_wait(max, 1.0), max);
        }
    }

    #[test]
    fn backoff_doubles_under_full_jitter_between_half_a_second_and_twenty() {
        for (retry, random, expected) in [
            (1, 0.0, 0.5),
            (1, 0.5, 0.5),
            (1, 1.0, 1.0),
            (2, 0.5, 1.0),
            (2, 1.0, 2.0),
            (3, 0.75, 3.0),
            (5, 1.0, 16.0),
            (6, 1.0, 20.0),
            (6, 0.0, 0.5),
            (u32::MAX, 1.0, 20.0),
        ] {
            assert_eq!(
                backoff(retry, random),
                seconds(expected),
                "retry {retry}, random {random}"
            );
        }
    }

    #[test]
    fn retry_after_is_obeyed_between_the_backoff_and_an_hour() {
        let backoff = seconds(2.0);
        for (asked, expected) in [
            (0, 2),
            (1, 2),
            (120, 120),
            (3600, 3600),
            (3601, 3600),
            (u64::MAX, 3600),
        ] {
            assert_eq!(
                obeyed(Duration::from_secs(asked), backoff),
                Duration::from_secs(expected),
                "{asked}"
            );
        }
    }

    #[test]
    fn the_budget_allows_ten_retries_and_one_more_after_ten_successes() {
        let mut budget = Budget::default();
        assert_eq!((0..20).filter(|_| budget.take()).count(), 10);
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.take());
        budget.earn();
        assert!(budget.take());
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn a_poll_ends_when_another_attempt_makes_no_sense() {
        let now = Situation {
            attempts: 1,
            attempts_max: 3,
            time_left: seconds(10.0),
            random: 1.0,
        };
        let timeout = Failure::new(Reason::Timeout, "");
        let asking = |asked| Failure {
            retry_after: Some(Duration::from_secs(asked)),
            ..timeout.clone()
        };
        let cases = [
            ("first retry", now, timeout.clone(), Some(1.0)),
            (
                "second retry",
                Situation { attempts: 2, ..now },
                timeout.clone(),
                Some(2.0),
            ),
            (
                "attempts used up",
                Situation { attempts: 3, ..now },
                timeout.clone(),
                None,
            ),
            (
                "not transient",
                now,
                Failure::new(Reason::Unauthorized, ""),
                None,
            ),
            (
                "no time left",
                Situation {
                    time_left: seconds(0.9),
                    ..now
                },
                timeout.clone(),
                None,
            ),
            ("asked to wait", now, asking(7), Some(7.0)),
            ("asked to wait longer than the poll", now, asking(120), None),
        ];
        for (name, situation, failure, expected) in cases {
            let wait = situation.next_attempt(&failure, &mut Budget::default());
            assert_eq!(wait, expected.map(seconds), "{name}");
        }
        let mut empty = Budget { tenths: 9 };
        assert_eq!(now.next_attempt(&timeout, &mut empty), None);
    }
}
