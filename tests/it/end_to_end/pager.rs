//! What Alertmanager holds, now and over time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::prometheus::get;

/// Waiting for an alert: the longest window of the test, and a shared machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// An alert as Alertmanager holds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alert {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    fingerprint: String,
    inhibited_by: Vec<String>,
    pub(super) receivers: Vec<String>,
}

impl Alert {
    fn read(alert: &Value) -> Self {
        let map = |name: &str| {
            let fields = alert[name].as_object().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            fields
                .map(|(name, value)| (name.clone(), text(value)))
                .collect()
        };
        let list = |values: &Value| {
            let values = values.as_array().unwrap().iter();
            values
                .map(|value| {
                    value["name"]
                        .as_str()
                        .or(value.as_str())
                        .unwrap()
                        .to_owned()
                })
                .collect()
        };
        Self {
            labels: map("labels"),
            annotations: map("annotations"),
            fingerprint: alert["fingerprint"].as_str().unwrap().to_owned(),
            inhibited_by: list(&alert["status"]["inhibitedBy"]),
            receivers: list(&alert["receivers"]),
        }
    }

    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    pub(super) fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_inhibited(&self) -> bool {
        !self.inhibited_by.is_empty()
    }

    fn name(&self) -> &str {
        self.label("alertname")
    }
}

/// Every alert by name, and whether it was held at each look; the looks with no change left out.
type History = Arc<Mutex<BTreeMap<String, Vec<bool>>>>;

/// Alertmanager, watched from the start, so that nothing can resolve and fire again unseen.
pub(super) struct Pager {
    address: SocketAddr,
    history: History,
    watching: JoinHandle<()>,
}

impl Pager {
    pub(super) fn watch(address: SocketAddr) -> Self {
        let history = History::default();
        let seen = history.clone();
        let watching = tokio::spawn(async move {
            loop {
                if let Some(alerts) = held(address).await {
                    let mut seen = seen.lock().unwrap();
                    for alert in &alerts {
                        seen.entry(alert.name().to_owned())
                            .or_insert_with(|| vec![false]);
                    }
                    for (name, looks) in &mut *seen {
                        let is_held = alerts.iter().any(|alert| alert.name() == name);
                        if looks.last() != Some(&is_held) {
                            looks.push(is_held);
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self {
            address,
            history,
            watching,
        }
    }

    /// What it holds.
    pub(super) async fn now(&self) -> Vec<Alert> {
        held(self.address).await.expect("Alertmanager answers")
    }

    async fn find(&self, name: &str) -> Option<Alert> {
        self.now()
            .await
            .into_iter()
            .find(|alert| alert.name() == name)
    }

    pub(super) async fn holds(&self, name: &str) -> bool {
        self.find(name).await.is_some()
    }

    /// Waits until it holds the alert.
    pub(super) async fn fires(&self, name: &str) -> Alert {
        let start = Instant::now();
        loop {
            if let Some(alert) = self.find(name).await {
                return alert;
            }
            self.still_patient(start, &format!("{name} fires")).await;
        }
    }

    /// Waits until the alert is resolved.
    pub(super) async fn ends(&self, name: &str) {
        let start = Instant::now();
        while self.holds(name).await {
            self.still_patient(start, &format!("{name} ends")).await;
        }
    }

    /// Waits until `target` is held, and kept quiet by `source`.
    pub(super) async fn inhibits(&self, source: &str, target: &str) {
        let start = Instant::now();
        loop {
            let source = self.find(source).await.expect(source);
            let target = self.find(target).await.expect(target);
            if target.inhibited_by.contains(&source.fingerprint) {
                assert!(!source.is_inhibited(), "{source:?}");
                return;
            }
            self.still_patient(start, &format!("{source:?} inhibits {target:?}"))
                .await;
        }
    }

    /// Demands that each of `names` fired, was never resolved and fired again, and is resolved.
    pub(super) async fn fired_once(&self, names: &[&str]) {
        for name in names {
            let start = Instant::now();
            loop {
                let looks = self.history.lock().unwrap().get(*name).cloned();
                if looks.as_deref() == Some(&[false, true, false]) {
                    break;
                }
                // The watcher may be a look behind; a second rise stays wrong for ever.
                self.still_patient(start, &format!("{name} fires once: {looks:?}"))
                    .await;
            }
        }
    }

    async fn still_patient(&self, start: Instant, what: &str) {
        assert!(
            start.elapsed() < PATIENCE,
            "not in {PATIENCE:?}: {what}; held: {:#?}",
            self.now().await
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn held(address: SocketAddr) -> Option<Vec<Alert>> {
    let alerts = get(address, "/api/v2/alerts").await?;
    Some(alerts.as_array()?.iter().map(Alert::read).collect())
}
