//! What the operator says of keys, as the running exporter shows it: names, thresholds, mutes,
//! policies, and the lines in the log.

use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Exporter, Folder, TOKEN, config, config_of, key, listing};

/// As the API writes times.
fn plain(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn masked() -> String {
    format!("{}...{}", &TOKEN[..20], &TOKEN[TOKEN.len() - 5..])
}

fn labelled(id: &str, label: &str) -> Value {
    let mut key = key(id);
    key["label"] = json!(label);
    key
}

/// A series of a key of the account named `default`.
fn of(name: &str, key_id: &str, rest: &str) -> String {
    format!("{name}{{account=\"default\",key_id=\"{key_id}\"{rest}}}")
}

#[tokio::test]
async fn names_teams_thresholds_and_policies_reach_the_scrape() {
    let mut forever = key("c");
    forever["expires_at"] = Value::Null;
    forever["ip_allow_list"] = json!([]);
    forever["scopes"] = json!(["users.deactivate"]);
    let api = Api::start(Reply::listing(&[
        labelled("a", "ci-build"),
        key("b"),
        forever,
    ]))
    .await;
    let text = "[[keys]]\nmatch = \"ci-*\"\nname = \"Build\"\nteam = \"platform\"\nwarning = \"3d\"\n\
                [[keys]]\nmatch = \"c\"\nexempt = [\"never_expires\"]\nreason = \"legacy\"\n\
                [[keys]]\nmatch = \"nothing\"\n";
    let exporter = Exporter::with(&config(&api.url(), text, "")).await;
    let scrape = exporter.up().await;
    let info = |key_id: &str, name: &str, team: &str| {
        let rest = format!(
            ",provider=\"bitgpt\",name=\"{name}\",team=\"{team}\",api_env=\"development\",mode=\"\",organization_id=\"\""
        );
        scrape.get(&of("api_key_info", key_id, &rest))
    };
    assert_eq!(info("a", "Build", "platform"), Some(1.0));
    assert_eq!(info("b", "", ""), Some(1.0));
    let threshold = |key_id: &str, severity: &str| {
        let rest = format!(",severity=\"{severity}\"");
        scrape.get(&of("api_key_alert_threshold_seconds", key_id, &rest))
    };
    assert_eq!(threshold("a", "warning"), Some(259_200.0));
    assert_eq!(threshold("a", "critical"), Some(259_200.0));
    assert_eq!(threshold("b", "warning"), Some(2_592_000.0));
    let broken: Vec<&str> = scrape
        .of("api_key_policy_violation")
        .into_iter()
        .map(|(series, _)| series)
        .collect();
    let expected = ["no_ip_allow_list", "privileged_scope"].map(|policy| {
        let rest = format!(",policy=\"{policy}\"");
        of("api_key_policy_violation", "c", &rest)
    });
    assert_eq!(broken, expected);
    assert_eq!(scrape.account("keys_unmatched"), Some(1.0));
    assert_eq!(scrape.get(&of("api_key_muted", "a", "")), Some(0.0));
}

#[tokio::test]
async fn without_an_inventory_no_key_is_unmatched() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    assert_eq!(exporter.up().await.account("keys_unmatched"), None);
}

#[tokio::test]
async fn a_mute_ends_and_a_key_becomes_too_old_between_two_polls() {
    let soon = Utc::now() + TimeDelta::seconds(7);
    let mut old = key("old");
    old["created_at"] = json!(plain(soon - TimeDelta::days(365)));
    let api = Api::start(Reply::listing(&[key("muted"), old])).await;
    let until = soon.to_rfc3339();
    let text = format!(
        "policy.max_age = \"365d\"\n[[keys]]\nmatch = \"muted\"\nmuted_until = \"{until}\"\nreason = \"moves\"\n"
    );
    let mut config = config(&api.url(), &text, "");
    config.accounts[0].interval = Duration::from_secs(60);
    let exporter = Exporter::with(&config).await;
    let muted = of("api_key_muted", "muted", "");
    let too_old = of("api_key_policy_violation", "old", ",policy=\"too_old\"");
    // The first poll comes within five seconds, the next one after the moment is a minute away.
    let scrape = exporter
        .until("the mute ends", |scrape| {
            scrape.get(&muted) == Some(0.0) && scrape.get(&too_old) == Some(1.0)
        })
        .await;
    assert!(Utc::now() >= soon - TimeDelta::seconds(1));
    assert_eq!(scrape.account("polls_total"), Some(1.0));
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test]
async fn each_key_is_expiring_by_its_own_threshold() {
    let in_days = |id: &str, days: i64| {
        let mut key = key(id);
        key["expires_at"] = json!(plain(Utc::now() + TimeDelta::days(days)));
        key
    };
    let mut own = in_days("own", 50);
    own["secret"] = json!(masked());
    let keys = [
        in_days("a", 20),
        in_days("early", 50),
        in_days("late", 20),
        own,
    ];
    let api = Api::start(Reply::listing(&keys)).await;
    let text = "[[keys]]\nmatch = \"early\"\nwarning = \"60d\"\n\
                [[keys]]\nmatch = \"late\"\nwarning = \"10d\"\n";
    let exporter = Exporter::with(&config(&api.url(), text, "")).await;
    let scrape = exporter.up().await;
    let count = |state: &str| {
        scrape.get(&format!(
            "api_key_account_keys{{account=\"default\",state=\"{state}\"}}"
        ))
    };
    assert_eq!((count("expiring"), count("valid")), (Some(3.0), Some(1.0)));
}

#[tokio::test]
async fn a_name_of_the_inventory_makes_a_successor() {
    let mut old = labelled("old", "shop 2025");
    old["created_at"] = json!("2025-01-01 00:00:00");
    old["expires_at"] = json!("2098-01-01 00:00:00");
    let mut new = labelled("new", "shop 2026");
    new["created_at"] = json!("2026-01-01 00:00:00");
    let api = Api::start(Reply::listing(&[old, new, key("nameless")])).await;
    let text = "[[keys]]\nmatch = \"shop 2025\"\nname = \"shop\"\n\
                [[keys]]\nmatch = \"shop 2026\"\nname = \"shop\"\n";
    let exporter = Exporter::with(&config(&api.url(), text, "")).await;
    let scrape = exporter.up().await;
    let expected = [("new", 0.0), ("old", 1.0)].map(|(id, value)| {
        let series = of("api_key_superseded", id, "");
        (series, value)
    });
    let shown: Vec<(String, f64)> = scrape
        .of("api_key_superseded")
        .into_iter()
        .map(|(series, value)| (series.to_owned(), value))
        .collect();
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn an_entry_may_be_meant_for_one_account() {
    let api = Api::start(listing(&["a"])).await;
    let url = api.url();
    let text = "[[keys]]\nmatch = \"a\"\naccount = \"shop\"\nname = \"Shop\"\n";
    let accounts = [("shop", &*url, ""), ("office", &*url, "")];
    let exporter = Exporter::with(&config_of(text, &accounts)).await;
    let unmatched =
        |account: &str| format!("api_key_account_keys_unmatched{{account=\"{account}\"}}");
    exporter
        .until("both accounts are judged", |scrape| {
            scrape.get(&unmatched("shop")) == Some(0.0)
                && scrape.get(&unmatched("office")) == Some(1.0)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_of_the_own_key_of_crossings_and_of_idle_entries() {
    let soon = Utc::now() + TimeDelta::seconds(4);
    let end = plain(soon);
    let mut own = key("own");
    own["secret"] = json!(masked());
    own["scopes"] = json!(["api_keys.read", "users.deactivate"]);
    let mut ending = labelled("ending", "ci-build");
    ending["expires_at"] = json!(end);
    let api = Api::start(Reply::listing(&[own, ending])).await;
    let folder = Folder::new("crossings");
    let path = config_file(&folder, &api.url());
    let text = std::fs::read_to_string(&path).unwrap()
        + "[[keys]]\nmatch = \"ci-*\"\nname = \"Build\"\nteam = \"platform\"\n\
           rotate_url = \"https://wiki/rotate\"\n[[keys]]\nmatch = \"gone\"\n[[keys]]\nmatch = \"ci-build\"\n";
    folder.file("config.toml", &text);
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    daemon.logs("a key expired").await;
    // One more poll, which has nothing new to tell.
    let polls = api.requests().len();
    while api.requests().len() < polls + 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = daemon.log();
    let lines_with = |words: &str| -> Vec<&str> {
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        lines
            .map(|(_, line)| line)
            .filter(|line| line.contains(words))
            .collect()
    };
    assert_eq!(
        lines_with("own key"),
        [
            "level=INFO msg=\"recognized the exporter's own key\" account=default key_id=own \
             expires_at=2099-01-01T00:00:00Z expires_in="
                .to_owned()
                + lines_with("recognized")[0]
                    .split_once("expires_in=")
                    .unwrap()
                    .1,
            "level=WARN msg=\"the exporter's own key holds more scopes than listing needs\" \
             account=default key_id=own needed=api_keys.read scopes=users.deactivate"
                .to_owned(),
        ]
    );
    assert_eq!(
        lines_with("inventory"),
        [
            "level=WARN msg=\"inventory entries match no key, or are shadowed by an earlier entry\" \
             count=2 entries=\"gone, ci-build\""
        ]
    );
    let expires_at = soon.format("%Y-%m-%dT%H:%M:%SZ");
    let who = format!(
        "account=default key_id=ending name=Build team=platform expires_at={expires_at} expires_in="
    );
    let crossings = lines_with("key_id=ending");
    assert_eq!(crossings.len(), 2, "{crossings:?}");
    for (line, words) in crossings
        .iter()
        .zip(["entered its critical threshold", "expired"])
    {
        assert!(
            line.starts_with(&format!("level=WARN msg=\"a key {words}\" {who}")),
            "{line}"
        );
        assert!(line.ends_with("rotate_url=https://wiki/rotate"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_changed_keys_with_old_and_new_values() {
    let key = |ends: &str, scopes: &[&str], list: Value| {
        let mut key = labelled("deploy", "ci");
        key["expires_at"] = json!(ends);
        key["scopes"] = json!(scopes);
        key["ip_allow_list"] = list;
        Reply::listing(&[key])
    };
    let before = key("2098-01-01 00:00:00", &["a", "b"], json!(["192.0.2.0/24"]));
    let api = Api::start(before).await;
    let folder = Folder::new("changes");
    let path = config_file(&folder, &api.url());
    let text = std::fs::read_to_string(&path).unwrap()
        + "[[keys]]\nmatch = \"ci\"\nname = \"Build\"\nteam = \"platform\"\n";
    folder.file("config.toml", &text);
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    daemon.logs("listed keys for the first time").await;
    api.reply(key(
        "2099-02-03 00:00:00",
        &["b", "c"],
        json!(["192.0.2.0/24", "198.51.100.7"]),
    ));
    daemon.logs("change=expiry").await;
    let log = daemon.log();
    let who = "account=default key_id=deploy name=Build team=platform \
               expires_at=2099-02-03T00:00:00Z expires_in=";
    for (start, end) in [
        (
            "level=WARN msg=\"the scopes of a key were widened\"",
            "change=scopes added=c removed=a",
        ),
        (
            "level=WARN msg=\"the IP allow list of a key was widened\"",
            "change=ip_allow_list added=198.51.100.7",
        ),
        (
            "level=INFO msg=\"a key changed\"",
            "change=expiry from=2098-01-01T00:00:00Z to=2099-02-03T00:00:00Z",
        ),
    ] {
        let is_it = |line: &&str| line.contains(&format!("{start} {who}")) && line.ends_with(end);
        assert_eq!(
            log.lines().filter(is_it).count(),
            1,
            "{start} … {end}: {log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inventory_is_reloaded_with_the_configuration_all_or_nothing() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("inventory-reload");
    let entry = |name: &str| format!("[[keys]]\nmatch = \"a\"\nname = \"{name}\"\n");
    folder.file("inventory.toml", &entry("before"));
    let path = config_file(&folder, &api.url());
    let text = std::fs::read_to_string(&path).unwrap();
    folder.file(
        "config.toml",
        &format!("inventory_file = \"inventory.toml\"\n{text}"),
    );
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    daemon.logs("listed keys for the first time").await;
    assert!(daemon.get("/metrics").await.contains("name=\"before\""));
    folder.file("inventory.toml", "[[keys]]\nname = \"no match\"\n");
    daemon.signal("-HUP");
    daemon.logs("invalid configuration").await;
    let text = daemon.get("/metrics").await;
    assert!(
        text.contains("name=\"before\""),
        "the old inventory should stay in force"
    );
    assert!(text.contains("api_key_exporter_config_last_reload_successful 0"));
    folder.file("inventory.toml", &entry("after"));
    daemon.signal("-HUP");
    daemon.logs("reloaded the configuration").await;
    let text = daemon.get("/metrics").await;
    assert!(
        text.contains("name=\"after\"") && !text.contains("name=\"before\""),
        "{text}"
    );
    assert_eq!(api.requests().len(), 1, "judging anew needs no poll");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crossing_is_lines_with_once_across_a_restart_where_state_is_saved() {
    let mut expired = key("gone");
    expired["expires_at"] = json!(plain(Utc::now() - TimeDelta::hours(1)));
    let api = Api::start(Reply::listing(&[expired])).await;
    let folder = Folder::new("lines_with-once");
    let path = config_file(&folder, &api.url());
    let text = std::fs::read_to_string(&path).unwrap();
    folder.file(
        "config.toml",
        &format!("state.directory = {:?}\n{text}", folder.0),
    );
    for life in ["first", "second"] {
        let asked = api.requests().len();
        let daemon = Daemon::start(
            binary(&["--config.file", &path, "--log.level", "debug"]),
            &folder,
        );
        daemon.logs("msg=\"listed keys\" account=default").await;
        let start = std::time::Instant::now();
        // The poll is over and published, and so saved at the end.
        while !daemon
            .get("/metrics")
            .await
            .contains("api_key_account_up{account=\"default\"} 1")
        {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                daemon.log()
            );
        }
        let lines_with = daemon.log().matches("a key expired").count();
        assert_eq!(
            lines_with,
            usize::from(life == "first"),
            "{life}: {}",
            daemon.log()
        );
        assert!(api.requests().len() > asked);
        daemon.signal("-TERM");
        assert_eq!(daemon.ended().0, Some(0));
    }
}
