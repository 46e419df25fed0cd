//! The states of all accounts: each is immutable, replaced as a whole by its poller, and read by
//! everything that shows or saves states.
//!
//! Publishing a state costs work for that account only: the lock is held for a pointer swap, and
//! nothing is rendered. Consumers subscribe and query which accounts changed since their last
//! query.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::account_state::AccountState;
use crate::domain::assessment::AssessmentRules;
use crate::domain::view::ViewSettings;

/// Identifies one account for the lifetime of the process. Not reused when the account is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(u64);

/// The states of all accounts. Each account has one writer, its poller.
#[derive(Debug)]
pub struct StateStore {
    current: Mutex<Current>,
    /// The version of `current`.
    version: watch::Sender<u64>,
    next_id: AtomicU64,
}

/// How one account is updated when the accounts are replaced.
#[derive(Debug)]
pub enum AccountUpdate {
    /// An existing account keeps its state.
    Keep(AccountId),
    /// An account, existing or new, gets this state.
    Set(AccountId, Arc<AccountState>),
}

/// All states at one point in time, in the order of the configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The settings for showing them.
    pub settings: ViewSettings,
    /// Each account with its state.
    pub accounts: Vec<(AccountId, Arc<AccountState>)>,
}

/// Totals over all accounts, updated with each change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of accounts.
    pub accounts: usize,
    /// Accounts that have finished a poll, or have a saved listing.
    pub ready: usize,
    /// Accounts with a failed last poll.
    pub failing: usize,
    /// Keys in all held listings.
    pub keys: usize,
}

/// The changes since the last query of a subscriber, as of one point in time.
#[derive(Debug, Default)]
pub struct Changes {
    /// Set at first, and if the list of accounts or the settings were replaced since.
    pub replaced: Option<Replaced>,
    /// The accounts with a changed state, with the latest one. No account appears twice.
    pub states: Vec<(AccountId, Arc<AccountState>)>,
    /// The version of the store after these changes.
    pub version: u64,
}

/// The current accounts, and the settings for showing them.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// In the order of the configuration.
    pub order: Arc<[AccountId]>,
    /// The settings for showing them.
    pub settings: ViewSettings,
}

/// Follows the changes of a store. Subscribers add no cost to the store: each remembers the version
/// up to which it has read.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<StateStore>,
    version: watch::Receiver<u64>,
    seen: u64,
}

#[derive(Debug)]
struct Current {
    settings: ViewSettings,
    /// Increased by each change.
    version: u64,
    /// The version in which the list of accounts or the settings last changed.
    replaced_in: u64,
    order: Arc<[AccountId]>,
    slots: HashMap<AccountId, Slot>,
    /// The version in which each account last changed; one entry per account.
    changed_in: BTreeMap<u64, AccountId>,
    totals: Totals,
}

#[derive(Debug)]
struct Slot {
    state: Arc<AccountState>,
    changed_in: u64,
}

impl StateStore {
    /// An empty store.
    pub fn new(settings: ViewSettings) -> Self {
        let current = Current {
            settings,
            version: 1,
            replaced_in: 1,
            order: Arc::default(),
            slots: HashMap::new(),
            changed_in: BTreeMap::new(),
            totals: Totals::default(),
        };
        Self {
            version: watch::Sender::new(current.version),
            current: Mutex::new(current),
            next_id: AtomicU64::new(0),
        }
    }

    /// An id for an account to be added by [`replace_accounts`](Self::replace_accounts).
    pub fn new_id(&self) -> AccountId {
        AccountId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Replaces the state of one account, unless the account has been removed.
    pub fn publish(&self, id: AccountId, state: Arc<AccountState>) {
        let mut current = self.current();
        let replaced = current.replace(id, state);
        self.version.send_replace(current.version);
        drop(current);
        // Freeing a long listing takes a while, so it happens without the lock.
        drop(replaced);
    }

    /// Atomically replaces the list of accounts by `plan`, in that order, and the settings by
    /// `settings`.
    pub fn replace_accounts(&self, plan: Vec<AccountUpdate>, settings: ViewSettings) {
        let mut current = self.current();
        current.version += 1;
        current.replaced_in = current.version;
        if current.settings != settings {
            current.settings = settings;
        }
        let mut removed = std::mem::take(&mut current.slots);
        current.changed_in.clear();
        current.totals = Totals::default();
        let mut order = Vec::with_capacity(plan.len());
        for update in plan {
            let (id, slot) = match update {
                AccountUpdate::Keep(id) => match removed.remove(&id) {
                    Some(slot) => (id, slot),
                    None => continue,
                },
                AccountUpdate::Set(id, state) => {
                    current.version += 1;
                    let changed_in = current.version;
                    (id, Slot { state, changed_in })
                }
            };
            current.totals.add(&slot.state);
            current.changed_in.insert(slot.changed_in, id);
            current.slots.insert(id, slot);
            order.push(id);
        }
        current.order = order.into();
        self.version.send_replace(current.version);
        drop(current);
        drop(removed);
    }

    /// The latest state of one account; `None` if it does not exist.
    pub fn state(&self, id: AccountId) -> Option<Arc<AccountState>> {
        self.current().slots.get(&id).map(|slot| slot.state.clone())
    }

    /// All states as of one point in time. For infrequent readers; others subscribe.
    pub fn snapshot(&self) -> Snapshot {
        let current = self.current();
        let accounts = current.order.iter();
        let accounts = accounts.filter_map(|id| Some((*id, current.slots.get(id)?.state.clone())));
        Snapshot {
            settings: current.settings.clone(),
            accounts: accounts.collect(),
        }
    }

    /// How keys are assessed.
    pub fn rules(&self) -> Arc<AssessmentRules> {
        self.current().settings.rules.clone()
    }

    /// Totals over all accounts.
    pub fn totals(&self) -> Totals {
        self.current().totals
    }

    /// Whether every account has something to serve.
    pub fn is_ready(&self) -> bool {
        let totals = self.totals();
        totals.ready == totals.accounts
    }

    /// Increased by each change; never 0.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Subscribes from the beginning: the first query returns all accounts.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription {
            store: self.clone(),
            version: self.version.subscribe(),
            seen: 0,
        }
    }

    /// Values are swapped in as a whole, so a panic leaves no partial update.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn replace(&mut self, id: AccountId, state: Arc<AccountState>) -> Option<Arc<AccountState>> {
        let slot = self.slots.get_mut(&id)?;
        self.version += 1;
        self.totals.remove(&slot.state);
        self.totals.add(&state);
        self.changed_in.remove(&slot.changed_in);
        self.changed_in.insert(self.version, id);
        slot.changed_in = self.version;
        Some(std::mem::replace(&mut slot.state, state))
    }
}

impl Totals {
    fn add(&mut self, state: &AccountState) {
        let [ready, failing, keys] = Self::of(state);
        self.accounts += 1;
        self.ready += ready;
        self.failing += failing;
        self.keys += keys;
    }

    fn remove(&mut self, state: &AccountState) {
        let [ready, failing, keys] = Self::of(state);
        self.accounts -= 1;
        self.ready -= ready;
        self.failing -= failing;
        self.keys -= keys;
    }

    fn of(state: &AccountState) -> [usize; 3] {
        let keys = state.held.as_ref().map_or(0, |held| held.keys().len());
        let is_failing = state.consecutive_failures > 0;
        [state.is_ready().into(), is_failing.into(), keys]
    }
}

impl Subscription {
    /// Waits for a change that was not taken yet.
    pub async fn changed(&mut self) {
        let seen = self.seen;
        let changed = self.version.wait_for(|version| *version != seen).await;
        // The sender lives as long as the store that this refers to.
        drop(changed);
    }

    /// Whether there is a change that was not taken yet.
    pub fn has_changed(&self) -> bool {
        *self.version.borrow() != self.seen
    }

    /// Discards the changes.
    pub fn skip(&mut self) {
        self.seen = self.store.version();
    }

    /// The changes since the last call, as of one point in time.
    pub fn take(&mut self) -> Changes {
        let current = self.store.current();
        let replaced = (current.replaced_in > self.seen).then(|| Replaced {
            order: current.order.clone(),
            settings: current.settings.clone(),
        });
        let changed = current.changed_in.range(self.seen + 1..);
        let states =
            changed.filter_map(|(_, id)| Some((*id, current.slots.get(id)?.state.clone())));
        let states = states.collect();
        self.seen = current.version;
        Changes {
            replaced,
            states,
            version: current.version,
        }
    }

    /// The latest state of one account.
    pub fn state(&self, id: AccountId) -> Option<Arc<AccountState>> {
        self.store.state(id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::Outcome;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::failure::{Failure, Reason};
    use crate::domain::key::tests::{at, key};
    use crate::domain::view::Metrics;

    fn settings() -> ViewSettings {
        ViewSettings {
            rules: Arc::default(),
            metrics: Metrics {
                relative: true,
                scope_info: true,
                max_scopes_per_key: 64,
                max_bytes_per_account: 64 << 20,
            },
        }
    }

    fn state(name: &str) -> Arc<AccountState> {
        Arc::new(polled_every(Duration::from_secs(60), name))
    }

    /// A store with an account for each name.
    fn store(names: &[&str]) -> (Arc<StateStore>, Vec<AccountId>) {
        let store = Arc::new(StateStore::new(settings()));
        let ids: Vec<AccountId> = names.iter().map(|_| store.new_id()).collect();
        let plan = ids.iter().zip(names);
        let plan = plan.map(|(id, name)| AccountUpdate::Set(*id, state(name)));
        store.replace_accounts(plan.collect(), settings());
        (store, ids)
    }

    fn ids(changes: &Changes) -> Vec<AccountId> {
        changes.states.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn a_subscriber_gets_each_account_that_changed_once_with_its_latest_state() {
        let (store, all) = store(&["a", "b", "c"]);
        let mut first = store.subscribe();
        let changes = first.take();
        assert_eq!(ids(&changes), all);
        assert_eq!(*changes.replaced.unwrap().order, all);
        assert!(!first.has_changed());
        for second in 1..=3 {
            let next = store.state(all[1]).unwrap().with_next_poll(at(second));
            store.publish(all[1], Arc::new(next));
        }
        assert!(first.has_changed());
        let changes = first.take();
        assert_eq!(ids(&changes), [all[1]]);
        assert_eq!(changes.states[0].1.next_poll_at, Some(at(3)));
        assert!(changes.replaced.is_none());
        assert!(ids(&first.take()).is_empty());
        // A new subscriber starts with all accounts.
        assert_eq!(ids(&store.subscribe().take()).len(), 3);
    }

    #[test]
    fn accounts_are_replaced_at_once_and_what_is_kept_is_no_change() {
        let (store, all) = store(&["a", "b", "c"]);
        let mut changes = store.subscribe();
        changes.take();
        let new = store.new_id();
        let plan = vec![
            AccountUpdate::Keep(all[2]),
            AccountUpdate::Set(new, state("d")),
            AccountUpdate::Keep(all[0]),
        ];
        store.replace_accounts(plan, settings());
        let taken = changes.take();
        assert_eq!(ids(&taken), [new]);
        assert_eq!(*taken.replaced.unwrap().order, [all[2], new, all[0]]);
        // The poller of a removed account may publish once more.
        store.publish(all[1], state("b"));
        assert!(ids(&changes.take()).is_empty());
        let names: Vec<String> = store
            .snapshot()
            .accounts
            .iter()
            .map(|(_, state)| state.account.name.to_string())
            .collect();
        assert_eq!(names, ["c", "d", "a"]);
        assert_eq!(store.totals().accounts, 3);
    }

    #[test]
    fn equal_settings_stay_the_same_value() {
        let (store, all) = store(&["a"]);
        let before = store.rules();
        let plan = all.iter().map(|id| AccountUpdate::Keep(*id));
        store.replace_accounts(plan.collect(), settings());
        assert!(Arc::ptr_eq(&before, &store.rules()));
    }

    #[test]
    fn totals_follow_each_change() {
        let (store, all) = store(&["a", "b"]);
        assert!(!store.is_ready());
        let good = state("a").polled(listed(vec![key("k"), key("l")]), at(1));
        let bad = Outcome {
            result: Err(Failure::new(Reason::Dns, "")),
            clock_skew: None,
            age: None,
            token: None,
            asked_at: None,
        };
        store.publish(all[0], Arc::new(good.clone()));
        assert!(!store.is_ready());
        store.publish(all[1], Arc::new(state("b").polled(bad.clone(), at(1))));
        assert!(store.is_ready());
        let expected = Totals {
            accounts: 2,
            ready: 2,
            failing: 1,
            keys: 2,
        };
        assert_eq!(store.totals(), expected);
        store.publish(all[0], Arc::new(good.polled(bad, at(2))));
        assert_eq!(store.totals().failing, 2);
        store.replace_accounts(vec![AccountUpdate::Keep(all[1])], settings());
        let expected = Totals {
            accounts: 1,
            ready: 1,
            failing: 1,
            keys: 0,
        };
        assert_eq!(store.totals(), expected);
    }

    #[tokio::test]
    async fn a_subscriber_waits_for_what_it_has_not_taken() {
        let (store, all) = store(&["a"]);
        let mut changes = store.subscribe();
        changes.changed().await;
        changes.take();
        let waiting = tokio::time::timeout(Duration::from_millis(20), changes.changed());
        assert!(waiting.await.is_err());
        store.publish(all[0], state("a"));
        changes.changed().await;
        assert_eq!(ids(&changes.take()), all);
    }
}
