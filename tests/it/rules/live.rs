//! The rules in a real Prometheus: targets that collide, and a restart in the middle of an alert.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::process::Daemon;
use crate::prometheus::{
    free, get, query, quick_config, quick_rules, shipped, shorten, start_with,
};
use crate::support::{Api, Exporter, Folder, config_of, key};

/// Waiting for Prometheus: scrapes and evaluations are a second apart, on a shared machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn until<T>(
    what: &str,
    prometheus: &Daemon,
    condition: impl AsyncFn() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        let log = || prometheus.log();
        assert!(start.elapsed() < PATIENCE, "{what}: not in time\n{}", log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// An account with a key that never expires, so that there is an alert about it.
async fn exporter(api: &Api, account: &str) -> Exporter {
    Exporter::with(&config_of("", &[(account, &api.url(), "")])).await
}

async fn api() -> Api {
    let mut eternal = key("k1");
    eternal["expires_at"] = Value::Null;
    eternal["label"] = json!("checkout");
    Api::start(Reply::listing(&[eternal])).await
}

/// The labels of every alert of this name, by state.
async fn alerts(address: SocketAddr, name: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let answer = get(address, "/api/v1/alerts").await.unwrap_or_default();
    let alerts = answer["data"]["alerts"].as_array().cloned();
    let alerts = alerts.unwrap_or_default().into_iter();
    let named = alerts.filter(|alert| alert["labels"]["alertname"] == name);
    let read = named.map(|alert| {
        let labels = serde_json::from_value(alert["labels"].clone()).unwrap();
        (alert["state"].as_str().unwrap().to_owned(), labels)
    });
    read.collect()
}

/// Every rule with what went wrong at its last evaluation; none before all were evaluated.
pub(crate) async fn broken_rules(address: SocketAddr) -> Option<Vec<String>> {
    let answer = get(address, "/api/v1/rules").await?;
    let groups = answer["data"]["groups"].as_array()?;
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    let rules: Vec<Value> = rules.collect();
    let is_done = rules.len() > 20 && rules.iter().all(|rule| rule["health"] != "unknown");
    let broken = rules.iter().filter(|rule| rule["health"] != "ok");
    is_done.then(|| {
        let describe = |rule: &Value| format!("{}: {}", rule["name"], rule["lastError"]);
        broken.map(describe).collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_that_share_job_and_instance_and_carry_our_labels_break_no_rule() {
    let api = api().await;
    let exporters = [exporter(&api, "shop").await, exporter(&api, "office").await];
    let (address, folder) = (free(), Folder::new("colliding-targets"));
    let mut config = quick_config(exporters[0].address, None);
    let target = format!("      - targets: [\"{}\"]\n", exporters[0].address);
    assert!(config.contains(&target));
    let labels = |pod: &str| {
        format!(
            "        labels:\n          instance: shared\n          pod: {pod}\n          \
             account: target\n          team: target\n          name: target\n          \
             provider: target\n          key_id: target\n          severity: target\n"
        )
    };
    let second = format!("      - targets: [\"{}\"]\n", exporters[1].address);
    let both = format!("{target}{}{second}{}", labels("x"), labels("y"));
    config = config.replace(&target, &both);
    let prometheus = start_with(&folder, address, &quick_rules(), &config);
    let firing = until("both accounts alert", &prometheus, async || {
        let alerts = alerts(address, "ApiKeyNeverExpires").await;
        let is_firing = alerts.iter().all(|(state, _)| state == "firing");
        (alerts.len() == 2 && is_firing).then_some(alerts)
    })
    .await;
    for account in ["shop", "office"] {
        let expected: BTreeMap<String, String> = [
            ("alertname", "ApiKeyNeverExpires"),
            ("account", account),
            ("key_id", "k1"),
            ("name", "checkout"),
            ("provider", "bitgpt"),
            ("severity", "warning"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let is_there = firing.iter().any(|(_, labels)| *labels == expected);
        assert!(is_there, "{account}: {firing:#?}");
    }
    let broken = until("rules are evaluated", &prometheus, async || {
        broken_rules(address).await
    })
    .await;
    assert_eq!(broken, [] as [String; 0]);
    let renamed = "count({__name__=~\"api_key_.+\", exported_account!=\"\"})";
    assert_eq!(query(address, renamed).await, None);
}

/// Since when the one alert of this name has been active, and its state.
async fn since(address: SocketAddr, name: &str) -> Option<(DateTime<Utc>, String)> {
    let answer = get(address, "/api/v1/alerts").await?;
    let alerts = answer["data"]["alerts"].as_array()?.iter();
    let mut named = alerts.filter(|alert| alert["labels"]["alertname"] == name);
    let alert = named.next()?;
    let since = DateTime::parse_from_rfc3339(alert["activeAt"].as_str()?).unwrap();
    Some((since.to_utc(), alert["state"].as_str()?.to_owned()))
}

fn stop(prometheus: Daemon) {
    prometheus.signal("-TERM");
    assert_eq!(prometheus.ended().0, Some(0));
}

/// What docs/alerts.md says about restarts of Prometheus.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_prometheus_keeps_a_pending_alert_and_ends_one_that_was_only_kept_firing() {
    let api = api().await;
    let exporter = exporter(&api, "shop").await;
    let (address, folder) = (free(), Folder::new("prometheus-restart"));
    let config = quick_config(exporter.address, None);
    // ApiKeyNeverExpires stays pending for 15 minutes.
    let rules = shipped("rules.yml");
    let prometheus = start_with(&folder, address, &rules, &config);
    let (before, state) = until("the alert is pending", &prometheus, async || {
        since(address, "ApiKeyNeverExpires").await
    })
    .await;
    assert_eq!(state, "pending");
    // Longer than the restart takes, so that a lost state shows.
    let pending = Duration::from_secs(15);
    tokio::time::sleep(pending).await;
    stop(prometheus);
    let prometheus = start_with(&folder, address, &rules, &config);
    let restored = async || {
        let (after, state) = since(address, "ApiKeyNeverExpires").await?;
        // Prometheus adds the time in which it was down. A lost state would begin anew.
        (state == "pending" && after - before < TimeDelta::seconds(12)).then_some(())
    };
    until("the pending alert is restored", &prometheus, restored).await;
    stop(prometheus);

    // It fires, the key gets an expiry, and keep_firing_for holds the alert.
    let (quick, _) = shorten(&rules, "for", "1s");
    let started = Utc::now().timestamp() as f64;
    let prometheus = start_with(&folder, address, &quick, &config);
    let fires = async || (since(address, "ApiKeyNeverExpires").await?.1 == "firing").then_some(());
    until("the alert fires", &prometheus, fires).await;
    // Until it scrapes, Prometheus looks back at what it stored before the restart.
    let violations = "timestamp(api_key_policy_violation{policy=\"never_expires\"})";
    until("a scrape", &prometheus, async || {
        let scraped = query(address, violations).await?;
        (scraped > started).then_some(())
    })
    .await;
    api.reply(Reply::listing(&[key("k1")]));
    until("the cause is gone", &prometheus, async || {
        query(address, violations).await.is_none().then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fires().await, Some(()));
    stop(prometheus);
    let prometheus = start_with(&folder, address, &quick, &config);
    until("rules are evaluated", &prometheus, async || {
        broken_rules(address).await
    })
    .await;
    assert_eq!(since(address, "ApiKeyNeverExpires").await, None);
    stop(prometheus);
}
