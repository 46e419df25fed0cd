//! What the log tells about a finished poll: what changed, what is not believed yet, and clocks
//! that disagree.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tracing::{info, warn};

use crate::domain::account_state::AccountState;
use crate::domain::changes::{self, Change, KeyChange};
use crate::domain::listing::Listing;
use crate::poller::clocks::{Clocks, FutureKeys, SkewNews};
use crate::poller::lines::Lines;

/// Changes told one by one: enough for a busy day's work, and far too few to fill a disk when an
/// API makes up other ids at each poll.
const LINES_MAX: u32 = 20;
const LINE_EVERY: Duration = Duration::from_secs(20);

/// Tells the changes of one account's keys, line by line as long as there are not too many.
#[derive(Debug)]
pub(super) struct Told {
    lines: Lines,
    /// Changes that were not told since the last line.
    untold: u64,
    clocks: Clocks,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            lines: Lines::new(LINES_MAX, LINE_EVERY),
            untold: 0,
            clocks: Clocks::default(),
        }
    }
}

impl Told {
    /// Tells what is new in `listing`, which `state` does not know yet. What widens a key comes
    /// first, so that it is told whatever else happens.
    pub(super) fn listing(&mut self, state: &AccountState, listing: &Listing, uptime: Duration) {
        let account = &*state.account.name;
        let Some(held) = &state.held else { return };
        if state.holds_back(listing) {
            if self.lines.take(uptime) {
                say_held_back(state, held.keys().len(), listing.keys().len());
            }
            return;
        }
        let mut changes = changes::between(held, listing);
        changes.sort_by_key(|change| !change.is_widened());
        for change in changes {
            if self.lines.take(uptime) {
                if self.untold > 0 {
                    let untold = std::mem::take(&mut self.untold);
                    info!(account, untold, "more keys changed than were told");
                }
                say(account, &change);
            } else {
                self.untold += 1;
            }
        }
    }
}

impl Told {
    /// Tells when the API's clock and ours have parted, and when they agree again.
    pub(super) fn clock_skew(&mut self, account: &str, skew: Option<TimeDelta>, uptime: Duration) {
        let Some(news) = self.clocks.skew_news(skew) else {
            return;
        };
        if !self.lines.take(uptime) {
            return;
        }
        self.clocks.told_skew(news);
        let skew_seconds = skew.map(|skew| skew.num_seconds());
        match news {
            SkewNews::Parted => warn!(
                account,
                skew_seconds, "the API's clock and ours differ; is this machine's clock right?"
            ),
            SkewNews::Agree => info!(
                account,
                skew_seconds, "the API's clock and ours agree again"
            ),
        }
    }

    /// Tells of keys that were created in the future. `now` is the later one of the API's clock and
    /// ours: keys are not to blame for a clock.
    pub(super) fn future_keys(
        &mut self,
        account: &str,
        listing: &Listing,
        now: DateTime<Utc>,
        uptime: Duration,
    ) {
        let Some(FutureKeys { furthest, count }) = self.clocks.future_keys(listing, now) else {
            return;
        };
        if !self.lines.take(uptime) {
            return;
        }
        self.clocks.told_future_keys();
        let key_id = furthest.id.as_str();
        let created_at = furthest.created_at;
        let created_at = created_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        warn!(
            account,
            key_id,
            created_at,
            keys = count,
            "keys were created in the future; are the API's times in another timezone than UTC?"
        );
    }
}

fn say_held_back(state: &AccountState, held: usize, listed: usize) {
    let account = &*state.account.name;
    let (seen, needed) = (
        state.shrunk_listings + 1,
        state.account.shrink.confirmations,
    );
    warn!(
        account,
        held, listed, seen, needed, "most keys are gone; keeping those held until it is confirmed"
    );
}

fn say(account: &str, change: &KeyChange<'_>) {
    let key_id = change.key_id().map(ToString::to_string);
    let name = change
        .after
        .or(change.before)
        .and_then(|key| key.label.as_deref());
    match change.change {
        Change::Scopes if change.is_widened() => {
            let added = added_scopes(change);
            warn!(
                account,
                key_id, name, added, "a key may do more than before"
            );
        }
        Change::IpAllowList if change.is_widened() => {
            warn!(
                account,
                key_id, name, "a key may be used from more addresses than before"
            );
        }
        Change::Added => info!(account, key_id, name, "a key was added"),
        Change::Removed => info!(account, key_id, name, "a key was removed"),
        change @ (Change::Expiry | Change::Scopes | Change::IpAllowList | Change::Name) => info!(
            account,
            key_id,
            name,
            change = change.as_str(),
            "a key changed"
        ),
    }
}

/// The scopes that a key did not have before, in one string; cut when it is logged.
fn added_scopes(change: &KeyChange<'_>) -> String {
    let (Some(before), Some(after)) = (change.before, change.after) else {
        return String::new();
    };
    let is_new = |scope: &&str| before.scopes.iter().all(|known| known != *scope);
    let added: Vec<&str> = after.scopes.iter().filter(is_new).collect();
    crate::domain::text::Line::clean(&added.join(" "))
        .as_str()
        .to_owned()
}
