//! Logs which entries of the inventory match no key of any account, when that changes. Considers
//! all accounts together, because an entry may be meant for any of them.
//!
//! A shard has only some of the accounts, so it considers only the entries for one of these.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Weak};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::domain::account_state::AccountState;
use crate::domain::assessment::AssessmentRules;
use crate::domain::inventory_usage::{InventoryUsage, matched_entries};
use crate::domain::listing::Listing;
use crate::event_log::InventoryLog;
use crate::state_store::{AccountId, Changes, Replaced, StateStore, Subscription};

/// The known usage of the inventory.
#[derive(Debug)]
struct Watch {
    accounts: Arc<[AccountId]>,
    rules: Arc<AssessmentRules>,
    usage: InventoryUsage<AccountId>,
    /// The listings that have been compared with the inventory. Weak references do not keep them
    /// alive.
    listings: HashMap<AccountId, Weak<Listing>>,
    /// The names of the accounts of which a poll has finished, but which were never listed.
    failed: HashMap<AccountId, Box<str>>,
    /// Whether any of this changed since the unused entries were last determined.
    is_changed: bool,
}

/// The entries that match no key, as far as is known.
#[derive(Debug, PartialEq, Eq)]
struct Unused {
    patterns: Vec<Box<str>>,
    /// The accounts that have never been listed; they may have a key for any of the entries.
    not_listed: Vec<Box<str>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            accounts: Arc::default(),
            rules: Arc::default(),
            usage: InventoryUsage::new(0),
            listings: HashMap::new(),
            failed: HashMap::new(),
            is_changed: false,
        }
    }
}

/// Compares the inventory with each new listing, until `stop`.
pub async fn run(store: Arc<StateStore>, stop: CancellationToken) {
    let mut subscription = store.subscribe();
    let mut watch = Watch::default();
    let mut log = InventoryLog::default();
    while stop
        .run_until_cancelled(subscription.changed())
        .await
        .is_some()
    {
        let changes = subscription.take();
        let listed = watch.new_listings(changes, &subscription);
        if !listed.is_empty() {
            // Many keys and many patterns take a while.
            let compared = spawn_blocking(move || {
                watch.compare(&listed);
                watch
            });
            match compared.await {
                Ok(compared) => watch = compared,
                // A panic is already logged. Restarts with all accounts.
                Err(_panicked) => {
                    (subscription, watch) = (store.subscribe(), Watch::default());
                    continue;
                }
            }
        }
        if let Some(unused) = watch.unused() {
            let shard = watch.rules.inventory.shard();
            log.unused(unused.patterns, unused.not_listed, shard);
        }
    }
}

impl Watch {
    /// Applies changes, and returns the accounts with a listing to compare with the inventory.
    fn new_listings(
        &mut self,
        changes: Changes,
        subscription: &Subscription,
    ) -> Vec<(AccountId, Arc<AccountState>)> {
        let mut states = changes.states;
        self.is_changed |= changes.replaced.is_some();
        if let Some(Replaced { order, settings }) = changes.replaced {
            let known: HashSet<AccountId> = order.iter().copied().collect();
            self.accounts = order;
            if Arc::ptr_eq(&self.rules, &settings.rules) {
                self.usage.retain(|id| known.contains(id));
                self.listings.retain(|id, _| known.contains(id));
                self.failed.retain(|id, _| known.contains(id));
            } else {
                self.usage = InventoryUsage::new(settings.rules.inventory.entries().len());
                self.listings.clear();
                self.failed.clear();
                self.rules = settings.rules;
                let all = self.accounts.iter();
                states = all
                    .filter_map(|id| Some((*id, subscription.state(*id)?)))
                    .collect();
            }
        }
        for (id, state) in &states {
            if state.held.is_none() && state.last_attempt.is_some() && !self.usage.has(id) {
                let name = state.account.name.clone();
                self.is_changed |= self.failed.insert(*id, name).is_none();
            }
        }
        states.retain(|(id, state)| match (&state.held, self.listings.get(id)) {
            (Some(held), Some(known)) => known.as_ptr() != Arc::as_ptr(held),
            (held, _) => held.is_some(),
        });
        self.is_changed |= !states.is_empty();
        states
    }

    fn compare(&mut self, listed: &[(AccountId, Arc<AccountState>)]) {
        for (id, state) in listed {
            let Some(listing) = &state.held else { continue };
            let inventory = &self.rules.inventory;
            let matched = matched_entries(inventory, &state.account.name, listing);
            self.usage.update(*id, matched);
            self.failed.remove(id);
            self.listings.insert(*id, Arc::downgrade(listing));
        }
    }

    /// The entries that match no listed key; `None` while an account has neither a listing nor
    /// finished a poll, before any account is listed, and if nothing changed since the last call.
    /// An entry for one account is not judged before that account is listed.
    fn unused(&mut self) -> Option<Unused> {
        if !mem::take(&mut self.is_changed) {
            return None;
        }
        // Each account is counted in one of the two.
        let known = self.usage.accounts() + self.failed.len();
        if self.usage.accounts() == 0 || known < self.accounts.len() {
            return None;
        }
        let not_listed: BTreeSet<&str> = self.failed.values().map(|name| &**name).collect();
        let inventory = &self.rules.inventory;
        let unused = self.usage.unused();
        let unused = unused.filter_map(|index| inventory.entries().get(index));
        let unused = unused.filter(|entry| {
            let only = entry.account.as_ref();
            let is_listed = only.is_none_or(|account| !not_listed.contains(&**account));
            is_listed && inventory.is_decidable(entry)
        });
        let patterns = unused.map(|entry| entry.pattern.as_str().into());
        Some(Unused {
            patterns: patterns.collect(),
            not_listed: not_listed.into_iter().map(Into::into).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{failure, listed, polled_every};
    use crate::domain::failure::Reason;
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
    use crate::domain::shard::Shard;
    use crate::domain::view::{Metrics, ViewSettings};
    use crate::state_store::AccountUpdate;

    fn settings(patterns: &[&str]) -> ViewSettings {
        let entries = patterns.iter().map(|pattern| entry(pattern)).collect();
        settings_of(Inventory::new(entries))
    }

    fn settings_of(inventory: Inventory) -> ViewSettings {
        ViewSettings {
            rules: Arc::new(AssessmentRules {
                inventory,
                ..AssessmentRules::default()
            }),
            metrics: Metrics {
                relative: true,
                scope_info: true,
                max_scopes_per_key: 64,
                max_bytes_per_account: 64 << 20,
            },
        }
    }

    fn state(name: &str, ids: Option<&[&str]>) -> Arc<AccountState> {
        let state = polled_every(Duration::from_secs(60), name);
        Arc::new(match ids {
            Some(ids) => state.polled(listed(ids.iter().map(|id| key(id)).collect()), at(0)),
            None => state,
        })
    }

    #[test]
    fn an_entry_is_unused_once_every_account_is_listed_or_has_failed() {
        let store = Arc::new(StateStore::new(settings(&[])));
        let mut subscription = store.subscribe();
        let mut watch = Watch::default();
        let mut unused = || {
            let changes = subscription.take();
            let listed = watch.new_listings(changes, &subscription);
            watch.compare(&listed);
            let unused = watch.unused()?;
            Some([unused.patterns, unused.not_listed].map(|names| names.join(" ")))
        };
        let none = None::<[String; 2]>;
        let some = |patterns: &str, not_listed: &str| Some([patterns, not_listed].map(Into::into));
        assert_eq!(unused(), none, "no account");
        let (a, b) = (store.new_id(), store.new_id());
        let plan = vec![
            AccountUpdate::Set(a, state("a", Some(&["x"]))),
            AccountUpdate::Set(b, state("b", None)),
        ];
        let mut with_one_for_b = settings(&["x", "y", "z"]);
        let mut entries = with_one_for_b.rules.inventory.entries().to_vec();
        let of_b = Entry {
            account: Some("b".into()),
            ..entry("w")
        };
        entries.push(of_b);
        with_one_for_b.rules = Arc::new(AssessmentRules {
            inventory: Inventory::new(entries),
            ..AssessmentRules::default()
        });
        store.replace_accounts(plan, with_one_for_b);
        assert_eq!(unused(), none, "b may have a key for them");
        let failed = polled_every(Duration::from_secs(60), "b");
        let failed = failed.polled(failure(Reason::Dns, None), at(0));
        store.publish(b, Arc::new(failed));
        assert_eq!(unused(), some("y z", "b"));
        store.publish(b, state("b", Some(&["y"])));
        assert_eq!(unused(), some("z w", ""));
        let later = store.state(b).unwrap().with_next_poll(at(9));
        store.publish(b, Arc::new(later));
        assert_eq!(unused(), none, "nothing changed");
        // A changed inventory is compared with every account.
        let keep = |id| AccountUpdate::Keep(id);
        store.replace_accounts(vec![keep(a), keep(b)], settings(&["x", "y"]));
        assert_eq!(unused(), some("", ""));
        store.replace_accounts(vec![keep(a)], settings(&["x", "y"]));
        assert_eq!(unused(), some("y", ""));
    }

    #[test]
    fn a_shard_judges_the_entries_for_its_own_accounts_only() {
        let of = |account: &str, pattern: &str| Entry {
            account: Some(account.into()),
            ..entry(pattern)
        };
        // With two shards, "account-1" belongs to the first one and "account-2" to the second.
        let entries = vec![
            of("account-1", "x"),
            of("account-1", "y"),
            of("account-2", "z"),
            entry("w"),
        ];
        for (shard, expected) in [
            (Shard::default(), &["y", "z", "w"][..]),
            (Shard::new(0, 2).unwrap(), &["y"]),
        ] {
            let inventory = Inventory::new(entries.clone()).for_shard(shard);
            let settings = settings_of(inventory);
            let store = Arc::new(StateStore::new(settings.clone()));
            let mut subscription = store.subscribe();
            let update = AccountUpdate::Set(store.new_id(), state("account-1", Some(&["x"])));
            store.replace_accounts(vec![update], settings);
            let mut watch = Watch::default();
            let listed = watch.new_listings(subscription.take(), &subscription);
            watch.compare(&listed);
            let unused = watch.unused().unwrap().patterns;
            assert!(
                unused.iter().map(|it| &**it).eq(expected.iter().copied()),
                "{unused:?}"
            );
        }
    }
}
