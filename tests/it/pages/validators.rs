//! Independent judges of the documents: `openapi-core` and `icalendar` of Python.

use std::io::Write as _;
use std::process::Stdio;

use api_key_exporter::fake_api::Reply;
use api_key_exporter::pages::Page;
use serde_json::{Value, json};

use super::documents::{hostile, render};
use super::{exporter_of, lively_exporter};
use crate::support::{Api, Exporter, in_repository};
use crate::tools::{demand, python};

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_openapi_document_says() {
    let (_api, exporter) = lively_exporter().await;
    let paths = [
        "/api/v1/keys",
        "/api/v1/keys?limit=2&offset=1",
        "/api/v1/keys?state=critical&team=payments&account=default&q=check",
        "/api/v1/keys?state=attention",
        "/api/v1/keys?limit=0",
        "/api/v1/keys?nothing=1",
        "/api/v1/accounts",
        "/api/v1/accounts?limit=x",
        "/api/v1/openapi.json",
        "/calendar.ics",
        "/calendar.ics?state=x",
    ];
    let judge = |exporter: &Exporter| {
        let mut command = python("python");
        command.arg(in_repository("tests/it/pages/check_openapi.py"));
        command.arg(format!("http://{}", exporter.address));
        demand(command.args(paths))
    };
    let words = judge(&exporter);
    assert_eq!(words.lines().count(), paths.len(), "{words}");
    assert_eq!(words.matches("400 ").count(), 4, "{words}");
    // The same while the API fails, after it worked.
    let (api, exporter) = lively_exporter().await;
    api.reply(Reply::error(500, "no", "support_1"));
    exporter.fails("server_error").await;
    judge(&exporter);
    // An account that was never listed.
    let api = Api::start(Reply::error(401, "no", "support_1")).await;
    let exporter = Exporter::start(&api).await;
    exporter.fails("unauthorized").await;
    let (_, body) = exporter.get("/api/v1/keys").await;
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["keys"],
        json!([])
    );
}

fn events(calendar: &str) -> Vec<Value> {
    let mut command = python("python");
    command.arg(in_repository("tests/it/pages/read_calendar.py"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("tests/run installs Python");
    let mut input = child.stdin.take().unwrap();
    input.write_all(calendar.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{calendar}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_calendar_has_an_event_with_alarms_for_each_expiry() {
    let (_api, exporter) = lively_exporter().await;
    let (_, calendar) = exporter.get("/calendar.ics").await;
    let events = events(&calendar);
    let uids: Vec<&str> = events
        .iter()
        .map(|event| event["uid"].as_str().unwrap())
        .collect();
    let ids = ["k_critical", "k_expiring", "k_expired", "k_valid"];
    assert_eq!(uids, ids.map(|id| format!("default/{id}@api-key-exporter")));
    let [critical, _, muted, _] = &*events else {
        panic!("{events:?}");
    };
    assert_eq!(critical["summary"], "API key Checkout expires (payments)");
    assert_eq!(critical["url"], "https://wiki.example.com/rotate");
    // The usual thresholds: 30 and 7 days.
    assert_eq!(critical["alarms"], json!([-2_592_000.0, -604_800.0]));
    assert_eq!(muted["summary"], "[muted] API key nightly expires (data)");
    assert!(
        muted["description"]
            .as_str()
            .unwrap()
            .contains("Reason: goes away")
    );
    assert_eq!(muted["alarms"], json!([]));
}

#[tokio::test]
async fn an_event_keeps_its_uid_and_its_sequence_grows_with_each_change() {
    let key = |expires_at: &str, updated_at: Value| {
        json!({ "id": "k", "label": "a", "scopes": [], "ip_allow_list": [],
            "expires_at": expires_at, "created_at": "2025-01-01 00:00:00", "updated_at": updated_at })
    };
    let mut before: Option<Value> = None;
    for key in [
        key("2090-01-01 00:00:00", Value::Null),
        // Postponed, without and with a time of the change; then earlier, and earlier again.
        key("2091-01-01 00:00:00", Value::Null),
        key("2088-01-01 00:00:00", Value::Null),
        key("2092-01-01 00:00:00", json!("2026-01-01 00:00:00")),
        key("2089-01-01 00:00:00", json!("2026-01-01 00:00:01")),
        key("2088-01-01 00:00:00", json!("2026-05-01 00:00:00")),
    ] {
        let (_api, exporter) = exporter_of(&[key], "").await;
        let (_, calendar) = exporter.get("/calendar.ics").await;
        let event = events(&calendar).remove(0);
        let has_time = event["sequence"].as_i64() >= Some(1 << 30);
        if has_time {
            // The same again where nothing changed.
            let (_, again) = exporter.get("/calendar.ics").await;
            assert_eq!(events(&again)[0]["sequence"], event["sequence"]);
        }
        if let Some(before) = before {
            assert_eq!(before["uid"], event["uid"]);
            assert_ne!(before["start"], event["start"]);
            let sequence = |event: &Value| event["sequence"].as_i64().unwrap();
            // Without a time of the change it has whole seconds, and these are milliseconds apart.
            let least = sequence(&before) + i64::from(has_time);
            assert!(least <= sequence(&event), "{before} {event}");
        }
        before = Some(event);
    }
}

#[tokio::test]
async fn superseded_keys_are_marked_in_the_calendar() {
    let key = |id: &str, created_at: &str, expires_at: &str| {
        json!({ "id": id, "label": "shop", "scopes": [], "ip_allow_list": [],
            "expires_at": expires_at, "created_at": created_at })
    };
    let keys = [
        key("old", "2025-01-01 00:00:00", "2090-01-01 00:00:00"),
        key("new", "2025-02-01 00:00:00", "2091-01-01 00:00:00"),
    ];
    let (_api, exporter) = exporter_of(&keys, "").await;
    let (_, calendar) = exporter.get("/calendar.ics").await;
    let events = events(&calendar);
    assert_eq!(events[0]["summary"], "[superseded] API key shop expires");
    assert_eq!(events[0]["alarms"], json!([]));
    assert_eq!(events[1]["summary"], "API key shop expires");
}

#[test]
fn a_calendar_of_hostile_values_is_read_as_it_was_meant() {
    let events = events(&render(Page::Calendar, hostile(), ""));
    assert_eq!(events.len(), 2);
    for event in &events {
        let summary = event["summary"].as_str().unwrap();
        assert!(
            summary.contains("<script>alert(1)</script>\"'&<!--{{7*7}}\\,;:=END:VEVENT鍵"),
            "{summary}"
        );
    }
}
