//! Says in the log what an operator should hear of single keys: one that comes near its end, the
//! exporter's own, and an inventory that does not fit.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, Utc};
use tracing::{info, warn};

use crate::domain::account_state::AccountState;
use crate::domain::assessment::{Assessment, AssessmentRules, Crossing, Severity};
use crate::domain::key::{Expiry, Key, KeyId};
use crate::domain::listing::Listing;
use crate::domain::span;
use crate::domain::text::join_truncated;
use crate::exposition::prepared::Prepared;
use crate::provider::bitgpt::LISTING_SCOPE;

/// Most crossings told one by one after a look; the rest are a number. A first look at an account
/// with a thousand expired keys must not fill the log.
const CROSSINGS_TOLD_MAX: usize = 50;

/// What was said of one account's keys.
#[derive(Debug)]
pub struct Watch {
    /// When the keys were last looked at.
    looked_at: Option<DateTime<Utc>>,
    /// What was told of the own key.
    own: Own,
    unmatched: Arc<Unmatched>,
}

/// The exporter's own key, as far as it was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Own {
    Untold,
    Absent,
    Listed(KeyId),
}

impl Watch {
    /// Starts from what is known: a listing that was saved counts as looked at when it was made.
    pub fn new(state: &AccountState, unmatched: Arc<Unmatched>) -> Self {
        Self {
            looked_at: state.last_success_at,
            own: Own::Untold,
            unmatched,
        }
    }

    /// Looks at the keys after a poll, good or bad: time passes either way. `before` is the listing
    /// that was held before that poll.
    pub fn look(
        &mut self,
        before: Option<&Listing>,
        state: &AccountState,
        settings: &AssessmentRules,
        now: DateTime<Utc>,
    ) {
        let Some(listing) = state.held.as_deref() else {
            return;
        };
        let account = &*state.account.name;
        let mut untold = 0_usize;
        let before = before.zip(self.looked_at.replace(now));
        let crossings = settings.crossings(account, before, listing, now);
        for (number, crossing) in crossings.enumerate() {
            if number < CROSSINGS_TOLD_MAX {
                say_crossing(account, crossing, now);
            } else {
                untold += 1;
            }
        }
        if untold > 0 {
            warn!(account, keys = untold, "more keys crossed a threshold");
        }
        let is_good = state.last_attempt.is_some_and(|attempt| attempt.is_success);
        if is_good {
            self.look_at_own(account, listing, settings, now);
        }
    }

    /// Compares the inventory with what all accounts list, once all of them have a listing.
    pub fn look_at_inventory(&self, accounts: &[Arc<Prepared>]) {
        let Some(unmatched) = unmatched(accounts) else {
            return;
        };
        let entries = join_truncated(unmatched.iter().map(|pattern| &**pattern));
        let count = unmatched.len();
        match self.unmatched.is_news(unmatched) {
            false => {}
            true if count > 0 => {
                warn!(
                    count,
                    entries, "entries of the inventory match no key, or none before another entry"
                );
            }
            true => info!("every entry of the inventory matches a key"),
        }
    }

    fn look_at_own(
        &mut self,
        account: &str,
        listing: &Listing,
        settings: &AssessmentRules,
        now: DateTime<Utc>,
    ) {
        let own = listing.keys().iter().find(|key| key.is_own);
        let found = own.map_or(Own::Absent, |key| Own::Listed(key.id.clone()));
        if found == self.own {
            return;
        }
        self.own = found;
        let Some(key) = own else {
            info!(account, "the exporter's own key is not among those listed");
            return;
        };
        let assessment = settings.assess(account, key, now);
        let Who {
            key_id,
            name,
            team,
            expires_at,
            expires_in,
        } = Who::of(key, &assessment, now);
        info!(
            account,
            key_id, name, team, expires_at, expires_in, "recognised the exporter's own key"
        );
        let surplus = key.scopes.iter().filter(|it| *it != LISTING_SCOPE);
        if let Some(scopes) = join_truncated(surplus) {
            warn!(
                account,
                key_id,
                name,
                team,
                needed = LISTING_SCOPE,
                scopes,
                "the exporter's own key holds more scopes than listing needs"
            );
        }
    }
}

/// Which entries of the inventory were last said to match nothing; shared by all accounts, because
/// an entry may be meant for any.
#[derive(Debug, Default)]
pub struct Unmatched(Mutex<Vec<Box<str>>>);

impl Unmatched {
    /// Remembers `patterns`; whether they are others than before.
    fn is_news(&self, patterns: Vec<Box<str>>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *said != patterns;
        *said = patterns;
        is_news
    }
}

/// The patterns that no key of any account is matched by; `None` while an account has no listing,
/// or has one that was judged by other settings.
fn unmatched(accounts: &[Arc<Prepared>]) -> Option<Vec<Box<str>>> {
    let entries = accounts.first()?.settings().inventory.entries();
    let mut unmatched = Vec::new();
    for account in accounts {
        account.state().held.as_ref()?;
        if account.matched_entries().len() != entries.len() {
            return None;
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        let is_matched =
            |account: &Arc<Prepared>| account.matched_entries().get(index) == Some(&true);
        if !accounts.iter().any(is_matched) {
            unmatched.push(entry.pattern.as_str().into());
        }
    }
    Some(unmatched)
}

/// A key as every line about it names it.
struct Who<'a> {
    key_id: &'a str,
    name: Option<&'a str>,
    team: Option<&'a str>,
    expires_at: Option<String>,
    expires_in: Option<String>,
}

impl<'a> Who<'a> {
    fn of(key: &'a Key, assessment: &Assessment<'a>, now: DateTime<Utc>) -> Self {
        let expires_at = match key.expiry {
            Expiry::At(end) => Some(end.to_rfc3339_opts(SecondsFormat::Secs, true)),
            Expiry::Never => Some("never".to_owned()),
            Expiry::Unknown => None,
        };
        Self {
            key_id: key.id.as_str(),
            name: assessment.name(key),
            team: assessment.team(),
            expires_at,
            expires_in: key.time_left(now).map(span::words),
        }
    }
}

fn say_crossing(account: &str, crossing: Crossing<'_>, now: DateTime<Utc>) {
    let Crossing { key, assessment } = crossing;
    let Who {
        key_id,
        name,
        team,
        expires_at,
        expires_in,
    } = Who::of(key, &assessment, now);
    let entry = assessment.entry;
    let rotate_url = entry.and_then(|entry| entry.rotate_url.as_deref());
    let runbook_url = entry.and_then(|entry| entry.runbook_url.as_deref());
    let muted = entry.filter(|_| assessment.is_muted);
    let muted_until = muted.and_then(|entry| entry.muted_until);
    let muted_until = muted_until.map(|end| end.to_rfc3339_opts(SecondsFormat::Secs, true));
    let reason = muted.and_then(|entry| entry.reason.as_deref());
    macro_rules! say {
        ($words:literal) => {
            warn!(
                account,
                key_id,
                name,
                team,
                expires_at,
                expires_in,
                rotate_url,
                runbook_url,
                muted_until,
                reason,
                $words
            )
        };
    }
    match assessment.severity {
        Severity::Expired => say!("a key expired"),
        Severity::Critical => say!("a key entered its critical threshold"),
        Severity::Warning => say!("a key entered its warning threshold"),
        Severity::None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
    use crate::exposition::Metrics;

    const METRICS: Metrics = Metrics {
        relative: false,
        scope_info: false,
        max_scopes_per_key: 1,
    };

    /// An account with a listing of `ids`, or with none yet.
    fn prepared(
        name: &str,
        ids: Option<&[&str]>,
        settings: &Arc<AssessmentRules>,
    ) -> Arc<Prepared> {
        let mut state = polled_every(Duration::from_secs(60), name);
        if let Some(ids) = ids {
            let keys = ids.iter().map(|id| key(id)).collect();
            state = state.after(listed(keys), at(0));
        }
        Arc::new(Prepared::new(state, None, METRICS, settings, at(0)))
    }

    #[test]
    fn an_entry_is_idle_where_no_account_has_a_key_for_it() {
        let of = |account: &str, pattern: &str| Entry {
            account: Some(account.into()),
            ..entry(pattern)
        };
        let entries = vec![
            entry("a"),
            of("shop", "b"),
            entry("c*"),
            entry("cc"),
            entry("gone"),
        ];
        let settings = Arc::new(AssessmentRules {
            inventory: Inventory::new(entries),
            ..AssessmentRules::default()
        });
        let shop = prepared("shop", Some(&["a"]), &settings);
        let office = prepared("office", Some(&["b", "cc"]), &settings);
        let waiting = prepared("waiting", None, &settings);
        let idle = unmatched(&[shop.clone(), office]).unwrap();
        // One is of another account, one comes after an entry that takes its key.
        let idle: Vec<&str> = idle.iter().map(|pattern| &**pattern).collect();
        assert_eq!(idle, ["b", "cc", "gone"]);
        assert_eq!(unmatched(&[shop, waiting]), None, "nobody knows yet");
    }

    #[test]
    fn idle_entries_are_news_when_they_change() {
        let said = Unmatched::default();
        let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        for (names, expected) in [
            (&[][..], false),
            (&["a"], true),
            (&["a"], false),
            (&["a", "b"], true),
            (&[], true),
            (&[], false),
        ] {
            assert_eq!(said.is_news(list(names)), expected, "{names:?}");
        }
    }
}
