//! The exposition: what holds until the next poll is written once a poll, what moves with the clock
//! at the scrape. Pure.
//!
//! A family's samples stand together, whatever the number of accounts, so each account keeps its
//! text family by family and a scrape strings the pieces together without copying them.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::domain::key::{Expiry, Key};
use crate::domain::state::AccountState;
use crate::render::Metrics;
use crate::render::families::{self, FAMILIES, Family, KeyFacts, Kind, Source};
use crate::render::samples::{Samples, Value, push_label, push_value};

/// The content type of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One account's state with all of its text that holds until the next poll.
#[derive(Clone, Debug)]
pub struct Prepared {
    state: AccountState,
    /// The account's own samples, a piece for each of [`FAMILIES`], empty where they come from
    /// elsewhere.
    account: Vec<Bytes>,
    keys: Arc<PreparedKeys>,
}

/// The text about one listing's keys; it outlives failed polls.
#[derive(Debug, Default)]
struct PreparedKeys {
    /// A piece for each of [`FAMILIES`], empty where they come from elsewhere.
    fixed: Vec<Bytes>,
    /// The line of each key with a readable end up to its value, all in one string.
    time_left_lines: String,
    /// Where each of those lines stops, and the key's end.
    time_left: Vec<(usize, DateTime<Utc>)>,
}

impl Prepared {
    /// Writes the text for `state`. That of the keys is taken over from `previous` where the
    /// listing is the same.
    pub fn new(state: AccountState, previous: Option<&Self>, metrics: Metrics) -> Self {
        let labels = account_labels(&state);
        let account = FAMILIES
            .iter()
            .map(|family| account_text(family, &state, &labels))
            .collect();
        let same_listing = previous.filter(|previous| match (&previous.state.held, &state.held) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        });
        let keys = same_listing.map_or_else(
            || Arc::new(PreparedKeys::new(&state, &labels, metrics)),
            |previous| previous.keys.clone(),
        );
        Self {
            state,
            account,
            keys,
        }
    }

    /// The state that the text tells of.
    pub fn state(&self) -> &AccountState {
        &self.state
    }
}

impl PreparedKeys {
    fn new(state: &AccountState, account_labels: &str, metrics: Metrics) -> Self {
        let Some(listing) = &state.held else {
            return Self::default();
        };
        let labels: Vec<String> = listing
            .keys()
            .iter()
            .map(|key| key_labels(account_labels, key))
            .collect();
        let superseded = listing.superseded();
        let api_env = listing.api_env().unwrap_or_default();
        let facts: Vec<KeyFacts<'_>> = listing
            .keys()
            .iter()
            .zip(superseded)
            .map(|(key, is_superseded)| KeyFacts {
                key,
                provider: state.account.provider,
                api_env,
                is_superseded,
                metrics,
            })
            .collect();
        let fixed = FAMILIES.iter().map(|family| {
            let Source::Key(write) = family.source else {
                return Bytes::new();
            };
            let mut out = String::new();
            for (facts, labels) in facts.iter().zip(&labels) {
                write(
                    facts,
                    &mut Samples {
                        out: &mut out,
                        name: family.name,
                        labels,
                    },
                );
            }
            bytes(out)
        });
        let mut keys = Self {
            fixed: fixed.collect(),
            ..Self::default()
        };
        if metrics.relative {
            keys.prepare_time_left(listing.keys(), &labels);
        }
        keys
    }

    fn prepare_time_left(&mut self, keys: &[Key], labels: &[String]) {
        let Some(family) = FAMILIES
            .iter()
            .find(|family| matches!(family.source, Source::TimeLeft))
        else {
            return;
        };
        for (key, labels) in keys.iter().zip(labels) {
            if let Expiry::At(end) = key.expiry {
                self.time_left_lines.push_str(family.name);
                self.time_left_lines.push_str(labels);
                self.time_left_lines.push_str("} ");
                self.time_left.push((self.time_left_lines.len(), end));
            }
        }
    }

    /// Whole seconds, rounded down, so that what is below zero has expired.
    fn time_left(&self, now: DateTime<Utc>) -> String {
        // A line's value takes at most 13 digits and a line break for any end up to the year 9999.
        let mut out = String::with_capacity(self.time_left_lines.len() + 14 * self.time_left.len());
        let (mut rest, mut start) = (self.time_left_lines.as_str(), 0);
        for (stop, end) in &self.time_left {
            let (line, tail) = rest.split_at(stop - start);
            (rest, start) = (tail, *stop);
            out.push_str(line);
            push_value(
                &mut out,
                Value::Integer((*end - now).num_milliseconds().div_euclid(1000)),
            );
            out.push('\n');
        }
        out
    }
}

/// The whole exposition about `accounts` at `now`, in the text format 0.0.4, as pieces to be sent
/// one after the other. A family without samples is left out.
pub fn text(accounts: &[Arc<Prepared>], now: DateTime<Utc>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    for (index, family) in FAMILIES.iter().enumerate() {
        let header_at = pieces.len();
        for account in accounts {
            let piece = match family.source {
                Source::Key(_) => account.keys.fixed.get(index).cloned().unwrap_or_default(),
                Source::Account(_) => account.account.get(index).cloned().unwrap_or_default(),
                Source::TimeLeft => bytes(account.keys.time_left(now)),
                Source::KeyStates => bytes(key_states(family, account, now)),
            };
            if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        if pieces.len() > header_at {
            pieces.insert(header_at, bytes(header(family)));
        }
    }
    pieces
}

fn header(family: &Family) -> String {
    let Family { name, help, .. } = family;
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge | Kind::Info => "gauge",
    };
    format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn key_states(family: &Family, account: &Prepared, now: DateTime<Utc>) -> String {
    let mut out = String::new();
    let labels = account_labels(&account.state);
    families::key_states(
        &account.state,
        now,
        &mut Samples {
            out: &mut out,
            name: family.name,
            labels: &labels,
        },
    );
    out
}

fn account_text(family: &Family, state: &AccountState, labels: &str) -> Bytes {
    let Source::Account(write) = family.source else {
        return Bytes::new();
    };
    let mut out = String::new();
    write(
        state,
        &mut Samples {
            out: &mut out,
            name: family.name,
            labels,
        },
    );
    bytes(out)
}

fn account_labels(state: &AccountState) -> String {
    let mut labels = "{".to_owned();
    push_label(&mut labels, "account", &state.account.name);
    labels
}

fn key_labels(account_labels: &str, key: &Key) -> String {
    let mut labels = format!("{account_labels},");
    push_label(&mut labels, "key_id", key.id.as_str());
    labels
}

/// Shares text; what grew beyond its length is given back, because it is kept until the next poll.
fn bytes(text: String) -> Bytes {
    Bytes::from(text.into_boxed_str().into_boxed_bytes())
}
