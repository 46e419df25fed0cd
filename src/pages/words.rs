//! Times and durations in words. Pure.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::listing::{Listing, Reject};

/// From this many of a unit on, the next smaller unit is omitted.
const UNITS: [(&str, i64, i64); 4] = [
    ("day", 86_400, 2),
    ("hour", 3_600, 2),
    ("minute", 60, 2),
    ("second", 1, 0),
];

/// `in 5 days`, `2 hours ago`, `now`.
pub(super) fn from_now(span: TimeDelta) -> String {
    if span.num_seconds() == 0 {
        return "now".to_owned();
    }
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
pub(crate) fn count(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `1 entry`, `2 entries`.
pub(crate) fn entries(count: usize) -> String {
    let noun = if count == 1 { "entry" } else { "entries" };
    format!("{count} {noun}")
}

/// What is wrong with entries that were left out.
pub(super) fn left_out(reason: Reject) -> &'static str {
    match reason {
        Reject::Id => "without a usable id",
        Reject::Duplicate => "with the id of another entry",
        Reject::Shape => "not an object or with a field twice",
    }
}

/// The entries of a listing that were left out, by reason, and those that were used without an
/// unreadable field; `None` if all could be used.
pub(crate) fn rejects(listing: &Listing) -> Option<String> {
    let reasons = Reject::ALL.into_iter().filter_map(|reason| {
        let count = listing.left_out(reason);
        (count > 0).then(|| format!("{count} {}", left_out(reason)))
    });
    let reasons: Vec<String> = reasons.collect();
    let others = (!reasons.is_empty()).then(|| {
        let count = Reject::ALL.map(|reason| listing.left_out(reason));
        let entries = entries(count.iter().sum());
        format!("{entries} left out: {}", reasons.join(", "))
    });
    let in_part = listing.used_in_part().count();
    let in_part =
        (in_part > 0).then(|| format!("{} with an unreadable field", count(in_part, "key")));
    let parts: Vec<String> = others.into_iter().chain(in_part).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
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
            (0, "now"),
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
        for millis in [999, -999] {
            assert_eq!(from_now(TimeDelta::milliseconds(millis)), "now");
        }
    }
}
