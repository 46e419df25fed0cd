//! The text of an answer's body in any encoding, and why it cannot be read. Pure.

use std::borrow::Cow;

use serde_json::error::Category;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::Line;

/// Applies `read` to the body's text. Bytes that are not UTF-8, and unpaired surrogate escapes,
/// make only their own field unreadable, not the answer.
pub(super) fn read<T>(
    body: &[u8],
    read: impl Fn(&str) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // Checking is many times as fast as repairing, and repairs are very rare.
    let body =
        std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    // The only byte order mark in use in JSON; RFC 8259 allows a reader to ignore it.
    let body = body.strip_prefix('\u{feff}').unwrap_or(&body);
    match read(body) {
        Err(failure) if matches!(failure.reason, Reason::NotJson | Reason::Gateway) => {
            match mend_surrogates(body) {
                Some(mended) => read(&mended),
                None => Err(failure),
            }
        }
        answer => answer,
    }
}

/// An unpaired surrogate escape (`\\ud83d` alone) is not a character, and the JSON reader rejects
/// the whole text because of it. Like bytes that are not UTF-8, it must affect its own field only:
/// each becomes U+FFFD. `None` if there is none.
fn mend_surrogates(body: &str) -> Option<String> {
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
