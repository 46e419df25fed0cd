//! Saves each new listing while the exporter runs. A folder that cannot be opened is tried again at
//! each save: it may be unlocked, mounted or made later.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;

use crate::domain::text::chain;
use crate::event_log::SnapshotLog;
use crate::snapshot::{SnapshotDirectory, identity};
use crate::state_store::{AccountId, StateStore};

/// Saves each new listing that `store` holds, until `stop`. Never holds up a poll: what comes while
/// the disk is busy is saved when it is free, the newest only.
pub async fn save_all(
    directory: Arc<SnapshotDirectory>,
    store: Arc<StateStore>,
    failures: IntCounter,
    stop: CancellationToken,
) {
    let mut log = SnapshotLog::new(failures);
    let mut subscription = store.subscribe();
    // The name of each account, and when the keys were listed that it saved last, or could not.
    let mut saved: HashMap<AccountId, (Box<str>, DateTime<Utc>)> = HashMap::new();
    // Comes back at once for what changed while the disk was busy.
    while stop
        .run_until_cancelled(subscription.changed())
        .await
        .is_some()
    {
        let changes = subscription.take();
        if let Some(replaced) = changes.replaced {
            let known: HashSet<AccountId> = replaced.order.iter().copied().collect();
            saved.retain(|id, _| known.contains(id));
            let names: HashSet<&str> = saved.values().map(|(name, _)| &**name).collect();
            log.retain(|account| names.contains(account));
        }
        for (id, state) in changes.states {
            let (Some(listing), Some(listed_at)) = (&state.held, state.last_success_at) else {
                continue;
            };
            let account = &state.account.name;
            let before = saved.insert(id, (account.clone(), listed_at));
            // What was loaded is saved already.
            let is_saved = before.is_some_and(|(_, saved_at)| saved_at == listed_at)
                || state.last_attempt.is_none();
            if is_saved {
                continue;
            }
            let saving = directory.save(identity(&state), listing.clone(), listed_at);
            match stop.run_until_cancelled(saving).await {
                None => return,
                Some(Ok(())) => log.saved(account),
                Some(Err(error)) => log.failed(account, &chain(&error)),
            }
        }
    }
}
