//! Selects the families of an account to omit because its text would exceed its memory budget.
//! Pure.

use crate::domain::key::{Expiry, Scopes};
use crate::exposition::account_text;
use crate::exposition::families::{FAMILIES, Family, KeyFacts, Source};
use crate::exposition::format::Format;

/// The order of omission. Families that are not listed are required by alerts about expiry, and are
/// never omitted.
const DROP_ORDER: [&str; 10] = [
    "api_key_scope_info",
    "api_key_ip_allow_list_addresses",
    "api_key_ip_allow_list_invalid_entries",
    "api_key_ip_allow_list_entries",
    "api_key_updated_timestamp_seconds",
    "api_key_scopes",
    "api_key_created_timestamp_seconds",
    "api_key_requests_total",
    "api_key_last_used_timestamp_seconds",
    "api_key_ip_unrestricted",
];

/// Upper limit for the bytes of a sample besides the labels of its key and external text: the
/// longest name of a family, the longest names and values of further labels, and a number.
const SAMPLE_BYTES_MAX: usize = 160;

/// Upper limit for the samples of a key besides its scopes.
const SAMPLES_MAX: usize = 40;

/// The families to omit from the text about one account's `keys`, to keep it within `bytes_max`
/// bytes.
pub(super) fn families_to_drop(
    keys: &[(KeyFacts<'_>, &str)],
    bytes_max: usize,
) -> Box<[&'static str]> {
    // Nearly all accounts are far below the limit and need only this check.
    let most = keys.iter().map(|(facts, labels)| most_bytes(facts, labels));
    if most.sum::<usize>() <= bytes_max {
        return Box::default();
    }
    let sizes = FAMILIES
        .iter()
        .map(|family| (family.name, size(family, keys)));
    let sizes: Vec<(&str, usize)> = sizes.collect();
    let mut total: usize = sizes.iter().map(|(_, size)| size).sum();
    let mut dropped = Vec::new();
    for name in DROP_ORDER {
        if total <= bytes_max {
            break;
        }
        let size = sizes.iter().find(|(known, _)| *known == name);
        if let Some((_, size @ 1..)) = size {
            total -= size;
            dropped.push(name);
        }
    }
    dropped.into()
}

/// The bytes of one family, counted by writing it part by part.
fn size(family: &Family, keys: &[(KeyFacts<'_>, &str)]) -> usize {
    match family.source {
        Source::Key(write) => {
            let (mut out, mut size) = (String::new(), 0);
            for part in account_text::parts(keys) {
                out.clear();
                for (facts, labels) in part {
                    write(facts, &mut family.samples(&mut out, labels, Format::Text));
                }
                size += out.len();
            }
            size
        }
        Source::ExpiresIn => {
            let has_sample = |facts: &KeyFacts<'_>| {
                facts.metrics.relative && matches!(facts.key.expiry, Expiry::At(_))
            };
            let keys = keys.iter().filter(|(facts, _)| has_sample(facts));
            let number = "} -123456789012\n".len();
            keys.map(|(_, labels)| family.name.len() + labels.len() + number)
                .sum()
        }
        Source::Listing(_) | Source::Account(_) | Source::Failures(_) | Source::KeyStates => 0,
    }
}

/// An upper bound for the text about one key.
fn most_bytes(facts: &KeyFacts<'_>, labels: &str) -> usize {
    // Each byte of a label may be escaped.
    let escaped = |text: &str| 2 * text.len();
    let entry = facts.assessment.entry;
    let texts = [
        facts.assessment.name(facts.key),
        facts.assessment.team(),
        facts.key.organization_id.as_deref(),
        Some(facts.api_env),
        Some(facts.provider),
        entry.and_then(|entry| entry.rotate_url.as_deref()),
        entry.and_then(|entry| entry.runbook_url.as_deref()),
    ];
    let texts: usize = texts.into_iter().flatten().map(escaped).sum();
    let scopes = facts.key.scopes.iter().flat_map(Scopes::iter);
    let scopes = scopes.take(facts.metrics.max_scopes_per_key);
    let scopes = scopes.map(|scope| labels.len() + SAMPLE_BYTES_MAX + escaped(scope));
    let scopes: usize = scopes.filter(|_| facts.metrics.scope_info).sum();
    SAMPLES_MAX * (labels.len() + SAMPLE_BYTES_MAX) + texts + scopes
}
