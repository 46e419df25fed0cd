//! The forms in which text may contain a secret: plain, escaped, or encoded. Each form consists of
//! its visible ASCII characters and their positions in the shown text.

use std::ops::Range;

use crate::domain::text::secrets::{PART, Secrets, WHOLE_MIN};
use crate::redaction;

/// How often text is decoded: percent-encoded base64 is found, and one more level of encoding is
/// not worth the time.
const DEPTH_MAX: u8 = 2;

/// A form of a text.
#[derive(Debug, Default)]
pub(super) struct View {
    visible: Vec<u8>,
    /// The bytes of the text that each character represents.
    at: Vec<Range<usize>>,
}

/// A range to be redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: Range<usize>,
    /// Whether adjacent text of the same word has the same encoding.
    pub(super) is_encoded: bool,
}

impl View {
    /// The text itself. Fullwidth characters count as the ASCII characters that they look like.
    pub(super) fn of(text: &str) -> Self {
        let mut view = Self::default();
        for (start, c) in text.char_indices() {
            let looks = match c {
                '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
                _ => c,
            };
            if looks.is_ascii_graphic() {
                view.push(looks as u8, start..start + c.len_utf8());
            }
        }
        view
    }

    /// Calls `found` with every range that contains a secret, in any form.
    pub(super) fn find(&self, secrets: &Secrets, found: &mut dyn FnMut(Found)) {
        self.find_at(secrets, 0, found);
    }

    fn find_at(&self, secrets: &Secrets, depth: u8, found: &mut dyn FnMut(Found)) {
        let mut report = |start: usize, len: usize| {
            let first = self.at.get(start).map(|at| at.start);
            let last = self.at.get(start + len - 1).map(|at| at.end);
            if let Some((start, end)) = first.zip(last) {
                let is_encoded = depth > 0;
                found(Found {
                    at: start..end,
                    is_encoded,
                });
            }
        };
        secrets.find(&self.visible, &mut report);
        // At depth 0 the caller redacts keys, because the blanks between words are missing here.
        if depth > 0
            && let Ok(text) = std::str::from_utf8(&self.visible)
        {
            for key in redaction::keys(text) {
                report(key.start, key.len());
            }
        }
        if depth == DEPTH_MAX {
            return;
        }
        let smallest = if secrets.has_short() { WHOLE_MIN } else { PART };
        let mut look_into = |view: &Self| {
            if view.visible.len() >= WHOLE_MIN {
                view.find_at(secrets, depth + 1, found);
            }
        };
        for view in [
            self.unescaped(),
            self.without_backslashes(),
            self.joined_pairs(),
        ] {
            look_into(&view.unwrap_or_default());
        }
        for run in self.runs(|byte| byte.is_ascii_hexdigit(), smallest * 2) {
            for phase in 0..2 {
                look_into(&self.decoded(run.start + phase..run.end, &HEX));
            }
        }
        // For the shortest secret in base64, the characters that do not depend on the surrounding
        // text.
        for run in self.runs(|byte| sextet(byte).is_some(), smallest * 4 / 3 - 1) {
            for phase in 0..4 {
                look_into(&self.decoded(run.start + phase..run.end, &BASE64));
            }
        }
    }

    fn push(&mut self, byte: u8, at: Range<usize>) {
        self.visible.push(byte);
        self.at.push(at);
    }

    /// Runs of at least `len` characters of one kind.
    fn runs(&self, is_of_kind: fn(u8) -> bool, len: usize) -> Vec<Range<usize>> {
        let mut runs = Vec::new();
        let mut start = 0;
        for part in self.visible.split(|byte| !is_of_kind(*byte)) {
            if part.len() >= len {
                runs.push(start..start + part.len());
            }
            start += part.len() + 1;
        }
        runs
    }

    fn decoded(&self, run: Range<usize>, code: &Code) -> Self {
        let mut view = Self::default();
        let bytes = self.visible.get(run.clone()).unwrap_or_default();
        let (mut bits, mut len) = (0_u32, 0);
        let mut began = run.start;
        for (number, byte) in bytes.iter().enumerate() {
            let Some(digit) = (code.digit)(*byte) else {
                continue;
            };
            if len == 0 {
                began = run.start + number;
            }
            bits = bits << code.bits | u32::from(digit);
            len += code.bits;
            if len >= 8 {
                len -= 8;
                let byte = (bits >> len & 0xff) as u8;
                let from = self.at.get(began).map(|at| at.start);
                let to = self.at.get(run.start + number).map(|at| at.end);
                if byte.is_ascii_graphic()
                    && let Some((from, to)) = from.zip(to)
                {
                    view.push(byte, from..to);
                } else if !byte.is_ascii() {
                    // Text in another encoding, or not text at all: a part cannot continue after
                    // it.
                    view.push(0, from.unwrap_or(0)..to.unwrap_or(0));
                }
                began = run.start + number;
            }
        }
        view
    }

    /// The view without backslashes that may only appear to start an escape; `None` if there are
    /// none.
    fn without_backslashes(&self) -> Option<Self> {
        memchr::memchr(b'\\', &self.visible)?;
        let mut view = Self::default();
        for (byte, at) in self.visible.iter().zip(&self.at) {
            if *byte != b'\\' {
                view.push(*byte, at.clone());
            }
        }
        Some(view)
    }

    /// The pairs of hexadecimal digits that separators or `0x` keep apart, as in `73:6b` and
    /// `0x73,0x6b`, joined; a NUL for each text between them. `None` if there are too few.
    fn joined_pairs(&self) -> Option<Self> {
        if !has_pairs(&self.visible) {
            return None;
        }
        let mut view = Self::default();
        let mut at = 0;
        while let Some(first) = self.visible.get(at) {
            let rest = self.visible.get(at..).unwrap_or_default();
            let is_prefixed = rest.starts_with(b"0x") || rest.starts_with(b"0X");
            let pair_at = if is_prefixed { 2 } else { 0 };
            let pair = rest.get(pair_at..pair_at + 2);
            let pair = pair.filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
            let len = if pair.is_some() { pair_at + 2 } else { 1 };
            if pair.is_some() || !is_between_pairs(*first) {
                let places = self.at.get(at..at + len).unwrap_or_default();
                let range = places.first().zip(places.last());
                let range = range.map_or(0..0, |(first, last)| first.start..last.end);
                for byte in pair.unwrap_or(b"\0") {
                    view.push(*byte, range.clone());
                }
            }
            at += len;
        }
        Some(view)
    }

    /// The view with `%2e`, `\u002e`, `\u{2e}`, `\x2e`, `\056`, `&#46;` and `&#x2e;` decoded and
    /// other backslashes dropped; `None` if there are none.
    fn unescaped(&self) -> Option<Self> {
        memchr::memchr3(b'%', b'\\', b'&', &self.visible)?;
        let mut view = Self::default();
        let mut rest = &*self.visible;
        let mut at = 0;
        while let Some(first) = rest.first() {
            let (byte, len) = escape(rest).unwrap_or((Some(*first), 1));
            let from = self.at.get(at).map(|at| at.start);
            let to = self.at.get(at + len - 1).map(|at| at.end);
            if let (Some(byte), Some((from, to))) = (byte, from.zip(to))
                && byte.is_ascii_graphic()
            {
                view.push(byte, from..to);
            }
            at += len;
            rest = rest.get(len..).unwrap_or_default();
        }
        Some(view)
    }
}

/// The escape that `text` starts with: the byte that it represents, if it is ASCII, and its length.
fn escape(text: &[u8]) -> Option<(Option<u8>, usize)> {
    let number = |from: usize, len: usize, radix: u32| {
        let digits = std::str::from_utf8(text.get(from..from + len)?).ok()?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u32::from_str_radix(digits, radix).ok()?;
        is_number.then(|| u8::try_from(value).ok().filter(u8::is_ascii))
    };
    let entity = |from: usize, radix: u32| {
        // The largest code point has seven digits.
        let digits = text.get(from..)?.iter().take(8);
        let len = digits.take_while(|byte| byte.is_ascii_hexdigit()).count();
        let byte = number(from, len, radix)?;
        let has_end = text.get(from + len) == Some(&b';');
        Some((byte, from + len + usize::from(has_end)))
    };
    match text {
        [b'%', ..] => Some((number(1, 2, 16)?, 3)),
        [b'&', b'#', b'x' | b'X', ..] => entity(3, 16),
        [b'&', b'#', ..] => entity(2, 10),
        [b'\\', b'u', b'{', ..] => {
            let digits = text.get(3..)?.iter().take(7);
            let len = digits.take_while(|byte| **byte != b'}').count();
            number(3, len, 16)
                .map(|byte| (byte, len + 4))
                .or(Some((None, 1)))
        }
        [b'\\', b'0'..=b'3', b'0'..=b'7', b'0'..=b'7', ..] => Some((number(1, 3, 8)?, 4)),
        [b'\\', b'u' | b'U', ..] => number(2, 4, 16).map(|byte| (byte, 6)).or(Some((None, 1))),
        [b'\\', b'x' | b'X', ..] => number(2, 2, 16).map(|byte| (byte, 4)).or(Some((None, 1))),
        // Line breaks and tabs.
        [b'\\', b'n' | b'r' | b't', ..] => Some((None, 2)),
        [b'\\', ..] => Some((None, 1)),
        _ => None,
    }
}

/// Whether `byte` may be between two bytes in a hexadecimal dump, as in `73:6b`, `x73`, `73h` or
/// `U+0073`. Blanks are not visible.
fn is_between_pairs(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() || matches!(byte, b'x' | b'X' | b'h' | b'H' | b'u' | b'U')
}

/// Whether visible ASCII may contain a part as a hexadecimal dump: groups of one or two bytes. A
/// UUID has larger groups, and is far too common to be decoded each time.
fn has_pairs(visible: &[u8]) -> bool {
    let (mut group, mut digits) = (0, 0);
    for byte in visible {
        if byte.is_ascii_hexdigit() {
            group += 1;
        } else if is_between_pairs(*byte) {
            // The 0 of `0x` is not part of a byte.
            let is_marker = matches!(byte, b'x' | b'X') && group % 2 == 1;
            match group - usize::from(is_marker) {
                len @ (0 | 2 | 4) => digits += len,
                _ => digits = 0,
            }
            group = 0;
        } else {
            (group, digits) = (0, 0);
        }
        // The last group has no separator.
        if digits >= 2 * (PART - 2) {
            return true;
        }
    }
    false
}

/// An encoding of bytes as text.
struct Code {
    bits: u32,
    digit: fn(u8) -> Option<u8>,
}

const HEX: Code = Code {
    bits: 4,
    digit: |byte| {
        (byte as char)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    },
};

const BASE64: Code = Code {
    bits: 6,
    digit: sextet,
};

/// The value of a base64 digit, in the standard and the URL-safe alphabet.
const fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Characters of base64 that are the same in every encoding of a part, regardless of its context.
const BASE64_LEN_MIN: usize = PART * 4 / 3 - 1;

/// Whether visible ASCII may contain a part of visible ASCII in base64 or hexadecimal digits. Fast;
/// a negative result is exact.
pub(super) fn may_be_encoded(visible: &[u8]) -> bool {
    if visible.len() < BASE64_LEN_MIN {
        return false;
    }
    // A bit for each of the last characters: whether it can be the first, second or third of four
    // that encode three bytes from 0x20 to 0x7f; and whether such a group began two characters
    // before.
    let (mut first, mut second, mut groups) = (0_u32, 0_u32, 0_u32);
    let mut hex_digits = 0;
    for byte in visible {
        let class = CLASSES.get(usize::from(*byte)).copied().unwrap_or_default();
        let third = u32::from(class >> 2 & 1);
        groups = groups << 1 | (first >> 1 & second & third);
        first = first << 1 | u32::from(class & 1);
        second = second << 1 | u32::from(class >> 1 & 1);
        hex_digits = if class & HEX_DIGIT == 0 {
            0
        } else {
            hex_digits + 1
        };
        // A part contains more than three such groups, at any alignment.
        if groups & groups >> 4 & groups >> 8 & 1 == 1 || hex_digits >= PART * 2 {
            return true;
        }
    }
    has_pairs(visible)
}

const HEX_DIGIT: u8 = 8;

/// The roles that each byte can have in an encoding.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it")]
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let mut class = if byte.is_ascii_hexdigit() {
            HEX_DIGIT
        } else {
            0
        };
        if let Some(sextet) = sextet(byte) {
            // The upper six bits of the first byte; the upper four bits of the second one; the
            // upper two bits of the third one.
            class |= (sextet >= 0x20 >> 2 && sextet <= 0x7f >> 2) as u8;
            class |= ((sextet & 15 >= 0x20 >> 4 && sextet & 15 <= 0x7f >> 4) as u8) << 1;
            class |= ((sextet & 3 <= 0x7f >> 6) as u8) << 2;
        }
        classes[byte as usize] = class;
        byte += 1;
    }
    classes
};
