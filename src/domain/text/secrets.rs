//! The secrets that response text must not repeat, stored so that any part of them is found fast.
//!
//! Comparison ignores case and everything that is not visible ASCII. A filter of all sequences of
//! [`GRAM`] characters rejects almost every text after a few look-ups; only what passes it is
//! compared with the secrets themselves.

use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

use secrecy::zeroize::Zeroizing;

use crate::redaction::without_prefix;

/// A part of a secret of this length must not be shown. Fewer characters match by chance and are of
/// no use to an attacker.
pub(super) const PART: usize = 12;

/// A secret shorter than [`PART`] is searched for as a whole from this length on; anything shorter
/// would match ordinary words.
pub(super) const WHOLE_MIN: usize = 8;

/// Characters of a sequence in the filter: half of a part, so that in any part one of every
/// [`STRIDE`] sequences is looked up.
const GRAM: usize = 6;

/// Sequences in a part, of which one is looked up.
const STRIDE: usize = PART - GRAM + 1;

/// A part has at least this many letters and digits, because `************` is not a secret.
const PART_ALPHANUMERIC_MIN: usize = 6;

/// Sizes of the filter in bits. The smallest suits a token of usual length; the largest takes 8 MiB
/// and suits a response of 32 MiB.
const FILTER_BITS: (usize, usize) = (1 << 12, 1 << 26);

/// Most parts that are compared exactly: 16 MiB. If a response has more, anything that passes the
/// filter is redacted.
const PARTS_MAX: usize = 1 << 21;

/// Separates secrets in the buffer; not visible ASCII, so that no secret contains it.
const SEPARATOR: u8 = 0;

/// Collects secrets to build a [`Cleaner`](super::Cleaner).
pub struct Secrets {
    /// All of them, normalized, each followed by [`SEPARATOR`].
    buffer: Zeroizing<Vec<u8>>,
    filter: Box<[u64]>,
    /// Bit `n` is set if a secret of `n` characters is searched for as a whole.
    whole_lengths: u16,
    parts: OnceLock<Option<HashSet<u64>>>,
}

impl Secrets {
    /// An empty set, with capacity for the secrets of a response of this many bytes.
    pub fn new(answer_bytes: usize) -> Self {
        // At least a bit for each character that may be part of a secret.
        let bits = answer_bytes.saturating_mul(2).next_power_of_two();
        let bits = bits.clamp(FILTER_BITS.0, FILTER_BITS.1);
        Self {
            buffer: Zeroizing::default(),
            filter: vec![0; bits / 64].into(),
            whole_lengths: 0,
            parts: OnceLock::new(),
        }
    }

    /// Adds a secret, whole or masked.
    pub fn add(&mut self, secret: &str) {
        let len = self.push(secret);
        if len < WHOLE_MIN {
            return;
        }
        // The part after the prefix shared by all keys of a provider is as sensitive as the whole.
        let body = without_prefix(secret);
        let body_len = if body.len() < secret.len() && body.len() < PART {
            self.push(body)
        } else {
            len
        };
        for len in [len, body_len] {
            if (WHOLE_MIN..PART).contains(&len) {
                self.whole_lengths |= 1 << len;
            }
        }
        self.parts = OnceLock::new();
    }

    fn push(&mut self, secret: &str) -> usize {
        let start = self.buffer.len();
        self.buffer.reserve(secret.len() + 1);
        let visible = secret.bytes().filter(u8::is_ascii_graphic);
        self.buffer.extend(visible.map(normalized));
        let added = self.buffer.get(start..).unwrap_or_default();
        for position in positions(added) {
            set(&mut self.filter, position);
        }
        let len = added.len();
        self.buffer.push(SEPARATOR);
        len
    }

    /// Whether sequences that cover almost all of `bytes`, its end included, are in the filter.
    fn has_grams(&self, bytes: &[u8]) -> bool {
        let last = bytes.len().checked_sub(GRAM).and_then(|at| bytes.get(at..));
        let mut grams = bytes.windows(GRAM).step_by(STRIDE).chain(last);
        grams.all(|gram| self.has(position(gram)))
    }

    /// Whether there are secrets shorter than a part, for which the filter is too coarse.
    pub(super) fn has_short(&self) -> bool {
        self.whole_lengths != 0
    }

    /// Whether `visible`, ASCII without blanks, may contain a part of a secret.
    pub(super) fn may_hold_part(&self, visible: &[u8]) -> bool {
        let grams = visible.windows(GRAM);
        let mut looked_up = grams.step_by(STRIDE).enumerate();
        looked_up.any(|(number, gram)| {
            self.has(position(gram)) && {
                // All sequences of a part are in the filter, not only this one.
                let at = number * STRIDE;
                let near = at.saturating_sub(STRIDE - 1)..(at + PART).min(visible.len());
                let near = visible.get(near).unwrap_or_default();
                let mut found = false;
                self.each_candidate(near, &mut |_| found = true);
                found
            }
        })
    }

    /// Calls `found` with the start and length of each part, or whole short secret, in `visible`.
    pub(super) fn find(&self, visible: &[u8], found: &mut dyn FnMut(usize, usize)) {
        self.each_candidate(visible, &mut |at| {
            let part = visible.get(at..at + PART).unwrap_or_default();
            let parts = self.parts();
            if parts.is_none_or(|parts| parts.contains(&hash(part))) {
                found(at, PART);
            }
        });
        for len in (WHOLE_MIN..PART).filter(|len| self.whole_lengths >> len & 1 == 1) {
            for (at, window) in visible.windows(len).enumerate() {
                if self.has_grams(window) && self.is_whole(window) {
                    found(at, len);
                }
            }
        }
    }

    fn is_whole(&self, window: &[u8]) -> bool {
        let mut secrets = self.buffer.split(|byte| *byte == SEPARATOR);
        secrets.any(|secret| {
            let window = window.iter().copied().map(normalized);
            secret.iter().copied().eq(window)
        })
    }

    fn each_candidate(&self, visible: &[u8], found: &mut dyn FnMut(usize)) {
        let mut consecutive = 0;
        for (at, position) in positions(visible).enumerate() {
            consecutive = if self.has(position) {
                consecutive + 1
            } else {
                0
            };
            if consecutive >= STRIDE {
                found(at + 1 - STRIDE);
            }
        }
    }

    /// Hashes of all parts; `None` if there are too many.
    fn parts(&self) -> Option<&HashSet<u64>> {
        let hashes = || {
            if self.buffer.len() > PARTS_MAX {
                return None;
            }
            let secrets = self.buffer.split(|byte| *byte == SEPARATOR);
            let parts = secrets.flat_map(|secret| secret.windows(PART));
            let is_telling = |part: &&[u8]| {
                let alphanumeric = part.iter().filter(|byte| byte.is_ascii_alphanumeric());
                alphanumeric.count() >= PART_ALPHANUMERIC_MIN
            };
            Some(parts.filter(is_telling).map(hash).collect())
        };
        self.parts.get_or_init(hashes).as_ref()
    }

    fn has(&self, position: u64) -> bool {
        let (word, bit) = place(&self.filter, position);
        self.filter
            .get(word)
            .is_some_and(|word| word >> bit & 1 == 1)
    }
}

/// Prints no part of a secret.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Upper case becomes lower case. A few other characters are merged too, which is harmless.
fn normalized(byte: u8) -> u8 {
    byte | 0x20
}

/// The position of a sequence in a filter of any size.
fn position(gram: &[u8]) -> u64 {
    spread(gram.iter().fold(0, |gram, byte| next(gram, *byte)))
}

/// Like [`position`], for all sequences of `bytes`.
fn positions(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let mut gram = 0;
    let grams = bytes.iter().map(move |byte| {
        gram = next(gram, *byte);
        gram
    });
    grams.skip(GRAM - 1).map(spread)
}

/// The sequence, as a number, that ends one character later.
fn next(gram: u64, byte: u8) -> u64 {
    gram >> 8 | u64::from(normalized(byte)) << (8 * (GRAM - 1))
}

/// The golden ratio: multiplication spreads similar sequences over the upper bits.
fn spread(gram: u64) -> u64 {
    gram.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn place(filter: &[u64], position: u64) -> (usize, u32) {
    // The number of words in the filter is a power of two and at least 64.
    let shift = 64 - filter.len().trailing_zeros() - 6;
    let bit = position >> shift;
    (
        usize::try_from(bit >> 6).unwrap_or_default(),
        (bit & 63) as u32,
    )
}

fn set(filter: &mut [u64], position: u64) {
    let (word, bit) = place(filter, position);
    if let Some(word) = filter.get_mut(word) {
        *word |= 1 << bit;
    }
}

/// Two parts have the same hash with a chance of one in 2^64.
fn hash(part: &[u8]) -> u64 {
    part.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        let mixed = (hash ^ u64::from(normalized(*byte))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}
