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

use crate::domain::census::Census;
use crate::domain::judge::{Settings, Verdict};
use crate::domain::key::{Expiry, Key};
use crate::domain::state::AccountState;
use crate::render::Metrics;
use crate::render::families::{self, FAMILIES, Family, KeyFacts, ListingFacts, Source};
use crate::render::format::Format;
use crate::render::piece::{Chain, Encoding, Piece};
use crate::render::registry;
use crate::render::samples::{Samples, push_label};
use crate::render::time_left::{TimeLeft, Written};

/// Keys written at once. A family's text of so many is some 64 KiB, what a processor's nearer
/// caches hold, and nothing larger is ever allocated to write a listing of any size.
const KEYS_AT_ONCE: usize = 512;

/// One account's state with all of its text that holds until the next poll.
#[derive(Clone, Debug)]
pub struct Prepared {
    state: AccountState,
    settings: Arc<Settings>,
    /// The account's own samples in each of [`Format::ALL`]: pieces for each of [`FAMILIES`], none
    /// where they come from elsewhere.
    account: [Vec<Vec<Piece>>; Format::ALL.len()],
    keys: Arc<PreparedKeys>,
}

/// The text about one listing's keys; it outlives failed polls. The same in both formats.
#[derive(Debug, Default)]
struct PreparedKeys {
    /// While this text holds: from the one moment on, and before the other.
    holds: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    census: Census,
    /// For each entry of the inventory, whether a key matches it.
    matched: Box<[bool]>,
    /// Pieces for each of [`FAMILIES`], none where they come from elsewhere.
    fixed: Vec<Vec<Piece>>,
    time_left: TimeLeft,
}

/// All accounts, ready to be scraped.
#[derive(Clone, Debug)]
pub struct Exposition {
    accounts: Vec<Arc<Prepared>>,
    /// For each of [`Format::ALL`], what stands before each moving family, and after the last one.
    fixed: [Vec<Chain>; Format::ALL.len()],
}

/// The moving families as of one second. The same in both formats: their first lines are fixed.
#[derive(Debug)]
pub struct Moving {
    /// For each account.
    time_left: Vec<Written>,
    key_states: Piece,
}

impl Prepared {
    /// Writes the text for `state` as of `now`. That of the keys is taken over from `previous`
    /// where the listing and the settings are the same and it holds now.
    pub fn new(
        state: AccountState,
        previous: Option<&Self>,
        metrics: Metrics,
        settings: &Arc<Settings>,
        now: DateTime<Utc>,
    ) -> Self {
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
        let same_keys = same_listing
            .filter(|previous| Arc::ptr_eq(&previous.settings, settings) && previous.holds_at(now));
        let keys = same_keys.map_or_else(
            || Arc::new(PreparedKeys::new(&state, &labels, metrics, settings, now)),
            |previous| previous.keys.clone(),
        );
        Self {
            state,
            settings: settings.clone(),
            account,
            keys,
        }
    }

    /// The state that the text tells of.
    pub fn state(&self) -> &AccountState {
        &self.state
    }

    /// Whether the text about keys is true at `now`: a mute that ends, or a key that becomes too
    /// old, changes it between two polls.
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        let (from, until) = self.keys.holds;
        from.is_none_or(|from| from <= now) && until.is_none_or(|until| now < until)
    }

    /// For each entry of the inventory that the text was written with, whether it matches a key.
    /// Empty until there is a listing.
    pub fn matched_entries(&self) -> &[bool] {
        &self.keys.matched
    }

    /// The settings that the text was written with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn fixed(&self, index: usize, family: &Family, format: Format) -> &[Piece] {
        let pieces = match family.source {
            Source::Key(_) | Source::Listing(_) => self.keys.fixed.get(index),
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
    fn new(
        state: &AccountState,
        account_labels: &str,
        metrics: Metrics,
        settings: &Settings,
        now: DateTime<Utc>,
    ) -> Self {
        let mut prepared = Self {
            fixed: FAMILIES.iter().map(|_| Vec::new()).collect(),
            ..Self::default()
        };
        let Some(listing) = &state.held else {
            return prepared;
        };
        let api_env = listing.api_env().unwrap_or_default();
        let provider = state.account.provider;
        let judge = |key| settings.judge(&state.account.name, key, now);
        let verdicts: Vec<Verdict<'_>> = listing.keys().iter().map(judge).collect();
        let judged = || listing.keys().iter().zip(&verdicts);
        let names: Vec<Option<&str>> = judged().map(|(key, verdict)| verdict.name(key)).collect();
        let superseded = listing.superseded(&names);
        drop(names);
        let format = Format::Text;
        let mut out = String::new();
        for ((keys, verdicts), superseded) in listing
            .keys()
            .chunks(KEYS_AT_ONCE)
            .zip(verdicts.chunks(KEYS_AT_ONCE))
            .zip(superseded.chunks(KEYS_AT_ONCE))
        {
            let labels: Vec<String> = keys
                .iter()
                .map(|key| key_labels(account_labels, key))
                .collect();
            let facts: Vec<KeyFacts<'_>> = keys
                .iter()
                .zip(verdicts)
                .zip(superseded)
                .map(|((key, verdict), is_superseded)| KeyFacts {
                    key,
                    verdict,
                    provider,
                    api_env,
                    is_superseded: *is_superseded,
                    metrics,
                })
                .collect();
            for (family, pieces) in FAMILIES.iter().zip(&mut prepared.fixed) {
                let Source::Key(write) = family.source else {
                    continue;
                };
                out.clear();
                for (facts, labels) in facts.iter().zip(&labels) {
                    write(
                        facts,
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
        let unmatched = verdicts.iter().filter(|it| it.entry.is_none()).count();
        let facts = ListingFacts {
            unmatched: (!settings.inventory.is_empty()).then_some(unmatched),
        };
        for (family, pieces) in FAMILIES.iter().zip(&mut prepared.fixed) {
            let Source::Listing(write) = family.source else {
                continue;
            };
            out.clear();
            let samples = Samples {
                out: &mut out,
                name: family.name,
                labels: account_labels,
                format,
            };
            write(&facts, samples);
            pieces.extend(Some(Piece::new(&out)).filter(|piece| !piece.is_empty()));
        }
        let mut matched = vec![false; settings.inventory.entries().len()];
        for index in verdicts.iter().filter_map(|verdict| verdict.entry_index) {
            if let Some(is_matched) = matched.get_mut(index) {
                *is_matched = true;
            }
        }
        prepared.matched = matched.into();
        prepared.census = Census::new(judged().map(|(key, it)| (key, it.notice.warning)));
        let points = judged().flat_map(|(key, verdict)| settings.turning_points(key, verdict));
        prepared.holds = holds(points, now);
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
                let head = [family.name, labels, "} "];
                self.time_left.push(head, end.timestamp());
            }
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

    /// The moving families as of the whole second that `now` falls in. `previous`, of this
    /// exposition at another second, is rewritten where it can be.
    pub fn moving(&self, now: DateTime<Utc>, previous: Option<Moving>) -> Moving {
        let second = now.timestamp();
        let mut previous = previous.into_iter().flat_map(|previous| previous.time_left);
        let time_left = self.accounts.iter().map(|account| {
            let time_left = &account.keys.time_left;
            time_left.at(second, previous.next())
        });
        Moving {
            time_left: time_left.collect(),
            key_states: Piece::new(&self.key_states(second)),
        }
    }

    fn key_states(&self, second: i64) -> String {
        let mut out = String::new();
        let families = FAMILIES.iter();
        for family in families.filter(|family| matches!(family.source, Source::KeyStates)) {
            for account in &self.accounts {
                let samples = Samples {
                    out: &mut out,
                    name: family.name,
                    labels: &account_labels(&account.state),
                    format: Format::Text,
                };
                let now = DateTime::from_timestamp(second, 0).unwrap_or_default();
                families::key_states(&account.keys.census.at(now), samples);
            }
        }
        out
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
        let mut sources = FAMILIES.iter().filter(|family| family.is_moving());
        for fixed in self.fixed.get(format as usize).into_iter().flatten() {
            body.append(fixed);
            match sources.next().map(|family| family.source) {
                Some(Source::TimeLeft) => {
                    let pieces = moving.time_left.iter().map(Written::piece);
                    pieces.for_each(|piece| body.push(piece));
                }
                Some(Source::KeyStates) => body.push(&moving.key_states),
                Some(Source::Key(_) | Source::Listing(_) | Source::Account(_)) | None => {}
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
            Source::Key(_) | Source::Listing(_) | Source::Account(_) => !pieces.is_empty(),
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

/// The span around `now` in which none of `turning_points` lies: from the one, until the other.
fn holds(
    turning_points: impl Iterator<Item = DateTime<Utc>>,
    now: DateTime<Utc>,
) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let (mut from, mut until) = (None, None);
    for point in turning_points {
        if point <= now {
            from = from.max(Some(point));
        } else if until.is_none_or(|until| point < until) {
            until = Some(point);
        }
    }
    (from, until)
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
