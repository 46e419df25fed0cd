//! A chunk of the exposition, ready to be sent plain or compressed, and bodies listed from chunks.
//! Pure.
//!
//! Chunks are shared: a body is a list of references to them, and rendered text is never copied or
//! compressed again for a scrape.

use bytes::Bytes;

use crate::exposition::compression::{self, Compressor, Encoding, STORED_BYTES_MAX};

/// Chunks up to this many bytes are merged by copying: below this size, sending a chunk costs more
/// than copying it. The kernel accepts some 16 KiB about as fast as one byte.
const SMALL_BYTES: usize = 16 * 1024;

/// From this many bytes on, a chunk gets pages of its own. Allocators may keep freed memory; pages
/// return to the system when the last reader drops them, so that polls cause no fragmentation.
const LARGE_BYTES: usize = 32 * 1024;

/// A list with at most this much text is compressed as a whole: the block ends of its chunks would
/// cost more bytes than compressing it again costs time, a millisecond at most.
const COMPACT_BYTES: usize = 64 * 1024;

/// The header of each stored block of a text except the last; it needs no allocation.
static FULL_BLOCK_HEADER: [u8; 5] = compression::stored_header(u16::MAX);

/// Text with its compressed form and its checksum.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    text: Bytes,
    deflated: Bytes,
    crc: crc32fast::Hasher,
}

/// Text that is sent uncompressed in either encoding, with its checksum.
#[derive(Debug, Default)]
pub(super) struct StoredChunk {
    text: Bytes,
    crc: crc32fast::Hasher,
}

/// A sequence of chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct ChunkList {
    text: Segments,
    deflated: Segments,
    crc: crc32fast::Hasher,
    len: u64,
}

/// A sequence of byte strings; small neighbours are merged.
#[derive(Clone, Debug, Default)]
struct Segments {
    done: Vec<Bytes>,
    /// Neighbours to be merged, and their total length.
    open: Vec<Bytes>,
    open_len: usize,
}

impl Chunk {
    pub(super) fn new(text: &[u8], compressor: &mut Compressor) -> Self {
        Self {
            deflated: kept(compressor.compress(text)),
            text: kept(text),
            crc: hasher(text),
        }
    }

    pub(super) fn text(&self) -> &Bytes {
        &self.text
    }

    pub(super) fn checksum(&self) -> u32 {
        self.crc.clone().finalize()
    }
}

impl StoredChunk {
    pub(super) fn new(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let crc = hasher(&text);
        Self { text, crc }
    }

    pub(super) fn into_text(self) -> Bytes {
        self.text
    }
}

impl ChunkList {
    pub(super) fn push(&mut self, chunk: &Chunk) {
        self.text.push(&chunk.text);
        self.deflated.push(&chunk.deflated);
        self.count(&chunk.text, &chunk.crc);
    }

    /// Adds text as stored blocks; long text is not copied.
    pub(super) fn push_stored(&mut self, chunk: &StoredChunk) {
        let mut rest = chunk.text.clone();
        while !rest.is_empty() {
            let block = rest.split_to(rest.len().min(STORED_BYTES_MAX));
            let header = match u16::try_from(block.len()) {
                Ok(len) if len < u16::MAX => {
                    Bytes::copy_from_slice(&compression::stored_header(len))
                }
                _ => Bytes::from_static(&FULL_BLOCK_HEADER),
            };
            self.deflated.push(&header);
            self.deflated.push(&block);
        }
        self.text.push(&chunk.text);
        self.count(&chunk.text, &chunk.crc);
    }

    /// Makes the whole list shareable, as one chunk if it is short, and leaves an empty list
    /// behind.
    pub(super) fn take(&mut self, compressor: &mut Option<Compressor>) -> Self {
        let mut list = std::mem::take(self);
        let is_short = list.len <= COMPACT_BYTES as u64;
        if is_short && list.text.done.len() + list.text.open.len() > 1 {
            let all = list.text.done.iter().chain(&list.text.open);
            let text = all.map(|bytes| &**bytes).collect::<Vec<_>>().concat();
            list = Self::default();
            let compressor = compressor.get_or_insert_with(Compressor::new);
            list.push(&Chunk::new(&text, compressor));
        }
        list.text.close();
        list.deflated.close();
        list
    }

    /// Adds a list that was taken, without copying it.
    pub(super) fn append(&mut self, other: &Self) {
        self.text.append(&other.text);
        self.deflated.append(&other.deflated);
        self.crc.combine(&other.crc);
        self.len += other.len;
    }

    /// The whole list as a body: the text, or one gzip member of it.
    pub(super) fn into_body(mut self, encoding: Encoding) -> Vec<Bytes> {
        let mut segments = match encoding {
            Encoding::Identity => self.text,
            Encoding::Gzip => {
                let trailer = compression::gzip_trailer(self.crc.finalize(), self.len);
                self.deflated.push(&Bytes::copy_from_slice(&trailer));
                let header = Bytes::from_static(&compression::GZIP_HEADER);
                self.deflated.done.insert(0, header);
                self.deflated
            }
        };
        segments.close();
        segments.done
    }

    fn count(&mut self, text: &Bytes, crc: &crc32fast::Hasher) {
        // Combining two checksums takes as long as computing one over a few thousand bytes.
        if text.len() <= SMALL_BYTES {
            self.crc.update(text);
        } else {
            self.crc.combine(crc);
        }
        self.len += text.len() as u64;
    }
}

impl Segments {
    fn push(&mut self, bytes: &Bytes) {
        if bytes.is_empty() {
            return;
        }
        if self.open_len + bytes.len() > SMALL_BYTES {
            self.close();
        }
        self.open.push(bytes.clone());
        self.open_len += bytes.len();
    }

    fn append(&mut self, other: &Self) {
        self.close();
        self.done.extend_from_slice(&other.done);
    }

    fn close(&mut self) {
        match self.open.as_slice() {
            [] => return,
            [one] => self.done.push(one.clone()),
            many => self.done.push(kept(&many.concat())),
        }
        self.open.clear();
        self.open_len = 0;
    }
}

fn hasher(text: &[u8]) -> crc32fast::Hasher {
    let mut crc = crc32fast::Hasher::new();
    crc.update(text);
    crc
}

/// A long-lived copy of `bytes`, no larger than necessary, that can be shared without a further
/// allocation.
fn kept(bytes: &[u8]) -> Bytes {
    if bytes.len() >= LARGE_BYTES
        && let Ok(mut pages) = memmap2::MmapMut::map_anon(bytes.len())
    {
        pages.copy_from_slice(bytes);
        return Bytes::from_owner(pages);
    }
    Bytes::from_owner(Box::<[u8]>::from(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_list_is_the_same_text_plain_and_as_one_gzip_member() {
        let texts = [
            "",
            "a 1\na 2\n",
            &"b{x=\"y\"} 3\n".repeat(50_000),
            "",
            "c\n",
            "d\n",
        ];
        let mut compressor = Compressor::new();
        // All compressed, none, and a mixture.
        for stored in [0b00_0000, 0b11_1111, 0b01_0101, 0b10_1010] {
            let mut list = ChunkList::default();
            for (number, text) in texts.iter().enumerate() {
                if stored >> number & 1 == 1 {
                    list.push_stored(&StoredChunk::new(text.as_bytes().to_vec()));
                } else {
                    let mut one = ChunkList::default();
                    one.push(&Chunk::new(text.as_bytes(), &mut compressor));
                    list.append(&one.take(&mut None));
                }
            }
            let plain = list.clone().into_body(Encoding::Identity).concat();
            assert!(plain == texts.concat().as_bytes());
            let body = list.into_body(Encoding::Gzip).concat();
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(body.as_slice())
                .read_to_end(&mut text)
                .unwrap();
            assert!(text == plain, "{stored:b}");
        }
    }

    #[test]
    fn small_neighbours_become_one_and_large_chunks_are_shared() {
        let mut compressor = Compressor::new();
        let large = Chunk::new(&vec![b'x'; COMPACT_BYTES + 1], &mut compressor);
        let small = Chunk::new(b"small\n", &mut compressor);
        let mut list = ChunkList::default();
        for chunk in [&small, &small, &large, &small, &small] {
            list.push(chunk);
        }
        let segments = list.take(&mut None).text.done;
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), large.text.as_ptr(), "it was copied");
    }

    #[test]
    fn a_short_list_is_compressed_as_one() {
        let mut compressor = Compressor::new();
        let mut list = ChunkList::default();
        for _ in 0..100 {
            list.push(&Chunk::new(b"one line like the others\n", &mut compressor));
        }
        let whole = list.take(&mut None).into_body(Encoding::Gzip).concat();
        assert!(whole.len() < 100, "{}", whole.len());
    }
}
