//! The log lines of configurations: reloads, which anyone who can reach the server may request; the
//! web configuration file, which is read for every connection; and unused inventory entries.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::domain::shard::Shard;
use crate::domain::text::join_truncated;
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

/// The entries of the inventory that match no key.
#[derive(Debug)]
pub struct InventoryLog {
    start: Instant,
    limit: RateLimit,
    /// The patterns, and the accounts without a listing, of the last line.
    logged: (Vec<Box<str>>, Vec<Box<str>>),
}

impl Default for InventoryLog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            limit: RateLimit::new(BURST, PERIOD),
            logged: (Vec::new(), Vec::new()),
        }
    }
}

impl InventoryLog {
    /// These patterns match no key now. Accounts in `not_listed` may have keys for them. Called
    /// again with the same patterns, it logs what the limit suppressed.
    pub fn unused(&mut self, patterns: Vec<Box<str>>, not_listed: Vec<Box<str>>, shard: Shard) {
        self.unused_at(patterns, not_listed, shard, self.start.elapsed());
    }

    fn unused_at(
        &mut self,
        patterns: Vec<Box<str>>,
        not_listed: Vec<Box<str>>,
        shard: Shard,
        uptime: Duration,
    ) {
        let is_known = if patterns.is_empty() {
            self.logged.0.is_empty()
        } else {
            self.logged.0 == patterns && self.logged.1 == not_listed
        };
        if is_known || self.limit.event(uptime) == LogDecision::Suppress {
            return;
        }
        let entries = join_truncated(patterns.iter().map(|pattern| &**pattern));
        let never_listed = join_truncated(not_listed.iter().map(|name| &**name));
        let count = patterns.len();
        if count > 0 {
            warn!(
                count,
                entries,
                never_listed,
                "inventory entries match no key, or are shadowed by an earlier entry"
            );
        } else if shard.is_one_of_several() {
            info!("every inventory entry for an account of this shard matches a key");
        } else {
            info!("every inventory entry matches a key");
        }
        self.logged = (patterns, not_listed);
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::config::LogFormat;
    use crate::logging::tests::logged;

    #[tokio::test]
    async fn unused_entries_are_logged_when_they_change_but_never_too_often() {
        let names = |names: &str| names.split_whitespace().map(Into::into).collect();
        let text = logged(LogFormat::Text, Level::INFO, || {
            let mut log = InventoryLog::default();
            let mut at = |second, patterns, not_listed| {
                let uptime = Duration::from_secs(second);
                let shard = Shard::default();
                log.unused_at(names(patterns), names(not_listed), shard, uptime);
            };
            at(0, "", "shop");
            at(0, "y z", "shop");
            at(1, "y z", "shop");
            at(2, "z", "");
            at(3, "", "");
            at(4, "", "office");
            for second in 5..65 {
                at(second, if second % 2 == 0 { "a" } else { "b" }, "");
            }
            at(300, "b", "");
            at(301, "b", "");
        });
        let lines: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|it| it.1)
            .collect();
        let unused = "level=WARN msg=\"inventory entries match no key, or are shadowed by an earlier entry\"";
        assert_eq!(
            lines[0],
            format!("{unused} count=2 entries=\"y, z\" never_listed=shop")
        );
        assert_eq!(lines[1], format!("{unused} count=1 entries=z"));
        assert_eq!(
            lines[2],
            "level=INFO msg=\"every inventory entry matches a key\""
        );
        // Five at once, and one every twelve seconds.
        assert!((8..=11).contains(&lines.len()), "{lines:#?}");
        assert_eq!(
            lines[lines.len() - 1],
            format!("{unused} count=1 entries=b")
        );
    }
}
