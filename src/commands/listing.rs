//! Lists accounts once, as their pollers would, for commands that answer a question and end.
//!
//! No saved snapshot is read or written and no lock is taken, so that this can run beside a daemon
//! with the same configuration.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::config::{Account, Config};
use crate::domain::account_state::{AccountState, Outcome};
use crate::domain::event::Event;
use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, Expiry, Key, KeyId};
use crate::domain::listing::Listing;
use crate::event_log::{AccountLog, PollFacts};
use crate::os::clock;
use crate::poller::details::pause_after;
use crate::poller::{Attempts, PollerCarryover, retry};
use crate::pollers;
use crate::provider::lister::Lister;
use crate::provider::tls::TlsConfigs;

/// Accounts listed at the same time: few enough not to exceed the rate limit of a host that many of
/// them share.
const AT_ONCE: usize = 8;

/// One account after it was listed once.
#[derive(Debug)]
pub struct ListedAccount {
    /// Its configuration.
    pub account: Account,
    /// Its state afterwards: the listing in `held`, or the failure in `last_failure`.
    pub state: AccountState,
    /// The events of the listing.
    pub events: Vec<Event>,
    /// How many attempts the listing took.
    pub attempts: u32,
    /// Listed keys without details, although details are enabled.
    pub details_missing: usize,
}

/// Lists the accounts of `config` for which `is_wanted`, all at the same time up to a limit, and
/// returns them in the order of the configuration. `done` counts those that are finished.
///
/// As in the daemon, a poll retries transient failures within its time limit. Details of keys, if
/// enabled, are read for at most `details.requests_per_minute` keys of an account.
pub async fn list_once(
    config: &Config,
    is_wanted: impl Fn(&Account) -> bool,
    done: &Arc<AtomicUsize>,
) -> Vec<ListedAccount> {
    let config = Arc::new(config.clone());
    let tls = Arc::new(TlsConfigs::new(clock::now));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let wanted = config.accounts.iter().filter(|account| is_wanted(account));
    let tasks = wanted.cloned().map(|account| {
        let (config, tls) = (config.clone(), tls.clone());
        let (places, done) = (places.clone(), done.clone());
        let of_task = account.clone();
        let task = tokio::spawn(async move {
            // Never closed.
            let _place = places.acquire().await;
            let listed = list(of_task, &config, tls).await;
            done.fetch_add(1, Ordering::Relaxed);
            listed
        });
        (account, AbortOnDropHandle::new(task))
    });
    // Starts all of them before waiting for the first.
    let tasks: Vec<_> = tasks.collect();
    let mut listed = Vec::with_capacity(tasks.len());
    for (account, task) in tasks {
        listed.push(match task.await {
            Ok(listed) => listed,
            Err(_panicked) => after_panic(account, &config),
        });
    }
    listed
}

async fn list(account: Account, config: &Config, tls: Arc<TlsConfigs>) -> ListedAccount {
    let state = first_state(&account, config);
    let settings = pollers::settings(&account, config);
    let lister = Lister::new(account.token.clone(), settings, tls, None, clock::now);
    let lister = Arc::new(lister);
    let attempts = Attempts {
        account: &account.name,
        max: config.poll.attempts,
        limit: retry::poll_limit(account.interval),
        now: clock::now,
        random: fastrand::f64,
    };
    let of_attempts = lister.clone();
    let attempt = async move |deadline| of_attempts.attempt(deadline, None).await;
    let poll = attempts
        .poll(&attempt, &Mutex::new(PollerCarryover::default()))
        .await;
    let attempts = poll.attempts;
    let details = match &poll.answer.result {
        Ok(answer) if pollers::details_of(&account, config) => {
            Some(read_details(&account, config, &lister, &answer.listing).await)
        }
        Ok(_) | Err(_) => None,
    };
    let (outcome, _) = poll.outcome(|listing| match details {
        Some(details) => listing.with_details(details, None),
        // What the listing itself says of the last use.
        None => listing,
    });
    finished(account, config, &state, outcome, attempts)
}

/// Reads the details of keys, the soonest expiry first: as many as the daemon reads in a minute,
/// and within the time of a poll.
async fn read_details(
    account: &Account,
    config: &Config,
    lister: &Lister,
    listing: &Listing,
) -> HashMap<KeyId, Details> {
    let ends = Instant::now() + retry::poll_limit(account.interval);
    let mut keys: Vec<&Key> = listing.keys().iter().collect();
    keys.sort_by_key(|key| match key.expiry {
        Expiry::At(end) => (false, Some(end)),
        Expiry::Never | Expiry::Unknown => (true, None),
    });
    let requests_max = usize::try_from(config.details.requests_per_minute).unwrap_or(usize::MAX);
    let ids = keys.into_iter().take(requests_max);
    let ids: Vec<KeyId> = ids.map(|key| key.id.clone()).collect();
    let (mut read, mut log) = (HashMap::new(), AccountLog::default());
    for id in ids {
        let time_left = ends.saturating_duration_since(Instant::now());
        if time_left.is_zero() {
            break;
        }
        match lister.details(&id, time_left).await {
            Ok(details) => {
                read.insert(id, details);
            }
            Err(failure) => {
                let paused_for = pause_after(&failure, config.details.interval);
                let event = Event::DetailsFailed {
                    key_id: id,
                    failure: Box::new(failure),
                    paused_for,
                };
                log.details(&account.name, &event);
                if !paused_for.is_zero() {
                    break;
                }
            }
        }
    }
    read
}

fn after_panic(account: Account, config: &Config) -> ListedAccount {
    let outcome = Outcome {
        result: Err(Failure::new(Reason::Internal, "the exporter panicked")),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let state = first_state(&account, config);
    finished(account, config, &state, outcome, 1)
}

/// Logs a failure; other events are for the caller.
fn finished(
    account: Account,
    config: &Config,
    state: &AccountState,
    outcome: Outcome,
    attempts: u32,
) -> ListedAccount {
    let (state, events) = state.after(outcome, &config.assessment_rules, clock::now());
    let facts = PollFacts {
        attempts,
        retry_in: None,
        support_id: None,
    };
    let failures = events
        .iter()
        .filter(|event| matches!(event, Event::PollFailed(_)));
    let failures: Vec<Event> = failures.cloned().collect();
    AccountLog::default().poll(&account.name, &failures, &facts);
    let keys = state.held.iter().flat_map(|held| held.keys());
    let details_missing = if pollers::details_of(&account, config) {
        keys.filter(|key| key.details.is_none()).count()
    } else {
        0
    };
    ListedAccount {
        account,
        state,
        events,
        attempts,
        details_missing,
    }
}

fn first_state(account: &Account, config: &Config) -> AccountState {
    let state = AccountState::new(pollers::facts(account, config));
    pollers::with_details(state, pollers::details_of(account, config))
}
