//! Domain model: facts about keys and how the known state changes. Pure: no I/O, no clock, no
//! logging.
//!
//! Nothing here depends on a provider's JSON, a metric name or a socket.

pub mod account_state;
pub mod alerts;
pub mod allow_list;
pub mod assessment;
pub mod changes;
pub mod clocks;
pub mod event;
pub mod failure;
pub mod fnv;
pub mod glob;
pub mod inventory;
pub mod inventory_usage;
pub mod key;
pub mod listing;
pub mod policy;
pub mod poll_durations;
pub mod shard;
pub mod span;
pub mod state_counts;
pub mod successors;
pub mod text;
pub mod token_mark;
pub mod unlisted;
mod urgent;
pub mod view;
