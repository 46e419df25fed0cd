//! What people and their programs read: the status page, JSON and the calendar.

mod browser;
mod documents;
mod unknowns;
mod validators;

pub(crate) use documents::hostile;

use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Api, Exporter, client, config};

/// One key of each kind: expired, in each threshold, far away, endless, unreadable.
pub(crate) fn lively(now: chrono::DateTime<chrono::Utc>) -> Vec<Value> {
    let end = |days: i64| {
        let end = now + chrono::TimeDelta::days(days);
        end.format("%Y-%m-%d %H:%M:%S").to_string()
    };
    let key = |id: &str, label: &str, expires_at: Value| {
        json!({ "id": id, "label": label, "scopes": ["a.read", "b.write"],
            "ip_allow_list": ["10.0.0.0/8", "::1", "odd"], "expires_at": expires_at,
            "created_at": "2020-01-01 00:00:00" })
    };
    vec![
        key("k_expired", "nightly", json!(end(-3))),
        key("k_critical", "checkout", json!(end(2))),
        key("k_expiring", "invoices", json!(end(20))),
        key("k_valid", "reports", json!(end(200))),
        key("k_never", "cron", Value::Null),
        key("k_unknown", "odd", json!("0000-00-00 00:00:00")),
    ]
}

async fn exporter_of(keys: &[Value], lines: &str) -> (Api, Exporter) {
    let api = Api::start(Reply::listing(keys)).await;
    let exporter = Exporter::with(&config(&api.url(), lines, "")).await;
    exporter.up().await;
    (api, exporter)
}

/// An exporter of [`lively`] keys, some of which the inventory knows.
pub(crate) async fn lively_exporter() -> (Api, Exporter) {
    let inventory = "[[keys]]\nmatch = \"checkout\"\nname = \"Checkout\"\nteam = \"payments\"\n\
         rotate_url = \"https://wiki.example.com/rotate\"\n\
         [[keys]]\nmatch = \"nightly\"\nteam = \"data\"\nmuted_until = 2099-01-01\n\
         reason = \"goes away\"\n";
    exporter_of(&lively(chrono::Utc::now()), inventory).await
}

async fn json_of(exporter: &Exporter, path: &str) -> Value {
    let (status, body) = exporter.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn ids(document: &Value) -> Vec<&str> {
    let keys = document["keys"].as_array().unwrap();
    keys.iter()
        .map(|key| key["key_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn keys_come_most_urgent_first_and_filters_and_pages_choose_among_them() {
    let (_api, exporter) = lively_exporter().await;
    // The muted one needs no attention.
    let all = [
        "k_critical",
        "k_expiring",
        "k_unknown",
        "k_expired",
        "k_valid",
        "k_never",
    ];
    for (query, expected) in [
        ("", &all[..]),
        ("?state=expired", &["k_expired"]),
        ("?state=expiring", &["k_critical", "k_expiring"]),
        ("?state=critical", &["k_critical"]),
        ("?state=attention", &["k_critical", "k_unknown"]),
        ("?state=never_expires", &["k_never"]),
        ("?team=payments", &["k_critical"]),
        ("?team=nobody", &[]),
        ("?account=default&q=CHECK", &["k_critical"]),
        ("?q=b.WRI", &all),
        ("?account=other", &[]),
        ("?limit=2&offset=1", &all[1..3]),
        ("?offset=5", &all[5..]),
        ("?offset=4000000000", &[]),
    ] {
        let document = json_of(&exporter, &format!("/api/v1/keys{query}")).await;
        assert_eq!(ids(&document), expected, "{query}");
        let (_, page) = exporter.get(&format!("/{query}")).await;
        if !query.contains("offset") {
            for id in all {
                let is_row = page.contains(&format!("<code>{id}</code>"));
                assert_eq!(is_row, expected.contains(&id), "{query}: {id}");
            }
            let (_, calendar) = exporter.get(&format!("/calendar.ics{query}")).await;
            for id in &all[..5] {
                let is_event = calendar.contains(&format!("UID:default/{id}@"));
                let is_expected = expected.contains(id) && *id != "k_unknown";
                assert_eq!(is_event, is_expected, "{query}: {id}");
            }
        }
    }
    let document = json_of(&exporter, "/api/v1/keys?limit=2&offset=2&state=").await;
    assert_eq!(
        (&document["total"], &document["next_offset"]),
        (&json!(6), &json!(4))
    );
    let last = json_of(&exporter, "/api/v1/keys?limit=2&offset=4").await;
    assert_eq!(last["next_offset"], Value::Null);
    let accounts = json_of(&exporter, "/api/v1/accounts").await;
    assert_eq!(accounts["accounts"][0]["keys"]["expiring"], json!(2));
    assert_eq!(accounts["accounts"][0]["keys_total"], json!(6));
}

#[tokio::test]
async fn bad_parameters_are_answered_with_400_and_what_is_wrong() {
    let (_api, exporter) = lively_exporter().await;
    for (path, words) in [
        ("/api/v1/keys?stat=expired", "unknown parameter \"stat\""),
        (
            "/api/v1/keys?limit=0",
            "\"limit\" must be a whole number from 1 to 10000",
        ),
        ("/api/v1/keys?limit=ten", "\"limit\" must be"),
        ("/api/v1/keys?offset=-1", "\"offset\" must be"),
        (
            "/api/v1/keys?state=gone",
            "\"state\" must be one of valid, expiring",
        ),
        ("/api/v1/keys?q=a&q=b", "\"q\" is given more than once"),
        (
            "/api/v1/accounts?state=expired",
            "unknown parameter \"state\"; known: limit, offset",
        ),
        ("/api/v1/keys?%22%3C%0a=1", "unknown parameter"),
    ] {
        let (status, body) = exporter.get(path).await;
        assert_eq!(status, 400, "{path}");
        let error: Value = serde_json::from_str(&body).unwrap();
        assert!(
            error["error"].as_str().unwrap().contains(words),
            "{path}: {body}"
        );
    }
    for path in [
        "/?limit=501",
        "/?state=x",
        "/?refresh=1",
        "/calendar.ics?limit=1",
    ] {
        assert_eq!(exporter.get(path).await.0, 400, "{path}");
    }
    let long = "a".repeat(5000);
    for path in ["/", "/api/v1/keys", "/api/v1/accounts", "/calendar.ics"] {
        assert_eq!(
            exporter.get(&format!("{path}?q={long}")).await.0,
            400,
            "{path}"
        );
    }
    // A page that links to it from elsewhere may add a parameter of its own.
    for path in ["/?utm_source=chat", "/api/v1/openapi.json?x=1"] {
        assert_eq!(exporter.get(path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn pages_are_counted_read_only_and_never_make_the_exporter_call_out() {
    let api = Api::start(Reply::listing(&lively(chrono::Utc::now()))).await;
    let mut config = config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_secs(3600);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    let before = api.requests().len();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/api/v1/keys", "application/json"),
        ("/api/v1/accounts", "application/json"),
        ("/api/v1/openapi.json", "application/json"),
        ("/calendar.ics", "text/calendar; charset=utf-8"),
    ] {
        let url = format!("http://{}{path}?x=http://127.0.0.1:1/", exporter.address);
        client().get(&url).send().await.unwrap();
        let url = format!("http://{}{path}", exporter.address);
        let answer = |method: Method| client().request(method, &url).send();
        let got = answer(Method::GET).await.unwrap();
        assert_eq!(got.status(), 200, "{path}");
        assert_eq!(got.headers()["content-type"], content_type, "{path}");
        assert_eq!(got.headers()["cache-control"], "no-store", "{path}");
        assert_eq!(got.headers()["x-content-type-options"], "nosniff", "{path}");
        let head = answer(Method::HEAD).await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let refused = answer(method).await.unwrap();
            assert_eq!(refused.status(), 405, "{path}");
            assert_eq!(refused.headers()["allow"], "GET, HEAD", "{path}");
        }
        let scrape = exporter.scrape().await;
        let counted = |code: u16| {
            scrape.get(&format!(
                "api_key_exporter_http_requests_total{{code=\"{code}\",handler=\"{path}\"}}"
            ))
        };
        assert!(
            counted(200) >= Some(2.0) && counted(405) == Some(3.0),
            "{path}"
        );
    }
    assert_eq!(api.requests().len(), before);
}

#[tokio::test]
async fn the_page_reloads_itself_until_it_is_asked_not_to() {
    let (_api, exporter) = lively_exporter().await;
    let refresh = async |query: &str| {
        let url = format!("http://{}/{query}", exporter.address);
        let response = client().get(url).send().await.unwrap();
        let header = response.headers().get("refresh");
        header.map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(refresh("").await.as_deref(), Some("60"));
    assert_eq!(refresh("?refresh=15&team=a").await.as_deref(), Some("15"));
    assert_eq!(refresh("?refresh=0").await, None);
    let (_, page) = exporter.get("/?team=payments").await;
    assert!(
        page.contains("href=\"?team=payments&#38;refresh=0\""),
        "{page}"
    );
}

/// Regression: an account in trouble was known by a metric alone.
#[tokio::test]
async fn a_failing_account_shows_what_the_api_said() {
    let api = Api::start(Reply::error(503, "Down for <b>maintenance", "support_42")).await;
    let exporter = Exporter::start(&api).await;
    exporter.fails("server_error").await;
    let (_, page) = exporter.get("/").await;
    for words in [
        "1 account failing",
        "server_error",
        "HTTP 503",
        "support_42",
    ] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(page.contains("Down for &#60;b&#62;maintenance"), "{page}");
    let document = json_of(&exporter, "/api/v1/accounts").await;
    let account = &document["accounts"][0];
    assert_eq!(account["up"], json!(false));
    assert_eq!(account["last_success_at"], Value::Null);
    let failure = &account["last_failure"];
    assert_eq!(failure["reason"], "server_error");
    assert_eq!(failure["http_status"], 503);
    assert_eq!(failure["error"], "Down for <b>maintenance");
    assert_eq!(failure["support_id"], "support_42");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_keys_are_paged_and_streamed() {
    let keys: Vec<Value> = (0..10_000)
        .map(|number| {
            json!({ "id": format!("k_{number:05}"), "label": format!("service {number}"),
                "scopes": ["a.read"], "ip_allow_list": ["10.0.0.1"],
                "expires_at": format!("20{:02}-01-01 00:00:00", 27 + number % 70) })
        })
        .collect();
    let (_api, exporter) = exporter_of(&keys, "").await;
    let url = format!("http://{}/api/v1/keys?limit=10000", exporter.address);
    let response = client().get(url).send().await.unwrap();
    // Its length is not known before its end: it is written while it is sent.
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    let document: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let mut all: Vec<String> = ids(&document).iter().map(|id| (*id).to_owned()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 10_000);
    // Pages put together are the whole.
    let mut paged = Vec::new();
    let mut offset = json!(0);
    while !offset.is_null() {
        let path = format!("/api/v1/keys?limit=3000&offset={offset}");
        let page = json_of(&exporter, &path).await;
        paged.extend(ids(&page).into_iter().map(ToOwned::to_owned));
        offset = page["next_offset"].clone();
    }
    assert_eq!(paged, ids(&document));
    let (_, page) = exporter.get("/").await;
    assert!(page.contains("1 to 100 of 10000 keys"), "{}", page.len());
    assert!(page.contains("href=\"?offset=9900#keys\""));
    assert!(page.len() < 300_000, "{}", page.len());
    let (_, calendar) = exporter.get("/calendar.ics").await;
    assert_eq!(calendar.matches("BEGIN:VEVENT").count(), 10_000);
}
