//! Where pollers put what they know and the server finds it: each account's state with its text,
//! swapped whole.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::state::AccountState;
use crate::render::Metrics;
use crate::render::exposition::Prepared;

/// One slot for each account. Each slot has one writer, its poller; anybody may read all at once.
#[derive(Debug)]
pub struct Board {
    accounts: watch::Sender<Arc<[Arc<Prepared>]>>,
    metrics: Metrics,
}

impl Board {
    /// A board that shows `states`, in their order.
    pub fn new(states: impl IntoIterator<Item = AccountState>, metrics: Metrics) -> Self {
        let prepared = states
            .into_iter()
            .map(|state| Arc::new(Prepared::new(state, None, metrics)));
        Self {
            accounts: watch::Sender::new(prepared.collect()),
            metrics,
        }
    }

    /// All accounts as they are now; stays as it is while it is being read.
    pub fn read(&self) -> Arc<[Arc<Prepared>]> {
        self.accounts.borrow().clone()
    }

    /// Shows `state` in the slot `index`. The text is written before anything is locked.
    pub fn publish(&self, index: usize, state: AccountState) {
        let before = self.read();
        let prepared = Arc::new(Prepared::new(
            state,
            before.get(index).map(Arc::as_ref),
            self.metrics,
        ));
        drop(before);
        self.accounts.send_modify(|accounts| {
            let slots = accounts.iter().enumerate();
            *accounts = slots
                .map(|(slot, shown)| if slot == index { &prepared } else { shown }.clone())
                .collect();
        });
    }
}
