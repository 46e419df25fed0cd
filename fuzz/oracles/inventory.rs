//! `[[keys]]` of a configuration: the index finds the entry that a plain search finds.

use api_key_exporter::domain::inventory::Entry;
use api_key_exporter::domain::key::{Key, KeyId};
use api_key_exporter::provider::bitgpt::parse;

use super::{config, support};

/// Checks one inventory. The rest of the configuration is fixed.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let text = format!("accounts = [{{ name = \"a\", token_env = \"TOKEN\" }}]\n{text}");
    if text.contains("_file") {
        return;
    }
    let Some(config) = config::assert_judged(&text) else {
        return;
    };
    let inventory = &config.assessment_rules.inventory;
    let entries = inventory.entries();
    // What patterns were made from, and what they miss by a character.
    let texts = entries.iter().flat_map(|entry| {
        let pattern = entry.pattern.as_str();
        [
            pattern.replace(['*', '?'], "x"),
            pattern.replace('*', ""),
            format!("{pattern}x"),
        ]
    });
    for text in texts.take(64) {
        for account in ["a", "b"] {
            let Some(key) = key(&text) else { continue };
            let expected = entries
                .iter()
                .position(|entry| matches(entry, account, &key));
            assert_eq!(inventory.find(account, &key), expected, "{text:?}");
        }
    }
    for entry in entries {
        let is_reasoned = entry.reason.is_some();
        assert!(is_reasoned || (entry.muted_until.is_none() && entry.exempt.is_empty()));
        if let (Some(warning), Some(critical)) = (entry.warning, entry.critical) {
            assert!(critical <= warning);
        }
        assert_eq!(
            entry.is_muted(support::now()),
            entry
                .muted_until
                .is_some_and(|until| until > support::now())
        );
    }
}

fn matches(entry: &Entry, account: &str, key: &Key) -> bool {
    let is_for = entry.account.as_deref().is_none_or(|only| only == account);
    let pattern: Vec<char> = entry.pattern.as_str().chars().collect();
    let names = [Some(key.id.as_str()), key.label.as_deref()];
    let is_like = |text: &str| is_like(&pattern, &text.chars().collect::<Vec<char>>());
    is_for && names.into_iter().flatten().any(is_like)
}

/// Whether `pattern` matches all of `text`, by the table of all their beginnings.
fn is_like(pattern: &[char], text: &[char]) -> bool {
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for wanted in pattern {
        let mut next = vec![false; text.len() + 1];
        for end in 0..=text.len() {
            next[end] = match wanted {
                '*' => row[end] || (end > 0 && next[end - 1]),
                _ => end > 0 && row[end - 1] && (*wanted == '?' || *wanted == text[end - 1]),
            };
        }
        row = next;
    }
    row[text.len()]
}

/// A key with this label, and with this id where it can be one, as an API lists it.
fn key(text: &str) -> Option<Key> {
    let id = KeyId::parse(text).map_or("other".to_owned(), |id| id.to_string());
    let entry = serde_json::json!({ "id": id, "label": text });
    let body = serde_json::json!({ "status": 200, "error": null, "data": [entry] });
    let token = support::token();
    let body = body.to_string();
    let listed = parse::answer(200, body.as_bytes(), &support::rules(&token)).ok()?;
    listed.listing.keys().first().cloned()
}
