//! api-key-exporter: lists an account's API keys, remembers typed facts, answers scrapes from
//! memory.
//!
//! # The design in one picture
//!
//! ```text
//!  provider's API                                                 Prometheus, people
//!       │ bytes                                                          ▲ bytes
//!  provider ─────────────────► domain::account_state ──────► exposition  │
//!  one attempt, bytes → facts  after(outcome)      states → text │       │
//!       ▲                                             ▲          ▼       │
//!    poller ── when to list, retry, wait ──► state_store    server::routes
//!    (one for each account)                  snapshot, inventory_watch, os::systemd
//! ```
//!
//! A *poll* is one listing with its retries; an *attempt* is one request. A *listing* is the
//! complete set of keys of an account. What the exporter knows of an account is one immutable
//! value, [`domain::account_state::AccountState`].
//!
//! # The map, in reading order
//!
//! | module | job | |
//! | --- | --- | --- |
//! | [`domain`] | facts about keys and accounts, how they change, what they mean | pure |
//! | [`provider`] | the APIs that keys are listed from; `http` makes all requests | |
//! | [`exposition`], [`pages`] | states to text and pages | pure but for `exposition::cache` |
//! | [`poller`] | when to list | shell |
//! | [`pollers`] | the pollers of all accounts, replaced at a reload | shell |
//! | [`state_store`] | the states of all accounts, and who changed | shell |
//! | [`inventory_watch`] | logs inventory entries that match no key | shell |
//! | [`server`] | connections and their limits; `routes` answers, purely | shell |
//! | [`reload`] | asking for a reload | shell |
//! | [`supervisor`], [`liveness`] | restarts after a panic; stuck poll loops | shell |
//! | [`snapshot`] | the saved listings; `format` is pure | shell |
//! | [`config`] | file, environment and flags to checked values | shell |
//! | [`redaction`] | what looks like a secret is blacked out of text | pure |
//! | [`secret`] | the token, which cannot be printed | shell |
//! | [`event_log`] | events to log lines and counters, rate-limited | shell |
//! | [`logging`], [`telemetry`] | log lines and metrics about the exporter itself | shell |
//! | [`os`] | the process and the machine; `clock` is the only reader of the clock | shell |
//! | [`app`] | wiring: starts everything, waits for the end | shell |
//! | [`cli`], [`commands`] | the command line as types; one file for each subcommand | shell |
//! | `demo_data`, [`fake_api`] | the demo's keys; the fake API, which the tests use too | |

pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
mod demo_data;
pub mod domain;
pub mod event_log;
pub mod exposition;
pub mod fake_api;
pub mod inventory_watch;
pub mod liveness;
pub mod logging;
pub mod os;
pub mod pages;
pub mod poller;
pub mod pollers;
pub mod provider;
pub mod redaction;
pub mod reload;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod state_store;
pub mod supervisor;
pub mod telemetry;
