//! When to list, retry and wait; publishes the next state and says in the log what an operator
//! needs.
//!
//! One loop for each account, so that a slow one delays nobody and never has two polls in flight.

mod clocks;
pub mod details;
pub mod lines;
pub mod report;
pub mod retry;
mod told;
pub mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::Histogram;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::Board;
use crate::domain::account_state::{AccountState, Outcome};
use crate::domain::failure::Failure;
use crate::domain::key::KeyId;
use crate::domain::listing::{Listing, Rejects};
use crate::domain::text::Line;
use crate::domain::text::join_truncated;
use crate::liveness::Heartbeat;
use crate::os::allocator;
use crate::os::clock::delta;
use crate::poller::report::{Report, Saying};
use crate::poller::retry::{Budget, Situation};
use crate::poller::told::Told;
use crate::poller::watch::Watch;
use crate::provider::bitgpt::client::Answer;
use crate::provider::bitgpt::parse::Parsed;

/// Polls one account. `A` makes one attempt within the time it is given; the real one asks the API,
/// a test's reads a script.
#[derive(Debug)]
pub struct Poller<A> {
    /// Makes one attempt.
    pub attempt: A,
    /// What is known so far; the account's interval is in it.
    pub state: AccountState,
    /// Most attempts of a poll.
    pub attempts_max: u32,
    /// Where states are published, and in which slot.
    pub board: Arc<Board>,
    /// The slot.
    pub slot: usize,
    /// Reads keys' own pages, where details are on.
    pub details: Option<details::Reader>,
    /// What is said of single keys.
    pub watch: Watch,
    /// What outlives this poller, where another one takes over.
    pub carryover: Arc<Mutex<PollerCarryover>>,
    /// Where this loop shows that it lives.
    pub heartbeat: Heartbeat,
    /// Where durations go.
    pub poll_duration: Histogram,
    /// The wall clock.
    pub now: fn() -> DateTime<Utc>,
    /// Numbers from 0 to 1.
    pub random: fn() -> f64,
}

/// What a poller knows besides its account's state. The next poller of the account takes it over,
/// after a reload or a panic, so that neither makes the API forget what it asked for.
#[derive(Debug)]
pub struct PollerCarryover {
    /// When the account was first polled.
    start: Instant,
    budget: Budget,
    report: Report,
    told: Told,
    /// Until when the API asked to be left alone.
    not_before: Instant,
}

impl Default for PollerCarryover {
    fn default() -> Self {
        let start = Instant::now();
        Self {
            start,
            budget: Budget::default(),
            report: Report::default(),
            told: Told::default(),
            not_before: start,
        }
    }
}

/// A whole poll: the last attempt's answer, and how it was come by.
struct Poll {
    answer: Answer,
    attempts: u32,
}

impl<A: AsyncFn(Duration) -> Answer> Poller<A> {
    /// Polls until `stop`; a poll under way is abandoned.
    pub async fn run(mut self, stop: CancellationToken) {
        let interval = self.state.account.interval;
        let first = Instant::now() + retry::first_wait(interval, (self.random)());
        let mut due = first.max(self.carryover().not_before);
        loop {
            self.publish_next_poll(due);
            self.heartbeat.promise(due + retry::poll_limit(interval));
            if stop.run_until_cancelled(self.wait(due)).await.is_none() {
                return;
            }
            let started = Instant::now();
            let Some(poll) = stop.run_until_cancelled(self.poll()).await else {
                return;
            };
            let ended = Instant::now();
            self.poll_duration.observe((ended - started).as_secs_f64());
            due = started + retry::next_wait(interval, (self.random)());
            // A poll that took all of its time has tried the API to the end.
            due = due.max(ended + retry::least_gap(interval));
            if let Err(failure) = &poll.answer.result
                && let Some(asked) = failure.retry_after
            {
                let backoff = retry::backoff(poll.attempts, (self.random)());
                let not_before = ended + retry::obeyed(asked, backoff);
                self.carryover().not_before = not_before;
                due = due.max(not_before);
            }
            self.finish(poll, ended, due);
        }
    }

    /// Waits for the next poll, and reads details meanwhile.
    async fn wait(&mut self, due: Instant) {
        if let Some(reader) = &mut self.details {
            reader.read_until(due, &mut self.state).await;
        }
        sleep_until(due).await;
    }

    /// Attempts until one succeeds or another makes no sense.
    async fn poll(&self) -> Poll {
        let ends = Instant::now() + retry::poll_limit(self.state.account.interval);
        let mut attempts = 1;
        loop {
            let time_left = ends.saturating_duration_since(Instant::now());
            let answer = (self.attempt)(time_left).await;
            let Err(failure) = &answer.result else {
                self.carryover().budget.earn();
                return Poll { answer, attempts };
            };
            let situation = Situation {
                attempts,
                attempts_max: self.attempts_max,
                time_left: ends.saturating_duration_since(Instant::now()),
                random: (self.random)(),
            };
            let wait = situation.next_attempt(failure, &mut self.carryover().budget);
            let Some(wait) = wait else {
                return Poll { answer, attempts };
            };
            let account = &*self.state.account.name;
            debug!(account, reason = failure.reason.as_str(), retry_in = ?wait, "attempt failed, trying again");
            sleep(wait).await;
            attempts += 1;
        }
    }

    fn finish(&mut self, poll: Poll, ended: Instant, due: Instant) {
        let Poll {
            answer: Answer { result, clock_skew },
            attempts,
        } = poll;
        let account = &*self.state.account.name;
        let now = (self.now)();
        let mut carryover = self.carryover();
        let uptime = ended - carryover.start;
        carryover.told.clock_skew(account, clock_skew, uptime);
        let result = match result {
            Ok(Parsed {
                listing,
                support_id,
            }) => {
                let listing = listing.keeping(self.state.held.as_deref());
                let (keys, rejected) = (listing.keys().len(), listing.rejects().total());
                let support_id = support_id.as_ref().map(Line::as_str);
                debug!(account, keys, rejected, support_id, attempts, "listed keys");
                if carryover.report.succeeded(uptime) == Saying::Recovered {
                    let failures = self.state.consecutive_failures;
                    info!(account, keys, failures, "listing keys works again");
                } else if self.state.polls == 0 {
                    info!(
                        account,
                        keys, "listed keys for the first time since the start"
                    );
                }
                let rejected_before = self
                    .state
                    .held
                    .as_ref()
                    .map_or(0, |held| held.rejects().total());
                if rejected > 0 && rejected != rejected_before {
                    say_rejects(account, &listing);
                }
                carryover.told.listing(&self.state, &listing, uptime);
                let api_now = clock_skew.and_then(|skew| now.checked_add_signed(skew));
                let latest = api_now.map_or(now, |api_now| api_now.max(now));
                carryover
                    .told
                    .future_keys(account, &listing, latest, uptime);
                Ok(listing)
            }
            Err(failure) => {
                say_failure(
                    account,
                    &failure,
                    attempts,
                    due.saturating_duration_since(ended),
                    carryover.report.failed(failure.reason, uptime),
                );
                Err(failure)
            }
        };
        drop(carryover);
        let held = self.state.held.as_deref();
        let result = result.map(|listing| match &mut self.details {
            Some(reader) => reader.enrich(listing, held),
            None => listing,
        });
        let next = self.state.after(Outcome { result, clock_skew }, now);
        let before = std::mem::replace(&mut self.state, next).held;
        let settings = self.board.settings();
        self.watch
            .look(before.as_deref(), &self.state, &settings, now);
    }

    /// Never held while waiting. A panic while it was held has left whole values behind.
    fn carryover(&self) -> MutexGuard<'_, PollerCarryover> {
        self.carryover
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_next_poll(&mut self, due: Instant) {
        let wait = delta(due.saturating_duration_since(Instant::now()));
        let at = (self.now)()
            .checked_add_signed(wait)
            .unwrap_or(DateTime::<Utc>::MAX_UTC);
        self.state = self.state.with_next_poll(at);
        let now = (self.now)();
        self.board.publish(self.slot, self.state.clone(), now);
        // What was shown before is gone, and has left holes.
        allocator::trim();
        self.watch
            .look_at_inventory(self.board.read(now).accounts());
    }
}

/// One line for entries that could not be used: they are keys that nobody watches, or that are
/// watched as they were.
fn say_rejects(account: &str, listing: &Listing) {
    let Rejects {
        id,
        duplicate,
        shape,
    } = listing.rejects();
    let key_ids = join_truncated(listing.rejected_ids().iter().map(KeyId::as_str));
    warn!(
        account,
        id, duplicate, shape, key_ids, "entries of the listing could not be used"
    );
}

/// One line for a failed poll, at the level that `saying` asks for.
fn say_failure(account: &str, failure: &Failure, attempts: u32, wait: Duration, saying: Saying) {
    let text = |line: &Option<Line>| line.as_ref().map(|line| line.as_str().to_owned());
    let (error, support_id, validator) = (
        text(&failure.error),
        text(&failure.support_id),
        text(&failure.validator),
    );
    let (api_log, api_message) = (text(&failure.api_log), text(&failure.message));
    // Whole seconds: nobody waits for the milliseconds of a jitter.
    let retry_in = humantime::format_duration(Duration::from_secs(wait.as_secs())).to_string();
    macro_rules! say {
        ($level:ident, $($extra:tt)*) => {
            $level!(
                account,
                reason = failure.reason.as_str(),
                http_status = failure.http_status,
                api_status = failure.api_status,
                error,
                support_id,
                validator,
                api_log,
                api_message,
                attempts,
                retry_in,
                $($extra)*
            )
        };
    }
    match saying {
        Saying::Warn { suppressed: 0 } => say!(warn, "listing keys failed"),
        Saying::Warn { suppressed } => say!(warn, suppressed, "listing keys failed"),
        Saying::Suppress | Saying::Recovered | Saying::Nothing => {
            say!(debug, "listing keys failed again");
        }
    }
}

#[cfg(test)]
mod tests;
