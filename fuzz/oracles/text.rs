//! Cleaning of upstream text: short, visible, without what looks like a key and without any part of
//! the token, wherever it stands.

use std::borrow::Cow;

use api_key_exporter::domain::text::{
    Cleaner, LABEL_CHARS_MAX, Line, is_hidden, join_truncated, label, redact, redact_url,
};

use super::support::{self, TOKEN};

/// A part of a secret of this length must not be shown.
const PART_CHARS: usize = 12;

/// Checks one text. Its first byte says which part of the token is put into it, and where.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let cleaner = Cleaner::new(support::token().secrets(bytes.len()));
    assert_shown(&cleaner, &text);
    support::assert_clean_line("a line", Line::own(&text).as_str());
    let shown = label(&text);
    assert_eq!(label(&shown), shown, "a label that is cleaned twice");
    let redacted = redact(&text);
    let again = redact(&redacted);
    assert!(
        matches!(again, Cow::Borrowed(_)),
        "{redacted:?} shows a key"
    );
    let url = redact_url(&text);
    assert!(matches!(redact(&url), Cow::Borrowed(_)), "{url:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        join_truncated(lines.iter().copied()).is_none(),
        lines.is_empty()
    );
    // Any part of the token that is long enough, anywhere in the text.
    let Some(choice) = bytes.first().copied().map(usize::from) else {
        return;
    };
    let body = TOKEN.trim_start_matches("sk_live_");
    let start = choice % (body.len() - PART_CHARS);
    let length = PART_CHARS + choice % (body.len() - start - PART_CHARS + 1);
    let part = &body[start..start + length];
    let at = text.char_indices().map(|(at, _)| at).nth(choice % 32);
    let (before, after) = text.split_at(at.unwrap_or(text.len()));
    for hidden in [part, TOKEN] {
        let shown = assert_shown(&cleaner, &format!("{before}{hidden}{after}"));
        assert!(!shown.contains(hidden), "{hidden} is in {shown:?}");
    }
}

/// Whatever becomes of a text is short, visible and without the token; returns all of it.
fn assert_shown(cleaner: &Cleaner, text: &str) -> String {
    let line = cleaner.line(text);
    support::assert_clean_line("a line", line.as_str());
    let name = cleaner.name(text);
    let name = name.as_str();
    assert!(name.chars().count() <= LABEL_CHARS_MAX, "{name:?}");
    assert!(!name.chars().any(is_hidden), "{name:?}");
    let id = cleaner.support_id(text);
    let id = id.as_ref().map_or("x", Line::as_str);
    assert!((1..=64).contains(&id.chars().count()), "{id:?}");
    for shown in [line.as_str(), name, id] {
        support::assert_no_token("a cleaned text", shown);
    }
    // The end of one must not make a part with the start of the next.
    [line.as_str(), name, id].join("\n")
}
