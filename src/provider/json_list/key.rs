//! Turns the values of an item into a key. Pure.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use crate::domain::allow_list::AllowList;
use crate::domain::key::{Details, Expiry, Field, Fields, Key, KeyId, LastUse, Scopes};
use crate::domain::listing::Reject;
use crate::domain::text::Cleaner;
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::{
    Condition, Never, Scalar, Test, TextsPlace, TimePlace,
};
use crate::provider::json_list::entry::{Captured, Values};
use crate::provider::json_list::plan::Slot;

/// The values of one key.
#[derive(Clone, Copy)]
pub(super) struct Item<'s, 'a> {
    pub(super) json_list: &'s JsonList,
    /// The values of the item, or of the inner item of a nested list.
    pub(super) inner: &'s Values<'a>,
    /// The values of the outer item of a nested list.
    pub(super) outer: &'s Values<'a>,
    pub(super) cleaner: &'s Cleaner,
}

/// The texts of a field, `None` for each element that is not text.
type Texts<'s> = Vec<Option<&'s str>>;

/// The texts of a field cannot be read.
struct Unreadable;

/// The value of a field with a time.
enum Time {
    Never,
    At(DateTime<Utc>),
    Unknown,
}

impl<'s, 'a> Item<'s, 'a> {
    /// The key, read at `now`.
    pub(super) fn key(self, now: DateTime<Utc>) -> Result<Key, Reject> {
        if self.inner.is_misshapen || self.outer.is_misshapen {
            return Err(Reject::Shape);
        }
        let id = self.id().ok_or(Reject::Id)?;
        let (plan, facts) = (self.json_list.plan(), &self.json_list.definition().facts);
        let mut unreadable = Fields::default();
        let mut time = |field, slot: Option<Slot>, place: &Option<TimePlace>| {
            let time = self.time(slot?, place.as_ref()?);
            if let Time::Unknown = time {
                unreadable.insert(field);
            }
            Some(time)
        };
        let expires_at = time(Field::Expiry, plan.expires_at, &facts.expires_at);
        let created_at = time(Field::CreatedAt, plan.created_at, &facts.created_at);
        let updated_at = time(Field::UpdatedAt, plan.updated_at, &facts.updated_at);
        let last_used_at = plan.last_used_at.zip(facts.last_used_at.as_ref());
        let last_use = last_used_at.map(|(slot, place)| match self.time(slot, place) {
            Time::Never => LastUse::Never,
            Time::At(moment) => LastUse::At(moment),
            Time::Unknown => LastUse::Unknown,
        });
        let label = plan.label.map(|slot| self.get(slot));
        let label = label.filter(|it| !matches!(it, Captured::Absent | Captured::Null));
        let label = label.and_then(|captured| {
            let text = captured.name();
            if text.is_none() {
                unreadable.insert(Field::Label);
            }
            self.cleaner.label(&text?)
        });
        let scopes = self.wanted_texts(plan.scopes, facts.scopes.as_ref());
        let scopes = scopes.and_then(|texts| texts.map(|texts| self.scopes(&texts)).transpose());
        if scopes.is_err() {
            unreadable.insert(Field::Scopes);
        }
        let allow_list = self.allow_list();
        if allow_list.is_err() {
            unreadable.insert(Field::AllowList);
        }
        Ok(Key {
            id,
            label,
            organization_id: None,
            mode: None,
            is_own: false,
            is_disabled: self.is_disabled(),
            expiry: match expires_at {
                Some(Time::Never) => Expiry::Never,
                Some(Time::At(end)) => Expiry::At(end),
                Some(Time::Unknown) | None => Expiry::Unknown,
            },
            created_at: created_at.and_then(Time::moment),
            updated_at: updated_at.and_then(Time::moment),
            scopes: scopes.ok().flatten(),
            allow_list: allow_list.ok().flatten(),
            unreadable,
            is_listed_expired: false,
            unlisted_since: None,
            details: last_use.map(|last_use| {
                Box::new(Details {
                    label: None,
                    last_use,
                    requests: None,
                    read_at: now,
                })
            }),
        })
    }

    /// The item's id, if it has one that can be shown.
    pub(super) fn id(self) -> Option<KeyId> {
        let text = self.get(self.json_list.plan().id).name()?;
        KeyId::parse(&text).filter(|_| self.cleaner.is_free_of_secrets(&text))
    }

    pub(super) fn get(self, slot: Slot) -> &'s Captured<'a> {
        let values = if slot.is_outer {
            self.outer
        } else {
            self.inner
        };
        values.get(slot.index)
    }

    fn time(self, slot: Slot, place: &TimePlace) -> Time {
        let captured = self.get(slot);
        let is_never = |never: &Never| place.never.contains(never);
        let is_absent = matches!(captured, Captured::Absent) && is_never(&Never::Absent);
        let is_null = matches!(captured, Captured::Null) && is_never(&Never::Null);
        if is_absent || is_null {
            return Time::Never;
        }
        let text = captured.written();
        let Some(text) = text else {
            return Time::Unknown;
        };
        let mut nevers = place.never.iter();
        if nevers.any(|never| matches!(never, Never::Text(never) if *never == *text)) {
            return Time::Never;
        }
        place.format.parse(&text).map_or(Time::Unknown, Time::At)
    }

    /// The texts, if the definition has them.
    fn wanted_texts(
        self,
        slot: Option<Slot>,
        place: Option<&'s TextsPlace>,
    ) -> Result<Option<Texts<'s>>, Unreadable> {
        let wanted = slot.zip(place);
        wanted
            .map(|(slot, place)| self.texts(slot, place))
            .transpose()
    }

    fn texts(self, slot: Slot, place: &'s TextsPlace) -> Result<Texts<'s>, Unreadable> {
        let split = |text: &'s str| -> Texts<'s> {
            let Some(separator) = &place.split else {
                return vec![Some(text)];
            };
            let parts = text.split(separator.as_str()).map(str::trim);
            parts.filter(|part| !part.is_empty()).map(Some).collect()
        };
        match self.get(slot) {
            Captured::Absent | Captured::Null => Ok(Vec::new()),
            Captured::Text(text) if text.is_empty() => Ok(Vec::new()),
            Captured::Text(text) => Ok(split(text)),
            Captured::Texts(texts) | Captured::Keys(texts) if place.split.is_none() => {
                Ok(texts.iter().map(Option::as_deref).collect())
            }
            Captured::Texts(texts) | Captured::Keys(texts) => {
                let texts = texts.iter().map(Option::as_deref);
                Ok(texts
                    .flat_map(|text| text.map_or(vec![None], split))
                    .collect())
            }
            Captured::Bool(_)
            | Captured::Integer(_)
            | Captured::Float(_)
            | Captured::Other
            | Captured::Unreachable => Err(Unreadable),
        }
    }

    /// An object is an allow list only if all of its keys are addresses or networks.
    fn allow_list(self) -> Result<Option<AllowList>, Unreadable> {
        let slot = self.json_list.plan().ip_allow_list;
        let place = self.json_list.definition().facts.ip_allow_list.as_ref();
        let Some(entries) = self.wanted_texts(slot, place)? else {
            return Ok(None);
        };
        let list = AllowList::parse(entries.into_iter());
        let is_object = slot.is_some_and(|slot| matches!(self.get(slot), Captured::Keys(_)));
        if is_object && list.invalid_entries() > 0 {
            return Err(Unreadable);
        }
        Ok(Some(list))
    }

    /// Scopes are identifiers that programs compare, so one that is not text makes all unreadable.
    fn scopes(self, texts: &[Option<&'s str>]) -> Result<Scopes, Unreadable> {
        let mut names = Vec::with_capacity(texts.len());
        for text in texts {
            names.push(self.cleaner.name(text.ok_or(Unreadable)?));
        }
        Ok(Scopes::new(names))
    }

    fn is_disabled(self) -> bool {
        let conditions = self.json_list.definition().facts.disabled.iter();
        let mut with_slots = conditions.zip(&self.json_list.plan().disabled);
        with_slots.any(|(condition, slot)| self.holds(condition, *slot))
    }

    pub(super) fn holds(self, condition: &Condition, slot: Slot) -> bool {
        let captured = self.get(slot);
        // A pointer that leads to nothing (RFC 6901) is an absent field, whatever is in its way: a
        // key that is disabled by mistake has no alerts.
        let is_absent = matches!(captured, Captured::Absent | Captured::Unreachable);
        !is_absent
            && match &condition.test {
                Test::Is(wanted) => captured.is(wanted),
                Test::IsNot(wanted) => !captured.is(wanted),
                Test::IsSet(is_set) => matches!(captured, Captured::Null) != *is_set,
            }
    }
}

impl Time {
    fn moment(self) -> Option<DateTime<Utc>> {
        match self {
            Self::At(moment) => Some(moment),
            Self::Never | Self::Unknown => None,
        }
    }
}

impl Captured<'_> {
    /// A text, or a number in its original spelling.
    pub(super) fn written(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Integer(number) => Some(Cow::Owned(number.to_string())),
            Self::Float(number) => Some(Cow::Owned(number.to_string())),
            Self::Absent
            | Self::Null
            | Self::Bool(_)
            | Self::Texts(_)
            | Self::Keys(_)
            | Self::Unreachable
            | Self::Other => None,
        }
    }

    /// A text or an integer.
    fn name(&self) -> Option<Cow<'_, str>> {
        matches!(self, Self::Text(_) | Self::Integer(_)).then(|| self.written())?
    }

    fn is(&self, wanted: &Scalar) -> bool {
        match (self, wanted) {
            (Self::Bool(value), Scalar::Bool(wanted)) => value == wanted,
            (Self::Integer(value), Scalar::Integer(wanted)) => *value == i128::from(*wanted),
            (Self::Text(value), Scalar::Text(wanted)) => *value == *wanted,
            _ => false,
        }
    }
}
