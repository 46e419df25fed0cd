//! `Retry-After` headers, one a line of the input: the longest readable wait counts, and no wait
//! leaves its limits.

use std::time::Duration;

use api_key_exporter::domain::failure::{Failure, Reason};
use api_key_exporter::poller::retry::{Budget, Situation, backoff, obeyed};
use api_key_exporter::provider::response::{retry_after, seconds};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue};

use super::support;

/// The longest wait that an API can ask for.
const HOUR: Duration = Duration::from_secs(3_600);

/// Checks one set of headers.
pub fn check(bytes: &[u8]) {
    let values = bytes.split(|byte| *byte == b'\n').take(16);
    let values = values.filter_map(|value| HeaderValue::from_bytes(value).ok());
    let values: Vec<HeaderValue> = values.collect();
    let asked = wait(&values);
    let alone = values.iter().map(|value| wait(std::slice::from_ref(value)));
    assert_eq!(asked, alone.max().flatten(), "{values:?}");
    for text in values.iter().filter_map(|value| value.to_str().ok()) {
        let trimmed = text.trim();
        let is_number = !trimmed.is_empty() && trimmed.bytes().all(|it| it.is_ascii_digit());
        assert_eq!(seconds(text).is_some(), is_number, "{text:?}");
        if let (true, Ok(number)) = (is_number, trimmed.parse()) {
            assert_eq!(seconds(text), Some(Duration::from_secs(number)), "{text:?}");
        }
    }
    let random = f64::from(bytes.first().copied().unwrap_or_default()) / 255.0;
    let own = backoff(1, random);
    if let Some(asked) = asked {
        let wait = obeyed(asked, own);
        assert!(wait >= own && wait <= HOUR.max(own), "{wait:?}");
        assert!(
            wait >= asked.min(HOUR),
            "{wait:?} is shorter than {asked:?}"
        );
    }
    let failure = Failure {
        retry_after: asked,
        ..Failure::new(Reason::RateLimited, "")
    };
    let time_left = Duration::from_secs(60);
    let situation = Situation {
        attempts: 1,
        attempts_max: 3,
        time_left,
        random,
    };
    if let Some(wait) = situation.next_attempt(&failure, &mut Budget::default()) {
        assert!(
            wait < time_left && wait >= asked.unwrap_or_default(),
            "{wait:?}"
        );
    }
}

fn wait(values: &[HeaderValue]) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(RETRY_AFTER, value.clone());
    }
    retry_after(&headers, support::now())
}
