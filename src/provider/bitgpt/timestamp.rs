//! Reads the two forms of time that BitGPT's API documents, strictly. Pure.
//!
//! chrono's own format strings accept unpadded fields, doubled spaces, `:60` in any minute and
//! years of six digits, so the shape is checked here, byte by byte.

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc,
};

/// Reads `YYYY-MM-DD HH:MM:SS`, in UTC, or RFC 3339 `YYYY-MM-DDTHH:MM:SS` with `Z` or `±HH:MM`.
/// Both may carry a fraction of 1 to 9 digits. `None` for everything else. Years are 0000 to 9999.
///
/// The leap second, `23:59:60` UTC on the last day of a month, is the second after it: Unix time
/// has no other number for it.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    byte(&mut rest, b'-')?;
    let month = digits(&mut rest, 2)?;
    byte(&mut rest, b'-')?;
    let day = digits(&mut rest, 2)?;
    let is_rfc3339 = byte(&mut rest, b'T').is_some();
    if !is_rfc3339 {
        byte(&mut rest, b' ')?;
    }
    let hour = digits(&mut rest, 2)?;
    byte(&mut rest, b':')?;
    let minute = digits(&mut rest, 2)?;
    byte(&mut rest, b':')?;
    let second = digits(&mut rest, 2)?;
    let nanosecond = fraction(&mut rest)?;
    let offset = if is_rfc3339 {
        offset(&mut rest)?
    } else {
        FixedOffset::east_opt(0)?
    };
    if !rest.is_empty() {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    let is_leap_second = second == 60;
    let time = NaiveTime::from_hms_nano_opt(
        hour,
        minute,
        if is_leap_second { 59 } else { second },
        nanosecond,
    )?;
    let utc = NaiveDateTime::new(date, time)
        .checked_sub_offset(offset)?
        .and_utc();
    if !is_leap_second {
        return Some(utc);
    }
    let next = utc.checked_add_signed(TimeDelta::seconds(1))?;
    (next.hour() == 0 && next.minute() == 0 && next.second() == 0 && next.day() == 1)
        .then_some(next)
}

fn digits(rest: &mut &[u8], count: usize) -> Option<u32> {
    let (head, tail) = rest.split_at_checked(count)?;
    let mut number = 0;
    for digit in head {
        number = number * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    *rest = tail;
    Some(number)
}

fn byte(rest: &mut &[u8], expected: u8) -> Option<()> {
    let (first, tail) = rest.split_first()?;
    if *first != expected {
        return None;
    }
    *rest = tail;
    Some(())
}

/// Nanoseconds; 0 where there is no fraction, `None` where there is a bad one.
fn fraction(rest: &mut &[u8]) -> Option<u32> {
    if byte(rest, b'.').is_none() {
        return Some(0);
    }
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let number = digits(rest, count)?;
    Some((count..9).fold(number, |number, _| number * 10))
}

fn offset(rest: &mut &[u8]) -> Option<FixedOffset> {
    let (sign, tail) = rest.split_first()?;
    *rest = tail;
    if *sign == b'Z' {
        return FixedOffset::east_opt(0);
    }
    let hours = digits(rest, 2)?;
    byte(rest, b':')?;
    let minutes = digits(rest, 2)?;
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    match sign {
        b'+' => FixedOffset::east_opt(seconds),
        b'-' => FixedOffset::west_opt(seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_documented_forms_are_read_as_utc() {
        let cases = [
            ("2026-05-30 20:23:16", 1_780_172_596, 0),
            ("2025-08-20 20:56:36.456", 1_755_723_396, 456_000_000),
            ("2024-01-15T10:30:00Z", 1_705_314_600, 0),
            ("2024-01-15T10:30:00+02:00", 1_705_307_400, 0),
            (
                "2024-01-15T10:30:00.123456789-05:30",
                1_705_334_400,
                123_456_789,
            ),
            ("1970-01-01 00:00:00", 0, 0),
            ("1969-12-31 23:59:59", -1, 0),
            ("9999-12-31 23:59:59", 253_402_300_799, 0),
            ("2038-01-19 03:14:08", 2_147_483_648, 0),
            ("2024-02-29 00:00:00", 1_709_164_800, 0),
        ];
        for (text, seconds, nanoseconds) in cases {
            let time = parse(text).unwrap_or_else(|| panic!("{text} was not read"));
            assert_eq!(
                (time.timestamp(), time.timestamp_subsec_nanos()),
                (seconds, nanoseconds),
                "{text}"
            );
        }
    }

    #[test]
    fn fault_d4_a_leap_second_is_the_second_after_it_and_only_where_one_can_be() {
        assert_eq!(parse("2016-12-31 23:59:60"), parse("2017-01-01 00:00:00"));
        assert_eq!(
            parse("2017-01-01T01:59:60+02:00"),
            parse("2017-01-01 00:00:00")
        );
        for bad in [
            "2026-05-30 20:23:60",
            "2016-12-30 23:59:60",
            "2016-12-31T23:59:60+02:00",
            "2016-12-31 23:59:61",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn everything_else_is_not_a_time() {
        let bad = [
            "",
            "never",
            "0",
            "1780172596",
            "0000-00-00 00:00:00",
            "2026-13-01 00:00:00",
            "2026-02-29 00:00:00",
            "2026-5-30 20:23:16",
            "2026-05-30  20:23:16",
            " 2026-05-30 20:23:16",
            "2026-05-30 20:23:16 ",
            "2026-05-30 24:00:00",
            "2026-05-30 20:60:00",
            "-0001-05-30 20:23:16",
            "+262142-05-30 20:23:16",
            "10000-01-01 00:00:00",
            "2026-05-30",
            "2026-05-30 20:23",
            "2026-05-30T20:23:16",
            "2026-05-30 20:23:16Z",
            "2026-05-30T20:23:16+0200",
            "2026-05-30T20:23:16+24:00",
            "2026-05-30T20:23:16+02:60",
            "2026-05-30 20:23:16.",
            "2026-05-30 20:23:16.0000000001",
            "2026-05-30 20:23:16,5",
            "2026-05-30t20:23:16Z",
            "２０２６-05-30 20:23:16",
            "2026-05-30 20:23:16\0",
        ];
        for text in bad {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
