//! api-key-exporter lists the API keys of accounts, keeps typed facts about them, and answers
//! scrapes from memory.
//!
//! # The design in one picture
//!
//! ```text
//!  a provider's API                                       Prometheus, people, files
//!       │ Listing or Failure                                       ▲ bytes
//!  ┌────▼───┐ events  ┌───────────┐            ┌───────────────────┴─────────────┐
//!  │ poller ├────────►│ event_log │            │ exposition  pages  snapshot     │
//!  └────┬───┘         └───────────┘            │ inventory_watch  os::systemd    │
//!       │ (state, events) =                    └───────────────────▲─────────────┘
//!       │ state.after(outcome, rules, now)                         │ each reads states
//!       └──────────────────────► state_store ──────────────────────┘
//! ```
//!
//! A *poll* is one listing with its retries; an *attempt* is one try of a poll, which may take
//! several requests. A *listing* is the complete set of keys of an account. What is known of an
//! account is one immutable value, [`domain::account_state::AccountState`]. One poller for each
//! account replaces it after each poll. Everything else reads states: nothing reads rendered text.
//!
//! # The map, in reading order
//!
//! | module | job | |
//! | --- | --- | --- |
//! | [`domain`] | facts about keys and accounts, how they change, what they mean | pure |
//! | [`provider`] | the APIs that keys are listed from; `http` makes all requests | |
//! | [`poller`], [`pollers`] | when to list and retry; all pollers, replaced at a reload | shell |
//! | [`state_store`] | the state of each account; subscribers learn what changed | shell |
//! | [`event_log`] | events to log lines and counters, with one rate limit | shell |
//! | [`exposition`] | states to metrics, compressed when they change | pure but for `cache` |
//! | [`pages`] | states to the status page, JSON, calendar and answers of `check` | pure |
//! | [`snapshot`] | saved listings; `format` is pure | shell |
//! | [`inventory_watch`] | logs inventory entries that match no key | shell |
//! | [`server`] | connections, limits, TLS, authentication; `routes` answers, purely | shell |
//! | [`config`] | file, environment and flags to checked values | shell |
//! | [`secret`], [`redaction`] | the token, which cannot be printed; text that looks like one | |
//! | [`reload`], [`supervisor`], [`liveness`] | reloads, restarts, stuck poll loops | shell |
//! | [`logging`], [`telemetry`] | log format; metrics about the exporter itself | shell |
//! | [`os`] | the process and the machine; only `clock` reads the clock | shell |
//! | [`app`] | wiring: starts everything, waits for the end | shell |
//! | [`cli`], [`commands`] | the command line; one file for each subcommand | shell |
//! | `demo_data`, [`fake_api`] | the demo's keys; the fake API, which the tests use too | |
//!
//! # What never happens
//!
//! - Pure modules perform no I/O, read no clock and log nothing. A test reads their text.
//! - A failed poll never removes what is known; a successful one replaces it as a whole.
//! - Data never makes rendering fail. One unusable entry costs one count, not the listing.
//! - Text from outside reaches nothing before [`domain::text::Cleaner`] has cleaned it.
//! - No loop, queue, body, wait or string is unbounded; each limit gives its reason.
//!
//! `docs/development.md` says how to add a metric, an alert, an option, a provider or a page.

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
