//! The exposition: the text of all accounts strung together, with what moves with the clock and
//! what the process tells of itself. Pure.
//!
//! A family's samples stand together, whatever the number of accounts, so each account keeps its
//! text family by family ([`Prepared`]). After each poll the pieces of all accounts are strung into
//! what stands between two moving families ([`Exposition`]). A scrape strings those, the moving
//! families as of this second ([`Moving`]) and the process' own metrics into a body, copying none.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prometheus::proto::MetricFamily;

use crate::exposition::families::{self, FAMILIES, Source};
use crate::exposition::format::Format;
use crate::exposition::piece::{Chain, Encoding, Piece};
use crate::exposition::prepared::{Prepared, account_labels};
use crate::exposition::registry;
use crate::exposition::time_left::Written;

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
        let time_left = self
            .accounts
            .iter()
            .map(|account| account.time_left().at(second, previous.next()));
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
                let labels = account_labels(account.state());
                let samples = family.samples(&mut out, &labels, Format::Text);
                let now = DateTime::from_timestamp(second, 0).unwrap_or_default();
                families::key_states(&account.state_counts().at(now), samples);
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
            .flat_map(|account| account.fixed(index, format))
            .collect();
        let has_samples = match family.source {
            Source::Key(_) | Source::Listing(_) | Source::Account(_) => !pieces.is_empty(),
            Source::TimeLeft => accounts
                .iter()
                .any(|account| !account.time_left().is_empty()),
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
            chains.push(chain.take());
        }
    }
    chains.push(chain.take());
    chains
}
