//! `/calendar.ics`: an event for each expiry, with alarms at the thresholds (RFC 5545). Pure.
//!
//! Calendar clients identify an event by its UID, which is constant for a key, and detect updates
//! by its SEQUENCE. The crate `icalendar` does not fit: it writes the current time and a random UID
//! into each alarm, so that every download differs.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use url::form_urlencoded;

use crate::domain::policy::Policy;
use crate::pages::chunks::Chunks;
use crate::pages::query::Query;
use crate::pages::rows::{KeyRow, Overview};

/// Longest line before folding, in bytes, without the line end.
const LINE_BYTES_MAX: usize = 75;

const HEAD: &str = "BEGIN:VCALENDAR\r\n\
    VERSION:2.0\r\n\
    PRODID:-//api-key-exporter//API key expiry//EN\r\n\
    CALSCALE:GREGORIAN\r\n\
    METHOD:PUBLISH\r\n\
    X-WR-CALNAME:API key expiry\r\n\
    NAME:API key expiry\r\n\
    REFRESH-INTERVAL;VALUE=DURATION:PT1H\r\n\
    X-PUBLISHED-TTL:PT1H\r\n";

/// SEQUENCE of updated keys starts here, above that of keys that were never updated: half of the 31
/// bits for each.
const UPDATED_MIN: i64 = 1 << 30;

/// 2020. Half of 31 bits hold the seconds since then until 2054.
const SEQUENCE_EPOCH: i64 = 1_577_836_800;

/// The calendar of all keys with an expiry.
pub(super) fn calendar(overview: Overview, query: &Query) -> Chunks {
    let rows = overview.select(&query.filter);
    let ids: Vec<_> = rows
        .iter()
        .filter(|row| row.expires_at().is_some_and(has_date))
        .map(|row| row.id)
        .collect();
    let write = move |id, out: &mut Vec<u8>| {
        if let Some(row) = overview.row(id) {
            let mut text = String::new();
            write_event(&row, &mut text);
            out.extend(text.as_bytes());
        }
    };
    Chunks::new(HEAD.into(), ids, write, b"END:VCALENDAR\r\n")
}

fn write_event(row: &KeyRow<'_>, out: &mut String) {
    let Some(end) = row.expires_at() else { return };
    let mark = mark(row);
    let marked = mark.map(|mark| format!("[{mark}] ")).unwrap_or_default();
    let team = row
        .team()
        .map(|team| format!(" ({team})"))
        .unwrap_or_default();
    let summary = format!("{marked}API key {} expires{team}", row.title());
    let known_at = row.account.last_success_at.unwrap_or(end);
    line(out, "BEGIN", "VEVENT");
    line(out, "UID", &uid(row));
    line(
        out,
        "SEQUENCE",
        itoa::Buffer::new().format(sequence(row.key.updated_at, known_at)),
    );
    line(out, "DTSTAMP", &stamp(known_at));
    if let Some(at) = row.key.created_at.filter(|at| has_date(*at)) {
        line(out, "CREATED", &stamp(at));
    }
    if let Some(at) = row.key.updated_at.filter(|at| has_date(*at)) {
        line(out, "LAST-MODIFIED", &stamp(at));
    }
    // An event with a start time and no end does not block time in the reader's calendar.
    line(out, "DTSTART", &stamp(end));
    line(out, "TRANSP", "TRANSPARENT");
    line(out, "SUMMARY", &escaped(&summary));
    line(out, "DESCRIPTION", &escaped(&description(row)));
    let category = mark.unwrap_or("API key");
    line(out, "CATEGORIES", &escaped(category));
    if let Some(url) = row.rotate_url().or(row.runbook_url()) {
        line(out, "URL", &one_line(url));
    }
    if mark.is_none() {
        let notice = row.assessment.notice;
        for (severity, before) in [("Warning", notice.warning), ("Critical", notice.critical)] {
            line(out, "BEGIN", "VALARM");
            line(out, "ACTION", "DISPLAY");
            line(out, "TRIGGER", &duration_before(before));
            line(
                out,
                "DESCRIPTION",
                &escaped(&format!("{severity}: {summary}")),
            );
            line(out, "END", "VALARM");
        }
    }
    line(out, "END", "VEVENT");
}

/// Why an event has no alarm.
fn mark(row: &KeyRow<'_>) -> Option<&'static str> {
    if row.key.is_disabled {
        Some("disabled")
    } else if row.is_superseded {
        Some("superseded")
    } else if row.assessment.is_muted {
        Some("muted")
    } else {
        None
    }
}

/// Ids are unique within an account only, and account names are arbitrary.
fn uid(row: &KeyRow<'_>) -> String {
    let account: String = form_urlencoded::byte_serialize(row.account_name().as_bytes()).collect();
    format!("{account}/{}@api-key-exporter", row.key.id)
}

/// Never decreases for a key. Grows when the key is updated, which includes its expiry. If the API
/// does not report an update time, any listing may be the first one with a change, so it grows with
/// each. Both times survive a restart.
fn sequence(updated_at: Option<DateTime<Utc>>, listed_at: DateTime<Utc>) -> i64 {
    let seconds = |at: DateTime<Utc>| (at.timestamp() - SEQUENCE_EPOCH).clamp(0, UPDATED_MIN - 1);
    match updated_at {
        Some(at) => UPDATED_MIN + seconds(at),
        None => seconds(listed_at),
    }
}

fn description(row: &KeyRow<'_>) -> String {
    let policies: Vec<&str> = row.broken_policies().map(Policy::as_str).collect();
    let policies = policies.join(", ");
    let muted_until = row
        .muted_until()
        .map(|at| at.format("%Y-%m-%d").to_string());
    let lines = [
        ("Key", Some(row.key.id.as_str())),
        ("Account", Some(row.account_name())),
        ("Provider", Some(row.provider())),
        ("Team", row.team()),
        (
            "Policies broken",
            Some(&*policies).filter(|it| !it.is_empty()),
        ),
        ("Muted until", muted_until.as_deref()),
        (
            "Superseded",
            row.is_superseded
                .then_some("a newer key of this name expires later"),
        ),
        ("Reason", row.reason()),
        ("Rotate", row.rotate_url()),
        ("Runbook", row.runbook_url()),
    ];
    let lines = lines
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether the format can represent the year.
fn has_date(at: DateTime<Utc>) -> bool {
    (1..=9999).contains(&at.year())
}

fn stamp(at: DateTime<Utc>) -> String {
    at.format("%Y%m%dT%H%M%SZ").to_string()
}

/// `-P30D`, `-P1DT1H1M1S`.
fn duration_before(span: TimeDelta) -> String {
    let seconds = span.num_seconds();
    if seconds <= 0 {
        return "PT0S".to_owned();
    }
    let unit = |count: i64, unit| {
        if count > 0 {
            format!("{count}{unit}")
        } else {
            String::new()
        }
    };
    let days = unit(seconds / 86_400, 'D');
    let (hours, minutes) = (seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    let time = match (hours, minutes, seconds % 60) {
        (0, 0, 0) => String::new(),
        // Units may be omitted at either end only.
        (1.., 0, rest @ 1..) => format!("T{hours}H0M{rest}S"),
        (_, _, rest) => [
            "T",
            &unit(hours, 'H'),
            &unit(minutes, 'M'),
            &unit(rest, 'S'),
        ]
        .concat(),
    };
    format!("-P{days}{time}")
}

/// A content line, folded. `value` does not contain a line break.
fn line(out: &mut String, name: &str, value: &str) {
    let mut column = 0;
    for c in name.chars().chain([':']).chain(value.chars()) {
        if column + c.len_utf8() > LINE_BYTES_MAX {
            out.push_str("\r\n ");
            column = 1;
        }
        out.push(c);
        column += c.len_utf8();
    }
    out.push_str("\r\n");
}

/// A TEXT value. Line breaks are the only control characters allowed in it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | ';' | ',' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// A value of another type than TEXT, without escapes.
fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_folded_between_characters() {
        let mut out = String::new();
        line(&mut out, "SUMMARY", &"鍵".repeat(60));
        for line in out.split("\r\n") {
            assert!(line.len() <= LINE_BYTES_MAX, "{line}");
        }
        let unfolded = out.replace("\r\n ", "");
        assert_eq!(unfolded, format!("SUMMARY:{}\r\n", "鍵".repeat(60)));
    }

    #[test]
    fn a_sequence_never_decreases_whatever_happens_to_the_expiry() {
        let at = |seconds: i64| DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap();
        let history = [
            (None, at(0)),
            (None, at(5)),
            (Some(at(3)), at(10)),
            (Some(at(3)), at(15)),
            (Some(at(17)), at(20)),
        ];
        let sequences = history.map(|(updated_at, listed_at)| sequence(updated_at, listed_at));
        let [first, second, updated, same, again] = sequences;
        assert!(
            first < second && second < updated && same < again,
            "{sequences:?}"
        );
        assert_eq!(updated, same);
        let (earliest, latest) = (DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC);
        assert_eq!(sequence(None, earliest), 0);
        assert_eq!(sequence(Some(latest), latest), i64::from(i32::MAX));
    }

    #[test]
    fn text_cannot_leave_its_value() {
        assert_eq!(
            escaped("a;b,c\\d\r\nEND:VEVENT\u{1b}\u{85}"),
            "a\\;b\\,c\\\\d\\nEND:VEVENT"
        );
    }

    #[test]
    fn durations_have_their_units_in_a_row() {
        for (seconds, text) in [
            (30 * 86_400, "-P30D"),
            (86_400 + 3_600 + 60 + 1, "-P1DT1H1M1S"),
            (3_601, "-PT1H0M1S"),
            (150, "-PT2M30S"),
            (7_200, "-PT2H"),
            (1, "-PT1S"),
            (0, "PT0S"),
        ] {
            assert_eq!(duration_before(TimeDelta::seconds(seconds)), text);
        }
    }
}
