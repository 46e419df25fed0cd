//! What is reported about keys: odd entries, keys that vanish, listings of others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api_key_exporter::config::Config;
use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use api_key_exporter::secret::TokenSource;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use super::state::{saved, stopped};
use crate::support::{Api, Exporter, Folder, Scrape, TOKEN, any_port, config, key, listing};

fn saving_in(folder: &Folder, base_url: &str, lines: &str) -> Config {
    let directory = folder.0.join("state").display().to_string();
    let lines = format!("{lines}\nstate.directory = {directory:?}");
    config(base_url, &lines, "")
}

fn of_key(scrape: &Scrape, family: &str, id: &str) -> Option<f64> {
    scrape.get(&format!("{family}{{account=\"default\",key_id=\"{id}\"}}"))
}

fn keys(scrape: &Scrape, state: &str) -> f64 {
    let series = format!("api_key_account_keys{{account=\"default\",state=\"{state}\"}}");
    scrape.get(&series).unwrap()
}

fn changes(scrape: &Scrape, change: &str) -> f64 {
    let series =
        format!("api_key_account_changes_total{{account=\"default\",change=\"{change}\"}}");
    scrape.get(&series).unwrap()
}

fn ending_at(id: &str, end: DateTime<Utc>) -> Value {
    let mut key = key(id);
    key["expires_at"] = json!(end.to_rfc3339_opts(SecondsFormat::Millis, true));
    key
}

/// An API that hides expired keys. The second one hides all others too once it is told to.
async fn hiding(end: DateTime<Utc>, hides_before: Arc<AtomicBool>) -> FakeApi {
    let script = move |_: &Request| {
        let mut keys = vec![key("long")];
        if Utc::now() < end && !hides_before.load(Ordering::SeqCst) {
            keys.push(ending_at("short", end));
        }
        Reply::listing(&keys)
    };
    FakeApi::start(any_port(), TOKEN, script).await.unwrap()
}

/// An API where another one was a moment ago.
async fn again_at(address: SocketAddr, token: &str, ids: &'static [&str]) -> FakeApi {
    for _ in 0..200 {
        match FakeApi::start(address, token, |_: &Request| listing(ids)).await {
            Ok(api) => return api,
            Err(_in_use) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("{address} stays in use");
}

#[tokio::test]
async fn a_listing_of_which_no_entry_can_be_used_fails() {
    let odd = Reply::listing(&[json!(7), json!({ "name": "a" }), json!({ "id": 1 })]);
    let (_api, _exporter, scrape) = super::keeps("schema", odd.clone()).await;
    let failing = "api_key_account_failing{account=\"default\",reason=\"schema\"}";
    assert_eq!(scrape.get(failing), Some(1.0));
    // At the first poll too.
    let api = Api::start(odd).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.fails("schema").await;
    assert_eq!(scrape.account("last_success_timestamp_seconds"), None);
    api.reply(listing(&["a"]));
    let scrape = exporter.up().await;
    assert_eq!(scrape.of("api_key_account_failing"), []);
}

#[tokio::test]
async fn each_field_is_judged_alone() {
    let mut good = key("a");
    good["created_at"] = json!("2020-01-01 00:00:00");
    good["updated_at"] = json!("2021-01-01 00:00:00");
    let start = Reply::listing(std::slice::from_ref(&good));
    let metrics = [
        ("expires_at", "api_key_expiry_timestamp_seconds"),
        ("created_at", "api_key_created_timestamp_seconds"),
        ("updated_at", "api_key_updated_timestamp_seconds"),
        ("scopes", "api_key_scopes"),
        ("ip_allow_list", "api_key_ip_allow_list_entries"),
    ];
    for (field, odd) in [
        ("expires_at", json!("next year")),
        ("created_at", json!(12)),
        ("updated_at", json!("yesterday")),
        ("scopes", json!({ "payments.read": true })),
        ("ip_allow_list", json!("10.0.0.1")),
    ] {
        let folder = Folder::new(&format!("odd-{field}"));
        let api = Api::start(start.clone()).await;
        let exporter = Exporter::with(&saving_in(&folder, &api.url(), "")).await;
        let before = exporter.up().await;
        // Everything changes, and one field is odd.
        let mut new = json!({
            "id": "a", "scopes": ["a", "b"], "ip_allow_list": ["10.0.0.1", "10.0.0.2"],
            "expires_at": "2098-01-01 00:00:00", "created_at": "2020-01-02 00:00:00",
            "updated_at": "2021-01-02 00:00:00"
        });
        new[field] = odd;
        api.reply(Reply::listing(&[new]));
        let is_seen = |scrape: &Scrape| {
            let mut others = metrics.iter().filter(|(name, _)| *name != field);
            others.all(|(_, family)| of_key(scrape, family, "a") != of_key(&before, family, "a"))
        };
        let after = exporter.until("the others change", is_seen).await;
        let check = |scrape: &Scrape| {
            for (name, family) in metrics {
                let is_kept = of_key(scrape, family, "a") == of_key(&before, family, "a");
                assert_eq!(is_kept, name == field, "{field}: {family}");
            }
            let unknown = of_key(scrape, "api_key_expiry_unknown", "a");
            assert_eq!(unknown == Some(1.0), field == "expires_at", "{field}");
            let shape = "api_key_account_keys_rejected{account=\"default\",reason=\"shape\"}";
            assert_eq!(
                scrape.get(shape) == Some(1.0),
                field != "expires_at",
                "{field}"
            );
        };
        check(&after);
        saved(&folder).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        stopped(exporter, &folder).await;
        let exporter = Exporter::with(&saving_in(&folder, &api.url(), "")).await;
        check(&exporter.scrape().await);
        check(&exporter.up().await);
        exporter.stop().await;
    }
}

#[tokio::test]
async fn a_key_that_vanishes_at_its_expiry_stays_expired() {
    let folder = Folder::new("vanishing");
    let end = Utc::now() + TimeDelta::milliseconds(2_500);
    let api = hiding(end, Arc::default()).await;
    let url = format!("http://{}", api.address());
    let config = saving_in(&folder, &url, "poll.attempts = 1");
    let exporter = Exporter::with(&config).await;
    let is_unlisted = |scrape: &Scrape| of_key(scrape, "api_key_unlisted", "short").is_some();
    let check = |scrape: &Scrape| {
        assert_eq!(scrape.key_ids(), ["long", "short"]);
        let left = of_key(scrape, "api_key_expires_in_seconds", "short").unwrap();
        assert!((-60.0..=0.0).contains(&left), "{left}");
        assert!(of_key(scrape, "api_key_expiry_timestamp_seconds", "short").is_some());
        assert_eq!((keys(scrape, "expired"), keys(scrape, "valid")), (1.0, 1.0));
        assert_eq!(changes(scrape, "removed"), 0.0);
        assert_eq!(scrape.account("shrink_held"), Some(0.0));
    };
    let scrape = exporter.until("it is unlisted", is_unlisted).await;
    check(&scrape);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let scrape = exporter.scrape().await;
    assert!(is_unlisted(&scrape));
    check(&scrape);
    stopped(exporter, &folder).await;
    let exporter = Exporter::with(&config).await;
    let scrape = exporter.scrape().await;
    assert!(is_unlisted(&scrape), "before the first poll");
    check(&exporter.up().await);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let scrape = exporter.scrape().await;
    assert!(is_unlisted(&scrape), "after it");
    check(&scrape);
}

#[tokio::test]
async fn a_restart_between_the_two_listings_loses_nothing() {
    let folder = Folder::new("restart-at-the-end");
    let end = Utc::now() + TimeDelta::milliseconds(2_000);
    let api = hiding(end, Arc::default()).await;
    let url = format!("http://{}", api.address());
    let config = saving_in(&folder, &url, "poll.attempts = 1");
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    saved(&folder).await;
    stopped(exporter, &folder).await;
    let left = (end - Utc::now()).to_std().expect("it was quick");
    tokio::time::sleep(left + Duration::from_millis(200)).await;
    let exporter = Exporter::with(&config).await;
    let is_unlisted = |scrape: &Scrape| of_key(scrape, "api_key_unlisted", "short").is_some();
    exporter.until("it is unlisted", is_unlisted).await;
}

#[tokio::test]
async fn a_key_that_vanishes_before_or_well_after_its_expiry_was_deleted() {
    let end = Utc::now() + TimeDelta::milliseconds(3_000);
    let is_deleted = Arc::new(AtomicBool::new(false));
    let api = hiding(end, is_deleted.clone()).await;
    let url = format!("http://{}", api.address());
    let exporter = Exporter::with(&config(&url, "poll.attempts = 1", "")).await;
    exporter.up().await;
    is_deleted.store(true, Ordering::SeqCst);
    let gone = |scrape: &Scrape| scrape.key_ids() == ["long"];
    exporter.until("it is gone", gone).await;
    let left = (end - Utc::now()).to_std().expect("it was quick");
    tokio::time::sleep(left + Duration::from_millis(500)).await;
    assert!(gone(&exporter.scrape().await));
    // This API lists expired keys.
    let end = Utc::now() + TimeDelta::milliseconds(500);
    let api = Api::start(Reply::listing(&[key("long"), ending_at("short", end)])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let expired = |scrape: &Scrape| keys(scrape, "expired") == 1.0;
    exporter.until("it expires", expired).await;
    // It must be listed more than a second after its expiry.
    tokio::time::sleep(Duration::from_secs(3)).await;
    api.reply(listing(&["long"]));
    exporter.until("it is gone", gone).await;
}

#[tokio::test]
async fn keeping_ends_after_the_retention() {
    for (retention, is_kept) in [("2s", true), ("0s", false)] {
        let end = Utc::now() + TimeDelta::milliseconds(1_500);
        let api = hiding(end, Arc::default()).await;
        let url = format!("http://{}", api.address());
        let lines = format!("poll.attempts = 1\npoll.expired_retention = {retention:?}");
        let exporter = Exporter::with(&config(&url, &lines, "")).await;
        exporter.up().await;
        if is_kept {
            let is_unlisted = |scrape: &Scrape| scrape.of("api_key_unlisted").len() == 1;
            exporter.until("it is unlisted", is_unlisted).await;
        }
        let gone = |scrape: &Scrape| scrape.key_ids() == ["long"];
        let scrape = exporter.until("it is gone", gone).await;
        assert_eq!(scrape.of("api_key_unlisted"), []);
        assert_eq!(changes(&scrape, "removed"), 1.0);
    }
}

#[tokio::test]
async fn only_the_same_mode_and_an_exact_name_make_a_successor() {
    let made = |id: &str, label: &str, mode: &str, year: i32| {
        json!({
            "id": id, "label": label, "secret": format!("sk_{mode}_abcdefghijkl...vwxyz"),
            "created_at": format!("{year}-01-01 00:00:00"),
            "expires_at": format!("{}-01-01 00:00:00", year + 80)
        })
    };
    let long = "l".repeat(260);
    let keys = [
        made("exact-old", "checkout", "live", 2020),
        made("exact-new", "checkout", "live", 2021),
        made("mode-old", "shop", "live", 2020),
        made("mode-new", "shop", "test", 2021),
        made("cut-old", &format!("{long}1"), "live", 2020),
        made("cut-new", &format!("{long}2"), "live", 2021),
        made("clean-old", "a\u{202e}b", "live", 2020),
        made("clean-new", "a\u{200b}b", "live", 2021),
        made("wildcard-old", "ci-one", "live", 2020),
        made("wildcard-new", "ci-two", "live", 2021),
    ];
    let api = Api::start(Reply::listing(&keys)).await;
    let lines = "[[keys]]\nmatch = \"ci-*\"\nname = \"CI\"\n";
    let exporter = Exporter::with(&config(&api.url(), lines, "")).await;
    let scrape = exporter.up().await;
    let superseded = scrape.of("api_key_superseded{");
    assert_eq!(superseded.len(), keys.len());
    let superseded = superseded.iter().filter(|(_, value)| *value == 1.0);
    let superseded: Vec<&str> = superseded.map(|(name, _)| *name).collect();
    let expected = "api_key_superseded{account=\"default\",key_id=\"exact-old\"}";
    assert_eq!(superseded, [expected]);
}

#[tokio::test]
async fn a_token_of_another_organization_brings_its_keys_at_once() {
    let other_token = "sk_live_b3RoZXItb3JnYW5pemF0aW9u.aBcDe";
    let folder = Folder::new("organizations");
    let token = folder.file("token", TOKEN);
    let api = Api::start(listing(&["a", "b", "c", "d"])).await;
    let address = api.address();
    let mut config = saving_in(&folder, &api.url(), "poll.attempts = 1");
    config.accounts[0].token = TokenSource::File(token);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    saved(&folder).await;
    drop(api);
    folder.file("token", other_token);
    let api = again_at(address, other_token, &["x", "y"]).await;
    let listed = |ids: &'static [&str]| move |scrape: &Scrape| scrape.key_ids() == ids;
    let check = |scrape: &Scrape| {
        assert_eq!(scrape.account("shrink_held"), Some(0.0));
        for change in ["added", "removed"] {
            assert_eq!(changes(scrape, change), 0.0, "{change}");
        }
        assert_eq!(scrape.of("api_key_unlisted"), []);
    };
    check(&exporter.until("their keys", listed(&["x", "y"])).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    stopped(exporter, &folder).await;
    let path = saved(&folder).await;
    let content = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    for part in [
        &TOKEN[8..],
        &other_token[8..],
        &TOKEN[8..20],
        &other_token[8..20],
    ] {
        assert!(!content.contains(part), "{content}");
    }
    // After a restart too.
    drop(api);
    folder.file("token", TOKEN);
    let _api = again_at(address, TOKEN, &["a"]).await;
    let exporter = Exporter::with(&config).await;
    check(&exporter.until("our key", listed(&["a"])).await);
}

#[tokio::test]
async fn a_listing_that_lost_keys_is_held_back_whatever_new_ones_it_has() {
    let folder = Folder::new("swapped");
    let api = Api::start(listing(&["a", "b", "c", "d"])).await;
    let lines = "poll.attempts = 1\npoll.shrink_confirmations = 3";
    let mut config = saving_in(&folder, &api.url(), lines);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    stopped(exporter, &folder).await;
    // Polls that are far from each other.
    config.accounts[0].interval = Duration::from_secs(3600);
    api.reply(listing(&["w", "x", "y", "z"]));
    for (reply, polls, ids) in [
        (listing(&["w", "x", "y", "z"]), "held back", "abcd"),
        (Reply::error(500, "no", "support_1"), "a failure", "abcd"),
        (listing(&["w", "x", "y", "z"]), "held back again", "abcd"),
        (listing(&["w", "x", "y", "z"]), "confirmed", "wxyz"),
    ] {
        api.reply(reply);
        let exporter = Exporter::with(&config).await;
        let polled = |scrape: &Scrape| scrape.account("polls_total") == Some(1.0);
        let scrape = exporter.until(polls, polled).await;
        assert_eq!(scrape.key_ids().concat(), ids, "{polls}");
        let is_held = if ids == "abcd" { 1.0 } else { 0.0 };
        assert_eq!(scrape.account("shrink_held"), Some(is_held), "{polls}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        stopped(exporter, &folder).await;
    }
}

#[tokio::test]
async fn a_careful_reader_of_odd_listings() {
    let with = |end: &str, scope: &str| {
        let mut key = key("a");
        key["expires_at"] = json!(end);
        key["scopes"] = json!([scope]);
        Reply::listing(&[key])
    };
    let api = Api::start(with("2099-01-01 00:00:00.25", "*")).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    let privileged =
        "api_key_policy_violation{account=\"default\",key_id=\"a\",policy=\"privileged_scope\"}";
    assert_eq!(scrape.get(privileged), Some(1.0));
    api.reply(with("2099-01-01T00:00:00Z", "payments.*"));
    let scopes = |scrape: &Scrape| changes(scrape, "scopes") == 1.0;
    let scrape = exporter.until("other scopes", scopes).await;
    assert_eq!(changes(&scrape, "expiry"), 0.0);
    assert_eq!(scrape.get(privileged), Some(1.0));
    api.reply(with("2099-01-01T00:00:01Z", "payments.read"));
    let expiry = |scrape: &Scrape| changes(scrape, "expiry") == 1.0;
    let scrape = exporter.until("another expiry", expiry).await;
    assert_eq!(scrape.get(privileged), None);
    // A field twice, in a form that the JSON library would not write.
    let twice = r#"{"status":200,"error":null,"data":[{"id":"a","expires_at":null,"expires_at":"2030-01-01"},{"id":"b"}]}"#;
    api.reply(Reply::body(200, "application/json", twice));
    let refused = |scrape: &Scrape| scrape.key_ids() == ["a", "b"];
    let scrape = exporter.until("the other key", refused).await;
    let shape = "api_key_account_keys_rejected{account=\"default\",reason=\"shape\"}";
    assert_eq!(scrape.get(shape), Some(1.0));
    assert_eq!(
        of_key(&scrape, "api_key_expiry_timestamp_seconds", "a"),
        Some(4_070_908_801.0)
    );
}
