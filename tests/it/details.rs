//! Keys' own pages: what is asked, when, and that no secret of theirs is kept.

use std::time::Duration;

use api_key_exporter::config::Config;
use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use serde_json::{Value, json};

use crate::process::{Daemon, binary, config_file};
use crate::support::{Exporter, Folder, TOKEN, any_port, config, key};

/// A secret that every page holds in full, as the real ones do.
const FULL: &str = "sk_live_RlVMTC1TRUNSRVQtb2YtYW5vdGhlci1rZXktaW4tZnVsbA.qWeRt";

/// A fake API whose pages are as `page` says.
async fn api(ids: &[&str], page: impl Fn(&str) -> Reply + Send + 'static) -> FakeApi {
    let keys: Vec<Value> = ids.iter().map(|id| key(id)).collect();
    let script = move |request: &Request| match request.key_id() {
        Some(id) => page(id),
        None => Reply::listing(&keys),
    };
    FakeApi::start(any_port(), TOKEN, script).await.unwrap()
}

/// A key's page with its secret in full.
fn page(id: &str) -> Reply {
    let mut key = key(id);
    key["secret"] = json!(FULL);
    key["label"] = json!(format!("label of {id}"));
    key["metrics"] = json!({
        "api_key_id": id, "total_requests": 1250, "last_used_at": "2025-07-01 09:15:30"
    });
    Reply::page(&key)
}

/// Ten pages a second, a poll every two.
fn quick(api: &FakeApi, lines: &str) -> Config {
    let url = format!("http://{}", api.address());
    let text = format!(
        "poll.attempts = 1\ndetails.enabled = true\ndetails.requests_per_minute = 600\n{lines}"
    );
    let mut config = config(&url, &text, "");
    config.accounts[0].interval = Duration::from_secs(2);
    config
}

fn pages(api: &FakeApi) -> Vec<Request> {
    let mut requests = api.requests();
    requests.retain(|request| request.key_id().is_some());
    requests
}

fn of(name: &str, key_id: &str) -> String {
    format!("{name}{{account=\"default\",key_id=\"{key_id}\"}}")
}

fn failed(reason: &str) -> String {
    format!("api_key_account_details_failures_total{{account=\"default\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn each_page_is_asked_for_once_at_the_allowed_pace() {
    let ids = ["a", "b", "c", "d", "e"];
    let api = api(&ids, page).await;
    let text =
        "[[keys]]\nmatch = \"label of a\"\nname = \"A\"\n[[keys]]\nmatch = \"e\"\nname = \"E\"";
    let exporter = Exporter::with(&quick(&api, text)).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.get(&failed("forbidden")), Some(0.0));
    let scrape = exporter
        .until("all details are shown", |scrape| {
            scrape.of("api_key_requests_total").len() == ids.len()
        })
        .await;
    for id in ids {
        let used = scrape.get(&of("api_key_last_used_timestamp_seconds", id));
        assert_eq!(used, Some(1_751_361_330.0), "{id}");
        assert_eq!(scrape.get(&of("api_key_requests_total", id)), Some(1250.0));
    }
    let text = exporter.text().await;
    // The inventory matches by the label that only the page told.
    for name in ["A", "label of b", "E"] {
        assert!(text.contains(&format!(",name=\"{name}\",")), "{name}");
    }
    // Two more polls ask for nothing again.
    let polls = scrape.account("polls_total").unwrap();
    exporter
        .until("two more polls", |scrape| {
            scrape.account("polls_total").unwrap() >= polls + 2.0
        })
        .await;
    let asked: Vec<Request> = pages(&api);
    let lines: Vec<&str> = asked.iter().filter_map(Request::key_id).collect();
    assert_eq!(lines, ids);
    for pair in asked.windows(2) {
        let gap = pair[1].at - pair[0].at;
        // The pace is kept where the requests start; they arrive a little unevenly.
        assert!(gap >= Duration::from_millis(80), "{gap:?}");
    }
    exporter.stop().await;
}

#[tokio::test]
async fn a_refused_page_stops_the_reading_and_not_the_listing() {
    for (status, reason) in [(403, "forbidden"), (429, "rate_limited")] {
        let api = api(&["a", "b"], move |_| {
            Reply::error(status, "no", "support_1")
        })
        .await;
        let exporter = Exporter::with(&quick(&api, "")).await;
        let scrape = exporter
            .until("a failure that is counted", |scrape| {
                scrape.get(&failed(reason)) == Some(1.0)
                    && scrape.account("polls_total").unwrap() >= 3.0
            })
            .await;
        assert_eq!(scrape.account("up"), Some(1.0));
        assert_eq!(scrape.failures(reason), 0.0);
        assert_eq!(scrape.key_ids(), ["a", "b"]);
        assert_eq!(pages(&api).len(), 1, "{reason}");
    }
}

#[tokio::test]
async fn without_details_no_page_is_asked_for() {
    let api = api(&["a"], page).await;
    let url = format!("http://{}", api.address());
    let exporter = Exporter::with(&config(&url, "", "")).await;
    let scrape = exporter
        .until("five polls", |scrape| {
            scrape.account("polls_total").unwrap() >= 5.0
        })
        .await;
    assert_eq!(pages(&api).len(), 0);
    for family in [
        "api_key_account_details_failures_total",
        "api_key_last_used_timestamp_seconds",
        "api_key_requests_total",
    ] {
        assert!(scrape.of(family).is_empty(), "{family}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_any_page_is_ever_shown() {
    let api = api(&["a", "b", "c", "d", "e", "f"], |id| {
        let everywhere = json!({
            "id": id, "secret": FULL, "label": FULL, "description": FULL, FULL: FULL,
            "scopes": [FULL], "organization_id": FULL,
            "metrics": { "api_key_id": FULL, "total_requests": FULL, "last_used_at": FULL }
        });
        match id {
            "a" => page(id),
            "b" => Reply::page(&everywhere),
            "c" => Reply::page(&json!(FULL)),
            "d" => Reply::json(
                400,
                &json!({
                    "status": 400, "data": everywhere, "error": FULL, "support_id": FULL,
                    "log": { FULL: FULL }, "validator": FULL, "message": FULL
                }),
            ),
            "e" => Reply::body(200, "application/json", format!("{{\"data\": {FULL}")),
            _ => Reply::body(200, "text/html", FULL).header("X-Secret", FULL),
        }
    })
    .await;
    let folder = Folder::new("details");
    let path = config_file(&folder, &format!("http://{}", api.address()));
    let text = std::fs::read_to_string(&path).unwrap();
    let details = "details.enabled = true\ndetails.requests_per_minute = 600\n";
    folder.file("config.toml", &format!("{details}{text}"));
    let arguments = ["--config.file", &path, "--log.level", "trace"];
    let daemon = Daemon::start(binary(&arguments), &folder);
    while pages(&api).len() < 6 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    daemon.logs("reason=client_error").await;
    // What was read shows from the next poll on.
    let start = std::time::Instant::now();
    let metrics = loop {
        let metrics = daemon.get("/metrics").await;
        if metrics.contains("name=\"label of a\"") && metrics.contains("name=\"[redacted]\"") {
            break metrics;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for (what, text) in [("the metrics", metrics), ("the log", daemon.log())] {
        for part in ["RlVMTC1TRUNS", "qWeRt", "sk_live_", &TOKEN[8..20]] {
            assert!(!text.contains(part), "{what} shows {part:?}:\n{text}");
        }
    }
}
