//! A document that is generated while it is sent. Pure.

use std::fmt;

use bytes::Bytes;

/// A chunk is sent once it reaches this size: a few system calls' worth, and little memory for each
/// of hundreds of slow readers.
const CHUNK_BYTES: usize = 32 * 1024;

/// The chunks of a document, each generated on demand.
pub struct Chunks(Box<dyn Iterator<Item = Bytes> + Send>);

impl Chunks {
    /// A document of `start`, the output of `write` for each entry, and `end`.
    pub(super) fn new<T: Send + 'static>(
        start: Vec<u8>,
        entries: Vec<T>,
        mut write: impl FnMut(T, &mut Vec<u8>) + Send + 'static,
        end: &'static [u8],
    ) -> Self {
        let mut entries = entries.into_iter();
        let mut piece = start;
        let mut is_done = false;
        Self(Box::new(std::iter::from_fn(move || {
            if is_done {
                return None;
            }
            while piece.len() < CHUNK_BYTES && !is_done {
                if let Some(entry) = entries.next() {
                    write(entry, &mut piece);
                } else {
                    piece.extend(end);
                    is_done = true;
                }
            }
            Some(std::mem::take(&mut piece).into())
        })))
    }
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.next()
    }
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}
