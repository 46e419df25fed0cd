//! A definition of a provider and the bytes of an answer: the keys of the listing are those of the
//! answer, and one that cannot be read hides no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_key_exporter::config::definition_of;
use api_key_exporter::domain::failure::Failure;
use api_key_exporter::domain::key::Scopes;
use api_key_exporter::domain::listing::Listing;
use api_key_exporter::domain::text::{LABEL_CHARS_MAX, is_hidden};
use api_key_exporter::provider::definitions::BUILT_IN;
use api_key_exporter::provider::json_list::{JsonList, read_page};
use api_key_exporter::provider::response::Response;
use http::HeaderMap;

use super::config::assert_no_key;
use super::{listing, support};

/// Between the definition and the body of an input.
const SEPARATOR: &str = "\n---\n";

/// Checks a definition, or the name of a built-in one, and one body.
pub fn check(bytes: &[u8]) {
    let Some(end) = bytes
        .windows(SEPARATOR.len())
        .position(|it| it == SEPARATOR.as_bytes())
    else {
        return;
    };
    let (text, body) = (&bytes[..end], &bytes[end + SEPARATOR.len()..]);
    let Some(json_list) = std::str::from_utf8(text).ok().and_then(json_list) else {
        return;
    };
    let refused = read(&json_list, 503, body).expect_err("an error status is no listing");
    support::assert_clean_failure(&refused);
    match read(&json_list, 200, body) {
        Err(failure) => support::assert_clean_failure(&failure),
        Ok(listing) => {
            assert_keys(&listing, body);
            assert_same(&json_list, body, &listing);
            listing::assert_saved(&listing);
            listing::assert_exposed(&listing::polled(Ok(listing)));
        }
    }
}

/// The definition, with a value for each of its parameters; none if it is invalid.
fn json_list(text: &str) -> Option<JsonList> {
    let built_in = BUILT_IN.iter().find(|(name, _)| *name == text);
    let text = built_in.map_or(text, |(_, text)| text);
    match definition_of("fuzz", text) {
        Ok(definition) => {
            let params = definition.request.params();
            let params = params
                .into_iter()
                .map(|name| (name.to_owned(), "x".to_owned()));
            let params: BTreeMap<String, String> = params.collect();
            let filled = JsonList::new(&Arc::new(definition), &params);
            Some(filled.expect("a valid definition takes its parameters"))
        }
        Err(problems) => {
            assert!(built_in.is_none() && !problems.is_empty(), "{problems:?}");
            for problem in problems {
                assert_no_key("a problem", &problem.to_string());
            }
            None
        }
    }
}

fn read(json_list: &JsonList, status: u16, body: &[u8]) -> Result<Listing, Failure> {
    let token = support::token();
    let answer = Response {
        status,
        headers: HeaderMap::new(),
        body: body.to_vec(),
    };
    let rules = support::rules(&token);
    read_page(json_list, &answer, &rules, support::now()).map(|listed| listed.listing)
}

/// Each key once, none that the body does not name, and only clean text.
fn assert_keys(listing: &Listing, body: &[u8]) {
    let keys = listing.keys();
    assert!(keys.len() <= support::KEYS_MAX, "{} keys", keys.len());
    assert!(keys.is_sorted_by(|a, b| a.id < b.id), "an id twice");
    let body = String::from_utf8_lossy(body);
    for key in keys {
        let id = key.id.as_str();
        assert!(body.contains(id) || body.contains('\\'), "{id} is invented");
        let texts = key.scopes.iter().flat_map(Scopes::iter);
        for text in texts.chain(key.label.as_deref()).chain([id]) {
            assert!(
                (1..=LABEL_CHARS_MAX).contains(&text.chars().count()),
                "{text:?}"
            );
            assert!(!text.chars().any(is_hidden), "{text:?}");
            support::assert_no_token("a key", text);
        }
    }
}

/// Space around the JSON changes nothing, and an entry that is no key costs a count.
fn assert_same(json_list: &JsonList, body: &[u8], listing: &Listing) {
    let spaced = [b" \n", body, b"\t "].concat();
    let again = read(json_list, 200, &spaced).expect("the same listing with space around it");
    assert_eq!(*listing, again);
    let definition = json_list.definition();
    let is_plain = definition.items.segments().is_empty() && definition.nested.is_none();
    let rest = body.trim_ascii_start().strip_prefix(b"[");
    let (true, Some(rest), 1..support::KEYS_MAX) = (is_plain, rest, listing.keys().len()) else {
        return;
    };
    // The limit counts entries, so it may be reached now.
    if let Ok(again) = read(json_list, 200, &[b"[7,", rest].concat()) {
        assert_eq!(listing.keys(), again.keys());
        assert_eq!(listing.rejects().total() + 1, again.rejects().total());
    }
}
