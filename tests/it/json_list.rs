//! Providers by definition: what is read of an answer, and of listings with many pages.

mod facts;
mod pages;
mod round_trip;

use std::collections::BTreeMap;
use std::sync::Arc;

use api_key_exporter::config::definition_of;
use api_key_exporter::domain::failure::Failure;
use api_key_exporter::domain::key::Key;
use api_key_exporter::provider::json_list::{JsonList, read_page};
use api_key_exporter::provider::response::Response;
use api_key_exporter::provider::{Listed, Rules};
use api_key_exporter::secret::Token;
use chrono::DateTime;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The exporter's own token at these providers.
const TOKEN: &str = "acme-c2VjcmV0LW9mLXRoZS1leHBvcnRlcg";

/// A provider whose definition has these options besides a path.
fn json_list(options: &str) -> JsonList {
    let text = format!("path = \"/keys\"\n{options}");
    let definition = definition_of("acme", &text);
    let definition = definition.unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    JsonList::new(&Arc::new(definition), &BTreeMap::new()).unwrap()
}

/// What is read of one answer.
fn answer(
    json_list: &JsonList,
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: &str,
) -> Result<Listed, Failure> {
    let headers = headers.iter().map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let response = Response {
        status,
        headers: headers.collect::<HeaderMap>(),
        body: body.as_bytes().to_vec(),
    };
    let token = Token::parse(TOKEN.as_bytes(), "test").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: 5,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    read_page(json_list, &response, &rules, DateTime::UNIX_EPOCH)
}

/// The one key of a listing whose definition and only item are these.
fn only(options: &str, item: &str) -> Key {
    let options = format!("items = \"\"\nid = \"/id\"\n{options}");
    let listed = answer(&json_list(&options), 200, &[], &format!("[{item}]"));
    let listed = listed.unwrap_or_else(|failure| panic!("{options}: {item}: {failure:?}"));
    let [key] = listed.listing.keys() else {
        panic!("{options}: {item}: {listed:?}");
    };
    key.clone()
}
