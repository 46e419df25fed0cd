//! From a key's listing to the alert that a person gets: the fake API, this exporter, a real
//! Prometheus and a real Alertmanager with the files that we ship.

mod hidden_key;
mod pager;
mod storm;
mod two_providers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use self::pager::Pager;
use crate::process::{Daemon, binary};
use crate::prometheus::{self, free, shipped};
use crate::support::{Api, Folder, TOKEN, key};
use crate::tools::debian;

/// The life of the key under test, and what of it is left when it is first listed. The thresholds
/// are fractions of the life: 55 s and 25 s.
const LIFE: TimeDelta = TimeDelta::seconds(110);
const LEFT_AT_START: TimeDelta = TimeDelta::seconds(75);
const THRESHOLDS: &str = "{ warning = \"22m\", critical = \"10m\", lifetime_fraction = 0.5 }";

const OLD: &str = "api_key_old";
const NEW: &str = "api_key_new";

/// Alertmanager with the shipped configuration.
fn alertmanager(folder: &Folder, address: SocketAddr) -> Daemon {
    alertmanager_with(folder, address, &shipped("alertmanager.yml"))
}

fn alertmanager_with(folder: &Folder, address: SocketAddr, config: &str) -> Daemon {
    let config = folder.file("alertmanager.yml", config);
    let mut command = debian("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}/data", folder.0.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=");
    Daemon::start(command, folder)
}

fn exporter(folder: &Folder, address: SocketAddr, url: &str) -> Daemon {
    let token = folder.file("token", TOKEN);
    let config = folder.file(
        "config.toml",
        &format!(
            "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
             web.listen_addresses = [\"{address}\"]\nstate.directory = \"{}/state\"\n\
             thresholds = {THRESHOLDS}\n\
             [[accounts]]\nname = \"shop\"\nbase_url = \"{}\"\ntoken_file = \"{}\"\n\
             [[keys]]\nmatch = \"{OLD}\"\nname = \"checkout\"\nteam = \"payments\"\n\
             [[keys]]\nmatch = \"{NEW}\"\nname = \"checkout\"\nteam = \"payments\"\n\
             [[keys]]\nmatch = \"other_*\"\nteam = \"web\"\n",
            folder.0.display(),
            url,
            token.display()
        ),
    );
    let config = config.display().to_string();
    Daemon::start(binary(&["--config.file", &config]), folder)
}

/// A key of this time, which Prometheus will see in whole seconds.
fn of_time(id: &str, start: DateTime<Utc>, end: DateTime<Utc>) -> Value {
    let text = |time: DateTime<Utc>| json!(time.format("%Y-%m-%d %H:%M:%S").to_string());
    let mut key = key(id);
    key["created_at"] = text(start);
    key["expires_at"] = text(end);
    key
}

/// A listing of `keys` and of some that nothing is wrong with.
fn with_others(keys: &[Value]) -> Reply {
    let others = ["other_1", "other_2", "other_3"].map(key);
    Reply::listing(&[keys, &others].concat())
}

/// Waits for `condition`; what the programs say tells why it does not come.
async fn until(what: &str, programs: &[&Daemon], condition: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "not in a minute: {what}\n{}",
            programs
                .iter()
                .map(|program| program.log())
                .collect::<Vec<_>>()
                .join("\n")
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one life, told in its order")]
async fn the_life_of_a_key_reaches_the_pager_and_neither_outage_nor_restart_resolves_anything() {
    let folders =
        ["exporter", "prometheus", "alertmanager"].map(|name| Folder::new(&format!("e2e-{name}")));
    let [exporter_address, prometheus_address, pager_address] = [free(), free(), free()];
    let year = TimeDelta::days(365);
    let healthy = of_time(NEW, Utc::now() - LIFE, Utc::now() + year);
    let api = Api::start(with_others(std::slice::from_ref(&healthy))).await;
    let alertmanager = alertmanager(&folders[2], pager_address);
    let scraping = prometheus::start(
        &folders[1],
        prometheus_address,
        exporter_address,
        Some(pager_address),
    );
    let running = exporter(&folders[0], exporter_address, &api.url());
    let pager = Pager::watch(pager_address);
    let programs = [&running, &scraping, &alertmanager];
    until("Prometheus has keys", &programs, async || {
        prometheus::query(prometheus_address, "count(api_key_info)").await == Some(4.0)
    })
    .await;

    // A key with little time left, as if its last minute were its last months.
    let end = Utc::now() + LEFT_AT_START;
    let old = of_time(OLD, end - LIFE, end);
    api.reply(with_others(std::slice::from_ref(&old)));
    until("the key is seen", &programs, async || {
        let expiry = format!("max(api_key_expiry_timestamp_seconds{{key_id=\"{OLD}\"}})");
        prometheus::query(prometheus_address, &expiry).await == Some(end.timestamp() as f64)
    })
    .await;
    assert_eq!(pager.now().await, []);

    // Its warning window.
    let soon = pager.fires("ApiKeyExpiringSoon").await;
    let left = end - Utc::now();
    assert!(
        left <= TimeDelta::seconds(55) && left > TimeDelta::seconds(25),
        "{left}"
    );
    for (label, value) in [
        ("account", "shop"),
        ("key_id", OLD),
        ("name", "checkout"),
        ("team", "payments"),
        ("provider", "bitgpt"),
        ("severity", "warning"),
    ] {
        assert_eq!(soon.label(label), value, "{label}");
    }
    assert_eq!(soon.receivers, ["payments-chat"]);
    assert!(!soon.is_inhibited());
    let words = "API key \"checkout\" of team payments (account shop) expires in ";
    assert!(soon.annotation("summary").starts_with(words), "{soon:?}");
    let words = format!(
        "Key {OLD} expires on {} and has no successor.",
        end.format("%Y-%m-%d %H:%M:%S UTC")
    );
    assert!(
        soon.annotation("description").starts_with(&words),
        "{soon:?}"
    );
    let runbook = soon.annotation("runbook_url");
    assert!(
        runbook.ends_with("/docs/runbooks/ApiKeyExpiringSoon.md"),
        "{runbook}"
    );

    // The API fails, and while it does the exporter restarts.
    api.reply(Reply::error(
        500,
        "An unexpected error occurred",
        "support_1",
    ));
    pager.fires("ApiKeyAccountFailing").await;
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
    let running = exporter(&folders[0], exporter_address, &api.url());
    let stale = pager.fires("ApiKeyInventoryStale").await;
    assert_eq!(stale.label("account"), "shop");
    assert_eq!(stale.receivers, ["platform-chat"]);
    pager
        .inhibits("ApiKeyAccountFailing", "ApiKeyInventoryStale")
        .await;

    // Its critical window, in the middle of the outage: what is known counts on.
    let critical = pager.fires("ApiKeyAboutToExpire").await;
    assert_eq!(critical.label("severity"), "critical");
    assert_eq!(critical.receivers, ["payments-pager"]);
    assert!(
        critical
            .annotation("description")
            .contains("stops working on")
    );
    pager
        .inhibits("ApiKeyAboutToExpire", "ApiKeyExpiringSoon")
        .await;

    // The API is back.
    api.reply(with_others(std::slice::from_ref(&old)));

    // It expires.
    let expired = pager.fires("ApiKeyExpired").await;
    assert!(Utc::now() >= end);
    assert_eq!(expired.label("key_id"), OLD);
    assert_eq!(expired.receivers, ["payments-pager"]);
    assert!(
        expired.annotation("summary").contains(" expired "),
        "{expired:?}"
    );
    pager.inhibits("ApiKeyExpired", "ApiKeyAboutToExpire").await;
    pager.ends("ApiKeyInventoryStale").await;
    pager.ends("ApiKeyAccountFailing").await;
    pager.ends("ApiKeyExpiringSoon").await;
    pager.ends("ApiKeyAboutToExpire").await;

    // It is replaced: the page ends, a reminder stays.
    let healthy = of_time(NEW, Utc::now(), Utc::now() + year);
    api.reply(with_others(&[old.clone(), healthy.clone()]));
    let reminder = pager.fires("ApiKeySupersededNotRemoved").await;
    assert_eq!(reminder.label("key_id"), OLD);
    assert_eq!(reminder.receivers, ["reminders"]);
    pager.ends("ApiKeyExpired").await;

    // The exporter's own access is taken away, which is said at once and resolves nothing.
    api.reply(Reply::error(401, "Authentication failed", "support_2"));
    let refused = pager.fires("ApiKeyAccountUnauthorized").await;
    assert_eq!(refused.label("reason"), "unauthorized");
    assert_eq!(refused.receivers, ["platform-pager"]);
    assert!(pager.holds("ApiKeySupersededNotRemoved").await);

    // The old key is deleted, and nothing is left to say.
    api.reply(with_others(std::slice::from_ref(&healthy)));
    until("no alert is left", &[&running, &scraping], async || {
        pager.now().await.is_empty()
    })
    .await;
    pager
        .fired_once(&[
            "ApiKeyExpiringSoon",
            "ApiKeyAboutToExpire",
            "ApiKeyExpired",
            "ApiKeySupersededNotRemoved",
            "ApiKeyAccountUnauthorized",
            "ApiKeyInventoryStale",
        ])
        .await;
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
}
