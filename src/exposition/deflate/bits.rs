//! Deflate's bit stream: blocks, literals and matches in the codes that the format fixes
//! (RFC 1951, 3.2.6). Pure.

/// Longest and shortest match of the format, and how far back it may point (RFC 1951, 3.2.5).
pub(super) const MATCH_MAX: usize = 258;
pub(super) const MATCH_MIN: usize = 3;
pub(super) const DISTANCE_MAX: usize = 32_768;

/// Bits written from the lowest of each byte on.
#[derive(Default)]
pub(super) struct Bits {
    out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    /// None yet, with room for `len` bytes.
    pub(super) fn with_capacity(len: usize) -> Self {
        Self {
            out: Vec::with_capacity(len),
            ..Self::default()
        }
    }

    /// Starts a block with the codes that the format fixes; not the last one.
    pub(super) fn start_block(&mut self) {
        self.put(0b010_u32, 3);
    }

    /// Ends a block.
    pub(super) fn end_block(&mut self) {
        self.put(END_OF_BLOCK.0, END_OF_BLOCK.1);
    }

    /// Whole bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// The bytes; call it on the end of one.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Takes up to 32 bits.
    fn put(&mut self, bits: impl Into<u64>, count: u32) {
        self.held |= bits.into() << self.count;
        self.count += count;
        if self.count >= 32 {
            let [b0, b1, b2, b3, ..] = self.held.to_le_bytes();
            self.out.extend_from_slice(&[b0, b1, b2, b3]);
            self.held >>= 32;
            self.count -= 32;
        }
    }

    pub(super) fn literals(&mut self, text: &[u8]) {
        let (words, rest) = text.as_chunks();
        for word in words {
            if word.is_ascii() {
                self.put_word(ascii_codes(*word));
            } else {
                for byte in word {
                    self.literal(*byte);
                }
            }
        }
        for byte in rest {
            self.literal(*byte);
        }
    }

    /// 64 bits: as many stay held as before.
    fn put_word(&mut self, bits: u64) {
        let bytes = (self.held | bits << self.count).to_le_bytes();
        self.out.extend_from_slice(&bytes);
        self.held = bits.checked_shr(64 - self.count).unwrap_or(0);
    }

    fn literal(&mut self, byte: u8) {
        let byte = u32::from(byte);
        if byte < 144 {
            self.put(reversed(0x30 + byte, 8), 8);
        } else {
            self.put(reversed(0x190 + byte - 144, 9), 9);
        }
    }

    /// `len` bytes, 3 to 258, from `distance` back, 1 to 32,768.
    pub(super) fn reference(&mut self, len: usize, distance: usize) {
        let (bits, count) = LENGTHS.get(len).copied().unwrap_or(END_OF_BLOCK);
        self.put(bits, count);
        let (bits, count) = distance_code(distance);
        self.put(bits, count);
    }

    /// A block of `parts` as they are, at most 65,535 bytes; ends on a byte. Not the last block.
    pub(super) fn stored(&mut self, parts: &[&[u8]]) {
        self.put(0b000_u32, 3);
        let padding = (8 - self.count % 8) % 8;
        self.put(0_u32, padding);
        while self.count > 0 {
            self.out.push(self.held.to_le_bytes()[0]);
            self.held >>= 8;
            self.count -= 8;
        }
        let len: usize = parts.iter().map(|part| part.len()).sum();
        // No value is as long as that.
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&len.to_le_bytes());
        self.out.extend_from_slice(&(!len).to_le_bytes());
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }
}

/// The codes of eight ASCII bytes: each is 0x30 more than its byte, has eight bits, and is written
/// from its highest bit on.
fn ascii_codes(bytes: [u8; 8]) -> u64 {
    let codes = u64::from_le_bytes(bytes) + 0x3030_3030_3030_3030;
    // Turns round the bits of each byte.
    codes.reverse_bits().swap_bytes()
}

/// The code of the symbol 256: seven zeros.
const END_OF_BLOCK: (u32, u32) = (0, 7);

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
