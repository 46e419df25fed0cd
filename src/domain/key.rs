//! One API key as facts, and the questions that can be asked of it.

use std::borrow::Borrow;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::allow_list::AllowList;

/// Longest key id that is accepted, in characters. Usual ones have up to 44.
const ID_CHARS_MAX: usize = 128;

/// The public name of a key: 1 to 128 characters of `A-Z a-z 0-9 _ . : -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// Takes `text` as an id, or `None` where it has other characters, is empty or too long. What
    /// looks like a secret is no id either, whatever field it came in.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=ID_CHARS_MAX).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
            && matches!(
                crate::domain::text::redact(text),
                std::borrow::Cow::Borrowed(_)
            );
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

/// When a key stops working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The API says that it has no end.
    Never,
    /// It ends at this moment.
    At(DateTime<Utc>),
    /// The API gave an end that cannot be read as a time.
    Unknown,
}

/// Whether a key moves real money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For production.
    Live,
    /// For tests.
    Test,
}

impl Mode {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

/// The state of a key at some moment, as `api_key_account_keys` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// More time left than the warning threshold.
    Valid,
    /// Not expired, and inside the warning threshold.
    Expiring,
    /// Its end has come.
    Expired,
    /// It has no end.
    NeverExpires,
    /// Its end cannot be read.
    Unknown,
}

impl KeyState {
    /// Every state, in the order of the metric.
    pub const ALL: [Self; 5] = [
        Self::Valid,
        Self::Expiring,
        Self::Expired,
        Self::NeverExpires,
        Self::Unknown,
    ];

    /// The label value; part of the metrics contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::NeverExpires => "never_expires",
            Self::Unknown => "unknown",
        }
    }
}

/// The distinct scopes of a key, sorted. One allocation for all of them: there are thousands of
/// keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes(Box<str>);

impl Scopes {
    /// Takes clean scope names in any order, with repetitions; empty ones are left out. A name
    /// must not hold a line break; names that do are the caller's bug and would be counted as two.
    pub fn new<S: Borrow<str> + Ord>(mut names: Vec<S>) -> Self {
        names.retain(|name| !name.borrow().is_empty());
        names.sort_unstable();
        names.dedup();
        Self(names.join("\n").into())
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When a key was last used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastUse {
    /// Not yet.
    Never,
    /// At this moment.
    At(DateTime<Utc>),
    /// The API does not say, or not readably.
    Unknown,
}

/// What only the API's page about one key tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// The label that its owner gave it; clean, never empty.
    pub label: Option<Box<str>>,
    /// When it was last used.
    pub last_use: LastUse,
    /// Requests made with it so far.
    pub requests: Option<u64>,
    /// When this was read.
    pub read_at: DateTime<Utc>,
}

/// Everything that is known of one key. The key's secret is not: it is never kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its public id.
    pub id: KeyId,
    /// The label that its owner gave it at the API; clean, never empty.
    pub label: Option<Box<str>>,
    /// The organization that it belongs to, where the API says so; clean, never empty.
    pub organization_id: Option<Box<str>>,
    /// Live or test, where the masked secret shows it.
    pub mode: Option<Mode>,
    /// Whether this is the key that the exporter itself uses.
    pub is_own: bool,
    /// When it ends.
    pub expiry: Expiry,
    /// When it was made; `None` where the API does not say, or not readably.
    pub created_at: Option<DateTime<Utc>>,
    /// When it was last changed; `None` likewise, and for a key never changed.
    pub updated_at: Option<DateTime<Utc>>,
    /// What it may do.
    pub scopes: Scopes,
    /// From where it may be used.
    pub allow_list: AllowList,
    /// What its own page told, where details are on; it may be hours older than the rest.
    pub details: Option<Box<Details>>,
}

impl Key {
    /// Time until the end; negative afterwards; `None` where there is no readable end.
    pub fn time_left(&self, now: DateTime<Utc>) -> Option<TimeDelta> {
        match self.expiry {
            Expiry::At(end) => Some(end - now),
            Expiry::Never | Expiry::Unknown => None,
        }
    }

    /// The time from its creation to its end, where both are known and in order.
    pub fn lifetime(&self) -> Option<TimeDelta> {
        match (self.created_at, self.expiry) {
            (Some(start), Expiry::At(end)) if start < end => Some(end - start),
            _ => None,
        }
    }

    /// The state at `now`. `warning` is the time before the end from which a key counts as
    /// expiring. A key that ends at this very moment is expired.
    pub fn state(&self, now: DateTime<Utc>, warning: TimeDelta) -> KeyState {
        match self.expiry {
            Expiry::Never => KeyState::NeverExpires,
            Expiry::Unknown => KeyState::Unknown,
            Expiry::At(end) if end <= now => KeyState::Expired,
            Expiry::At(end) if end - now <= warning => KeyState::Expiring,
            Expiry::At(_) => KeyState::Valid,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key with nothing remarkable about it.
    pub(crate) fn key(id: &str) -> Key {
        Key {
            id: KeyId::parse(id).unwrap(),
            label: None,
            organization_id: None,
            mode: None,
            is_own: false,
            expiry: Expiry::Never,
            created_at: None,
            updated_at: None,
            scopes: Scopes::default(),
            allow_list: AllowList::unrestricted(),
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
    fn scopes_are_distinct_and_sorted() {
        let scopes = Scopes::new(vec!["b", "a", "b"]);
        assert_eq!(scopes.iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((scopes.len(), Scopes::default().len()), (2, 0));
    }
}
