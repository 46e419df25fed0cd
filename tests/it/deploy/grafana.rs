//! The dashboards: what conventions ask of each panel, and Grafana's published types.

mod next_expiries;
mod queries;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::kubernetes::{documents, kustomize, rendered};
use super::{files, read};
use crate::docs::prose_and_code;
use crate::support::{Folder, in_repository};
use crate::tools::{Said, ask, debian, demand, npm};

/// The dashboards, with the names of their variables.
const DASHBOARDS: [(&str, &[&str]); 2] = [
    (
        "api-key-exporter",
        &[
            "datasource",
            "job",
            "account",
            "team",
            "provider",
            "runbooks",
        ],
    ),
    (
        "api-key-exporter-self",
        &["datasource", "job", "instance", "runbooks"],
    ),
];

/// The placeholder that the rules have too.
const RUNBOOKS: &str = "https://example.com/api-key-exporter/docs/runbooks";

fn text(name: &str) -> String {
    read(&format!("deploy/grafana/{name}.json"))
}

fn dashboards() -> [(&'static str, Value); 2] {
    DASHBOARDS.map(|(name, _)| (name, serde_json::from_str(&text(name)).unwrap()))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Every panel but the rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = list(&dashboard["panels"]).iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

/// Every query with the title of its panel or the name of its annotation.
fn queries(dashboard: &Value) -> Vec<(&str, &str)> {
    let of_panels = panels(dashboard).into_iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap();
        let targets = list(&panel["targets"]).iter();
        targets.map(move |target| (title, target["expr"].as_str().unwrap()))
    });
    let annotations = list(&dashboard["annotations"]["list"]).iter();
    let of_annotations = annotations.map(|annotation| {
        let name = annotation["name"].as_str().unwrap();
        (name, annotation["expr"].as_str().unwrap())
    });
    of_panels.chain(of_annotations).collect()
}

/// Every value of the field `name`, however deep.
fn fields<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(map) => {
            let own = map.get(name).into_iter();
            own.chain(map.values().flat_map(|it| fields(it, name)))
                .collect()
        }
        Value::Array(items) => items.iter().flat_map(|it| fields(it, name)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn the_dashboards_keep_the_conventions() {
    for ((name, dashboard), (_, variables)) in dashboards().into_iter().zip(DASHBOARDS) {
        assert_eq!(dashboard["uid"], name);
        assert_eq!(dashboard["id"], Value::Null);
        assert_eq!(dashboard["editable"], false);
        let named = fields(&dashboard["templating"], "name");
        assert_eq!(named, variables, "{name}");
        for source in fields(&dashboard, "datasource") {
            assert_eq!(
                source,
                &json!({ "type": "prometheus", "uid": "${datasource}" })
            );
        }
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            assert!(ids.insert(panel["id"].as_u64()), "{panel}");
        }
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert(title), "{title} is used twice");
            let description = panel["description"].as_str().unwrap();
            assert!(description.ends_with('.'), "{title}: {description:?}");
            // A panel without data says why.
            for field in ["unit", "noValue"] {
                let text = panel["fieldConfig"]["defaults"][field].as_str();
                assert!(
                    text.is_some_and(|text| !text.is_empty()),
                    "{title}: {field}"
                );
            }
            assert!(!list(&panel["targets"]).is_empty(), "{title} has no query");
            assert!(panel["datasource"].is_object(), "{title}");
            for target in list(&panel["targets"]) {
                assert!(target["datasource"].is_object(), "{title}");
            }
        }
        let annotations = fields(&dashboard["annotations"], "name");
        assert_eq!(annotations, ["Restarts", "Reloads", "Failed reloads"]);
    }
}

/// Fixed windows would miss polls or scrapes at some intervals.
#[test]
fn windows_follow_the_time_range_or_the_scrape_interval() {
    let mut count = 0;
    for (_, dashboard) in dashboards() {
        for (title, query) in queries(&dashboard) {
            for window in query.split('[').skip(1) {
                let window = window.split(']').next().unwrap();
                assert!(
                    ["$__range", "$__rate_interval"].contains(&window),
                    "{title}: {window}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 5, "{count}");
}

/// A series that never leaves zero shows nothing.
#[test]
fn counters_of_events_that_may_never_happen_are_hidden_at_zero() {
    for (_, dashboard) in dashboards() {
        for panel in panels(&dashboard) {
            let rare = list(&panel["targets"])
                .iter()
                .filter_map(|it| it["expr"].as_str());
            for query in rare.filter(|query| query.contains("increase(")) {
                let is_quantile = query.contains("histogram_quantile(");
                assert!(is_quantile || query.contains(" > 0"), "{}", panel["title"]);
            }
        }
    }
}

#[test]
fn links_lead_to_runbooks_that_exist_at_the_address_that_the_rules_have() {
    let rules = read("deploy/prometheus/rules.yml");
    assert!(rules.contains(&format!("runbook_url: {RUNBOOKS}/")));
    let mut linked = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        let variables = list(&dashboard["templating"]["list"]);
        let runbooks = variables
            .iter()
            .find(|it| it["name"] == "runbooks")
            .unwrap();
        assert_eq!(runbooks["query"], RUNBOOKS, "{name}");
        assert_eq!(runbooks["current"]["value"], RUNBOOKS, "{name}");
        let of_links = fields(&dashboard, "url").into_iter().filter_map(|url| {
            let page = url.as_str().unwrap().strip_prefix("${runbooks}/")?;
            page.strip_suffix(".md")
        });
        let queries = queries(&dashboard);
        let of_labels = queries.iter().flat_map(|(_, query)| {
            let named = query.split("\"alert\", \"").skip(1);
            named.map(|rest| rest.split('"').next().unwrap())
        });
        linked.extend(of_links.chain(of_labels).map(str::to_owned));
    }
    // The alert in the row.
    assert!(linked.remove("${__value.raw}"));
    for alert in &linked {
        assert!(
            in_repository(&format!("docs/runbooks/{alert}.md")).exists(),
            "{alert}"
        );
    }
    assert!(linked.len() > 15, "{linked:?}");
}

#[test]
fn panels_lie_beside_one_another_and_within_the_page() {
    for (_, dashboard) in dashboards() {
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(taken.insert((x, y)), "{} overlaps", panel["title"]);
                }
            }
        }
    }
}

/// The compiler holds a dashboard against Grafana's types.
fn types(folder: &Folder, name: &str, dashboard: &str) -> Said {
    let types = read("tests/it/deploy/dashboard.ts");
    let file = format!("{}: Dashboard = {dashboard}", types.trim_end());
    let file = folder.file(&format!("{name}.ts"), &file);
    ask(debian("node")
        .arg(npm().join("node_modules/typescript/bin/tsc"))
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
        ])
        .arg(file))
}

#[test]
fn grafanas_types_accept_the_dashboards_and_can_say_no() {
    let folder = Folder::new("dashboard-types");
    // The compiler looks for packages beside the files that it reads.
    let packages = folder.0.join("node_modules");
    std::os::unix::fs::symlink(npm().join("node_modules"), packages).unwrap();
    for (name, _) in DASHBOARDS {
        let said = types(&folder, name, &text(name));
        assert!(said.is_content, "{name}: {}", said.words);
    }
    for (right, wrong) in [
        ("\"sortBy\"", "\"sortby\""),
        ("\"thresholds\"", "\"treshold\""),
        ("\"w\": 24", "\"w\": \"24\""),
        ("\"basic\"", "\"plain\""),
    ] {
        let dashboard = text("api-key-exporter");
        assert!(dashboard.contains(right), "{right}");
        let said = types(&folder, "wrong", &dashboard.replace(right, wrong));
        assert!(!said.is_content, "{wrong}");
    }
}

/// The files of the `ConfigMap` with the dashboards.
fn mounted(yaml: &str) -> Value {
    let mut objects = documents(yaml).into_iter();
    let is_ours = |object: &Value| object["metadata"]["labels"]["grafana_dashboard"] == "1";
    objects.find(is_ours).unwrap()["data"].take()
}

#[test]
fn kustomize_and_the_chart_mount_the_dashboards() {
    let files = DASHBOARDS.map(|(name, _)| (format!("{name}.json"), json!(text(name))));
    let expected = Value::Object(files.into_iter().collect());
    assert_eq!(
        mounted(&kustomize("overlays/prometheus-operator")),
        expected
    );
    assert_eq!(mounted(&kustomize("overlays/victoria-metrics")), expected);
    assert_eq!(mounted(&rendered(Some("rules"), &[])), expected);
    // The chart's value sets the address of the runbooks everywhere.
    let changed = mounted(&rendered(Some("everything"), &[])).to_string();
    let wanted = expected
        .to_string()
        .replace(RUNBOOKS, "https://wiki.example.com/runbooks");
    assert_eq!(changed, wanted);
}

#[test]
fn the_documented_command_sets_the_address_of_the_runbooks_everywhere() {
    let folder = Folder::new("runbook-address");
    let mut copy = debian("cp");
    demand(copy.arg("-r").arg(in_repository("deploy")).arg(&folder.0));
    let (_, blocks) = prose_and_code(&read("docs/alerts.md"));
    let mut blocks = blocks.iter().map(|(_, code)| code);
    let command = blocks.find(|code| code.contains("xargs sed")).unwrap();
    demand(debian("bash").args(["-ec", command]).current_dir(&folder.0));
    let deploy = folder.0.join("deploy");
    let with = |start: &str| {
        let files = files(&deploy).into_iter();
        files
            .filter(|file| fs::read_to_string(file).unwrap().contains(start))
            .count()
    };
    assert_eq!(with("https://example.com/api-key-exporter"), 0);
    // The rules, their tests, the PrometheusRule, the dashboards, the chart's copies, and its
    // template that replaces the address.
    assert_eq!(
        with("https://wiki.example.org/api-key-exporter/docs/runbooks"),
        9
    );
}

#[test]
fn the_charts_dashboards_are_these() {
    for (name, _) in DASHBOARDS {
        let copy = format!("deploy/helm/api-key-exporter/files/dashboards/{name}.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(in_repository(&copy), text(name)).unwrap();
        }
        let is_equal = fs::read_to_string(in_repository(&copy)).unwrap_or_default() == text(name);
        assert!(is_equal, "{copy} differs; rerun with UPDATE_GOLDEN=1");
    }
}

/// A query as Grafana would send it with every variable at "All" but `team`.
fn filled(query: &str, team: &str) -> String {
    let mut query = query.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "1m"),
        ("$__range", "1m"),
        ("$job", ".*"),
        ("$instance", ".*"),
        ("$account", ".*"),
        ("$provider", ".*"),
        ("$team", team),
    ] {
        query = query.replace(variable, value);
    }
    assert!(!query.contains('$'), "{query} has an unknown variable");
    query
}
