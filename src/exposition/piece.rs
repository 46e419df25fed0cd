//! A piece of the exposition, ready to be sent plain or compressed, and bodies strung from pieces.
//! Pure.
//!
//! Pieces are shared: a body is a chain of references to them, and nothing that a poll wrote is
//! copied or compressed again for a scrape.

use bytes::{Bytes, BytesMut};

use crate::exposition::deflate;

/// A body's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// One gzip member.
    Gzip,
}

/// Pieces up to this many bytes are copied into one: below, sending a piece costs more than its
/// bytes. The kernel takes some 16 KiB about as fast as one byte.
const SMALL_BYTES: usize = 16 * 1024;

/// Bytes from which on a piece gets pages of its own. What allocators give back is their affair;
/// pages go back to the system when the last reader lets go, so that a poll leaves no holes behind.
const LARGE_BYTES: usize = 32 * 1024;

/// Text with its compressed form and its checksum.
#[derive(Clone, Debug, Default)]
pub(super) struct Piece {
    text: Bytes,
    deflated: Bytes,
    crc: crc32fast::Hasher,
}

/// Pieces one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    text: Segments,
    deflated: Segments,
    crc: crc32fast::Hasher,
    len: u64,
}

/// Bytes one after the other; small neighbours become one.
#[derive(Clone, Debug, Default)]
struct Segments {
    done: Vec<Bytes>,
    /// Neighbours that are to become one, and how long it is.
    open: Vec<Bytes>,
    open_len: usize,
}

impl Piece {
    pub(super) fn new(text: &str) -> Self {
        let text = text.as_bytes();
        Self::of_parts(kept(text), kept(&deflate::deflate(text)))
    }

    /// A piece, unless there is nothing in it.
    pub(super) fn some(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text))
    }

    /// A piece of text and its compressed form that belong together.
    pub(super) fn of_parts(text: impl Into<Bytes>, deflated: impl Into<Bytes>) -> Self {
        let text = text.into();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&text);
        Self {
            text,
            deflated: deflated.into(),
            crc,
        }
    }

    /// Text and compressed form, to be changed: copies where somebody else holds them.
    pub(super) fn into_parts(self) -> (BytesMut, BytesMut) {
        let own = |bytes: Bytes| {
            bytes
                .try_into_mut()
                .unwrap_or_else(|bytes| BytesMut::from(&*bytes))
        };
        (own(self.text), own(self.deflated))
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

impl Chain {
    pub(super) fn push(&mut self, piece: &Piece) {
        self.text.push(&piece.text);
        self.deflated.push(&piece.deflated);
        // To combine two sums takes as long as to sum up some thousand bytes.
        if piece.text.len() <= SMALL_BYTES {
            self.crc.update(&piece.text);
        } else {
            self.crc.combine(&piece.crc);
        }
        self.len += piece.text.len() as u64;
    }

    /// Makes all of it ready to be shared, and leaves an empty chain behind.
    pub(super) fn take(&mut self) -> Self {
        self.text.close();
        self.deflated.close();
        std::mem::take(self)
    }

    /// Adds a chain that was taken, copying none of it.
    pub(super) fn append(&mut self, other: &Self) {
        self.text.append(&other.text);
        self.deflated.append(&other.deflated);
        self.crc.combine(&other.crc);
        self.len += other.len;
    }

    /// The whole as a body: the text, or one gzip member of it.
    pub(super) fn into_body(mut self, encoding: Encoding) -> Vec<Bytes> {
        let mut segments = match encoding {
            Encoding::Identity => self.text,
            Encoding::Gzip => {
                let trailer = deflate::gzip_trailer(self.crc.finalize(), self.len);
                self.deflated.push(&Bytes::copy_from_slice(&trailer));
                let header = Bytes::from_static(&deflate::GZIP_HEADER);
                self.deflated.done.insert(0, header);
                self.deflated
            }
        };
        segments.close();
        segments.done
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

/// A copy of `bytes` that is kept until the next poll, no larger than it must be, and that is
/// shared without a further allocation.
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
    fn a_chain_is_the_same_text_plain_and_as_one_gzip_member() {
        let texts = [
            "",
            "a 1\na 2\n",
            &"b{x=\"y\"} 3\n".repeat(5_000),
            "",
            "c\n",
            "d\n",
        ];
        let mut chain = Chain::default();
        for text in texts {
            let mut one = Chain::default();
            one.push(&Piece::new(text));
            chain.append(&one.take());
        }
        let plain = chain.clone().into_body(Encoding::Identity).concat();
        assert!(plain == texts.concat().as_bytes());
        let body = chain.into_body(Encoding::Gzip).concat();
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice())
            .read_to_end(&mut text)
            .unwrap();
        assert!(text == plain);
    }

    #[test]
    fn small_neighbours_become_one_and_large_pieces_are_shared() {
        let large = Piece::new(&"x".repeat(SMALL_BYTES + 1));
        let small = Piece::new("small\n");
        let mut chain = Chain::default();
        for piece in [&small, &small, &large, &small, &small] {
            chain.push(piece);
        }
        let segments = chain.take().text.done;
        assert_eq!(segments.len(), 3);
        assert_eq!(segments[1].as_ptr(), large.text.as_ptr(), "it was copied");
    }
}
