//! A piece of the exposition, ready to be sent plain or compressed, and bodies strung from pieces.
//! Pure.
//!
//! Pieces are shared: a body is a chain of references to them, and nothing that a poll wrote is
//! copied or compressed again for a scrape.

use bytes::{Bytes, BytesMut};

use crate::render::deflate;

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
    text: Vec<Bytes>,
    deflated: Vec<Bytes>,
    crc: crc32fast::Hasher,
    len: u64,
}

impl Piece {
    pub(super) fn new(text: &str) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(text.as_bytes());
        let deflated = deflate::deflate(text.as_bytes());
        Self {
            text: kept(text.as_bytes()),
            deflated: kept(&deflated),
            crc,
        }
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

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl Chain {
    pub(super) fn push(&mut self, piece: &Piece) {
        if piece.is_empty() {
            return;
        }
        push(&mut self.text, &piece.text);
        push(&mut self.deflated, &piece.deflated);
        self.crc.combine(&piece.crc);
        self.len += piece.text.len() as u64;
    }

    pub(super) fn append(&mut self, other: &Self) {
        self.text.extend_from_slice(&other.text);
        self.deflated.extend_from_slice(&other.deflated);
        self.crc.combine(&other.crc);
        self.len += other.len;
    }

    /// The whole as a body: the text, or one gzip member of it.
    pub(super) fn into_body(mut self, encoding: Encoding) -> Vec<Bytes> {
        match encoding {
            Encoding::Identity => self.text,
            Encoding::Gzip => {
                let trailer = deflate::gzip_trailer(self.crc.finalize(), self.len);
                self.deflated
                    .insert(0, Bytes::from_static(&deflate::GZIP_HEADER));
                push(&mut self.deflated, &Bytes::copy_from_slice(&trailer));
                self.deflated
            }
        }
    }
}

/// A copy of `bytes` that is kept until the next poll, no larger than it must be.
fn kept(bytes: &[u8]) -> Bytes {
    if bytes.len() < LARGE_BYTES {
        return Bytes::copy_from_slice(bytes);
    }
    let Ok(mut pages) = memmap2::MmapMut::map_anon(bytes.len()) else {
        return Bytes::copy_from_slice(bytes);
    };
    pages.copy_from_slice(bytes);
    Bytes::from_owner(pages)
}

/// Adds `bytes` to `chain`; small neighbours become one.
fn push(chain: &mut Vec<Bytes>, bytes: &Bytes) {
    match chain.last_mut() {
        Some(last) if last.len() + bytes.len() <= SMALL_BYTES => {
            *last = [last.as_ref(), bytes.as_ref()].concat().into();
        }
        _ => chain.push(bytes.clone()),
    }
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
            chain.append(&one);
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
        assert_eq!(chain.text.len(), 3);
        assert_eq!(chain.text[1].as_ptr(), large.text.as_ptr(), "it was copied");
    }
}
