//! All that the exporter knows of one account, and the single way in which it changes.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::assessment::AssessmentRules;
use crate::domain::changes::{self, Change, ShrinkGuard};
use crate::domain::clocks::Clocks;
use crate::domain::event::{
    CHANGES_MAX, CROSSINGS_MAX, Event, KeyChanged, NamedKey, ThresholdCrossed,
};
use crate::domain::failure::{Failure, Reason};
use crate::domain::key::KeyId;
use crate::domain::listing::{Listing, Rejects};
use crate::domain::text::{Line, join_truncated};

/// What is fixed about an account as long as the configuration stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The operator's name for it.
    pub name: Box<str>,
    /// The provider whose API it is.
    pub provider: Box<str>,
    /// Where that API is.
    pub base_url: Box<str>,
    /// How often it is polled.
    pub interval: Duration,
    /// When a listing that lost many keys is believed.
    pub shrink: ShrinkGuard,
    /// The one scope that listing keys needs, where the provider has scopes.
    pub listing_scope: Option<Box<str>>,
}

/// The outcome of one finished poll.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The listing, or why there is none.
    pub result: Result<Listing, Failure>,
    /// The API's clock minus ours, where the last answer named a time.
    pub clock_skew: Option<TimeDelta>,
    /// How old the last answer was when it came, where a cache sent it.
    pub age: Option<Duration>,
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
    /// What the last successful poll rejected.
    rejects: Rejects,
    /// When thresholds were last compared with the clock.
    assessed_at: Option<DateTime<Utc>>,
    /// The exporter's own key in the last listing.
    own_key: OwnKey,
    /// How clocks disagree.
    clocks: Clocks,
}

/// The key that the exporter itself uses, as the last successful poll found it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnKey {
    /// No poll has succeeded yet.
    Unknown,
    /// It is not in the listing.
    Absent,
    /// It is this one.
    Listed(KeyId),
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
            rejects: Rejects::default(),
            assessed_at: None,
            own_key: OwnKey::Unknown,
            clocks: Clocks::default(),
        }
    }

    /// The same with the contents of a saved snapshot: keys and their age. Whether the API is up is
    /// not known before the first poll. Thresholds that were crossed before `listed_at` are not
    /// reported again.
    #[must_use]
    pub fn with_snapshot(&self, listing: Listing, listed_at: DateTime<Utc>) -> Self {
        Self {
            rejects: listing.rejects(),
            held: Some(Arc::new(listing)),
            last_success_at: Some(listed_at),
            assessed_at: Some(listed_at),
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

    /// What is known after a poll that ended at `now`, and the events of that poll. The only way in
    /// which keys come and go.
    ///
    /// `rules` decide which thresholds were crossed since the last poll and what keys are called;
    /// the next state does not depend on them. After a reload the last poll's moment is assessed by
    /// the new rules too, so that changed thresholds are no crossings.
    #[must_use]
    pub fn after(
        &self,
        outcome: Outcome,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
    ) -> (Self, Vec<Event>) {
        let mut next = self.clone();
        let mut events = Vec::new();
        next.polls += 1;
        next.clock_skew = outcome.clock_skew;
        events.extend(next.clocks.compare(outcome.clock_skew));
        events.extend(next.clocks.look_for_cache(outcome.age));
        let is_success = outcome.result.is_ok();
        next.last_attempt = Some(Attempt {
            at: now,
            is_success,
        });
        match outcome.result {
            Ok(listing) => {
                next.succeed(self, listing, rules, now, &mut events);
                if let (Some(age), 0) = (outcome.age, next.shrunk_listings) {
                    next.last_success_at = Some(listed_at(now, age, self.last_success_at));
                }
            }
            Err(failure) => next.fail(failure, now, &mut events),
        }
        // Time passes in a failed poll too.
        next.report_crossings(self.held.as_deref(), rules, now, &mut events);
        if is_success {
            next.report_own_key(rules, now, &mut events);
        }
        (next, events)
    }

    fn succeed(
        &mut self,
        before: &Self,
        listing: Listing,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let (keys, rejects) = (listing.keys().len(), listing.rejects());
        let rejected = rejects.total();
        events.push(Event::PollSucceeded { keys, rejected });
        let failures = before.consecutive_failures;
        if failures > 0 {
            events.push(Event::PollRecovered { keys, failures });
        } else if before.polls == 0 {
            events.push(Event::FirstListing { keys });
        }
        if rejected > 0 && rejects != before.rejects {
            let key_ids = join_truncated(listing.rejected_ids().iter().map(KeyId::as_str));
            events.push(Event::EntriesRejected { rejects, key_ids });
        }
        self.rejects = rejects;
        let api_now = self
            .clock_skew
            .and_then(|skew| now.checked_add_signed(skew));
        let latest = api_now.map_or(now, |api_now| api_now.max(now));
        let future_keys = self.clocks.look_for_future_keys(&listing, latest);
        self.consecutive_failures = 0;
        let held = before.held.as_ref().map_or(0, |held| held.keys().len());
        if before.holds_back(&listing) {
            self.shrunk_listings += 1;
            events.push(Event::ListingHeldBack {
                held,
                listed: keys,
                seen: self.shrunk_listings,
                needed: self.account.shrink.confirmations,
            });
        } else {
            if before.shrunk_listings > 0 {
                events.push(Event::HeldListingResolved {
                    is_confirmed: self.account.shrink.is_suspicious(held, keys),
                    held,
                    listed: keys,
                });
            }
            self.shrunk_listings = 0;
            self.last_success_at = Some(now);
            // Most polls bring nothing new. What was made from the old listing then still holds.
            if before.held.as_deref() != Some(&listing) {
                self.compare(&listing, rules, now, events);
                self.held = Some(Arc::new(listing));
            }
        }
        events.extend(future_keys);
    }

    fn fail(&mut self, failure: Failure, now: DateTime<Utc>, events: &mut Vec<Event>) {
        // An API in trouble is less to be believed, so that confirming starts anew.
        self.shrunk_listings = 0;
        self.consecutive_failures += 1;
        if let Some(entry) = self.failures.get_mut(failure.reason as usize) {
            entry.count += 1;
            if let Some(id) = &failure.support_id {
                entry.last_support_id = Some((id.clone(), now));
            }
        }
        events.push(Event::PollFailed(Box::new(failure)));
    }

    /// Counts and reports what `listing` changes. What widens a key comes first, so that it is
    /// reported whatever else changes.
    fn compare(
        &mut self,
        listing: &Listing,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let Some(held) = &self.held else { return };
        let mut changes = changes::between(held, listing);
        for change in &changes {
            if let Some(count) = self.changes.get_mut(change.change as usize) {
                *count += 1;
            }
        }
        changes.sort_by_key(|change| !change.is_widened());
        let account = &*self.account.name;
        let reported = changes.iter().take(CHANGES_MAX);
        let reported = reported.filter_map(|change| KeyChanged::new(account, change, rules, now));
        events.extend(reported.map(|changed| Event::KeyChanged(Box::new(changed))));
        let count = changes.len().saturating_sub(CHANGES_MAX);
        if count > 0 {
            events.push(Event::ChangesOmitted { count });
        }
    }

    /// Reports the keys that crossed a threshold since the last poll; `before` is the listing that
    /// was held then.
    fn report_crossings(
        &mut self,
        before: Option<&Listing>,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let Some(listing) = &self.held else { return };
        let before = before.zip(self.assessed_at.replace(now));
        let mut crossings = rules.crossings(&self.account.name, before, listing, now);
        let reported = crossings.by_ref().take(CROSSINGS_MAX);
        let reported = reported.map(|crossing| ThresholdCrossed::new(&crossing, now));
        events.extend(reported.map(|crossed| Event::ThresholdCrossed(Box::new(crossed))));
        let count = crossings.count();
        if count > 0 {
            events.push(Event::CrossingsOmitted { count });
        }
    }

    /// Reports the exporter's own key where it is another one than before.
    fn report_own_key(
        &mut self,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let keys = self.held.iter().flat_map(|listing| listing.keys());
        let own = keys.into_iter().find(|key| key.is_own);
        let found = own.map_or(OwnKey::Absent, |key| OwnKey::Listed(key.id.clone()));
        if found == self.own_key {
            return;
        }
        let Some(key) = own else {
            events.push(Event::OwnKeyAbsent);
            self.own_key = found;
            return;
        };
        let named = Box::new(NamedKey::new(&self.account.name, key, rules, now));
        events.push(Event::OwnKeyRecognised(named.clone()));
        if let Some(needed) = &self.account.listing_scope {
            let surplus = key.scopes.iter().filter(|scope| *scope != &**needed);
            let surplus = join_truncated(surplus);
            events.extend(surplus.map(|scopes| Event::OwnKeySurplusScopes {
                key: named,
                needed: needed.clone(),
                scopes,
            }));
        }
        self.own_key = found;
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

    /// Changes between listings by kind, every kind once.
    pub fn changes(&self) -> impl Iterator<Item = (Change, u64)> {
        Change::ALL.into_iter().zip(self.changes)
    }

    /// Failed polls by reason, every reason once.
    pub fn failures(&self) -> impl Iterator<Item = (Reason, &FailureCount)> {
        Reason::ALL.into_iter().zip(&self.failures)
    }
}

/// When the API made a listing that was `age` old at `now`: never before the last one, `known`,
/// because time does not go back.
fn listed_at(now: DateTime<Utc>, age: Duration, known: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let made_at = now
        .checked_sub_signed(age)
        .unwrap_or(DateTime::<Utc>::MIN_UTC);
    known
        .filter(|known| *known <= now)
        .map_or(made_at, |known| known.max(made_at))
}

#[cfg(test)]
mod event_tests;

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
            provider: "acme".into(),
            base_url: "https://api.acme.example/".into(),
            interval,
            shrink: ShrinkGuard::default(),
            listing_scope: Some("keys.read".into()),
        }))
    }

    impl AccountState {
        /// The state after a poll, where a test looks at nothing else.
        pub(crate) fn polled(&self, outcome: Outcome, now: DateTime<Utc>) -> Self {
            self.after(outcome, &AssessmentRules::default(), now).0
        }
    }

    /// A poll that listed these.
    pub(crate) fn listed(keys: Vec<Key>) -> Outcome {
        Outcome {
            result: Ok(Listing::new(keys, Rejects::default(), None)),
            clock_skew: None,
            age: None,
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
            age: None,
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
        let good = account().polled(success(&["a", "b"]), at(10));
        let bad = good.polled(failure(Reason::Timeout, None), at(20));
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
            .polled(success(&["a", "b"]), at(10))
            .polled(failure(Reason::Dns, None), at(20));
        let state = state.polled(success(&["c"]), at(30));
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
        let first = account().polled(success(&["a"]), at(10));
        let (same, other) = (
            first.polled(success(&["a"]), at(20)),
            first.polled(success(&["b"]), at(20)),
        );
        let held = |state: &AccountState| state.held.clone().unwrap();
        assert!(Arc::ptr_eq(&held(&first), &held(&same)));
        assert!(!Arc::ptr_eq(&held(&first), &held(&other)));
        assert_eq!(same.last_success_at, Some(at(20)));
    }

    #[test]
    fn a_listing_that_lost_most_keys_is_held_back_until_it_is_confirmed() {
        let good = account().polled(success(&["a", "b", "c"]), at(10));
        let held = good.polled(success(&["a"]), at(20));
        assert_eq!((ids(&held), held.shrunk_listings), (vec!["a", "b", "c"], 1));
        // The poll succeeded, but what is said of keys is as old as before.
        assert!(held.last_attempt.unwrap().is_success);
        assert_eq!((held.last_success_at, held.polls), (Some(at(10)), 2));
        let recovered = held.polled(success(&["a", "b", "c"]), at(30));
        assert_eq!((ids(&recovered).len(), recovered.shrunk_listings), (3, 0));
        let confirmed = held.polled(success(&[]), at(30));
        assert_eq!((ids(&confirmed).len(), confirmed.shrunk_listings), (0, 0));
        assert_eq!(confirmed.last_success_at, Some(at(30)));
        let failed = held.polled(failure(Reason::Timeout, None), at(30));
        let again = failed.polled(success(&["a"]), at(40));
        assert_eq!((ids(&again).len(), again.shrunk_listings), (3, 1));
    }

    #[test]
    fn changes_between_listings_are_counted_and_the_first_listing_is_none() {
        let state = account()
            .polled(success(&["a", "b"]), at(10))
            .polled(failure(Reason::Dns, None), at(20))
            .polled(success(&["b", "c", "d"]), at(30));
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
            state = state.polled(failure(reason, id), at(1));
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
