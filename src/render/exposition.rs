//! The exposition: what holds until the next poll is written and compressed once a poll, what moves
//! with the clock once a second. Pure.
//!
//! A family's samples stand together, whatever the number of accounts, so each account keeps its
//! text family by family ([`Prepared`]). After each poll the pieces of all accounts are strung into
//! what stands between two moving families ([`Exposition`]). A scrape strings those, the moving
//! families as of this second ([`Moving`]) and the process' own metrics into a body, copying none.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prometheus::proto::MetricFamily;

use crate::domain::key::{Expiry, Key};
use crate::domain::state::AccountState;
use crate::render::Metrics;
use crate::render::families::{self, FAMILIES, Family, KeyFacts, Source};
use crate::render::format::Format;
use crate::render::piece::{Chain, Encoding, Piece};
use crate::render::registry;
use crate::render::samples::{Samples, Value, push_label, push_value};

/// Keys written at once. A family's text of so many is some 64 KiB, what a processor's nearer
/// caches hold, and nothing larger is ever allocated to write a listing of any size.
const KEYS_AT_ONCE: usize = 512;

/// One account's state with all of its text that holds until the next poll.
#[derive(Clone, Debug)]
pub struct Prepared {
    state: AccountState,
    /// The account's own samples in each of [`Format::ALL`]: pieces for each of [`FAMILIES`], none
    /// where they come from elsewhere.
    account: [Vec<Vec<Piece>>; Format::ALL.len()],
    keys: Arc<PreparedKeys>,
}

/// The text about one listing's keys; it outlives failed polls. The same in both formats.
#[derive(Debug, Default)]
struct PreparedKeys {
    /// Pieces for each of [`FAMILIES`], none where they come from elsewhere.
    fixed: Vec<Vec<Piece>>,
    /// The line of each key with a readable end up to its value, all in one string.
    time_left_lines: String,
    /// Where each of those lines stops, and the second of the key's end, rounded down.
    time_left: Vec<(usize, i64)>,
}

/// All accounts, ready to be scraped.
#[derive(Clone, Debug)]
pub struct Exposition {
    accounts: Vec<Arc<Prepared>>,
    /// For each of [`Format::ALL`], what stands before each moving family, and after the last one.
    fixed: [Vec<Chain>; Format::ALL.len()],
}

/// The moving families as of one second, in order. The same in both formats: their first lines are
/// fixed.
#[derive(Debug)]
pub struct Moving(Vec<Piece>);

impl Prepared {
    /// Writes the text for `state`. That of the keys is taken over from `previous` where the
    /// listing is the same.
    pub fn new(state: AccountState, previous: Option<&Self>, metrics: Metrics) -> Self {
        let labels = account_labels(&state);
        let account = Format::ALL.map(|format| {
            let pieces = FAMILIES
                .iter()
                .map(|family| account_pieces(family, &state, &labels, format));
            pieces.collect()
        });
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

    fn fixed(&self, index: usize, family: &Family, format: Format) -> &[Piece] {
        let pieces = match family.source {
            Source::Key(_) => self.keys.fixed.get(index),
            Source::Account(_) => self
                .account
                .get(format as usize)
                .and_then(|pieces| pieces.get(index)),
            Source::TimeLeft | Source::KeyStates => None,
        };
        pieces.map(Vec::as_slice).unwrap_or_default()
    }
}

impl PreparedKeys {
    fn new(state: &AccountState, account_labels: &str, metrics: Metrics) -> Self {
        let mut prepared = Self {
            fixed: FAMILIES.iter().map(|_| Vec::new()).collect(),
            ..Self::default()
        };
        let Some(listing) = &state.held else {
            return prepared;
        };
        let api_env = listing.api_env().unwrap_or_default();
        let provider = state.account.provider;
        let superseded = listing.superseded();
        let mut out = String::new();
        for (keys, superseded) in listing
            .keys()
            .chunks(KEYS_AT_ONCE)
            .zip(superseded.chunks(KEYS_AT_ONCE))
        {
            let labels: Vec<String> = keys
                .iter()
                .map(|key| key_labels(account_labels, key))
                .collect();
            for (family, pieces) in FAMILIES.iter().zip(&mut prepared.fixed) {
                let Source::Key(write) = family.source else {
                    continue;
                };
                out.clear();
                for ((key, labels), is_superseded) in keys.iter().zip(&labels).zip(superseded) {
                    let is_superseded = *is_superseded;
                    let facts = KeyFacts {
                        key,
                        provider,
                        api_env,
                        is_superseded,
                        metrics,
                    };
                    let format = Format::Text;
                    write(
                        &facts,
                        &mut Samples {
                            out: &mut out,
                            name: family.name,
                            labels,
                            format,
                        },
                    );
                }
                pieces.extend(Some(Piece::new(&out)).filter(|piece| !piece.is_empty()));
            }
            if metrics.relative {
                prepared.prepare_time_left(keys, &labels);
            }
        }
        prepared.time_left_lines.shrink_to_fit();
        prepared.time_left.shrink_to_fit();
        prepared
    }

    fn prepare_time_left(&mut self, keys: &[Key], labels: &[String]) {
        let is_time_left = |family: &&Family| matches!(family.source, Source::TimeLeft);
        let Some(family) = FAMILIES.iter().find(is_time_left) else {
            return;
        };
        for (key, labels) in keys.iter().zip(labels) {
            if let Expiry::At(end) = key.expiry {
                self.time_left_lines.push_str(family.name);
                self.time_left_lines.push_str(labels);
                self.time_left_lines.push_str("} ");
                self.time_left
                    .push((self.time_left_lines.len(), end.timestamp()));
            }
        }
    }

    /// Whole seconds, rounded down, so that what is below zero has expired.
    fn write_time_left(&self, second: i64, out: &mut String) {
        // A line's value takes 13 digits and a line break for any end up to the year 9999.
        out.reserve(self.time_left_lines.len() + 14 * self.time_left.len());
        let (mut rest, mut start) = (self.time_left_lines.as_str(), 0);
        for (stop, end) in &self.time_left {
            let (line, tail) = rest.split_at(stop - start);
            (rest, start) = (tail, *stop);
            out.push_str(line);
            push_value(out, Value::Integer(end - second));
            out.push('\n');
        }
    }
}

impl Exposition {
    /// Strings the fixed text of `accounts` together. A family without samples is left out.
    pub fn new(accounts: Vec<Arc<Prepared>>) -> Self {
        let fixed = Format::ALL.map(|format| fixed_chains(&accounts, format));
        Self { accounts, fixed }
    }

    /// Every account, in order.
    pub fn accounts(&self) -> &[Arc<Prepared>] {
        &self.accounts
    }

    /// The moving families as of the whole second that `now` falls in.
    pub fn moving(&self, now: DateTime<Utc>) -> Moving {
        let second = now.timestamp();
        let now = DateTime::from_timestamp(second, 0).unwrap_or(now);
        let moving = FAMILIES
            .iter()
            .filter(|family| family.is_moving())
            .map(|family| {
                let mut out = String::new();
                for account in &self.accounts {
                    match family.source {
                        Source::TimeLeft => account.keys.write_time_left(second, &mut out),
                        Source::KeyStates => {
                            let labels = &account_labels(&account.state);
                            let format = Format::Text;
                            let samples = Samples {
                                out: &mut out,
                                name: family.name,
                                labels,
                                format,
                            };
                            families::key_states(&account.state, now, samples);
                        }
                        Source::Key(_) | Source::Account(_) => {}
                    }
                }
                Piece::new(&out)
            });
        Moving(moving.collect())
    }

    /// A whole body. `moving` is of this exposition, `process` what the process tells of itself.
    pub fn body(
        &self,
        moving: &Moving,
        process: &[MetricFamily],
        format: Format,
        encoding: Encoding,
    ) -> Vec<Bytes> {
        let mut body = Chain::default();
        let mut moving = moving.0.iter();
        for fixed in self.fixed.get(format as usize).into_iter().flatten() {
            body.append(fixed);
            if let Some(piece) = moving.next() {
                body.push(piece);
            }
        }
        body.push(&Piece::new(
            &(registry::text(process, format) + format.end()),
        ));
        body.into_body(encoding)
    }
}

/// What stands before each moving family, its first lines included, and after the last one.
fn fixed_chains(accounts: &[Arc<Prepared>], format: Format) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut chain = Chain::default();
    for (index, family) in FAMILIES.iter().enumerate() {
        let pieces: Vec<&Piece> = accounts
            .iter()
            .flat_map(|account| account.fixed(index, family, format))
            .collect();
        let has_samples = match family.source {
            Source::Key(_) | Source::Account(_) => !pieces.is_empty(),
            Source::TimeLeft => accounts
                .iter()
                .any(|account| !account.keys.time_left.is_empty()),
            Source::KeyStates => !accounts.is_empty(),
        };
        if has_samples {
            chain.push(&Piece::new(&format.header(
                family.name,
                family.kind,
                family.help,
            )));
        }
        for piece in pieces {
            chain.push(piece);
        }
        if family.is_moving() {
            chains.push(std::mem::take(&mut chain));
        }
    }
    chains.push(chain);
    chains
}

fn account_pieces(
    family: &Family,
    state: &AccountState,
    labels: &str,
    format: Format,
) -> Vec<Piece> {
    let Source::Account(write) = family.source else {
        return Vec::new();
    };
    let mut out = String::new();
    write(
        state,
        &mut Samples {
            out: &mut out,
            name: family.name,
            labels,
            format,
        },
    );
    Vec::from_iter(Some(Piece::new(&out)).filter(|piece| !piece.is_empty()))
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
