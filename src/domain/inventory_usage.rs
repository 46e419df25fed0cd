//! Tracks which inventory entries match a key of any account. Updated per account, so that the cost
//! of a poll depends on its own account only.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::domain::inventory::Inventory;
use crate::domain::listing::Listing;

/// For each entry of an inventory, how many accounts have a key that uses it. `Id` identifies an
/// account.
#[derive(Debug)]
pub struct InventoryUsage<Id> {
    /// The number of accounts with a key that uses the entry at this index.
    accounts_by_entry: Vec<usize>,
    /// The entries that each account with a listing uses, in order.
    matched: HashMap<Id, Box<[usize]>>,
}

impl<Id: Hash + Eq> InventoryUsage<Id> {
    /// Starts without accounts. `entries` is the number of entries of the inventory.
    pub fn new(entries: usize) -> Self {
        Self {
            accounts_by_entry: vec![0; entries],
            matched: HashMap::new(),
        }
    }

    /// Replaces the entries that one account uses with those that its listing matches.
    pub fn update(&mut self, id: Id, matched: Box<[usize]>) {
        self.count(&matched, |count| count + 1);
        if let Some(before) = self.matched.insert(id, matched) {
            self.count(&before, |count| count.saturating_sub(1));
        }
    }

    /// Removes the accounts for which `is_known` returns false.
    pub fn retain(&mut self, is_known: impl Fn(&Id) -> bool) {
        let removed: Vec<_> = self.matched.extract_if(|id, _| !is_known(id)).collect();
        for (_, matched) in removed {
            self.count(&matched, |count| count.saturating_sub(1));
        }
    }

    /// How many accounts have a listing.
    pub fn accounts(&self) -> usize {
        self.matched.len()
    }

    /// Whether the account has a listing.
    pub fn has(&self, id: &Id) -> bool {
        self.matched.contains_key(id)
    }

    /// The indices of the entries that match no key of any account.
    pub fn unused(&self) -> impl Iterator<Item = usize> {
        let counts = self.accounts_by_entry.iter().enumerate();
        counts.filter_map(|(index, accounts)| (*accounts == 0).then_some(index))
    }

    fn count(&mut self, entries: &[usize], change: fn(usize) -> usize) {
        for index in entries {
            if let Some(count) = self.accounts_by_entry.get_mut(*index) {
                *count = change(*count);
            }
        }
    }
}

/// The indices of the entries of `inventory` that describe a key of `account`, in order.
pub fn matched_entries(inventory: &Inventory, account: &str, listing: &Listing) -> Box<[usize]> {
    let keys = listing.keys().iter();
    let matched: BTreeSet<usize> = keys
        .filter_map(|key| inventory.find(account, key))
        .collect();
    matched.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::Entry;
    use crate::domain::inventory::tests::entry;
    use crate::domain::key::tests::key;
    use crate::domain::listing::Rejects;

    fn matched(inventory: &Inventory, account: &str, ids: &[&str]) -> Box<[usize]> {
        let keys = ids.iter().map(|id| key(id)).collect();
        let listing = Listing::new(keys, Rejects::default(), None);
        matched_entries(inventory, account, &listing)
    }

    #[test]
    fn an_entry_is_unused_where_no_account_has_a_key_for_it() {
        let of = |account: &str, pattern: &str| Entry {
            account: Some(account.into()),
            ..entry(pattern)
        };
        let inventory = Inventory::new(vec![
            entry("a"),
            of("shop", "b"),
            entry("c*"),
            entry("cc"),
            entry("gone"),
        ]);
        let mut usage = InventoryUsage::new(inventory.entries().len());
        let unused = |usage: &InventoryUsage<u8>| usage.unused().collect::<Vec<_>>();
        assert_eq!(unused(&usage), [0, 1, 2, 3, 4]);
        usage.update(0, matched(&inventory, "shop", &["a"]));
        usage.update(1, matched(&inventory, "office", &["b", "cc", "cd"]));
        // One is for another account, one comes after an entry that takes its key.
        assert_eq!(unused(&usage), [1, 3, 4]);
        assert_eq!([0, 1, 2].map(|id| usage.has(&id)), [true, true, false]);
        usage.update(1, matched(&inventory, "office", &["a", "gone"]));
        assert_eq!(unused(&usage), [1, 2, 3]);
        usage.update(1, matched(&inventory, "office", &["a"]));
        assert_eq!(unused(&usage), [1, 2, 3, 4]);
        usage.retain(|id| *id == 1);
        assert_eq!(unused(&usage), [1, 2, 3, 4], "the other account has it too");
        usage.retain(|_| false);
        assert_eq!((unused(&usage), usage.accounts()), (vec![0, 1, 2, 3, 4], 0));
        assert!(!usage.has(&1));
    }
}
