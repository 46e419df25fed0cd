//! Reports what is found in an answer, from the values that the reader itself uses. Pure.

use crate::domain::key::{Expiry, Field, Key, LastUse};
use crate::domain::listing::Reject;
use crate::domain::text::Cleaner;
use crate::provider::findings::{Findings, Places, Seen, UNUSABLE_ENTRY, time_of};
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::{Place, SupportId};
use crate::provider::json_list::entry::Captured;
use crate::provider::json_list::key::Item;

/// The fields of the definition, of which nothing was found yet.
pub(super) fn start(json_list: &JsonList) -> Findings {
    let places = json_list.definition().facts.all();
    Findings::of(places.map(|(name, place)| (name, shown(place))))
}

/// Adds the fields of the answer that the definition does not point at.
pub(super) fn structure(
    json_list: &JsonList,
    body: &str,
    is_success: bool,
    cleaner: &Cleaner,
    findings: &mut Findings,
) {
    let definition = json_list.definition();
    let support_id = match &definition.support_id {
        Some(SupportId::At(at)) => Some(at),
        Some(SupportId::Header(_)) | None => None,
    };
    let paging = definition.pagination.pointers().into_iter();
    let beside = paging.map(|(_, at)| at).chain(support_id);
    let of_item = |is_outer: bool| {
        let places = definition.facts.all().map(|(_, place)| place);
        let places = places.filter(move |place| place.is_outer == is_outer);
        places.map(|place| &place.pointer).collect()
    };
    let places = Places {
        items: is_success.then_some(&definition.items),
        nested: definition.nested.as_ref(),
        entry: of_item(false),
        outer: of_item(true),
        beside: beside.chain(&definition.error).collect(),
    };
    findings.add_structure(body, &places, cleaner);
}

fn shown(place: &Place) -> String {
    let outer = if place.is_outer { "^" } else { "" };
    format!("{outer}{}", place.pointer)
}

impl Item<'_, '_> {
    /// Counts the fields of the item, of which the reader has made `key`.
    pub(super) fn observe(self, key: &Result<Key, Reject>, findings: &mut Findings) {
        findings.entries += 1;
        let mut conditions = self.json_list.definition().facts.disabled.iter();
        let slots = self.json_list.plan().slots();
        for (field, slot) in findings.fields.iter_mut().zip(slots) {
            let captured = self.get(slot);
            let is_read = match (field.name, key) {
                ("id", _) => Some(self.id().is_some()),
                (name, Ok(key)) => Some(is_read(name, key)),
                (_, Err(_)) => None,
            };
            field.count(match (captured, is_read) {
                (Captured::Absent, _) => Seen::Absent,
                // The entry itself is not an object, which the structure shows.
                (Captured::Unreachable, _) if matches!(key, Err(Reject::Shape)) => Seen::Absent,
                (Captured::Unreachable, _) => Seen::Unreachable,
                (Captured::Null, _) => Seen::Null,
                (_, Some(true)) => Seen::Read,
                (_, None) => Seen::Skipped,
                (_, Some(false)) => captured.unreadable(),
            });
            let is_special = match (field.name, key) {
                ("expires_at", Ok(key)) => key.expiry == Expiry::Never,
                ("disabled", _) => {
                    let condition = conditions.next();
                    condition.is_some_and(|condition| self.holds(condition, slot))
                }
                _ => false,
            };
            field.special += usize::from(is_special);
            let time = key.as_ref().ok().and_then(|key| time_of(field.name, key));
            field.latest = field.latest.max(time);
        }
    }
}

/// Whether the reader could use the field of this name.
fn is_read(name: &str, key: &Key) -> bool {
    let unreadable = |field| key.unreadable.contains(field);
    match name {
        "label" => !unreadable(Field::Label),
        "expires_at" => key.expiry != Expiry::Unknown,
        "created_at" => !unreadable(Field::CreatedAt),
        "updated_at" => !unreadable(Field::UpdatedAt),
        "last_used_at" => {
            let details = key.details.as_ref();
            details.is_some_and(|details| details.last_use != LastUse::Unknown)
        }
        "scopes" => !unreadable(Field::Scopes),
        "ip_allow_list" => {
            let list = key.allow_list.as_ref();
            !unreadable(Field::AllowList) && list.is_some_and(|it| it.invalid_entries() == 0)
        }
        // The value of a condition is compared, never parsed.
        _ => true,
    }
}

impl Captured<'_> {
    fn unreadable(&self) -> Seen<'_> {
        match self.written() {
            Some(text) => Seen::Unreadable(text),
            None => Seen::OtherType(match self {
                Captured::Bool(_) => "true or false",
                Captured::Texts(_) | Captured::Keys(_) => UNUSABLE_ENTRY,
                Captured::Absent
                | Captured::Null
                | Captured::Integer(_)
                | Captured::Float(_)
                | Captured::Text(_)
                | Captured::Other
                | Captured::Unreachable => "a list or an object",
            }),
        }
    }
}
