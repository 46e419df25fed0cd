//! Parses the time formats of providers' APIs strictly: anything that does not match the format is
//! rejected, never guessed. Pure.
//!
//! chrono's RFC 3339 parser checks digits and ranges; this module checks the format around them.
//! chrono's other parsers accept fields of any width and take twenty times as long.

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Timelike, Utc};

/// `YYYY-MM-DD` and `YYYY-MM-DDTHH:MM:SS`, in bytes.
const DATE_BYTES: usize = 10;
const SECONDS_BYTES: usize = 19;

/// Most digits of a fraction of Unix seconds: nanoseconds.
const FRACTION_DIGITS_MAX: usize = 9;

/// Unix times of the years 0 to 9999, the only years that other formats can express.
const UNIX_SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// How an API writes a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-05-30T20:23:16Z`, with `T` or a blank, an optional fraction, and always with a zone.
    Rfc3339,
    /// `2026-05-30 20:23:16`, with a blank or `T`, an optional fraction, and never with a zone:
    /// UTC.
    NaiveUtc,
    /// `2026-05-30`, in UTC.
    Date {
        /// When the key stops working: at the start or the end of the day.
        ends: DateEnds,
    },
    /// Seconds since 1970, `1780172596`, with an optional fraction.
    Unix,
    /// Milliseconds since 1970, `1780172596000`.
    UnixMs,
}

/// When a key that expires on a date stops working.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateEnds {
    /// At the midnight that starts the day.
    #[default]
    StartOfDay,
    /// At the midnight that ends the day.
    EndOfDay,
}

impl TimeFormat {
    /// Parses `text`, which is the content of a JSON string, or a JSON number in its original
    /// spelling. `None` if it does not match the format.
    ///
    /// The leap second, `23:59:60` UTC on the last day of a month, becomes the second after it:
    /// Unix time has no separate number for it.
    pub fn parse(self, text: &str) -> Option<DateTime<Utc>> {
        match self {
            Self::Rfc3339 => match zone(text)?.as_bytes() {
                [b'Z' | b'z'] | [b'+' | b'-', _, _, b':', _, _] => moment(text),
                _ => None,
            },
            Self::NaiveUtc => match zone(text)? {
                "" if !has_small_t(text) => utc(text),
                _ => None,
            },
            Self::Date { ends } => match (midnight(text)?, ends) {
                (start, DateEnds::StartOfDay) => Some(start),
                (start, DateEnds::EndOfDay) => start.checked_add_days(Days::new(1)),
            },
            Self::Unix => {
                let (seconds, nanoseconds) = match text.split_once('.') {
                    None => (text, 0),
                    // A fraction before 1970 would count backwards, and no key is that old.
                    Some((seconds, fraction)) if !seconds.starts_with('-') => {
                        (seconds, nanoseconds(fraction)?)
                    }
                    Some(_) => return None,
                };
                let seconds = integer(seconds).filter(|it| UNIX_SECONDS.contains(it))?;
                DateTime::from_timestamp(seconds, nanoseconds)
            }
            Self::UnixMs => {
                let time = DateTime::from_timestamp_millis(integer(text)?)?;
                UNIX_SECONDS.contains(&time.timestamp()).then_some(time)
            }
        }
    }
}

/// Parses a time in any unambiguous format: a date, `YYYY-MM-DD`, which means its midnight, or a
/// date and a time with `T` or a blank between them, an optional fraction, and an optional zone:
/// `Z`, `UTC`, `±HH`, `±HHMM`, `±HH:MM`, also after a blank. No zone means UTC. `None` for
/// everything else. Years are 0000 to 9999; leap seconds are as in [`TimeFormat::parse`].
pub fn parse_unambiguous(text: &str) -> Option<DateTime<Utc>> {
    if text.len() == DATE_BYTES {
        return midnight(text);
    }
    let zone = zone(text)?;
    // Includes a lower-case `t` and `z`.
    if let Some(time) = TimeFormat::Rfc3339.parse(text) {
        return Some(time);
    }
    let local = text
        .strip_suffix(zone)
        .filter(|local| !has_small_t(local))?;
    let offset = match zone.strip_prefix(' ').unwrap_or(zone) {
        "" if zone.is_empty() => return utc(local),
        "Z" | "UTC" => return utc(local),
        // chrono also accepts the typographic minus sign.
        offset => offset.starts_with(['+', '-']).then_some(offset)?,
    };
    let (hours, minutes) = match offset.len() {
        3 => (offset, "00"),
        5 => offset.split_at_checked(3)?,
        _ => offset.split_once(':')?,
    };
    moment(&[local, hours, ":", minutes].concat())
}

fn has_small_t(local: &str) -> bool {
    local.as_bytes().get(DATE_BYTES) == Some(&b't')
}

/// What follows the seconds or their fraction.
fn zone(text: &str) -> Option<&str> {
    let (_, rest) = text.split_at_checked(SECONDS_BYTES)?;
    let Some(fraction) = rest.strip_prefix('.') else {
        return Some(rest);
    };
    let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    // chrono drops digits below nanoseconds.
    (zone.len() < fraction.len()).then_some(zone)
}

/// The UTC time of a text without a zone.
fn utc(local: &str) -> Option<DateTime<Utc>> {
    plain(local).or_else(|| moment(&[local, "Z"].concat()))
}

/// The UTC time of `YYYY-MM-DD HH:MM:SS`, parsed here because chrono requires a zone, and adding
/// one takes three times as long as parsing the rest. `None` means that chrono must decide.
fn plain(local: &str) -> Option<DateTime<Utc>> {
    let bytes: &[u8; SECONDS_BYTES] = local.as_bytes().try_into().ok()?;
    let punctuation = [bytes[4], bytes[7], bytes[13], bytes[16]];
    if punctuation != *b"--::" || !matches!(bytes[10], b' ' | b'T') {
        return None;
    }
    let two = |at: usize| {
        let digit = |at: usize| bytes.get(at).filter(|byte| byte.is_ascii_digit());
        Some(u32::from(digit(at)? - b'0') * 10 + u32::from(digit(at + 1)? - b'0'))
    };
    let year = i32::try_from(two(0)? * 100 + two(2)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, two(5)?, two(8)?)?;
    let time = date.and_hms_opt(two(11)?, two(14)?, two(17)?)?;
    Some(time.and_utc())
}

/// The time of a text with an RFC 3339 zone.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    let Some(nanosecond) = time.nanosecond().checked_sub(1_000_000_000) else {
        return Some(time);
    };
    // chrono accepts a leap second in any minute.
    let next = time.with_nanosecond(nanosecond)? + TimeDelta::seconds(1);
    let is_start_of_month = next.day() == 1 && next.num_seconds_from_midnight() == 0;
    is_start_of_month.then_some(next)
}

/// The start of the day `YYYY-MM-DD`.
fn midnight(date: &str) -> Option<DateTime<Utc>> {
    (date.len() == DATE_BYTES).then(|| utc(&[date, "T00:00:00"].concat()))?
}

/// A number as JSON writes it: digits with an optional minus sign.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

/// A fraction of a second.
fn nanoseconds(fraction: &str) -> Option<u32> {
    let spare = FRACTION_DIGITS_MAX.checked_sub(fraction.len())?;
    let is_plain = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = is_plain.then(|| fraction.parse().ok())??;
    (0..spare).try_fold(number, |number, _| number.checked_mul(10))
}

#[cfg(test)]
mod tests;
