//! Renders states as the text that scrapers read. Pure except for [`cache`]: (states, now) in,
//! bytes out.
//!
//! The samples of a family are adjacent, whatever the number of accounts, so the text is stored
//! family by family ([`column`]), in compressed chunks of some accounts or of a part of one
//! account's keys. A change of one account renders the text of that account and compresses only the
//! chunks that differ afterwards. A scrape lists the chunks, adds the clock-dependent text for the
//! current second (`clock_text`) and the process' own metrics, and copies nothing else.

mod account_text;
mod budget;
pub mod cache;
mod chunk;
mod clock_text;
mod column;
mod compression;
mod families;
mod format;
mod registry;
mod samples;
pub mod text;
mod textfile;

pub use crate::domain::view::Metrics;
pub use compression::Encoding;
pub use format::Format;
pub use textfile::textfile;
