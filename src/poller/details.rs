//! Reads the pages of single keys between two polls: one at a time, rate limited, oldest first.
//!
//! It runs only while the poll loop waits, and yields when a poll is due. An account therefore
//! never has two requests in flight, and a page never delays a listing. A restart needs no saved
//! position, because each page has the time at which it was read.

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

/// The pause before the next page after a failure that would affect it too, and after a 429 without
/// `Retry-After`.
const FAILURE_PAUSE: Duration = Duration::from_mins(1);

/// The pause after a refusal: a token's permissions change by hand. Shorter if the interval of the
/// details is shorter.
const REFUSAL_PAUSE: Duration = Duration::from_hours(1);

/// Requests one key's page within a time limit: the real one calls the API, the one in tests
/// follows a script.
pub type Ask = Box<
    dyn Fn(KeyId, Duration) -> Pin<Box<dyn Future<Output = Result<Details, Failure>> + Send>>
        + Send
        + Sync,
>;

/// Reads the pages of one account.
pub struct Reader {
    ask: Ask,
    interval: Duration,
    /// The shortest time from one request to the next.
    pace: Duration,
    now: fn() -> DateTime<Utc>,
    /// The earliest next request.
    not_before: Instant,
    /// Pages read since the last listing.
    fresh: HashMap<KeyId, Details>,
    /// When a page was last found unreadable for reasons specific to that page.
    unreadable: HashMap<KeyId, DateTime<Utc>>,
}

impl Reader {
    /// Reads each page once per `interval`, with at most `requests_per_minute` requests, counted
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

    /// Reads pages until `due`, or until none is left to read. A request in progress at `due` is
    /// dropped and repeated later. Pages are not read while the account's listing fails. Each
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
                // The poll takes precedence; the page had less than its full time.
                _ => return,
            }
        }
    }

    /// Adds the pages read to a new listing; `before` is the previous one.
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

/// The key with the page to read next: one that was never read, or else the one that was read the
/// longest time ago; and the time from `now` until that page is `interval` old. A time in the
/// future comes from a wrong clock and counts as never.
fn longest_unread(
    listing: &Listing,
    read_at: impl Fn(&Key) -> Option<DateTime<Utc>>,
    interval: TimeDelta,
    now: DateTime<Utc>,
) -> Option<(KeyId, Duration)> {
    let keys = listing.keys().iter();
    // The API no longer has a page for a key that it does not list.
    let keys = keys.filter(|key| key.unlisted_since.is_none());
    let with_time = keys.map(|key| (read_at(key).filter(|read_at| *read_at <= now), key));
    let (read_at, key) = with_time.min_by_key(|(read_at, _)| *read_at)?;
    let wait = read_at.map_or(TimeDelta::zero(), |read_at| interval - (now - read_at));
    Some((key.id.clone(), wait.to_std().unwrap_or_default()))
}

/// The pause for all pages after `failure`; zero if the failure concerns one page only.
pub fn pause_after(failure: &Failure, interval: Duration) -> Duration {
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
