//! When to retry and when to pause. Pure: random numbers, times and waits are arguments.

use std::time::Duration;

use crate::domain::failure::Failure;

/// The base of the exponential backoff.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// Shortest wait before a retry. Full jitter alone may return zero, which would add load to a
/// server in trouble.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest backoff within a poll; the next poll follows anyway.
const BACKOFF_MAX: Duration = Duration::from_secs(20);

/// Longest `Retry-After` that is honoured. A longer one is probably a bug of the server, and keys
/// expire in the meantime.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Longest time for a poll, including retries, regardless of its interval.
const POLL_MAX: Duration = Duration::from_mins(1);

/// Capacity of the retry budget, in tenths. Enough for a bad minute, far too few to prolong an
/// outage.
const BUDGET_MAX_TENTHS: u32 = 100;
/// The cost of a retry, in tenths.
const RETRY_COST_TENTHS: u32 = 10;
/// The gain from a successful poll, in tenths.
const SUCCESS_GAIN_TENTHS: u32 = 1;

/// The period over which first polls are spread if few accounts start together.
const FIRST_WAIT_FEW: Duration = Duration::from_secs(5);

/// The same for many accounts. A longer period would look like a fault to an operator.
const FIRST_WAIT_MANY: Duration = Duration::from_secs(30);

/// The time per account if many start. A first poll takes some milliseconds of CPU, with its TLS
/// handshake and a listing in which every key is new.
const FIRST_WAIT_PER_ACCOUNT: Duration = Duration::from_millis(30);

/// The period over which the first polls of `accounts` are spread, so that neither they nor a
/// hundred exporters that start together reach the API at once. At most a tenth of the interval.
pub fn first_wait_max(interval: Duration, accounts: usize) -> Duration {
    let accounts = u32::try_from(accounts).unwrap_or(u32::MAX);
    FIRST_WAIT_PER_ACCOUNT
        .saturating_mul(accounts)
        .clamp(FIRST_WAIT_FEW, FIRST_WAIT_MANY)
        .min(interval / 10)
}

/// The delay of a first poll: a random part of `max`.
pub fn first_wait(max: Duration, random: f64) -> Duration {
    max.mul_f64(unit(random))
}

/// The time from the start of one poll to the start of the next: the interval with ±10 % jitter.
pub fn next_wait(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * unit(random))
}

/// The time limit of a whole poll, including all attempts and waits. It ends before the next poll
/// can start.
pub fn poll_limit(interval: Duration) -> Duration {
    interval.mul_f64(0.9).min(POLL_MAX)
}

/// Shortest time from the end of one poll to the start of the next: the same as before a retry, for
/// any interval that a configuration may have.
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

/// How long to wait after `Retry-After`: at least `backoff`, at most an hour.
pub fn obeyed(retry_after: Duration, backoff: Duration) -> Duration {
    retry_after.min(RETRY_AFTER_MAX).max(backoff)
}

/// The retry budget that all polls of an account share: at most 10 retries. Each retry costs one,
/// and each success returns a tenth. Requests therefore never exceed polls + 10 + a tenth of the
/// successes.
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
    /// Takes one retry; `false` if none is left.
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

/// Decides whether a poll makes another attempt, and after what wait.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// Attempts made so far in this poll, from 1.
    pub attempts: u32,
    /// Most attempts of a poll.
    pub attempts_max: u32,
    /// The time left for this poll.
    pub time_left: Duration,
    /// 0 to 1.
    pub random: f64,
}

impl Situation {
    /// The wait before the next attempt, or `None` if this poll ends here: the failure is not
    /// transient, the attempts or the budget are used up, or the wait would leave too little time
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
    fn waits_between_polls_stay_within_a_tenth() {
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
