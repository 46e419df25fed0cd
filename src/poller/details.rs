//! Reads keys' own pages between two polls: one at a time, paced, the longest unread first.
//!
//! It runs only while the poll loop waits, and gives way when a poll is due, so that an account
//! never has two requests in flight and no page ever delays a listing. Nothing has to be remembered
//! to go on after a stop: what was read carries its time.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::account_state::AccountState;
use crate::domain::event::Event;
use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, Key, KeyId};
use crate::domain::listing::Listing;
use crate::os::clock::delta;
use crate::poller::retry;

/// How long the pages are left alone after a failure that the next page would meet too, and after a
/// 429 that names no time.
const FAILURE_PAUSE: Duration = Duration::from_mins(1);

/// How long after a refusal: what a token may do changes by hand. Shorter where details are to be
/// younger.
const REFUSAL_PAUSE: Duration = Duration::from_hours(1);

/// Asks for one key's page within a time; the real one asks the API, a test's reads a script.
pub type Ask = Box<
    dyn Fn(KeyId, Duration) -> Pin<Box<dyn Future<Output = Result<Details, Failure>> + Send>>
        + Send
        + Sync,
>;

/// Reads one account's pages.
pub struct Reader {
    ask: Ask,
    interval: Duration,
    /// The time from one request to the next, at least.
    pace: Duration,
    now: fn() -> DateTime<Utc>,
    /// No request before this moment.
    not_before: Instant,
    /// What was read since the last listing.
    fresh: HashMap<KeyId, Details>,
    /// When a page was last found to be unreadable, for reasons of its own.
    unreadable: HashMap<KeyId, DateTime<Utc>>,
}

impl Reader {
    /// Reads each page once in an `interval`, with `requests_per_minute` requests at most, counted
    /// from now.
    pub fn new(
        ask: Ask,
        interval: Duration,
        requests_per_minute: u32,
        now: fn() -> DateTime<Utc>,
    ) -> Self {
        Self {
            ask,
            interval,
            pace: Duration::from_mins(1) / requests_per_minute.max(1),
            now,
            not_before: Instant::now(),
            fresh: HashMap::new(),
            unreadable: HashMap::new(),
        }
    }

    /// Reads pages until `due`, or for as long as there is one to read. A request that is under way
    /// then is dropped and made again later. An account whose listing fails is left alone. Each
    /// answer is reported to `on_event`.
    pub async fn read_until(
        &mut self,
        due: Instant,
        state: &mut AccountState,
        on_event: impl Fn(Event),
    ) {
        let is_up = state.last_attempt.is_some_and(|attempt| attempt.is_success);
        let Some(listing) = state.held.clone().filter(|_| is_up) else {
            return;
        };
        while self.not_before < due {
            sleep_until(self.not_before).await;
            let Some((id, wait)) = self.next(&listing) else {
                return;
            };
            if !wait.is_zero() {
                let next = Instant::now() + wait;
                if next >= due {
                    return;
                }
                sleep_until(next).await;
                continue;
            }
            self.not_before = Instant::now() + self.pace;
            let left = due.saturating_duration_since(Instant::now());
            let asked = timeout_at(due, (self.ask)(id.clone(), left));
            match asked.await {
                Ok(result) if Instant::now() < due || result.is_ok() => {
                    on_event(self.finish(id, result, state));
                }
                // The poll goes first; the page had less than its time.
                _ => return,
            }
        }
    }

    /// Adds what was read to a new listing; `before` is the one before it.
    pub fn enrich(&mut self, listing: Listing, before: Option<&Listing>) -> Listing {
        self.unreadable
            .retain(|id, _| listing.get(id.as_str()).is_some());
        listing.with_details(std::mem::take(&mut self.fresh), before)
    }

    fn next(&self, listing: &Listing) -> Option<(KeyId, Duration)> {
        let read_at = |key: &Key| {
            let fresh = self.fresh.get(&key.id).map(|details| details.read_at);
            let listed = key.details.as_ref().map(|details| details.read_at);
            let unreadable = self.unreadable.get(&key.id).copied();
            fresh.max(listed).max(unreadable)
        };
        longest_unread(listing, read_at, delta(self.interval), (self.now)())
    }

    fn finish(
        &mut self,
        id: KeyId,
        result: Result<Details, Failure>,
        state: &mut AccountState,
    ) -> Event {
        let failure = match result {
            Ok(details) => {
                self.unreadable.remove(&id);
                self.fresh.insert(id.clone(), details);
                return Event::DetailsRead { key_id: id };
            }
            Err(failure) => failure,
        };
        let pause = pause_after(&failure, self.interval);
        self.not_before = self.not_before.max(Instant::now() + pause);
        if pause.is_zero() {
            self.unreadable.insert(id.clone(), (self.now)());
        }
        let counts = state.details_failures.get_or_insert_default();
        if let Some(count) = counts.get_mut(failure.reason as usize) {
            *count += 1;
        }
        Event::DetailsFailed {
            key_id: id,
            failure: Box::new(failure),
            paused_for: pause,
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("interval", &self.interval)
            .field("pace", &self.pace)
            .finish_non_exhaustive()
    }
}

/// The key whose page is to be read next: one that never was, else the one that was read first; and
/// how long from `now` until that is `interval` ago. A time in the future was told by a clock that
/// was wrong and counts as never.
fn longest_unread(
    listing: &Listing,
    read_at: impl Fn(&Key) -> Option<DateTime<Utc>>,
    interval: TimeDelta,
    now: DateTime<Utc>,
) -> Option<(KeyId, Duration)> {
    let keys = listing.keys().iter();
    // The API has no page any more of a key that it does not list.
    let keys = keys.filter(|key| key.unlisted_since.is_none());
    let with_time = keys.map(|key| (read_at(key).filter(|read_at| *read_at <= now), key));
    let (read_at, key) = with_time.min_by_key(|(read_at, _)| *read_at)?;
    let wait = read_at.map_or(TimeDelta::zero(), |read_at| interval - (now - read_at));
    Some((key.id.clone(), wait.to_std().unwrap_or_default()))
}

/// How long all pages are left alone after `failure`; no time where it is about one page only.
fn pause_after(failure: &Failure, interval: Duration) -> Duration {
    match failure.reason {
        Reason::RateLimited => {
            let asked = failure.retry_after.unwrap_or(FAILURE_PAUSE);
            retry::obeyed(asked, FAILURE_PAUSE)
        }
        Reason::Unauthorized | Reason::Forbidden => interval.min(REFUSAL_PAUSE),
        Reason::ClientError
        | Reason::BodyTooLarge
        | Reason::NotJson
        | Reason::Schema
        | Reason::ApiError
        | Reason::TooManyKeys => Duration::ZERO,
        Reason::Dns
        | Reason::Connect
        | Reason::Tls
        | Reason::Timeout
        | Reason::Redirect
        | Reason::Gateway
        | Reason::ServerError
        | Reason::Incomplete
        | Reason::BodyTruncated
        | Reason::EnvironmentMismatch
        | Reason::Credential
        | Reason::Internal => FAILURE_PAUSE,
    }
}

#[cfg(test)]
mod tests;
