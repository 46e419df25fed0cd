//! `check` and `explain` as a user runs them: the real binary against a fake API.

mod alerts;
mod render;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use api_key_exporter::fake_api::{FakeApi, Reply};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, TOKEN, any_port, client};
use crate::tools::debian;

/// What a command printed, and its exit code.
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = binary(arguments);
    command
        .env("TOKEN", TOKEN)
        .env("WRONG", "sk_live_d3Jvbmd0b2tlbjEyMzQ1Njc4OTA.zzzz9");
    command
}

fn ask(arguments: &[&str]) -> Answer {
    let answer = Answer::from(command(arguments).output().unwrap());
    for text in [&answer.stdout, &answer.stderr] {
        assert!(!text.contains(TOKEN), "{text}");
    }
    answer
}

/// A key that expires `left` from now.
fn key(id: &str, left: TimeDelta) -> Value {
    let end = Utc::now() + left;
    json!({ "id": id, "label": format!("label of {id}"), "scopes": ["a.read"],
        "ip_allow_list": ["10.0.0.1"], "expires_at": end.format("%Y-%m-%d %H:%M:%S").to_string() })
}

fn days(days: i64) -> TimeDelta {
    // Past midday of a day, wherever a test rounds.
    TimeDelta::days(days) + TimeDelta::minutes(1)
}

/// A configuration of accounts at `api`, each with the variable of its token.
fn configuration(folder: &Folder, api: &str, accounts: &[(&str, &str)], lines: &str) -> String {
    let mut text = "poll.attempts = 1\n".to_owned();
    for (name, token) in accounts {
        writeln!(
            text,
            "[[accounts]]\nname = {name:?}\nbase_url = {api:?}\ntoken_env = {token:?}"
        )
        .unwrap();
    }
    text.push_str(lines);
    folder.file("config.toml", &text).display().to_string()
}

async fn one_account(folder: &Folder, keys: &[Value], lines: &str) -> (Api, String) {
    let api = Api::start(Reply::listing(keys)).await;
    let config = configuration(folder, &api.url(), &[("shop", "TOKEN")], lines);
    (api, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_that_of_the_worst_key_or_account() {
    let folder = Folder::new("check-codes");
    let open = json!({ "id": "open", "scopes": [], "ip_allow_list": [],
        "expires_at": "2099-01-01 00:00:00" });
    let unreadable = json!({ "id": "odd", "scopes": [], "ip_allow_list": ["10.0.0.1"],
        "expires_at": "soon" });
    let disabled_mute = "[[keys]]\nmatch = \"muted*\"\nmuted_until = 2099-01-01\nreason = \"r\"\n";
    let replaced = |id: &str, created_at: &str, left| {
        let mut key = key(id, left);
        key["created_at"] = json!(created_at);
        key["label"] = json!("one name");
        key
    };
    let good = || key("good", days(300));
    let only_good = &[("shop", "TOKEN")][..];
    let one_fails = &[("shop", "TOKEN"), ("office", "WRONG")][..];
    for (name, keys, accounts, code) in [
        ("all is well", vec![good()], only_good, 0),
        ("no keys", vec![], only_good, 0),
        ("warning", vec![good(), key("k", days(20))], only_good, 1),
        ("critical", vec![good(), key("k", days(3))], only_good, 2),
        ("expired", vec![good(), key("k", days(-3))], only_good, 2),
        ("policy", vec![good(), open], only_good, 1),
        ("unreadable", vec![unreadable], only_good, 1),
        ("muted", vec![key("muted", days(-3))], only_good, 0),
        (
            "superseded",
            vec![
                replaced("old", "2025-01-01 00:00:00", days(3)),
                replaced("new", "2025-01-02 00:00:00", days(600)),
            ],
            only_good,
            0,
        ),
        ("an entry without id", vec![good(), json!({})], only_good, 1),
        ("an account fails", vec![good()], one_fails, 3),
        (
            "an account fails, warning",
            vec![key("k", days(20))],
            one_fails,
            3,
        ),
        (
            "an account fails, critical",
            vec![key("k", days(3))],
            one_fails,
            2,
        ),
    ] {
        let api = Api::start(Reply::listing(&keys)).await;
        let config = configuration(&folder, &api.url(), accounts, disabled_mute);
        for output in ["table", "json", "nagios", "textfile"] {
            let answer = ask(&["check", "--config.file", &config, "--output", output]);
            assert_eq!(
                answer.code,
                Some(code),
                "{name}: {} {}",
                answer.stdout,
                answer.stderr
            );
        }
        let nagios = ask(&["check", "--config.file", &config, "--output", "nagios"]);
        let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][usize::try_from(code).unwrap()];
        assert!(
            nagios.stdout.starts_with(&format!("API_KEYS {word}: ")),
            "{}",
            nagios.stdout
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_judged_as_of_another_moment_and_by_other_thresholds() {
    let folder = Folder::new("check-at");
    let lines = "[[keys]]\nmatch = \"*\"\nwarning = \"20d\"\ncritical = \"10d\"\n";
    let (_api, config) = one_account(&folder, &[key("k", days(100))], lines).await;
    let date = |days: i64| {
        (Utc::now() + TimeDelta::days(days))
            .format("%Y-%m-%d")
            .to_string()
    };
    let time = (Utc::now() + days(100)).to_rfc3339();
    for (option, value, code) in [
        ("--at", &*date(0), 0),
        ("--at", &date(-1000), 0),
        ("--at", &date(85), 1),
        ("--at", &date(95), 2),
        ("--at", &date(1000), 2),
        ("--at", &time, 2),
        ("--warning", "99d", 0),
        ("--warning", "101d", 1),
        ("--critical", "101d", 2),
        ("--critical", "99d", 0),
    ] {
        for command in [&["check"][..], &["explain", "k"]] {
            let arguments = [command, &["--config.file", &config, option, value]].concat();
            let answer = ask(&arguments);
            let place = format!("{arguments:?}: {}{}", answer.stdout, answer.stderr);
            assert_eq!(answer.code, Some(code), "{place}");
            let is_said = answer.stdout.contains("as of ");
            assert_eq!(
                is_said,
                option == "--at" || command[0] == "explain",
                "{place}"
            );
        }
    }
    let all = ["--config.file", &config, "--output", "json"];
    let at = ask(&[&["check", "--at", "2020-02-29"][..], &all].concat());
    let document: Value = serde_json::from_str(&at.stdout).unwrap();
    assert_eq!(document["judged_at"], "2020-02-29T00:00:00Z");
    assert!(document["keys"][0]["expires_in_seconds"].as_i64() > Some(2000 * 86_400));
    for (arguments, words) in [
        (
            &["--at", "yesterday"][..],
            "--at \"yesterday\": must be a day",
        ),
        (&["--within", "14"], "--within \"14\": must be a duration"),
        (&["--warning", "0s"], "--warning \"0s\": must be a duration"),
        (
            &["--warning", "1d", "--critical", "2d"],
            "must not be longer than --warning",
        ),
        (
            &["--output", "textfile", "--at", "2026-12-24"],
            "cannot be used with --at",
        ),
        (
            &["--output", "textfile", "--team", "a"],
            "cannot be used with --team",
        ),
        (&["--within", "-1d"], "--within \"-1d\": must be a duration"),
        (&["--output", "yaml"], "invalid value"),
        (&["--bogus"], "unexpected argument"),
    ] {
        let answer = ask(&[&["check", "--config.file", &config], arguments].concat());
        assert_eq!(
            (answer.code, &*answer.stdout),
            (Some(3), ""),
            "{arguments:?}"
        );
        assert!(
            answer.stderr.contains(words),
            "{arguments:?}: {}",
            answer.stderr
        );
        if arguments.contains(&"--output") {
            continue;
        }
        // A monitoring system shows stdout only.
        let file = folder.0.join("status").display().to_string();
        let nagios = ["--output", "nagios", "--output-file", &file];
        let all = [
            &["check"][..],
            arguments,
            &["--config.file", &config],
            &nagios,
        ]
        .concat();
        let line = ask(&all).stdout;
        let is_one_line = line.starts_with("API_KEYS UNKNOWN: ") && line.lines().count() == 1;
        assert!(is_one_line && line.contains(words), "{arguments:?}: {line}");
        assert!(!Path::new(&file).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_teams_are_chosen_by_name_and_nothing_else_is_listed() {
    let folder = Folder::new("check-choice");
    let keys = [key("k_soon", days(3)), key("k_later", days(20))];
    let api = Api::start(Reply::listing(&keys)).await;
    let lines = "[[keys]]\nmatch = \"k_soon\"\nteam = \"payments\"\n\
                 [[keys]]\nmatch = \"k_later\"\nteam = \"analytics\"\n";
    let accounts = [("shop", "TOKEN"), ("office", "TOKEN"), ("broken", "WRONG")];
    let config = configuration(&folder, &api.url(), &accounts, lines);
    let check = |arguments: &[&str]| {
        let all = [
            &["check", "--config.file", &config, "--output", "json"],
            arguments,
        ]
        .concat();
        ask(&all)
    };
    for (arguments, keys, requests, code) in [
        (&["--account", "shop"][..], 2, 1, 2),
        (&["--account", "shop", "--account", "office"], 4, 2, 2),
        (&["--account", "shop", "--team", "analytics"], 1, 1, 1),
        (&["--account", "shop", "--within", "14d"], 1, 1, 2),
        (&["--account", "shop", "--within", "1d"], 0, 1, 0),
        (
            &[
                "--account",
                "shop",
                "--team",
                "analytics",
                "--within",
                "14d",
            ],
            0,
            1,
            0,
        ),
        (&["--team", "analytics"], 2, 3, 3),
    ] {
        let before = api.requests().len();
        let answer = check(arguments);
        assert_eq!(answer.code, Some(code), "{arguments:?}: {}", answer.stderr);
        let document: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(document["total"], keys, "{arguments:?}");
        assert_eq!(document["exit_code"], code);
        assert_eq!(document["keys"].as_array().unwrap().len(), keys);
        assert_eq!(api.requests().len() - before, requests, "{arguments:?}");
    }
    let before = api.requests().len();
    for (arguments, words) in [
        (
            ["--account", "shpo"],
            "no account \"shpo\"; did you mean \"shop\"? (there are: shop, office, broken)",
        ),
        (
            ["--team", "payment"],
            "no team \"payment\"; did you mean \"payments\"? (there are: analytics, payments)",
        ),
    ] {
        let answer = check(&arguments);
        assert_eq!(answer.code, Some(3));
        assert!(answer.stderr.contains(words), "{}", answer.stderr);
    }
    assert_eq!(api.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_and_an_api_that_is_not_there_end_with_3() {
    let folder = Folder::new("check-config");
    let bad = folder.file("bad.toml", "poll.intervall = \"1m\"\n");
    let bad = bad.display().to_string();
    let absent = configuration(&folder, "http://127.0.0.1:1", &[("shop", "TOKEN")], "");
    for (config, words) in [
        (&*bad, "did you mean"),
        (&absent, "connect"),
        ("/nonexistent.toml", "cannot open the file"),
    ] {
        for arguments in [
            &["check"][..],
            &["check", "--output", "nagios"],
            &["explain", "k"],
        ] {
            let all = [arguments, &["--config.file", config]].concat();
            let answer = ask(&all);
            let text = format!("{}{}", answer.stdout, answer.stderr);
            assert_eq!(answer.code, Some(3), "{all:?}: {text}");
            let is_nagios = arguments.contains(&"nagios");
            assert_eq!(
                answer.stdout.starts_with("API_KEYS UNKNOWN: "),
                is_nagios,
                "{text}"
            );
            assert!(
                text.contains(words) || arguments[0] == "explain",
                "{all:?}: {text}"
            );
            assert!(!is_nagios || answer.stdout.lines().count() == 1, "{text}");
            assert!(!answer.stdout.contains("  "), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_retried_and_reported_once() {
    let folder = Folder::new("check-retry");
    let mut asked = 0;
    let fake = FakeApi::start(any_port(), TOKEN, move |_| {
        asked += 1;
        if asked < 3 {
            return Reply::error(503, "busy", "support_0197c0ec-0000-7000-8000-000000000001");
        }
        Reply::listing(&[key("k", days(300))])
    });
    let fake = fake.await.unwrap();
    let api = format!("http://{}", fake.address());
    let text =
        format!("[[accounts]]\nname = \"shop\"\nbase_url = {api:?}\ntoken_env = \"TOKEN\"\n");
    let config = folder.file("c.toml", &text).display().to_string();
    let answer = ask(&["check", "--config.file", &config]);
    assert_eq!(
        (answer.code, &*answer.stderr),
        (Some(0), ""),
        "{}",
        answer.stdout
    );
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_plain_in_a_pipe_and_fits_and_colours_a_terminal() {
    let folder = Folder::new("check-terminal");
    let mut long = key("k_soon", days(3));
    long["label"] = json!(
        "a label that is rather long for a terminal "
            .repeat(4)
            .trim()
    );
    let (_api, config) = one_account(&folder, &[long, key("k", days(300))], "").await;
    let piped = command(&["check", "--config.file", &config])
        .env("COLUMNS", "60")
        .output();
    let piped = Answer::from(piped.unwrap()).stdout;
    assert!(!piped.contains('\u{1b}') && !piped.contains('…'), "{piped}");
    assert!(
        piped.lines().nth(1).unwrap().starts_with("critical"),
        "{piped}"
    );
    let nagios = ask(&["check", "--config.file", &config, "--output", "nagios"]);
    let name = nagios.stdout.split("; ").nth(2).unwrap();
    let (name, _) = name.split_once(" expires").unwrap();
    assert!(name.ends_with('…') && name.chars().count() == 64, "{name}");
    let on_terminal = |variables: &str| {
        let program = env!("CARGO_BIN_EXE_api-key-exporter");
        // A shell may set COLUMNS itself.
        let line = format!(
            "stty cols 90 rows 24; \
             env -u COLUMNS -u NO_COLOR TERM=xterm TOKEN={TOKEN} {variables} \
             {program} check --config.file {config}"
        );
        let mut script = Command::new("script");
        Answer::from(script.args(["-qec", &line, "/dev/null"]).output().unwrap())
    };
    let shown = on_terminal("");
    assert_eq!(shown.code, Some(2));
    assert!(
        shown.stdout.contains("\u{1b}[1;31mcritical\u{1b}[0m"),
        "{}",
        shown.stdout
    );
    assert!(shown.stdout.contains('…'), "{}", shown.stdout);
    for variables in ["NO_COLOR=1", "TERM=dumb"] {
        let shown = on_terminal(variables);
        assert!(
            !shown.stdout.contains('\u{1b}'),
            "{variables:?}: {}",
            shown.stdout
        );
        let rows = shown.stdout.lines().take(3);
        assert!(
            rows.clone().all(|row| row.trim_end().chars().count() <= 90),
            "{}",
            shown.stdout
        );
    }
    let narrow = on_terminal("COLUMNS=50 NO_COLOR=1");
    assert!(
        narrow
            .stdout
            .lines()
            .take(3)
            .all(|row| row.trim_end().chars().count() <= 50)
    );
    let empty = on_terminal("NO_COLOR=");
    assert!(empty.stdout.contains('\u{1b}'));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_file_is_replaced_as_a_whole_and_everybody_may_read_it() {
    let folder = Folder::new("check-file");
    let (api, config) = one_account(&folder, &[key("k", days(3))], "").await;
    let path = folder.0.join("keys.json").display().to_string();
    let write = |path: &str| {
        let line = "umask 077; exec \"$0\" \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", line, env!("CARGO_BIN_EXE_api-key-exporter"), "check"]);
        shell.args([
            "--output",
            "json",
            "--config.file",
            &config,
            "--output-file",
            path,
        ]);
        Answer::from(shell.env("TOKEN", TOKEN).output().unwrap())
    };
    for _ in 0..2 {
        fs::write(&path, "old ".repeat(100_000)).unwrap();
        let answer = write(&path);
        assert_eq!(
            (answer.code, &*answer.stdout),
            (Some(2), ""),
            "{}",
            answer.stderr
        );
        let document: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(document["keys"][0]["key_id"], "k");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }
    let before = api.requests().len();
    let fifo = folder.0.join("fifo").display().to_string();
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let directory = folder.0.display().to_string();
    for (path, words) in [
        (&*directory, "is a directory, not a regular file"),
        (&fifo, "is a named pipe, not a regular file"),
        ("/dev/null", "is a device, not a regular file"),
        (
            "/nonexistent/keys.json",
            "cannot write /nonexistent/keys.json",
        ),
    ] {
        let answer = write(path);
        assert_eq!(answer.code, Some(3), "{path}");
        assert!(answer.stderr.contains(words), "{path}: {}", answer.stderr);
    }
    // A file that cannot be written is found before anything is listed.
    assert_eq!(api.requests().len(), before);
    let mut left: Vec<_> = fs::read_dir(&folder.0)
        .unwrap()
        .map(|it| it.unwrap().file_name())
        .collect();
    left.sort_unstable();
    assert_eq!(left, ["config.toml", "fifo", "keys.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_beside_a_daemon_and_touches_none_of_its_files() {
    let folder = Folder::new("check-beside");
    let state = folder.0.join("state");
    let lines =
        format!("[state]\ndirectory = {state:?}\n[web]\nlisten_addresses = [\"127.0.0.1:0\"]\n");
    let (_api, config) = one_account(&folder, &[key("k", days(3))], &lines).await;
    let nothing = ask(&["check", "--config.file", &config]);
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
    assert!(!Path::new(&state).exists());
    let daemon = Daemon::start(
        command(&["--config.file", &config, "--log.format", "text"]),
        &folder,
    );
    daemon
        .until("a poll", |scrape| scrape.key_ids() == ["k"])
        .await;
    let beside = ask(&["check", "--config.file", &config]);
    assert_eq!(
        (beside.code, &*beside.stderr),
        (Some(2), ""),
        "{}",
        beside.stdout
    );
}

/// The name of a sample's series, and its labels in any order.
fn series(line: &str) -> BTreeSet<&str> {
    let (series, _) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches("\"}").split("\",");
    labels.chain([name]).collect()
}

/// What Prometheus' node exporter serves of a folder.
async fn collected(folder: &Path) -> String {
    let address = crate::prometheus::free();
    let log = Folder::new("node-exporter-log");
    let mut program = debian("prometheus-node-exporter");
    program.args(["--collector.disable-defaults", "--collector.textfile"]);
    program.arg(format!(
        "--collector.textfile.directory={}",
        folder.display()
    ));
    program.arg(format!("--web.listen-address={address}"));
    let node_exporter = Daemon::start(program, &log);
    for _ in 0..200 {
        let response = client()
            .get(format!("http://{address}/metrics"))
            .send()
            .await;
        if let Ok(response) = response {
            return response.text().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no answer:\n{}", node_exporter.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_exporter_serves_the_textfile_with_odd_names_and_failed_accounts() {
    let folder = Folder::new("check-textfile");
    let mut odd = key("k", days(3));
    odd["label"] = json!("a|b;\"c\" \\ 'd' {e}=<f> 鍵");
    let api = Api::start(Reply::listing(&[odd, key("l", days(300))])).await;
    let accounts = [("shop \"one\"", "TOKEN"), ("office", "WRONG")];
    let config = configuration(&folder, &api.url(), &accounts, "");
    let collector = Folder::new("check-textfile-collector");
    let path = collector.0.join("api_keys.prom").display().to_string();
    let answer = ask(&[
        "check",
        "--config.file",
        &config,
        "--output",
        "textfile",
        "--output-file",
        &path,
    ]);
    assert_eq!(answer.code, Some(2), "{}", answer.stderr);
    let written = fs::read_to_string(&path).unwrap();
    let served = collected(&collector.0).await;
    assert!(
        served.contains("node_textfile_scrape_error 0\n"),
        "{served}"
    );
    let samples: Vec<&str> = written
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(samples.len() > 30);
    // The node exporter sorts labels, and writes large numbers with an exponent.
    let served: BTreeSet<_> = served.lines().map(series).collect();
    for line in samples {
        assert!(served.contains(&series(line)), "{line}");
    }
    for present in [
        "api_key_account_up{account=\"office\"} 0",
        "api_key_account_failing{account=\"office\",reason=\"unauthorized\"} 1",
        "api_key_account_last_success_timestamp_seconds{account=\"shop \\\"one\\\"\"}",
        "api_key_alert_threshold_seconds{",
    ] {
        assert!(written.contains(present), "{present}:\n{written}");
    }
    for absent in [
        "process_",
        "next_poll",
        "expires_in_seconds",
        "polls_total",
        "failures_total",
    ] {
        assert!(!written.contains(absent), "{absent}");
    }
    crate::tools::demand(
        Command::new("sh").args(["-c", &format!("promtool check metrics < {path}")]),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_finds_a_key_by_id_name_or_label_and_says_what_applies_to_it_and_why() {
    let folder = Folder::new("explain");
    let inventory = folder.file(
        "inventory.toml",
        "[[keys]]\nmatch = \"other\"\n[[keys]]\nmatch = \"label of k_soon\"\nname = \"Checkout\"\n\
         team = \"payments\"\nwarning = \"40d\"\nmuted_until = 2099-01-01\nreason = \"moves away\"\n",
    );
    let api = Api::start(Reply::listing(&[
        key("k_soon", days(3)),
        key("k_later", days(20)),
    ]))
    .await;
    let accounts = [("shop", "TOKEN"), ("office", "TOKEN")];
    let text = "[thresholds]\ncritical = \"5d\"\n[[keys]]\nmatch = \"none\"\n";
    let config = configuration(&folder, &api.url(), &accounts, text);
    let with_inventory = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("inventory_file = {inventory:?}\n{with_inventory}"),
    )
    .unwrap();
    let explain =
        |arguments: &[&str]| ask(&[&["explain", "--config.file", &config], arguments].concat());
    for name in ["k_soon", "Checkout", "label of k_soon"] {
        let answer = explain(&[name, "--account", "shop"]);
        assert_eq!(
            (answer.code, &*answer.stderr),
            (Some(0), ""),
            "{name}: {}",
            answer.stdout
        );
        for words in [
            "Checkout: muted",
            &format!("keys[1] of inventory_file = {inventory:?} (file "),
            "critical           5d",
            "thresholds.critical = \"5d\" (file ",
            "warning            40d",
            "its alerts are muted (moves away)",
            "kept: no scope is privileged (the built-in list of bitgpt)",
            "now                none",
            "next               ApiKeyExpired (critical) at 2099-01-01 00:00 UTC",
        ] {
            assert!(answer.stdout.contains(words), "{words}:\n{}", answer.stdout);
        }
    }
    let later = explain(&["k_later", "--account", "office"]);
    assert_eq!(later.code, Some(1));
    for words in [
        "now                ApiKeyExpiringSoon (warning), since ",
        "next               ApiKeyAboutToExpire (critical) at ",
        "thresholds.warning = \"30d\" (default)",
        "no entry matches the key",
    ] {
        assert!(later.stdout.contains(words), "{words}:\n{}", later.stdout);
    }
    for (arguments, words) in [
        (
            &["k_soon"][..],
            "2 keys are called \"k_soon\"; choose with --account:\n  \
             k_soon  Checkout  account shop\n  k_soon  Checkout  account office\n",
        ),
        (
            &["k_s"],
            "no key has the id, name or label \"k_s\"; similar: k_soon",
        ),
        (&["chekcout"], "similar: Checkout"),
        (&["zzz"], "no key has the id, name or label \"zzz\"\n"),
        (&["k_soon", "--account", "shpo"], "did you mean \"shop\"?"),
    ] {
        let answer = explain(arguments);
        assert_eq!(
            (answer.code, &*answer.stdout),
            (Some(3), ""),
            "{arguments:?}"
        );
        assert!(
            answer.stderr.contains(words),
            "{arguments:?}: {}",
            answer.stderr
        );
    }
    // A token that is pasted as the name of a key is not repeated.
    let secret = explain(&["sk_live_cGFzdGVkIGJ5IG1pc3Rha2U.abcd1"]);
    assert!(!secret.stderr.contains("cGFzdGVk"), "{}", secret.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_what_the_definition_of_a_provider_decides() {
    let folder = Folder::new("explain-definition");
    let end = (Utc::now() + days(50)).timestamp();
    let named = |id: &str| json!({ "id": id, "label": "twin", "end": end, "rights": ["root"] });
    let keys = json!([named("one"), named("two")]);
    let api = Api::start(Reply::body(200, "application/json", keys.to_string())).await;
    let text = format!(
        "poll.attempts = 1\npolicy.max_unused = \"30d\"\n[[accounts]]\nname = \"a\"\n\
         provider = \"acme\"\nbase_url = {:?}\ntoken_env = \"TOKEN\"\n\
         [providers.acme]\npath = \"/\"\nitems = \"\"\nid = \"/id\"\nlabel = \"/label\"\n\
         expires_at = {{ at = \"/end\", format = \"unix\" }}\nscopes = {{ at = \"/rights\" }}\n\
         privileged_scopes = [\"root\"]\n[[keys]]\nmatch = \"one\"\ncritical = \"60d\"\n\
         [[keys]]\nmatch = \"two\"\nwarning = \"2d\"\n",
        api.url()
    );
    let config = folder.file("config.toml", &text).display().to_string();
    let explain = |key: &str| ask(&["explain", key, "--config.file", &config]);
    for (key, words) in [
        (
            "one",
            "broken: root (providers.acme.privileged_scopes = [\"root\"] (file ",
        ),
        (
            "one",
            "not known: providers.acme.last_used_at is not set (policy.max_unused = ",
        ),
        ("one", ": raised to the critical threshold\n"),
        ("one", ": critical of keys[0] (file "),
        ("two", ": lowered to the warning threshold\n"),
        ("two", ": warning of keys[1] (file "),
    ] {
        let answer = explain(key);
        assert!(answer.stdout.contains(words), "{words}:\n{}", answer.stdout);
    }
    let twins = explain("twin");
    let words = "2 keys are called \"twin\"; give the id of one:\n";
    assert!(twins.stderr.contains(words), "{}", twins.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn details_are_read_where_they_are_enabled_as_many_as_a_minute_allows() {
    let folder = Folder::new("check-details");
    let keys = ["k_1", "k_2", "k_3"].map(|id| {
        let mut key = key(id, days(300));
        key["label"] = Value::Null;
        key
    });
    let fake = FakeApi::start(any_port(), TOKEN, move |request| match request.key_id() {
        None => Reply::listing(&keys),
        Some(id) => {
            let mut key = key(id, days(300));
            key["label"] = json!(format!("detail {id}"));
            Reply::page(&key)
        }
    });
    let fake = fake.await.unwrap();
    let api = format!("http://{}", fake.address());
    let lines = "[details]\nenabled = true\nrequests_per_minute = 2\n";
    let config = configuration(&folder, &api, &[("shop", "TOKEN")], lines);
    let answer = ask(&["check", "--config.file", &config, "--log.format", "text"]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(answer.stdout.contains("detail k_1") && answer.stdout.contains("detail k_2"));
    assert!(!answer.stdout.contains("detail k_3"));
    assert!(
        answer.stderr.contains("account=shop keys=1"),
        "{}",
        answer.stderr
    );
    assert_eq!(fake.requests().len(), 3);
}

/// A provider whose listing contains the last use: no details need to be read.
const LAST_USE: &str = "[providers.acme]\npath = \"/keys\"\nitems = \"/keys\"\nid = \"/id\"\n\
     label = \"/label\"\nexpires_at = { at = \"/end\", format = \"unix\" }\n\
     created_at = { at = \"/made\", format = \"unix\" }\n\
     last_used_at = { at = \"/used\", format = \"unix\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_key_that_is_still_used_counts_and_an_id_names_one_key_only() {
    let folder = Folder::new("check-used");
    let now = Utc::now().timestamp();
    let day = 86_400;
    let keys = json!({ "keys": [
        { "id": "old", "label": "a", "made": now - 90 * day, "end": now - day, "used": now - day / 2 },
        { "id": "new", "label": "a", "made": now - day, "end": now + 300 * day, "used": now },
        // Called like the id of another one.
        { "id": "other", "label": "old", "made": now, "end": now + 300 * day, "used": now },
    ] });
    let reply = Reply::body(200, "application/json", keys.to_string());
    let api = Api::start(reply).await;
    let text = format!(
        "poll.attempts = 1\n[[accounts]]\nname = \"a\"\nprovider = \"acme\"\nbase_url = {:?}\n\
         token_env = \"TOKEN\"\n{LAST_USE}",
        api.url()
    );
    let config = folder.file("config.toml", &text).display().to_string();
    let answer = ask(&["check", "--config.file", &config]);
    assert_eq!(answer.code, Some(2), "{}", answer.stderr);
    let summary = "critical: 1 superseded but still used; 3 keys in 1 account";
    assert!(answer.stdout.contains(summary), "{}", answer.stdout);
    let explained = ask(&["explain", "old", "--config.file", &config]);
    assert_eq!(explained.code, Some(2), "{}", explained.stderr);
    let alert = "now                ApiKeySupersededStillUsed (critical)";
    assert!(explained.stdout.contains(alert), "{}", explained.stdout);
    // What the provider does not say is not judged.
    let unknown = "no_ip_allow_list   not known";
    assert!(explained.stdout.contains(unknown), "{}", explained.stdout);
    let textfile = ask(&["check", "--output", "textfile", "--config.file", &config]);
    let used = "api_key_last_used_timestamp_seconds{account=\"a\",key_id=\"old\"}";
    assert!(textfile.stdout.contains(used), "{}", textfile.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_well_where_nothing_was_looked_at() {
    let folder = Folder::new("check-nothing");
    let odd = json!({ "id": "odd", "scopes": [], "ip_allow_list": ["10.0.0.1"],
        "expires_at": "soon" });
    let (_api, config) = one_account(&folder, &[odd], "").await;
    let near = ask(&["check", "--within", "30d", "--config.file", &config]);
    assert_eq!(near.code, Some(1), "{}", near.stdout);
    // One of the two shards has no account.
    let empty = ["0", "1"].map(|index| {
        let mut check = command(&["check", "--config.file", &config]);
        check.env("API_KEY_EXPORTER__SHARD__TOTAL", "2");
        check.env("API_KEY_EXPORTER__SHARD__INDEX", index);
        Answer::from(check.output().unwrap())
    });
    let [empty] = &empty
        .iter()
        .filter(|answer| answer.code != Some(1))
        .collect::<Vec<_>>()[..]
    else {
        panic!("both shards have the account, or none");
    };
    assert_eq!(empty.code, Some(3), "{}", empty.stderr);
    assert_eq!(empty.stdout, "unknown: no account to list\n");
    let in_shard = |arguments: &[&str]| {
        let mut check = command(&[arguments, &["--config.file", &config]].concat());
        check.env("API_KEY_EXPORTER__SHARD__TOTAL", "2");
        check.env("API_KEY_EXPORTER__SHARD__INDEX", "0");
        Answer::from(check.output().unwrap())
    };
    // "shop" belongs to shard 1.
    for (arguments, words) in [
        (
            &["check", "--account", "shop"][..],
            "account \"shop\" belongs to shard 1 of 2; this is shard 0\n",
        ),
        (
            &["check", "--account", "shpo"],
            "no account \"shpo\"; did you mean \"shop\"? (there are: shop)\n",
        ),
        (
            &["explain", "odd"],
            "no key has the id, name or label \"odd\"; shard 0 of 2 has no account and does not \
             list the accounts of other shards\n",
        ),
    ] {
        let answer = in_shard(arguments);
        assert_eq!(answer.code, Some(3), "{arguments:?}");
        assert!(answer.stderr.ends_with(words), "{}", answer.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_counts_all_keys_of_the_listed_accounts() {
    let folder = Folder::new("check-summary");
    let api = Api::start(Reply::listing(&[key("k", days(3)), key("l", days(300))])).await;
    let both = [("shop", "TOKEN"), ("office", "WRONG")];
    for (accounts, within, summary, keys) in [
        (
            &both[..1],
            None,
            "critical: 1 critical; 2 keys in 1 account",
            2,
        ),
        (
            &both,
            None,
            "critical: 1 critical, 1 account not listed; 2 keys in 1 listed account",
            2,
        ),
        (&both[1..], None, "unknown: 1 account not listed", 0),
        (
            &both[..1],
            Some("1h"),
            "ok: all is well; 0 of 2 keys in 1 account expire within 1h",
            2,
        ),
        (
            &both,
            Some("14d"),
            "critical: 1 critical, 1 account not listed; 1 of 2 keys in 1 listed account expires \
             within 14d",
            2,
        ),
    ] {
        let config = configuration(&folder, &api.url(), accounts, "");
        let within: Vec<&str> = within.iter().flat_map(|it| ["--within", it]).collect();
        let check = [&["check", "--config.file", &config][..], &within].concat();
        let table = ask(&check).stdout;
        assert_eq!(table.lines().last(), Some(summary), "{table}");
        let nagios = ask(&[&check[..], &["--output", "nagios"]].concat()).stdout;
        let (_, said) = summary.split_once(": ").unwrap();
        assert!(
            nagios.contains(&format!(": {said}"))
                && nagios.contains(&format!(" | keys={keys};;;0 ")),
            "{nagios}"
        );
    }
}
