//! The log lines and counters of the process rather than one account: snapshots, connections, the
//! watchdog.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::event_log::rate_limit::{LogDecision, RateLimit};

/// Ten lines in any minute, as for the polls of an account.
const BURST: u32 = 5;
const PERIOD: Duration = Duration::from_secs(12);

/// Saved snapshots.
#[derive(Debug)]
pub struct SnapshotLog {
    start: Instant,
    /// Counts failed saves.
    failures: IntCounter,
    /// The accounts for which the last save failed, and why. A cause that affects all accounts is
    /// one line.
    failing: HashMap<Box<str>, String>,
    /// Increased with each cause that no account had.
    cause: u64,
    limit: RateLimit<u64>,
}

impl SnapshotLog {
    /// Increases `failures` with each failure.
    pub fn new(failures: IntCounter) -> Self {
        Self {
            start: Instant::now(),
            failures,
            failing: HashMap::new(),
            cause: 0,
            limit: RateLimit::new(BURST, PERIOD),
        }
    }

    /// Removes accounts that are no longer known.
    pub fn retain(&mut self, is_known: impl Fn(&str) -> bool) {
        self.failing.retain(|account, _| is_known(account));
    }

    /// A snapshot was saved.
    pub fn saved(&mut self, account: &str) {
        debug!(account, "saved a snapshot");
        if self.is_over(account) && self.limit.resolved(self.start.elapsed()) {
            info!("saving the snapshots succeeded again");
        }
    }

    /// A snapshot could not be saved.
    pub fn failed(&mut self, account: &str, error: &str) {
        self.failures.inc();
        match self.decide(account, error, self.start.elapsed()) {
            LogDecision::Log { suppressed } => warn!(
                account,
                error, suppressed, "cannot save the snapshot; newer listings are lost at a restart"
            ),
            LogDecision::Suppress => debug!(account, error, "cannot save the snapshot again"),
        }
    }

    fn decide(&mut self, account: &str, error: &str, uptime: Duration) -> LogDecision {
        if self.failing.values().all(|known| known != error) {
            self.cause += 1;
        }
        self.failing.insert(account.into(), error.to_owned());
        self.limit.problem(self.cause, uptime)
    }

    /// Whether no saves fail after this one.
    fn is_over(&mut self, account: &str) -> bool {
        self.failing.remove(account);
        self.failing.is_empty()
    }
}

/// Connections that could not be accepted.
#[derive(Debug)]
pub struct AcceptLog {
    start: Instant,
    /// Counts failed accepts.
    failures: IntCounter,
    limit: RateLimit,
}

impl AcceptLog {
    /// Increases `failures` with each failure.
    pub fn new(failures: IntCounter) -> Self {
        Self {
            start: Instant::now(),
            failures,
            limit: RateLimit::new(BURST, PERIOD),
        }
    }

    /// An accept failed. Successful accepts in between do not count as recovery: at the open-file
    /// limit, some always succeed.
    pub fn failed(&mut self, error: &io::Error) {
        self.failures.inc();
        let error = error.to_string();
        if let LogDecision::Log { suppressed } = self.limit.problem((), self.start.elapsed()) {
            warn!(error, suppressed, "cannot accept connections");
        }
    }
}

/// Families that are left out of the exposition. `Id` identifies an account.
#[derive(Debug)]
pub struct ExpositionLog<Id> {
    start: Instant,
    /// The families left out of each account's text, if any.
    dropped: HashMap<Id, Box<[&'static str]>>,
    limit: RateLimit,
}

impl<Id> Default for ExpositionLog<Id> {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            dropped: HashMap::new(),
            limit: RateLimit::new(BURST, PERIOD),
        }
    }
}

impl<Id: Hash + Eq> ExpositionLog<Id> {
    /// Removes accounts that are no longer known.
    pub fn retain(&mut self, is_known: impl Fn(&Id) -> bool) {
        self.dropped.retain(|id, _| is_known(id));
    }

    /// `families` are left out of an account's text to keep it within `bytes_max`. Logged if they
    /// differ from before.
    pub fn dropped(&mut self, id: Id, account: &str, families: &[&'static str], bytes_max: usize) {
        let names = families.join(", ");
        let before = if families.is_empty() {
            self.dropped.remove(&id)
        } else {
            self.dropped.insert(id, families.into())
        };
        if *before.unwrap_or_default() == *families {
            return;
        }
        let LogDecision::Log { suppressed } = self.limit.event(self.start.elapsed()) else {
            return;
        };
        if families.is_empty() {
            info!(account, suppressed, "exposing all metric families again");
        } else {
            warn!(
                account,
                families = names,
                max_bytes_per_account = bytes_max,
                suppressed,
                "leaving out metric families: the account's text would exceed its memory budget"
            );
        }
    }
}

/// The keep-alives for systemd's watchdog.
#[derive(Debug)]
pub struct WatchdogLog {
    start: Instant,
    limit: RateLimit<(bool, bool)>,
}

impl Default for WatchdogLog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            limit: RateLimit::new(BURST, PERIOD),
        }
    }
}

impl WatchdogLog {
    /// A keep-alive was sent.
    pub fn sent(&mut self) {
        if self.limit.resolved(self.start.elapsed()) {
            info!("sending watchdog keep-alives again");
        }
    }

    /// A keep-alive was withheld, because a poll loop is stuck or the server does not respond.
    pub fn withheld(&mut self, loops_live: bool, answers: bool) {
        let cause = (loops_live, answers);
        if let LogDecision::Log { suppressed } = self.limit.problem(cause, self.start.elapsed()) {
            warn!(
                loops_live,
                answers, suppressed, "withholding watchdog keep-alive"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_logged_once_in_fifteen_minutes_however_many_accounts_have_it() {
        let failures = IntCounter::new("failures", "Failures.").unwrap();
        let mut log = SnapshotLog::new(failures);
        for (second, account, cause, is_logged) in [
            (0, "a", "locked", true),
            (0, "b", "locked", false),
            (5, "a", "locked", false),
            (6, "a", "full", true),
            (7, "b", "locked", false),
            (8, "a", "full", false),
            (905, "a", "locked", false),
            (906, "a", "locked", true),
            (907, "a", "locked", false),
        ] {
            let uptime = Duration::from_secs(second);
            let decision = log.decide(account, cause, uptime);
            let shown = decision != LogDecision::Suppress;
            assert_eq!(shown, is_logged, "{account}: {cause} at {second}");
        }
        assert!(!log.is_over("c"), "it never failed");
        assert!(!log.is_over("a"), "the other one still fails");
        assert!(log.is_over("b"));
        assert!(log.limit.resolved(Duration::from_secs(908)));
        assert!(!log.limit.resolved(Duration::from_secs(909)));
        let uptime = Duration::from_secs(910);
        assert_ne!(log.decide("b", "locked", uptime), LogDecision::Suppress);
        // A removed account does not fail.
        log.retain(|_| false);
        assert!(log.is_over("a"));
    }
}
