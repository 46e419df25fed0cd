//! What an answer's headers say about the API's rate limit. Pure.
//!
//! Servers use several drafts of one standard and their own older spellings. All of them say how
//! many requests are left until a reset.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderMap;

/// Headers with the number of requests left, each beside the header with the reset. GitHub, Okta
/// and many others send the `X-` spellings, GitLab the first one.
const PAIRS: [(&str, &str); 3] = [
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
];

/// The structured field of the later drafts: `limit=100, remaining=50, reset=30`, or
/// `"default";r=50;t=30`.
const COMBINED: &str = "ratelimit";

/// A reset of at least this number is a time in seconds since 1970, not a number of seconds to wait
/// (30 years); one of at least the second number is in milliseconds.
const EPOCH_SECONDS_MIN: f64 = 1e9;
const EPOCH_MILLISECONDS_MIN: f64 = 1e12;

/// Longest number that is read, in bytes: milliseconds since 1970 with a fraction.
const NUMBER_BYTES_MAX: usize = 24;

/// Most values of one header that are read. Real answers have one for each policy.
const VALUES_MAX: usize = 16;

/// What is left of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests that the API still answers before the reset.
    pub remaining: u64,
    /// The time until the reset.
    pub resets_in: Duration,
}

/// The tightest limit that the headers describe: the one with the fewest requests left, and of
/// those the one with the latest reset. `api_now` is the API's clock. A limit without a readable
/// reset does not count.
pub fn quota(headers: &HeaderMap, api_now: DateTime<Utc>) -> Option<Quota> {
    let pairs = PAIRS.into_iter().filter_map(|(remaining, reset)| {
        // With several values, their order may differ: fewest requests, latest reset.
        let remaining = values(headers, remaining).filter_map(number);
        let reset = values(headers, reset).filter_map(number);
        let remaining = remaining.min_by(f64::total_cmp)?;
        Some(of(remaining, reset.max_by(f64::total_cmp)?, api_now))
    });
    let combined = headers.get_all(COMBINED).iter().take(VALUES_MAX);
    let combined = combined.filter_map(|value| value.to_str().ok());
    let combined = combined.flat_map(|value| structured(value, api_now));
    pairs
        .chain(combined)
        .min_by_key(|quota| (quota.remaining, std::cmp::Reverse(quota.resets_in)))
}

/// The comma-separated values of a header.
fn values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).take(VALUES_MAX)
}

/// Both forms of [`COMBINED`]. In the later one, the parameters of each policy follow its name; in
/// the earlier one, all members describe one limit.
fn structured(value: &str, api_now: DateTime<Utc>) -> Vec<Quota> {
    let of_policy = |members: &str| {
        let find = |names: [&str; 2]| {
            members.split([',', ';']).find_map(|member| {
                let (name, value) = member.split_once('=')?;
                names.contains(&name.trim()).then(|| number(value))?
            })
        };
        let remaining = find(["r", "remaining"])?;
        Some(of(remaining, find(["t", "reset"])?, api_now))
    };
    if value.contains(';') {
        let policies = value.split(',').take(VALUES_MAX);
        policies.filter_map(of_policy).collect()
    } else {
        of_policy(value).into_iter().collect()
    }
}

/// A number without sign and exponent, perhaps with a fraction.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let starts = text.bytes().next().is_some_and(|b| b.is_ascii_digit());
    (is_plain && starts && text.len() <= NUMBER_BYTES_MAX).then(|| text.parse().ok())?
}

fn of(remaining: f64, reset: f64, api_now: DateTime<Utc>) -> Quota {
    let wait = if reset >= EPOCH_MILLISECONDS_MIN {
        reset / 1000.0 - api_now.timestamp() as f64
    } else if reset >= EPOCH_SECONDS_MIN {
        reset - api_now.timestamp() as f64
    } else {
        reset
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a cast from float saturates"
    )]
    Quota {
        remaining: remaining as u64,
        resets_in: Duration::from_secs(wait.max(0.0).ceil() as u64),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of_headers(lines: &[(&'static str, &str)]) -> Option<(u64, u64)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_str(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        quota(&headers, now).map(|quota| (quota.remaining, quota.resets_in.as_secs()))
    }

    #[test]
    fn every_usual_spelling_is_read() {
        type Case = (&'static [(&'static str, &'static str)], Option<(u64, u64)>);
        let cases: [Case; 13] = [
            (&[], None),
            (&[("ratelimit-remaining", "3")], None),
            (&[("ratelimit-reset", "3")], None),
            // Seconds to wait.
            (
                &[("ratelimit-remaining", "3"), ("ratelimit-reset", "30")],
                Some((3, 30)),
            ),
            // GitLab and GitHub send a time.
            (
                &[
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "1800000060"),
                ],
                Some((0, 60)),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1800000060000"),
                ],
                Some((0, 60)),
            ),
            (
                &[
                    ("x-rate-limit-remaining", "9"),
                    ("x-rate-limit-reset", "1800000001"),
                ],
                Some((9, 1)),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "1"),
                    ("x-ratelimit-reset", "0.25"),
                ],
                Some((1, 1)),
            ),
            // In the past.
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1700000000"),
                ],
                Some((0, 0)),
            ),
            (
                &[("ratelimit", "limit=100, remaining=50, reset=30")],
                Some((50, 30)),
            ),
            (&[("ratelimit", "\"default\";r=50;t=30")], Some((50, 30))),
            (
                &[("ratelimit", "\"burst\";r=0;t=5, \"daily\";r=70;t=3600")],
                Some((0, 5)),
            ),
            (
                &[
                    ("ratelimit", "\"default\";r=50;t=30"),
                    ("x-ratelimit-remaining", "7"),
                    ("x-ratelimit-reset", "9"),
                ],
                Some((7, 9)),
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(of_headers(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn hostile_headers_have_no_effect_or_a_number() {
        let huge = "9".repeat(400);
        for (reset, expected) in [
            ("-30", None),
            ("+30", None),
            ("1e400", None),
            ("inf", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
            (".5", None),
            ("1.2.3", None),
            (huge.as_str(), None),
            ("Sun, 06 Nov 2094 08:49:37 GMT", None),
            (
                "999999999999999999999",
                Some((0, 999_999_999_999_999_999 - 1_800_000_000)),
            ),
            ("5, 7, soon, -9", Some((0, 7))),
        ] {
            let lines = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)];
            let found = of_headers(&lines);
            // A float of this size is exact to some hundred seconds.
            let near = |(_, a): (u64, u64), (_, b): (u64, u64)| a.abs_diff(b) < 1_000;
            assert_eq!(found.is_some(), expected.is_some(), "{reset:?}: {found:?}");
            assert!(
                found.zip(expected).is_none_or(|(a, b)| near(a, b)),
                "{reset:?}: {found:?}"
            );
        }
        for remaining in ["-1", "1e400", "none", ""] {
            let lines = [
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", "30"),
            ];
            assert_eq!(of_headers(&lines), None, "{remaining:?}");
        }
        let twice = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-remaining", "90"),
            ("x-ratelimit-reset", "20"),
            ("x-ratelimit-reset", "10"),
        ];
        assert_eq!(of_headers(&twice), Some((0, 20)));
        for text in [
            "\"a\";r;t",
            "r=;t=",
            "remaining=5",
            ";;;,,,",
            "\"a\";r=-1;t=5",
        ] {
            assert_eq!(of_headers(&[("ratelimit", text)]), None, "{text}");
        }
    }
}
