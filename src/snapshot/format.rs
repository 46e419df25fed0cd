//! The saved snapshot as bytes: one header line, then the listing as JSON. Pure.
//!
//! The checksum protects against accidents (a full disk, a power cut, a flipped bit), not against
//! attackers: anyone who can write the file could also stop the exporter.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::account_state::SavedState;
use crate::domain::allow_list::AllowList;
use crate::domain::fnv;
use crate::domain::key::{Expiry, Fields, Key, KeyId, Mode, Scopes};
use crate::domain::listing::{Listing, Rejects};
use crate::domain::text::{self, Label, Name};
use crate::domain::token_mark::{self, TokenMark};
use crate::provider::SAVED_WITHOUT_PROVIDER;

/// The start of every snapshot.
const MAGIC: &str = "api-key-exporter-snapshot";

/// The format version written here. A reader rejects a higher one.
const VERSION: u32 = 1;

/// Most entries of an allow list, as in a listing.
const ENTRIES_MAX: u32 = 10_000;

/// The subject of a snapshot: it is ignored for any other account or API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The operator's name for the account.
    pub account: String,
    /// The provider of the API.
    pub provider: String,
    /// The base URL of the API.
    pub base_url: String,
}

/// Why a snapshot is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    /// It is some other file.
    #[error("it is not a snapshot")]
    Foreign,
    /// A newer exporter wrote it.
    #[error("it has version {0}, and this exporter reads {VERSION}")]
    Version(u32),
    /// It was truncated or changed after it was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// It belongs to something else.
    #[error("it belongs to account {account:?} of {provider} at {base_url}")]
    OfAnother {
        /// The account that it belongs to.
        account: String,
        /// The provider that it belongs to.
        provider: String,
        /// The API that it belongs to.
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
    #[serde(default, skip_serializing_if = "is_default")]
    shrunk_listings: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<SavedTokenMark>,
    keys: Vec<SavedKey>,
}

/// A keyed hash of the token, in hexadecimal digits.
#[derive(Serialize, Deserialize)]
struct SavedTokenMark {
    key: String,
    digest: String,
}

/// A key. It has no field for a secret, because secrets are never saved.
#[expect(clippy::struct_excessive_bools, reason = "it mirrors the JSON")]
#[derive(Serialize, Deserialize)]
struct SavedKey {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    label_is_inexact: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_live: Option<bool>,
    #[serde(default, skip_serializing_if = "is_default")]
    is_own: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    is_disabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "is_default")]
    expiry_is_unknown: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updated_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    networks: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    invalid_entries: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    scopes_are_unknown: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    allow_list_is_unknown: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    unreadable: u8,
    #[serde(default, skip_serializing_if = "is_default")]
    is_listed_expired: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unlisted_since_ms: Option<i64>,
}

/// Encodes the snapshot as bytes.
pub fn encode(identity: &Identity, state: &SavedState) -> Vec<u8> {
    let SavedState {
        listing,
        listed_at,
        shrunk_listings,
        token,
    } = state;
    let rejects = listing.rejects();
    let saved = SavedListing {
        account: identity.account.clone(),
        provider: identity.provider.clone(),
        base_url: identity.base_url.clone(),
        listed_at_ms: listed_at.timestamp_millis(),
        api_env: listing.api_env().map(str::to_owned),
        rejected: [rejects.id, rejects.duplicate, rejects.shape],
        shrunk_listings: *shrunk_listings,
        token: token.map(|mark| SavedTokenMark {
            key: hex(mark.key),
            digest: hex(mark.digest),
        }),
        keys: listing.keys().iter().map(saved).collect(),
    };
    let body = serde_json::to_vec(&saved).expect("text and numbers are always JSON");
    let (checksum, length) = (fnv::hash(&body), body.len());
    let mut bytes = format!("{MAGIC} {VERSION} {length} {checksum:016x}\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// Decodes a snapshot of `identity`.
pub fn decode(bytes: &[u8], identity: &Identity) -> Result<SavedState, BadSnapshot> {
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
    if sum != Some(fnv::hash(body)) {
        return Err(BadSnapshot::Damaged("its checksum is wrong"));
    }
    let saved: SavedListing = serde_json::from_slice(body)
        .map_err(|_shows_values| BadSnapshot::Damaged("it is not the JSON that it should be"))?;
    let saved_identity = (&saved.account, &saved.provider, &saved.base_url);
    if saved_identity != (&identity.account, &identity.provider, &identity.base_url) {
        return Err(BadSnapshot::OfAnother {
            account: text::label(&saved.account),
            provider: text::label(&saved.provider),
            // Earlier versions saved the query, too.
            base_url: text::redact_url(&text::label(&saved.base_url)),
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
    let token = saved.token.map(|mark| {
        let (key, digest) = (from_hex(&mark.key), from_hex(&mark.digest));
        let (key, digest) = key
            .zip(digest)
            .ok_or(BadSnapshot::Damaged("a hash is none"))?;
        Ok(TokenMark { key, digest })
    });
    let listing = Listing::restored(keys?, rejects, saved.api_env.and_then(clean));
    Ok(SavedState {
        listing: Arc::new(listing),
        listed_at,
        shrunk_listings: saved.shrunk_listings,
        token: token.transpose()?,
    })
}

fn saved(key: &Key) -> SavedKey {
    let millis = |time: Option<DateTime<Utc>>| time.map(|time| time.timestamp_millis());
    let scopes = key.scopes.iter().flat_map(Scopes::iter);
    let allow_list = key.allow_list.as_ref();
    let networks = allow_list
        .map(AllowList::networks)
        .unwrap_or_default()
        .iter();
    SavedKey {
        id: key.id.to_string(),
        label: key.label.as_deref().map(str::to_owned),
        label_is_inexact: key.label.as_ref().is_some_and(|label| !label.is_exact()),
        organization_id: key.organization_id.as_deref().map(str::to_owned),
        is_live: key.mode.map(|mode| mode == Mode::Live),
        is_own: key.is_own,
        is_disabled: key.is_disabled,
        expires_at_ms: match key.expiry {
            Expiry::At(end) => Some(end.timestamp_millis()),
            Expiry::Never | Expiry::Unknown => None,
        },
        expiry_is_unknown: key.expiry == Expiry::Unknown,
        created_at_ms: millis(key.created_at),
        updated_at_ms: millis(key.updated_at),
        scopes: scopes.map(str::to_owned).collect(),
        networks: networks.map(ToString::to_string).collect(),
        invalid_entries: allow_list.map_or(0, |list| list.invalid_entries().min(ENTRIES_MAX)),
        scopes_are_unknown: key.scopes.is_none(),
        allow_list_is_unknown: allow_list.is_none(),
        unreadable: key.unreadable.bits(),
        is_listed_expired: key.is_listed_expired,
        unlisted_since_ms: millis(key.unlisted_since),
    }
}

fn key(saved: SavedKey) -> Result<Key, BadSnapshot> {
    let scopes = saved.scopes.iter().map(|scope| Name::saved(scope));
    let networks = saved.networks.iter().map(|network| Some(network.as_str()));
    let invalid = (0..saved.invalid_entries.min(ENTRIES_MAX)).map(|_| None);
    Ok(Key {
        id: KeyId::parse(&saved.id).ok_or(BadSnapshot::Damaged("a key's id is invalid"))?,
        label: saved
            .label
            .and_then(|label| Label::saved(&label, !saved.label_is_inexact)),
        organization_id: saved.organization_id.and_then(clean),
        mode: saved
            .is_live
            .map(|is_live| if is_live { Mode::Live } else { Mode::Test }),
        is_own: saved.is_own,
        is_disabled: saved.is_disabled,
        expiry: match saved.expires_at_ms {
            Some(end) => Expiry::At(time(end)?),
            None if saved.expiry_is_unknown => Expiry::Unknown,
            None => Expiry::Never,
        },
        created_at: saved.created_at_ms.map(time).transpose()?,
        updated_at: saved.updated_at_ms.map(time).transpose()?,
        scopes: (!saved.scopes_are_unknown).then(|| Scopes::new(scopes.collect::<Vec<_>>())),
        allow_list: (!saved.allow_list_is_unknown)
            .then(|| AllowList::parse(networks.chain(invalid))),
        unreadable: Fields::from_bits(saved.unreadable),
        is_listed_expired: saved.is_listed_expired,
        unlisted_since: saved.unlisted_since_ms.map(time).transpose()?,
        // Keys may be used while the exporter is down, so details are read again.
        details: None,
    })
}

fn time(millis: i64) -> Result<DateTime<Utc>, BadSnapshot> {
    DateTime::from_timestamp_millis(millis).ok_or(BadSnapshot::Damaged("a time is out of range"))
}

/// Converts text to a label again, even if the file was edited.
fn clean(text: impl AsRef<str>) -> Option<Label> {
    Label::saved(text.as_ref(), true)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn hex(bytes: [u8; token_mark::BYTES]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn from_hex(text: &str) -> Option<[u8; token_mark::BYTES]> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
    bytes?.try_into().ok()
}

fn provider_unsaid() -> String {
    SAVED_WITHOUT_PROVIDER.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::Field;
    use crate::domain::key::tests::{at, key};

    fn identity() -> Identity {
        Identity {
            account: "shop".to_owned(),
            provider: "acme".to_owned(),
            base_url: "https://api.acme.example/".to_owned(),
        }
    }

    fn state() -> SavedState {
        let mark = TokenMark {
            key: [1; token_mark::BYTES],
            digest: [0xab; token_mark::BYTES],
        };
        SavedState {
            listing: Arc::new(listing()),
            listed_at: at(1_234),
            shrunk_listings: 1,
            token: Some(mark),
        }
    }

    fn listing() -> Listing {
        let mut unreadable = Fields::default();
        unreadable.insert(Field::Expiry);
        unreadable.insert(Field::Scopes);
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
                scopes: Some(Scopes::new(vec!["b", "a"])),
                allow_list: Some(list(&[Some("10.0.0.0/8"), Some("::1"), None, Some("x")])),
                is_listed_expired: true,
                ..key("b-everything")
            },
            Key {
                mode: Some(Mode::Test),
                expiry: Expiry::Unknown,
                allow_list: Some(list(&[None])),
                ..key("c-unknown")
            },
            Key {
                label: Label::saved("a\u{fffd}b", true),
                expiry: Expiry::At(at(5)),
                scopes: None,
                allow_list: None,
                unreadable,
                is_disabled: true,
                unlisted_since: Some(at(7)),
                ..key("d-odd")
            },
        ];
        let rejects = Rejects {
            id: 1,
            duplicate: 2,
            shape: 3,
        };
        Listing::restored(keys, rejects, Some("production".into()))
    }

    #[test]
    fn what_was_saved_comes_back_whole() {
        let bytes = encode(&identity(), &state());
        assert_eq!(decode(&bytes, &identity()), Ok(state()));
    }

    #[test]
    fn a_snapshot_from_before_there_were_providers_is_of_the_first_one() {
        let body = br#"{"account":"shop","base_url":"https://a.example/","listed_at_ms":1234000,"keys":[]}"#;
        let (checksum, length) = (fnv::hash(body), body.len());
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
    fn a_damaged_snapshot_is_never_taken_for_a_good_one() {
        let good = encode(&identity(), &state());
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
                // White space and the case of a hexadecimal digit have no meaning.
                let is_harmless = read == Ok(state());
                assert!(read.is_err() || is_harmless, "bit {bit} of byte {index}");
            }
        }
        assert_eq!(decode(b"", &identity()), Err(BadSnapshot::Foreign));
        assert_eq!(decode(&[0; 4096], &identity()), Err(BadSnapshot::Foreign));
    }

    #[test]
    fn a_snapshot_of_another_version_account_or_api_is_refused() {
        let good = encode(&identity(), &state());
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
        let state = SavedState {
            listing: Arc::new(listing),
            ..state()
        };
        let bytes = encode(&identity(), &state);
        let read = decode(&bytes, &identity()).unwrap();
        let label = read.listing.keys()[0].label.as_deref();
        assert_eq!(label, Some("a\u{fffd}b [redacted]"));
    }
}
