//! Cleaning of upstream text: short, visible, without what looks like a key and without any part of
//! the token, wherever it stands.

use std::borrow::Cow;

use api_key_exporter::domain::text::{
    LABEL_CHARS_MAX, Line, is_hidden, join_truncated, label, redact, redact_url,
};

use super::support::{self, TOKEN};

/// Checks one text. Its first byte says which part of the token is put into the rest, and where.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    support::assert_clean_line("a line", Line::clean(&text).as_str());
    let shown = label(&text);
    assert!(shown.chars().count() <= LABEL_CHARS_MAX, "{shown:?}");
    assert!(!shown.chars().any(is_hidden), "{shown:?}");
    assert_eq!(label(&shown), shown, "a label that is cleaned twice");
    if let Some(id) = Line::support_id(&text) {
        let chars = id.as_str().chars().count();
        assert!((1..=64).contains(&chars), "{id:?}");
    }
    let redacted = redact(&text);
    let again = redact(&redacted);
    assert!(
        matches!(again, Cow::Borrowed(_)),
        "{redacted:?} shows a key"
    );
    // A URL's parts are found in the redacted text again.
    let url = redact_url(&text);
    assert!(
        matches!(redact(&url), Cow::Borrowed(_)),
        "{url:?} shows a key"
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        join_truncated(lines.iter().copied()).is_none(),
        lines.is_empty()
    );
    if let Some((choice, _)) = bytes.split_first() {
        hide_token(usize::from(*choice), &text);
    }
}

/// No part of eight characters survives.
fn hide_token(choice: usize, text: &str) {
    let token = support::token();
    let body = TOKEN.trim_start_matches("sk_live_");
    let start = choice % (body.len() - 8);
    let length = 8 + choice % (body.len() - start - 7);
    let part = &body[start..start + length];
    let at = text.char_indices().map(|(at, _)| at).nth(choice % 32);
    let (before, after) = text.split_at(at.unwrap_or(text.len()));
    for (hidden, scrubbed) in [
        (part, token.scrub_parts(&format!("{before}{part}{after}"))),
        (
            body,
            token.scrub(&format!("{before}{TOKEN}{after}")).into_owned(),
        ),
    ] {
        assert!(!scrubbed.contains(hidden), "{hidden} is in {scrubbed:?}");
        let line = Line::clean(&scrubbed);
        assert!(!line.as_str().contains(hidden), "{hidden} is in {line:?}");
    }
}
