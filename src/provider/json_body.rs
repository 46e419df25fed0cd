//! The text of an answer's body in any encoding, and why it cannot be read. Pure.

use std::borrow::Cow;

use serde_json::error::Category;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::Line;

/// The body's text. Bytes that are not UTF-8, and unpaired surrogate escapes, become U+FFFD, so
/// that they affect their own field only, not the answer.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    // The only byte order mark in use in JSON; RFC 8259 allows a reader to ignore it.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // Checking is many times as fast as repairing, and repairs are very rare.
    let text =
        std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    mend_surrogates(&text).map_or(text, Cow::Owned)
}

/// `body` with U+FFFD for each unpaired surrogate escape (`\\ud83d` alone), which is not a
/// character, and for which the JSON reader rejects a text. `None` if there is none.
fn mend_surrogates(body: &str) -> Option<String> {
    if !["\\ud", "\\uD"].iter().any(|escape| body.contains(escape)) {
        return None;
    }
    let escape_at = |bytes: &[u8]| {
        let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut mended = body.as_bytes().to_vec();
    let (mut at, mut is_mended) = (0, false);
    while let Some(rest) = mended.get(at..).filter(|rest| !rest.is_empty()) {
        let low_follows = || {
            rest.get(6..)
                .and_then(escape_at)
                .is_some_and(|low| (0xdc00..0xe000).contains(&low))
        };
        let len = match (rest.first(), escape_at(rest)) {
            (Some(b'\\'), Some(0xd800..=0xdbff)) if low_follows() => 12,
            (Some(b'\\'), Some(0xd800..=0xdfff)) => {
                if let Some(escape) = mended.get_mut(at + 2..at + 6) {
                    escape.copy_from_slice(b"fffd");
                    is_mended = true;
                }
                6
            }
            // An escaped backslash does not start another escape.
            (Some(b'\\'), _) => 2,
            _ => 1,
        };
        at += len;
    }
    is_mended.then(|| String::from_utf8(mended).ok()).flatten()
}

/// serde's own message would repeat the offending value, so only the position is reported.
pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    let (reason, what) = match error.classify() {
        Category::Data => (Reason::Schema, "has another form"),
        Category::Eof => (Reason::NotJson, "ends too early"),
        Category::Syntax | Category::Io => (Reason::NotJson, "is not JSON"),
    };
    let (line, column) = (error.line(), error.column());
    let why = format!("the body {what}, line {line}, column {column}");
    Failure::because(reason, Line::own(&why))
}
