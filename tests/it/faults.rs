//! What goes wrong around the exporter, and what must then be seen.
//!
//! "Keeps" means: the keys stay as after the last successful poll, `up` is 0, the failure is counted
//! under its reason, and the exporter goes on.

mod facts;
mod files;
pub(crate) mod limits;
mod netns;
mod network;
mod paths;
mod process;
mod reload;
mod server;
mod state;
mod storms;
mod supervision;
mod time;
mod upstream;
mod variations;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{Framing, Reply};
use serde_json::json;

use crate::support::{Api, Exporter, Scrape, any_port, config, key, listing};

/// Polls once well, then meets `fault`: the keys must stay and the failure must be of `reason`.
pub(crate) async fn keeps(reason: &str, fault: Reply) -> (Api, Exporter, Scrape) {
    let api = Api::start(listing(&["a", "b"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    api.reply(fault);
    let scrape = exporter.fails(reason).await;
    assert_kept(&scrape);
    (api, exporter, scrape)
}

pub(crate) fn assert_kept(scrape: &Scrape) {
    assert_eq!(scrape.key_ids(), ["a", "b"]);
    assert_eq!(scrape.account("up"), Some(0.0));
}

fn good_body() -> Vec<u8> {
    listing(&["a", "b", "c"]).body
}

#[tokio::test]
async fn connection_refused() {
    let api = Api::start(listing(&["a", "b"])).await;
    let address = api.address();
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    drop(api);
    let scrape = exporter.fails("connect").await;
    assert_kept(&scrape);
    // It is tried again on schedule, and comes back by itself.
    let _api = Api::start_at(address, listing(&["a", "b"])).await;
    exporter.up().await;
}

#[tokio::test]
async fn accepts_and_never_answers() {
    let (_api, exporter, _) = keeps(
        "timeout",
        Reply {
            delay: Duration::from_secs(3600),
            ..listing(&[])
        },
    )
    .await;
    let before = exporter.scrape().await.get("process_open_fds").unwrap();
    let polls = exporter.scrape().await.account("polls_total").unwrap();
    let after = exporter
        .until("ten more polls", |scrape| {
            scrape.account("polls_total").unwrap() > polls + 10.0
        })
        .await;
    // Other tests of this process open files too, some dozens; a leak would be one a poll and test.
    assert!(after.get("process_open_fds").unwrap() < before + 200.0);
}

#[tokio::test]
async fn body_drips() {
    keeps(
        "timeout",
        Reply {
            body_drip: Duration::from_millis(50),
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn head_drips() {
    keeps(
        "timeout",
        Reply {
            head_drip: Duration::from_millis(50),
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn body_shorter_than_its_length() {
    keeps(
        "body_truncated",
        Reply {
            framing: Framing::FalseLength(1_000_000),
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn chunked_body_cut() {
    keeps(
        "body_truncated",
        Reply {
            framing: Framing::Chunked,
            cut_after: Some(50),
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn close_delimited_body_cut() {
    keeps(
        "body_truncated",
        Reply {
            framing: Framing::Close,
            cut_after: Some(50),
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn a_whole_body_without_a_length_is_a_listing() {
    for framing in [Framing::Chunked, Framing::Close] {
        let api = Api::start(Reply {
            framing,
            ..listing(&["a"])
        })
        .await;
        let exporter = Exporter::start(&api).await;
        assert_eq!(exporter.up().await.key_ids(), ["a"]);
    }
}

#[tokio::test]
async fn gzip_bomb() {
    // Nothing is ever inflated, so any bytes will do for a bomb.
    keeps(
        "not_json",
        listing(&["c"]).header("Content-Encoding", "gzip"),
    )
    .await;
}

#[tokio::test]
async fn endless_body() {
    let endless = Reply {
        framing: Framing::Close,
        is_endless: true,
        ..Reply::body(200, "application/json", vec![b' '; 65_536])
    };
    let api = Api::start(listing(&["a", "b"])).await;
    let mut config = config(
        &api.url(),
        "poll.attempts = 1\npoll.max_body_bytes = 200000",
        "",
    );
    config.accounts[0].interval = Duration::from_secs(2);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    api.reply(endless);
    assert_kept(&exporter.fails("body_too_large").await);
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_not_read() {
    let fault = Reply {
        framing: Framing::FalseLength(1 << 40),
        ..listing(&["c"])
    };
    keeps("body_too_large", fault).await;
}

#[tokio::test]
async fn redirect() {
    let other = Api::start(listing(&["c"])).await;
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/developers/api_keys", other.url());
        keeps(
            "redirect",
            Reply::body(status, "text/plain", "").header("Location", &target),
        )
        .await;
    }
    assert_eq!(other.requests().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn envelope_error_with_success_status() {
    let fault = json!({ "status": 200, "data": [], "error": "no", "support_id": "support_1" });
    keeps("api_error", Reply::json(200, &fault)).await;
}

#[tokio::test]
async fn statuses_disagree() {
    keeps(
        "api_error",
        Reply::json(200, &json!({ "status": 500, "data": [], "error": null })),
    )
    .await;
    keeps(
        "server_error",
        Reply::json(500, &json!({ "status": 200, "data": [], "error": null })),
    )
    .await;
}

#[tokio::test]
async fn data_missing_or_null() {
    keeps(
        "schema",
        Reply::json(200, &json!({ "status": 200, "data": null, "error": null })),
    )
    .await;
    keeps(
        "schema",
        Reply::json(200, &json!({ "status": 200, "error": null })),
    )
    .await;
}

#[tokio::test]
async fn a_listing_without_keys_is_believed_when_it_is_confirmed() {
    let api = Api::start(listing(&["a", "b"])).await;
    let mut config = config(
        &api.url(),
        "poll.attempts = 1\npoll.shrink_confirmations = 5",
        "",
    );
    config.accounts[0].interval = Duration::from_millis(500);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    api.reply(listing(&[]));
    let held = exporter
        .until("the listing is held back", |scrape| {
            scrape.account("shrink_held") == Some(1.0)
        })
        .await;
    assert_eq!(held.key_ids(), ["a", "b"]);
    assert_eq!(held.account("up"), Some(1.0));
    let believed = exporter
        .until("the listing is believed", |scrape| {
            scrape.account("shrink_held") == Some(0.0)
        })
        .await;
    assert_eq!(believed.key_ids().len(), 0);
    let removed = "api_key_account_changes_total{account=\"default\",change=\"removed\"}";
    assert_eq!(believed.get(removed), Some(2.0));
    for state in ["valid", "expiring", "expired", "never_expires", "unknown"] {
        let keys = format!("api_key_account_keys{{account=\"default\",state=\"{state}\"}}");
        assert_eq!(believed.get(&keys), Some(0.0), "{state}");
    }
}

#[tokio::test]
async fn html_page() {
    let page = "<html><body>Bad gateway</body></html>";
    keeps("not_json", Reply::body(200, "text/html", page)).await;
    keeps(
        "not_json",
        Reply::body(200, "text/html; charset=utf-8", good_body()),
    )
    .await;
    keeps("server_error", Reply::body(502, "text/html", page)).await;
    keeps("server_error", Reply::body(504, "text/html", page)).await;
}

#[tokio::test]
async fn refused_credential() {
    for (status, reason) in [(401, "unauthorized"), (403, "forbidden")] {
        let (api, exporter, _) = keeps(reason, Reply::error(status, "no", "support_1")).await;
        api.reply(listing(&["a"]));
        exporter.up().await;
    }
}

#[tokio::test]
async fn a_4xx_from_in_front_of_the_api_is_no_refusal_by_it() {
    let page = "<html><title>Just a moment...</title></html>";
    for fault in [
        Reply::body(403, "text/html; charset=utf-8", page),
        Reply::body(401, "text/plain", ""),
        Reply::body(403, "application/json", "{\"success\":false,\"errors\":[]}"),
        Reply::json(404, &json!({ "message": "no Route matched" })),
        Reply::json(401, &json!({ "status": 401, "title": "Error 1020" })),
    ] {
        let (api, exporter, _) = keeps("gateway", fault).await;
        api.reply(listing(&["a"]));
        exporter.up().await;
    }
    keeps("rate_limited", Reply::body(429, "text/html", page)).await;
    keeps("server_error", Reply::body(530, "text/html", page)).await;
}

#[tokio::test]
async fn one_page_of_several_is_not_taken_for_the_listing() {
    let first_page = || Reply::listing(&[key("a")]);
    keeps(
        "incomplete",
        first_page().header("Link", "</k?page=2>; rel=\"next\""),
    )
    .await;
    keeps("incomplete", first_page().header("X-Total-Count", "2")).await;
    let body = json!({ "status": 200, "data": [key("a")], "pagination": { "next_page": 2 } });
    keeps("incomplete", Reply::json(200, &body)).await;
}

#[tokio::test]
async fn retry_after_is_obeyed_across_polls() {
    let fault = Reply::error(429, "slow down", "support_1").header("Retry-After", "3");
    let (api, exporter, _) = keeps("rate_limited", fault).await;
    let asked = api.requests().len();
    let told_at = Instant::now();
    api.reply(listing(&["a"]));
    exporter.up().await;
    let waited = told_at.elapsed();
    // Fifteen polls would have come in that time. The answer was on its way for a moment before it
    // was seen.
    assert!(waited > Duration::from_millis(2_500), "{waited:?}");
    assert!(api.requests().len() <= asked + 2);
}

#[tokio::test]
async fn absurd_retry_after() {
    for value in ["-1", "1e9", "abc", "Thu, 01 Jan 1970 00:00:00 GMT", ""] {
        let fault = Reply::error(503, "down", "support_1").header("Retry-After", value);
        let (api, exporter, _) = keeps("server_error", fault).await;
        api.reply(listing(&["a"]));
        exporter.up().await;
    }
    for value in [
        "99999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "1000000000",
    ] {
        let fault = Reply::error(503, "down", "support_1").header("Retry-After", value);
        let (_api, exporter, scrape) = keeps("server_error", fault).await;
        let wait = scrape.account("next_poll_timestamp_seconds").unwrap()
            - scrape.account("last_attempt_timestamp_seconds").unwrap();
        assert!((3_590.0..3_610.0).contains(&wait), "{value}: {wait}");
        exporter.stop().await;
    }
}

#[tokio::test]
async fn duplicate_ids() {
    let later = json!({ "id": "a", "expires_at": "2098-01-01 00:00:00" });
    let earlier = json!({ "id": "a", "expires_at": "2097-01-01 00:00:00" });
    let api = Api::start(Reply::listing(&[later.clone(), earlier, later])).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.key_ids(), ["a"]);
    assert_eq!(
        scrape.get("api_key_expiry_timestamp_seconds{account=\"default\",key_id=\"a\"}"),
        Some(4_007_836_800.0)
    );
    assert_eq!(
        scrape.get("api_key_account_keys_rejected{account=\"default\",reason=\"duplicate\"}"),
        Some(2.0)
    );
}

#[tokio::test]
async fn odd_ids() {
    let odd = [
        json!(null),
        json!(""),
        json!(7),
        json!("a\0"),
        json!("a\u{1b}"),
        json!("a\nb"),
        json!("a\"b"),
        json!("a\\b"),
        json!("a\u{202e}"),
        json!("x".repeat(1_000_000)),
    ];
    let keys: Vec<_> = odd
        .iter()
        .map(|id| json!({ "id": id }))
        .chain([json!({}), key("good")])
        .collect();
    let api = Api::start(Reply::listing(&keys)).await;
    let mut config = config(&api.url(), "poll.attempts = 1", "");
    config.accounts[0].interval = Duration::from_secs(2);
    let exporter = Exporter::with(&config).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.key_ids(), ["good"]);
    assert_eq!(
        scrape.get("api_key_account_keys_rejected{account=\"default\",reason=\"id\"}"),
        Some(11.0)
    );
}

#[tokio::test]
async fn two_million_keys() {
    let api = Api::start(listing(&["a", "b"])).await;
    let mut config = config(&api.url(), "poll.attempts = 1", "");
    config.accounts[0].interval = Duration::from_secs(2);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    let many = format!(
        "{{\"status\":200,\"error\":null,\"data\":[{}{{}}]}}",
        "{},".repeat(2_000_000)
    );
    api.reply(Reply::body(200, "application/json", many));
    assert_kept(&exporter.fails("too_many_keys").await);
    let huge = format!(
        "{{\"status\":200,\"error\":null,\"data\":[{}{{}}]}}",
        "{\"id\":\"x\"},".repeat(2_000_000)
    );
    api.reply(Reply::body(200, "application/json", huge));
    assert_kept(&exporter.fails("body_too_large").await);
}

#[tokio::test]
async fn paths_and_methods() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    for path in [
        "/metrics/",
        "//metrics",
        "/nothing",
        "/debug/pprof",
        "/config",
        "/-/config",
        "/env",
        "/metrics/..",
    ] {
        let (status, body) = raw(
            exporter.address,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert_eq!((status, body.as_str()), (404, "Not Found\n"), "{path}");
    }
    let (status, _) = exporter.get("/metrics?target=http://127.0.0.1").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn ready_during_an_outage() {
    let api = Api::start(Reply::error(500, "no", "support_1")).await;
    let exporter = Exporter::start(&api).await;
    exporter.fails("server_error").await;
    assert_eq!(exporter.get("/-/ready").await.0, 200);
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
}

#[tokio::test]
async fn nobody_listens_where_the_api_should_be() {
    // A port that was free a moment ago.
    let address = tokio::net::TcpListener::bind(any_port())
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let exporter = Exporter::with(&config(
        &format!("http://{address}"),
        "poll.attempts = 1",
        "",
    ))
    .await;
    let scrape = exporter.fails("connect").await;
    assert_eq!(
        (
            scrape.account("up"),
            scrape.account("last_success_timestamp_seconds")
        ),
        (Some(0.0), None)
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let exporter = Exporter::with(&config("https://api.invalid", "poll.attempts = 1", "")).await;
    exporter.fails("dns").await;
}

/// Sends bytes and reads the answer to its end: status and body.
async fn raw(address: SocketAddr, request: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}
