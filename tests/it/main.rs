//! The running exporter against a fake API over real sockets, the real binary as a process, and the
//! repository itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_cmp,
    reason = "a panic is how a test fails, and tests live in the real world"
)]

mod allocations;
mod check;
mod deploy;
mod details;
mod docs;
mod end_to_end;
mod faults;
mod field;
mod fuzz_seeds;
mod golden;
mod http;
mod inventory;
mod json_list;
mod live;
mod metrics;
mod openmetrics;
mod pages;
mod process;
mod prometheus;
mod promtool;
mod providers;
mod rate_limits;
mod rules;
mod scrapers;
mod secrets;
mod shards;
mod supply_chain;
mod support;
mod swaps;
mod tidy;
mod tls;
mod token;
mod tools;
mod web_config;
