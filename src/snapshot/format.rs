//! The saved snapshot as bytes: one line that says what follows, then the listing as JSON. Pure.
//!
//! The checksum is against accidents (a full disk, a power cut, a flipped bit), not against people:
//! whoever can write the file could also stop the exporter.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::allow_list::AllowList;
use crate::domain::key::{Expiry, Key, KeyId, Mode, Scopes};
use crate::domain::listing::{Listing, Rejects};
use crate::domain::text;
use crate::provider::SAVED_WITHOUT_PROVIDER;

/// What every snapshot starts with.
const MAGIC: &str = "api-key-exporter-snapshot";

/// The form written here. A reader that meets a higher number knows that it is too old.
const VERSION: u32 = 1;

/// Most entries of an allow list, as in a listing.
const ENTRIES_MAX: u32 = 10_000;

/// What a snapshot is about: it is ignored for any other account or API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The operator's name for the account.
    pub account: String,
    /// The provider whose API it is.
    pub provider: String,
    /// Where its API is.
    pub base_url: String,
}

/// What a snapshot brings back.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The keys.
    pub listing: Listing,
    /// When they were listed.
    pub listed_at: DateTime<Utc>,
}

/// Why a snapshot is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// Something else stands there.
    #[error("it is not a snapshot")]
    Foreign,
    /// A later exporter wrote it.
    #[error("it has version {0}, and this exporter reads {VERSION}")]
    Version(u32),
    /// It was cut or changed after it was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It belongs to something else.
    #[error("it is of account {account:?} of {provider} at {base_url}")]
    OfAnother {
        /// The account that it is of.
        account: String,
        /// The provider that it is of.
        provider: String,
        /// The API that it is of.
        base_url: String,
    },
}

#[derive(Serialize, Deserialize)]
struct SavedListing {
    account: String,
    #[serde(default = "provider_unsaid")]
    provider: String,
    base_url: String,
    listed_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    api_env: Option<String>,
    #[serde(default)]
    rejected: [u32; 3],
    keys: Vec<SavedKey>,
}

/// A key. There is no field for a secret, because there is no secret to keep.
#[derive(Serialize, Deserialize)]
struct SavedKey {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_live: Option<bool>,
    #[serde(default, skip_serializing_if = "is_false")]
    is_own: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "is_false")]
    expiry_is_unknown: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    invalid_entries: u32,
}

/// The snapshot of `listing` as bytes.
pub fn encode(identity: &Identity, listing: &Listing, listed_at: DateTime<Utc>) -> Vec<u8> {
    let rejects = listing.rejects();
    let saved = SavedListing {
        account: identity.account.clone(),
        provider: identity.provider.clone(),
        base_url: identity.base_url.clone(),
        listed_at_ms: listed_at.timestamp_millis(),
        api_env: listing.api_env().map(str::to_owned),
        rejected: [rejects.id, rejects.duplicate, rejects.shape],
        keys: listing.keys().iter().map(saved).collect(),
    };
    let body = serde_json::to_vec(&saved).expect("text and numbers are always JSON");
    let (checksum, length) = (checksum(&body), body.len());
    let mut bytes = format!("{MAGIC} {VERSION} {length} {checksum:016x}\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// Reads a snapshot of `identity`.
pub fn decode(bytes: &[u8], identity: &Identity) -> Result<Snapshot, BadSnapshot> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.ok_or(BadSnapshot::Foreign)?);
    let body = body.get(1..).unwrap_or_default();
    let head = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix(MAGIC));
    let mut words = head.ok_or(BadSnapshot::Foreign)?.split_ascii_whitespace();
    let version = words.next().and_then(|word| word.parse().ok());
    match version {
        Some(VERSION) => {}
        Some(other) => return Err(BadSnapshot::Version(other)),
        None => return Err(BadSnapshot::Foreign),
    }
    let length: Option<usize> = words.next().and_then(|word| word.parse().ok());
    if length != Some(body.len()) {
        return Err(BadSnapshot::Damaged("its length is wrong"));
    }
    let sum = words
        .next()
        .and_then(|word| u64::from_str_radix(word, 16).ok());
    if sum != Some(checksum(body)) {
        return Err(BadSnapshot::Damaged("its checksum is wrong"));
    }
    let saved: SavedListing = serde_json::from_slice(body)
        .map_err(|_shows_values| BadSnapshot::Damaged("it is not the JSON that it should be"))?;
    let saved_identity = (&saved.account, &saved.provider, &saved.base_url);
    if saved_identity != (&identity.account, &identity.provider, &identity.base_url) {
        return Err(BadSnapshot::OfAnother {
            account: text::label(&saved.account),
            provider: text::label(&saved.provider),
            base_url: text::label(&saved.base_url),
        });
    }
    let listed_at = time(saved.listed_at_ms)?;
    let [id, duplicate, shape] = saved.rejected;
    let keys: Result<Vec<Key>, BadSnapshot> = saved.keys.into_iter().map(key).collect();
    let rejects = Rejects {
        id,
        duplicate,
        shape,
    };
    Ok(Snapshot {
        listing: Listing::new(keys?, rejects, saved.api_env.map(clean)),
        listed_at,
    })
}

fn saved(key: &Key) -> SavedKey {
    let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
    SavedKey {
        id: key.id.to_string(),
        label: key.label.as_deref().map(str::to_owned),
        organization_id: key.organization_id.as_deref().map(str::to_owned),
        is_live: key.mode.map(|mode| mode == Mode::Live),
        is_own: key.is_own,
        expires_at_ms: match key.expiry {
            Expiry::At(end) => Some(end.timestamp_millis()),
            Expiry::Never | Expiry::Unknown => None,
        },
        expiry_is_unknown: key.expiry == Expiry::Unknown,
        created_at_ms: millis(key.created_at),
        updated_at_ms: millis(key.updated_at),
        scopes: key.scopes.iter().map(str::to_owned).collect(),
        networks: key
            .allow_list
            .networks()
            .iter()
            .map(ToString::to_string)
            .collect(),
        invalid_entries: key.allow_list.invalid_entries(),
    }
}

fn key(saved: SavedKey) -> Result<Key, BadSnapshot> {
    let scopes: Vec<String> = saved
        .scopes
        .iter()
        .map(|scope| text::label(scope))
        .collect();
    let networks = saved.networks.iter().map(|network| Some(network.as_str()));
    let invalid = (0..saved.invalid_entries.min(ENTRIES_MAX)).map(|_| None);
    Ok(Key {
        id: KeyId::parse(&saved.id).ok_or(BadSnapshot::Damaged("a key's id is no id"))?,
        label: saved.label.map(clean),
        organization_id: saved.organization_id.map(clean),
        mode: saved
            .is_live
            .map(|is_live| if is_live { Mode::Live } else { Mode::Test }),
        is_own: saved.is_own,
        expiry: match saved.expires_at_ms {
            Some(end) => Expiry::At(time(end)?),
            None if saved.expiry_is_unknown => Expiry::Unknown,
            None => Expiry::Never,
        },
        created_at: saved.created_at_ms.map(time).transpose()?,
        updated_at: saved.updated_at_ms.map(time).transpose()?,
        scopes: Scopes::new(scopes.iter().map(String::as_str).collect()),
        allow_list: AllowList::parse(networks.chain(invalid)),
        // Use goes on while nobody looks: what was read of it is read again.
        details: None,
    })
}

fn time(millis: i64) -> Result<DateTime<Utc>, BadSnapshot> {
    DateTime::from_timestamp_millis(millis).ok_or(BadSnapshot::Damaged("a time is out of range"))
}

/// Text becomes a label again, whoever wrote the file.
fn clean(text: impl AsRef<str>) -> Box<str> {
    text::label(text.as_ref()).into()
}

/// FNV-1a, 64 bits (<https://www.rfc-editor.org/rfc/rfc9923>): finds any single changed byte for
/// certain.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands out references"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn provider_unsaid() -> String {
    SAVED_WITHOUT_PROVIDER.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::{at, key};

    fn identity() -> Identity {
        Identity {
            account: "shop".to_owned(),
            provider: "acme".to_owned(),
            base_url: "https://api.acme.example/".to_owned(),
        }
    }

    fn listing() -> Listing {
        let list = |entries: &[Option<&str>]| AllowList::parse(entries.iter().copied());
        let keys = vec![
            key("a-plain"),
            Key {
                label: Some("odd \"name\" \\ ü".into()),
                organization_id: Some("org_1".into()),
                mode: Some(Mode::Live),
                is_own: true,
                expiry: Expiry::At(DateTime::from_timestamp_millis(253_402_300_799_123).unwrap()),
                created_at: Some(at(-1)),
                updated_at: Some(at(1_000)),
                scopes: Scopes::new(vec!["b", "a"]),
                allow_list: list(&[Some("10.0.0.0/8"), Some("::1"), None, Some("x")]),
                ..key("b-everything")
            },
            Key {
                mode: Some(Mode::Test),
                expiry: Expiry::Unknown,
                allow_list: list(&[None]),
                ..key("c-unknown")
            },
        ];
        let rejects = Rejects {
            id: 1,
            duplicate: 2,
            shape: 3,
        };
        Listing::new(keys, rejects, Some("production".into()))
    }

    #[test]
    fn what_was_saved_comes_back_whole() {
        let bytes = encode(&identity(), &listing(), at(1_234));
        let snapshot = decode(&bytes, &identity()).unwrap();
        assert_eq!(snapshot.listing, listing());
        assert_eq!(snapshot.listed_at, at(1_234));
    }

    #[test]
    fn a_snapshot_from_before_there_were_providers_is_of_the_first_one() {
        let body = br#"{"account":"shop","base_url":"https://a.example/","listed_at_ms":1234000,"keys":[]}"#;
        let (checksum, length) = (checksum(body), body.len());
        let mut bytes = format!("{MAGIC} 1 {length} {checksum:016x}\n").into_bytes();
        bytes.extend(body);
        let identity = |provider: &str| Identity {
            account: "shop".to_owned(),
            provider: provider.to_owned(),
            base_url: "https://a.example/".to_owned(),
        };
        let snapshot = decode(&bytes, &identity(SAVED_WITHOUT_PROVIDER)).unwrap();
        assert_eq!(snapshot.listed_at, at(1_234));
        assert!(decode(&bytes, &identity("acme")).is_err());
    }

    #[test]
    fn fault_h1_a_damaged_snapshot_is_never_taken_for_a_good_one() {
        let good = encode(&identity(), &listing(), at(1_234));
        for length in 0..good.len() {
            let torn = &good[..length];
            assert!(decode(torn, &identity()).is_err(), "cut to {length}");
            let filled = [torn, &vec![0; good.len() - length]].concat();
            assert!(decode(&filled, &identity()).is_err(), "zeros from {length}");
        }
        for index in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[index] ^= 1 << bit;
                let read = decode(&flipped, &identity());
                // White space and the case of a hexadecimal digit carry nothing.
                let is_harmless = read.as_ref().is_ok_and(|read| read.listing == listing());
                assert!(read.is_err() || is_harmless, "bit {bit} of byte {index}");
            }
        }
        assert_eq!(decode(b"", &identity()), Err(BadSnapshot::Foreign));
        assert_eq!(decode(&[0; 4096], &identity()), Err(BadSnapshot::Foreign));
    }

    #[test]
    fn fault_h4_a_snapshot_of_another_version_account_or_api_is_refused() {
        let good = encode(&identity(), &listing(), at(1_234));
        let newer = String::from_utf8(good.clone())
            .unwrap()
            .replacen(" 1 ", " 2 ", 1);
        let read = decode(newer.as_bytes(), &identity());
        assert_eq!(read, Err(BadSnapshot::Version(2)));
        let others = [
            Identity {
                provider: "other".to_owned(),
                ..identity()
            },
            Identity {
                account: "office".to_owned(),
                ..identity()
            },
            Identity {
                base_url: "https://other.example/".to_owned(),
                ..identity()
            },
        ];
        for other in others {
            let read = decode(&good, &other);
            assert!(
                matches!(read, Err(BadSnapshot::OfAnother { .. })),
                "{read:?}"
            );
        }
    }

    #[test]
    fn text_in_a_snapshot_is_cleaned_like_any_other() {
        let evil = Key {
            label: Some("a\nb sk_live_abc".into()),
            ..key("a")
        };
        let listing = Listing::new(vec![evil], Rejects::default(), None);
        let bytes = encode(&identity(), &listing, at(1));
        let read = decode(&bytes, &identity()).unwrap();
        let label = read.listing.keys()[0].label.as_deref();
        assert_eq!(label, Some("a\u{fffd}b [redacted]"));
    }
}
