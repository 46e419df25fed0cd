//! api-key-exporter: lists an account's API keys, remembers typed facts, answers scrapes from
//! memory.
//!
//! # The design in one picture
//!
//! ```text
//!  BitGPT's API                                                   Prometheus, people
//!       │ bytes                                                          ▲ bytes
//!  bitgpt::client ─► bitgpt::parse ─► domain::state ─► render::exposition│
//!  one attempt       bytes → facts    after(outcome)    text of a state  │
//!       ▲                                                    │           │
//!    poller ── when to list, retry, wait ─────────────────► board ─► server::routes
//!    (one for each account)                         swapped whole    (state, now) → response
//! ```
//!
//! A *poll* is one listing with its retries; an *attempt* is one request. A *listing* is the
//! complete set of keys of an account. What the exporter knows of an account is one immutable
//! value, [`domain::state::AccountState`], which only [`after`](domain::state::AccountState::after)
//! changes, once a poll. Its text is written then; a scrape writes only what moves with the clock.
//!
//! # The map, in reading order
//!
//! | module | job | |
//! | --- | --- | --- |
//! | [`domain`] | facts about keys and accounts, how they change, what they mean | pure |
//! | [`bitgpt`] | the provider: `client` and `lister` ask, the rest is pure | |
//! | [`render`] | state to the exposition and to pages | pure |
//! | [`poller`] | when to list and what to tell; `retry` and `report` decide, purely | shell |
//! | [`board`] | where pollers publish and the server reads | shell |
//! | [`server`] | connections and their limits; `routes` answers, purely | shell |
//! | [`fleet`] | the pollers of all accounts, replaced at a reload | shell |
//! | [`reload`], [`supervisor`] | asking for a reload; starting again what panicked | shell |
//! | [`store`] | the saved snapshot; `format` is pure | shell |
//! | [`config`] | file, environment and flags to checked values; every problem named | shell |
//! | [`secret`] | the token, which cannot be printed | shell |
//! | [`logging`] | one clean line an event | shell |
//! | [`telemetry`], `process` | the exporter's metrics about itself | shell |
//! | [`liveness`] | whether the poll loops live | shell |
//! | [`socket_activation`] | sockets that systemd hands over | shell |
//! | [`systemd`] | readiness, status and watchdog for systemd | shell |
//! | `naming` | many names in few words | pure |
//! | [`clock`] | the only reader of the wall clock | shell |
//! | [`memory`] | makes the allocator give memory back | shell |
//! | [`limits`], [`threads`] | open files, who may read the memory, and the threads | shell |
//! | [`app`] | puts all of it together, and takes it apart at the end | shell |
//! | [`cli`] | the command line as types | |
//! | [`demo`], [`fake_api`] | the demo, and the fake API that the tests use too | |
//!
//! # What never happens
//!
//! - The pure modules do no I/O, read no clock, log nothing. A test reads their text for it.
//! - A failed poll never shrinks what is known; a good one replaces it whole.
//! - No data can make rendering fail. One odd entry costs one count, not the listing.
//! - A secret never leaves [`secret`], but into one header. Text from outside passes
//!   [`domain::text`] first.
//! - Nothing waits, loops, queues or grows without a limit, and each limit says why it is that
//!   number.
//!
//! # Where a change belongs
//!
//! A new fact about keys: `bitgpt::wire` and `bitgpt::parse` read it, `domain::key` holds it, one
//! entry of `render::families` shows it. What it means to an operator: `domain::judge`, or a
//! policy in `domain::policy`. A new option: the section's `read` in [`config`]. A new
//! page: `render` writes it, `server::routes` serves it. Another provider: a folder beside
//! `bitgpt`.

pub mod app;
pub mod bitgpt;
pub mod board;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
pub mod fake_api;
pub mod fleet;
pub mod limits;
pub mod liveness;
pub mod logging;
pub mod memory;
mod naming;
pub mod poller;
mod process;
pub mod reload;
pub mod render;
pub mod secret;
pub mod server;
pub mod socket_activation;
pub mod store;
pub mod supervisor;
pub mod systemd;
pub mod telemetry;
pub mod threads;
