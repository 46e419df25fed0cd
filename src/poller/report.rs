//! Which failures are worth a line in the log: the first, a new reason, and a reminder now and
//! then. Pure.

use std::time::Duration;

use crate::domain::failure::Reason;

/// A failure that goes on is told again after this long: often enough to find it in a log, rare
/// enough to find anything else.
const REMINDER: Duration = Duration::from_mins(15);

/// What was said last about a run of failures.
#[derive(Clone, Debug, Default)]
pub struct Report {
    last: Option<(Reason, Duration)>,
    suppressed: u64,
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
            _ => {
                self.last = Some((reason, uptime));
                Saying::Warn {
                    suppressed: std::mem::take(&mut self.suppressed),
                }
            }
        }
    }

    /// Judges a good poll.
    pub fn succeeded(&mut self) -> Saying {
        self.suppressed = 0;
        if self.last.take().is_some() {
            Saying::Recovered
        } else {
            Saying::Nothing
        }
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
        assert_eq!(report.succeeded(), Saying::Recovered);
        assert_eq!(report.succeeded(), Saying::Nothing);
        assert_eq!(
            report.failed(Reason::Timeout, minutes(35)),
            Saying::Warn { suppressed: 0 }
        );
    }
}
