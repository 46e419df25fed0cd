//! Logs the inventory entries that match no key of any account.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

use crate::domain::text::join_truncated;
use crate::exposition::prepared::Prepared;

/// Which entries of the inventory were last said to match nothing; shared by all accounts, because
/// an entry may be meant for any.
#[derive(Debug, Default)]
pub struct Unmatched(Mutex<Vec<Box<str>>>);

impl Unmatched {
    /// Compares the inventory with what all accounts list, once all of them have a listing.
    pub fn look_at_inventory(&self, accounts: &[Arc<Prepared>]) {
        let Some(unmatched) = unmatched(accounts) else {
            return;
        };
        let entries = join_truncated(unmatched.iter().map(|pattern| &**pattern));
        let count = unmatched.len();
        match self.is_news(unmatched) {
            false => {}
            true if count > 0 => {
                warn!(
                    count,
                    entries, "entries of the inventory match no key, or none before another entry"
                );
            }
            true => info!("every entry of the inventory matches a key"),
        }
    }

    /// Remembers `patterns`; whether they are others than before.
    fn is_news(&self, patterns: Vec<Box<str>>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *said != patterns;
        *said = patterns;
        is_news
    }
}

/// The patterns that no key of any account is matched by; `None` while an account has no listing,
/// or has one that was judged by other settings.
fn unmatched(accounts: &[Arc<Prepared>]) -> Option<Vec<Box<str>>> {
    let entries = accounts.first()?.settings().inventory.entries();
    let mut unmatched = Vec::new();
    for account in accounts {
        account.state().held.as_ref()?;
        if account.matched_entries().len() != entries.len() {
            return None;
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        let is_matched =
            |account: &Arc<Prepared>| account.matched_entries().get(index) == Some(&true);
        if !accounts.iter().any(is_matched) {
            unmatched.push(entry.pattern.as_str().into());
        }
    }
    Some(unmatched)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::assessment::AssessmentRules;
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
    use crate::exposition::Metrics;

    const METRICS: Metrics = Metrics {
        relative: false,
        scope_info: false,
        max_scopes_per_key: 1,
    };

    /// An account with a listing of `ids`, or with none yet.
    fn prepared(
        name: &str,
        ids: Option<&[&str]>,
        settings: &Arc<AssessmentRules>,
    ) -> Arc<Prepared> {
        let mut state = polled_every(Duration::from_secs(60), name);
        if let Some(ids) = ids {
            let keys = ids.iter().map(|id| key(id)).collect();
            state = state.polled(listed(keys), at(0));
        }
        Arc::new(Prepared::new(state, None, METRICS, settings, at(0)))
    }

    #[test]
    fn an_entry_is_idle_where_no_account_has_a_key_for_it() {
        let of = |account: &str, pattern: &str| Entry {
            account: Some(account.into()),
            ..entry(pattern)
        };
        let entries = vec![
            entry("a"),
            of("shop", "b"),
            entry("c*"),
            entry("cc"),
            entry("gone"),
        ];
        let settings = Arc::new(AssessmentRules {
            inventory: Inventory::new(entries),
            ..AssessmentRules::default()
        });
        let shop = prepared("shop", Some(&["a"]), &settings);
        let office = prepared("office", Some(&["b", "cc"]), &settings);
        let waiting = prepared("waiting", None, &settings);
        let idle = unmatched(&[shop.clone(), office]).unwrap();
        // One is of another account, one comes after an entry that takes its key.
        let idle: Vec<&str> = idle.iter().map(|pattern| &**pattern).collect();
        assert_eq!(idle, ["b", "cc", "gone"]);
        assert_eq!(unmatched(&[shop, waiting]), None, "nobody knows yet");
    }

    #[test]
    fn idle_entries_are_news_when_they_change() {
        let said = Unmatched::default();
        let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        for (names, expected) in [
            (&[][..], false),
            (&["a"], true),
            (&["a"], false),
            (&["a", "b"], true),
            (&[], true),
            (&[], false),
        ] {
            assert_eq!(said.is_news(list(names)), expected, "{names:?}");
        }
    }
}
