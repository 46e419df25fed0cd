//! Saves each new listing while the exporter runs. A folder that cannot be opened is tried again at
//! each save: it may be unlocked, mounted or made later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::domain::text::chain;
use crate::event_log::SnapshotLog;
use crate::snapshot::format::Identity;
use crate::snapshot::{SnapshotDirectory, identity};

/// Saves each new listing that `board` shows, until `stop`. Never holds up a poll: what comes while
/// the disk is busy is saved when it is free, the newest only.
pub async fn save_all(
    directory: Arc<SnapshotDirectory>,
    board: Arc<Board>,
    failures: IntCounter,
    stop: CancellationToken,
) {
    let mut log = SnapshotLog::new(failures);
    let mut changes = board.subscribe();
    // When each account's keys were listed that were saved last, or could not be.
    let mut saved: HashMap<Identity, DateTime<Utc>> = HashMap::new();
    loop {
        let mut unsaved = Vec::new();
        let shown = board.shown();
        let accounts = shown.accounts();
        let known: HashSet<Identity> = accounts
            .iter()
            .map(|account| identity(account.state()))
            .collect();
        saved.retain(|identity, _| known.contains(identity));
        let names: HashSet<&str> = known.iter().map(|it| it.account.as_str()).collect();
        log.retain(|account| names.contains(account));
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
            let saving = directory.save(identity, listing, listed_at);
            match stop.run_until_cancelled(saving).await {
                None => return,
                Some(Ok(())) => log.saved(&account),
                Some(Err(error)) => log.failed(&account, &chain(&error)),
            }
        }
        // Looks again at what changed while the disk was busy.
        match stop.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}
