//! The log lines and counters of what concerns the process rather than one account: snapshots,
//! connections, the watchdog.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::event_log::rate_limit::{LogDecision, RateLimit};
use crate::snapshot::format::Identity;
use crate::telemetry::{Rejected, Telemetry};

/// Ten lines in any minute, as for the polls of an account.
const BURST: u32 = 5;
const PERIOD: Duration = Duration::from_secs(12);

/// Saved snapshots.
#[derive(Debug)]
pub struct SnapshotLog {
    start: Instant,
    /// Counts failed saves.
    failures: IntCounter,
    /// The accounts whose last save failed, and why. A cause that fails every account is one line.
    failing: HashMap<Identity, String>,
    /// Increased with each cause that no account had.
    cause: u64,
    limit: RateLimit<u64>,
}

impl SnapshotLog {
    /// Counts failures in `failures`.
    pub fn new(failures: IntCounter) -> Self {
        Self {
            start: Instant::now(),
            failures,
            failing: HashMap::new(),
            cause: 0,
            limit: RateLimit::new(BURST, PERIOD),
        }
    }

    /// Forgets accounts that are not `known` any longer.
    pub fn retain(&mut self, known: &HashSet<Identity>) {
        self.failing.retain(|identity, _| known.contains(identity));
    }

    /// A snapshot was saved.
    pub fn saved(&mut self, identity: &Identity) {
        let account = &*identity.account;
        debug!(account, "saved a snapshot");
        if self.is_over(identity) && self.limit.resolved(self.start.elapsed()) {
            info!("saving the snapshots works again");
        }
    }

    /// A snapshot could not be saved.
    pub fn failed(&mut self, identity: Identity, error: &str) {
        self.failures.inc();
        let account = identity.account.clone();
        let decision = self.decide(identity, error, self.start.elapsed());
        match decision {
            LogDecision::Log { suppressed } => warn!(
                account,
                error, suppressed, "cannot save the snapshot; newer listings are lost at a restart"
            ),
            LogDecision::Suppress => debug!(account, error, "cannot save the snapshot again"),
        }
    }

    fn decide(&mut self, identity: Identity, error: &str, uptime: Duration) -> LogDecision {
        if self.failing.values().all(|known| known != error) {
            self.cause += 1;
        }
        self.failing.insert(identity, error.to_owned());
        self.limit.problem(self.cause, uptime)
    }

    /// Whether nothing fails after this save.
    fn is_over(&mut self, identity: &Identity) -> bool {
        self.failing.remove(identity);
        self.failing.is_empty()
    }
}

/// Connections that could not be accepted.
#[derive(Debug)]
pub struct AcceptLog {
    start: Instant,
    telemetry: Telemetry,
    limit: RateLimit,
}

impl AcceptLog {
    /// Counts failures in `telemetry`.
    pub fn new(telemetry: Telemetry) -> Self {
        Self {
            start: Instant::now(),
            telemetry,
            limit: RateLimit::new(BURST, PERIOD),
        }
    }

    /// An accept failed. That another one succeeds in between is no recovery: at the limit of open
    /// files, some always do.
    pub fn failed(&mut self, error: &io::Error) {
        self.telemetry.count_rejected(Rejected::AcceptFailed);
        let error = error.to_string();
        if let LogDecision::Log { suppressed } = self.limit.problem((), self.start.elapsed()) {
            warn!(error, suppressed, "cannot accept connections");
        }
    }
}

/// The keep-alives to systemd's watchdog.
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

    /// A keep-alive was not sent, because a poll loop is stuck or the server does not answer.
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

    fn of(account: &str) -> Identity {
        Identity {
            account: account.to_owned(),
            base_url: "https://api.example.com/".to_owned(),
        }
    }

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
            let decision = log.decide(of(account), cause, uptime);
            let shown = decision != LogDecision::Suppress;
            assert_eq!(shown, is_logged, "{account}: {cause} at {second}");
        }
        assert!(!log.is_over(&of("c")), "it never failed");
        assert!(!log.is_over(&of("a")), "the other one still fails");
        assert!(log.is_over(&of("b")));
        assert!(log.limit.resolved(Duration::from_secs(908)));
        assert!(!log.limit.resolved(Duration::from_secs(909)));
        let uptime = Duration::from_secs(910);
        assert_ne!(log.decide(of("b"), "locked", uptime), LogDecision::Suppress);
        // An account that is removed does not fail.
        log.retain(&HashSet::new());
        assert!(log.is_over(&of("a")));
    }
}
