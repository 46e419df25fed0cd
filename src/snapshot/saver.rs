//! Saves each new listing while the exporter runs. If the directory cannot be opened, each save
//! retries: it may be unlocked, mounted or created later.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use chrono::{DateTime, Utc};
use prometheus::IntCounter;
use tokio_util::sync::CancellationToken;

use crate::domain::account_state::SavedState;
use crate::domain::listing::Listing;
use crate::domain::text::chain;
use crate::event_log::SnapshotLog;
use crate::snapshot::{SnapshotDirectory, identity};
use crate::state_store::{AccountId, StateStore};

/// Which version of an account's state was saved.
#[derive(Clone, Debug)]
struct Version {
    listed_at: DateTime<Utc>,
    shrunk_listings: u32,
    /// A weak reference does not keep the listing alive, but prevents reuse of its address.
    listing: Weak<Listing>,
}

impl Version {
    fn of(state: &SavedState) -> Self {
        Self {
            listed_at: state.listed_at,
            shrunk_listings: state.shrunk_listings,
            listing: Arc::downgrade(&state.listing),
        }
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        (self.listed_at, self.shrunk_listings) == (other.listed_at, other.shrunk_listings)
            && self.listing.ptr_eq(&other.listing)
    }
}

/// Saves each new listing in `store`, until `stop`. Never delays a poll: while the disk is busy,
/// only the newest listing is kept and then saved.
pub async fn save_all(
    directory: Arc<SnapshotDirectory>,
    store: Arc<StateStore>,
    failures: IntCounter,
    stop: CancellationToken,
) {
    let mut log = SnapshotLog::new(failures);
    let mut subscription = store.subscribe();
    // The name of each account, and the version that was last saved or failed to save.
    let mut saved: HashMap<AccountId, (Box<str>, Version)> = HashMap::new();
    // Returns immediately if something changed while the disk was busy.
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
            let Some(to_save) = state.to_save() else {
                continue;
            };
            let account = &state.account.name;
            let version = Version::of(&to_save);
            let before = saved.insert(id, (account.clone(), version.clone()));
            // A loaded snapshot needs no saving.
            let is_saved =
                before.is_some_and(|(_, before)| before == version) || state.last_attempt.is_none();
            if is_saved {
                continue;
            }
            let saving = directory.save(identity(&state), to_save);
            match stop.run_until_cancelled(saving).await {
                None => return,
                Some(Ok(())) => log.saved(account),
                Some(Err(error)) => log.failed(account, &chain(&error)),
            }
        }
    }
}
