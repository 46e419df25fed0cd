//! The known state of one account, and the only transition that changes it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::assessment::AssessmentRules;
use crate::domain::changes::{self, Change, Loss, ShrinkGuard};
use crate::domain::clocks::Clocks;
use crate::domain::event::{
    CHANGES_MAX, CROSSINGS_MAX, Event, KeyChanged, NamedKey, ThresholdCrossed, UrgentKeys,
};
use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Key, KeyId, Scopes};
use crate::domain::listing::{Listing, Rejects};
use crate::domain::poll_durations::PollDurations;
use crate::domain::text::{Line, join_truncated};
use crate::domain::token_mark::TokenMark;
use crate::domain::unlisted;

/// A last success less than this far in the future is corrected silently, because clocks are
/// adjusted all the time.
const SET_BACK_MIN: TimeDelta = TimeDelta::minutes(1);

/// An API clock that lags by less than this is treated as accurate: its time has whole seconds, and
/// a response takes a while.
const BEHIND_MIN: TimeDelta = TimeDelta::seconds(-2);

/// How often the summary of urgent keys is reported.
const SUMMARY_PERIOD: TimeDelta = TimeDelta::days(1);

/// Properties of an account that only a configuration change alters.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// The operator's name for it.
    pub name: Box<str>,
    /// The provider of the API.
    pub provider: Box<str>,
    /// The base URL of the API.
    pub base_url: Box<str>,
    /// How often it is polled.
    pub interval: Duration,
    /// When a listing that lost many keys is accepted.
    pub shrink: ShrinkGuard,
    /// How long an expired key that the API no longer lists is kept; zero disables this.
    pub expired_retention: TimeDelta,
    /// The only scope that the exporter's own key requires; `None` if the provider's listing does
    /// not show which key that is.
    pub listing_scope: Option<Box<str>>,
}

/// The outcome of one finished poll.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The listing, or why it failed.
    pub result: Result<Listing, Failure>,
    /// The API's clock minus ours, if the last response contained a time.
    pub clock_skew: Option<TimeDelta>,
    /// How old the last response was on arrival, if a cache served it.
    pub age: Option<Duration>,
    /// The token used for the request, if known.
    pub token: Option<TokenMark>,
    /// When the request was sent, if known.
    pub asked_at: Option<DateTime<Utc>>,
}

/// The state that survives a restart: what is known of an account's keys.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedState {
    /// The keys.
    pub listing: Arc<Listing>,
    /// When they were listed.
    pub listed_at: DateTime<Utc>,
    /// Listings since then that lost suspiciously many keys and were held back.
    pub shrunk_listings: u32,
    /// The token they were listed with, if known.
    pub token: Option<TokenMark>,
}

/// Failed polls of one reason since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FailureCount {
    /// How many.
    pub count: u64,
    /// The last support id received, and when it arrived.
    pub last_support_id: Option<(Line, DateTime<Utc>)>,
}

/// How the last finished poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: DateTime<Utc>,
    /// Whether it returned a listing.
    pub is_success: bool,
}

/// Why the last failed poll failed.
#[derive(Clone, Debug, PartialEq)]
pub struct LastFailure {
    /// When the poll ended.
    pub at: DateTime<Utc>,
    /// The reason and the API's message, cleaned.
    pub failure: Failure,
}

/// The state of one account: an immutable value that is always replaced as a whole.
#[derive(Clone, Debug)]
pub struct AccountState {
    /// The account that this state describes.
    pub account: Arc<Account>,
    /// The last good listing that was not held back; a failed poll leaves it as it is.
    pub held: Option<Arc<Listing>>,
    /// The last finished poll; `None` until there is one.
    pub last_attempt: Option<Attempt>,
    /// The end of the last successful poll with an accepted listing: the age of the keys.
    pub last_success_at: Option<DateTime<Utc>>,
    /// When the next poll is due.
    pub next_poll_at: Option<DateTime<Utc>>,
    /// Finished polls since the start.
    pub polls: u64,
    /// How long they took.
    pub poll_durations: PollDurations,
    /// Failed polls since the start, by reason, in the order of [`Reason::ALL`].
    failures: [FailureCount; Reason::COUNT],
    /// Failures in a row; 0 after a success.
    pub consecutive_failures: u64,
    /// The last failed poll since the start; a success after it leaves it as it is.
    pub last_failure: Option<Arc<LastFailure>>,
    /// The API's clock minus ours, as of the last finished poll.
    pub clock_skew: Option<TimeDelta>,
    /// Requests for details that failed since the start, in the order of [`Reason::ALL`]; `None`
    /// if details are disabled.
    pub details_failures: Option<[u64; Reason::COUNT]>,
    /// Why the last finished poll failed; `None` if it succeeded.
    pub failing: Option<Reason>,
    /// Listings in a row that lost suspiciously many keys and were held back, ignoring failed polls
    /// between them; 0 otherwise.
    pub shrunk_listings: u32,
    /// The token that `held` was listed with.
    token: Option<TokenMark>,
    /// Changes seen between listings since the start, in the order of [`Change::ALL`].
    changes: [u64; Change::COUNT],
    /// What the last successful poll rejected.
    rejects: Rejects,
    /// When thresholds were last compared with the clock.
    assessed_at: Option<DateTime<Utc>>,
    /// The exporter's own key in the last listing.
    own_key: OwnKey,
    /// Detects disagreement between clocks.
    clocks: Clocks,
    /// How far in the future a saved listing was, until this is reported.
    clock_set_back: Option<TimeDelta>,
    /// When the summary of urgent keys was last reported.
    summarised_at: Option<DateTime<Utc>>,
}

/// The exporter's own key, as the last successful poll found it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OwnKey {
    /// No poll has succeeded yet.
    Unknown,
    /// It is not in the listing.
    Absent,
    /// It is this one.
    Listed(KeyId),
}

/// A listing that a poll returned.
struct Listed {
    listing: Listing,
    token: Option<TokenMark>,
    /// When the API created it.
    at: DateTime<Utc>,
    /// The earliest time at which the API can have created it, by both its clock and ours. A key
    /// listed with an earlier expiry was certainly listed as expired.
    not_before: DateTime<Utc>,
}

impl AccountState {
    /// The state before the first poll.
    pub fn new(account: Arc<Account>) -> Self {
        Self {
            account,
            held: None,
            last_attempt: None,
            last_success_at: None,
            next_poll_at: None,
            polls: 0,
            poll_durations: PollDurations::default(),
            failures: Default::default(),
            consecutive_failures: 0,
            last_failure: None,
            clock_skew: None,
            details_failures: None,
            failing: None,
            shrunk_listings: 0,
            token: None,
            changes: [0; Change::COUNT],
            rejects: Rejects::default(),
            assessed_at: None,
            own_key: OwnKey::Unknown,
            clocks: Clocks::default(),
            clock_set_back: None,
            summarised_at: None,
        }
    }

    /// This state with a saved listing restored: keys and their age. Whether the API is up is
    /// unknown before the first poll. Thresholds that were crossed before the keys were listed are
    /// not reported again. A listing from the future, saved while the clock was ahead, counts as of
    /// `now`.
    #[must_use]
    pub fn with_saved(&self, saved: SavedState, now: DateTime<Utc>) -> Self {
        let listed_at = saved.listed_at.min(now);
        Self {
            rejects: saved.listing.rejects(),
            held: Some(saved.listing),
            last_success_at: Some(listed_at),
            assessed_at: Some(listed_at),
            shrunk_listings: saved.shrunk_listings,
            token: saved.token,
            clock_set_back: Some(saved.listed_at - listed_at),
            ..self.clone()
        }
    }

    /// The part to save, if there is any.
    pub fn to_save(&self) -> Option<SavedState> {
        Some(SavedState {
            listing: self.held.clone()?,
            listed_at: self.last_success_at?,
            shrunk_listings: self.shrunk_listings,
            token: self.token,
        })
    }

    /// The token the keys were listed with.
    pub fn token(&self) -> Option<&TokenMark> {
        self.token.as_ref()
    }

    /// This state with other settings of the account.
    #[must_use]
    pub fn of(&self, account: Arc<Account>) -> Self {
        Self {
            account,
            ..self.clone()
        }
    }

    /// Whether there is something to serve: a poll has finished, successfully or not, or a snapshot
    /// was loaded.
    pub fn is_ready(&self) -> bool {
        self.last_attempt.is_some() || self.held.is_some()
    }

    /// The state after a poll that ended at `now`, and the events of that poll. The only transition
    /// that adds or removes keys.
    ///
    /// `rules` determine which thresholds were crossed since the last poll, the names of keys, and
    /// which expired keys are kept that the API no longer lists. After a reload, the time of the
    /// last poll is assessed by the new rules too, so that changed thresholds do not count as
    /// crossings.
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
        next.correct_future_success(now, &mut events);
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
                let age = outcome.age.unwrap_or_default();
                let at = listed_at(now, age, self.last_success_at);
                let behind = outcome.clock_skew.filter(|skew| *skew <= BEHIND_MIN);
                let asked_at = outcome.asked_at.map_or(at, |asked_at| asked_at.min(at));
                let listed = Listed {
                    listing,
                    token: outcome.token,
                    at,
                    not_before: asked_at
                        .checked_add_signed(behind.unwrap_or_default())
                        .unwrap_or(DateTime::<Utc>::MIN_UTC),
                };
                next.succeed(self, listed, rules, now, &mut events);
            }
            Err(failure) => {
                next.fail(failure, now, &mut events);
                next.let_go_of_unlisted(rules, now, &mut events);
            }
        }
        // Time also passes during a failed poll.
        next.report_crossings(self.held.as_deref(), rules, now, &mut events);
        if is_success {
            next.report_own_key(rules, now, &mut events);
        }
        next.report_urgent_keys(rules, now, &mut events);
        (next, events)
    }

    /// A last success in the future would keep alerts about stale keys from firing.
    fn correct_future_success(&mut self, now: DateTime<Utc>, events: &mut Vec<Event>) {
        let mut by = self.clock_set_back.take().unwrap_or_default();
        if let Some(last) = &mut self.last_success_at {
            by = by.max(*last - now);
            *last = now.min(*last);
        }
        if by > SET_BACK_MIN {
            events.push(Event::ClockSetBack { by });
        }
    }

    fn succeed(
        &mut self,
        before: &Self,
        listed: Listed,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let listing = &listed.listing;
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
            let key_ids = join_truncated(listing.rejected_ids().map(KeyId::as_str));
            events.push(Event::EntriesRejected { rejects, key_ids });
        }
        self.rejects = rejects;
        let api_now = self
            .clock_skew
            .and_then(|skew| now.checked_add_signed(skew));
        let latest = api_now.map_or(now, |api_now| api_now.max(now));
        let future_keys = self.clocks.look_for_future_keys(listing, latest);
        (self.consecutive_failures, self.failing) = (0, None);
        let is_of_another_token = self.is_of_another_token(listed.token.as_ref());
        match self.held.clone() {
            None => self.hold(listed),
            Some(held) if is_of_another_token && have_no_key_in_common(&held, listing) => {
                events.push(Event::OrganizationChanged {
                    held: held.keys().len(),
                    listed: keys,
                });
                self.hold(listed);
            }
            Some(held) => {
                let loss = Loss::between(&held, listing, listed.at);
                let shrink = &self.account.shrink;
                if !is_of_another_token && shrink.holds_back(loss, keys == 0, self.shrunk_listings)
                {
                    self.hold_back(&held, &listed, events);
                } else {
                    let is_confirmed = shrink.is_suspicious(loss, keys == 0);
                    self.replace(&held, listed, is_confirmed, rules, now, events);
                }
            }
        }
        events.extend(future_keys);
    }

    /// Whether `token` certainly differs from the token of the listing in use.
    fn is_of_another_token(&self, token: Option<&TokenMark>) -> bool {
        self.token
            .as_ref()
            .zip(token)
            .is_some_and(|(held, token)| held.differs(token))
    }

    /// Keeps the listing in use instead of `listing`, which lost too many of its keys.
    fn hold_back(&mut self, held: &Listing, listed: &Listed, events: &mut Vec<Event>) {
        self.shrunk_listings = self.shrunk_listings.saturating_add(1);
        events.push(Event::ListingHeldBack {
            held: held.keys().len(),
            listed: listed.listing.keys().len(),
            seen: self.shrunk_listings,
            needed: self.account.shrink.confirmations,
        });
        // Even so, it is evidence that the API still lists an expired key.
        if let Some(held) = held.seen_in(&listed.listing, listed.not_before) {
            self.held = Some(Arc::new(held));
        }
    }

    /// Replaces `held`, the listing in use, by a listing of the same organization.
    fn replace(
        &mut self,
        held: &Listing,
        listed: Listed,
        is_confirmed: bool,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        if self.shrunk_listings > 0 {
            events.push(Event::HeldListingResolved {
                is_confirmed,
                held: held.keys().len(),
                listed: listed.listing.keys().len(),
            });
        }
        let listing = listed.listing.keeping(held);
        let missing = held.missing_in(&listing, listed.at);
        let unlisted = self.kept_of(missing, &listing, rules, now);
        let is_new = |key: &&Key| {
            let known = held.get(key.id.as_str());
            known.is_some_and(|known| known.unlisted_since.is_none())
        };
        let new: Vec<&str> = unlisted
            .iter()
            .filter(is_new)
            .map(|key| key.id.as_str())
            .collect();
        let keys = new.len();
        let key_ids = join_truncated(new);
        if keys > 0 {
            events.push(Event::KeysUnlisted { keys, key_ids });
        }
        let listing = listing.with_keys(unlisted);
        self.compare(&listing, rules, now, events);
        self.hold(Listed { listing, ..listed });
    }

    /// The keys of `missing` to keep in addition to the keys of `listing`.
    fn kept_of(
        &self,
        missing: Vec<Key>,
        listing: &Listing,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
    ) -> Vec<Key> {
        let retention = self.account.expired_retention;
        unlisted::kept(missing, listing, &self.account.name, rules, retention, now)
    }

    /// Puts a listing into use.
    fn hold(&mut self, listed: Listed) {
        let listing = listed.listing.taken_at(listed.not_before);
        self.shrunk_listings = 0;
        self.last_success_at = Some(listed.at);
        self.token = listed.token.or(self.token);
        // Most polls return nothing new. Text rendered from the old listing then remains valid.
        if self.held.as_deref() != Some(&listing) {
            self.held = Some(Arc::new(listing));
        }
    }

    /// Drops kept keys that the API no longer lists once their retention is over.
    fn let_go_of_unlisted(
        &mut self,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let Some(held) = self.held.clone() else {
            return;
        };
        let listed = held.only_listed();
        if listed.keys().len() == held.keys().len() {
            return;
        }
        let missing = held.missing_in(&listed, now);
        let kept = self.kept_of(missing, &listed, rules, now);
        let listing = listed.with_keys(kept);
        if *held != listing {
            self.compare(&listing, rules, now, events);
            self.held = Some(Arc::new(listing));
        }
    }

    fn fail(&mut self, failure: Failure, now: DateTime<Utc>, events: &mut Vec<Event>) {
        self.consecutive_failures += 1;
        self.failing = Some(failure.reason);
        if let Some(entry) = self.failures.get_mut(failure.reason as usize) {
            entry.count += 1;
            if let Some(id) = &failure.support_id {
                entry.last_support_id = Some((id.clone(), now));
            }
        }
        self.last_failure = Some(Arc::new(LastFailure {
            at: now,
            failure: failure.clone(),
        }));
        events.push(Event::PollFailed(Box::new(failure)));
    }

    /// Reports the summary of urgent keys at the first poll since the start, then once a day.
    fn report_urgent_keys(
        &mut self,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let Some(listing) = &self.held else { return };
        // A time in the future means that the clock was set back.
        let is_recent =
            |at: DateTime<Utc>| (TimeDelta::zero()..SUMMARY_PERIOD).contains(&(now - at));
        if self.summarised_at.is_some_and(is_recent) {
            return;
        }
        self.summarised_at = Some(now);
        let urgent = UrgentKeys::of(&self.account.name, listing, rules, now);
        events.extend(urgent.map(|urgent| Event::UrgentKeys(Box::new(urgent))));
    }

    /// Counts and reports what `listing` changes. Changes that widen a key come first, so that they
    /// are reported however many other changes there are.
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

    /// Reports the exporter's own key if it differs from the one before.
    fn report_own_key(
        &mut self,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
        events: &mut Vec<Event>,
    ) {
        let Some(needed) = &self.account.listing_scope else {
            return;
        };
        let keys = self.held.iter().flat_map(|listing| listing.keys());
        let own = keys
            .into_iter()
            .find(|key| key.is_own && key.unlisted_since.is_none());
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
        events.push(Event::OwnKeyRecognized(named.clone()));
        let scopes = key.scopes.iter().flat_map(Scopes::iter);
        let surplus = join_truncated(scopes.filter(|scope| *scope != &**needed));
        events.extend(surplus.map(|scopes| Event::OwnKeySurplusScopes {
            key: named,
            needed: needed.clone(),
            scopes,
        }));
        self.own_key = found;
    }

    /// This state with the next poll due at `at`.
    #[must_use]
    pub fn with_next_poll(&self, at: DateTime<Utc>) -> Self {
        Self {
            next_poll_at: Some(at),
            ..self.clone()
        }
    }

    /// Changes between listings, by kind; each kind appears once.
    pub fn changes(&self) -> impl Iterator<Item = (Change, u64)> {
        Change::ALL.into_iter().zip(self.changes)
    }

    /// Failed polls by reason; each reason appears once.
    pub fn failures(&self) -> impl Iterator<Item = (Reason, &FailureCount)> {
        Reason::ALL.into_iter().zip(&self.failures)
    }
}

/// When the API created a listing that was `age` old at `now`: never before the last one, `known`,
/// because time does not go backwards.
fn listed_at(now: DateTime<Utc>, age: Duration, known: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let age = TimeDelta::from_std(age).unwrap_or(TimeDelta::MAX);
    let made_at = now
        .checked_sub_signed(age)
        .unwrap_or(DateTime::<Utc>::MIN_UTC);
    known
        .filter(|known| *known <= now)
        .map_or(made_at, |known| known.max(made_at))
}

fn have_no_key_in_common(held: &Listing, listing: &Listing) -> bool {
    held.keys().iter().all(|key| !listing.has_entry(&key.id))
}

#[cfg(test)]
mod event_tests;

#[cfg(test)]
mod held_tests;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
            expired_retention: TimeDelta::days(7),
            listing_scope: Some("keys.read".into()),
        }))
    }

    impl AccountState {
        /// The state after a poll, for tests that check nothing else.
        pub(crate) fn polled(&self, outcome: Outcome, now: DateTime<Utc>) -> Self {
            self.after(outcome, &AssessmentRules::default(), now).0
        }
    }

    /// A poll that listed these keys.
    pub(crate) fn listed(keys: Vec<Key>) -> Outcome {
        Outcome {
            result: Ok(Listing::new(keys, Rejects::default(), None)),
            clock_skew: None,
            age: None,
            token: None,
            asked_at: None,
        }
    }

    fn account() -> AccountState {
        polled_every(Duration::from_secs(300), "default")
    }

    fn success(ids: &[&str]) -> Outcome {
        listed(ids.iter().map(|id| key(id)).collect())
    }

    pub(crate) fn failure(reason: Reason, support_id: Option<&str>) -> Outcome {
        let failure = Failure {
            support_id: support_id.map(Line::own),
            ..Failure::new(reason, "")
        };
        Outcome {
            result: Err(failure),
            clock_skew: Some(TimeDelta::seconds(3)),
            age: None,
            token: None,
            asked_at: None,
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
        let state = state.polled(success(&["b", "c"]), at(30));
        assert_eq!(ids(&state), ["b", "c"]);
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
            first.polled(success(&["a", "b"]), at(20)),
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
        // The poll succeeded, but the time of the listing in use is unchanged.
        assert!(held.last_attempt.unwrap().is_success);
        assert_eq!((held.last_success_at, held.polls), (Some(at(10)), 2));
        let recovered = held.polled(success(&["a", "b", "c"]), at(30));
        assert_eq!((ids(&recovered).len(), recovered.shrunk_listings), (3, 0));
        let confirmed = held.polled(success(&[]), at(30));
        assert_eq!((ids(&confirmed).len(), confirmed.shrunk_listings), (0, 0));
        assert_eq!(confirmed.last_success_at, Some(at(30)));
        // A failed poll in between provides no information about the keys.
        let failed = held.polled(failure(Reason::Timeout, None), at(30));
        assert_eq!((ids(&failed).len(), failed.shrunk_listings), (3, 1));
        let again = failed.polled(success(&["a"]), at(40));
        assert_eq!((ids(&again).len(), again.shrunk_listings), (1, 0));
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
