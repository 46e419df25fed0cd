//! What a scrape shows: life of keys, several accounts, time that moves.

use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use serde_json::{Value, json};

use crate::support::{Api, Exporter, config, config_of, key, listing};

fn unix_now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

#[tokio::test]
async fn a_scrape_shows_what_the_api_lists() {
    let api = Api::start(listing(&["b", "a"])).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.key_ids(), ["a", "b"]);
    let series = |name: &str| scrape.get(&format!("{name}{{account=\"default\",key_id=\"a\"}}"));
    let expiry = 4_070_908_800.0;
    assert_eq!(series("api_key_expiry_timestamp_seconds"), Some(expiry));
    let left = series("api_key_expires_in_seconds").unwrap();
    assert!((left - (expiry - unix_now())).abs() < 30.0, "{left}");
    assert_eq!(series("api_key_never_expires"), Some(0.0));
    assert_eq!(series("api_key_scopes"), Some(1.0));
    assert_eq!(
        scrape.get("api_key_account_keys{account=\"default\",state=\"valid\"}"),
        Some(2.0)
    );
    assert!((scrape.account("last_success_timestamp_seconds").unwrap() - unix_now()).abs() < 30.0);
    assert!(scrape.account("next_poll_timestamp_seconds").unwrap() > unix_now() - 30.0);
    exporter.stop().await;
}

#[tokio::test]
async fn a_key_that_left_the_listing_leaves_no_series() {
    let api = Api::start(listing(&["a", "b"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    api.reply(listing(&["b", "c"]));
    let scrape = exporter
        .until("the new listing", |scrape| scrape.key_ids() == ["b", "c"])
        .await;
    assert!(
        scrape
            .of("")
            .iter()
            .all(|(series, _)| !series.contains("key_id=\"a\""))
    );
}

#[tokio::test]
async fn a_failed_poll_removes_nothing_and_a_good_one_recovers() {
    let api = Api::start(listing(&["a", "b"])).await;
    let exporter = Exporter::start(&api).await;
    let before = exporter.up().await;
    api.reply(Reply::error(500, "no", "support_1"));
    let during = exporter.fails("server_error").await;
    assert_eq!(during.key_ids(), before.key_ids());
    assert_eq!(during.account("up"), Some(0.0));
    assert!(during.account("consecutive_failures").unwrap() >= 1.0);
    api.reply(listing(&["a", "b"]));
    let after = exporter.up().await;
    assert_eq!(after.account("consecutive_failures"), Some(0.0));
    assert!(
        after.failures("server_error") >= 1.0,
        "counters do not go back"
    );
}

#[tokio::test]
async fn time_to_expiry_moves_between_polls() {
    let api = Api::start(listing(&["a"])).await;
    // The next poll is an hour away, so whatever moves was computed at the scrape.
    let mut config = config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_secs(20);
    let exporter = Exporter::with(&config).await;
    let series = "api_key_expires_in_seconds{account=\"default\",key_id=\"a\"}";
    let first = exporter.up().await;
    let start = Instant::now();
    let later = exporter
        .until("time passes", |scrape| {
            scrape.get(series) < first.get(series)
        })
        .await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(later.account("polls_total"), Some(1.0));
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test]
async fn a_key_expires_between_two_polls() {
    let soon = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let expires_at = soon.format("%Y-%m-%d %H:%M:%S%.3f").to_string();
    let api = Api::start(Reply::listing(&[
        json!({ "id": "a", "expires_at": expires_at }),
    ]))
    .await;
    let mut config = config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_secs(60);
    config.poll.timeout = Duration::from_secs(5);
    let exporter = Exporter::with(&config).await;
    let expired = "api_key_account_keys{account=\"default\",state=\"expired\"}";
    // The first poll comes within five seconds; the key may have expired by then.
    let scrape = exporter
        .until("the key expires", |scrape| scrape.get(expired) == Some(1.0))
        .await;
    assert_eq!(scrape.account("polls_total"), Some(1.0));
    assert!(
        scrape
            .get("api_key_expires_in_seconds{account=\"default\",key_id=\"a\"}")
            .unwrap()
            <= 0.0
    );
}

#[tokio::test]
async fn a_slow_account_and_a_broken_one_delay_nobody() {
    let good = Api::start(listing(&["a"])).await;
    let slow = Api::start(Reply {
        delay: Duration::from_secs(60),
        ..listing(&["b"])
    })
    .await;
    let broken = Api::start(Reply::body(200, "text/html", "<html>")).await;
    let accounts = [
        ("good", &*good.url(), ""),
        ("slow", &*slow.url(), ""),
        ("broken", &*broken.url(), ""),
    ];
    let exporter = Exporter::with(&config_of("poll.attempts = 1", &accounts)).await;
    let polls = "api_key_account_polls_total{account=\"good\"}";
    let scrape = exporter
        .until("five polls of the good account", |scrape| {
            scrape.get(polls).unwrap() >= 5.0
                && scrape.get("api_key_account_up{account=\"broken\"}") == Some(0.0)
                && scrape.get("api_key_account_up{account=\"slow\"}") == Some(0.0)
        })
        .await;
    assert_eq!(
        scrape.get("api_key_account_up{account=\"good\"}"),
        Some(1.0)
    );
    assert_eq!(scrape.key_ids(), ["a"]);
    assert_eq!(
        scrape
            .get("api_key_account_poll_failures_total{account=\"slow\",reason=\"timeout\"}")
            .map(|n| n > 0.0),
        Some(true)
    );
}

#[tokio::test]
async fn requests_are_what_the_api_documents() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let request = api.requests().remove(0);
    assert!(request.is_authorized);
    assert_eq!(request.line, "GET /developers/api_keys");
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(header("accept"), Some("application/json"));
    assert_eq!(header("accept-encoding"), Some("identity"));
    assert_eq!(
        header("user-agent"),
        Some(concat!("api-key-exporter/", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn a_rotated_token_is_seen_at_the_next_poll() {
    let folder = crate::support::Folder::new("rotate");
    let path = folder.file("token", "sk_live_the-old-token-of-this-test\n");
    let api = Api::start(listing(&["a"])).await;
    let mut config = config(&api.url(), "poll.attempts = 1", "");
    config.accounts[0].token = api_key_exporter::secret::TokenSource::File(path.clone());
    let exporter = Exporter::with(&config).await;
    exporter.fails("unauthorized").await;
    folder.file("token", "");
    exporter.fails("credential").await;
    folder.file("token", crate::support::TOKEN);
    exporter.up().await;
    std::fs::remove_file(path).unwrap();
    let scrape = exporter
        .until("the token is gone", |scrape| {
            scrape.account("up") == Some(0.0)
        })
        .await;
    assert_eq!(scrape.key_ids(), ["a"]);
}

#[tokio::test]
async fn the_own_key_and_the_environment_are_told() {
    let token = crate::support::TOKEN;
    let masked = format!("{}...{}", &token[..20], &token[token.len() - 5..]);
    let mut own = key("own");
    own["secret"] = json!(masked);
    let api = Api::start(Reply::listing(&[own, key("other")])).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    assert_eq!(
        scrape.of("api_key_own{"),
        [("api_key_own{account=\"default\",key_id=\"own\"}", 1.0)]
    );
    let info = "api_key_info{account=\"default\",key_id=\"own\",provider=\"bitgpt\",name=\"\",team=\"\",\
                api_env=\"development\",mode=\"live\",organization_id=\"\"}";
    assert_eq!(scrape.get(info), Some(1.0));
}

#[tokio::test]
async fn another_environment_than_expected_fails_the_poll() {
    let api = Api::start(listing(&["a"])).await;
    let expected = "expected_env = \"development\"";
    let exporter = Exporter::with(&config(&api.url(), "poll.attempts = 1", expected)).await;
    exporter.up().await;
    let mut body: Value = serde_json::from_slice(&listing(&["b"]).body).unwrap();
    body["env"] = json!("production");
    api.reply(Reply::json(200, &body));
    let scrape = exporter.fails("environment_mismatch").await;
    assert_eq!(scrape.account("up"), Some(0.0));
    assert_eq!(scrape.key_ids(), ["a"]);
}

#[tokio::test]
async fn a_field_that_becomes_odd_stays_as_it_was() {
    let good = |id: &str| json!({ "id": id, "expires_at": "2097-01-01 00:00:00", "scopes": ["a.read", "b.read"] });
    let odd = |id: &str| json!({ "id": id, "expires_at": "2098-01-01 00:00:00", "scopes": [{ "name": "a" }] });
    let api = Api::start(Reply::listing(&[good("a"), good("b")])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    // Every key of the listing, and one that was never listed before. The expiry is readable.
    api.reply(Reply::listing(&[odd("a"), odd("b"), odd("new")]));
    let rejected = "api_key_account_keys_rejected{account=\"default\",reason=\"shape\"}";
    let scrape = exporter
        .until("three rejects", |scrape| scrape.get(rejected) == Some(3.0))
        .await;
    assert_eq!(scrape.key_ids(), ["a", "b", "new"]);
    for (id, scopes) in [("a", Some(2.0)), ("b", Some(2.0)), ("new", None)] {
        let labels = format!("{{account=\"default\",key_id=\"{id}\"}}");
        let of = |family: &str| scrape.get(&format!("{family}{labels}"));
        assert_eq!(
            of("api_key_expiry_timestamp_seconds"),
            Some(4_039_372_800.0)
        );
        assert_eq!(of("api_key_expiry_unknown"), Some(0.0));
        assert_eq!(of("api_key_scopes"), scopes, "{id}");
    }
    assert_eq!(scrape.account("up"), Some(1.0));
    assert_eq!(scrape.account("shrink_held"), Some(0.0));
    for (change, count) in [
        ("added", 1.0),
        ("removed", 0.0),
        ("expiry", 2.0),
        ("scopes", 0.0),
    ] {
        let changes =
            format!("api_key_account_changes_total{{account=\"default\",change=\"{change}\"}}");
        assert_eq!(scrape.get(&changes), Some(count), "{change}");
    }
    // What is gone from the listing is gone.
    api.reply(Reply::listing(&[odd("a"), good("c"), good("new")]));
    exporter
        .until("b is gone", |scrape| scrape.key_ids() == ["a", "c", "new"])
        .await;
}
