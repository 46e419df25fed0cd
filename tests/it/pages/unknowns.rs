//! What the pages say about facts that are unknown, and about keys that a filter leaves out.

use std::sync::Arc;

use api_key_exporter::domain::account_state::AccountState;
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::failure::{Failure, Reason};
use api_key_exporter::pages::{Check, Choice, Overview, Page};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::documents::{account, ended, listed, render};
use super::ids;
use crate::golden::at;

const NOW: &str = "2026-01-01T00:00:00Z";

fn overview(states: impl IntoIterator<Item = AccountState>) -> Overview {
    Overview {
        states: states.into_iter().map(Arc::new).collect(),
        rules: Arc::new(AssessmentRules::default()),
        now: at(NOW),
    }
}

fn now() -> DateTime<Utc> {
    at(NOW)
}

fn polled(state: &AccountState, outcomes: impl IntoIterator<Item = Vec<Value>>) -> AccountState {
    let rules = AssessmentRules::default();
    let mut state = state.clone();
    for keys in outcomes {
        (state, _) = state.after(listed(&keys, "production"), &rules, now());
    }
    state
}

fn failed(state: &AccountState) -> AccountState {
    let failure = Failure::new(Reason::Unauthorized, "");
    let rules = AssessmentRules::default();
    state.after(ended(Err(failure)), &rules, now()).0
}

fn key(id: &str, label: &str, expires_at: &Value) -> Value {
    json!({ "id": id, "label": label, "scopes": ["a"], "ip_allow_list": ["10.0.0.1"],
        "expires_at": expires_at })
}

/// `label`ed as its id, with this many days left.
fn ending(id: &str, days: i64) -> Value {
    let end = now() + TimeDelta::days(days);
    key(id, id, &json!(end.format("%Y-%m-%d %H:%M:%S").to_string()))
}

fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<h2 id=\"{id}\">")).unwrap();
    rest.split_once("</section>").unwrap().0
}

#[test]
fn a_key_whose_expiry_became_unreadable_needs_attention() {
    let days = [("expired", -1), ("critical", 2), ("soon", 20), ("far", 200)];
    let before: Vec<Value> = days.iter().map(|(id, days)| ending(id, *days)).collect();
    let mut after: Vec<Value> = days
        .iter()
        .map(|(id, _)| key(id, id, &json!("soon")))
        .collect();
    after.push(key("always", "always", &json!("soon")));
    let overview = overview([polled(&account("main"), [before, after])]);
    let all = ["expired", "critical", "soon", "far", "always"];
    let document = render(Page::Keys, overview.clone(), "state=attention");
    assert_eq!(ids(&serde_json::from_str(&document).unwrap()), all);
    let page = render(Page::Status, overview.clone(), "");
    let tasks = section(&page, "today");
    for id in all {
        assert!(tasks.contains(&format!(">{id}</a>")), "{id} in {tasks}");
    }
    for words in [
        "expired 24 hours ago",
        "expires in 2 days: rotate it",
        "its expiry (the last known one is in 20 days) cannot be read",
        "its expiry (the last known one is in 200 days) cannot be read",
        "its expiry cannot be read",
    ] {
        assert!(tasks.contains(words), "{words} in {tasks}");
    }
    // `check` finds the same keys.
    let check = Check::new(&overview, &Choice::default());
    assert_eq!((check.counts.warning, check.counts.unreadable), (1, 5));
    for (row, status) in &check.keys {
        assert!(row.needs_attention() && status.code() > 0, "{row:?}");
    }
}

#[test]
fn rejected_entries_are_counted_and_explained() {
    let entries = vec![
        ending("a", 300),
        ending("a", 400),
        json!({ "label": "without id" }),
        json!("no object"),
        json!(["nor this"]),
        json!({ "id": "b", "scopes": 1, "expires_at": null }),
    ];
    let overview = overview([polled(&account("main"), [entries]), account("other")]);
    let accounts: Value =
        serde_json::from_str(&render(Page::Accounts, overview.clone(), "")).unwrap();
    let rejected = |position: usize| &accounts["accounts"][position]["entries_rejected"];
    assert_eq!(*rejected(0), json!({ "id": 1, "duplicate": 1, "shape": 3 }));
    assert_eq!(*rejected(1), json!({ "id": 0, "duplicate": 0, "shape": 0 }));
    let page = render(Page::Status, overview, "");
    let accounts = section(&page, "accounts");
    for words in [
        "1 entry without a usable id: not monitored",
        "1 entry with the id of another entry: the earliest expiry of an id counts",
        "2 entries not an object or with a field twice: monitored only if listed before",
        "1 key with an unreadable field: its earlier value stays",
    ] {
        assert!(accounts.contains(words), "{words} in {accounts}");
    }
    assert_eq!(accounts.matches("entries rejected").count(), 1);
}

#[test]
fn keys_of_an_account_that_was_never_listed_are_unknown() {
    let listed = polled(&account("listed"), [vec![ending("a", 300)]]);
    let empty = polled(&account("empty"), [vec![]]);
    let (failing, waiting) = (failed(&account("failing")), account("waiting"));
    let unknown = "Account “failing” was never listed: its keys are unknown";
    let both = "2 accounts were never listed: their keys are unknown";
    for (states, query, words) in [
        (vec![&failing], "", unknown),
        (vec![&failing, &listed], "", unknown),
        (vec![&failing, &listed], "account=failing", unknown),
        (vec![&failing, &waiting], "", both),
        (vec![&failing, &waiting], "account=failing", unknown),
        (vec![&failed(&listed)], "", ""),
        (vec![&failing, &listed], "account=listed&q=b", ""),
        (vec![&empty], "", ""),
    ] {
        let overview = overview(states.into_iter().cloned());
        let page = render(Page::Status, overview, query);
        let is_empty = page.contains("class=\"empty\"");
        for (id, is_shown) in [("timeline", true), ("keys", is_empty)] {
            let section = section(&page, id);
            let is_said = section.contains("never listed");
            assert_eq!(is_said, is_shown && !words.is_empty(), "{query} {section}");
            assert!(!is_said || section.contains(words), "{words} in {section}");
            assert!(!is_said || !section.contains("No key"), "{section}");
        }
        let has_count = section(&page, "accounts").contains(">0<span");
        assert_eq!(has_count, page.contains(">empty</a>"), "{page}");
    }
    // A shard may have no accounts.
    assert!(render(Page::Status, overview([]), "").contains("No keys are known."));
    let overview = overview([failing, empty]);
    let accounts: Value = serde_json::from_str(&render(Page::Accounts, overview, "")).unwrap();
    let is_known = |position: usize| !accounts["accounts"][position]["last_success_at"].is_null();
    assert_eq!((is_known(0), is_known(1)), (false, true));
}

#[test]
fn a_filter_holds_for_the_whole_page_which_says_so() {
    let mine = polled(
        &account("mine"),
        [vec![ending("far", 300), ending("gone", -2)]],
    );
    let other = polled(&account("other"), [vec![ending("near", 3)]]);
    let overview = overview([mine, other, failed(&account("failing"))]);
    let page = |query: &str| render(Page::Status, overview.clone(), query);
    let all = page("");
    assert!(!all.contains("Filtered: "), "{all}");
    let filtered = page("account=mine");
    for (page, next, tasks, title) in [
        (
            &all,
            "near",
            &["near", "gone", "failing"][..],
            "1 expired, 1 critical",
        ),
        (
            &filtered,
            "far",
            &["gone"],
            "1 expired, polling fails · API keys (filtered)",
        ),
    ] {
        assert!(
            section(page, "next").contains(&format!(">{next}</a>")),
            "{page}"
        );
        for name in ["near", "far", "gone", "mine", "other", "failing"] {
            let is_task = section(page, "today").contains(&format!(">{name}</a>"));
            assert_eq!(is_task, tasks.contains(&name), "{name}");
        }
        assert!(page.contains(&format!("<title>{title}")), "{page}");
    }
    assert!(filtered.contains("Filtered: this page covers 2 of 3 keys."));
    for (query, words) in [
        ("account=n%3Cope", "There is no account “n&#60;ope”."),
        ("team=nope", "No known key belongs to a team “nope”."),
        ("q=nope", "No key matches."),
        ("account=mine&state=disabled", "No key matches."),
    ] {
        let page = page(query);
        assert!(section(&page, "keys").contains(words), "{words} in {page}");
        assert!(page.contains("<a href=\"?\">Show all keys</a>"));
    }
    // The rest of the tasks is under the same filter.
    let many = (0..9).map(|id| ending(&format!("k{id}"), 1)).collect();
    let many = polled(&account("many"), [many]);
    let page = render(Page::Status, self::overview([many]), "account=many");
    let more = "<a href=\"?account=many&#38;state=attention#keys\">3 more</a>";
    assert!(page.contains(more), "{page}");
}

#[test]
fn counts_and_times_are_in_plain_english() {
    let one = polled(&account("one"), [vec![ending("day", 1)]]);
    let page = |state: &AccountState| render(Page::Status, overview([state.clone()]), "");
    let shown = page(&one);
    assert!(
        shown.contains(">1<span class=\"phone\"> key</span>"),
        "{shown}"
    );
    assert!(shown.contains("1 expiring within a day"), "{shown}");
    for (millis, words) in [
        (-3_000, "<li>polling now</li>"),
        (0, "<li>polling now</li>"),
        (300, "<li>next poll now</li>"),
        (2_000, "<li>next poll in 2 seconds</li>"),
    ] {
        let shown = page(&one.with_next_poll(now() + TimeDelta::milliseconds(millis)));
        assert!(shown.contains(words), "{words} in {shown}");
        let (_, cell) = shown.split_once("Next poll </span>").unwrap();
        let is_now = cell.split("</time>").next().unwrap().ends_with(">now");
        assert_eq!(is_now, millis < 1_000, "{cell}");
    }
    assert!(!page(&one).contains("0 seconds ago"));
}

#[test]
fn a_blank_label_is_no_name() {
    let blank = |label: &str| polled(&account("main"), [vec![key("k_1", label, &Value::Null)]]);
    for label in ["", " ", " \u{a0}\u{2003} "] {
        let overview = overview([blank(label)]);
        let keys: Value = serde_json::from_str(&render(Page::Keys, overview.clone(), "")).unwrap();
        let key = &keys["keys"][0];
        assert_eq!((&key["name"], &key["label"]), (&Value::Null, &Value::Null));
        assert!(render(Page::Status, overview, "").contains(">k_1</a>"));
    }
}
