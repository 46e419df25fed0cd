//! Prometheus' own judge of what we expose.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use api_key_exporter::domain::policy::Policy;
use api_key_exporter::fake_api::Reply;
use serde_json::json;

use crate::process::{Daemon, binary};
use crate::support::{Api, Exporter, Folder};

/// Hands `text` to `promtool check metrics` and demands silence.
pub(crate) fn check_metrics(what: &str, text: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("promtool is needed (Debian package prometheus; tests/run installs it): {error}")
    });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        output.status.success() && words.is_empty(),
        "{what}: {words}\n{text}"
    );
}

#[test]
fn promtool_likes_the_golden_exposition() {
    check_metrics(
        "the golden exposition",
        &crate::golden::exposition(crate::golden::EVERYTHING),
    );
}

#[test]
fn promtool_can_say_no() {
    let refused =
        std::panic::catch_unwind(|| check_metrics("a torn line", "api_key_info{account=\"a"));
    assert!(refused.is_err());
}

#[tokio::test]
async fn promtool_likes_hostile_values() {
    let odd = "q\"b\\n\nr\r\0\u{1b}[31m\u{202e}\u{2028}é鍵🔑{}=,# sk_live_abc";
    let keys = [
        json!({ "id": "a", "label": odd, "organization_id": odd, "scopes": [odd, "a\"b", "a\\", "a\nb"],
        "ip_allow_list": [odd], "expires_at": "9999-12-31 23:59:59" }),
    ];
    let api = Api::start(Reply::listing(&keys)).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    check_metrics("hostile values", &exporter.text().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_starts_at_once_shows_lively_keys_fails_now_and_then_and_satisfies_promtool() {
    let folder = Folder::new("demo");
    let daemon = Daemon::start(
        binary(&["demo", "--web.listen-address", "127.0.0.1:0"]),
        &folder,
    );
    daemon
        .logs("msg=\"listed keys for the first time since the start\" account=demo")
        .await;
    let text = daemon.get("/metrics").await;
    check_metrics("the demo", &text);
    let scrape = crate::support::Scrape::parse(&text);
    for state in ["valid", "expiring", "expired", "never_expires", "unknown"] {
        let series = format!("api_key_account_keys{{account=\"demo\",state=\"{state}\"}}");
        assert!(scrape.get(&series).unwrap() >= 1.0, "{series}");
    }
    for family in ["api_key_own{", "api_key_info{"] {
        assert!(!scrape.of(family).is_empty(), "{family}");
    }
    let some =
        |family: &str, value: f64| scrape.of(family).iter().any(|(_, shown)| *shown == value);
    assert!(some("api_key_superseded{", 1.0) && some("api_key_ip_unrestricted{", 1.0));
    // The third poll fails, some 20 s after the start.
    let start = std::time::Instant::now();
    while !daemon
        .log()
        .contains("level=WARN msg=\"listing keys failed\" account=demo")
    {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let log = daemon.log();
    for field in [
        "reason=server_error",
        "support_id=support_",
        "error=\"An unexpected error occurred\"",
        "retry_in=",
    ] {
        assert!(log.contains(field), "{field} in {log}");
    }
    let text = daemon.get("/metrics").await;
    check_metrics("the demo in trouble", &text);
    let scrape = crate::support::Scrape::parse(&text);
    let broken = scrape.of("api_key_policy_violation{");
    for policy in Policy::ALL.map(Policy::as_str) {
        let label = format!("policy=\"{policy}\"");
        let is_broken = broken.iter().any(|(series, _)| series.contains(&label));
        assert!(is_broken, "no key breaks {policy}: {broken:?}");
    }
    assert!(text.contains("name=\"Checkout\",team=\"payments\""));
    for family in ["api_key_disabled{", "api_key_unlisted{"] {
        daemon
            .until(family, |scrape| !scrape.of(family).is_empty())
            .await;
    }
    let muted = scrape.of("api_key_muted{");
    assert!(muted.iter().any(|(_, value)| *value == 1.0), "{muted:?}");
    assert!(!scrape.of("api_key_requests_total{").is_empty());
    daemon.signal("-INT");
    assert_eq!(daemon.ended().0, Some(0));
}
