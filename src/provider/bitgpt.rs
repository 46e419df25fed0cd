//! BitGPT's API: the one provider. Another would be a folder beside this one.

pub mod client;
pub mod details;
pub mod lister;
pub mod parse;
mod resolver;
pub mod tls;
mod wire;

/// The one scope that listing keys, and reading one's details, needs.
pub const LISTING_SCOPE: &str = "api_keys.read";
