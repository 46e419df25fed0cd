//! The only way for response text to enter the exporter: it is made printable, and every part of a
//! secret in it is redacted, in any encoding.

use std::borrow::Cow;

use crate::domain::text::secrets::{PART, Secrets};
use crate::domain::text::views::{Found, View, may_be_encoded};
use crate::domain::text::{
    LABEL_CHARS_MAX, LINE_CHARS_MAX, Label, Line, Name, SUPPORT_ID_CHARS_MAX, cut, one_line,
    prefix, printable,
};
use crate::redaction::{REDACTED, keys, redact_at};

/// Longest text that is checked without allocating, in visible characters: longer than almost all
/// ids, labels and scopes.
const SHORT_BYTES_MAX: usize = 128;

/// Cleans the text of one response. It knows the exporter's token and the secrets of that response.
#[derive(Debug)]
pub struct Cleaner(Secrets);

impl Cleaner {
    /// A cleaner that redacts every part of these secrets.
    pub fn new(secrets: Secrets) -> Self {
        Self(secrets)
    }

    /// A line for the log.
    pub fn line(&self, text: &str) -> Line {
        Line(cut(&self.scrub(&one_line(prefix(text)), text), LINE_CHARS_MAX).into())
    }

    /// The id of a support case; `None` if empty.
    pub fn support_id(&self, text: &str) -> Option<Line> {
        let id = cut(
            &self.scrub(&one_line(prefix(text)), text),
            SUPPORT_ID_CHARS_MAX,
        );
        (!id.is_empty()).then(|| Line(id.into()))
    }

    /// A label value that the exporter stores; `None` if empty or blank.
    pub fn label(&self, text: &str) -> Option<Label> {
        Label::from_name(self.name(text))
    }

    /// A name that becomes a label value, such as a scope.
    pub fn name<'t>(&self, text: &'t str) -> Name<'t> {
        if text.len() <= LABEL_CHARS_MAX && self.is_plain(text) {
            return Name {
                text: Cow::Borrowed(text),
                is_exact: true,
            };
        }
        let shown = printable(prefix(text));
        let shown = cut(&self.scrub(&shown, text), LABEL_CHARS_MAX);
        Name {
            is_exact: shown == text,
            text: Cow::Owned(shown),
        }
    }

    /// Whether `text` contains no part of a secret. Text that must not be changed, such as an id,
    /// is rejected otherwise.
    pub fn is_free_of_secrets(&self, text: &str) -> bool {
        if self.is_plain(text) {
            return true;
        }
        let shown = printable(prefix(text));
        matches!(self.scrub(&shown, text), Cow::Borrowed(_))
    }

    /// Whether `text` is printable ASCII and certainly without a secret. A fast check that almost
    /// all labels and scopes pass.
    fn is_plain(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let (mut is_simple, mut has_blanks) = (true, false);
        for byte in bytes {
            // Text that may start an escape needs a closer check.
            is_simple &= matches!(byte, b' '..=b'~') & !matches!(byte, b'%' | b'\\' | b'&');
            has_blanks |= *byte == b' ';
        }
        if !is_simple || self.0.has_short() || keys(text).next().is_some() {
            return false;
        }
        if bytes.len() < PART {
            return true;
        }
        let mut copy = [0; SHORT_BYTES_MAX];
        let visible = if has_blanks {
            let mut len = 0;
            for byte in bytes.iter().filter(|byte| **byte != b' ') {
                let Some(to) = copy.get_mut(len) else {
                    return false;
                };
                *to = *byte;
                len += 1;
            }
            copy.get(..len).unwrap_or_default()
        } else {
            bytes
        };
        !self.0.may_hold_part(visible) && !may_be_encoded(visible)
    }

    /// `shown`, the printable form of `original`, without secrets.
    fn scrub<'t>(&self, shown: &'t str, original: &str) -> Cow<'t, str> {
        if self.is_plain(shown) && shown.len() == original.len() {
            return Cow::Borrowed(shown);
        }
        let mut places = Vec::new();
        View::of(shown).find(&self.0, &mut |found: Found| {
            places.push(whole_word(shown, &found));
        });
        places.extend(keys_between_marks(shown));
        if original.contains(['\u{1b}', '\u{9b}']) {
            // Apparent terminal escape sequences may be characters of the secret.
            let bare = prefix(original).replace("\u{1b}[", "");
            let mut found = 0;
            View::of(&bare).find(&self.0, &mut |_| found += 1);
            if found > places.len() {
                return Cow::Owned(REDACTED.to_owned());
            }
        }
        places.sort_unstable_by_key(|place| place.start);
        places.dedup_by(|later, first| {
            let overlaps = later.start <= first.end;
            if overlaps {
                first.end = first.end.max(later.end);
            }
            overlaps
        });
        redact_at(shown, places)
    }
}

/// Extends a part of a secret to the whole word: more of it may be secret than is known.
fn whole_word(text: &str, found: &Found) -> std::ops::Range<usize> {
    let belongs = |c: char| {
        let is_encoding = matches!(c, '+' | '/' | '=' | '%');
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-') || (found.is_encoded && is_encoding)
    };
    let before = text.get(..found.at.start).unwrap_or_default();
    let after = text.get(found.at.end..).unwrap_or_default();
    let start = before.trim_end_matches(belongs).len();
    let end = text.len() - after.trim_start_matches(belongs).len();
    start..end
}

/// Text that looks like a key, even if it contains marks for invisible characters.
fn keys_between_marks(text: &str) -> Vec<std::ops::Range<usize>> {
    const MARK: char = char::REPLACEMENT_CHARACTER;
    if !text.contains(MARK) {
        return keys(text).collect();
    }
    let kept = text.char_indices().filter(|(_, c)| *c != MARK);
    let (mut bare, mut at) = (String::new(), Vec::new());
    for (start, c) in kept {
        bare.push(c);
        at.extend((start..start + c.len_utf8()).map(|byte| byte..start + c.len_utf8()));
    }
    let original = |key: std::ops::Range<usize>| {
        let start = at.get(key.start)?.start;
        Some(start..at.get(key.end.checked_sub(1)?)?.end)
    };
    keys(&bare).filter_map(original).collect()
}

/// The beginning of a JSON value as it is written, to be cleaned: its escapes are decoded, except
/// for quotes and backslashes, to keep it readable.
pub fn json_words(json: &str) -> Cow<'_, str> {
    let json = prefix(json);
    if !json.contains('\\') {
        return Cow::Borrowed(json);
    }
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut out = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let units = [unit(escape), escape.get(6..).and_then(unit)];
        let [first, second] = units.map(Option::unwrap_or_default);
        let is_pair = (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(&second);
        let (decoded, len) = match escape.as_bytes().get(1) {
            Some(b'u') if units[0].is_some() => {
                let units = [first, second];
                let units = units.into_iter().take(if is_pair { 2 } else { 1 });
                let c = char::decode_utf16(units).next().and_then(Result::ok);
                let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                (Some(c), if is_pair { 12 } else { 6 })
            }
            Some(b'/') => (Some('/'), 2),
            Some(b'n' | b'r' | b't' | b'b' | b'f') => (Some(' '), 2),
            Some(b'"' | b'\\') => (None, 2),
            _ => (None, 1),
        };
        let (written, after) = escape.split_at_checked(len).unwrap_or((escape, ""));
        match decoded {
            Some(c) => out.push(c),
            None => out.push_str(written),
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
