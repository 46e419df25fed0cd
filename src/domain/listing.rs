//! One complete listing of an account's keys: sorted, each id once, with counts of the entries left
//! out.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::domain::key::{Details, Expiry, Field, Fields, Key, KeyId};
use crate::domain::text::Label;

/// Why an entry of a listing could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Its id is missing or invalid.
    Id,
    /// Another entry has the same id and expires no later.
    Duplicate,
    /// It is not an object, has a duplicate field, or has a field other than its expiry that cannot
    /// be read. In the last case the rest of it is used.
    Shape,
}

impl Reject {
    /// Every reason, in the order of the metric.
    pub const ALL: [Self; 3] = [Self::Id, Self::Duplicate, Self::Shape];

    /// The label value; part of the metrics contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Duplicate => "duplicate",
            Self::Shape => "shape",
        }
    }
}

/// How many entries were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// Entries without a usable id.
    pub id: u32,
    /// Entries with an id that another entry has.
    pub duplicate: u32,
    /// Entries with an invalid shape.
    pub shape: u32,
}

impl Rejects {
    /// The count for one reason.
    pub fn count(&self, reason: Reject) -> u32 {
        match reason {
            Reject::Id => self.id,
            Reject::Duplicate => self.duplicate,
            Reject::Shape => self.shape,
        }
    }

    /// The total.
    pub fn total(&self) -> u32 {
        self.id + self.duplicate + self.shape
    }

    /// Adds one to the count for `reason`.
    pub fn add(&mut self, reason: Reject) {
        match reason {
            Reject::Id => self.id += 1,
            Reject::Duplicate => self.duplicate += 1,
            Reject::Shape => self.shape += 1,
        }
    }
}

/// All keys of an account at one point in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    keys: Box<[Key]>,
    rejects: Rejects,
    /// Ids of the entries that were left out although they had one, sorted. Bounded by
    /// `poll.max_keys`, because reading stops there.
    rejected_ids: Vec<KeyId>,
    api_env: Option<Label>,
}

impl Listing {
    /// Sorts `keys` by id. Of several with the same id the one that expires first is kept, because
    /// an early warning is the lesser harm; the others count as duplicates. Keys with an unreadable
    /// field count in `rejects` too.
    pub fn new(keys: Vec<Key>, rejects: Rejects, api_env: Option<Label>) -> Self {
        let mut listing = Self::restored(keys, rejects, api_env);
        for _ in 0..listing.used_in_part().count() {
            listing.rejects.add(Reject::Shape);
        }
        listing
    }

    /// A saved listing; `rejects` contains all of its counts.
    pub fn restored(mut keys: Vec<Key>, mut rejects: Rejects, api_env: Option<Label>) -> Self {
        keys.sort_by(|a, b| {
            a.id.cmp(&b.id)
                .then(urgency(a.expiry).cmp(&urgency(b.expiry)))
        });
        let mut rejected_ids = Vec::new();
        keys.dedup_by(|later, first| {
            let is_duplicate = later.id == first.id;
            if is_duplicate {
                rejects.duplicate += 1;
                rejected_ids.push(later.id.clone());
            }
            is_duplicate
        });
        Self {
            keys: keys.into(),
            rejects,
            rejected_ids,
            api_env,
        }
    }

    /// This listing with the ids of the entries that the parser left out.
    #[must_use]
    pub fn with_rejected_ids(mut self, ids: Vec<KeyId>) -> Self {
        self.rejected_ids.extend(ids);
        self.rejected_ids.sort_unstable();
        self
    }

    /// This listing with the values of `held`, the previous one, for fields that cannot be read
    /// now, and with the keys of `held` for which the entry was rejected as a whole. A key with
    /// unreadable data still exists, and still expires.
    #[must_use]
    pub fn keeping(mut self, held: &Self) -> Self {
        for key in &mut self.keys {
            if key.unreadable != Fields::default()
                && let Some(earlier) = held.get(key.id.as_str())
            {
                *key = key.clone().keeping(earlier);
            }
        }
        let is_missing = |id: &&KeyId| self.get(id.as_str()).is_none();
        let missing = self.rejected_ids.iter().filter(is_missing);
        let kept = missing.filter_map(|id| held.get(id.as_str()).cloned());
        let kept = kept.map(|key| Key {
            unlisted_since: None,
            ..key
        });
        let kept = kept.collect();
        self.with_keys(kept)
    }

    /// This listing with these keys, which it does not have, added.
    #[must_use]
    pub fn with_keys(mut self, added: Vec<Key>) -> Self {
        if added.is_empty() {
            return self;
        }
        let mut keys = self.keys.into_vec();
        keys.extend(added);
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        // Two invalid entries may have had the same id.
        keys.dedup_by(|a, b| a.id == b.id);
        self.keys = keys.into();
        self
    }

    /// This listing, taken at `now`: a key that has surely expired by then was listed after its
    /// expiry.
    #[must_use]
    pub fn taken_at(mut self, now: DateTime<Utc>) -> Self {
        for key in &mut self.keys {
            key.is_listed_expired = key.unlisted_since.is_none() && key.has_surely_expired(now);
        }
        self
    }

    /// This listing without the keys that are kept although the API no longer lists them.
    #[must_use]
    pub fn only_listed(&self) -> Self {
        let listed = self.keys.iter().filter(|key| key.unlisted_since.is_none());
        Self {
            keys: listed.cloned().collect(),
            ..self.clone()
        }
    }

    /// This listing, recording which keys `later`, a listing taken at `now`, still contains after
    /// their expiry. `None` if nothing changes.
    pub fn seen_in(&self, later: &Self, now: DateTime<Utc>) -> Option<Self> {
        let is_news = |key: &Key| {
            !key.is_listed_expired && key.has_surely_expired(now) && later.has_entry(&key.id)
        };
        self.keys.iter().any(is_news).then(|| {
            let mut seen = self.clone();
            for key in seen.keys.iter_mut().filter(|key| is_news(key)) {
                key.is_listed_expired = true;
                key.unlisted_since = None;
            }
            seen
        })
    }

    /// Whether it has an entry for the key of this id, usable or not.
    pub fn has_entry(&self, id: &KeyId) -> bool {
        let listed = self.get(id.as_str());
        listed.is_some_and(|key| key.unlisted_since.is_none())
            || self.rejected_ids.binary_search(id).is_ok()
    }

    /// Whether it has entries of which none can be used. Such a response provides no information
    /// about the keys.
    pub fn is_unusable(&self) -> bool {
        self.keys.is_empty() && self.rejects.total() > 0
    }

    /// Ids of the entries that were left out, entirely or in part, if they have one.
    pub fn rejected_ids(&self) -> impl Iterator<Item = &KeyId> {
        let in_part = self.used_in_part().map(|key| &key.id);
        self.rejected_ids.iter().chain(in_part)
    }

    /// The keys with a field other than the expiry that cannot be read. Their entries count as
    /// rejected, but the rest of them is used.
    pub fn used_in_part(&self) -> impl Iterator<Item = &Key> {
        let keys = self.keys.iter();
        keys.filter(|key| key.unlisted_since.is_none() && key.unreadable.has_other_than_expiry())
    }

    /// How many entries were left out as a whole for this reason.
    pub fn left_out(&self, reason: Reject) -> usize {
        let rejected = self.rejects.count(reason) as usize;
        match reason {
            Reject::Shape => rejected.saturating_sub(self.used_in_part().count()),
            Reject::Id | Reject::Duplicate => rejected,
        }
    }

    /// How many entries the response had.
    pub fn entries(&self) -> usize {
        let whole = self.keys.len() - self.used_in_part().count();
        whole + self.rejects.total() as usize
    }

    /// The keys, sorted by id; no id twice.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        let index = self
            .keys
            .binary_search_by(|key| key.id.as_str().cmp(id))
            .ok()?;
        self.keys.get(index)
    }

    /// The counts of entries that were left out.
    pub fn rejects(&self) -> Rejects {
        self.rejects
    }

    /// The environment that the API reports: `development` or `production`, or an unknown value;
    /// cleaned.
    pub fn api_env(&self) -> Option<&str> {
        self.api_env.as_deref()
    }

    /// This listing with the details read since `before`, the previous listing; without new ones,
    /// its older details remain. A label comes from the details if the listing itself has none, and
    /// remains until they are read again.
    #[must_use]
    pub fn with_details(
        mut self,
        mut fresh: HashMap<KeyId, Details>,
        before: Option<&Self>,
    ) -> Self {
        for key in &mut self.keys {
            let before = before.and_then(|before| before.get(key.id.as_str()));
            let older = || before?.details.clone();
            key.details = fresh.remove(&key.id).map(Box::new).or_else(older);
            if key.label.is_none() && !key.unreadable.contains(Field::Label) {
                key.label = match &key.details {
                    Some(details) => details.label.clone(),
                    // A saved listing may contain the label without the details.
                    None => before.and_then(|before| before.label.clone()),
                };
            }
        }
        self
    }
}

/// Orders expiries by importance: a known expiry first, the earlier the sooner; then unknown; then
/// none.
fn urgency(expiry: Expiry) -> (u8, Option<DateTime<Utc>>) {
    match expiry {
        Expiry::At(end) => (0, Some(end)),
        Expiry::Unknown => (1, None),
        Expiry::Never => (2, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::LastUse;
    use crate::domain::key::tests::{at, key};

    fn named(id: &str, name: &'static str, created: i64, expiry: Expiry) -> Key {
        Key {
            label: Some(name.into()),
            created_at: Some(at(created)),
            expiry,
            ..key(id)
        }
    }

    #[test]
    fn of_two_entries_with_one_id_the_earlier_expiry_stays() {
        let ends = [
            Expiry::Never,
            Expiry::At(at(200)),
            Expiry::Unknown,
            Expiry::At(at(100)),
        ];
        let keys = ends.map(|expiry| Key { expiry, ..key("a") }).to_vec();
        let listing = Listing::new(keys, Rejects::default(), None);
        assert_eq!(listing.keys().len(), 1);
        assert_eq!(listing.keys()[0].expiry, Expiry::At(at(100)));
        assert_eq!(listing.rejects().count(Reject::Duplicate), 3);
    }

    #[test]
    fn a_key_whose_entry_is_refused_stays_as_it_was() {
        let held = vec![
            named("a", "A", 1, Expiry::Never),
            named("b", "B", 1, Expiry::At(at(100))),
            named("gone", "G", 1, Expiry::Never),
        ];
        let held = Listing::new(held, Rejects::default(), None);
        let odd = |ids: [&str; 3]| ids.map(|id| KeyId::parse(id).unwrap()).to_vec();
        let now = Listing::new(vec![key("c"), key("a")], Rejects::default(), None)
            .with_rejected_ids(odd(["b", "new", "b"]));
        let kept = now.clone().keeping(&held);
        let ids: Vec<&str> = kept.keys().iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(kept.get("b"), held.get("b"));
        let listed_expired = kept.clone().taken_at(at(101));
        assert!(listed_expired.get("b").unwrap().is_listed_expired);
        // Readable fields have their current values.
        assert_eq!(kept.get("a").unwrap().label, None);
    }

    #[test]
    fn an_unreadable_field_keeps_its_value_and_is_counted() {
        let held = vec![named("a", "A", 1, Expiry::At(at(100)))];
        let held = Listing::new(held, Rejects::default(), None);
        let with_unreadable = |field| {
            let mut unreadable = Fields::default();
            unreadable.insert(field);
            let odd = Key {
                expiry: Expiry::Unknown,
                unreadable,
                ..key("a")
            };
            Listing::new(vec![odd, key("b")], Rejects::default(), None)
        };
        let kept = with_unreadable(Field::Expiry).keeping(&held);
        let a = kept.get("a").unwrap();
        assert_eq!((a.expiry, a.created_at), (Expiry::At(at(100)), None));
        assert_eq!(kept.rejects().total(), 0, "it has a metric of its own");
        let kept = with_unreadable(Field::CreatedAt).keeping(&held);
        assert_eq!(kept.get("a").unwrap().created_at, Some(at(1)));
        assert_eq!(kept.rejects().count(Reject::Shape), 1);
        assert_eq!(
            (kept.left_out(Reject::Shape), kept.used_in_part().count()),
            (0, 1)
        );
    }

    #[test]
    fn an_entry_counts_as_rejected_once() {
        let mut unreadable = Fields::default();
        unreadable.insert(Field::Label);
        let odd = |expiry| Key {
            expiry,
            unreadable,
            ..key("a")
        };
        let keys = vec![odd(Expiry::Never), odd(Expiry::At(at(1))), key("b")];
        let mut rejects = Rejects::default();
        rejects.add(Reject::Shape);
        let listing = Listing::new(keys, rejects, None);
        assert_eq!((listing.entries(), listing.rejects().total()), (4, 3));
        assert_eq!(
            Reject::ALL.map(|reason| listing.left_out(reason)),
            [0, 1, 1]
        );
    }

    #[test]
    fn a_listing_is_unusable_where_all_entries_are_rejected() {
        let rejects = Rejects {
            id: 1,
            ..Rejects::default()
        };
        for (keys, rejects, expected) in [
            (vec![], rejects, true),
            (vec![key("a")], rejects, false),
            (vec![], Rejects::default(), false),
        ] {
            assert_eq!(Listing::new(keys, rejects, None).is_unusable(), expected);
        }
    }

    #[test]
    fn keys_are_sorted_by_id() {
        let listing = Listing::new(vec![key("b"), key("a"), key("c")], Rejects::default(), None);
        let ids: Vec<&str> = listing.keys().iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(listing.get("b").map(|key| key.id.as_str()), Some("b"));
        assert_eq!(listing.get("d"), None);
    }

    #[test]
    fn details_keep_their_age_and_lend_their_label() {
        let details = |label: &'static str, read_at| Details {
            label: Some(label.into()),
            last_use: LastUse::Never,
            requests: Some(1),
            read_at: at(read_at),
        };
        let id = |id: &str| KeyId::parse(id).unwrap();
        let listed = || {
            let keys = vec![key("a"), named("b", "listed", 1, Expiry::Never), key("c")];
            Listing::new(keys, Rejects::default(), None)
        };
        let fresh = [("a", "one"), ("b", "two"), ("gone", "three")];
        let fresh = fresh.map(|(key, label)| (id(key), details(label, 10)));
        let first = listed().with_details(fresh.into(), None);
        let fresh = [(id("a"), details("new", 20))];
        let second = listed().with_details(fresh.into(), Some(&first));
        let shown = |listing: &Listing| -> Vec<(String, Option<i64>)> {
            let keys = listing.keys().iter();
            keys.map(|key| {
                let label = key.label.as_deref().unwrap_or("-").to_owned();
                let read_at = key.details.as_ref().map(|it| it.read_at.timestamp());
                (label, read_at)
            })
            .collect()
        };
        let row = |label: &str, read_at| (label.to_owned(), read_at);
        let expected = [
            row("one", Some(10)),
            row("listed", Some(10)),
            row("-", None),
        ];
        assert_eq!(shown(&first), expected);
        let expected = [
            row("new", Some(20)),
            row("listed", Some(10)),
            row("-", None),
        ];
        assert_eq!(shown(&second), expected);
        let saved = vec![named("c", "kept", 1, Expiry::Never)];
        let saved = Listing::new(saved, Rejects::default(), None);
        let third = listed().with_details(HashMap::new(), Some(&saved));
        assert_eq!(shown(&third)[2], row("kept", None));
    }
}
