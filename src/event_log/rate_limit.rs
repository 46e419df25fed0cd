//! Decides which of many similar log lines are written. Pure: works with any monotonic clock.

use std::time::Duration;

/// A problem that lasts is logged again after this long: often enough to find it in a log, rare
/// enough not to crowd out other lines.
const REMINDER: Duration = Duration::from_mins(15);

/// Limits the lines of one source: a burst, and then one in each period. Counts the lines that it
/// suppresses, so that the next line can report them.
#[derive(Clone, Debug)]
pub(super) struct RateLimit<C = ()> {
    burst: u32,
    period: Duration,
    available: u32,
    /// When `available` was last increased.
    refilled_at: Duration,
    suppressed: u64,
    /// The cause of the current problem, and when it was last logged.
    problem: Option<(C, Duration)>,
}

/// Whether to write a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogDecision {
    /// Write it, with the number of lines that were suppressed since the last one.
    Log {
        /// `None` for zero, so that the field is left out.
        suppressed: Option<u64>,
    },
    /// Do not write it.
    Suppress,
}

impl<C: PartialEq> RateLimit<C> {
    /// Allows `burst` lines at once, and one more after each `period`.
    pub(super) fn new(burst: u32, period: Duration) -> Self {
        Self {
            burst,
            period,
            available: burst,
            refilled_at: Duration::ZERO,
            suppressed: 0,
            problem: None,
        }
    }

    /// Decides about the line of an independent event.
    pub(super) fn event(&mut self, uptime: Duration) -> LogDecision {
        if self.take(uptime) {
            return self.log();
        }
        self.suppress(1);
        LogDecision::Suppress
    }

    /// Decides about the line of a problem that may last: logged when it begins, when its `cause`
    /// changes, and every 15 minutes.
    pub(super) fn problem(&mut self, cause: C, uptime: Duration) -> LogDecision {
        let is_known = self.problem.as_ref().is_some_and(|(known, logged_at)| {
            *known == cause && uptime.saturating_sub(*logged_at) < REMINDER
        });
        if is_known || !self.take(uptime) {
            self.suppress(1);
            return LogDecision::Suppress;
        }
        self.problem = Some((cause, uptime));
        self.log()
    }

    /// Whether to log that the problem is over. A recovery that exceeds the limit may be logged by
    /// a later call, so that the last line about the problem is not wrong for long.
    pub(super) fn resolved(&mut self, uptime: Duration) -> bool {
        if self.problem.is_none() || !self.take(uptime) {
            return false;
        }
        self.problem = None;
        self.suppressed = 0;
        true
    }

    /// Counts lines that were left out elsewhere.
    pub(super) fn suppress(&mut self, count: u64) {
        self.suppressed = self.suppressed.saturating_add(count);
    }

    /// The number of suppressed lines, if there are any and the limit allows a line about them.
    pub(super) fn summary(&mut self, uptime: Duration) -> Option<u64> {
        (self.suppressed > 0 && self.take(uptime)).then(|| std::mem::take(&mut self.suppressed))
    }

    fn log(&mut self) -> LogDecision {
        let suppressed = std::mem::take(&mut self.suppressed);
        LogDecision::Log {
            suppressed: (suppressed > 0).then_some(suppressed),
        }
    }

    fn take(&mut self, uptime: Duration) -> bool {
        self.refill(uptime);
        let left = self.available.checked_sub(1);
        self.available = left.unwrap_or(0);
        left.is_some()
    }

    fn refill(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(self.refilled_at);
        let earned = passed.as_nanos() / self.period.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned == 0 {
            return;
        }
        self.available = self.available.saturating_add(earned).min(self.burst);
        self.refilled_at = if self.available == self.burst {
            uptime
        } else {
            // A fraction of a period counts for the next line.
            self.refilled_at
                .saturating_add(self.period.saturating_mul(earned))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogDecision = LogDecision::Log { suppressed: None };

    fn log_after(suppressed: u64) -> LogDecision {
        LogDecision::Log {
            suppressed: Some(suppressed),
        }
    }

    #[test]
    fn some_lines_at_once_and_then_one_in_each_period() {
        let mut limit = RateLimit::<()>::new(3, Duration::from_secs(10));
        let at = |tenths: u64| Duration::from_millis(100 * tenths);
        let no = LogDecision::Suppress;
        let cases = [
            (0, LOG),
            (0, LOG),
            (0, LOG),
            (0, no),
            (99, no),
            (100, log_after(2)),
            (101, no),
            (150, no),
            (200, log_after(2)),
            (10_000, LOG),
            (10_000, LOG),
            (10_000, LOG),
            (10_000, no),
        ];
        for (tenths, expected) in cases {
            assert_eq!(limit.event(at(tenths)), expected, "at {tenths}");
        }
        assert_eq!(limit.summary(at(10_050)), None, "no line is left for it");
        limit.suppress(6);
        assert_eq!(limit.summary(at(10_100)), Some(7));
        assert_eq!(limit.summary(at(20_000)), None, "nothing was suppressed");
    }

    #[test]
    fn no_minute_has_more_lines_than_burst_and_periods_together() {
        let mut limit = RateLimit::<()>::new(5, Duration::from_secs(12));
        let logged: Vec<u64> = (0..36_000)
            .filter(|tenths| {
                limit.event(Duration::from_millis(100 * tenths)) != LogDecision::Suppress
            })
            .collect();
        let minutes = logged.iter().map(|from| {
            let minute = *from..from + 600;
            logged.iter().filter(|at| minute.contains(at)).count()
        });
        let most = minutes.max();
        assert!(most <= Some(10), "{most:?}");
        assert!(logged.len() > 300, "lines go on");
    }

    #[test]
    fn a_problem_is_logged_first_with_another_cause_and_as_a_reminder() {
        let mut limit = RateLimit::new(5, Duration::from_secs(12));
        let minutes = Duration::from_mins;
        let cases = [
            ("timeout", 0, LOG),
            ("timeout", 5, LogDecision::Suppress),
            ("timeout", 10, LogDecision::Suppress),
            ("timeout", 15, log_after(2)),
            ("timeout", 20, LogDecision::Suppress),
            ("dns", 25, log_after(1)),
            ("timeout", 30, LOG),
        ];
        for (cause, at, expected) in cases {
            assert_eq!(
                limit.problem(cause, minutes(at)),
                expected,
                "{cause} at {at}"
            );
        }
        assert!(limit.resolved(minutes(31)));
        assert!(!limit.resolved(minutes(32)));
        assert_eq!(limit.problem("timeout", minutes(35)), LOG);
    }

    #[test]
    fn flapping_gets_ten_lines_a_minute_and_ends_with_the_truth() {
        let mut limit = RateLimit::new(5, Duration::from_secs(12));
        let seconds = Duration::from_secs;
        let mut logged = Vec::new();
        for at in (0..600).step_by(5) {
            let is_failure = at % 10 == 0;
            let is_logged = if is_failure {
                limit.problem("server_error", seconds(at)) != LogDecision::Suppress
            } else {
                limit.resolved(seconds(at))
            };
            if is_logged {
                logged.push((at, is_failure));
            }
        }
        for from in 0..540 {
            let minute = from..from + 60;
            let lines = logged.iter().filter(|(at, _)| minute.contains(at)).count();
            assert!(lines <= 10, "{lines} from {from}");
        }
        assert!(
            logged.windows(2).all(|pair| pair[0].1 != pair[1].1),
            "{logged:?}"
        );
        // Without further problems, it logs the current state.
        let is_resolved = limit.resolved(seconds(630));
        let was_resolved = logged.last().is_some_and(|(_, is_failure)| !is_failure);
        assert!(was_resolved || is_resolved, "{logged:?}");
    }
}
