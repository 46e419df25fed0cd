//! Where pollers put what they know and the server finds it: the exposition of all accounts,
//! swapped whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prometheus::proto::MetricFamily;
use tokio::sync::watch;

use crate::domain::account_state::AccountState;
use crate::domain::assessment::AssessmentRules;
use crate::exposition::body::{Exposition, Moving};
use crate::exposition::prepared::Prepared;
use crate::exposition::{Encoding, Format, Metrics};

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
    settings: Arc<AssessmentRules>,
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
    /// A board that shows `states`, in their order, in slots numbered from 0, judged by `settings`,
    /// as of `now`.
    pub fn new(
        states: impl IntoIterator<Item = AccountState>,
        metrics: Metrics,
        settings: Arc<AssessmentRules>,
        now: DateTime<Utc>,
    ) -> Self {
        let prepared: Vec<_> = states
            .into_iter()
            .map(|state| Arc::new(Prepared::new(state, None, metrics, &settings, now)))
            .collect();
        let names = (0..prepared.len()).collect();
        Self {
            shown: watch::Sender::new(Shown::new(prepared)),
            slots: Mutex::new(Slots {
                names,
                metrics,
                settings,
            }),
        }
    }

    /// All accounts as they are at `now`. Text that holds no longer, because a mute ended or a key
    /// became too old, is written anew first; that is rare.
    pub fn read(&self, now: DateTime<Utc>) -> Arc<Shown> {
        let shown = self.shown();
        if shown.accounts().iter().all(|account| account.holds_at(now)) {
            return shown;
        }
        let slots = self.slots();
        let mut accounts = self.shown().accounts().to_vec();
        for account in accounts.iter_mut().filter(|account| !account.holds_at(now)) {
            *account = slots.prepare(account.state().clone(), Some(account), now);
        }
        let shown = Shown::new(accounts);
        self.shown.send_replace(shown.clone());
        drop(slots);
        shown
    }

    /// What keys are judged by.
    pub fn settings(&self) -> Arc<AssessmentRules> {
        self.slots().settings.clone()
    }

    /// Tells whoever waits on it that something else is shown.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    /// Shows `state` in its slot, where that is still there. Readers wait for nothing but the swap.
    pub fn publish(&self, slot: usize, state: AccountState, now: DateTime<Utc>) {
        let slots = self.slots();
        let mut accounts = self.shown().accounts().to_vec();
        let index = slots.names.iter().position(|name| *name == slot);
        if let Some(shown) = index.and_then(|index| accounts.get_mut(index)) {
            *shown = slots.prepare(state, Some(shown), now);
        }
        self.shown.send_replace(Shown::new(accounts));
        drop(slots);
    }

    /// What the slot shows; `None` where there is no such slot.
    pub fn state(&self, slot: usize) -> Option<AccountState> {
        let slots = self.slots();
        let index = slots.names.iter().position(|name| *name == slot)?;
        let shown = self.shown();
        let account = shown.accounts().get(index)?;
        Some(account.state().clone())
    }

    /// Shows exactly these accounts from now on, in this order, judged by `settings`, all at once.
    pub fn rearrange(
        &self,
        plan: Vec<Slot>,
        metrics: Metrics,
        settings: Arc<AssessmentRules>,
        now: DateTime<Utc>,
    ) {
        let mut slots = self.slots();
        let shown = self.shown();
        let before = std::mem::replace(
            &mut *slots,
            Slots {
                names: Vec::new(),
                metrics,
                settings,
            },
        );
        let at = |slot: usize| {
            let index = before.names.iter().position(|name| *name == slot)?;
            shown.accounts().get(index)
        };
        // Text that other settings made is of no use.
        let same_text = before.metrics == metrics && Arc::ptr_eq(&before.settings, &slots.settings);
        let mut accounts = Vec::new();
        for change in plan {
            let (slot, prepared) = match change {
                Slot::Keep(slot) => match at(slot) {
                    Some(kept) if same_text => (slot, kept.clone()),
                    Some(kept) => (slot, slots.prepare(kept.state().clone(), None, now)),
                    None => continue,
                },
                Slot::Show(slot, state) => {
                    let previous = at(slot).filter(|_| same_text).map(Arc::as_ref);
                    (slot, slots.prepare(*state, previous, now))
                }
            };
            slots.names.push(slot);
            accounts.push(prepared);
        }
        self.shown.send_replace(Shown::new(accounts));
        drop(slots);
    }

    /// What was published last, for whoever looks at states and not at text.
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.borrow().clone()
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn prepare(
        &self,
        state: AccountState,
        previous: Option<&Prepared>,
        now: DateTime<Utc>,
    ) -> Arc<Prepared> {
        Arc::new(Prepared::new(
            state,
            previous,
            self.metrics,
            &self.settings,
            now,
        ))
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
                // Nobody holds it any more, as a rule, so that its text can be rewritten in place.
                let previous = last.take().and_then(|(_, moving)| Arc::into_inner(moving));
                let moving = Arc::new(self.exposition.moving(now, previous));
                *last = Some((second, moving.clone()));
                moving
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::Key;
    use crate::domain::key::tests::{at, key};
    use crate::domain::policy::Limits;

    /// A board with one key, made at 0, muted until 100, too old from 200 on.
    fn board(now: i64) -> Board {
        let key = Key {
            created_at: Some(at(0)),
            ..key("k")
        };
        let state = polled_every(Duration::from_secs(60), "a").polled(listed(vec![key]), at(now));
        let muted = Entry {
            muted_until: Some(at(100)),
            ..entry("*")
        };
        let settings = AssessmentRules {
            inventory: Inventory::new(vec![muted]),
            policy: Limits {
                max_age: Some(chrono::TimeDelta::seconds(200)),
                ..Limits::default()
            },
            ..AssessmentRules::default()
        };
        let metrics = Metrics {
            relative: false,
            scope_info: false,
            max_scopes_per_key: 1,
        };
        Board::new([state], metrics, Arc::new(settings), at(now))
    }

    /// Whether the key is shown as muted, and as too old.
    fn shown(board: &Board, now: i64) -> (bool, bool) {
        let (now, encoding) = (at(now), Encoding::Identity);
        let text = board.read(now).scrape(now, &[], Format::Text, encoding);
        let text = text.concat();
        let text = String::from_utf8(text).unwrap();
        (
            text.contains("api_key_muted{account=\"a\",key_id=\"k\"} 1"),
            text.contains("policy=\"too_old\""),
        )
    }

    #[test]
    fn a_scrape_is_a_function_of_state_and_now_whatever_was_read_before() {
        let table = [
            (0, (true, false)),
            (99, (true, false)),
            (100, (false, false)),
            (101, (false, false)),
            (199, (false, false)),
            (200, (false, true)),
            (201, (false, true)),
            (1 << 40, (false, true)),
        ];
        for (prepared_at, _) in table {
            let board = board(prepared_at);
            // Forwards, and back again as a clock may go.
            for (now, expected) in table.iter().chain(table.iter().rev()) {
                assert_eq!(
                    shown(&board, *now),
                    *expected,
                    "from {prepared_at} to {now}"
                );
            }
        }
    }

    #[test]
    fn text_that_still_holds_is_not_written_again() {
        let board = board(0);
        let first = board.read(at(0));
        assert!(Arc::ptr_eq(&first, &board.read(at(99))));
        assert!(!Arc::ptr_eq(&first, &board.read(at(100))));
    }
}
