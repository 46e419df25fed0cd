//! Valid and invalid times in each format.

use super::TimeFormat::{NaiveUtc, Rfc3339, Unix, UnixMs};
use super::*;

const DATE: TimeFormat = TimeFormat::Date {
    ends: DateEnds::StartOfDay,
};
const DATE_TO_ITS_END: TimeFormat = TimeFormat::Date {
    ends: DateEnds::EndOfDay,
};

/// Seconds and nanoseconds since 1970.
fn unix(time: DateTime<Utc>) -> (i64, u32) {
    (time.timestamp(), time.timestamp_subsec_nanos())
}

#[test]
fn all_forms_that_can_mean_one_moment_only_are_read() {
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
        (
            "2024-01-15T10:30:00.1234567899876543210Z",
            1_705_314_600,
            123_456_789,
        ),
        ("2024-01-15 10:30:00.0000000000", 1_705_314_600, 0),
        ("1970-01-01 00:00:00", 0, 0),
        ("1969-12-31 23:59:59", -1, 0),
        ("9999-12-31 23:59:59", 253_402_300_799, 0),
        ("2038-01-19 03:14:08", 2_147_483_648, 0),
        ("2024-02-29 00:00:00", 1_709_164_800, 0),
        // The first time in other spellings.
        ("2026-05-30T20:23:16", 1_780_172_596, 0),
        ("2026-05-30 20:23:16Z", 1_780_172_596, 0),
        ("2026-05-30 20:23:16 Z", 1_780_172_596, 0),
        ("2026-05-30t20:23:16z", 1_780_172_596, 0),
        ("2026-05-30 20:23:16UTC", 1_780_172_596, 0),
        ("2026-05-30T20:23:16 UTC", 1_780_172_596, 0),
        ("2026-05-30T20:23:16+00", 1_780_172_596, 0),
        ("2026-05-30T20:23:16+0000", 1_780_172_596, 0),
        ("2026-05-30 20:23:16 -00:00", 1_780_172_596, 0),
        ("2026-05-30T22:23:16+0200", 1_780_172_596, 0),
        ("2026-05-30T22:23:16.5+02", 1_780_172_596, 500_000_000),
        ("2026-05-30", 1_780_099_200, 0),
        ("9999-12-31", 253_402_214_400, 0),
        ("2024-01-15T10:30:00-23:59", 1_705_400_940, 0),
    ];
    for (text, seconds, nanoseconds) in cases {
        let time = parse_unambiguous(text).unwrap_or_else(|| panic!("{text} was not read"));
        assert_eq!(unix(time), (seconds, nanoseconds), "{text}");
    }
}

#[test]
fn a_leap_second_is_the_second_after_it_and_only_where_one_can_be() {
    for parse in [parse_unambiguous, |text: &str| {
        Rfc3339.parse(text).or_else(|| NaiveUtc.parse(text))
    }] {
        assert_eq!(parse("2016-12-31 23:59:60"), parse("2017-01-01 00:00:00"));
        assert_eq!(
            parse("2017-01-01T01:59:60.25+02:00"),
            parse("2017-01-01 00:00:00.25")
        );
        assert!(parse("2016-12-31 23:59:60").is_some());
        for bad in [
            "2026-05-30 20:23:60",
            "2016-12-30 23:59:60",
            "2016-12-31T23:59:60+02:00",
            "2016-12-31 23:59:61",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}

/// Not a time in any format.
const NO_TIMES: [&str; 39] = [
    "",
    " ",
    "-",
    "never",
    "null",
    "true",
    "0000-00-00",
    "0000-00-00 00:00:00",
    "2026-13-01",
    "2026-02-29",
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
    "2026-05-30 20:23",
    "2026-05-30T20:23:16+24:00",
    "2026-05-30T20:23:16+02:60",
    "2026-05-30T20:23:16+2",
    "2026-05-30T20:23:16+2:00",
    "2026-05-30T20:23:16+02:00:00",
    "2026-05-30T20:23:16−02:00",
    "2026-05-30T20:23:16 CEST",
    "2026-05-30 20:23:16  UTC",
    "2026-05-30 20:23:16UTC ",
    "2026-05-30 20:23:16.",
    "2026-05-30 20:23:16.Z",
    "2026-05-30 20:23:16,5",
    "30/05/2026",
    "20260530T202316Z",
    "２０２６-05-30 20:23:16",
    "2026-05-30 20:23:16\0",
    "2026-05-30é20:23:16",
];

#[test]
fn everything_else_is_not_a_time() {
    for text in NO_TIMES {
        for format in [Rfc3339, NaiveUtc, DATE, DATE_TO_ITS_END, Unix, UnixMs] {
            assert_eq!(format.parse(text), None, "{text:?} as {format:?}");
        }
        assert_eq!(parse_unambiguous(text), None, "{text:?}");
    }
    for text in ["84.-00", "84.", "84.+1", ".5", "84.5.5"] {
        assert_eq!(Unix.parse(text), None, "{text:?}");
    }
    for text in ["0", "1780172596", "1780172596000", "2026-05-30t20:23:16"] {
        assert_eq!(parse_unambiguous(text), None, "{text:?}");
    }
}

#[test]
fn each_format_takes_its_own_form_only() {
    let all = [Rfc3339, NaiveUtc, DATE, Unix, UnixMs];
    for (text, expected) in [
        ("2026-05-30T20:23:16Z", &[(Rfc3339, 1_780_172_596, 0)][..]),
        ("2026-05-30t20:23:16z", &[(Rfc3339, 1_780_172_596, 0)]),
        ("2026-05-30 20:23:16+00:00", &[(Rfc3339, 1_780_172_596, 0)]),
        (
            "2026-05-30T13:23:16.1234567-07:00",
            &[(Rfc3339, 1_780_172_596, 123_456_700)],
        ),
        ("2026-05-30T20:23:16+0000", &[]),
        ("2026-05-30T20:23:16+00", &[]),
        ("2026-05-30T20:23:16 UTC", &[]),
        ("2026-05-30T20:23:16 Z", &[]),
        ("2026-05-30T20:23:16", &[(NaiveUtc, 1_780_172_596, 0)]),
        (
            "2026-05-30 20:23:16.000001",
            &[(NaiveUtc, 1_780_172_596, 1_000)],
        ),
        ("2026-05-30t20:23:16", &[]),
        ("2026-05-30", &[(DATE, 1_780_099_200, 0)]),
        ("2026-05-30T", &[]),
        (
            "1780172596",
            &[(Unix, 1_780_172_596, 0), (UnixMs, 1_780_172, 596_000_000)],
        ),
        ("1780172596.25", &[(Unix, 1_780_172_596, 250_000_000)]),
        ("1780172596123", &[(UnixMs, 1_780_172_596, 123_000_000)]),
        ("0", &[(Unix, 0, 0), (UnixMs, 0, 0)]),
        ("-1", &[(Unix, -1, 0), (UnixMs, -1, 999_000_000)]),
        (
            "253402300799",
            &[
                (Unix, 253_402_300_799, 0),
                (UnixMs, 253_402_300, 799_000_000),
            ],
        ),
        ("253402300799999", &[(UnixMs, 253_402_300_799, 999_000_000)]),
        ("253402300800000", &[]),
        ("9223372036854775808", &[]),
        ("1780172596.0000000001", &[]),
        ("1780172596.", &[]),
        (".5", &[]),
        ("-1.5", &[]),
        ("1.780172596e9", &[]),
        ("+1780172596", &[]),
        ("0x6A1B4D74", &[]),
        (" 1780172596", &[]),
    ] {
        for format in all {
            let expected = expected.iter().find(|(of, ..)| *of == format);
            let expected = expected.map(|(_, seconds, nanoseconds)| (*seconds, *nanoseconds));
            assert_eq!(
                format.parse(text).map(unix),
                expected,
                "{text:?} as {format:?}"
            );
        }
    }
    for (text, next) in [
        ("2026-05-30", "2026-05-31"),
        ("2024-02-28", "2024-02-29"),
        ("2026-12-31", "2027-01-01"),
    ] {
        assert_eq!(DATE_TO_ITS_END.parse(text), DATE.parse(next), "{text}");
        assert!(DATE.parse(next).is_some());
    }
}

/// Days from 1970 to a day of the years 0 to 9999, counted by leap years and lengths of months.
fn days(year: i64, month: usize, day: i64) -> i64 {
    let is_leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let leap_years = |before| (0..before).map(|it| i64::from(is_leap(it))).sum::<i64>();
    let mut lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    lengths[1] += i64::from(is_leap(year));
    let months: i64 = lengths[..month - 1].iter().sum();
    (year - 1970) * 365 + leap_years(year) - leap_years(1970) + months + day - 1
}

#[test]
fn random_times_in_random_forms_are_the_moments_that_counting_finds() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..5_000 {
        let (year, month, day) = (
            random.i64(0..10_000),
            random.usize(1..=12),
            random.i64(1..=28),
        );
        let [hour, minute, second] = [24, 60, 60].map(|end| random.i64(0..end));
        let places = random.usize(0..=9);
        let fraction: String = (0..places).map(|_| random.digit(10)).collect();
        let nanosecond: u32 = format!("{fraction:0<9}").parse().unwrap();
        let point = if places > 0 { "." } else { "" };
        let [offset_hours, offset_minutes] = [24, 60].map(|end| random.i64(0..end));
        let sign = *random.choice(&["+", "-"]).unwrap();
        let offset = (offset_hours * 3600 + offset_minutes * 60) * if sign == "+" { 1 } else { -1 };
        let date = format!("{year:04}-{month:02}-{day:02}");
        let local = |separator: &str| {
            format!("{date}{separator}{hour:02}:{minute:02}:{second:02}{point}{fraction}")
        };
        let utc = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        let separator = *random.choice(&["T", " "]).unwrap();
        let text = local(separator);
        assert_eq!(
            NaiveUtc.parse(&text).map(unix),
            Some((utc, nanosecond)),
            "{text}"
        );
        assert_eq!(parse_unambiguous(&text), NaiveUtc.parse(&text), "{text}");
        let text = format!("{text}{sign}{offset_hours:02}:{offset_minutes:02}");
        let expected = Some((utc - offset, nanosecond));
        assert_eq!(Rfc3339.parse(&text).map(unix), expected, "{text}");
        assert_eq!(parse_unambiguous(&text), Rfc3339.parse(&text), "{text}");
        let midnight = Some((days(year, month, day) * 86_400, 0));
        assert_eq!(DATE.parse(&date).map(unix), midnight, "{date}");
        assert_eq!(parse_unambiguous(&date).map(unix), midnight, "{date}");
        for (format, text, nanosecond) in [
            (Unix, format!("{utc}"), 0),
            (UnixMs, format!("{utc}000"), 0),
            (Unix, format!("{}{point}{fraction}", utc.abs()), nanosecond),
        ] {
            let seconds = if text.starts_with('-') {
                utc
            } else {
                utc.abs()
            };
            let expected = UNIX_SECONDS
                .contains(&seconds)
                .then_some((seconds, nanosecond));
            assert_eq!(format.parse(&text).map(unix), expected, "{text}");
        }
    }
}

#[test]
fn a_damaged_time_is_none_or_another_one_written_in_full() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for _ in 0..50_000 {
        let mut text = b"2024-02-29 23:59:58.120".to_vec();
        for _ in 0..random.usize(1..=3) {
            let at = random.usize(..text.len());
            match random.u8(..3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, *random.choice(b"0159-:. TZ+").unwrap()),
                _ => text[at] = *random.choice(b"0123456789-:. T").unwrap(),
            }
        }
        let text = String::from_utf8(text).unwrap();
        let Some(time) = NaiveUtc.parse(&text) else {
            continue;
        };
        read += 1;
        let plain = text.replace('T', " ");
        let (seconds, fraction) = plain.split_at(SECONDS_BYTES);
        if !seconds.ends_with(":60") {
            assert_eq!(
                time.format("%Y-%m-%d %H:%M:%S").to_string(),
                seconds,
                "{text}"
            );
        }
        let nanosecond = format!("{:0<9}", fraction.trim_start_matches('.'));
        assert_eq!(
            format!("{:09}", time.timestamp_subsec_nanos()),
            nanosecond,
            "{text}"
        );
    }
    assert!(read > 1_000, "{read}");
}
