//! Texts to times: what an own reader of the plain form and chrono's of RFC 3339 say, and nothing
//! that contradicts another form.

use api_key_exporter::provider::time_format::{DateEnds, TimeFormat, parse_unambiguous};
use chrono::{DateTime, Datelike};

/// Checks one text.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let read = parse_unambiguous(text);
    if let Some(time) = read {
        assert!(text.len() >= "2026-01-01".len(), "{text:?}");
        // A zone may move the first or the last hours of these years out of them.
        assert!((-1..=10_000).contains(&time.year()), "{text:?}: {time}");
        let written = time.to_rfc3339();
        if (0..=9999).contains(&time.year()) {
            assert_eq!(parse_unambiguous(&written), Some(time), "{text:?}");
        }
    }
    for format in [
        TimeFormat::Rfc3339,
        TimeFormat::NaiveUtc,
        TimeFormat::Date {
            ends: DateEnds::StartOfDay,
        },
    ] {
        // A strict form means the same moment where the lenient reader takes it.
        if let (Some(strict), Some(lenient)) = (format.parse(text), read) {
            assert_eq!(strict, lenient, "{text:?} as {format:?}");
        }
    }
    if is_plain(text) {
        let expected = seconds(text);
        for (what, time) in [
            ("lenient", read),
            ("strict", TimeFormat::NaiveUtc.parse(text)),
        ] {
            assert_eq!(time.map(|it| it.timestamp()), expected, "{what}: {text:?}");
        }
    }
    if let Some(time) = TimeFormat::Rfc3339.parse(text) {
        // chrono shifts leap seconds in another way.
        let chrono = DateTime::parse_from_rfc3339(text).map(|it| it.to_utc());
        if !text.contains(":60") {
            assert_eq!(chrono, Ok(time), "{text:?}");
        }
    }
    if let Some(time) = TimeFormat::Unix.parse(text) {
        let seconds: f64 = text.parse().unwrap_or_else(|_| panic!("{text:?}"));
        assert!((seconds - time.timestamp() as f64).abs() <= 1.0, "{text:?}");
    }
    if let Some(time) = TimeFormat::UnixMs.parse(text) {
        assert_eq!(text.parse(), Ok(time.timestamp_millis()), "{text:?}");
    }
    let [start, end] = [DateEnds::StartOfDay, DateEnds::EndOfDay]
        .map(|ends| TimeFormat::Date { ends }.parse(text));
    if let (Some(start), Some(end)) = (start, end) {
        assert_eq!((end - start).num_seconds(), 86_400, "{text:?}");
    }
}

/// Whether it has the form `YYYY-MM-DD HH:MM:SS`.
fn is_plain(text: &str) -> bool {
    let (bytes, shape) = (text.as_bytes(), b"dddd-dd-dd dd:dd:dd");
    bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            _ => byte == wanted,
        })
}

/// Reads a text of that form with arithmetic of its own: the seconds since 1970, or `None` where
/// there is no such time.
fn seconds(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> i64 { text[range].parse().unwrap() };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    };
    let is_day = (1..=days).contains(&day);
    let is_leap_second = is_day && day == days && (hour, minute, second) == (23, 59, 60);
    let is_time = hour < 24 && minute < 60 && second < 60;
    if !(is_day && (is_time || is_leap_second)) {
        return None;
    }
    let days_of_years: i64 = match year {
        1970.. => (1970..year).map(days_of).sum(),
        _ => -(year..1970).map(days_of).sum::<i64>(),
    };
    let february = 28 + i64::from(is_leap);
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let before = (1..month).zip(lengths);
    let days_of_months: i64 = before.map(|(_, days)| days).sum();
    let days = days_of_years + days_of_months + day - 1;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn days_of(year: i64) -> i64 {
    365 + i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
}
