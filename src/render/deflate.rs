//! Compresses exposition text into blocks that can be strung together, and frames them as one gzip
//! member. Pure.
//!
//! A line of the exposition repeats the line before it but for the end of an id and a value. So a
//! line is written as what it shares with the line before, at its start and at its end, and the
//! characters in between: no search, no hash table, one pass, with the codes that the format fixes
//! (RFC 1951, 3.2.6). General compressors look for such matches and take many times as long.
//!
//! Each piece of text becomes a block that is not the last one, followed by an empty stored block,
//! which ends on a byte: whatever comes next starts afresh. Nothing points back over its start.

/// Longest and shortest match of the format, and how far back it may point (RFC 1951, 3.2.5).
const MATCH_MAX: usize = 258;
const MATCH_MIN: usize = 3;
const DISTANCE_MAX: usize = 32_768;

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
    // A third is what lines of long ids come to; the rest is grown into.
    let mut bits = Bits {
        out: Vec::with_capacity(text.len() / 3 + 16),
        held: 0,
        count: 0,
    };
    // Not the last block; fixed codes.
    bits.put(0b010, 3);
    let mut before: &[u8] = &[];
    let mut pending = Match {
        distance: 0,
        len: 0,
    };
    for line in text.split_inclusive(|byte| *byte == b'\n') {
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
    bits.put(END_OF_BLOCK.0, END_OF_BLOCK.1);
    bits.finish()
}

/// A match that may still grow.
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

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a
        .chunks_exact(8)
        .zip(b.chunks_exact(8))
        .take_while(|(a, b)| a == b)
        .count();
    let rest = a.iter().zip(b).skip(words * 8);
    words * 8 + rest.take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8], most: usize) -> usize {
    a.iter()
        .rev()
        .zip(b.iter().rev())
        .take(most)
        .take_while(|(a, b)| a == b)
        .count()
}

/// Bits written from the lowest of each byte on.
struct Bits {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    /// Takes up to 32 bits.
    fn put(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            let [b0, b1, b2, b3, ..] = self.held.to_le_bytes();
            self.out.extend_from_slice(&[b0, b1, b2, b3]);
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn literals(&mut self, text: &[u8]) {
        let (fours, rest) = text.as_chunks::<4>();
        for four in fours {
            if four.iter().all(u8::is_ascii) {
                // The codes of ASCII have eight bits each.
                let codes =
                    four.map(|byte| SHORT_LITERALS.get(usize::from(byte)).copied().unwrap_or(0));
                self.put(u32::from_le_bytes(codes), 32);
            } else {
                for byte in four {
                    self.literal(*byte);
                }
            }
        }
        for byte in rest {
            self.literal(*byte);
        }
    }

    fn literal(&mut self, byte: u8) {
        match SHORT_LITERALS.get(usize::from(byte)) {
            Some(code) => self.put(u32::from(*code), 8),
            None => self.put(reversed(0x190 + u32::from(byte) - 144, 9), 9),
        }
    }

    /// `len` bytes, 3 to 258, from `distance` back, 1 to 32,768.
    fn reference(&mut self, len: usize, distance: usize) {
        let (bits, count) = LENGTHS.get(len).copied().unwrap_or(END_OF_BLOCK);
        self.put(bits, count);
        let (bits, count) = distance_code(distance);
        self.put(bits, count);
    }

    /// Ends on a byte with an empty stored block.
    fn finish(mut self) -> Vec<u8> {
        self.put(0b000, 3);
        let padding = (8 - self.count % 8) % 8;
        self.put(0, padding);
        while self.count > 0 {
            self.out.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.count -= 8;
        }
        self.out.extend_from_slice(&[0x00, 0x00, 0xff, 0xff]);
        self.out
    }
}

/// The code of the symbol 256: seven zeros.
const END_OF_BLOCK: (u32, u32) = (0, 7);

/// The codes of the bytes below 144, ready to be written.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would complain"
)]
static SHORT_LITERALS: [u8; 144] = {
    let mut codes = [0; 144];
    let mut byte: u8 = 0;
    while byte < 144 {
        codes[byte as usize] = (0x30 + byte).reverse_bits();
        byte += 1;
    }
    codes
};

/// For each length, its code with its extra bits, and how many they are together.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would complain"
)]
static LENGTHS: [(u32, u32); MATCH_MAX + 1] = {
    let mut codes = [(0, 0); MATCH_MAX + 1];
    let (mut symbol, mut len) = (257, MATCH_MIN);
    while symbol < 285 {
        let extra = if symbol < 265 { 0 } else { (symbol - 261) / 4 };
        let (code, count) = symbol_code(symbol);
        let mut more = 0;
        while more < (1 << extra) && len < MATCH_MAX {
            codes[len] = (code | more << count, count + extra);
            len += 1;
            more += 1;
        }
        symbol += 1;
    }
    codes[MATCH_MAX] = symbol_code(285);
    codes
};

/// The code of a symbol from 256 on, ready to be written.
const fn symbol_code(symbol: u32) -> (u32, u32) {
    if symbol < 280 {
        (reversed(symbol - 256, 7), 7)
    } else {
        (reversed(0xc0 + symbol - 280, 8), 8)
    }
}

/// A distance's code with its extra bits.
fn distance_code(distance: usize) -> (u32, u32) {
    // Distances are at most 32,768, so nothing is lost.
    let less = u32::try_from(distance.saturating_sub(1)).unwrap_or(0);
    if less < 4 {
        return (reversed(less, 5), 5);
    }
    let top = less.ilog2();
    let extra = top - 1;
    let code = 2 * top + (less >> extra & 1);
    (
        reversed(code, 5) | (less & ((1 << extra) - 1)) << 5,
        5 + extra,
    )
}

/// Codes are written from their highest bit on.
const fn reversed(code: u32, count: u32) -> u32 {
    code.reverse_bits() >> (32 - count)
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
    fn similar_lines_become_small() {
        let text = lines(10_000);
        let small = deflate(&text).len();
        assert!(small * 2 < text.len(), "{small} of {}", text.len());
    }
}
