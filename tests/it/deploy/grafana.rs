//! The dashboard: what conventions ask of each panel, and each of its queries run by a real
//! Prometheus that scrapes the demo.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::read;
use crate::process::{Daemon, binary};
use crate::prometheus::{self, free};
use crate::support::Folder;

const DASHBOARD: &str = "deploy/grafana/api-key-exporter.json";

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every panel but the rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = list(&dashboard["panels"]).iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

#[test]
fn the_dashboard_keeps_the_conventions() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "api-key-exporter");
    assert_eq!(dashboard["id"], Value::Null);
    assert_eq!(dashboard["editable"], false);
    let variables: Vec<&str> = list(&dashboard["templating"]["list"])
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "instance", "account"]);
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(titles.insert(title), "{title} stands there twice");
        assert!(
            ids.insert(panel["id"].as_u64()),
            "{title}: its id is another's"
        );
        let description = panel["description"].as_str().unwrap();
        assert!(description.ends_with('.'), "{title}: {description:?}");
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(
            unit.is_some_and(|unit| !unit.is_empty()),
            "{title} has no unit"
        );
        let targets = list(&panel["targets"]);
        assert!(!targets.is_empty(), "{title} asks nothing");
        for source in targets.iter().chain([panel]) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    assert!(titles.len() > 20, "{titles:?}");
}

#[test]
fn panels_lie_beside_one_another_and_within_the_page() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{} lies on another", panel["title"]);
            }
        }
    }
}

#[test]
fn the_charts_dashboard_is_this_one() {
    let copy = "deploy/helm/api-key-exporter/files/dashboard.json";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(crate::support::in_repository(copy), read(DASHBOARD)).unwrap();
    }
    assert!(
        read(copy) == read(DASHBOARD),
        "{copy} differs; rerun with UPDATE_GOLDEN=1"
    );
}

/// A query as Grafana would send it with every variable at "All".
fn filled(query: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$account", ".*"),
    ] {
        query = query.replace(variable, value);
    }
    assert!(
        !query.contains('$'),
        "{query} has a variable that this test does not know"
    );
    query
}

/// Every query, with the title of its panel; those of the variables as the list that they make.
fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in panels(&dashboard) {
        for target in list(&panel["targets"]) {
            let title = panel["title"].as_str().unwrap().to_owned();
            queries.push((title, filled(target["expr"].as_str().unwrap())));
        }
    }
    for variable in &list(&dashboard["templating"]["list"])[1..] {
        let query = variable["query"]["query"].as_str().unwrap();
        let inner = query
            .strip_prefix("label_values(")
            .unwrap()
            .strip_suffix(')')
            .unwrap();
        let (metric, label) = inner.rsplit_once(", ").unwrap();
        let title = format!("variable {}", variable["name"]);
        queries.push((title, filled(&format!("count by ({label}) ({metric})"))));
    }
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_returns_data_of_the_demo() {
    let [exporter, address] = [free(), free()];
    let folders = ["demo", "prometheus"].map(|name| Folder::new(&format!("dashboard-{name}")));
    let listen = exporter.to_string();
    let demo = Daemon::start(
        binary(&["demo", "--web.listen-address", &listen]),
        &folders[0],
    );
    let prometheus = prometheus::start(&folders[1], address, exporter, None);
    let queries = queries();
    assert!(queries.len() > 25, "{}", queries.len());
    let start = Instant::now();
    for (title, query) in &queries {
        // Numbers, so that a rate over a single sample is not taken for data.
        while prometheus::query(address, query)
            .await
            .is_none_or(f64::is_nan)
        {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{title}: no data for {query}\n{}\n{}",
                demo.log(),
                prometheus.log()
            );
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    assert_eq!(prometheus::query(address, "no_such_metric").await, None);
}
