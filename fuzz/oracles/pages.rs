//! A query and a listing: every page is well-formed, shows the selected keys and nothing else, and
//! text from outside stays text.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::key::Expiry;
use api_key_exporter::pages::{Body, Document, Exporter, Overview, Page, Query, Takes};
use api_key_exporter::provider::bitgpt::parse;
use chrono::Datelike;
use serde_json::Value;

use super::markup::{self, Markup};
use super::{listing, support};

/// Checks one query, which ends at the first line break, and one body.
pub fn check(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (query, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let query = String::from_utf8_lossy(query);
    let token = support::token();
    let answer = parse::answer(200, body, &support::rules(&token));
    let states = [
        Arc::new(listing::polled(answer.map(|listed| listed.listing))),
        Arc::new(listing::account("other <b>&amp;")),
    ];
    let overview = Overview {
        states: states.into(),
        rules: Arc::new(AssessmentRules::default()),
        now: support::now(),
    };
    status_page(&overview, &query);
    json(&overview, &query);
    calendar(&overview, &query);
}

/// The text of a page, and whether it refuses the query.
fn render(page: Page, overview: &Overview, query: &str) -> (String, bool) {
    let exporter = Exporter {
        is_alive: true,
        is_config_current: true,
        links: "/prefix".to_owned(),
        telemetry_path: "/metrics".to_owned(),
    };
    let Document {
        body, is_refused, ..
    } = page.render(overview.clone(), &exporter, query);
    let bytes = match body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Pieces(pieces) => pieces.flat_map(|piece| piece.to_vec()).collect(),
    };
    let text = String::from_utf8(bytes).expect("UTF-8");
    // The query comes from the reader.
    let mut asked = url::form_urlencoded::parse(query.as_bytes());
    if !asked.any(|(name, value)| format!("{name}{value}").contains("ZXhwb3J0ZXJz")) {
        support::assert_no_token("a page", &text);
    }
    (text, is_refused)
}

fn status_page(overview: &Overview, query: &str) {
    let (text, is_refused) = render(Page::Status, overview, query);
    let parsed = Query::parse(query, Takes::StatusPage);
    assert_eq!(is_refused, parsed.is_err());
    let Ok(query) = parsed else {
        return;
    };
    let Markup { texts, links } = markup::read(&text);
    let selected = overview.select(&query.filter);
    let last = selected.len().saturating_sub(1) / query.limit * query.limit;
    let shown = selected
        .iter()
        .skip(query.offset.min(last))
        .take(query.limit);
    let mut titles = texts
        .into_iter()
        .filter(|(path, _)| path.ends_with("tbody/tr/th/a"));
    for row in shown {
        let title = titles.next().map(|(_, text)| text);
        assert_eq!(title.as_deref(), Some(row.title()));
    }
    let account = query.filter.account.as_deref();
    let accounts = overview.accounts().map(|row| row.name());
    let accounts = accounts.filter(|name| account.is_none_or(|only| only == *name));
    assert_eq!(titles.count(), accounts.count(), "a row of another key");
    for link in links {
        let is_own = ["#", "?", "/prefix/", "data:image/svg+xml,"];
        assert!(is_own.iter().any(|start| link.starts_with(start)), "{link}");
        // A link of the page leads to a page.
        if let Some(query) = link.strip_prefix('?') {
            let query = query.split('#').next().unwrap();
            Query::parse(query, Takes::StatusPage).expect("a query that it made itself");
        }
    }
}

fn json(overview: &Overview, query: &str) {
    let key_ids = |query: &Query| {
        let rows = overview.select(&query.filter);
        let ids = rows.iter().map(|row| row.key.id.as_str().to_owned());
        ids.collect()
    };
    documents(
        Page::Keys,
        Takes::Keys,
        overview,
        query,
        ("keys", "key_id"),
        key_ids,
    );
    let names = |_: &Query| {
        overview
            .accounts()
            .map(|row| row.name().to_owned())
            .collect()
    };
    documents(
        Page::Accounts,
        Takes::Accounts,
        overview,
        query,
        ("accounts", "name"),
        names,
    );
}

/// The page has the part of `all` that the query asks for, in the field of each entry of the list.
fn documents(
    page: Page,
    takes: Takes,
    overview: &Overview,
    query: &str,
    (list, field): (&str, &str),
    all: impl Fn(&Query) -> Vec<String>,
) {
    let (text, is_refused) = render(page, overview, query);
    let document: BTreeMap<String, Value> = serde_json::from_str(&text).expect("JSON");
    let parsed = Query::parse(query, takes);
    assert_eq!(is_refused, parsed.is_err());
    let Ok(query) = parsed else {
        assert!(document["error"].is_string());
        return;
    };
    let all = all(&query);
    assert_eq!(document["total"], all.len());
    let shown = document[list].as_array().unwrap().iter();
    let shown: Vec<&str> = shown.map(|entry| entry[field].as_str().unwrap()).collect();
    let expected = all.iter().skip(query.offset).take(query.limit);
    assert!(shown.iter().copied().eq(expected), "{shown:?} of {all:?}");
}

fn calendar(overview: &Overview, query: &str) {
    let (text, is_refused) = render(Page::Calendar, overview, query);
    let parsed = Query::parse(query, Takes::Calendar);
    assert_eq!(is_refused, parsed.is_err());
    let Ok(query) = parsed else {
        return;
    };
    let rows = overview.select(&query.filter);
    let has_date = |at: chrono::DateTime<chrono::Utc>| (1..=9999).contains(&at.year());
    let rows = rows.iter().filter(|row| match row.key.expiry {
        Expiry::At(end) => has_date(end),
        Expiry::Never | Expiry::Unknown => false,
    });
    let summaries: Vec<String> = rows
        .map(|row| format!("API key {} expires", row.title()))
        .collect();
    let found = summaries_of(&text);
    assert_eq!(found.len(), summaries.len());
    for (found, expected) in found.iter().zip(&summaries) {
        assert!(found.ends_with(expected.as_str()), "{found:?} {expected:?}");
    }
}

/// The summaries of the events of a calendar, which is read strictly (RFC 5545).
fn summaries_of(text: &str) -> Vec<String> {
    let lines = text.strip_suffix("\r\n").expect("the last line ends");
    for line in lines.split("\r\n") {
        assert!(line.len() <= 75, "a long line: {line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    let mut open: Vec<&str> = Vec::new();
    let mut summaries = Vec::new();
    let unfolded = lines.replace("\r\n ", "");
    for line in unfolded.split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?}"));
        match name {
            "BEGIN" => open.push(value),
            "END" => assert_eq!(open.pop(), Some(value)),
            "SUMMARY" => {
                assert_eq!(open, ["VCALENDAR", "VEVENT"]);
                summaries.push(unescaped(value));
            }
            _ => assert!(!open.is_empty(), "{line:?}"),
        }
    }
    assert!(open.is_empty(), "{open:?} does not end");
    summaries
}

fn unescaped(value: &str) -> String {
    let mut chars = value.chars();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        assert!(!matches!(c, ';' | ','), "{value:?}");
        text.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(c @ ('\\' | ';' | ',')) => c,
                other => panic!("an unknown escape {other:?}: {value:?}"),
            },
            c => c,
        });
    }
    text
}
