//! The only reader of the wall clock.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// The present. Saturates at 1970: chrono panics on an earlier clock, which a machine without a
/// battery has at boot.
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

/// `duration` as chrono's type; saturates at its end, 292 million years.
pub fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}
