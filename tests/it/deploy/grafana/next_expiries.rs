//! The table of the next expiries and the counts above it, for replicas and shards that disagree.

use serde_json::{Value, json};

use super::{dashboards, filled, panels, queries};
use crate::support::Folder;
use crate::tools::{debian, demand};

/// The series of a key at one exporter, as `promtool` reads them: its team, when it expires, its
/// thresholds, and further families.
fn series(
    instance: &str,
    (account, id, team): (&str, &str, &str),
    (expiry, critical, warning): (u32, u32, u32),
    more: &[(&str, u32)],
) -> Vec<Value> {
    let key = format!("account=\"{account}\",key_id=\"{id}\",instance=\"{instance}\",job=\"j\"");
    let one = |name: &str, labels: String, value: u32| json!({ "series": format!("{name}{{{key}{labels}}}"), "values": format!("{value} {value}") });
    let threshold = |severity, value| {
        let severity = format!(",severity=\"{severity}\"");
        one("api_key_alert_threshold_seconds", severity, value)
    };
    let info = format!(",name=\"key {id}\",team=\"{team}\",provider=\"p\"");
    let mut series = vec![
        one("api_key_info", info, 1),
        one("api_key_expiry_timestamp_seconds", String::new(), expiry),
        threshold("critical", critical),
        threshold("warning", warning),
    ];
    series.extend(
        more.iter()
            .map(|(name, value)| one(name, String::new(), *value)),
    );
    series
}

/// Two replicas of a shard, one of which has not seen the new expiry of k1, and another shard, at
/// second 60.
fn input() -> Vec<Value> {
    let keys = [
        series("a", ("one", "k1", "red"), (1060, 500, 2000), &[]),
        series("b", ("one", "k1", "red"), (70, 500, 2000), &[]),
        series(
            "a",
            ("one", "k2", "red"),
            (400, 500, 2000),
            &[("api_key_muted", 0)],
        ),
        series(
            "b",
            ("one", "k2", "red"),
            (400, 500, 2000),
            &[("api_key_muted", 0)],
        ),
        series("a", ("one", "k3", "red"), (30, 500, 2000), &[]),
        series(
            "a",
            ("one", "k4", "red"),
            (1060, 100, 200),
            &[("api_key_superseded", 0)],
        ),
        series(
            "a",
            ("one", "k5", "red"),
            (40, 100, 200),
            &[("api_key_superseded", 1)],
        ),
        series(
            "a",
            ("one", "k6", "red"),
            (50, 100, 200),
            &[("api_key_muted", 1)],
        ),
        series(
            "a",
            ("one", "k7", "red"),
            (100, 100, 200),
            &[("api_key_disabled", 1)],
        ),
        series("c", ("two", "k1", "blue"), (560, 500, 2000), &[]),
    ]
    .concat();
    let link = json!({ "values": "1 1", "series":
        "api_key_link_info{account=\"one\",key_id=\"k2\",instance=\"b\",rotate_url=\"https://r\"}" });
    [keys, vec![link]].concat()
}

#[test]
fn the_next_expiries_have_the_state_of_their_own_thresholds_and_quiet_ones_come_last() {
    let input = input();
    let dashboards = dashboards();
    let queries = queries(&dashboards[0].1);
    let query_of = |title: &str| queries.iter().find(|query| query.0 == title).unwrap().1;
    let row = |account: &str, id: &str, team: &str, state: &str, more: &str, left: i32| {
        let labels = format!(
            "{{account=\"{account}\",key_id=\"{id}\",name=\"key {id}\",state=\"{state}\",\
             team=\"{team}\"{more}}}"
        );
        json!({ "labels": labels, "value": left })
    };
    let red = [
        row("one", "k1", "red", "3 warning", "", 1000),
        row(
            "one",
            "k2",
            "red",
            "2 critical",
            ",rotate_url=\"https://r\"",
            340,
        ),
        row("one", "k3", "red", "1 expired", "", -30),
        row("one", "k4", "red", "4 valid", "", 1000),
        row("one", "k5", "red", "5 superseded", "", -20),
        row("one", "k6", "red", "6 muted", "", -10),
    ];
    let blue = [row("two", "k1", "blue", "2 critical", "", 500)];
    let count = |value: u32| json!([{ "labels": "{}", "value": value }]);
    let expected = [
        ("Next expiries", ".*", json!([&red[..], &blue].concat())),
        ("Next expiries", "blue", json!(blue)),
        ("Expired", ".*", count(1)),
        ("Critical", ".*", count(2)),
        ("Critical", "red", count(1)),
        ("Warning", ".*", count(1)),
        ("Keys", ".*", count(8)),
    ];
    let tests: Vec<Value> = expected
        .iter()
        .map(|(title, team, samples)| {
            let query = filled(query_of(title), team);
            json!({ "expr": query, "eval_time": "1m", "exp_samples": samples })
        })
        .collect();
    let file = json!({ "evaluation_interval": "1m", "tests": [
        { "interval": "1m", "input_series": input, "promql_expr_test": tests }
    ] });
    let folder = Folder::new("dashboard-logic");
    let file = folder.file("test.yml", &file.to_string());
    demand(debian("promtool").args(["test", "rules"]).arg(file));
    // The table sorts by state first, so that quiet keys come last.
    let table = panels(&dashboards[0].1)
        .into_iter()
        .find(|it| it["title"] == "Next expiries");
    let sort = json!([
        { "displayName": "State", "desc": false }, { "displayName": "Time left", "desc": false }
    ]);
    assert_eq!(table.unwrap()["options"]["sortBy"], sort);
}
