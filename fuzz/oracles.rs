//! What must hold for any input, one module for each fuzz target. An oracle panics where it does
//! not. The test command replays `seeds/` through the same oracles, without a fuzzer.

#[path = "oracles/client.rs"]
pub mod client;
#[path = "oracles/config.rs"]
pub mod config;
#[path = "oracles/definitions.rs"]
pub mod definitions;
#[path = "oracles/details.rs"]
pub mod details;
#[path = "oracles/inventory.rs"]
pub mod inventory;
#[path = "oracles/listing.rs"]
pub mod listing;
#[path = "oracles/markup.rs"]
pub mod markup;
#[path = "oracles/pages.rs"]
pub mod pages;
#[path = "oracles/reader.rs"]
pub mod reader;
#[path = "oracles/retry_after.rs"]
pub mod retry_after;
#[path = "oracles/saved_state.rs"]
pub mod saved_state;
#[path = "oracles/server.rs"]
pub mod server;
#[path = "oracles/support.rs"]
pub mod support;
#[path = "oracles/text.rs"]
pub mod text;
#[path = "oracles/times.rs"]
pub mod times;
#[path = "oracles/updates.rs"]
pub mod updates;
#[path = "oracles/web_config.rs"]
pub mod web_config;

/// Panics where an input breaks a promise.
pub type Oracle = fn(&[u8]);

/// Every oracle by the name of its fuzz target.
pub const ORACLES: [(&str, Oracle); 14] = [
    ("client", client::check),
    ("config", config::check),
    ("definitions", definitions::check),
    ("details", details::check),
    ("inventory", inventory::check),
    ("listing", listing::check),
    ("pages", pages::check),
    ("retry_after", retry_after::check),
    ("saved_state", saved_state::check),
    ("server", server::check),
    ("text", text::check),
    ("times", times::check),
    ("updates", updates::check),
    ("web_config", web_config::check),
];

/// Checks one input by the oracle `name`.
pub fn check(name: &str, bytes: &[u8]) {
    let (_, check) = ORACLES
        .iter()
        .find(|(oracle, _)| *oracle == name)
        .unwrap_or_else(|| panic!("no oracle is named {name}"));
    check(bytes);
}
