//! The bytes of a saved listing: a listing that saves to the same again, or the reason why not.

use api_key_exporter::domain::fnv;
use api_key_exporter::domain::text::{is_hidden, redact};
use api_key_exporter::snapshot::format::{Identity, decode, encode};

/// Checks one file, and the same body below a head that fits it: a fuzzer finds no checksum.
pub fn check(bytes: &[u8]) {
    assert_read(bytes);
    let body = bytes
        .splitn(2, |byte| *byte == b'\n')
        .nth(1)
        .unwrap_or(bytes);
    let (length, sum) = (body.len(), fnv::hash(body));
    let head = format!("api-key-exporter-snapshot 1 {length} {sum:016x}\n");
    assert_read(&[head.as_bytes(), body].concat());
}

fn assert_read(bytes: &[u8]) {
    let identity = Identity {
        account: "main".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
    };
    match decode(bytes, &identity) {
        Ok(snapshot) => {
            let keys = snapshot.listing.keys();
            assert!(keys.is_sorted_by(|a, b| a.id < b.id), "unsorted or twice");
            for label in keys.iter().filter_map(|key| key.label.as_deref()) {
                assert!(!label.chars().any(is_hidden), "{label:?}");
            }
            let written = encode(&identity, &snapshot);
            let again = decode(&written, &identity).expect("what was saved can be read");
            assert_eq!(again.listed_at, snapshot.listed_at);
            assert!(
                written == encode(&identity, &again),
                "a listing changes each time that it is saved"
            );
        }
        Err(bad) => {
            let words = bad.to_string();
            assert!(!words.chars().any(is_hidden), "{words:?}");
            let redacted = redact(&words);
            assert_eq!(redacted, words, "the error shows a key");
        }
    }
}
