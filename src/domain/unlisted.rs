//! Keeps expired keys that the API no longer lists: many APIs hide expired keys, and an alert about
//! an expired key must not resolve because of that.

use std::cmp::Reverse;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::assessment::{Assessment, AssessmentRules};
use crate::domain::changes::has_vanished_at_its_end;
use crate::domain::key::Key;
use crate::domain::listing::Listing;
use crate::domain::successors::superseded;

/// Most keys of an account that are kept in this way: far more than expire in a week anywhere, and
/// few enough that an API that invents keys at each poll cannot fill memory.
const UNLISTED_MAX: usize = 1_000;

impl Listing {
    /// The keys that `later`, a listing created at `at`, lacks because they expired, each with the
    /// time since which it is missing.
    pub fn missing_in(&self, later: &Self, at: DateTime<Utc>) -> Vec<Key> {
        let missing = self.keys().iter().filter(|key| !later.has_entry(&key.id));
        let expired = missing.filter_map(|key| {
            let is_new = || has_vanished_at_its_end(key, at).then_some(at);
            Some(Key {
                unlisted_since: Some(key.unlisted_since.or_else(is_new)?),
                ..key.clone()
            })
        });
        expired.collect()
    }
}

/// The keys of `missing` to keep in addition to the keys of `listing`: each for `retention` after
/// it was first missing. A key that is muted or has a successor is not kept.
pub fn kept(
    mut missing: Vec<Key>,
    listing: &Listing,
    account: &str,
    rules: &AssessmentRules,
    retention: TimeDelta,
    now: DateTime<Utc>,
) -> Vec<Key> {
    for since in missing
        .iter_mut()
        .filter_map(|key| key.unlisted_since.as_mut())
    {
        // A time in the future means that the clock was set back.
        *since = now.min(*since);
    }
    missing.retain(|key| {
        let is_recent = key
            .unlisted_since
            .is_some_and(|since| now - since < retention);
        is_recent && !rules.assess(account, key, now).is_muted
    });
    if missing.is_empty() {
        return missing;
    }
    missing.sort_by_key(|key| Reverse(key.unlisted_since));
    missing.truncate(UNLISTED_MAX);
    without_superseded(missing, listing, account, rules, now)
}

fn without_superseded(
    kept: Vec<Key>,
    listing: &Listing,
    account: &str,
    rules: &AssessmentRules,
    now: DateTime<Utc>,
) -> Vec<Key> {
    let count = kept.len();
    let listed = listing.keys().iter();
    let listed = listed.filter(|key| key.unlisted_since.is_none()).cloned();
    let mut all: Vec<Key> = kept.into_iter().chain(listed).collect();
    let assess = |key: &'_ Key| rules.assess(account, key, now);
    let assessments: Vec<Assessment<'_>> = all.iter().map(assess).collect();
    let mut superseded = superseded(&all, &assessments).into_iter();
    drop(assessments);
    all.truncate(count);
    all.retain(|_| superseded.next() != Some(true));
    all
}
