//! Cleans text that came from outside, for log lines and for metric labels.
//!
//! Whatever the API says may hold line breaks, terminal escapes, text that reverses the reader's
//! direction, or a secret. Nothing from outside is shown before it has passed through here.

use std::borrow::Cow;
use std::fmt;

/// What stands in the place of something that looks like a secret.
pub const REDACTED: &str = "[redacted]";

/// Longest upstream text in one log field, in characters: a sentence or two, so that ten fields
/// still make a line that log systems take whole.
pub const LINE_CHARS_MAX: usize = 200;

/// Longest metric label taken from the API, in characters. BitGPT's own labels end at 255.
pub const LABEL_CHARS_MAX: usize = 255;

/// Longest support id, in characters. A documented one (`support_<uuidv7>`) has 44; 64 leaves room
/// and keeps an exemplar under OpenMetrics' limit of 128.
const SUPPORT_ID_CHARS_MAX: usize = 64;

/// What announces an API key. Nothing that people write starts so by chance.
const KEY_PREFIXES: [&str; 2] = ["sk_live_", "sk_test_"];

/// What announces the secret that signs webhooks, and a word or two in ordinary names.
const WEBHOOK_PREFIX: &str = "whs_";

/// From this length on, what follows a prefix in the middle of a word is taken for a key if it
/// looks random: keys are far longer, and `task_live_monitoring` is none.
const RANDOM_CHARS_MIN: usize = 16;

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

/// Replaces everything in `text` that looks like a key by [`REDACTED`], masked keys included.
pub fn redact(text: &str) -> Cow<'_, str> {
    let Some((start, prefix_len)) = find_secret(text) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len());
    let (mut before, mut rest) = text.split_at(start);
    let mut prefix_len = prefix_len;
    loop {
        out.push_str(before);
        out.push_str(REDACTED);
        let (_, after_prefix) = rest.split_at(prefix_len);
        let after = after_prefix.trim_start_matches(belongs_to_secret);
        let Some((start, found_len)) = find_secret(after) else {
            out.push_str(after);
            return Cow::Owned(out);
        };
        (before, rest) = after.split_at(start);
        prefix_len = found_len;
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

/// Where the first secret starts, and how long the prefix is that announces it. Upper case counts
/// too.
fn find_secret(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut underscores = (1..bytes.len()).filter(|at| bytes.get(*at) == Some(&b'_'));
    underscores.find_map(|at| {
        // The letters before a prefix's first underscore: `sk`, `whs`.
        let letters = match bytes.get(at - 1)? {
            b'k' | b'K' => 2,
            b's' | b'S' => 3,
            _ => return None,
        };
        let (before, text) = text.split_at_checked(at.checked_sub(letters)?)?;
        let is_word_start = !before.ends_with(char::is_alphanumeric);
        Some((before.len(), secret_at(text, is_word_start)?.len()))
    })
}

/// The prefix of the secret that `text` starts with. At the start of a word the prefix of a key is
/// enough; elsewhere, and for the commoner prefix, what follows must look random.
fn secret_at(text: &str, is_word_start: bool) -> Option<&'static str> {
    let announced_by = |prefix: &'static str| {
        let (head, rest) = text.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some((prefix, rest))
    };
    let is_random = |rest: &str| {
        let run = rest
            .bytes()
            .take_while(|byte| belongs_to_secret(char::from(*byte)));
        let (mut len, mut has_digit, mut has_capital) = (0, false, false);
        for byte in run {
            len += 1;
            has_digit |= byte.is_ascii_digit();
            has_capital |= byte.is_ascii_uppercase();
        }
        len >= RANDOM_CHARS_MIN && (has_digit || has_capital)
    };
    if let Some((prefix, rest)) = KEY_PREFIXES.into_iter().find_map(announced_by) {
        let is_followed = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
        return ((is_word_start && is_followed) || is_random(rest)).then_some(prefix);
    }
    let (prefix, rest) = announced_by(WEBHOOK_PREFIX)?;
    is_random(rest).then_some(prefix)
}

fn belongs_to_secret(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '…' | '*' | '+' | '/' | '=')
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
    fn whatever_looks_like_a_key_is_redacted() {
        let cases = [
            ("no key", "no key"),
            ("bad key sk_live_abcDEF123", "bad key [redacted]"),
            (
                "sk_test_MDE5N2Mw...GdwdA, sk_live_x!",
                "[redacted], [redacted]!",
            ),
            ("SK_LIVE_ABC", "[redacted]"),
            ("é sk_live_aé", "é [redacted]é"),
            ("whs_c2VjcmV0IG9mIGEgd2ViaG9vaw", "[redacted]"),
            ("key=sk_live_a", "key=[redacted]"),
            ("support_sk_live_a", "support_[redacted]"),
            ("xsk_live_MDE5N2MwZWMtYTE5Ny03MTlm", "x[redacted]"),
            // Names that only look like it.
            (
                "task_live_monitoring_shop_berlin",
                "task_live_monitoring_shop_berlin",
            ),
            (
                "desk_test_environment_number_one",
                "desk_test_environment_number_one",
            ),
            (
                "the whs_queue_worker_is_paused",
                "the whs_queue_worker_is_paused",
            ),
            ("a word such as sk_live_…", "a word such as sk_live_…"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected, "{text:?}");
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
