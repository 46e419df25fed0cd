//! The Prometheus rules, the scrape and the Alertmanager configuration, judged by the programs that
//! will read them; and a runbook for each alert.

pub(crate) mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use api_key_exporter::domain::failure::Reason;
use serde_json::{Value, json};

use crate::support::{Folder, in_repository};
use crate::tools::{ask, debian, demand};

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alerts of the shipped rules with their severities, in their order.
pub(crate) fn alerts() -> Vec<(String, String)> {
    let rules = read("deploy/prometheus/rules.yml");
    let alerts = rules.split("- alert: ").skip(1).map(|rule| {
        let (_, rest) = rule.split_once("severity: ").unwrap();
        let word = |text: &str| text.lines().next().unwrap().to_owned();
        (word(rule), word(rest))
    });
    alerts.collect()
}

/// `promtool` in the folder of the rules.
fn promtool(arguments: &[&str]) -> std::process::Command {
    let mut command = debian("promtool");
    command
        .args(arguments)
        .current_dir(in_repository("deploy/prometheus"));
    command
}

#[test]
fn promtool_accepts_the_rules_and_the_scrape_configuration() {
    demand(&mut promtool(&["check", "rules", "rules.yml"]));
    demand(&mut promtool(&["check", "config", "prometheus.yml"]));
}

#[test]
fn the_rules_fire_and_keep_quiet_as_their_tests_say() {
    demand(&mut promtool(&["test", "rules", "rules.test.yml"]));
}

#[test]
fn each_alert_has_a_test_that_reads_its_words() {
    let tests = read("deploy/prometheus/rules.test.yml");
    for (alert, _) in alerts() {
        let is_tested = tests.contains(&format!("- alertname: {alert}\n"));
        assert!(is_tested, "{alert} has no alert_rule_test");
    }
}

#[test]
fn each_alert_has_what_conventions_ask_for_and_a_runbook() {
    let rules = read("deploy/prometheus/rules.yml");
    let mut expected = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        for field in ["for: ", "keep_firing_for: ", "summary: ", "description: >-"] {
            assert!(rule.contains(field), "{name} has no {field}");
        }
        let runbook =
            format!("runbook_url: https://example.com/api-key-exporter/docs/runbooks/{name}.md\n");
        assert!(rule.contains(&runbook), "{name} has no {runbook}");
        expected.insert(format!("{name}.md"));
    }
    let runbooks: BTreeSet<String> = fs::read_dir(in_repository("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(runbooks, expected);
    // An alert of two severities has a rule for each, and one page.
    let mut severities: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (alert, severity) in alerts() {
        severities.entry(alert).or_default().push(severity);
    }
    for (alert, severities) in severities {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        let start = format!("# {alert}\n\nSeverity: {}.\n", severities.join(", "));
        assert!(page.starts_with(&start), "{alert} does not start {start}");
        for heading in ["Meaning", "Impact", "Diagnosis", "Mitigation", "Escalation"] {
            let has = page.contains(&format!("\n## {heading}\n\n"));
            assert!(has, "{alert}: no {heading}");
        }
    }
}

#[test]
fn every_summary_names_the_key_and_its_team_or_the_account_or_the_exporter() {
    let rules: Value = serde_yaml_ng::from_str(&read("deploy/prometheus/rules.yml")).unwrap();
    for (group, subjects) in [
        (
            "api-keys",
            &["\"{{ $labels.name }}\"", "$labels.team", "$labels.account"][..],
        ),
        ("api-key-accounts", &["{{ $labels.account }}"]),
        ("api-key-exporter", &["api-key-exporter"]),
    ] {
        let groups = rules["groups"].as_array().unwrap().iter();
        let mut named = groups.filter(|candidate| candidate["name"] == group);
        let rules = named.next().unwrap()["rules"].as_array().unwrap().iter();
        let alerts: Vec<&Value> = rules.filter(|rule| !rule["alert"].is_null()).collect();
        assert!(alerts.len() >= 3, "{group}");
        for alert in alerts {
            let summary = alert["annotations"]["summary"].as_str().unwrap();
            for subject in subjects {
                assert!(
                    summary.contains(subject),
                    "{}: no {subject}",
                    alert["alert"]
                );
            }
            let links = ["rotate_url", "key_runbook_url"];
            let has_links = links.map(|link| alert["annotations"][link].is_string());
            assert_eq!(has_links, [group == "api-keys"; 2], "{}", alert["alert"]);
        }
    }
}

#[test]
fn a_runbook_explains_every_reason_of_a_failed_poll() {
    let page = read("docs/runbooks/ApiKeyAccountFailing.md");
    for reason in Reason::ALL.map(Reason::as_str) {
        let row = format!("\n| `{reason}` | ");
        assert!(page.contains(&row), "no row for {reason}");
    }
}

#[test]
fn the_scrape_configuration_lets_the_exporters_labels_win() {
    let config: Value = serde_yaml_ng::from_str(&read("deploy/prometheus/prometheus.yml")).unwrap();
    for scrape in config["scrape_configs"].as_array().unwrap() {
        assert_eq!(scrape["honor_labels"], true, "{}", scrape["job_name"]);
    }
}

#[test]
fn the_documentation_lists_every_alert_with_its_severity_and_its_runbook() {
    let page = read("docs/alerts.md");
    let listed: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| [`ApiKey"))
        .collect();
    let alerts = alerts();
    assert_eq!(listed.len(), alerts.len());
    for (line, (alert, severity)) in listed.iter().zip(alerts) {
        let start = format!("| [`{alert}`](runbooks/{alert}.md) | {severity} | ");
        assert!(line.starts_with(&start), "{line} is not {start}");
    }
}

/// Where the shipped Alertmanager configuration sends an alert of these labels.
fn receivers(labels: &[&str]) -> String {
    let file = in_repository("deploy/prometheus/alertmanager.yml");
    let mut command = debian("amtool");
    command
        .args(["config", "routes", "test", "--config.file"])
        .arg(file)
        .args(labels);
    demand(&mut command).trim().to_owned()
}

#[test]
fn amtool_accepts_the_alertmanager_configuration_and_can_say_no() {
    let check = |path: &str| {
        let mut command = debian("amtool");
        ask(command.arg("check-config").arg(in_repository(path)))
    };
    let said = check("deploy/prometheus/alertmanager.yml");
    assert!(said.is_content, "{}", said.words);
    assert!(!check("deploy/prometheus/prometheus.yml").is_content);
}

#[test]
fn alerts_go_to_the_team_and_by_severity() {
    for (labels, receiver) in [
        (
            &[
                "alertname=ApiKeyExpired",
                "severity=critical",
                "team=payments",
            ][..],
            "payments-pager",
        ),
        (
            &[
                "alertname=ApiKeyExpiringSoon",
                "severity=warning",
                "team=payments",
            ],
            "payments-chat",
        ),
        (
            &[
                "alertname=ApiKeyAboutToExpire",
                "severity=critical",
                "team=web",
            ],
            "web-pager",
        ),
        (
            &[
                "alertname=ApiKeyNeverExpires",
                "severity=warning",
                "team=web",
            ],
            "web-chat",
        ),
        // A team without a route, and no team at all.
        (
            &[
                "alertname=ApiKeyExpired",
                "severity=critical",
                "team=unheard",
            ],
            "platform-pager",
        ),
        (
            &["alertname=ApiKeyExpired", "severity=critical"],
            "platform-pager",
        ),
        (
            &[
                "alertname=ApiKeyAccountFailing",
                "severity=warning",
                "account=main",
            ],
            "platform-chat",
        ),
        (
            &[
                "alertname=ApiKeyAccountForbidden",
                "severity=critical",
                "provider=bitgpt",
            ],
            "platform-pager",
        ),
        (
            &[
                "alertname=ApiKeySupersededStillUsed",
                "severity=critical",
                "team=payments",
            ],
            "payments-pager",
        ),
        (
            &["alertname=ApiKeyExporterAbsent", "severity=critical"],
            "platform-pager",
        ),
        (
            &[
                "alertname=ApiKeySupersededNotRemoved",
                "severity=info",
                "team=web",
            ],
            "reminders",
        ),
        (
            &["alertname=SomebodyElses", "severity=critical", "team=web"],
            "platform-chat",
        ),
    ] {
        assert_eq!(receivers(labels), receiver, "{labels:?}");
    }
    for (alert, severity) in alerts() {
        let expected = match severity.as_str() {
            "critical" => "platform-pager",
            "warning" => "platform-chat",
            "info" => "reminders",
            other => panic!("{alert}: {other} is no severity"),
        };
        let labels = [format!("alertname={alert}"), format!("severity={severity}")];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(receivers(&labels), expected, "{alert}");
    }
}

#[test]
fn a_page_names_the_first_key_and_lists_ten() {
    let text = read("deploy/prometheus/alertmanager.yml");
    let mut config: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    config.apply_merge().unwrap();
    let config = serde_json::to_value(&config).unwrap();
    let folder = Folder::new("page-template");
    let none = folder.file("none.tmpl", "");
    let render = |template: &Value, alerts: usize| {
        let alert = |number: usize| {
            json!({ "status": "firing", "annotations": { "summary": format!("key {number}"),
                "description": "words", "rotate_url": if number == 1 { "https://r" } else { "" } } })
        };
        let alerts: Vec<Value> = (1..=alerts).map(alert).collect();
        let data = json!({ "status": "firing", "alerts": alerts }).to_string();
        let mut command = debian("amtool");
        command
            .args(["template", "render", "--template.text"])
            .arg(template.as_str().unwrap())
            .arg("--template.glob")
            .arg(&none)
            .arg("--template.data")
            .arg(folder.file("data.json", &data));
        demand(&mut command)
    };
    let receivers = config["receivers"].as_array().unwrap().iter();
    let pagers: Vec<&Value> = receivers
        .map(|receiver| &receiver["pagerduty_configs"][0])
        .filter(|pager| !pager.is_null())
        .collect();
    assert_eq!(pagers.len(), 3);
    for pager in pagers {
        assert_eq!(render(&pager["description"], 1), "key 1");
        assert_eq!(render(&pager["description"], 12), "key 1 (and 11 more)");
        let list = render(&pager["details"]["alerts"], 12);
        let lines: Vec<&str> = list.lines().collect();
        assert_eq!(lines.len(), 12, "{list}");
        assert_eq!(
            lines[..3],
            ["key 1. words", "Rotate: https://r", "key 2. words"]
        );
        assert_eq!(lines[10..], ["key 10. words", "and 2 more"]);
    }
}

/// docs/scaling.md drops metrics that no rule needs.
#[test]
fn no_rule_needs_a_metric_that_the_scaling_guide_drops() {
    let page = read("docs/scaling.md");
    let (_, regex) = page.split_once("    regex: ").unwrap();
    let dropped: Vec<&str> = regex.lines().next().unwrap().split('|').collect();
    assert!(dropped.len() >= 10, "{dropped:?}");
    let golden = read("tests/golden/metrics.prom");
    let rules = read("deploy/prometheus/rules.yml");
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    let used: BTreeSet<&str> = rules.split(|letter| !is_name(letter)).collect();
    for name in dropped {
        assert!(
            golden.contains(&format!("# TYPE {name} ")),
            "{name} is no metric"
        );
        assert!(!used.contains(name), "a rule needs {name}");
    }
}

#[test]
fn inhibition_names_only_alerts_that_there_are() {
    let known: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let text = read("deploy/prometheus/alertmanager.yml");
    let (_, rules) = text.split_once("inhibit_rules:").unwrap();
    let rules = rules.split("\nreceivers:").next().unwrap();
    let named: BTreeSet<String> = rules
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| word.starts_with("ApiKey"))
        .map(str::to_owned)
        .collect();
    assert!(named.len() > 5 && named.is_subset(&known), "{named:?}");
}
