//! Turns events into log lines and counters. Other modules determine the facts; only this one
//! decides which facts are logged, and how.
//!
//! The counters of an account's polls, failures and changes are part of its state, which counts
//! them in the transition that yields the events. All other counters are increased here, together
//! with the log line.

mod account_log;
mod config_log;
mod lines;
mod process_log;
mod rate_limit;

pub use account_log::{AccountLog, PollFacts};
pub use config_log::{InventoryLog, ReloadLog, Reloaded, WebFileLog};
pub use lines::attempt_failed;
pub use process_log::{AcceptLog, ExpositionLog, SnapshotLog, WatchdogLog};
