//! The only reader of the wall clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// The current time. Saturates at 1970: chrono panics on an earlier clock, which a machine without
/// a battery has at boot.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the clock"
)]
pub fn now() -> DateTime<Utc> {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    DateTime::UNIX_EPOCH
        .checked_add_signed(delta(since_epoch))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

/// `duration` as chrono's type; saturates at its maximum, 292 million years.
pub fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

/// The clock that rustls uses to check certificates; its own panics before 1970.
#[derive(Debug)]
pub struct TlsClock(pub fn() -> DateTime<Utc>);

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().timestamp()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_1970_to_tls() {
        let before = TlsClock(|| DateTime::from_timestamp(-1, 0).unwrap());
        let after = TlsClock(|| DateTime::from_timestamp(7, 0).unwrap());
        let seconds = |clock: TlsClock| clock.current_time().unwrap().as_secs();
        assert_eq!((seconds(before), seconds(after)), (0, 7));
    }
}
