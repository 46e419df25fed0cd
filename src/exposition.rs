//! Turns state into what others read. Pure: (state, now) in, bytes out.

pub mod body;
mod deflate;
mod families;
mod format;
mod piece;
pub mod prepared;
mod registry;
mod samples;
mod time_left;

pub use format::Format;
pub use piece::Encoding;

/// `[metrics]` of the configuration: what is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether `api_key_expires_in_seconds` is exposed.
    pub relative: bool,
    /// Whether `api_key_scope_info` is exposed.
    pub scope_info: bool,
    /// Most scopes of one key in `api_key_scope_info`.
    pub max_scopes_per_key: usize,
}
