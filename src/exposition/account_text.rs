//! The data stored for one account besides its text: the labels of its keys, their expiry, and how
//! long the text remains valid. Pure.

use std::sync::{Arc, Weak};

use chrono::{DateTime, Utc};

use crate::domain::account_state::AccountState;
use crate::domain::assessment::Assessment;
use crate::domain::key::{Expiry, Key};
use crate::domain::listing::Listing;
use crate::domain::state_counts::StateCounts;
use crate::domain::view::ViewSettings;
use crate::exposition::families::KeyFacts;
use crate::exposition::samples::push_label;

/// Most keys of a part. A family's text for this many is some 100 KiB, which fits the faster caches
/// of a processor, and writing a listing of any size allocates nothing larger.
const PART_KEYS_MAX: usize = 1024;

/// One key in this many starts a part. This depends on the key ids alone, so that adding or
/// removing a key changes one part and not all that follow.
const PART_KEYS: u32 = 512;

/// The input of the text about one account's keys, and what depends on the clock.
#[derive(Debug)]
pub(super) struct AccountText {
    /// The account's label, opened and not closed.
    labels: Box<str>,
    /// For comparison only: it does not keep an old listing alive.
    listing: Option<Weak<Listing>>,
    settings: ViewSettings,
    /// When the text is valid: from the first time on, and before the second.
    pub(super) holds: Validity,
    pub(super) state_counts: StateCounts,
    /// The labels of all keys, concatenated.
    key_labels: Box<str>,
    keys: Box<[KeyLine]>,
}

/// A time range that may be open at either end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Validity {
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

/// The data stored for one key.
#[derive(Clone, Copy, Debug)]
struct KeyLine {
    /// Where its labels end.
    labels_end: usize,
    /// The second in which it expires, rounded down.
    expires: Option<i64>,
}

impl AccountText {
    /// The data for `state` as of `now`. `assessments` are those of its keys, in order.
    pub(super) fn new(
        state: &AccountState,
        assessments: &[Assessment<'_>],
        settings: &ViewSettings,
        now: DateTime<Utc>,
    ) -> Self {
        let labels = account_labels(state);
        let keys = state.held.iter().flat_map(|listing| listing.keys());
        let assessed = || keys.clone().zip(assessments);
        // A usual id has 44 characters; longer ones make the buffer grow.
        let mut key_labels =
            String::with_capacity(assessments.len() * (labels.len() + ",key_id=\"\"".len() + 44));
        let lines = keys.clone().map(|key| {
            key_labels.push_str(&labels);
            key_labels.push(',');
            push_label(&mut key_labels, "key_id", key.id.as_str());
            KeyLine {
                labels_end: key_labels.len(),
                expires: expires(key).filter(|_| settings.metrics.relative),
            }
        });
        let lines = lines.collect();
        let points = assessed().flat_map(|(key, it)| settings.rules.turning_points(key, it));
        Self {
            labels: labels.into(),
            listing: state.held.as_ref().map(Arc::downgrade),
            settings: settings.clone(),
            holds: Validity::around(now, points),
            state_counts: StateCounts::new(assessed().map(|(key, it)| (key, it.notice.warning))),
            key_labels: key_labels.into(),
            keys: lines,
        }
    }

    /// Whether the text about the keys of `state` is still the same at `now`.
    pub(super) fn is_of(
        &self,
        state: &AccountState,
        settings: &ViewSettings,
        now: DateTime<Utc>,
    ) -> bool {
        let same_listing = match (&self.listing, &state.held) {
            (Some(known), Some(held)) => known.as_ptr() == Arc::as_ptr(held),
            (None, None) => true,
            _ => false,
        };
        same_listing
            && Arc::ptr_eq(&self.settings.rules, &settings.rules)
            && self.settings.metrics == settings.metrics
            && self.holds.contains(now)
    }

    /// The labels that every sample of the account carries, opened and not closed.
    pub(super) fn labels(&self) -> &str {
        &self.labels
    }

    /// The labels of each key, opened and not closed, and the second in which it expires.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, Option<i64>)> {
        let (mut rest, mut start) = (&*self.key_labels, 0);
        self.keys.iter().map(move |line| {
            let (labels, tail) = rest.split_at(line.labels_end - start);
            (rest, start) = (tail, line.labels_end);
            (labels, line.expires)
        })
    }

    /// Whether any key has an expiry to count down to.
    pub(super) fn has_expiries(&self) -> bool {
        self.keys.iter().any(|key| key.expires.is_some())
    }
}

impl Validity {
    /// The time range around `now` that contains none of `turning_points`.
    fn around(now: DateTime<Utc>, turning_points: impl Iterator<Item = DateTime<Utc>>) -> Self {
        let (mut from, mut until) = (None, None);
        for point in turning_points {
            if point <= now {
                from = from.max(Some(point));
            } else if until.is_none_or(|until| point < until) {
                until = Some(point);
            }
        }
        Self { from, until }
    }

    /// The intersection of both ranges.
    pub(super) fn and(self, other: Self) -> Self {
        let until = [self.until, other.until].into_iter().flatten().min();
        Self {
            from: self.from.max(other.from),
            until,
        }
    }

    pub(super) fn contains(&self, now: DateTime<Utc>) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// Groups of consecutive keys, with their labels, as they are rendered.
pub(super) fn parts<'a, 'b>(
    keys: &'a [(KeyFacts<'b>, &'b str)],
) -> impl Iterator<Item = &'a [(KeyFacts<'b>, &'b str)]> {
    let starts_part = |(facts, _): &(KeyFacts<'_>, &str)| {
        crc32fast::hash(facts.key.id.as_str().as_bytes()).is_multiple_of(PART_KEYS)
    };
    keys.chunk_by(move |_, next| !starts_part(next))
        .flat_map(|part| part.chunks(PART_KEYS_MAX))
}

fn expires(key: &Key) -> Option<i64> {
    match key.expiry {
        Expiry::At(end) => Some(end.timestamp()),
        Expiry::Never | Expiry::Unknown => None,
    }
}

fn account_labels(state: &AccountState) -> String {
    let mut labels = "{".to_owned();
    push_label(&mut labels, "account", &state.account.name);
    labels
}
