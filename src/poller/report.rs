//! Which failures are worth a line in the log: the first, a new reason, and a reminder now and
//! then. Pure.

use std::time::Duration;

use crate::domain::failure::Reason;
use crate::poller::lines::Lines;

/// A failure that goes on is told again after this long: often enough to find it in a log, rare
/// enough to find anything else.
const REMINDER: Duration = Duration::from_mins(15);

/// An account that fails and recovers at each poll gets no more than ten lines in any minute: five
/// at once, and one each twelve seconds.
const LINES_MAX: u32 = 5;
const LINE_EVERY: Duration = Duration::from_secs(12);

/// What was said last about a run of failures.
#[derive(Clone, Debug)]
pub struct Report {
    last: Option<(Reason, Duration)>,
    suppressed: u64,
    lines: Lines,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            last: None,
            suppressed: 0,
            lines: Lines::new(LINES_MAX, LINE_EVERY),
        }
    }
}

/// What to say about a finished poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saying {
    /// A warning; so many failures went unsaid since the last one.
    Warn {
        /// How many.
        suppressed: u64,
    },
    /// A failure not worth a warning.
    Suppress,
    /// It works again.
    Recovered,
    /// It works as before.
    Nothing,
}

impl Report {
    /// Judges a failed poll. `uptime` is any clock that only goes forward.
    pub fn failed(&mut self, reason: Reason, uptime: Duration) -> Saying {
        match self.last {
            Some((said, at)) if said == reason && uptime.saturating_sub(at) < REMINDER => {
                self.suppressed += 1;
                Saying::Suppress
            }
            _ if !self.lines.take(uptime) => {
                self.suppressed += 1;
                Saying::Suppress
            }
            _ => {
                self.last = Some((reason, uptime));
                Saying::Warn {
                    suppressed: std::mem::take(&mut self.suppressed),
                }
            }
        }
    }

    /// Judges a good poll. A recovery that finds no line is told by a later good poll, so that what
    /// was said last is never wrong for long.
    pub fn succeeded(&mut self, uptime: Duration) -> Saying {
        if self.last.is_none() || !self.lines.take(uptime) {
            return Saying::Nothing;
        }
        self.last = None;
        self.suppressed = 0;
        Saying::Recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_a_new_reason_and_a_reminder_are_said() {
        let mut report = Report::default();
        let minutes = Duration::from_mins;
        let cases = [
            (Reason::Timeout, 0, Saying::Warn { suppressed: 0 }),
            (Reason::Timeout, 5, Saying::Suppress),
            (Reason::Timeout, 10, Saying::Suppress),
            (Reason::Timeout, 15, Saying::Warn { suppressed: 2 }),
            (Reason::Timeout, 20, Saying::Suppress),
            (Reason::Dns, 25, Saying::Warn { suppressed: 1 }),
            (Reason::Timeout, 30, Saying::Warn { suppressed: 0 }),
        ];
        for (reason, at, expected) in cases {
            assert_eq!(
                report.failed(reason, minutes(at)),
                expected,
                "{reason:?} at {at}"
            );
        }
        assert_eq!(report.succeeded(minutes(31)), Saying::Recovered);
        assert_eq!(report.succeeded(minutes(32)), Saying::Nothing);
        assert_eq!(
            report.failed(Reason::Timeout, minutes(35)),
            Saying::Warn { suppressed: 0 }
        );
    }
    #[test]
    fn fault_b16_flapping_gets_ten_lines_a_minute_and_ends_with_the_truth() {
        let mut report = Report::default();
        let seconds = Duration::from_secs;
        let mut said = Vec::new();
        for at in (0..600).step_by(5) {
            let is_failure = at % 10 == 0;
            let saying = if is_failure {
                report.failed(Reason::ServerError, seconds(at))
            } else {
                report.succeeded(seconds(at))
            };
            if matches!(saying, Saying::Warn { .. } | Saying::Recovered) {
                said.push((at, is_failure));
            }
        }
        for from in 0..540 {
            let minute = from..from + 60;
            let lines = said.iter().filter(|(at, _)| minute.contains(at)).count();
            assert!(lines <= 10, "{lines} from {from}");
        }
        assert!(
            said.windows(2).all(|pair| pair[0].1 != pair[1].1),
            "{said:?}"
        );
        // Left alone, it says how things are.
        let last = report.succeeded(seconds(630));
        let was_told = said.last().is_some_and(|(_, is_failure)| !is_failure);
        assert!(was_told || last == Saying::Recovered, "{said:?}");
    }
}
