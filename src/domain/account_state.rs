//! All that the exporter knows of one account, and the single way in which it changes.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::changes::{self, Change, ShrinkGuard};
use crate::domain::failure::{Failure, Reason};
use crate::domain::listing::Listing;
use crate::domain::text::Line;

/// What is fixed about an account as long as the configuration stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The operator's name for it.
    pub name: Box<str>,
    /// Whose API it is; `bitgpt`.
    pub provider: &'static str,
    /// Where that API is.
    pub base_url: Box<str>,
    /// How often it is polled.
    pub interval: Duration,
    /// When a listing that lost many keys is believed.
    pub shrink: ShrinkGuard,
}

/// The outcome of one finished poll.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The listing, or why there is none.
    pub result: Result<Listing, Failure>,
    /// The API's clock minus ours, where the last answer named a time.
    pub clock_skew: Option<TimeDelta>,
}

/// Failed polls of one reason since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureCount {
    /// How many.
    pub count: u64,
    /// The support id of the last one that had one, and when it came.
    pub last_support_id: Option<(Line, DateTime<Utc>)>,
}

/// How the last finished poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Whether it brought a listing.
    pub is_success: bool,
}

/// One account's knowledge: an immutable value, replaced whole.
#[derive(Clone, Debug)]
pub struct AccountState {
    /// Whose knowledge this is.
    pub account: Arc<Account>,
    /// The last good listing that was not held back; a failed poll leaves it as it is.
    pub held: Option<Arc<Listing>>,
    /// The last finished poll; `None` until there is one.
    pub last_attempt: Option<Attempt>,
    /// The end of the last successful poll whose listing was believed: how old the keys are.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When the next poll is due.
    pub next_poll_at: Option<DateTime<Utc>>,
    /// Finished polls since the start.
    pub polls: u64,
    /// Failed polls since the start, by reason, in the order of [`Reason::ALL`].
    failures: [FailureCount; Reason::COUNT],
    /// Failures in a row; 0 after a success.
    pub consecutive_failures: u64,
    /// The API's clock minus ours, as of the last finished poll.
    pub clock_skew: Option<TimeDelta>,
    /// Requests for details that failed since the start, in the order of [`Reason::ALL`]; `None`
    /// where details are off.
    pub details_failures: Option<[u64; Reason::COUNT]>,
    /// Listings in a row that lost suspiciously many keys and were held back; 0 else.
    pub shrunk_listings: u32,
    /// Changes seen between listings since the start, in the order of [`Change::ALL`].
    changes: [u64; Change::COUNT],
}

impl AccountState {
    /// What is known before the first poll.
    pub fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            held: None,
            last_attempt: None,
            last_success_at: None,
            next_poll_at: None,
            polls: 0,
            failures: Default::default(),
            consecutive_failures: 0,
            clock_skew: None,
            details_failures: None,
            shrunk_listings: 0,
            changes: [0; Change::COUNT],
        }
    }

    /// The same with what a saved snapshot tells: keys and their age. Whether the API is up is not
    /// known before it was asked.
    #[must_use]
    pub fn with_snapshot(&self, listing: Listing, listed_at: DateTime<Utc>) -> Self {
        Self {
            held: Some(Arc::new(listing)),
            last_success_at: Some(listed_at),
            ..self.clone()
        }
    }

    /// The same knowledge under other settings of the account.
    #[must_use]
    pub fn of(&self, account: Arc<Account>) -> Self {
        Self {
            account,
            ..self.clone()
        }
    }

    /// Whether there is something to serve: a poll has finished, good or bad, or a snapshot was
    /// loaded.
    pub fn is_ready(&self) -> bool {
        self.last_attempt.is_some() || self.held.is_some()
    }

    /// What is known after a poll that ended `at`. The only way in which keys come and go.
    #[must_use]
    pub fn after(&self, outcome: Outcome, at: DateTime<Utc>) -> Self {
        let mut next = self.clone();
        next.polls += 1;
        next.clock_skew = outcome.clock_skew;
        next.last_attempt = Some(Attempt {
            at,
            is_success: outcome.result.is_ok(),
        });
        match outcome.result {
            Ok(listing) if self.holds_back(&listing) => {
                next.shrunk_listings += 1;
                next.consecutive_failures = 0;
            }
            Ok(listing) => {
                next.shrunk_listings = 0;
                // Most polls bring nothing new. What was made from the old listing then still
                // holds.
                if self.held.as_deref() != Some(&listing) {
                    next.count_changes(&listing);
                    next.held = Some(Arc::new(listing));
                }
                next.last_success_at = Some(at);
                next.consecutive_failures = 0;
            }
            Err(failure) => {
                // An API in trouble is less to be believed, so that confirming starts anew.
                next.shrunk_listings = 0;
                next.consecutive_failures += 1;
                if let Some(entry) = next.failures.get_mut(failure.reason as usize) {
                    entry.count += 1;
                    if let Some(id) = failure.support_id {
                        entry.last_support_id = Some((id, at));
                    }
                }
            }
        }
        next
    }

    /// The same knowledge with the next poll due at `at`.
    #[must_use]
    pub fn with_next_poll(&self, at: DateTime<Utc>) -> Self {
        Self {
            next_poll_at: Some(at),
            ..self.clone()
        }
    }

    /// Whether `listing` would be held back, because it lost suspiciously many keys.
    pub fn holds_back(&self, listing: &Listing) -> bool {
        let held = self.held.as_ref().map_or(0, |held| held.keys().len());
        let keys = listing.keys().len();
        self.account
            .shrink
            .holds_back(held, keys, self.shrunk_listings)
    }

    fn count_changes(&mut self, listing: &Listing) {
        let Some(held) = &self.held else { return };
        for change in changes::between(held, listing) {
            if let Some(count) = self.changes.get_mut(change.change as usize) {
                *count += 1;
            }
        }
    }

    /// Changes between listings by kind, every kind once.
    pub fn changes(&self) -> impl Iterator<Item = (Change, u64)> {
        Change::ALL.into_iter().zip(self.changes)
    }

    /// Failed polls by reason, every reason once.
    pub fn failures(&self) -> impl Iterator<Item = (Reason, &FailureCount)> {
        Reason::ALL.into_iter().zip(&self.failures)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::key::Key;
    use crate::domain::key::tests::{at, key};
    use crate::domain::listing::Rejects;

    /// An account that was never polled.
    pub(crate) fn polled_every(interval: Duration, name: &str) -> AccountState {
        AccountState::new(Arc::new(Account {
            name: name.into(),
            provider: "bitgpt",
            base_url: "https://api.bitgpt.xyz/".into(),
            interval,
            shrink: ShrinkGuard::default(),
        }))
    }

    /// A poll that listed these.
    pub(crate) fn listed(keys: Vec<Key>) -> Outcome {
        Outcome {
            result: Ok(Listing::new(keys, Rejects::default(), None)),
            clock_skew: None,
        }
    }

    fn account() -> AccountState {
        polled_every(Duration::from_secs(300), "default")
    }

    fn success(ids: &[&str]) -> Outcome {
        listed(ids.iter().map(|id| key(id)).collect())
    }

    fn failure(reason: Reason, support_id: Option<&str>) -> Outcome {
        let failure = Failure {
            support_id: support_id.and_then(Line::support_id),
            ..Failure::new(reason, "")
        };
        Outcome {
            result: Err(failure),
            clock_skew: Some(TimeDelta::seconds(3)),
        }
    }

    fn ids(state: &AccountState) -> Vec<&str> {
        state
            .held
            .iter()
            .flat_map(|listing| listing.keys())
            .map(|key| key.id.as_str())
            .collect()
    }

    #[test]
    fn a_failed_poll_keeps_the_last_good_listing() {
        let good = account().after(success(&["a", "b"]), at(10));
        let bad = good.after(failure(Reason::Timeout, None), at(20));
        assert_eq!(ids(&bad), ["a", "b"]);
        assert_eq!(
            bad.last_attempt,
            Some(Attempt {
                at: at(20),
                is_success: false
            })
        );
        assert_eq!(bad.last_success_at, Some(at(10)));
        assert_eq!((bad.polls, bad.consecutive_failures), (2, 1));
        assert_eq!(bad.clock_skew, Some(TimeDelta::seconds(3)));
    }

    #[test]
    fn a_good_poll_replaces_the_listing_whole() {
        let state = account()
            .after(success(&["a", "b"]), at(10))
            .after(failure(Reason::Dns, None), at(20));
        let state = state.after(success(&["c"]), at(30));
        assert_eq!(ids(&state), ["c"]);
        assert_eq!(
            (
                state.polls,
                state.consecutive_failures,
                state.last_success_at
            ),
            (3, 0, Some(at(30)))
        );
    }

    #[test]
    fn a_poll_that_brings_nothing_new_keeps_the_very_same_listing() {
        let first = account().after(success(&["a"]), at(10));
        let (same, other) = (
            first.after(success(&["a"]), at(20)),
            first.after(success(&["b"]), at(20)),
        );
        let held = |state: &AccountState| state.held.clone().unwrap();
        assert!(Arc::ptr_eq(&held(&first), &held(&same)));
        assert!(!Arc::ptr_eq(&held(&first), &held(&other)));
        assert_eq!(same.last_success_at, Some(at(20)));
    }

    #[test]
    fn a_listing_that_lost_most_keys_is_held_back_until_it_is_confirmed() {
        let good = account().after(success(&["a", "b", "c"]), at(10));
        let held = good.after(success(&["a"]), at(20));
        assert_eq!((ids(&held), held.shrunk_listings), (vec!["a", "b", "c"], 1));
        // The poll succeeded, but what is said of keys is as old as before.
        assert!(held.last_attempt.unwrap().is_success);
        assert_eq!((held.last_success_at, held.polls), (Some(at(10)), 2));
        let recovered = held.after(success(&["a", "b", "c"]), at(30));
        assert_eq!((ids(&recovered).len(), recovered.shrunk_listings), (3, 0));
        let confirmed = held.after(success(&[]), at(30));
        assert_eq!((ids(&confirmed).len(), confirmed.shrunk_listings), (0, 0));
        assert_eq!(confirmed.last_success_at, Some(at(30)));
        let failed = held.after(failure(Reason::Timeout, None), at(30));
        let again = failed.after(success(&["a"]), at(40));
        assert_eq!((ids(&again).len(), again.shrunk_listings), (3, 1));
    }

    #[test]
    fn changes_between_listings_are_counted_and_the_first_listing_is_none() {
        let state = account()
            .after(success(&["a", "b"]), at(10))
            .after(failure(Reason::Dns, None), at(20))
            .after(success(&["b", "c", "d"]), at(30));
        let counts: Vec<(&str, u64)> = state
            .changes()
            .map(|(change, count)| (change.as_str(), count))
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(counts, [("added", 2), ("removed", 1)]);
    }

    #[test]
    fn failures_count_by_reason_and_remember_the_last_support_id() {
        let mut state = account();
        for (reason, id) in [
            (Reason::ServerError, Some("s1")),
            (Reason::ServerError, None),
            (Reason::Dns, None),
        ] {
            state = state.after(failure(reason, id), at(1));
        }
        let counts: Vec<(Reason, u64)> = state
            .failures()
            .map(|(reason, entry)| (reason, entry.count))
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(counts, [(Reason::Dns, 1), (Reason::ServerError, 2)]);
        let (_, server_error) = state
            .failures()
            .find(|(reason, _)| *reason == Reason::ServerError)
            .unwrap();
        let (id, _) = server_error.last_support_id.as_ref().unwrap();
        assert_eq!(id.as_str(), "s1");
    }
}
