//! Saves each new listing while the exporter runs, and tells what fails, once. A folder that cannot
//! be opened is tried again at each save: it may be unlocked, mounted or made later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::IntCounter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::board::Board;
use crate::domain::listing::Listing;
use crate::domain::text::chain;
use crate::snapshot::format::Identity;
use crate::snapshot::{SnapshotDirectory, identity};

/// How often one cause is told while it lasts, as a failing poll is.
const TOLD_EVERY: Duration = Duration::from_mins(15);

/// Saves each new listing that `board` shows, until `stop`. Never holds up a poll: what comes while
/// the disk is busy is saved when it is free, the newest only.
pub async fn save_all(
    directory: Arc<SnapshotDirectory>,
    board: Arc<Board>,
    failures: IntCounter,
    stop: CancellationToken,
) {
    let start = Instant::now();
    let mut changes = board.subscribe();
    // When each account's keys were listed that were saved last, or could not be.
    let mut saved: HashMap<Identity, DateTime<Utc>> = HashMap::new();
    let mut trouble = Trouble::default();
    loop {
        let mut unsaved = Vec::new();
        let shown = board.shown();
        let accounts = shown.accounts();
        let known: HashSet<Identity> = accounts
            .iter()
            .map(|account| identity(account.state()))
            .collect();
        saved.retain(|identity, _| known.contains(identity));
        trouble.retain(&known);
        for account in accounts {
            let state = account.state();
            let identity = identity(state);
            let (Some(listing), Some(listed_at)) = (&state.held, state.last_success_at) else {
                continue;
            };
            // What was loaded is saved already.
            if saved.insert(identity.clone(), listed_at) != Some(listed_at)
                && state.last_attempt.is_some()
            {
                unsaved.push((identity, listing.clone(), listed_at));
            }
        }
        drop(shown);
        for (identity, listing, listed_at) in unsaved {
            let account = identity.account.clone();
            let saving = save(directory.clone(), identity.clone(), listing, listed_at);
            match stop.run_until_cancelled(saving).await {
                None => return,
                Some(Ok(())) => {
                    debug!(account, "saved a snapshot");
                    if trouble.saved(&identity) {
                        info!("saving the snapshots works again");
                    }
                }
                Some(Err(error)) => {
                    failures.inc();
                    if trouble.failed(identity, &error, start.elapsed()) {
                        warn!(
                            account,
                            error, "cannot save the snapshot; a restart would forget what is new"
                        );
                    } else {
                        debug!(account, error, "cannot save the snapshot again");
                    }
                }
            }
        }
        // Looks again at what changed while the disk was busy.
        match stop.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

/// Saves one snapshot, in a folder that may have to be opened first; else the reason in words.
async fn save(
    directory: Arc<SnapshotDirectory>,
    identity: Identity,
    listing: Arc<Listing>,
    listed_at: DateTime<Utc>,
) -> Result<(), String> {
    let saving = tokio::task::spawn_blocking(move || {
        let store = directory.open().map_err(|error| chain(&error))?;
        let saved = store.save(&identity, &listing, listed_at);
        saved.map_err(|error| error.to_string())
    });
    saving
        .await
        .unwrap_or_else(|_panicked| Err("saving panicked".to_owned()))
}

/// What fails at the moment, and what was told of it.
#[derive(Debug, Default)]
struct Trouble {
    /// Whose last save failed.
    failing: HashSet<Identity>,
    /// When each cause was told; one that fails every account is one line.
    told: HashMap<String, Duration>,
}

impl Trouble {
    /// Forgets accounts that are not `known` any longer.
    fn retain(&mut self, known: &HashSet<Identity>) {
        self.failing.retain(|identity| known.contains(identity));
        if self.failing.is_empty() {
            self.told.clear();
        }
    }

    /// A save failed, `uptime` after the start; whether that should be told.
    fn failed(&mut self, identity: Identity, cause: &str, uptime: Duration) -> bool {
        self.failing.insert(identity);
        self.told
            .retain(|_, at| uptime.saturating_sub(*at) < TOLD_EVERY);
        let is_news = !self.told.contains_key(cause);
        if is_news {
            self.told.insert(cause.to_owned(), uptime);
        }
        is_news
    }

    /// A save went well; whether nothing fails any longer, and something did.
    fn saved(&mut self, identity: &Identity) -> bool {
        let is_over = self.failing.remove(identity) && self.failing.is_empty();
        if is_over {
            self.told.clear();
        }
        is_over
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
    fn a_cause_is_told_once_in_fifteen_minutes_and_the_end_of_all_of_them() {
        let mut trouble = Trouble::default();
        for (second, account, cause, is_told) in [
            (0, "a", "locked", true),
            (0, "b", "locked", false),
            (5, "a", "locked", false),
            (6, "a", "full", true),
            (7, "b", "locked", false),
            (8, "a", "full", false),
            (900, "a", "locked", true),
            (901, "a", "locked", false),
        ] {
            let uptime = Duration::from_secs(second);
            let told = trouble.failed(of(account), cause, uptime);
            assert_eq!(told, is_told, "{account}: {cause} at {second}");
        }
        assert!(!trouble.saved(&of("c")), "it never failed");
        assert!(!trouble.saved(&of("a")), "the other one still fails");
        assert!(trouble.saved(&of("b")));
        assert!(!trouble.saved(&of("b")));
        assert!(trouble.failed(of("b"), "locked", Duration::from_secs(902)));
        // An account that is gone is no trouble.
        trouble.retain(&HashSet::new());
        assert!(!trouble.saved(&of("b")));
        assert!(trouble.failed(of("b"), "locked", Duration::from_secs(903)));
    }
}
