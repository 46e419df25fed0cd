//! One complete listing of an account's keys: sorted, each id once, with what had to be left out.

use std::cmp::Reverse;
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::domain::key::{Details, Expiry, Key, KeyId};
use crate::domain::text::REDACTED;

/// Why an entry of a listing could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Its id is missing or not an id.
    Id,
    /// Another entry has the same id and expires no later.
    Duplicate,
    /// It is not an object, or a field that matters has the wrong type.
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
    /// Entries whose id another one has.
    pub duplicate: u32,
    /// Entries of another shape.
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

    /// All of them.
    pub fn total(&self) -> u32 {
        self.id + self.duplicate + self.shape
    }

    /// Counts one more.
    pub fn add(&mut self, reason: Reject) {
        match reason {
            Reject::Id => self.id += 1,
            Reject::Duplicate => self.duplicate += 1,
            Reject::Shape => self.shape += 1,
        }
    }
}

/// All keys of an account at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    keys: Box<[Key]>,
    rejects: Rejects,
    /// Ids of the entries that were left out although they had one. No more than a listing may have
    /// entries (`poll.max_keys`), because whoever reads one stops there.
    rejected_ids: Vec<KeyId>,
    api_env: Option<Box<str>>,
}

impl Listing {
    /// Sorts `keys` by id. Of several with one id the one that expires first stays, because being
    /// warned too early is the lesser harm; the others count as duplicates.
    pub fn new(mut keys: Vec<Key>, mut rejects: Rejects, api_env: Option<Box<str>>) -> Self {
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

    /// The same listing, knowing the ids of entries that were left out by whoever read it.
    #[must_use]
    pub fn with_rejected_ids(mut self, ids: Vec<KeyId>) -> Self {
        self.rejected_ids.extend(ids);
        self
    }

    /// The same listing with the keys of `held` that it lists and that could not be read this time,
    /// as they were then. A key of which one field has become odd is still there, and still ends.
    #[must_use]
    pub fn keeping(mut self, held: Option<&Self>) -> Self {
        let Some(held) = held else { return self };
        let is_missing = |id: &&KeyId| self.get(id.as_str()).is_none();
        let missing = self.rejected_ids.iter().filter(is_missing);
        let kept: Vec<Key> = missing
            .filter_map(|id| held.get(id.as_str()).cloned())
            .collect();
        if kept.is_empty() {
            return self;
        }
        let mut keys = self.keys.into_vec();
        keys.extend(kept);
        keys.sort_by(|a, b| a.id.cmp(&b.id));
        // Two odd entries may have had one id.
        keys.dedup_by(|a, b| a.id == b.id);
        self.keys = keys.into();
        self
    }

    /// Ids of the entries that were left out although they had one.
    pub fn rejected_ids(&self) -> &[KeyId] {
        &self.rejected_ids
    }

    /// The keys, sorted by id; no id twice.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key of this id.
    pub fn get(&self, id: &str) -> Option<&Key> {
        let index = self
            .keys
            .binary_search_by(|key| key.id.as_str().cmp(id))
            .ok()?;
        self.keys.get(index)
    }

    /// What was left out.
    pub fn rejects(&self) -> Rejects {
        self.rejects
    }

    /// The environment that the API says it is: `development` or `production`, or a word yet
    /// unknown; clean.
    pub fn api_env(&self) -> Option<&str> {
        self.api_env.as_deref()
    }

    /// The same with the details that were read since `before`, the last listing; where there are
    /// none, the older ones of that listing stay. A label comes from the details where the listing
    /// itself has none, and stays until they are read again.
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
            if key.label.is_none() {
                key.label = match &key.details {
                    Some(details) => details.label.clone(),
                    // A saved listing may have kept the label and not the details.
                    None => before.and_then(|before| before.label.clone()),
                };
            }
        }
        self
    }

    /// For each key, in order: whether a newer key of the same name expires later. `names` are
    /// those of the keys, in order. A key without a name, a creation time or a readable end is
    /// never superseded and supersedes nobody, save that a successor may never expire.
    pub fn superseded(&self, names: &[Option<&str>]) -> Vec<bool> {
        let keys = self.keys.iter().zip(names).enumerate();
        let mut sorted: Vec<_> = keys
            .filter_map(|(index, (key, name))| {
                let created_at = Reverse(key.created_at?);
                Some(((*name)?, created_at, End::of(key.expiry), index))
            })
            .collect();
        sorted.sort_unstable();
        let mut superseded = vec![false; self.keys.len()];
        // Newest first, so that one pass knows the latest end of all newer keys: no key is compared
        // with every other one, even where all share one name.
        for same_name in sorted.chunk_by(|(a, ..), (b, ..)| a == b) {
            // Two names may be the same only because what differed was blacked out.
            if same_name.len() < 2 || same_name.iter().any(|(name, ..)| name.contains(REDACTED)) {
                continue;
            }
            let mut latest_of_newer = None;
            for of_one_moment in same_name.chunk_by(|(_, a, ..), (_, b, ..)| a == b) {
                for (_, _, end, index) in of_one_moment {
                    if let Some(is_superseded) = superseded.get_mut(*index) {
                        *is_superseded = end.is_some() && *end < latest_of_newer;
                    }
                }
                let latest = of_one_moment.iter().map(|(_, _, end, _)| *end).max();
                latest_of_newer = latest_of_newer.max(latest.flatten());
            }
        }
        superseded
    }
}

/// A readable end, in order of time; no end is the latest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    At(DateTime<Utc>),
    Never,
}

impl End {
    fn of(expiry: Expiry) -> Option<Self> {
        match expiry {
            Expiry::At(end) => Some(Self::At(end)),
            Expiry::Never => Some(Self::Never),
            Expiry::Unknown => None,
        }
    }
}

/// Orders ends by how much they matter: a known end first, the earlier the sooner; then unknown;
/// then none.
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

    fn named(id: &str, name: &str, created: i64, expiry: Expiry) -> Key {
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
    fn a_key_that_becomes_unreadable_stays_as_it_was() {
        let held = vec![
            named("a", "A", 1, Expiry::Never),
            named("b", "B", 1, Expiry::At(at(100))),
            named("gone", "G", 1, Expiry::Never),
        ];
        let held = Listing::new(held, Rejects::default(), None);
        let odd = |ids: [&str; 3]| ids.map(|id| KeyId::parse(id).unwrap()).to_vec();
        let now = Listing::new(vec![key("c"), key("a")], Rejects::default(), None)
            .with_rejected_ids(odd(["b", "new", "b"]));
        let kept = now.clone().keeping(Some(&held));
        let ids: Vec<&str> = kept.keys().iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(kept.get("b"), held.get("b"));
        // What can be read is as it is now.
        assert_eq!(kept.get("a").unwrap().label, None);
        assert_eq!(now.clone().keeping(None), now);
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
        let details = |label: &str, read_at| Details {
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

    #[test]
    fn a_newer_key_of_the_same_name_that_expires_later_supersedes() {
        let keys = vec![
            named("a-old", "ci", 10, Expiry::At(at(100))),
            named("b-new", "ci", 20, Expiry::At(at(200))),
            named("c-newer-but-shorter", "ci", 30, Expiry::At(at(150))),
            named("d-other-name", "web", 5, Expiry::At(at(50))),
            key("e-nameless"),
            named("f-unknown", "ci", 1, Expiry::Unknown),
            named("g-same-moment", "pair", 10, Expiry::At(at(100))),
            named("h-same-moment", "pair", 10, Expiry::At(at(200))),
            named("i-ends", "db", 10, Expiry::At(at(100))),
            named("j-never-ends", "db", 20, Expiry::Never),
        ];
        let listing = Listing::new(keys, Rejects::default(), None);
        let names: Vec<Option<&str>> = listing
            .keys()
            .iter()
            .map(|key| key.label.as_deref())
            .collect();
        let superseded: Vec<&str> = listing
            .keys()
            .iter()
            .zip(listing.superseded(&names))
            .filter_map(|(key, is_superseded)| is_superseded.then_some(key.id.as_str()))
            .collect();
        assert_eq!(superseded, ["a-old", "i-ends"]);
    }
}
