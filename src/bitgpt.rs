//! BitGPT's API: the one provider. Another would be a folder beside this one.

pub mod client;
pub mod lister;
pub mod parse;
pub mod timestamp;
mod wire;
