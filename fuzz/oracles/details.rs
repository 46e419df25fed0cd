//! The bytes of one key's own page: facts of that key or a clean failure.

use api_key_exporter::domain::key::KeyId;
use api_key_exporter::domain::text::{LABEL_CHARS_MAX, is_hidden};
use api_key_exporter::provider::bitgpt::details;

use super::support;

/// Checks one body.
pub fn check(bytes: &[u8]) {
    let token = support::token();
    let rules = support::rules(&token);
    let id = KeyId::parse("api_key_0197c0ec-0000-7000-8000-000000000004").unwrap();
    let read = |status| details::answer(status, bytes, &id, &rules, support::now());
    read(503).expect_err("an error status has no details");
    match read(200) {
        Ok(details) => {
            assert_eq!(details.read_at, support::now());
            let label = details.label.as_deref().unwrap_or("x");
            assert!((1..=LABEL_CHARS_MAX).contains(&label.chars().count()));
            assert!(!label.chars().any(is_hidden), "{label:?}");
            support::assert_no_token("the label", label);
            let text = String::from_utf8_lossy(bytes);
            let is_named = text.contains(id.as_str()) || text.contains("\\u");
            assert!(is_named, "the page is about another key");
        }
        Err(failure) => support::assert_clean_failure(&failure),
    }
}
