//! Whole documents of a fixed state at a fixed time, compared with files; and of hostile values.

use std::sync::Arc;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::failure::{Failure, Reason};
use api_key_exporter::domain::glob::Glob;
use api_key_exporter::domain::inventory::{Entry, Inventory};
use api_key_exporter::domain::listing::Listing;
use api_key_exporter::domain::text::{self, Line};
use api_key_exporter::pages::{Body, Exporter, Overview, Page};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use serde_json::{Value, json};

use crate::golden::{assert_golden, at, settings, states};

fn exporter() -> Exporter {
    Exporter {
        is_alive: true,
        is_config_current: true,
        links: String::new(),
        telemetry_path: "/metrics".to_owned(),
    }
}

pub(super) fn render(page: Page, overview: Overview, query: &str) -> String {
    let document = page.render(overview, &exporter(), query);
    assert!(!document.is_refused, "{page:?}");
    let bytes = match document.body {
        Body::Whole(bytes) => bytes.to_vec(),
        Body::Pieces(pieces) => pieces.collect::<Vec<_>>().concat(),
    };
    String::from_utf8(bytes).unwrap()
}

/// The state of the golden exposition, two seconds into 2026.
fn golden() -> Overview {
    Overview {
        states: states().map(Arc::new).into(),
        rules: Arc::new(settings()),
        now: at("2026-01-01T00:00:02Z"),
    }
}

#[test]
fn documents_are_as_they_were() {
    let page = render(Page::Status, golden(), "");
    // The style is a file of its own.
    let (head, rest) = page.split_once("<style>").unwrap();
    let (_, rest) = rest.split_once("</style>").unwrap();
    assert_golden("status_page.html", &format!("{head}<style></style>{rest}"));
    assert_golden("keys.json", &render(Page::Keys, golden(), ""));
    assert_golden("accounts.json", &render(Page::Accounts, golden(), ""));
    assert_golden("calendar.ics", &render(Page::Calendar, golden(), ""));
}

/// Text that would leave its place in each of the formats.
const HOSTILE: &str = "</title></style><script>alert(1)</script>\"'&<!--{{7*7}}\
    \\,;:=END:VEVENT鍵\u{1f511}";

/// An account before its first poll.
pub(super) fn account(name: &str) -> AccountState {
    AccountState::new(Arc::new(Account {
        name: name.into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        interval: std::time::Duration::from_secs(60),
        shrink: ShrinkGuard::default(),
        expired_retention: chrono::TimeDelta::days(7),
        listing_scope: None,
    }))
}

/// A poll that lists `keys`.
pub(super) fn listed(keys: &[Value], env: &str) -> Outcome {
    let body = json!({ "status": 200, "data": keys, "error": null, "env": env });
    let token = Token::parse(b"sk_live_ZXhwb3J0ZXJzIG93biBrZXk.aaaa4", "test").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: 100,
        pages_max: 1,
        held: None,
        expected_env: None,
    };
    let listing = parse::answer(200, body.to_string().as_bytes(), &rules);
    ended(Ok(listing.unwrap().listing))
}

/// A poll that ended with `result`.
pub(super) fn ended(result: Result<Listing, Failure>) -> Outcome {
    Outcome {
        result,
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    }
}

/// Keys, an account, a team and a failure that all carry it.
pub(crate) fn hostile() -> Overview {
    let line_breaks = format!("\r\nEND:VEVENT\r\nBEGIN:VEVENT\n\u{0}\u{1b}[31m\u{202e}{HOSTILE}");
    let key = |id: &str| {
        json!({ "id": id, "label": line_breaks, "organization_id": HOSTILE,
            "scopes": [HOSTILE, "</ul>"], "ip_allow_list": [HOSTILE],
            "expires_at": "2026-02-03 00:00:00", "created_at": "2025-02-03 00:00:00" })
    };
    let good = listed(&[key("a"), key("b")], "</script>");
    let failure = Failure {
        error: Some(Line::own(HOSTILE)),
        ..Failure::new(Reason::ServerError, "")
    };
    let entry = Entry {
        name: Some(HOSTILE.into()),
        team: Some(HOSTILE.into()),
        reason: Some(HOSTILE.into()),
        muted_until: Some(at("2026-01-02T00:00:00Z")),
        rotate_url: Some("https://example.com/?\"><script>alert(1)</script>".into()),
        ..Entry::new(Glob::parse("b").unwrap())
    };
    let rules = AssessmentRules {
        inventory: Inventory::new(vec![entry]),
        ..AssessmentRules::default()
    };
    let (state, _) = account(HOSTILE).after(good, &rules, at("2026-01-01T00:00:00Z"));
    let (state, _) = state.after(ended(Err(failure)), &rules, at("2026-01-01T00:01:00Z"));
    Overview {
        states: [Arc::new(state)].into(),
        rules: Arc::new(rules),
        now: at("2026-01-01T00:02:00Z"),
    }
}

#[test]
fn hostile_values_stay_where_they_belong() {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("account", HOSTILE)
        .finish();
    // Control characters in a parameter, which are shown as those in a label.
    let controls = "q=%00%1b%5B31m%C2%9B%E2%80%AE&account=a%00&team=%1b";
    for query in ["", &query, controls] {
        let page = render(Page::Status, hostile(), query);
        for tag in [
            "<script", "</style>", "</title>", "<!--", "</ul>\"", "<b>alert",
        ] {
            let count = page.matches(tag).count();
            let expected = match tag {
                "</style>" | "</title>" => page_has_once(&page, tag),
                _ => 0,
            };
            assert_eq!(count, expected, "{tag}");
        }
        assert!(
            page.contains("&#60;script&#62;alert(1)"),
            "it is shown as text"
        );
        let is_hidden = |c: char| text::is_hidden(c) && c != '\n';
        assert_eq!(page.find(is_hidden), None, "{query}");
    }
    let keys: Value = serde_json::from_str(&render(Page::Keys, hostile(), "")).unwrap();
    assert_eq!(keys["keys"][0]["account"], HOSTILE);
    let accounts: Value = serde_json::from_str(&render(Page::Accounts, hostile(), "")).unwrap();
    assert_eq!(accounts["accounts"][0]["name"], HOSTILE);
    let calendar = render(Page::Calendar, hostile(), "");
    let lines = |line: &str| calendar.split("\r\n").filter(|it| *it == line).count();
    assert_eq!((lines("BEGIN:VEVENT"), lines("END:VEVENT")), (2, 2));
    assert!(
        !calendar
            .replace("\r\n", "")
            .contains(['\r', '\n', '\0', '\u{1b}'])
    );
}

/// The page's own, and the titles of the timelines' dots.
fn page_has_once(page: &str, tag: &str) -> usize {
    let dots = page.matches("<circle").count();
    if tag == "</title>" { 1 + dots } else { 1 }
}
