//! Cleans external text for log lines and metric labels.
//!
//! Text from the API may contain line breaks, terminal escapes, characters that reverse the text
//! direction, or a secret. External text is never shown without cleaning.

mod cleaner;
mod secrets;
mod views;

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

pub use crate::redaction::{REDACTED, redact};
pub use cleaner::{Cleaner, json_words};
pub use secrets::Secrets;

/// Longest upstream text in one log field, in characters: a sentence or two, so that a line with
/// ten such fields stays within the limits of log systems.
pub const LINE_CHARS_MAX: usize = 200;

/// Longest metric label taken from an API, in characters. Providers' own limits for labels are no
/// higher.
pub const LABEL_CHARS_MAX: usize = 255;

/// Longest support id, in characters. A documented one (`support_<uuidv7>`) has 44; 64 leaves room
/// and keeps an exemplar under OpenMetrics' limit of 128.
const SUPPORT_ID_CHARS_MAX: usize = 64;

/// The longest part of upstream text that is examined, in bytes. It is far more than is shown, so
/// that text made of invisible characters cannot hide the rest, and far less than a megabyte, so
/// that cleaning is cheap.
const LOOKED_AT_BYTES_MAX: usize = 16 * 1024;

/// One clean line for the log: no control, bidirectional or invisible characters, nothing that
/// looks like a key, at most [`LINE_CHARS_MAX`] characters with `…` if it was truncated. Text from
/// an API becomes a line only through [`Cleaner::line`], which redacts secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Line(Box<str>);

impl Line {
    /// A line of fixed text or of clean values.
    pub fn own(text: &str) -> Self {
        Self(cut(&redact(&one_line(prefix(text))), LINE_CHARS_MAX).into())
    }

    /// The clean text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Text as a label value: without control, bidirectional and invisible characters, and without
/// anything that looks like a key. Text from an API becomes a name only through [`Cleaner::name`],
/// which redacts secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name<'a> {
    text: Cow<'a, str>,
    is_exact: bool,
}

/// A [`Name`] that is stored; never empty or blank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    text: Box<str>,
    is_exact: bool,
}

impl<'a> Name<'a> {
    /// A name from a snapshot, which was clean when it was saved.
    pub fn saved(text: &'a str) -> Self {
        Self {
            text: label(text).into(),
            is_exact: true,
        }
    }

    /// The clean text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A name from the exporter itself.
impl From<&'static str> for Name<'static> {
    fn from(text: &'static str) -> Self {
        Self {
            text: text.into(),
            is_exact: true,
        }
    }
}

impl Label {
    fn from_name(name: Name<'_>) -> Option<Self> {
        let Name { text, is_exact } = name;
        // What takes the place of other text, whoever put it there.
        let is_changed = text.contains(char::REPLACEMENT_CHARACTER)
            || text.contains(REDACTED)
            || text.ends_with('…');
        // A label of blanks only names nothing.
        (!text.trim().is_empty()).then(|| Self {
            text: text.into(),
            is_exact: is_exact && !is_changed,
        })
    }

    /// A label from a snapshot, which also stores whether the label was exact.
    pub fn saved(text: &str, is_exact: bool) -> Option<Self> {
        let clean = label(text);
        Self::from_name(Name {
            is_exact: is_exact && clean == text,
            text: clean.into(),
        })
    }

    /// Whether it is exactly the label that its owner assigned. Different labels may become equal
    /// after truncation, redaction or replacement of characters.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// The clean text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// A label from the exporter itself.
impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self {
            text: text.into(),
            is_exact: true,
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The operator's text as a label value: unchanged except for control and bidirectional characters
/// (each becomes U+FFFD), anything that looks like a key, and what exceeds [`LABEL_CHARS_MAX`].
pub fn label(text: &str) -> String {
    cut(&redact(&printable(prefix(text))), LABEL_CHARS_MAX)
}

/// `text` with U+FFFD for each hidden character and each terminal escape sequence.
fn printable(text: &str) -> Cow<'_, str> {
    // Most labels need no replacement.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escape = escape_sequence(rest);
        match c {
            _ if escape.is_some() => shown.push(char::REPLACEMENT_CHARACTER),
            // Variation selectors, most often of an emoji.
            '\u{fe00}'..='\u{fe0f}' => {}
            _ if is_hidden(c) => shown.push(char::REPLACEMENT_CHARACTER),
            _ => shown.push(c),
        }
        rest = rest.split_at(escape.unwrap_or(c.len_utf8())).1;
    }
    Cow::Owned(shown)
}

/// `text` as one line: runs of blanks, line breaks and other controls become one space, and escape
/// sequences and invisible characters are removed.
fn one_line(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let escape = escape_sequence(rest);
        rest = rest.split_at(escape.unwrap_or(c.len_utf8())).1;
        if escape.is_some() {
            continue;
        }
        if c.is_whitespace() || c.is_control() {
            if !shown.ends_with(' ') && !shown.is_empty() {
                shown.push(' ');
            }
        } else if !is_hidden(c) {
            shown.push(c);
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

/// The length of the terminal escape sequence that `text` starts with (ECMA-48). If it is neither a
/// control sequence nor a control string, only the escape character counts: the rest may be text.
fn escape_sequence(text: &str) -> Option<usize> {
    let (introducer, len) = match text.as_bytes() {
        [0x1b, kind @ (b'[' | b']' | b'P' | b'X' | b'^' | b'_'), ..] => (*kind, 2),
        [0x1b, ..] => return Some(1),
        // The single-character form, U+0080 to U+009F.
        [0xc2, 0x9b, ..] => (b'[', 2),
        [0xc2, 0x90 | 0x98 | 0x9d..=0x9f, ..] => (b']', 2),
        _ => return None,
    };
    let body = text.as_bytes().get(len..)?;
    let body_len = if introducer == b'[' {
        let parameters = body.iter().take_while(|byte| matches!(byte, 0x20..=0x3f));
        let parameters = parameters.count();
        let has_end = matches!(body.get(parameters), Some(0x40..=0x7e));
        parameters + usize::from(has_end)
    } else {
        let end = |at: usize| match body.get(at..)? {
            [0x07, ..] => Some(at + 1),
            [0x1b, b'\\', ..] | [0xc2, 0x9c, ..] => Some(at + 2),
            _ => None,
        };
        let mut starts = 0..body.len().min(CONTROL_STRING_BYTES_MAX);
        match starts.find_map(end) {
            Some(end) => end,
            // Without a terminator it hides nothing: its text is shown.
            None => return Some(if text.starts_with('\u{1b}') { 1 } else { len }),
        }
    };
    Some(len + body_len)
}

/// Longest control string that is removed; a hyperlink or a window title is shorter.
const CONTROL_STRING_BYTES_MAX: usize = 2048;

/// `text`, which may be a URL, well-formed or not, without the secret parts of one: user, password
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
    // A semicolon starts parameters of a path, `;token=…`.
    let starts = ['?', '#', ';'];
    let (rest, query) = match rest.find(starts) {
        // The password may contain any, so only text after the last `@` is a query.
        Some(_) if rest.contains('@') => rest
            .rsplit_once('@')
            .and_then(|(before, after)| {
                let at = before.len() + 1 + after.find(starts)?;
                rest.split_at_checked(at)
            })
            .unwrap_or((rest, "")),
        Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let has_query = is_url || query.contains('=');
    let mut shown = scheme.to_owned();
    match rest.rsplit_once('@') {
        // `team@example.com` is not a secret, nor is `unix:@name`, an abstract socket;
        // `user:password@host` is, even without a scheme.
        Some((before, host)) if is_url || before.contains(':') && before != "unix:" => {
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

/// Redacts `http://user:password`, a URL without a host.
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
/// characters or default-ignorable code points: invisible, or able to reorder the text around it.
pub fn is_hidden(c: char) -> bool {
    // Listed here because the list is short and has been stable for years.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// At most `chars_max` characters of `text`, with `…` if it is truncated.
pub fn cut(text: &str, chars_max: usize) -> String {
    if text.len() <= chars_max || text.chars().nth(chars_max).is_none() {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

fn prefix(text: &str) -> &str {
    let end = text.floor_char_boundary(LOOKED_AT_BYTES_MAX);
    text.split_at(end).0
}

/// Most names shown in one log line.
const JOINED_MAX: usize = 10;

/// The first few of `names`, separated by commas, and the number of the others; `None` if empty.
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
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("c1\u{9b}31m", "c1"),
            ("bare\u{1b} escape", "bare escape"),
            ("a \u{1b}]8;;https://x\u{1b}\\link\u{1b}]8;;\u{7}", "a link"),
            ("no \u{1b}]0;end", "no ]0;end"),
            ("fill\u{3164}er\u{e0041}s\u{fe0f}", "fillers"),
            ("rtl\u{202e}gnp.exe", "rtlgnp.exe"),
            ("sep\u{2028}arator", "sep arator"),
            ("nul\0byte", "nul byte"),
            ("zero\u{200b}width", "zerowidth"),
        ];
        for (text, expected) in cases {
            assert_eq!(Line::own(text).as_str(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_with_an_ellipsis() {
        let line = Line::own(&"é".repeat(3_000_000));
        assert_eq!(line.as_str().chars().count(), LINE_CHARS_MAX);
        assert!(line.as_str().ends_with('…'));
    }

    #[test]
    fn a_url_is_shown_without_user_password_and_query() {
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
            ("https://host/a;token=secret", "https://host/a;[redacted]"),
            ("https://host;secret/a", "https://host;[redacted]"),
            ("host/a;token=secret", "host/a;[redacted]"),
            ("a;b", "a;b"),
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
            // Not a URL, no secret.
            ("team@example.com", "team@example.com"),
            ("unix:@name", "unix:@name"),
            ("unix:pass@name", "[redacted]@name"),
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
        assert_eq!(Line::own("sk_li\u{200b}ve_abc").as_str(), "[redacted]");
    }

    #[test]
    fn a_support_id_is_short_and_clean() {
        let cleaner = Cleaner::new(Secrets::new(0));
        let id = |text: &str| {
            let id = cleaner.support_id(text)?;
            Some(id.as_str().to_owned())
        };
        let expected = Some("support_1 level=ERROR");
        assert_eq!(id("support_1\r\nlevel=ERROR").as_deref(), expected);
        let long = id(&"x".repeat(1_000_000)).unwrap();
        assert_eq!(long.chars().count(), 64);
        assert_eq!(id(" \n"), None);
    }

    #[test]
    fn a_label_keeps_its_characters_but_not_its_controls_or_secrets() {
        assert_eq!(label("a \"b\" \\ <c> ü"), "a \"b\" \\ <c> ü");
        assert_eq!(label("a\nb\u{202e}c"), "a\u{fffd}b\u{fffd}c");
        assert_eq!(label("ci sk_live_abc"), "ci [redacted]");
        assert_eq!(label(&"x".repeat(300)).chars().count(), LABEL_CHARS_MAX);
    }

    #[test]
    fn a_label_that_was_changed_is_not_exact_even_when_it_was_saved() {
        let cleaner = Cleaner::new(Secrets::new(0));
        for (original, is_exact) in [
            ("ci", true),
            ("ci ü", true),
            ("ci\u{202e}", false),
            ("ci sk_live_abc", false),
            ("[redacted]", false),
            ("ci\u{fffd}", false),
            ("a label that its API cut…", false),
            ("wait… ci", true),
            (&*"x".repeat(300), false),
        ] {
            let label = cleaner.label(original).unwrap();
            assert_eq!(label.is_exact(), is_exact, "{original}");
            for saved_as in [true, label.is_exact()] {
                let saved = Label::saved(&label, saved_as).unwrap();
                assert_eq!(saved.is_exact(), is_exact, "{original}");
                assert_eq!(*saved, *label);
            }
        }
        assert!(!Label::saved("ci", false).unwrap().is_exact());
        assert_eq!(cleaner.label(""), None);
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
