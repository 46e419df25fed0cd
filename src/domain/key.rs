//! One API key as facts, and queries on it.

use std::borrow::{Borrow, Cow};
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::allow_list::AllowList;
use crate::domain::text::{self, Label, Name};

/// Longest accepted key id, in characters. Usual ones have up to 44.
const ID_CHARS_MAX: usize = 128;

/// How much later than written a key may expire: APIs give times in whole seconds.
const EXPIRY_RESOLUTION: TimeDelta = TimeDelta::seconds(1);

/// The public name of a key: 1 to 128 characters of `A-Z a-z 0-9 _ . : -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Parses `text` as an id, or returns `None` if it has other characters, is empty or too long.
    /// Text that looks like a secret is rejected too, in whatever field it arrives.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=ID_CHARS_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
            && matches!(text::redact(text), Cow::Borrowed(_));
        fits.then(|| Self(text.into()))
    }

    /// The id as the API wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The API says that it never expires.
    Never,
    /// It expires at this time.
    At(DateTime<Utc>),
    /// The API gave an expiry that cannot be read as a time, and no earlier one is known.
    Unknown,
}

impl Expiry {
    /// Whether both are the same second. Some APIs return the fraction of a second in one response
    /// and omit it in another.
    pub fn is_same(self, other: Self) -> bool {
        match (self, other) {
            (Self::At(a), Self::At(b)) => a.timestamp() == b.timestamp(),
            _ => self == other,
        }
    }
}

/// A fact about a key that a listing states in a field of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// [`Key::expiry`]
    Expiry,
    /// [`Key::created_at`]
    CreatedAt,
    /// [`Key::updated_at`]
    UpdatedAt,
    /// [`Key::scopes`]
    Scopes,
    /// [`Key::allow_list`]
    AllowList,
    /// [`Key::label`]
    Label,
    /// [`Key::organization_id`]
    OrganizationId,
    /// [`Key::mode`] and [`Key::is_own`], which the masked secret shows.
    Secret,
}

/// A set of fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u8);

impl Fields {
    /// Whether `field` is in the set.
    pub fn contains(self, field: Field) -> bool {
        self.0 & Self::bit(field) != 0
    }

    /// Adds `field`.
    pub fn insert(&mut self, field: Field) {
        self.0 |= Self::bit(field);
    }

    /// Whether it contains fields other than the expiry, which has its own metric.
    pub fn has_other_than_expiry(self) -> bool {
        self.0 & !Self::bit(Field::Expiry) != 0
    }

    /// The set as a number, to be saved.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set saved as `bits`.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    fn bit(field: Field) -> u8 {
        1 << field as u8
    }
}

/// Whether a key is for production or for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For production.
    Live,
    /// For tests.
    Test,
}

impl Mode {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The state of a key at a given time, as `api_key_account_keys` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// More time left than the warning threshold.
    Valid,
    /// Not expired, and inside the warning threshold.
    Expiring,
    /// It has expired.
    Expired,
    /// It never expires.
    NeverExpires,
    /// Its expiry cannot be read.
    Unknown,
    /// The provider says that it is revoked, disabled or inactive.
    Disabled,
}

impl KeyState {
    /// Every state, in the order of the metric.
    pub const ALL: [Self; 6] = [
        Self::Valid,
        Self::Expiring,
        Self::Expired,
        Self::NeverExpires,
        Self::Unknown,
        Self::Disabled,
    ];

    /// The label value; part of the metrics contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::NeverExpires => "never_expires",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
        }
    }
}

/// The distinct scopes of a key, sorted. A single allocation holds all of them, because there are
/// thousands of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Box<str>);

impl Scopes {
    /// Builds the set from scope names in any order, with repetitions; empty ones are left out. No
    /// name contains a line break.
    pub fn new<'a, N: Into<Name<'a>>>(names: Vec<N>) -> Self {
        let mut names: Vec<Name<'a>> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        let len = names.iter().map(|name| name.as_str().len() + 1).sum();
        let mut joined = String::with_capacity(len);
        let mut last = "";
        for name in names.iter().map(Name::as_str) {
            if name.is_empty() || name == last {
                continue;
            }
            if !joined.is_empty() {
                joined.push('\n');
            }
            joined.push_str(name);
            last = name;
        }
        Self(joined.into())
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split('\n').filter(|name| !name.is_empty())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let breaks = self.0.bytes().filter(|byte| *byte == b'\n').count();
        if self.is_empty() { 0 } else { breaks + 1 }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When a key was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastUse {
    /// It was never used.
    Never,
    /// At this time.
    At(DateTime<Utc>),
    /// The API does not provide it, or not in a readable form.
    Unknown,
}

/// The details of a key, which only its own API endpoint returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// The label that its owner assigned.
    pub label: Option<Label>,
    /// When it was last used.
    pub last_use: LastUse,
    /// The number of requests made with it so far.
    pub requests: Option<u64>,
    /// When the details were read.
    pub read_at: DateTime<Utc>,
}

/// All facts about one key. The key's secret is never stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its public id.
    pub id: KeyId,
    /// The label that its owner assigned at the API.
    pub label: Option<Label>,
    /// The organization that it belongs to, if the API provides it.
    pub organization_id: Option<Label>,
    /// Live or test, if the masked secret shows it.
    pub mode: Option<Mode>,
    /// Whether this is the key that the exporter itself uses.
    pub is_own: bool,
    /// Whether the provider says that it is revoked, disabled or inactive.
    pub is_disabled: bool,
    /// When it expires.
    pub expiry: Expiry,
    /// When it was created, if the API provides it.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed, if the API provides it; `None` for a key that was never changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// Its scopes; `None` if unknown.
    pub scopes: Option<Scopes>,
    /// The addresses that may use it; `None` if unknown.
    pub allow_list: Option<AllowList>,
    /// The fields that the last listing contains but that cannot be read. Their values here come
    /// from the last readable listing, or are unknown.
    pub unreadable: Fields,
    /// Whether the API listed it after it surely had expired.
    pub is_listed_expired: bool,
    /// Set for an expired key that is kept although the API no longer lists it: when it was first
    /// missing.
    pub unlisted_since: Option<DateTime<Utc>>,
    /// Its details, if enabled; they may be hours older than the rest.
    pub details: Option<Box<Details>>,
}

impl Key {
    /// This key with the values of `earlier`, the same key in the previous listing, for the fields
    /// that cannot be read now.
    #[must_use]
    pub fn keeping(mut self, earlier: &Self) -> Self {
        let is_unreadable = |field| self.unreadable.contains(field);
        // An unreadable expiry invalidates the knowledge that a key never expires.
        if is_unreadable(Field::Expiry)
            && let Expiry::At(_) = earlier.expiry
        {
            self.expiry = earlier.expiry;
        }
        if is_unreadable(Field::CreatedAt) {
            self.created_at = earlier.created_at;
        }
        if is_unreadable(Field::UpdatedAt) {
            self.updated_at = earlier.updated_at;
        }
        if is_unreadable(Field::Scopes) {
            self.scopes.clone_from(&earlier.scopes);
        }
        if is_unreadable(Field::AllowList) {
            self.allow_list.clone_from(&earlier.allow_list);
        }
        if is_unreadable(Field::Label) {
            self.label.clone_from(&earlier.label);
        }
        if is_unreadable(Field::OrganizationId) {
            self.organization_id.clone_from(&earlier.organization_id);
        }
        if is_unreadable(Field::Secret) {
            (self.mode, self.is_own) = (earlier.mode, earlier.is_own);
        }
        self
    }

    /// Whether the last listing has an expiry for it that cannot be read as a time.
    pub fn is_expiry_unknown(&self) -> bool {
        self.expiry == Expiry::Unknown || self.unreadable.contains(Field::Expiry)
    }

    /// Time until the expiry; negative afterwards; `None` if there is no readable expiry.
    pub fn time_left(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        match self.expiry {
            Expiry::At(end) => Some(end - now),
            Expiry::Never | Expiry::Unknown => None,
        }
    }

    /// The time from its creation to its expiry, if both are known and in order.
    pub fn lifetime(&self) -> Option<TimeDelta> {
        match (self.created_at, self.expiry) {
            (Some(start), Expiry::At(end)) if start < end => Some(end - start),
            _ => None,
        }
    }

    /// Whether it has expired at `now`, disabled or not.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.unlisted_since.is_some()
            || self
                .time_left(now)
                .is_some_and(|left| left <= TimeDelta::zero())
    }

    /// Whether it has expired at `now`, whatever part of a second the API left out of its expiry.
    pub fn has_surely_expired(&self, now: DateTime<Utc>) -> bool {
        self.time_left(now)
            .is_some_and(|left| left <= -EXPIRY_RESOLUTION)
    }

    /// The state at `now`. `warning` is the time before the expiry from which a key counts as
    /// expiring. A key that expires exactly at `now` is expired.
    pub fn state(&self, now: DateTime<Utc>, warning: TimeDelta) -> KeyState {
        match self.expiry {
            _ if self.is_disabled => KeyState::Disabled,
            _ if self.is_expired(now) => KeyState::Expired,
            Expiry::Never => KeyState::NeverExpires,
            Expiry::Unknown => KeyState::Unknown,
            Expiry::At(end) if end - now <= warning => KeyState::Expiring,
            Expiry::At(_) => KeyState::Valid,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ordinary key.
    pub(crate) fn key(id: &str) -> Key {
        Key {
            id: KeyId::parse(id).unwrap(),
            label: None,
            organization_id: None,
            mode: None,
            is_own: false,
            is_disabled: false,
            expiry: Expiry::Never,
            created_at: None,
            updated_at: None,
            scopes: Some(Scopes::default()),
            allow_list: Some(AllowList::unrestricted()),
            unreadable: Fields::default(),
            is_listed_expired: false,
            unlisted_since: None,
            details: None,
        }
    }

    pub(crate) fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn ids_are_short_and_plain() {
        for good in [
            "a",
            "api_key_0197c0ec-a197-719f-84a9-99270a79b42a",
            "A.b:c-d_9",
            &"x".repeat(128),
        ] {
            assert!(KeyId::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " a",
            "a b",
            "a\n",
            "a\0",
            "ü",
            "a\"",
            "a\\",
            "a{",
            &"x".repeat(129),
            "sk_live_abc",
        ] {
            assert!(KeyId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_state_turns_at_the_exact_second() {
        let mut key = key("a");
        key.expiry = Expiry::At(at(1_000_000));
        let warning = TimeDelta::seconds(100);
        let cases = [
            (999_899, KeyState::Valid),
            (999_900, KeyState::Expiring),
            (999_999, KeyState::Expiring),
            (1_000_000, KeyState::Expired),
            (2_000_000, KeyState::Expired),
        ];
        for (now, expected) in cases {
            assert_eq!(key.state(at(now), warning), expected, "at {now}");
        }
    }

    #[test]
    fn a_key_without_a_readable_end_has_no_time_left_to_tell() {
        let mut key = key("a");
        assert_eq!(key.state(at(0), TimeDelta::MAX), KeyState::NeverExpires);
        assert_eq!(key.time_left(at(0)), None);
        key.expiry = Expiry::Unknown;
        assert_eq!(key.state(at(0), TimeDelta::MAX), KeyState::Unknown);
        assert_eq!(key.time_left(at(0)), None);
    }

    #[test]
    fn a_disabled_key_is_nothing_else_and_an_unlisted_one_is_expired() {
        let ends = Key {
            expiry: Expiry::At(at(100)),
            ..key("a")
        };
        let disabled = Key {
            is_disabled: true,
            ..ends.clone()
        };
        let unlisted = Key {
            unlisted_since: Some(at(110)),
            ..ends
        };
        for now in [0, 99, 100, 200] {
            let now = at(now);
            let warning = TimeDelta::seconds(10);
            assert_eq!(disabled.state(now, warning), KeyState::Disabled, "at {now}");
            // Even if the clock was set back since.
            assert_eq!(unlisted.state(now, warning), KeyState::Expired, "at {now}");
        }
    }

    type Part = fn(&Key) -> String;

    #[test]
    fn each_unreadable_field_keeps_its_earlier_value_alone() {
        let earlier = Key {
            label: Some("earlier".into()),
            organization_id: Some("org_1".into()),
            mode: Some(Mode::Live),
            is_own: true,
            expiry: Expiry::At(at(1)),
            created_at: Some(at(2)),
            updated_at: Some(at(3)),
            scopes: Some(Scopes::new(vec!["a"])),
            allow_list: Some(AllowList::parse([Some("10.0.0.1")].into_iter())),
            ..key("a")
        };
        let parts: [(Field, Part); 8] = [
            (Field::Expiry, |key| format!("{:?}", key.expiry)),
            (Field::CreatedAt, |key| format!("{:?}", key.created_at)),
            (Field::UpdatedAt, |key| format!("{:?}", key.updated_at)),
            (Field::Scopes, |key| format!("{:?}", key.scopes)),
            (Field::AllowList, |key| format!("{:?}", key.allow_list)),
            (Field::Label, |key| format!("{:?}", key.label)),
            (Field::OrganizationId, |key| {
                format!("{:?}", key.organization_id)
            }),
            (Field::Secret, |key| {
                format!("{:?} {}", key.mode, key.is_own)
            }),
        ];
        for (field, _) in parts {
            let mut unreadable = Fields::default();
            unreadable.insert(field);
            let now = Key {
                scopes: None,
                allow_list: None,
                unreadable,
                ..key("a")
            };
            let kept = now.clone().keeping(&earlier);
            for (other, part) in parts {
                let expected = if other == field { &earlier } else { &now };
                assert_eq!(
                    part(&kept),
                    part(expected),
                    "{field:?} unreadable: {other:?}"
                );
            }
            assert_eq!(kept.is_expiry_unknown(), field == Field::Expiry);
        }
    }

    #[test]
    fn that_a_key_never_expires_is_not_kept_beside_an_unreadable_end() {
        let mut unreadable = Fields::default();
        unreadable.insert(Field::Expiry);
        let now = Key {
            expiry: Expiry::Unknown,
            unreadable,
            ..key("a")
        };
        assert_eq!(now.keeping(&key("a")).expiry, Expiry::Unknown);
    }

    #[test]
    fn a_fraction_of_a_second_is_no_other_end() {
        let end = |millis| Expiry::At(DateTime::from_timestamp_millis(millis).unwrap());
        assert!(end(5_000).is_same(end(5_999)) && !end(5_999).is_same(end(6_000)));
        assert!(Expiry::Never.is_same(Expiry::Never));
        assert!(!Expiry::Never.is_same(Expiry::Unknown) && !end(0).is_same(Expiry::Never));
    }

    #[test]
    fn scopes_are_distinct_and_sorted() {
        let scopes = Scopes::new(vec!["b", "a", "b"]);
        assert_eq!(scopes.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((scopes.len(), Scopes::default().len()), (2, 0));
    }
}
