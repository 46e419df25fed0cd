//! Where pollers put what they know and the server finds it: the exposition of all accounts,
//! swapped whole.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prometheus::proto::MetricFamily;
use tokio::sync::watch;

use crate::domain::state::AccountState;
use crate::render::exposition::{Exposition, Moving, Prepared};
use crate::render::{Encoding, Format, Metrics};

/// One slot for each account. Each slot has one writer, its poller; anybody may read all at once.
#[derive(Debug)]
pub struct Board {
    shown: watch::Sender<Arc<Shown>>,
    /// Held by whoever publishes, so that two pollers do not undo each other's work.
    publishing: Mutex<()>,
    metrics: Metrics,
}

/// What is shown at a moment; stays as it is while it is being read.
#[derive(Debug)]
pub struct Shown {
    exposition: Exposition,
    /// The moving families of the last second that somebody asked about: scrapers that come
    /// together share them, and one that reads slowly holds no copy of its own.
    moving: Mutex<Option<(i64, Arc<Moving>)>>,
}

impl Board {
    /// A board that shows `states`, in their order.
    pub fn new(states: impl IntoIterator<Item = AccountState>, metrics: Metrics) -> Self {
        let prepared = states
            .into_iter()
            .map(|state| Arc::new(Prepared::new(state, None, metrics)));
        let shown = watch::Sender::new(Shown::new(prepared.collect()));
        Self {
            shown,
            publishing: Mutex::new(()),
            metrics,
        }
    }

    /// All accounts as they are now.
    pub fn read(&self) -> Arc<Shown> {
        self.shown.borrow().clone()
    }

    /// Tells whoever waits on it that something else is shown.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    /// Shows `state` in the slot `index`. Readers wait for nothing but the swap.
    pub fn publish(&self, index: usize, state: AccountState) {
        let publishing = self
            .publishing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut accounts = self.read().accounts().to_vec();
        if let Some(slot) = accounts.get_mut(index) {
            *slot = Arc::new(Prepared::new(state, Some(slot), self.metrics));
        }
        self.shown.send_replace(Shown::new(accounts));
        drop(publishing);
    }
}

impl Shown {
    fn new(accounts: Vec<Arc<Prepared>>) -> Arc<Self> {
        Arc::new(Self {
            exposition: Exposition::new(accounts),
            moving: Mutex::new(None),
        })
    }

    /// Every account, in order.
    pub fn accounts(&self) -> &[Arc<Prepared>] {
        self.exposition.accounts()
    }

    /// A whole exposition as of the second that `now` falls in, in pieces.
    pub fn scrape(
        &self,
        now: DateTime<Utc>,
        process: &[MetricFamily],
        format: Format,
        encoding: Encoding,
    ) -> Vec<Bytes> {
        self.exposition
            .body(&self.moving(now), process, format, encoding)
    }

    /// Whoever comes first in a second writes for all; the others wait for it, which is shorter
    /// than writing it themselves.
    fn moving(&self, now: DateTime<Utc>) -> Arc<Moving> {
        let second = now.timestamp();
        let mut last = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, moving)) if *known == second => moving.clone(),
            _ => {
                let moving = Arc::new(self.exposition.moving(now));
                *last = Some((second, moving.clone()));
                moving
            }
        }
    }
}
