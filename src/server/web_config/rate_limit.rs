//! The rate limit of the web configuration file: a token bucket. Pure: times are parameters.

use std::time::Duration;

use crate::server::web_config::format::RateLimit;

/// A bucket that gains a token each interval. A request takes one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    limit: RateLimit,
    tokens: f64,
    filled_at: Duration,
}

impl Bucket {
    /// A full bucket, `uptime` after the start.
    pub(super) fn new(limit: RateLimit, uptime: Duration) -> Self {
        Self {
            limit,
            tokens: capacity(limit),
            filled_at: uptime,
        }
    }

    /// The limit that it enforces.
    pub(super) fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, uptime: Duration) -> bool {
        let passed = uptime.saturating_sub(self.filled_at);
        let filled = passed.as_secs_f64() / self.limit.interval.as_secs_f64();
        self.tokens = (self.tokens + filled).min(capacity(self.limit));
        self.filled_at = uptime;
        let is_allowed = self.tokens >= 1.0;
        if is_allowed {
            self.tokens -= 1.0;
        }
        is_allowed
    }
}

/// A bucket without room for one token would reject every request.
fn capacity(limit: RateLimit) -> f64 {
    f64::from(limit.burst.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_request_an_interval() {
        for (burst, expected) in [
            (0, [true, false, false, true, false]),
            (1, [true, false, false, true, false]),
            (2, [true, true, false, true, false]),
        ] {
            let interval = Duration::from_secs(1);
            let limit = RateLimit { interval, burst };
            let mut bucket = Bucket::new(limit, Duration::from_secs(5));
            let taken = [5000, 5001, 5002, 6001, 6002]
                .map(|millis| bucket.take(Duration::from_millis(millis)));
            assert_eq!(taken, expected, "{burst}");
            // A long idle period fills it no further than to its burst.
            let rested = Duration::from_secs(1000);
            let allowed = (0..5).filter(|_| bucket.take(rested)).count();
            assert_eq!(allowed, burst.max(1) as usize);
        }
    }
}
