//! The parts of an answer besides its body: its status and the relevant headers. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use http::header::{
    AGE, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::Line;
use crate::provider::quota::quota;

/// Largest plausible `Age`: a year, the longest time for which HTTP lets a cache keep an answer by
/// convention. A larger one is an error of the cache, and would move times to before 1970.
const AGE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// An answer that was read completely.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status, any.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// Applies `read` to the answer, and adds the information that the headers have about a
    /// failure.
    pub(super) fn judged_by<T>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, Failure>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<T, Failure> {
        read(self).map_err(|failure| {
            let api_now = date(&self.headers).unwrap_or_else(now);
            let asked = wait_asked(self.status, &self.headers, api_now);
            let retry_after = asked.or(failure.retry_after);
            // Without a length or chunks, the end of the connection looks like the end of the body.
            let has_end = self.headers.contains_key(TRANSFER_ENCODING)
                || self.headers.contains_key(CONTENT_LENGTH);
            let is_cut = failure.reason == Reason::NotJson && !has_end;
            let reason = if is_cut {
                Reason::BodyTruncated
            } else {
                failure.reason
            };
            Failure {
                reason,
                retry_after,
                ..failure
            }
        })
    }
}

/// The failure for an answer with an error status that is not in the format of the provider's API;
/// `what` describes its actual format.
pub fn foreign(status: u16, what: &str, failure: Failure) -> Failure {
    let reason = Reason::of_foreign_status(status);
    let mut why = status_words(status);
    if reason == Reason::Gateway {
        why += ", and not from the API: ";
        why += what;
    }
    Failure {
        reason,
        http_status: Some(status),
        error: Some(Line::own(&why)),
        ..failure
    }
}

/// What an unusable HTTP status means, in the words of RFC 9110.
pub(super) fn status_words(status: u16) -> String {
    let words = StatusCode::from_u16(status).ok();
    let words = words.and_then(|status| status.canonical_reason());
    match words {
        Some(words) if status < 300 => {
            format!("{words}: only HTTP 200, 201 and 202 have a listing")
        }
        Some(words) => words.to_owned(),
        None => format!("HTTP status {status}"),
    }
}

/// Whether an answer of this status may hold a listing.
pub fn is_success(status: u16) -> bool {
    matches!(status, 200..=202)
}

/// Why a body is not worth reading.
pub(super) fn not_asked_for(headers: &HeaderMap) -> Option<&'static str> {
    let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Some("the body is compressed, which was not asked for");
    }
    is_html(headers).then_some("its Content-Type is that of an HTML page")
}

fn is_html(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    [&b"text/html"[..], b"application/xhtml"]
        .iter()
        .any(|html| {
            content_type
                .get(..html.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(html))
        })
}

/// The host that a redirect points to; the rest of the URL may contain secrets.
pub(super) fn redirect_host(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    // `//host/path` has the scheme of the request.
    let absolute = location
        .strip_prefix("//")
        .map(|rest| format!("https://{rest}"));
    match Url::parse(absolute.as_deref().unwrap_or(location)) {
        Ok(location) => location.host_str().map(str::to_owned),
        Err(url::ParseError::RelativeUrlWithoutBase) => Some("the same host".to_owned()),
        Err(_) => None,
    }
}

pub(super) fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<DateTime<Utc>> {
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

/// How long a cache has kept the answer; the API itself sends no age, or 0.
pub(super) fn age(headers: &HeaderMap) -> Option<Duration> {
    let age = seconds(headers.get(AGE)?.to_str().ok()?)?;
    (!age.is_zero() && age <= AGE_MAX).then_some(age)
}

/// The API's clock minus the local one, in whole seconds, if the answer has a time. A cache repeats
/// the time at which it got the answer.
pub(super) fn clock_skew(headers: &HeaderMap, now: DateTime<Utc>) -> Option<TimeDelta> {
    let age = TimeDelta::from_std(age(headers).unwrap_or_default()).ok()?;
    let api_now = date(headers)?.checked_add_signed(age)?;
    Some(TimeDelta::seconds((api_now - now).num_seconds()))
}

/// Parses a number of seconds. One that is too large becomes the longest duration; callers limit
/// it. `None` for anything but digits.
pub fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse().unwrap_or(u64::MAX)))
}

/// The longest valid wait of all `Retry-After` headers. Dates are relative to the API's own clock,
/// and a date in the past is ignored.
pub fn retry_after(headers: &HeaderMap, api_now: DateTime<Utc>) -> Option<Duration> {
    let waits = headers.get_all(RETRY_AFTER).iter().filter_map(|value| {
        let text = value.to_str().ok()?;
        let until = || {
            Some(
                (http_date(text.trim())? - api_now)
                    .to_std()
                    .unwrap_or_default(),
            )
        };
        seconds(text).or_else(until)
    });
    waits.max()
}

/// The wait that an answer asks for: `Retry-After`, or for a 429 the reset of an exhausted quota.
pub(super) fn wait_asked(
    status: u16,
    headers: &HeaderMap,
    api_now: DateTime<Utc>,
) -> Option<Duration> {
    let reset = || {
        let quota = quota(headers, api_now).filter(|quota| quota.remaining == 0);
        quota.filter(|_| status == 429).map(|quota| quota.resets_in)
    };
    retry_after(headers, api_now).or_else(reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_apis_clock() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases: [(&[&'static str], Option<u64>); 12] = [
            (&[], None),
            (&["120"], Some(120)),
            (&["0"], Some(0)),
            (&["Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
            (&["Sun, 06 Nov 1994 08:00:00 GMT"], Some(0)),
            (&["abc"], None),
            (&["-1"], None),
            (&["1e9"], None),
            (&["1.5"], None),
            (&["99999999999999999999"], Some(u64::MAX)),
            (&["10", "30"], Some(30)),
            (&["", "7"], Some(7)),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(RETRY_AFTER, HeaderValue::from_static(value));
            }
            assert_eq!(
                retry_after(&headers, now),
                expected.map(Duration::from_secs),
                "{values:?}"
            );
        }
    }

    #[test]
    fn html_is_recognized_by_its_content_type() {
        for (content_type, expected) in [
            ("text/html; charset=UTF-8", true),
            ("TEXT/HTML", true),
            ("application/json", false),
            ("text", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_html(&headers), expected, "{content_type}");
        }
    }

    #[test]
    fn an_answer_from_a_cache_is_as_old_as_it_says() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (date, age, expected) in [
            ("Sun, 06 Nov 1994 08:49:40 GMT", None, Some(3)),
            ("Sun, 06 Nov 1994 08:39:37 GMT", None, Some(-600)),
            ("Sun, 06 Nov 1994 08:39:37 GMT", Some("600"), Some(0)),
            ("Sun, 06 Nov 1994 08:39:37 GMT", Some("soon"), Some(-600)),
            ("yesterday", Some("600"), None),
        ] {
            let mut headers = HeaderMap::from_iter([(DATE, HeaderValue::from_static(date))]);
            headers.extend(age.map(|age| (AGE, HeaderValue::from_static(age))));
            let skew = clock_skew(&headers, now).map(|skew| skew.num_seconds());
            assert_eq!(skew, expected, "{date}, {age:?}");
        }
    }

    #[test]
    fn only_an_age_in_seconds_says_that_a_cache_answered() {
        for (value, expected) in [
            ("0", None),
            ("7", Some(7)),
            ("-7", None),
            ("soon", None),
            ("31536000", Some(31_536_000)),
            ("31536001", None),
            ("99999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(AGE, HeaderValue::from_static(value))]);
            assert_eq!(age(&headers), expected.map(Duration::from_secs), "{value}");
        }
        assert_eq!(age(&HeaderMap::new()), None);
    }
}
