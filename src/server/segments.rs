//! Response bodies. A body of shared chunks: a slow reader keeps the shared chunks alive, without a
//! copy, and many chunks go to the kernel at a time. And a body that is generated while it is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use crate::pages::Chunks;

/// The content of a response body.
#[derive(Debug)]
pub enum Content {
    /// The complete content.
    Whole(Vec<Bytes>),
    /// One chunk at a time, each generated when the previous one is sent.
    Written(Chunks),
}

/// A body that hyper sends. A complete one is a single frame: hyper writes a frame in as few calls
/// as the kernel allows, and each further frame in another call.
#[derive(Debug)]
pub(super) struct Segments(Left);

#[derive(Debug)]
enum Left {
    Whole(Option<Pieces>),
    Written(Chunks),
}

/// Chunks still to be sent.
#[derive(Debug)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    /// Total remaining bytes.
    left: usize,
}

impl Segments {
    /// A body of `content`.
    pub(super) fn new(content: Content) -> Self {
        Self(match content {
            Content::Whole(pieces) => {
                let pieces = Pieces::new(pieces);
                Left::Whole((pieces.left > 0).then_some(pieces))
            }
            Content::Written(chunks) => Left::Written(chunks),
        })
    }
}

impl Pieces {
    /// These chunks in order. Empty chunks are omitted.
    fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        let pieces: VecDeque<Bytes> = pieces.collect();
        let left = pieces.iter().map(Bytes::len).sum();
        Self { pieces, left }
    }
}

impl Body for Segments {
    type Data = Pieces;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Pieces>, Infallible>>> {
        let next = match &mut self.0 {
            Left::Whole(pieces) => pieces.take(),
            Left::Written(chunks) => chunks.next().map(|chunk| Pieces::new([chunk])),
        };
        Poll::Ready(next.map(|pieces| Ok(Frame::data(pieces))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Left::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Left::Whole(pieces) => {
                SizeHint::with_exact(pieces.as_ref().map_or(0, |pieces| pieces.left as u64))
            }
            Left::Written(_) => SizeHint::default(),
        }
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces);
        filled
            .map(|(slice, piece)| *slice = IoSlice::new(piece))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        self.left = self.left.saturating_sub(count);
        while let Some(first) = self.pieces.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_one_text_however_they_are_taken() {
        let texts = ["ab", "", "c", "defg", "h"];
        for step in 1..9 {
            let pieces = texts.map(|text| Bytes::from_static(text.as_bytes()));
            let mut segments = Segments::new(Content::Whole(pieces.to_vec()));
            assert_eq!(segments.size_hint().exact(), Some(8));
            let Left::Whole(pieces) = &mut segments.0 else {
                panic!("it is whole");
            };
            let mut pieces = pieces.take().unwrap();
            assert!(segments.is_end_stream());
            let mut taken: Vec<u8> = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = pieces.chunks_vectored(&mut slices);
                let shown: Vec<u8> = slices[..count].iter().flat_map(|it| it.to_vec()).collect();
                assert!(shown.starts_with(pieces.chunk()));
                let len = step.min(shown.len());
                taken.extend(&shown[..len]);
                pieces.advance(len);
                assert_eq!(pieces.remaining(), 8 - taken.len());
            }
            assert_eq!(taken, b"abcdefgh", "{step}");
        }
        assert!(Segments::new(Content::Whole(vec![Bytes::new()])).is_end_stream());
    }
}
