//! When to list, retry and wait; publishes the next state and passes its events to the log.
//!
//! One loop per account: a slow account does not delay others, and polls of an account never
//! overlap.

pub mod details;
pub mod origin_limit;
pub mod retry;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::account_state::{AccountState, Outcome};
use crate::domain::event::Event;
use crate::domain::listing::Listing;
use crate::domain::text::Line;
use crate::event_log::{self, AccountLog, PollFacts};
use crate::liveness::Heartbeat;
use crate::os::clock::delta;
use crate::poller::origin_limit::{OriginLimit, jitter_max};
use crate::poller::retry::{Budget, Situation};
use crate::provider::Answer;
use crate::state_store::{AccountId, StateStore};

/// Polls one account. `A` makes one attempt within a time limit: the real one calls the API, the
/// one in tests follows a script.
#[derive(Debug)]
pub struct Poller<A> {
    /// Makes one attempt.
    pub attempt: A,
    /// The account's current state, including its interval.
    pub state: AccountState,
    /// Most attempts of a poll.
    pub attempts_max: u32,
    /// Where states are published.
    pub store: Arc<StateStore>,
    /// The account's id in the store.
    pub id: AccountId,
    /// The longest delay of the first poll.
    pub first_wait_max: Duration,
    /// Reads the pages of single keys, where details are enabled.
    pub details: Option<details::Reader>,
    /// The rate limit that the accounts of the same origin share.
    pub origin: Arc<OriginLimit>,
    /// What the account's next poller takes over from this one.
    pub carryover: Arc<Mutex<PollerCarryover>>,
    /// Reports that this loop is alive.
    pub heartbeat: Heartbeat,
    /// The wall clock.
    pub now: fn() -> DateTime<Utc>,
    /// Returns random numbers from 0 to 1.
    pub random: fn() -> f64,
}

/// What a poller remembers besides its account's state. The account's next poller takes it over
/// after a reload or a panic, so that the API's rate limit and the state of the log survive.
#[derive(Debug)]
pub struct PollerCarryover {
    budget: Budget,
    log: AccountLog,
    /// The earliest next request that the API allows.
    not_before: Instant,
}

impl Default for PollerCarryover {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            log: AccountLog::default(),
            not_before: Instant::now(),
        }
    }
}

/// A whole poll: the last attempt's answer, and the number of attempts.
#[derive(Debug)]
pub struct Poll {
    /// The last attempt's answer.
    pub answer: Answer,
    /// How many attempts there were.
    pub attempts: u32,
    /// When the last attempt began.
    pub asked_at: DateTime<Utc>,
}

/// How the attempts of a poll are made.
#[derive(Clone, Copy, Debug)]
pub struct Attempts<'a> {
    /// The account, for the log.
    pub account: &'a str,
    /// The most attempts.
    pub max: u32,
    /// The time limit of the poll.
    pub limit: Duration,
    /// The wall clock.
    pub now: fn() -> DateTime<Utc>,
    /// Returns random numbers from 0 to 1.
    pub random: fn() -> f64,
}

impl Attempts<'_> {
    /// Makes attempts until one succeeds or another would be pointless.
    pub async fn poll(
        self,
        attempt: &impl AsyncFn(Duration) -> Answer,
        carryover: &Mutex<PollerCarryover>,
    ) -> Poll {
        let ends = Instant::now() + self.limit;
        let mut attempts = 1;
        let mut failed = None;
        loop {
            let time_left = ends.saturating_duration_since(Instant::now());
            let asked_at = (self.now)();
            let answer = attempt(time_left).await;
            // A pause of the host in the meantime does not replace the reason of the failure.
            if answer.is_postponed
                && let Some(failed) = failed
            {
                return failed;
            }
            let wait = match &answer.result {
                Ok(_) => {
                    lock(carryover).budget.earn();
                    None
                }
                Err(failure) => {
                    let situation = Situation {
                        attempts,
                        attempts_max: self.max,
                        time_left: ends.saturating_duration_since(Instant::now()),
                        random: (self.random)(),
                    };
                    let wait = situation.next_attempt(failure, &mut lock(carryover).budget);
                    if let Some(wait) = wait {
                        event_log::attempt_failed(self.account, failure, wait);
                    }
                    wait
                }
            };
            let poll = Poll {
                answer,
                attempts,
                asked_at,
            };
            let Some(wait) = wait else {
                return poll;
            };
            failed = Some(poll);
            sleep(wait).await;
            attempts += 1;
        }
    }
}

impl Poll {
    /// The outcome, with `complete` applied to a listing; and the support id of a success.
    pub fn outcome(self, complete: impl FnOnce(Listing) -> Listing) -> (Outcome, Option<Line>) {
        let Answer {
            result,
            clock_skew,
            age,
            token,
            traffic: _,
            is_postponed: _,
        } = self.answer;
        let mut support_id = None;
        let result = result.map(|listed| {
            support_id = listed.support_id;
            complete(listed.listing)
        });
        let outcome = Outcome {
            result,
            clock_skew,
            age,
            token,
            asked_at: Some(self.asked_at),
        };
        (outcome, support_id)
    }
}

impl<A: AsyncFn(Duration) -> Answer> Poller<A> {
    /// Polls until `stop`; a poll in progress is abandoned.
    pub async fn run(mut self, stop: CancellationToken) {
        let interval = self.state.account.interval;
        let first = Instant::now() + retry::first_wait(self.first_wait_max, (self.random)());
        let mut due = first.max(self.carryover().not_before);
        let mut is_first = true;
        loop {
            let turn = self.turn(due, is_first);
            if stop.run_until_cancelled(turn).await.is_none() {
                return;
            }
            is_first = false;
            let started = Instant::now();
            let Some(poll) = stop.run_until_cancelled(self.poll()).await else {
                return;
            };
            if poll.answer.is_postponed && self.state.is_ready() {
                // Another account's answer has paused the host in the meantime: this was no poll.
                due = self.origin.not_before();
                continue;
            }
            let ended = Instant::now();
            self.state.poll_durations.observe(ended - started);
            due = started + retry::next_wait(interval, (self.random)());
            // Keeps a gap after a poll that used all of its time.
            due = due.max(ended + retry::least_gap(interval));
            if let Err(failure) = &poll.answer.result
                && let Some(asked) = failure.retry_after
            {
                let backoff = retry::backoff(poll.attempts, (self.random)());
                let not_before = ended + retry::obeyed(asked, backoff);
                self.carryover().not_before = not_before;
                due = due.max(not_before);
            }
            due = due.max(self.origin.not_before());
            self.finish(poll, due.saturating_duration_since(ended));
        }
    }

    /// Waits until `due`, and then for a turn at the origin: a poll never starts before the time
    /// that the API asks any of the origin's accounts to wait for.
    async fn turn(&mut self, due: Instant, is_first: bool) {
        self.wait(due).await;
        // The poll of an account of which nothing is known yet does not wait. During a pause, it
        // fails without a request: this says why, and the exporter becomes ready.
        if !self.state.is_ready() {
            return;
        }
        let jitter = retry::first_wait(jitter_max(self.state.account.interval), (self.random)());
        loop {
            let start = self.origin.take(is_first, jitter);
            if start > Instant::now() {
                self.wait(start).await;
            }
            if self.origin.not_before() <= Instant::now() {
                return;
            }
        }
    }

    /// Publishes that the next poll is at `due` and waits for it, reading details in the meantime.
    async fn wait(&mut self, due: Instant) {
        self.publish_next_poll(due);
        let limit = retry::poll_limit(self.state.account.interval);
        self.heartbeat.promise(due + limit);
        if let Some(reader) = &mut self.details {
            let account = self.state.account.clone();
            let log = |event: Event| {
                let mut carryover = lock(&self.carryover);
                carryover.log.details(&account.name, &event);
            };
            reader.read_until(due, &mut self.state, log).await;
        }
        sleep_until(due).await;
    }

    async fn poll(&self) -> Poll {
        let attempts = Attempts {
            account: &self.state.account.name,
            max: self.attempts_max,
            limit: retry::poll_limit(self.state.account.interval),
            now: self.now,
            random: self.random,
        };
        attempts.poll(&self.attempt, &self.carryover).await
    }

    /// Applies the poll's outcome to the state and logs the resulting events.
    fn finish(&mut self, poll: Poll, retry_in: Duration) {
        let attempts = poll.attempts;
        let held = self.state.held.as_deref();
        let (outcome, support_id) = poll.outcome(|listing| match &mut self.details {
            Some(reader) => reader.enrich(listing, held),
            None => listing,
        });
        let facts = PollFacts {
            attempts,
            retry_in: Some(retry_in),
            support_id,
        };
        let rules = self.store.rules();
        let (next, events) = self.state.after(outcome, &rules, (self.now)());
        self.state = next;
        let account = &self.state.account.name;
        self.carryover().log.poll(account, &events, &facts);
    }

    fn carryover(&self) -> MutexGuard<'_, PollerCarryover> {
        lock(&self.carryover)
    }

    fn publish_next_poll(&mut self, due: Instant) {
        let wait = delta(due.saturating_duration_since(Instant::now()));
        let at = (self.now)()
            .checked_add_signed(wait)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.state = self.state.with_next_poll(at);
        self.store.publish(self.id, Arc::new(self.state.clone()));
    }
}

/// Never locked across an await. A panic while it is locked leaves every value intact.
fn lock(carryover: &Mutex<PollerCarryover>) -> MutexGuard<'_, PollerCarryover> {
    carryover.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
