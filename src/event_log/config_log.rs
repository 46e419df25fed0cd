//! The log lines of configurations: reloads, which anyone who can reach the server may request, and
//! the web configuration file, which is read for every connection.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::event_log::rate_limit::{LogDecision, RateLimit};

/// Ten reloads in any minute; people do not reload more often.
const BURST: u32 = 5;
const PERIOD: Duration = Duration::from_secs(12);

/// Reloads of the configuration.
#[derive(Debug)]
pub struct ReloadLog {
    start: Instant,
    reloaded: RateLimit,
    /// Separate, so that successful reloads do not hide a rejected one.
    refused: RateLimit,
}

/// A configuration that took effect.
#[derive(Debug)]
pub struct Reloaded<'a> {
    /// The number of accounts now.
    pub accounts: usize,
    /// The names of the added accounts; `None` if there are none, here and below.
    pub added: Option<String>,
    /// The names of the removed accounts.
    pub removed: Option<String>,
    /// The names of the changed accounts.
    pub changed: Option<String>,
    /// Changed options that are not in effect.
    pub need_restart: Option<String>,
    /// Configuration warnings.
    pub warnings: &'a [String],
}

impl Default for ReloadLog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            reloaded: RateLimit::new(BURST, PERIOD),
            refused: RateLimit::new(BURST, PERIOD),
        }
    }
}

impl ReloadLog {
    /// A configuration took effect. Removed accounts are always logged.
    pub fn reloaded(&mut self, reloaded: &Reloaded<'_>) {
        let suppressed = match self.reloaded.event(self.start.elapsed()) {
            LogDecision::Log { suppressed } => suppressed,
            LogDecision::Suppress if reloaded.removed.is_none() => return,
            LogDecision::Suppress => None,
        };
        let Reloaded {
            accounts,
            added,
            removed,
            changed,
            need_restart,
            warnings,
        } = reloaded;
        if let Some(options) = need_restart {
            warn!(options, "changed options take effect after a restart");
        }
        info!(
            accounts,
            added, removed, changed, suppressed, "reloaded the configuration"
        );
        if let Some(removed) = removed {
            warn!(
                removed,
                "the new configuration removes accounts; is the file complete?"
            );
        }
        for warning in *warnings {
            warn!(warning, "configuration warning");
        }
    }

    /// A configuration was rejected.
    pub fn refused(&mut self, problems: &str) {
        if let LogDecision::Log { suppressed } = self.refused.event(self.start.elapsed()) {
            error!(
                problems,
                suppressed, "invalid configuration; keeping the previous one"
            );
        }
    }
}

/// A web configuration file.
#[derive(Debug)]
pub struct WebFileLog {
    start: Instant,
    limit: RateLimit<String>,
}

impl Default for WebFileLog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            limit: RateLimit::new(BURST, PERIOD),
        }
    }
}

impl WebFileLog {
    /// It was read and is valid; `is_new` if it differs from the previous one.
    pub fn usable(&mut self, path: &Path, is_new: bool) {
        let path = path.display();
        if is_new {
            info!(%path, "web configuration file changed");
        }
        if self.limit.resolved(self.start.elapsed()) {
            info!(%path, "web configuration file is usable again");
        }
    }

    /// It is unusable.
    pub fn unusable(&mut self, path: &Path, error: &str) {
        let decision = self.limit.problem(error.to_owned(), self.start.elapsed());
        if let LogDecision::Log { suppressed } = decision {
            warn!(
                path = %path.display(),
                error,
                suppressed,
                "cannot use the web configuration file; refusing all requests"
            );
        }
    }
}
