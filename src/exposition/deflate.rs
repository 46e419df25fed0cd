//! Compresses exposition text into blocks that can be strung together, and frames them as one gzip
//! member. Pure.
//!
//! A line of the exposition repeats the line before it but for the end of an id and a value. So a
//! line is written as what it shares with the line before, at its start and at its end, and the
//! characters in between: no search, no hash table, one pass, with the codes that the format fixes.
//! General compressors look for such matches and take many times as long.
//!
//! Each piece of text becomes a block that is not the last one, followed by an empty stored block,
//! which ends on a byte: whatever comes next starts afresh. Nothing points back over its start.

mod bits;

use crate::exposition::deflate::bits::{Bits, DISTANCE_MAX, MATCH_MAX, MATCH_MIN};

/// What every gzip file starts with: deflate, no name, no time, no system (RFC 1952, 2.3).
pub(super) const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The last block, without content; then checksum and length of the whole text.
pub(super) fn gzip_trailer(crc: u32, len: u64) -> [u8; 10] {
    let [c0, c1, c2, c3] = crc.to_le_bytes();
    // The format keeps the length modulo 2^32.
    let [l0, l1, l2, l3, ..] = len.to_le_bytes();
    [0x03, 0x00, c0, c1, c2, c3, l0, l1, l2, l3]
}

/// `text` as deflate blocks that end on a byte and are not the last. Nothing for nothing.
pub(super) fn deflate(text: &[u8]) -> Vec<u8> {
    if text.is_empty() {
        return Vec::new();
    }
    // Lines of long ids come to a third; half is room for nearly all, and the rest grows into it.
    let mut bits = Bits::with_capacity(text.len() / 2 + 16);
    bits.start_block();
    let mut before: &[u8] = &[];
    let mut pending = Match::default();
    let mut rest = text;
    while !rest.is_empty() {
        let line_len = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line;
        (line, rest) = rest.split_at(line_len);
        let (mut start, mut end) = (0, line.len());
        if (1..=DISTANCE_MAX).contains(&before.len()) && line.len() <= DISTANCE_MAX {
            let prefix = common_prefix(line, before);
            if prefix >= MATCH_MIN || pending.takes(before.len()) {
                pending.extend(prefix, before.len(), &mut bits);
                start = prefix;
            }
            let most = line.len().min(before.len()) - start;
            let suffix = common_suffix(line, before, most);
            if suffix >= MATCH_MIN {
                end -= suffix;
            }
        }
        let (head, suffix) = line.split_at(end);
        let (_, between) = head.split_at(start);
        if !between.is_empty() {
            pending.flush(&mut bits);
            bits.literals(between);
        }
        // The end of this line and the start of the next lie equally far behind: one match.
        if !suffix.is_empty() {
            pending.extend(suffix.len(), line.len(), &mut bits);
        }
        before = line;
    }
    pending.flush(&mut bits);
    bits.end_block();
    bits.stored(&[]);
    bits.into_bytes()
}

/// Lines that each end in a value. The values stand in the compressed text as they are, so that
/// whoever changes a digit in the text may change the same byte here.
#[derive(Default)]
pub(super) struct ValueLines {
    bits: Bits,
    /// What stands before the last line's value, and the whole line's length.
    before: Vec<u8>,
    before_len: usize,
}

impl ValueLines {
    /// Adds a line: what stands before its value, and the value. Tells how many compressed bytes
    /// stand between the end of the line before and the value.
    pub(super) fn push(&mut self, head: &[u8], value: &[u8]) -> u32 {
        let start = self.bits.len();
        self.bits.start_block();
        let mut rest = head;
        let prefix = common_prefix(head, &self.before);
        if prefix >= MATCH_MIN && self.before_len <= DISTANCE_MAX {
            let mut found = Match::default();
            found.extend(prefix, self.before_len, &mut self.bits);
            found.flush(&mut self.bits);
            (_, rest) = head.split_at(prefix);
        }
        self.bits.literals(rest);
        self.bits.end_block();
        self.before.clear();
        self.before.extend_from_slice(head);
        self.before_len = head.len() + value.len() + 1;
        self.bits.stored(&[value, b"\n"]);
        let head_len = self.bits.len() - start - value.len() - 1;
        u32::try_from(head_len).unwrap_or(u32::MAX)
    }

    /// All lines, ending on a byte.
    pub(super) fn finish(self) -> Vec<u8> {
        self.bits.into_bytes()
    }
}

/// A match that may still grow.
#[derive(Default)]
struct Match {
    distance: usize,
    len: usize,
}

impl Match {
    fn takes(&self, distance: usize) -> bool {
        self.len > 0 && self.distance == distance
    }

    fn extend(&mut self, len: usize, distance: usize, bits: &mut Bits) {
        if !self.takes(distance) {
            self.flush(bits);
        }
        self.distance = distance;
        self.len += len;
    }

    fn flush(&mut self, bits: &mut Bits) {
        while self.len > 0 {
            // A rest shorter than the shortest match could not be written.
            let len = match self.len {
                len @ 0..=MATCH_MAX => len,
                len if len < MATCH_MAX + MATCH_MIN => len - MATCH_MIN,
                _ => MATCH_MAX,
            };
            bits.reference(len, self.distance);
            self.len -= len;
        }
    }
}

/// Eight bytes are compared at a time: of two words, the lowest bit that differs tells the byte.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let mut len = 0;
    for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return len + differing.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = a.iter().zip(b).skip(len);
    len + rest.take_while(|(a, b)| a == b).count()
}

/// As [`common_prefix`], from the end; `most` is at most the shorter one's length.
fn common_suffix(a: &[u8], b: &[u8], most: usize) -> usize {
    let (a, b) = (a.split_at(a.len() - most).1, b.split_at(b.len() - most).1);
    let mut len = 0;
    for (a, b) in a
        .as_rchunks()
        .1
        .iter()
        .rev()
        .zip(b.as_rchunks().1.iter().rev())
    {
        let differing = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differing != 0 {
            return len + differing.leading_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = a.iter().rev().zip(b.iter().rev()).skip(len);
    len + rest.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What an independent reader makes of `pieces`, framed as a gzip file.
    fn gunzip(pieces: &[&[u8]]) -> Vec<u8> {
        let text = pieces.concat();
        let mut file = GZIP_HEADER.to_vec();
        for piece in pieces {
            file.extend(deflate(piece));
        }
        file.extend(gzip_trailer(crc32fast::hash(&text), text.len() as u64));
        let mut reader = flate2::bufread::GzDecoder::new(file.as_slice());
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!(
            reader.into_inner().len(),
            0,
            "one member and nothing after it"
        );
        out
    }

    fn lines(count: usize) -> Vec<u8> {
        let line = |n: usize| {
            format!(
                "api_key_metric{{account=\"a\",key_id=\"api_key_{:08x}-{n}\"}} {}\n",
                n * 2_654_435_761,
                n % 7
            )
        };
        (0..count).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn any_text_comes_back() {
        let all_bytes: Vec<u8> = (0..=255).collect();
        let long = [vec![b'a'; 70_000], b"\n".to_vec(), vec![b'a'; 70_000]].concat();
        let cases: [&[u8]; 12] = [
            b"",
            b"\n",
            b"a",
            b"\n\n\n\n",
            b"abc\nabc\nabc\nabd\nab\nabc\n",
            b"a\nba\nba\nca\n",
            b"aaaa\naaaaa\naaa\na\naaaaaaaaaaaaa\n",
            &all_bytes,
            &long,
            &lines(1_000),
            &[vec![b'x'; 300], b"\n".to_vec()].concat().repeat(3),
            "é\u{fffd}\u{10ffff}\né\u{fffd}\n".as_bytes(),
        ];
        for text in cases {
            assert!(
                gunzip(&[text]) == text,
                "{:?}",
                String::from_utf8_lossy(&text[..text.len().min(60)])
            );
        }
        assert!(gunzip(&cases) == cases.concat());
    }

    #[test]
    fn every_length_and_distance_comes_back() {
        for len in 0..600 {
            let line = [vec![b'q'; len], b"\n".to_vec()].concat();
            let text = [line.clone(), line.clone(), b"z".to_vec(), line].concat();
            assert!(gunzip(&[&text]) == text, "{len}");
        }
        for len in (1..32_800).step_by(97).chain(32_760..32_775) {
            let first: Vec<u8> = (0..len)
                .map(|n| b'a' + u8::try_from(n * n % 23).unwrap())
                .collect();
            let text = [&first[..], b"\n", &first[..], b"!\n"].concat();
            assert!(gunzip(&[&text]) == text, "{len}");
        }
    }

    #[test]
    fn random_lines_come_back() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let len = random.usize(..400);
            let text: Vec<u8> = (0..len)
                .map(|_| *random.choice(b"aab\n".iter()).unwrap())
                .collect();
            assert!(
                gunzip(&[&text]) == text,
                "{:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    #[test]
    fn lines_with_values_come_back_and_their_values_stand_where_they_are_said_to() {
        let heads: [&[u8]; 8] = [
            b"",
            b"a{b=\"1\"} ",
            b"a{b=\"2\"} ",
            "é".as_bytes(),
            &[b'x'; 600],
            &[b'x'; 601],
            &b"y".repeat(40_000),
            &b"y".repeat(40_001),
        ];
        let (mut text, mut values, mut lines) = (Vec::new(), Vec::new(), ValueLines::default());
        let mut at = 0;
        for (number, head) in heads.iter().cycle().take(40).enumerate() {
            let value = (number * number * 777).to_string().into_bytes();
            text.extend([head, value.as_slice(), b"\n"].concat());
            at += lines.push(head, &value) as usize;
            values.push((at, value.clone()));
            at += value.len() + 1;
        }
        let deflated = lines.finish();
        for (at, value) in values {
            assert_eq!(deflated[at..at + value.len()], value);
        }
        let file = [&GZIP_HEADER, &deflated[..]].concat();
        let trailer = gzip_trailer(crc32fast::hash(&text), text.len() as u64);
        let file = [&file[..], &trailer].concat();
        let mut out = Vec::new();
        let mut reader = flate2::bufread::GzDecoder::new(file.as_slice());
        reader.read_to_end(&mut out).unwrap();
        assert!(out == text);
    }

    #[test]
    fn similar_lines_become_small() {
        let text = lines(10_000);
        let small = deflate(&text).len();
        assert!(small * 2 < text.len(), "{small} of {}", text.len());
    }
}
