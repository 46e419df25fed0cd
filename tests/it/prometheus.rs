//! A real Prometheus with the files that we ship, only faster, and what it answers.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use serde_json::Value;

use crate::process::Daemon;
use crate::support::{Folder, any_port, client, in_repository};
use crate::tools::debian;

/// What the rules' `keep_firing_for` is shortened to: longer than the exporter takes to restart,
/// shorter than the outage of the end-to-end test, so that only what is known keeps an alert.
const KEEP_FIRING_FOR: &str = "10s";

/// A port that was free a moment ago, for programs that do not say which one they took.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind(any_port()).unwrap().local_addr().unwrap()
}

/// A file of deploy/prometheus.
pub(crate) fn shipped(name: &str) -> String {
    fs::read_to_string(in_repository("deploy/prometheus").join(name)).unwrap()
}

/// `text` with the value of every line `name: value` replaced; how often it was.
pub(crate) fn shorten(text: &str, name: &str, value: &str) -> (String, usize) {
    let mut times = 0;
    let lines = text.lines().map(|line| {
        let start = line.trim_start();
        if !start.starts_with(&format!("{name}: ")) {
            return line.to_owned();
        }
        times += 1;
        let indent = line.len() - start.len();
        format!("{:indent$}{name}: {value}", "")
    });
    (lines.collect::<Vec<_>>().join("\n") + "\n", times)
}

/// The shipped rules with a short `for` and `keep_firing_for`.
pub(crate) fn quick_rules() -> String {
    let (rules, alerts) = shorten(&shipped("rules.yml"), "for", "1s");
    let (rules, kept) = shorten(&rules, "keep_firing_for", KEEP_FIRING_FOR);
    assert_eq!((alerts, kept), (crate::rules::alerts().len(), alerts));
    rules
}

/// The shipped configuration, scraping `exporter` every second and notifying `alertmanager`, if
/// any.
pub(crate) fn quick_config(exporter: SocketAddr, alertmanager: Option<SocketAddr>) -> String {
    let mut config = shipped("prometheus.yml");
    for name in ["scrape_interval", "evaluation_interval", "scrape_timeout"] {
        let (shortened, times) = shorten(&config, name, "1s");
        assert_eq!(times, 1, "{name}");
        config = shortened;
    }
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    for (shipped, ours) in [
        ("127.0.0.1:10120", exporter),
        ("127.0.0.1:9093", alertmanager.unwrap_or(nobody)),
    ] {
        assert!(config.contains(shipped), "{shipped}");
        config = config.replace(shipped, &ours.to_string());
    }
    config
}

/// Starts it on `address`, scraping `exporter` and notifying `alertmanager`, if any.
pub(crate) fn start(
    folder: &Folder,
    address: SocketAddr,
    exporter: SocketAddr,
    alertmanager: Option<SocketAddr>,
) -> Daemon {
    let config = quick_config(exporter, alertmanager);
    start_with(folder, address, &quick_rules(), &config)
}

/// Starts it on `address` with these rules and this configuration; what it stored in `folder`
/// before is still there.
pub(crate) fn start_with(
    folder: &Folder,
    address: SocketAddr,
    rules: &str,
    config: &str,
) -> Daemon {
    start_program(debian("prometheus"), folder, address, rules, config)
}

/// As [`start_with`], but another Prometheus than that of the host.
pub(crate) fn start_program(
    mut command: Command,
    folder: &Folder,
    address: SocketAddr,
    rules: &str,
    config: &str,
) -> Daemon {
    folder.file("rules.yml", rules);
    let config = folder.file("prometheus.yml", config);
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}/data", folder.0.display()))
        .arg(format!("--web.listen-address={address}"));
    Daemon::start(command, folder)
}

/// A JSON answer; none while nobody answers there.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<Value> {
    let response = client().get(format!("http://{address}{path}")).send().await;
    let text = response.ok()?.text().await.ok()?;
    serde_json::from_str(&text).ok()
}

/// The result of an instant query; none while there is no answer.
pub(crate) async fn results(server: SocketAddr, query: &str) -> Option<Vec<Value>> {
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = get(server, &format!("/api/v1/query?query={query}")).await?;
    answer["data"]["result"].as_array().cloned()
}

/// The first value of an instant query; none while Prometheus has none.
pub(crate) async fn query(prometheus: SocketAddr, query: &str) -> Option<f64> {
    let results = results(prometheus, query).await?;
    results.first()?["value"][1].as_str()?.parse().ok()
}
