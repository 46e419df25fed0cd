//! Times and durations in words. Pure.

use chrono::{DateTime, TimeDelta, Utc};

/// From this many of a unit on, the next smaller unit is omitted.
const UNITS: [(&str, i64, i64); 4] = [
    ("day", 86_400, 2),
    ("hour", 3_600, 2),
    ("minute", 60, 2),
    ("second", 1, 0),
];

/// `in 5 days`, `2 hours ago`.
pub(super) fn from_now(span: TimeDelta) -> String {
    let words = rough(span);
    if span < TimeDelta::zero() {
        format!("{words} ago")
    } else {
        format!("in {words}")
    }
}

/// `expires in 5 days`, `expired 2 hours ago`.
pub(super) fn expires(left: TimeDelta) -> String {
    let verb = if left > TimeDelta::zero() {
        "expires"
    } else {
        "expired"
    };
    format!("{verb} {}", from_now(left))
}

/// `5 days`, rounded down, regardless of the sign.
pub(super) fn rough(span: TimeDelta) -> String {
    let seconds = span.num_seconds().abs();
    let unit = UNITS
        .iter()
        .find(|(_, size, least)| seconds / size >= *least);
    let (unit, size) = unit.map_or(("second", 1), |(unit, size, _)| (*unit, *size));
    let count = seconds / size;
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// `1 key`, `2 keys`.
pub(super) fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `2026-01-31 09:15 UTC`.
pub(super) fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_one_unit_that_says_enough() {
        for (seconds, words) in [
            (0, "in 0 seconds"),
            (1, "in 1 second"),
            (119, "in 119 seconds"),
            (120, "in 2 minutes"),
            (7_199, "in 119 minutes"),
            (-7_200, "2 hours ago"),
            (172_799, "in 47 hours"),
            (172_800, "in 2 days"),
            (-31_536_000, "365 days ago"),
        ] {
            assert_eq!(from_now(TimeDelta::seconds(seconds)), words);
        }
    }
}
