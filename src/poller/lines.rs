//! How many lines a log may get: some at once, then one now and then. Pure.

use std::time::Duration;

/// A bucket of lines that fills with time. Any clock that only goes forward will do.
#[derive(Clone, Debug)]
pub struct Lines {
    max: u32,
    every: Duration,
    left: u32,
    /// When the bucket was filled last.
    filled_at: Duration,
}

impl Lines {
    /// Allows `max` lines at once, and one more after each `every`.
    pub fn new(max: u32, every: Duration) -> Self {
        Self {
            max,
            every,
            left: max,
            filled_at: Duration::ZERO,
        }
    }

    /// Takes one line at `uptime`; `false` where there is none left.
    pub fn take(&mut self, uptime: Duration) -> bool {
        self.fill(uptime);
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    fn fill(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(self.filled_at);
        let earned = passed.as_nanos() / self.every.as_nanos().max(1);
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned == 0 {
            return;
        }
        self.left = self.left.saturating_add(earned).min(self.max);
        self.filled_at = if self.left == self.max {
            uptime
        } else {
            // What is left of a line counts for the next one.
            self.filled_at
                .saturating_add(self.every.saturating_mul(earned))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_at_once_and_then_one_now_and_then() {
        let mut lines = Lines::new(3, Duration::from_secs(10));
        let at = |tenths: u64| Duration::from_millis(100 * tenths);
        let cases = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99, false),
            (100, true),
            (101, false),
            (150, false),
            (200, true),
            (10_000, true),
            (10_000, true),
            (10_000, true),
            (10_000, false),
        ];
        for (tenths, expected) in cases {
            assert_eq!(lines.take(at(tenths)), expected, "at {tenths}");
        }
    }

    #[test]
    fn no_minute_has_more_than_the_two_together() {
        let mut lines = Lines::new(5, Duration::from_secs(12));
        let said: Vec<u64> = (0..36_000)
            .filter(|tenths| lines.take(Duration::from_millis(100 * tenths)))
            .collect();
        let most = said
            .iter()
            .map(|from| {
                said.iter()
                    .filter(|at| (*from..from + 600).contains(at))
                    .count()
            })
            .max();
        assert!(most <= Some(10), "{most:?}");
        assert!(said.len() > 300, "it goes on saying");
    }
}
