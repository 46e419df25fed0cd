//! What `explain` says about alerts, compared with what Prometheus makes of the shipped rules.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::alerts::{Alert, alerts};
use api_key_exporter::domain::allow_list::AllowList;
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::glob::Glob;
use api_key_exporter::domain::inventory::{Entry, Inventory};
use api_key_exporter::domain::key::{Details, Expiry, Field, Fields, Key, KeyId, LastUse, Scopes};
use api_key_exporter::domain::listing::{Listing, Rejects};
use api_key_exporter::domain::policy::{Limits, Policy};
use api_key_exporter::domain::view::ViewSettings;
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::pages::Overview;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::golden::EVERYTHING;
use crate::prometheus::{shipped, shorten};
use crate::support::Folder;
use crate::tools::{debian, demand};

const DAY: i64 = 86_400;

/// promtool's clock starts at 1970, and the rules look back for an hour.
const NOW: i64 = 7_200;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn key(id: &str, expiry: Expiry) -> Key {
    Key {
        id: KeyId::parse(id).unwrap(),
        label: None,
        organization_id: None,
        mode: None,
        is_own: false,
        is_disabled: false,
        expiry,
        created_at: None,
        updated_at: None,
        scopes: Some(Scopes::new(vec!["a.read"])),
        allow_list: Some(AllowList::parse([Some("10.0.0.1")].into_iter())),
        unreadable: Fields::default(),
        is_listed_expired: false,
        unlisted_since: None,
        details: None,
    }
}

fn used(last_use: LastUse) -> Details {
    Details {
        label: None,
        last_use,
        requests: None,
        read_at: at(NOW),
    }
}

/// Keys on both sides of each boundary, in each circumstance.
fn keys() -> Vec<Key> {
    let ends = |id: &str, left: i64| key(id, Expiry::At(at(NOW + left)));
    let mut keys = Vec::new();
    let lefts = [
        30 * DAY + 1,
        30 * DAY,
        7 * DAY + 1,
        7 * DAY,
        1,
        0,
        -1,
        -9 * DAY,
    ];
    for (number, left) in lefts.into_iter().enumerate() {
        keys.push(ends(&format!("plain_{number}"), left));
        keys.push(ends(&format!("muted_{number}"), left));
        keys.push(Key {
            is_disabled: true,
            ..ends(&format!("disabled_{number}"), left)
        });
        keys.push(Key {
            is_own: true,
            ..ends(&format!("own_{number}"), left)
        });
        keys.push(Key {
            is_own: true,
            ..ends(&format!("muted_own_{number}"), left)
        });
        keys.push(Key {
            is_own: true,
            is_disabled: true,
            ..ends(&format!("disabled_own_{number}"), left)
        });
        let end = NOW + left;
        // Used long ago, just outside and just inside each window, and never.
        let uses = [
            Some(LastUse::At(at(end - 31 * DAY))),
            Some(LastUse::At(at(end - 30 * DAY - 1))),
            Some(LastUse::At(at(end - 30 * DAY))),
            Some(LastUse::At(at(end - 7 * DAY - 1))),
            Some(LastUse::At(at(end - 7 * DAY))),
            Some(LastUse::Never),
            None,
        ];
        for (of_use, last_use) in uses.into_iter().enumerate() {
            let prefix = if of_use == 2 { "muted_" } else { "" };
            let old = format!("{prefix}old_{number}_{of_use}");
            for (id, created, end) in [
                (old, -100 * DAY, end),
                (format!("new_{number}_{of_use}"), -50 * DAY, 1_000 * DAY),
            ] {
                keys.push(Key {
                    label: None,
                    created_at: Some(at(created)),
                    details: last_use.map(used).map(Box::new),
                    ..key(&id, Expiry::At(at(end)))
                });
            }
        }
    }
    let far = |id: &str| ends(id, 500 * DAY);
    let mut unreadable = Fields::default();
    unreadable.insert(Field::Expiry);
    for prefix in ["", "muted_"] {
        let id = |name: &str| format!("{prefix}{name}");
        keys.push(key(&id("never"), Expiry::Never));
        keys.push(key(&id("exempt"), Expiry::Never));
        keys.push(key(&id("unknown"), Expiry::Unknown));
        keys.push(Key {
            unreadable,
            ..ends(&id("kept"), DAY)
        });
        keys.push(Key {
            allow_list: Some(AllowList::unrestricted()),
            scopes: Some(Scopes::new(vec!["users.delete"])),
            ..far(&id("open"))
        });
        for (name, age) in [("young", 200 * DAY - 1), ("aged", 200 * DAY)] {
            keys.push(Key {
                created_at: Some(at(NOW - age)),
                ..far(&id(name))
            });
        }
    }
    keys
}

fn overview() -> Overview {
    let entry = |pattern: &str| Entry {
        warning: Some(TimeDelta::days(30)),
        critical: Some(TimeDelta::days(7)),
        ..Entry::new(Glob::parse(pattern).unwrap())
    };
    let named = |pattern: &str, name: &str| Entry {
        name: Some(name.into()),
        ..entry(pattern)
    };
    // A pair has one name, by its ids.
    let mut entries = Vec::new();
    for number in 0..8 {
        for of_use in 0..7 {
            let name = format!("pair {number} {of_use}");
            let mut muted = named(&format!("muted_old_{number}_{of_use}"), &name);
            muted.muted_until = Some(at(NOW + 1));
            entries.extend([
                muted,
                named(&format!("old_{number}_{of_use}"), &name),
                named(&format!("new_{number}_{of_use}"), &name),
            ]);
        }
    }
    entries.push(Entry {
        exempt: [Policy::NeverExpires].into_iter().collect(),
        ..entry("exempt")
    });
    entries.push(Entry {
        muted_until: Some(at(NOW + 1)),
        ..entry("muted_*")
    });
    entries.push(entry("*"));
    let rules = AssessmentRules {
        inventory: Inventory::new(entries),
        policy: Limits {
            privileged_scopes: Some([Glob::parse("users.*").unwrap()].into()),
            max_age: Some(TimeDelta::days(200)),
            ..Limits::default()
        },
        ..AssessmentRules::default()
    };
    let account = Account {
        name: "shop".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.example.com/".into(),
        interval: Duration::from_secs(300),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
    };
    let outcome = Outcome {
        result: Ok(Listing::new(keys(), Rejects::default(), None)),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let (state, _) = AccountState::new(Arc::new(account)).after(outcome, &rules, at(NOW));
    Overview {
        states: [Arc::new(state)].into(),
        rules: Arc::new(rules),
        now: at(NOW),
    }
}

/// The exporter's metrics as they are scraped from 1970 on, as input of promtool.
fn series(overview: &Overview) -> String {
    let settings = ViewSettings {
        rules: overview.rules.clone(),
        metrics: EVERYTHING,
    };
    let states = overview.states.iter().map(|state| (**state).clone());
    let exposition = Exposition::new(states, &settings, overview.now);
    let body = exposition.body(overview.now, &[], Format::Text, Encoding::Identity);
    let text = String::from_utf8(body.concat()).unwrap();
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let name = name.replace('\'', "''");
        writeln!(
            out,
            "      - series: '{name}'\n        values: '{value}+0x130'"
        )
        .unwrap();
    }
    out
}

#[test]
fn the_alerts_of_each_key_are_those_that_the_rules_raise() {
    let overview = overview();
    let (mut expected, mut seen) = (String::new(), BTreeSet::new());
    for row in overview.keys() {
        for alert in alerts(row.key, &row.assessment, row.is_superseded) {
            let (name, severity) = (alert.name, alert.severity.as_str());
            let policy = alert
                .policy
                .map(|policy| format!(", policy=\"{}\"", policy.as_str()));
            let policy = policy.unwrap_or_default();
            seen.insert((name, severity));
            writeln!(
                expected,
                "          - labels: '{{alertname=\"{name}\", key_id=\"{}\", \
                 severity=\"{severity}\"{policy}}}'\n            value: 1",
                row.key.id
            )
            .unwrap();
        }
    }
    let all: BTreeSet<_> = Alert::ALL.map(|it| (it.name, it.severity.as_str())).into();
    assert_eq!(seen, all);
    // Conditions only: an alert fires as soon as its condition holds, and no longer.
    let (rules, _) = shorten(&shipped("rules.yml"), "for", "0s");
    let (rules, _) = shorten(&rules, "keep_firing_for", "0s");
    let folder = Folder::new("alerts-of-keys");
    folder.file("rules.yml", &rules);
    let query = "count by (alertname, key_id, severity, policy) (ALERTS{key_id!=\"\"})";
    let tests = format!(
        "rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    \
         input_series:\n{}    promql_expr_test:\n      - expr: '{query}'\n        \
         eval_time: {NOW}s\n        exp_samples:\n{expected}",
        series(&overview)
    );
    folder.file("tests.yml", &tests);
    let mut promtool = debian("promtool");
    promtool.args(["test", "rules", "tests.yml"]);
    demand(promtool.current_dir(&folder.0));
}

#[test]
fn every_shipped_alert_about_keys_is_known_with_its_wait() {
    let rules: Value = serde_yaml_ng::from_str(&shipped("rules.yml")).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let mut groups = groups.filter(|group| group["name"] == "api-keys");
    let rules = groups.next().unwrap()["rules"].as_array().unwrap().iter();
    let alerts = rules.filter(|rule| rule["alert"].is_string()).map(|rule| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let wait = humantime::parse_duration(&text(&rule["for"])).unwrap();
        (
            text(&rule["alert"]),
            text(&rule["labels"]["severity"]),
            wait,
        )
    });
    let known = Alert::ALL.map(|alert| {
        let severity = alert.severity.as_str().to_owned();
        (
            alert.name.to_owned(),
            severity,
            alert.wait.to_std().unwrap(),
        )
    });
    assert_eq!(alerts.collect::<Vec<_>>(), known);
}
