//! Reports what is found in a listing, from the values that the reader itself uses. Pure.

use crate::domain::key::{Expiry, Field, Key};
use crate::domain::listing::Reject;
use crate::domain::text::Cleaner;
use crate::provider::bitgpt::wire::{Entry, Text, Texts};
use crate::provider::findings::{Findings, Places, Seen, UNUSABLE_ENTRY, time_of};
use crate::provider::json_list::pointer::Pointer;

/// The fields of an entry, and what the reader calls them.
const FIELDS: [(&str, &str, Option<Field>); 9] = [
    ("id", "/id", None),
    ("label", "/label", Some(Field::Label)),
    ("expires_at", "/expires_at", Some(Field::Expiry)),
    ("created_at", "/created_at", Some(Field::CreatedAt)),
    ("updated_at", "/updated_at", Some(Field::UpdatedAt)),
    ("scopes", "/scopes", Some(Field::Scopes)),
    ("ip_allow_list", "/ip_allow_list", Some(Field::AllowList)),
    (
        "organization_id",
        "/organization_id",
        Some(Field::OrganizationId),
    ),
    ("secret", "/secret", Some(Field::Secret)),
];

/// The envelope's fields.
const ENVELOPE: [&str; 7] = [
    "/status",
    "/error",
    "/log",
    "/validator",
    "/support_id",
    "/message",
    "/env",
];

/// The fields of an entry, of which nothing was found yet.
pub(super) fn start() -> Findings {
    let fields = FIELDS.into_iter();
    Findings {
        null_is_missing: true,
        ..Findings::of(fields.map(|(name, at, _)| (name, at.to_owned())))
    }
}

/// Adds the fields of the answer that are not read.
pub(super) fn structure(body: &str, is_success: bool, cleaner: &Cleaner, findings: &mut Findings) {
    let parsed = |pointers: &mut dyn Iterator<Item = &'static str>| -> Vec<Pointer> {
        pointers.filter_map(Pointer::parse).collect()
    };
    let items = parsed(&mut ["/data"].into_iter());
    let entry = parsed(&mut FIELDS.iter().map(|(_, at, _)| *at));
    let beside = parsed(&mut ENVELOPE.into_iter());
    let places = Places {
        items: items.first().filter(|_| is_success),
        entry: entry.iter().collect(),
        beside: beside.iter().collect(),
        ..Places::default()
    };
    findings.add_structure(body, &places, cleaner);
}

/// Counts the fields of an entry, of which the reader has made `key`.
pub(super) fn entry(entry: &Entry<'_>, key: &Result<Key, Reject>, findings: &mut Findings) {
    findings.entries += 1;
    let of_texts = |texts: &Texts<'_>| match texts {
        Texts::Absent => Seen::Absent,
        Texts::Are(_) => Seen::Skipped,
        Texts::Other => Seen::OtherType("no list"),
    };
    for (field, (name, _, of_key)) in findings.fields.iter_mut().zip(FIELDS) {
        let text = match name {
            "id" => &entry.id,
            "label" => &entry.label,
            "expires_at" => &entry.expires_at,
            "created_at" => &entry.created_at,
            "updated_at" => &entry.updated_at,
            "organization_id" => &entry.organization_id,
            "secret" => &entry.secret,
            _ => &Text::Absent,
        };
        let seen = match (name, text) {
            ("scopes", _) => of_texts(&entry.scopes),
            ("ip_allow_list", _) => of_texts(&entry.ip_allow_list),
            (_, Text::Absent) => Seen::Absent,
            // Never more than its type: it may be a whole secret.
            ("secret", Text::Is(_)) => Seen::OtherType("a text"),
            (_, Text::Is(text)) => Seen::Unreadable(text.as_ref().into()),
            (_, Text::Other) => Seen::OtherType("no text"),
        };
        let is_read = match (key, of_key) {
            (Ok(key), Some(Field::AllowList)) => {
                let list = key.allow_list.as_ref();
                Some(list.is_some_and(|list| list.invalid_entries() == 0))
            }
            (Ok(key), Some(of_key)) => Some(!key.unreadable.contains(of_key)),
            (Ok(_), None) => Some(true),
            (Err(Reject::Id), None) => Some(false),
            (Err(_), _) => None,
        };
        field.count(match (seen, is_read) {
            (Seen::Absent, _) => Seen::Absent,
            (_, None) => Seen::Skipped,
            (_, Some(true)) => Seen::Read,
            (Seen::Skipped, Some(false)) => Seen::OtherType(UNUSABLE_ENTRY),
            (other, Some(false)) => other,
        });
        let is_never = matches!(key, Ok(key) if key.expiry == Expiry::Never);
        field.special += usize::from(name == "expires_at" && is_never);
        let time = key.as_ref().ok().and_then(|key| time_of(name, key));
        field.latest = field.latest.max(time);
    }
}
