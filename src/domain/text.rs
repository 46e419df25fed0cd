//! Cleans text that came from outside, for log lines and for metric labels.
//!
//! Whatever the API says may hold line breaks, terminal escapes, text that reverses the reader's
//! direction, or a secret. Nothing from outside is shown before it has passed through here.

use std::borrow::Cow;
use std::fmt;

pub use crate::redaction::{REDACTED, redact};

/// Longest upstream text in one log field, in characters: a sentence or two, so that ten fields
/// still make a line that log systems take whole.
pub const LINE_CHARS_MAX: usize = 200;

/// Longest metric label taken from an API, in characters. Providers' own labels end there or
/// earlier.
pub const LABEL_CHARS_MAX: usize = 255;

/// Longest support id, in characters. A documented one (`support_<uuidv7>`) has 44; 64 leaves room
/// and keeps an exemplar under OpenMetrics' limit of 128.
const SUPPORT_ID_CHARS_MAX: usize = 64;

/// The longest part of upstream text that is looked at, in bytes. It is far over what is shown, so
/// that text made of invisible characters cannot hide the rest, and far under a megabyte, so that
/// cleaning costs little.
const LOOKED_AT_BYTES_MAX: usize = 16 * 1024;

/// One clean line of upstream text: no control, bidirectional or invisible characters, nothing that
/// looks like a key, at most [`LINE_CHARS_MAX`] characters with `…` where it was cut.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Line(Box<str>);

impl Line {
    /// Cleans `text`.
    pub fn clean(text: &str) -> Self {
        Self(clean(text, LINE_CHARS_MAX).into())
    }

    /// Cleans `text` as the id of a support case: as [`Line::clean`], at most 64 characters. Empty
    /// is `None`.
    pub fn support_id(text: &str) -> Option<Self> {
        let id = clean(text, SUPPORT_ID_CHARS_MAX);
        (!id.is_empty()).then(|| Self(id.into()))
    }

    /// The clean text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text from the API as the value of a metric label: the text itself, but for control and
/// bidirectional characters (each becomes U+FFFD), anything that looks like a key, and what exceeds
/// [`LABEL_CHARS_MAX`].
pub fn label(text: &str) -> String {
    let text = prefix(text);
    // Most labels: nothing to replace.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return cut(&redact(text), LABEL_CHARS_MAX);
    }
    let shown: String = text
        .chars()
        .map(|c| {
            if is_hidden(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect();
    cut(&redact(&shown), LABEL_CHARS_MAX)
}

/// `text`, which may be a URL, well-formed or not, without what is secret in one: user, password
/// and query; and without anything that looks like a key.
pub fn redact_url(text: &str) -> String {
    let text = redact(text);
    let (scheme, rest) = text
        .split_once("//")
        .map_or(("", &*text), |(scheme, rest)| {
            text.split_at_checked(scheme.len() + 2)
                .unwrap_or((scheme, rest))
        });
    let is_url = !scheme.is_empty();
    let (rest, query) = match rest.find(['?', '#']) {
        // The password may hold either, so only what follows the last `@` is a query.
        Some(_) if rest.contains('@') => rest
            .rsplit_once('@')
            .and_then(|(before, after)| {
                let at = before.len() + 1 + after.find(['?', '#'])?;
                rest.split_at_checked(at)
            })
            .unwrap_or((rest, "")),
        Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let has_query = is_url || query.contains('=');
    let mut shown = scheme.to_owned();
    match rest.rsplit_once('@') {
        // `team@example.com` is no secret; `user:password@host` is one without a scheme too.
        Some((before, host)) if is_url || before.contains(':') => {
            shown.push_str(REDACTED);
            shown.push('@');
            shown.push_str(host);
        }
        _ => shown.push_str(&without_port_that_is_none(is_url, rest)),
    }
    match query.chars().next() {
        Some(mark) if has_query => {
            shown.push(mark);
            shown.push_str(REDACTED);
        }
        _ => shown.push_str(query),
    }
    shown
}

/// `http://user:password`, where the host was forgotten.
fn without_port_that_is_none(is_url: bool, rest: &str) -> Cow<'_, str> {
    let authority = rest.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match port {
        Some(port) if is_url && !authority.ends_with(']') && !is_port(port) => {
            let host = authority.split(':').next().unwrap_or_default();
            Cow::Owned(format!("{host}:{REDACTED}"))
        }
        _ => Cow::Borrowed(rest),
    }
}

/// An error and its causes in one line, outermost first.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether `c` is a control character, a line or paragraph separator, or one of Unicode's format
/// characters: invisible, or able to reorder what is around it.
pub fn is_hidden(c: char) -> bool {
    // The format characters (Cf) are listed, not looked up: the list is short and has been stable
    // for years.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

fn clean(text: &str, chars_max: usize) -> String {
    let mut shown = String::new();
    for c in prefix(text).chars() {
        if c.is_whitespace() || (c.is_control() && c != '\u{1b}') {
            // A run of line breaks, tabs and other controls reads as one space.
            if !shown.ends_with(' ') && !shown.is_empty() {
                shown.push(' ');
            }
        } else if !is_hidden(c) {
            shown.push(c);
        }
    }
    cut(redact(shown.trim_end()).as_ref(), chars_max)
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.len() <= chars_max || text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

fn prefix(text: &str) -> &str {
    let end = text.floor_char_boundary(LOOKED_AT_BYTES_MAX);
    text.split_at(end).0
}

/// Most names that one log line has room for.
const JOINED_MAX: usize = 10;

/// The first few of `names`, separated by commas, and how many more there are; `None` of none.
pub fn join_truncated<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let first: Vec<&str> = names.iter().take(JOINED_MAX).copied().collect();
    let first = first.join(", ");
    match names.len().saturating_sub(JOINED_MAX) {
        _ if names.is_empty() => None,
        0 => Some(first),
        more => Some(format!("{first} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_one_line_without_controls_or_direction_marks() {
        let cases = [
            ("plain", "plain"),
            ("two\r\nlines", "two lines"),
            ("  \t tabs\tand  spaces ", "tabs and spaces"),
            ("\u{1b}[31mred\u{1b}[0m", "[31mred[0m"),
            ("c1\u{9b}31m", "c1 31m"),
            ("rtl\u{202e}gnp.exe", "rtlgnp.exe"),
            ("sep\u{2028}arator", "sep arator"),
            ("nul\0byte", "nul byte"),
            ("zero\u{200b}width", "zerowidth"),
        ];
        for (text, expected) in cases {
            assert_eq!(Line::clean(text).as_str(), expected, "{text:?}");
        }
    }

    #[test]
    fn fault_c15_a_long_line_is_cut_with_an_ellipsis() {
        let line = Line::clean(&"é".repeat(3_000_000));
        assert_eq!(line.as_str().chars().count(), LINE_CHARS_MAX);
        assert!(line.as_str().ends_with('…'));
    }

    #[test]
    fn fault_j14_a_url_is_shown_without_user_password_and_query() {
        for (text, expected) in [
            ("https://api.example.com/v1", "https://api.example.com/v1"),
            ("http://proxy:3128", "http://proxy:3128"),
            ("http://[::1]:3128/a", "http://[::1]:3128/a"),
            ("https://me@host/a", "https://[redacted]@host/a"),
            ("http://me:pass@proxy:3128", "http://[redacted]@proxy:3128"),
            ("socks5://me:pass@proxy", "socks5://[redacted]@proxy"),
            ("http://me:p@ss@proxy", "http://[redacted]@proxy"),
            ("http://me:p?a#s/s@proxy", "http://[redacted]@proxy"),
            ("http://me:pa ss@proxy", "http://[redacted]@proxy"),
            ("https://host/a?token=secret", "https://host/a?[redacted]"),
            ("https://host/a?secret", "https://host/a?[redacted]"),
            ("https://host/a#secret", "https://host/a#[redacted]"),
            ("https://me:pass@host/?a=secret@b", "https://[redacted]@b"),
            (
                "https://me:pass@host/?a=secret",
                "https://[redacted]@host/?[redacted]",
            ),
            ("//me:pass@host", "//[redacted]@host"),
            ("me:pass@proxy:3128", "[redacted]@proxy:3128"),
            ("http:me:pass@proxy", "[redacted]@proxy"),
            ("host/a?token=secret", "host/a?[redacted]"),
            ("http://me:pass", "http://me:[redacted]"),
            ("http://me:pass:word/x", "http://me:[redacted]"),
            // No URL, no secret.
            ("team@example.com", "team@example.com"),
            ("what now?", "what now?"),
            ("a?b", "a?b"),
            ("#1", "#1"),
            ("127.0.0.1:10120", "127.0.0.1:10120"),
            ("sk_live_abc", "[redacted]"),
            ("", ""),
        ] {
            assert_eq!(redact_url(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_broken_up_by_invisible_characters_is_redacted_too() {
        assert_eq!(Line::clean("sk_li\u{200b}ve_abc").as_str(), "[redacted]");
    }

    #[test]
    fn a_support_id_is_short_and_clean() {
        let id = Line::support_id("support_1\r\nlevel=ERROR").unwrap();
        assert_eq!(id.as_str(), "support_1 level=ERROR");
        assert_eq!(
            Line::support_id(&"x".repeat(1_000_000))
                .unwrap()
                .as_str()
                .chars()
                .count(),
            64
        );
        assert_eq!(Line::support_id(" \n"), None);
    }

    #[test]
    fn a_label_keeps_its_characters_but_not_its_controls_or_secrets() {
        assert_eq!(label("a \"b\" \\ <c> ü"), "a \"b\" \\ <c> ü");
        assert_eq!(label("a\nb\u{202e}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(label("ci sk_live_abc"), "ci [redacted]");
        assert_eq!(label(&"x".repeat(300)).chars().count(), LABEL_CHARS_MAX);
    }

    #[test]
    fn a_line_names_ten_and_counts_the_rest() {
        let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        let words = |count: usize| join_truncated(names.iter().take(count).map(String::as_str));
        assert_eq!(words(0), None);
        assert_eq!(words(1).as_deref(), Some("0"));
        assert_eq!(words(10).as_deref(), Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9"));
        let twelve = words(12);
        assert_eq!(
            twelve.as_deref(),
            Some("0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more")
        );
    }
}
