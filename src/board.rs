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
    slots: Mutex<Slots>,
}

/// How the accounts shown are called, in their order, and what is shown of them.
#[derive(Debug)]
struct Slots {
    names: Vec<usize>,
    metrics: Metrics,
}

/// A change of the accounts shown.
#[derive(Debug)]
pub enum Slot {
    /// A slot that is there stays as it is.
    Keep(usize),
    /// A slot, new or not, shows this.
    Show(usize, Box<AccountState>),
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
    /// A board that shows `states`, in their order, in slots numbered from 0.
    pub fn new(states: impl IntoIterator<Item = AccountState>, metrics: Metrics) -> Self {
        let prepared: Vec<_> = states
            .into_iter()
            .map(|state| Arc::new(Prepared::new(state, None, metrics)))
            .collect();
        let names = (0..prepared.len()).collect();
        Self {
            shown: watch::Sender::new(Shown::new(prepared)),
            slots: Mutex::new(Slots { names, metrics }),
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

    /// Shows `state` in its slot, where that is still there. Readers wait for nothing but the swap.
    pub fn publish(&self, slot: usize, state: AccountState) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut accounts = self.read().accounts().to_vec();
        let index = slots.names.iter().position(|name| *name == slot);
        if let Some(shown) = index.and_then(|index| accounts.get_mut(index)) {
            *shown = Arc::new(Prepared::new(state, Some(shown), slots.metrics));
        }
        self.shown.send_replace(Shown::new(accounts));
        drop(slots);
    }

    /// What the slot shows; `None` where there is no such slot.
    pub fn state(&self, slot: usize) -> Option<AccountState> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let index = slots.names.iter().position(|name| *name == slot)?;
        let shown = self.read();
        let account = shown.accounts().get(index)?;
        Some(account.state().clone())
    }

    /// Shows exactly these accounts from now on, in this order, all at once.
    pub fn rearrange(&self, plan: Vec<Slot>, metrics: Metrics) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = self.read();
        let at = |slot: usize| {
            let index = slots.names.iter().position(|name| *name == slot)?;
            shown.accounts().get(index)
        };
        let same_text = slots.metrics == metrics;
        let (mut names, mut accounts) = (Vec::new(), Vec::new());
        for change in plan {
            let (slot, prepared) = match change {
                Slot::Keep(slot) => match at(slot) {
                    Some(kept) if same_text => (slot, kept.clone()),
                    Some(kept) => {
                        let state = kept.state().clone();
                        (slot, Arc::new(Prepared::new(state, None, metrics)))
                    }
                    None => continue,
                },
                Slot::Show(slot, state) => {
                    let before = at(slot).filter(|_| same_text).map(Arc::as_ref);
                    (slot, Arc::new(Prepared::new(*state, before, metrics)))
                }
            };
            names.push(slot);
            accounts.push(prepared);
        }
        *slots = Slots { names, metrics };
        self.shown.send_replace(Shown::new(accounts));
        drop(slots);
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
