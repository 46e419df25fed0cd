//! Every query of the dashboards, answered by servers that scrape the demo.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{dashboards, filled, list, panels, queries};
use crate::prometheus::{get, results};
use crate::scrapers::{demo, prometheus_versions, victoria_metrics};
use crate::support::Folder;

/// Panels that are empty while all is well, as in the demo, or may be.
const EMPTY_WHEN_WELL: [&str; 7] = [
    "Own key at risk",
    "Failed polls",
    "Changes",
    "Failures in the time range",
    "Down",
    "Last reload failed",
    "Events that should not occur",
];

/// The query without the condition that makes its panel empty, so that the rest of it must match.
fn always(query: &str) -> String {
    let relaxed = query
        .replace(" > 0", " >= 0")
        .replace(" == 0", " >= 0")
        .replace(" <= on", " != on");
    assert_ne!(relaxed, query);
    relaxed
}

/// Every query with the name of its panel, as a server receives it; those of the variables as the
/// list that they make.
fn all_queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, dashboard) in dashboards() {
        for (title, query) in queries(&dashboard) {
            let is_annotation = !panels(&dashboard)
                .iter()
                .any(|panel| panel["title"] == title);
            let may_be_empty = !is_annotation && EMPTY_WHEN_WELL.contains(&title);
            let query = filled(query, ".*");
            let query = if may_be_empty { always(&query) } else { query };
            all.push((format!("{name}: {title}"), query));
        }
        for variable in list(&dashboard["templating"]["list"]) {
            let Some(query) = variable["query"]["query"].as_str() else {
                continue;
            };
            let inner = query.strip_prefix("label_values(").unwrap();
            let (metric, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            let query =
                format!("count by ({label}) ({metric}) and count by ({label}) ({metric}) != 0");
            all.push((
                format!("{name}: {}", variable["name"]),
                filled(&query, ".*"),
            ));
        }
    }
    all
}

fn is_number(result: &Value) -> bool {
    let value = result["value"][1]
        .as_str()
        .and_then(|value| value.parse().ok());
    value.is_some_and(|value: f64| !value.is_nan())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_returns_data_of_the_demo_on_each_server() {
    let folder = Folder::new("dashboard-demo");
    let (demo, exporter) = demo(&folder);
    let mut servers = prometheus_versions("dashboard", exporter, |_| String::new());
    servers.push(victoria_metrics("dashboard", Some(exporter)));
    let start = Instant::now();
    // A reload within 10 s of the start counts as part of it.
    tokio::time::sleep(Duration::from_secs(12)).await;
    demo.signal("-HUP");
    let queries = all_queries();
    assert!(queries.len() > 45, "{}", queries.len());
    for server in &servers {
        for (title, query) in &queries {
            loop {
                let results = results(server.address, query).await.unwrap_or_default();
                // A rate over a single sample is not data.
                if results.iter().any(is_number) {
                    break;
                }
                assert!(
                    start.elapsed() < Duration::from_secs(120),
                    "{}: {title}: no data for {query}\n{}\n{}",
                    server.name,
                    demo.log(),
                    server.daemon.log()
                );
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        let none = results(server.address, "no_such_metric").await.unwrap();
        assert!(none.is_empty(), "{}: {none:?}", server.name);
    }
    // The support_id of failed polls, where the server stores exemplars.
    let query = &queries
        .iter()
        .find(|it| it.0.ends_with(": Failed polls"))
        .unwrap()
        .1;
    let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let now = chrono::Utc::now().timestamp();
    let path = format!(
        "/api/v1/query_exemplars?query={query}&start={}&end={now}",
        now - 600
    );
    for server in &servers[..3] {
        let answer = get(server.address, &path).await.unwrap();
        let support_id = &answer["data"][0]["exemplars"][0]["labels"]["support_id"];
        let text = support_id.as_str().unwrap_or_default();
        assert!(text.starts_with("support_"), "{}: {answer}", server.name);
    }
}
