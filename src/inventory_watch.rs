//! Logs which entries of the inventory match no key of any account, when that changes. Considers
//! all accounts together, because an entry may be meant for any of them.
//!
//! A shard has only some of the accounts, so it considers only the entries for one of these.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::account_state::AccountState;
use crate::domain::assessment::AssessmentRules;
use crate::domain::inventory_usage::{InventoryUsage, matched_entries};
use crate::domain::listing::Listing;
use crate::domain::shard::Shard;
use crate::domain::text::join_truncated;
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
    /// The patterns that were last logged.
    logged: Vec<Box<str>>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            accounts: Arc::default(),
            rules: Arc::default(),
            usage: InventoryUsage::new(0),
            listings: HashMap::new(),
            logged: Vec::new(),
        }
    }
}

/// Compares the inventory with each new listing, until `stop`.
pub async fn run(store: Arc<StateStore>, stop: CancellationToken) {
    let mut subscription = store.subscribe();
    let mut watch = Watch::default();
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
        if let Some(unused) = watch.news() {
            log(&unused, watch.rules.inventory.shard());
        }
    }
}

fn log(unused: &[Box<str>], shard: Shard) {
    let entries = join_truncated(unused.iter().map(|pattern| &**pattern));
    let count = unused.len();
    if count > 0 {
        warn!(
            count,
            entries, "inventory entries match no key, or are shadowed by an earlier entry"
        );
    } else if shard.is_one_of_several() {
        info!("every inventory entry for an account of this shard matches a key");
    } else {
        info!("every inventory entry matches a key");
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
        if let Some(Replaced { order, settings }) = changes.replaced {
            let known: HashSet<AccountId> = order.iter().copied().collect();
            self.accounts = order;
            if Arc::ptr_eq(&self.rules, &settings.rules) {
                self.usage.retain(|id| known.contains(id));
                self.listings.retain(|id, _| known.contains(id));
            } else {
                self.usage = InventoryUsage::new(settings.rules.inventory.entries().len());
                self.listings.clear();
                self.rules = settings.rules;
                let all = self.accounts.iter();
                states = all
                    .filter_map(|id| Some((*id, subscription.state(*id)?)))
                    .collect();
            }
        }
        states.retain(|(id, state)| match (&state.held, self.listings.get(id)) {
            (Some(held), Some(known)) => known.as_ptr() != Arc::as_ptr(held),
            (held, _) => held.is_some(),
        });
        states
    }

    fn compare(&mut self, listed: &[(AccountId, Arc<AccountState>)]) {
        for (id, state) in listed {
            let Some(listing) = &state.held else { continue };
            let inventory = &self.rules.inventory;
            let matched = matched_entries(inventory, &state.account.name, listing);
            self.usage.update(*id, matched);
            self.listings.insert(*id, Arc::downgrade(listing));
        }
    }

    /// The patterns that certainly match no key, if they differ from before; also `None` while an
    /// account has no listing.
    fn news(&mut self) -> Option<Vec<Box<str>>> {
        if self.accounts.is_empty() || self.usage.accounts() < self.accounts.len() {
            return None;
        }
        let inventory = &self.rules.inventory;
        let unused = self.usage.unused();
        let unused = unused.filter_map(|index| inventory.entries().get(index));
        let unused: Vec<Box<str>> = unused
            .filter(|entry| inventory.is_decidable(entry))
            .map(|entry| entry.pattern.as_str().into())
            .collect();
        let is_news = unused != self.logged;
        self.logged.clone_from(&unused);
        is_news.then_some(unused)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
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
    fn unused_entries_are_news_when_they_change_and_every_account_is_listed() {
        let store = Arc::new(StateStore::new(settings(&[])));
        let mut subscription = store.subscribe();
        let mut watch = Watch::default();
        let mut news = || {
            let changes = subscription.take();
            let listed = watch.new_listings(changes, &subscription);
            watch.compare(&listed);
            let news = watch.news()?;
            Some(news.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let none: Option<Vec<String>> = None;
        assert_eq!(news(), none, "no account");
        let (a, b) = (store.new_id(), store.new_id());
        let plan = vec![
            AccountUpdate::Set(a, state("a", Some(&["x"]))),
            AccountUpdate::Set(b, state("b", None)),
        ];
        store.replace_accounts(plan, settings(&["x", "y", "z"]));
        assert_eq!(news(), none, "b may have a key for them");
        store.publish(b, state("b", Some(&["y"])));
        assert_eq!(news().unwrap(), ["z"]);
        let later = store.state(b).unwrap().with_next_poll(at(9));
        store.publish(b, Arc::new(later));
        assert_eq!(news(), none, "nothing new");
        store.publish(b, state("b", Some(&["w"])));
        assert_eq!(news().unwrap(), ["y", "z"]);
        // A changed inventory is compared with every account.
        let keep = |id| AccountUpdate::Keep(id);
        store.replace_accounts(vec![keep(a), keep(b)], settings(&["x", "w"]));
        assert_eq!(news().unwrap(), Vec::<String>::new());
        store.replace_accounts(vec![keep(a)], settings(&["x", "w"]));
        assert_eq!(news().unwrap(), ["w"]);
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
            let unused = watch.news().unwrap();
            assert!(
                unused.iter().map(|it| &**it).eq(expected.iter().copied()),
                "{unused:?}"
            );
        }
    }
}
