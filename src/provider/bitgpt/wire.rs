//! Mirrors BitGPT's JSON and tolerates values of unexpected types. Pure.
//!
//! A field of an entry with the wrong type becomes [`Text::Other`] and is skipped; only invalid
//! JSON stops the parser. It builds only what the facts need: a `log` nested a thousand deep costs
//! a scan, and strings are borrowed from the body.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::provider::paging_hints::PagingHints;

/// Most scopes, and most allow list entries, per key. BitGPT documents 30 scopes; ten thousand
/// leaves room and prevents one hostile key from filling memory.
const LIST_ENTRIES_MAX: usize = 10_000;

/// The envelope of every answer. Its fields are parsed on demand.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub(super) status: Option<&'a RawValue>,
    pub(super) data: Data,
    pub(super) error: Option<&'a RawValue>,
    pub(super) log: Option<&'a RawValue>,
    pub(super) validator: Option<&'a RawValue>,
    pub(super) support_id: Option<&'a RawValue>,
    pub(super) message: Option<&'a RawValue>,
    pub(super) env: Option<&'a RawValue>,
    /// The counterpart of the `Retry-After` header in the body, in any spelling.
    pub(super) retry_after: Option<&'a RawValue>,
    /// The indications of further pages.
    pub(super) paging: PagingHints,
    /// A field occurs twice, so its value is ambiguous.
    pub(super) has_duplicate: bool,
}

/// The value of `data`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Data {
    /// Missing or null.
    #[default]
    Absent,
    /// A list; its entries were passed to the sink.
    List,
    /// A list with more entries than allowed; the surplus was skipped.
    TooLong,
    /// An object, which was passed to the sink as an entry.
    Object,
    /// Anything else.
    Other,
}

/// One entry of the list, unchecked.
#[derive(Debug, Default)]
pub(super) struct Entry<'a> {
    pub(super) id: Text<'a>,
    pub(super) secret: Text<'a>,
    pub(super) label: Text<'a>,
    pub(super) organization_id: Text<'a>,
    pub(super) scopes: Texts<'a>,
    pub(super) ip_allow_list: Texts<'a>,
    pub(super) expires_at: Text<'a>,
    pub(super) created_at: Text<'a>,
    pub(super) updated_at: Text<'a>,
    pub(super) usage: Usage<'a>,
    /// It is not an object, or a field occurs twice.
    pub(super) is_misshapen: bool,
}

/// `metrics` of an entry: how much the key was used.
#[derive(Debug, Default)]
pub(super) struct Usage<'a> {
    /// `None` if the field is missing, which means unknown; null has a meaning.
    pub(super) last_used_at: Option<Text<'a>>,
    pub(super) total_requests: Option<u64>,
}

/// A field that should hold text.
#[derive(Default)]
pub(super) enum Text<'a> {
    /// Missing or null, which mean the same.
    #[default]
    Absent,
    Is(Cow<'a, str>),
    /// Anything but text, such as a number or a list.
    Other,
}

/// A field that should hold a list of texts.
#[derive(Debug, Default)]
pub(super) enum Texts<'a> {
    #[default]
    Absent,
    Are(Vec<Text<'a>>),
    /// Not a list, or one of more than [`LIST_ENTRIES_MAX`].
    Other,
}

/// Parses a body. Each entry of `data` is passed to `sink` as it is read, as is an object in `data`
/// itself. After `entries_max` entries, the rest is skipped, so that the envelope's other fields
/// are still found.
pub(super) fn read<'a>(
    body: &'a str,
    entries_max: usize,
    sink: &mut dyn FnMut(Entry<'a>),
) -> Result<Envelope<'a>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(body);
    let envelope = reader.deserialize_any(EnvelopeVisitor { entries_max, sink })?;
    reader.end()?;
    Ok(envelope)
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Is(text) => Some(text),
            Self::Absent | Self::Other => None,
        }
    }
}

/// Some of these fields are secrets, so none of them is printed.
impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Is(_) => "Is(…)",
            Self::Other => "Other",
        })
    }
}

struct EnvelopeVisitor<'s, 'a> {
    entries_max: usize,
    sink: &'s mut dyn FnMut(Entry<'a>),
}

impl<'a> Visitor<'a> for EnvelopeVisitor<'_, 'a> {
    type Value = Envelope<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the API's envelope, an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Envelope<'a>, A::Error> {
        let Self { entries_max, sink } = self;
        let mut envelope = Envelope::default();
        let mut has_data = false;
        while let Some(name) = map.next_key::<Text<'a>>()? {
            let field = match name.as_str().unwrap_or_default() {
                "data" => {
                    envelope.has_duplicate |= has_data;
                    has_data = true;
                    envelope.data = map.next_value_seed(DataSeed {
                        entries_max,
                        sink: &mut *sink,
                    })?;
                    continue;
                }
                "status" => &mut envelope.status,
                "error" => &mut envelope.error,
                "log" => &mut envelope.log,
                "validator" => &mut envelope.validator,
                "support_id" => &mut envelope.support_id,
                "message" => &mut envelope.message,
                "env" => &mut envelope.env,
                other if is_retry_after(other) => &mut envelope.retry_after,
                other if PagingHints::is_about_paging(other) => {
                    let value = map.next_value::<&'a RawValue>()?;
                    envelope.paging.field(other, value);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            envelope.has_duplicate |= field.is_some();
            *field = Some(map.next_value()?);
        }
        Ok(envelope)
    }
}

/// The documentation does not specify the spelling: `retry_after`, `retryAfter` and `Retry-After`
/// are all accepted.
fn is_retry_after(name: &str) -> bool {
    let letters = name.bytes().filter(|byte| !matches!(byte, b'_' | b'-'));
    letters
        .map(|byte| byte.to_ascii_lowercase())
        .eq(*b"retryafter")
}

struct DataSeed<'s, 'a> {
    entries_max: usize,
    sink: &'s mut dyn FnMut(Entry<'a>),
}

impl<'a> DeserializeSeed<'a> for DataSeed<'_, 'a> {
    type Value = Data;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Data, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Implements the visitor for every JSON value of an unexpected type: returns its kind and skips
/// it.
macro_rules! tolerate {
    ($lifetime:lifetime, $absent:expr, $other:expr $(, $kind:ident)*) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("any JSON value")
        }
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($absent)
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($other)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($other)
        }
        $(tolerate!(@$kind $lifetime, $other);)*
    };
    (@str $lifetime:lifetime, $other:expr) => {
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($other)
        }
    };
    (@seq $lifetime:lifetime, $other:expr) => {
        fn visit_seq<A: SeqAccess<$lifetime>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
    (@map $lifetime:lifetime, $other:expr) => {
        fn visit_map<A: MapAccess<$lifetime>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok($other)
        }
    };
}

impl<'a> Visitor<'a> for DataSeed<'_, 'a> {
    type Value = Data;

    tolerate!('a, Data::Absent, Data::Other, str);

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<Data, A::Error> {
        (self.sink)(EntryVisitor.visit_map(map)?);
        Ok(Data::Object)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Data, A::Error> {
        for _ in 0..self.entries_max {
            let Some(entry) = seq.next_element::<Entry<'a>>()? else {
                return Ok(Data::List);
            };
            (self.sink)(entry);
        }
        if seq.next_element::<IgnoredAny>()?.is_none() {
            return Ok(Data::List);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Data::TooLong)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl Entry<'_> {
    fn misshapen() -> Self {
        Self {
            is_misshapen: true,
            ..Self::default()
        }
    }
}

impl<'a> Visitor<'a> for EntryVisitor {
    type Value = Entry<'a>;

    tolerate!('a, Entry::misshapen(), Entry::misshapen(), str, seq);

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Entry<'a>, A::Error> {
        let mut entry = Entry::default();
        let mut seen = 0_u16;
        while let Some(name) = map.next_key::<Text<'a>>()? {
            let field = match name.as_str().unwrap_or_default() {
                "id" => 0,
                "secret" => 1,
                "label" => 2,
                "organization_id" => 3,
                "scopes" => 4,
                "ip_allow_list" => 5,
                "expires_at" => 6,
                "created_at" => 7,
                "updated_at" => 8,
                "metrics" => 9,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            entry.is_misshapen |= seen & (1 << field) != 0;
            seen |= 1 << field;
            match field {
                0 => entry.id = map.next_value()?,
                1 => entry.secret = map.next_value()?,
                2 => entry.label = map.next_value()?,
                3 => entry.organization_id = map.next_value()?,
                4 => entry.scopes = map.next_value()?,
                5 => entry.ip_allow_list = map.next_value()?,
                6 => entry.expires_at = map.next_value()?,
                7 => entry.created_at = map.next_value()?,
                8 => entry.updated_at = map.next_value()?,
                9 => entry.usage = map.next_value()?,
                _ => return Err(A::Error::custom("a field without a place")),
            }
        }
        Ok(entry)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Usage<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UsageVisitor)
    }
}

struct UsageVisitor;

impl<'a> Visitor<'a> for UsageVisitor {
    type Value = Usage<'a>;

    tolerate!('a, Usage::default(), Usage::default(), str, seq);

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Usage<'a>, A::Error> {
        let mut usage = Usage::default();
        while let Some(name) = map.next_key::<Text<'a>>()? {
            match name.as_str().unwrap_or_default() {
                "last_used_at" => usage.last_used_at = Some(map.next_value()?),
                "total_requests" => {
                    let count = map.next_value::<&'a RawValue>()?;
                    usage.total_requests = count.get().parse().ok();
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(usage)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    tolerate!('a, Text::Absent, Text::Other, seq, map);

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text::Is(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text::Is(Cow::Owned(text.to_owned())))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'a> Visitor<'a> for TextsVisitor {
    type Value = Texts<'a>;

    tolerate!('a, Texts::Absent, Texts::Other, str, map);

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Texts<'a>, A::Error> {
        // Enough for most keys.
        let mut texts = Vec::with_capacity(8);
        while let Some(text) = seq.next_element::<Text<'a>>()? {
            if texts.len() == LIST_ENTRIES_MAX {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Texts::Other);
            }
            texts.push(text);
        }
        Ok(Texts::Are(texts))
    }
}
