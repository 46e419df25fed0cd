//! Configuration and reload, with the real binary.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use reqwest::Method;

use crate::process::{Daemon, binary, config_file, wrapped};
use crate::support::{Api, Folder, Scrape, TOKEN, client, listing};
use crate::tools::debian;

/// One account's section, polled slowly enough that a second poll within the test is a reload's.
fn account(folder: &Folder, name: &str, url: &str, lines: &str) -> String {
    let token = folder.0.join("token").display().to_string();
    format!("[[accounts]]\nname = {name:?}\nbase_url = {url:?}\ntoken_file = {token:?}\n{lines}\n")
}

/// A running daemon and the text in front of its accounts.
async fn daemon(folder: &Folder, accounts: &str) -> (Daemon, String) {
    folder.file("token", TOKEN);
    let head = "poll.interval = \"20s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
                web.listen_addresses = [\"127.0.0.1:0\"]\nweb.enable_lifecycle = true\n";
    let path = folder.file("config.toml", &format!("{head}{accounts}"));
    let path = path.display().to_string();
    let daemon = Daemon::start(binary(&["--config.file", &path]), folder);
    daemon.address().await;
    (daemon, head.to_owned())
}

async fn scrape(daemon: &Daemon) -> Scrape {
    Scrape::parse(&daemon.get("/metrics").await)
}

async fn until(daemon: &Daemon, what: &str, condition: impl Fn(&Scrape) -> bool) -> Scrape {
    let start = std::time::Instant::now();
    loop {
        let scrape = scrape(daemon).await;
        if condition(&scrape) {
            return scrape;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not in time: {what}\n{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const SUCCESSFUL: &str = "api_key_exporter_config_last_reload_successful";
const SUCCESS_AT: &str = "api_key_exporter_config_last_reload_success_timestamp_seconds";

fn up(account: &str) -> String {
    format!("api_key_account_up{{account=\"{account}\"}}")
}

fn polls(account: &str) -> String {
    format!("api_key_account_polls_total{{account=\"{account}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_go_and_change_without_costing_the_others_anything() {
    let (one, two) = (
        Api::start(listing(&["a"])).await,
        Api::start(listing(&["b"])).await,
    );
    let folder = Folder::new("accounts");
    let first = account(&folder, "first", &one.url(), "");
    let second = account(&folder, "second", &two.url(), "");
    let (daemon, head) = daemon(&folder, &format!("{first}{second}")).await;
    let all_up = |scrape: &Scrape| {
        scrape.get(&up("first")) == Some(1.0) && scrape.get(&up("second")) == Some(1.0)
    };
    until(&daemon, "both are up", all_up).await;
    let fewer = "level=WARN msg=\"the new configuration removes accounts; is the file complete?\"";

    // Added in front, removed, and kept.
    let third = account(&folder, "third", &two.url(), "");
    folder.file("config.toml", &format!("{head}{third}{first}"));
    daemon.signal("-HUP");
    let after = until(&daemon, "the third is up", |scrape| {
        scrape.get(&up("third")) == Some(1.0)
    })
    .await;
    assert!(
        after
            .of("")
            .iter()
            .all(|(series, _)| !series.contains("\"second\""))
    );
    assert_eq!(after.get(&up("first")), Some(1.0));
    assert_eq!(
        after.get(&polls("first")),
        Some(1.0),
        "it was not polled again"
    );
    assert_eq!(one.requests().len(), 1);
    daemon
        .logs("msg=\"reloaded the configuration\" accounts=2 added=third removed=second\n")
        .await;
    daemon.logs(&format!("{fewer} removed=second\n")).await;

    // Changed: it is polled anew, and knows what it knew.
    let changed = account(&folder, "first", &one.url(), "interval = \"10s\"");
    one.reply(Reply::error(500, "no", "support_1"));
    folder.file("config.toml", &format!("{head}{changed}{third}"));
    daemon.signal("-HUP");
    let after = until(&daemon, "it is polled anew", |scrape| {
        scrape.get(&polls("first")) == Some(2.0)
    })
    .await;
    let interval = "api_key_account_poll_interval_seconds{account=\"first\"}";
    assert_eq!(after.get(interval), Some(10.0));
    assert_eq!(after.get(&up("first")), Some(0.0));
    assert_eq!(after.key_ids(), ["a", "b"]);

    // The same name at another API is another account.
    let moved = account(&folder, "first", &two.url(), "");
    folder.file("config.toml", &format!("{head}{moved}"));
    daemon.signal("-HUP");
    let after = until(&daemon, "it has moved", |scrape| {
        scrape.get(&polls("first")) == Some(1.0) && scrape.get(&up("first")) == Some(1.0)
    })
    .await;
    assert_eq!(after.key_ids(), ["b"]);
    for line in [
        "msg=\"reloaded the configuration\" accounts=2 changed=first\n",
        "msg=\"reloaded the configuration\" accounts=1 removed=third changed=first\n",
        &format!("{fewer} removed=third\n"),
    ] {
        daemon.logs(line).await;
    }
    let log = daemon.log();
    assert_eq!(log.matches(fewer).count(), 2, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_old_configuration_in_force() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("broken");
    let good = account(&folder, "first", &api.url(), "");
    let (daemon, head) = daemon(&folder, &good).await;
    let before = until(&daemon, "it is up", |scrape| {
        scrape.get(&up("first")) == Some(1.0)
    })
    .await;
    assert_eq!(before.get(SUCCESSFUL), Some(1.0));
    let path = folder.0.join("config.toml");
    let wrong_account = format!("{head}{good}[[accounts]]\n");
    let breaks = [
        ("broken", Some("poll = [")),
        ("missing", None),
        ("half-written", Some(&head[..30])),
        ("empty", Some("")),
        ("one of two accounts is wrong", Some(&*wrong_account)),
    ];
    for (name, text) in breaks {
        let before = scrape(&daemon).await;
        match text {
            Some(text) => drop(folder.file("config.toml", text)),
            None => fs::remove_file(&path).unwrap(),
        }
        daemon.signal("-HUP");
        let refused = |scrape: &Scrape| scrape.get(SUCCESSFUL) == Some(0.0);
        let after = until(&daemon, name, refused).await;
        assert_eq!(after.get(SUCCESS_AT), before.get(SUCCESS_AT), "{name}");
        assert_eq!(after.get(&up("first")), Some(1.0), "{name}");
        assert_eq!(after.key_ids(), ["a"], "{name}");
        assert!(
            daemon
                .log()
                .contains("level=ERROR msg=\"invalid configuration")
        );
        folder.file("config.toml", &format!("{head}{good}"));
        daemon.signal("-HUP");
        let accepted = |scrape: &Scrape| scrape.get(SUCCESSFUL) == Some(1.0);
        until(&daemon, "a good file", accepted).await;
    }
    // None of all this made it poll.
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_hangups_are_a_few_reloads_and_no_polls() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("hangups");
    let accounts = account(&folder, "first", &api.url(), "");
    let (daemon, _) = daemon(&folder, &accounts).await;
    until(&daemon, "it is up", |scrape| {
        scrape.get(&up("first")) == Some(1.0)
    })
    .await;
    for _ in 0..1_000 {
        daemon.signal("-HUP");
    }
    let start = std::time::Instant::now();
    while !daemon.log().contains("reloaded the configuration") {
        assert!(start.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = scrape(&daemon).await;
    assert_eq!(after.get(&polls("first")), Some(1.0));
    assert_eq!(after.get(SUCCESSFUL), Some(1.0));
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_kills_nothing_however_early_it_comes() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("early");
    let config = config_file(&folder, &api.url());
    // At the first call of `main`, when the runtime is made, and at its first thread. Before `main`
    // no program can do anything about it.
    for call in ["prctl", "epoll_create1", "clone3"] {
        let inject = format!("inject={call}:signal=HUP:when=1");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let daemon = binary(&["--config.file", &config]);
        let daemon = Daemon::start(wrapped(&strace, &daemon), &folder);
        daemon.address().await;
        daemon.signal_all("-HUP");
        daemon.logs("reloaded the configuration").await;
        daemon.signal_all("-TERM");
        assert_eq!(daemon.ended().0, Some(0), "at {call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_listen_address_needs_a_restart_and_the_rest_applies() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("listen");
    let (daemon, head) = daemon(&folder, &account(&folder, "first", &api.url(), "")).await;
    let other = head.replace("127.0.0.1:0", "127.0.0.1:1") + "metrics.relative = false\n";
    let second = account(&folder, "second", &api.url(), "");
    folder.file("config.toml", &format!("{other}{second}"));
    daemon.signal("-HUP");
    daemon
        .logs("changed options take effect after a restart")
        .await;
    assert!(
        daemon.log().contains("options=web.listen_addresses"),
        "{}",
        daemon.log()
    );
    let after = until(&daemon, "the other account", |scrape| {
        scrape.get(&up("second")) == Some(1.0)
    })
    .await;
    assert_eq!(after.of("api_key_expires_in_seconds").len(), 0);
    // Back to the address in use: no warning.
    folder.file("config.toml", &format!("{head}{second}"));
    daemon.signal("-HUP");
    daemon.logs("removed=first").await;
    assert_eq!(daemon.log().matches("after a restart").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_over_http_waits_for_its_outcome_and_must_be_enabled() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("lifecycle");
    let (daemon, _) = daemon(&folder, &account(&folder, "first", &api.url(), "")).await;
    let url = format!("http://{}/-/reload", daemon.address().await);
    let ask = async |method: Method| {
        let response = client().request(method, &url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(ask(Method::POST).await, (200, "reloaded\n".to_owned()));
    assert_eq!(ask(Method::PUT).await.0, 200);
    assert_eq!(ask(Method::GET).await.0, 405);
    folder.file("config.toml", "nonsense = 1");
    let (status, words) = ask(Method::POST).await;
    assert_eq!(status, 500);
    assert!(
        words.starts_with("failed to reload config: ") && words.contains("nonsense (file "),
        "{words}"
    );
    assert_eq!(scrape(&daemon).await.get(SUCCESSFUL), Some(0.0));

    let folder = Folder::new("no-lifecycle");
    let config = config_file(&folder, &api.url());
    let off = Daemon::start(binary(&["--config.file", &config]), &folder);
    let url = format!("http://{}/-/reload", off.address().await);
    for (method, status) in [(Method::POST, 403), (Method::PUT, 403), (Method::GET, 405)] {
        let response = client().request(method, &url).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(
            response.text().await.unwrap(),
            "Lifecycle API is not enabled. Start the exporter with --web.enable-lifecycle to \
             enable it.\n"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_api_asked_for_outlives_a_reload() {
    let tired = Reply::error(429, "later", "support_1").header("Retry-After", "600");
    let api = Api::start(tired).await;
    let folder = Folder::new("retry-after");
    let (daemon, head) = daemon(&folder, &account(&folder, "first", &api.url(), "")).await;
    until(&daemon, "it is told", |scrape| {
        scrape.get(&polls("first")) == Some(1.0)
    })
    .await;
    let changed = account(&folder, "first", &api.url(), "interval = \"5s\"");
    folder.file("config.toml", &format!("{head}{changed}"));
    daemon.signal("-HUP");
    daemon.logs("reloaded the configuration").await;
    // The first poll of a poller comes within half a second of this interval.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(api.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_used_by_the_next_poll_however_it_was_put_there() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("rotation");
    let config = config_file(&folder, &api.url());
    // As Kubernetes does it: a link to a link to a folder.
    fs::create_dir(folder.0.join("v1")).unwrap();
    fs::create_dir(folder.0.join("v2")).unwrap();
    fs::write(
        folder.0.join("v1/token"),
        "sk_live_an-old-token-of-this-test",
    )
    .unwrap();
    fs::write(folder.0.join("v2/token"), TOKEN).unwrap();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, folder.0.join("new")).unwrap();
        fs::rename(folder.0.join("new"), folder.0.join(name)).unwrap();
    };
    link("v1", "..data");
    link("..data/token", "token");
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    let refused =
        "api_key_account_poll_failures_total{account=\"default\",reason=\"unauthorized\"}";
    let failing = |scrape: &Scrape| scrape.get(refused) > Some(0.0);
    until(&daemon, "the old token is refused", failing).await;
    link("v2", "..data");
    until(&daemon, "a swapped link", |scrape| {
        scrape.account("up") == Some(1.0)
    })
    .await;
    folder.file("other", "sk_live_an-old-token-of-this-test");
    fs::rename(folder.0.join("other"), folder.0.join("token")).unwrap();
    until(&daemon, "a renamed file", |scrape| {
        scrape.account("up") == Some(0.0)
    })
    .await;
    folder.file("token", TOKEN);
    until(&daemon, "a rewritten file", |scrape| {
        scrape.account("up") == Some(1.0)
    })
    .await;
    // Torn: the poll fails, and nothing else.
    folder.file("token", "");
    let torn = until(&daemon, "an empty file", |scrape| {
        scrape.account("up") == Some(0.0)
    })
    .await;
    assert_eq!(torn.failures("credential"), 1.0);
    assert_eq!(torn.key_ids(), ["a"]);
}

#[tokio::test]
async fn a_thousand_reloads_over_http_are_a_few_lines_and_no_requests() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("reload-storm");
    let config = config_file(&folder, &api.url());
    let mut command = binary(&["--config.file", &config]);
    command.env("API_KEY_EXPORTER__WEB__ENABLE_LIFECYCLE", "true");
    command.env("API_KEY_EXPORTER__POLL__INTERVAL", "1h");
    let daemon = Daemon::start(command, &folder);
    daemon.logs("listed keys for the first time").await;
    let url = format!("http://{}/-/reload?[1-250]", daemon.address().await);
    let storm = |expected: &str| {
        let arguments = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} ",
            "-X",
            "POST",
            &url,
        ];
        let curls: Vec<_> = (0..4)
            .map(|_| {
                debian("curl")
                    .args(arguments)
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for curl in curls {
            let output = curl.wait_with_output().unwrap();
            let codes = String::from_utf8(output.stdout).unwrap();
            assert_eq!(codes.matches(expected).count(), 250, "{codes}");
        }
    };
    let lines = daemon.log().lines().count();
    storm("200 ");
    assert_eq!(api.requests().len(), 1);
    let good = fs::read_to_string(&config).unwrap();
    folder.file("config.toml", &format!("nonsense = 1\n{good}"));
    storm("500 ");
    let log = daemon.log();
    let refused = log
        .matches("level=ERROR msg=\"invalid configuration")
        .count();
    assert!((1..=20).contains(&refused), "{log}");
    let written = log.lines().count() - lines;
    assert!(written <= 40, "{written} lines:\n{log}");
    assert_eq!(api.requests().len(), 1);
}
