//! Identifies the token that a listing was read with, without storing the token.

use std::fmt;

/// Length of a mark's key and of its digest in bytes, as for SHA-256.
pub const BYTES: usize = 32;

/// A random number that makes the marks of one account comparable, and of no use elsewhere.
pub type MarkKey = [u8; BYTES];

/// A keyed hash of a token: shows whether two listings were read with the same token, and nothing
/// else about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenMark {
    /// Random; the same for all marks of an account, because otherwise they could not be compared.
    pub key: MarkKey,
    /// The hash of the token under that key.
    pub digest: [u8; BYTES],
}

impl TokenMark {
    /// Whether this certainly marks a different token than `other`.
    pub fn differs(&self, other: &Self) -> bool {
        self.key == other.key && self.digest != other.digest
    }
}

impl fmt::Debug for TokenMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenMark(…)")
    }
}
