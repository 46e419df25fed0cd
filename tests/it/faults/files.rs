//! Files that hang, as on a dead network mount: strace delays the system calls.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Daemon, binary, wrapped};
use crate::support::{Api, Folder, TOKEN, listing};

/// Far longer than any test waits.
const HANGS: &str = "120s";

/// A daemon whose `call` of each of `paths` takes `delay`.
fn hanging(folder: &Folder, call: &str, delay: &str, paths: &[String]) -> Daemon {
    let config = folder.0.join("config.toml").display().to_string();
    let inject = format!("inject={call}:delay_enter={delay}");
    let mut strace: Vec<String> = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject]
        .map(str::to_owned)
        .to_vec();
    strace.extend(paths.iter().map(|path| format!("-P{path}")));
    Daemon::start(
        wrapped(&strace, &binary(&["--config.file", &config])),
        folder,
    )
}

/// A configuration of these accounts, with more lines; each has a token of its own.
fn configure(folder: &Folder, api: &Api, lines: &str, accounts: &[&str]) -> Vec<String> {
    let mut text = format!(
        "poll.interval = \"5s\"\npoll.timeout = \"2s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
         web.listen_addresses = [\"127.0.0.1:0\"]\n{lines}\n"
    );
    let mut paths = Vec::new();
    for name in accounts {
        let token = folder.file(name, TOKEN);
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let token = token.display().to_string();
        let url = api.url();
        writeln!(
            text,
            "[[accounts]]\nname = {name:?}\nbase_url = {url:?}\ntoken_file = {token:?}"
        )
        .unwrap();
        paths.push(token);
    }
    folder.file("config.toml", &text);
    paths
}

fn of(family: &str, account: &str) -> String {
    format!("api_key_account_{family}{{account=\"{account}\"}}")
}

/// The traced daemon in `/proc`.
fn process(daemon: &Daemon) -> PathBuf {
    let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
    let pid = fs::read_to_string(children).unwrap();
    PathBuf::from(format!("/proc/{}", pid.trim()))
}

/// How many threads the daemon has.
fn threads(daemon: &Daemon) -> usize {
    fs::read_dir(process(daemon).join("task")).unwrap().count()
}

/// Stops the daemon, and waits until it has ended: strace itself waits for its delays to pass.
async fn stop(daemon: Daemon) {
    let process = process(&daemon);
    daemon.signal_all("-TERM");
    let start = Instant::now();
    let is_over = || {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        // The threads of one that is dead may still be seen by their tracer.
        !status.contains("Name:") || status.contains("State:\tZ")
    };
    while !is_over() {
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_hang_harm_no_other_account_and_heal() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("hanging-tokens");
    let names: Vec<String> = (0..20).map(|at| format!("dead-{at}")).collect();
    let mut accounts: Vec<&str> = names.iter().map(String::as_str).collect();
    accounts.push("well");
    let mut dead = configure(&folder, &api, "", &accounts);
    dead.pop();
    let daemon = hanging(&folder, "openat", "30s", &dead);
    let start = Instant::now();
    let scrape = daemon
        .until("three polls of the account that is well", |scrape| {
            scrape.get(&of("polls_total", "well")) >= Some(3.0)
        })
        .await;
    assert!(
        start.elapsed() < Duration::from_secs(29),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(scrape.get(&of("up", "well")), Some(1.0));
    for name in &names {
        assert_eq!(scrape.get(&of("up", name)), Some(0.0), "{name}");
    }
    // One for each file, however often it was wanted.
    let count = threads(&daemon);
    assert!(count <= 20 + 12, "{count}");
    assert!(
        daemon.log().contains("reason=credential"),
        "{}",
        daemon.log()
    );
    assert!(
        daemon
            .log()
            .contains("polls of account \\\"dead-7\\\" will fail until this is fixed: token file")
    );
    daemon
        .logs_within("listing keys succeeded again", Duration::from_secs(40))
        .await;
    stop(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_hangs_can_be_stopped() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("hanging-start");
    let inventory = folder.file("inventory.toml", "").display().to_string();
    let config = folder.0.join("config.toml").display().to_string();
    let state = folder.0.join("state").display().to_string();
    let lines = format!("inventory_file = {inventory:?}\nstate.directory = {state:?}");
    let tokens = configure(&folder, &api, &lines, &["a"]);
    fs::create_dir(&state).unwrap();
    let lock = format!("{state}/lock");
    for (call, path) in [
        ("openat", &config),
        ("read", &config),
        ("openat", &inventory),
        ("statx", &tokens[0]),
        ("openat", &lock),
        ("flock", &lock),
    ] {
        let daemon = hanging(&folder, call, HANGS, std::slice::from_ref(path));
        // It hangs by then, and has not given up.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(
            !daemon.log().contains("monitoring an account"),
            "{call} {path}"
        );
        stop(daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_that_hangs_delays_the_start_and_no_poll() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("hanging-state");
    let state = folder.0.join("state").display().to_string();
    configure(
        &folder,
        &api,
        &format!("state.directory = {state:?}"),
        &["a", "b"],
    );
    fs::create_dir(&state).unwrap();
    let daemon = hanging(&folder, "flock", "25s", &[format!("{state}/lock")]);
    let failing = |scrape: &crate::support::Scrape| {
        scrape.get("api_key_exporter_state_save_failures_total") >= Some(2.0)
    };
    let scrape = daemon.until("saves that fail", failing).await;
    for account in ["a", "b"] {
        assert_eq!(scrape.get(&of("up", account)), Some(1.0));
    }
    let expected =
        format!("starting without the saved snapshots\" error=\"{state} does not respond");
    assert!(daemon.log().contains(&expected), "{}", daemon.log());
    daemon
        .logs_within(
            "saving the snapshots succeeded again",
            Duration::from_secs(40),
        )
        .await;
    stop(daemon).await;
}

#[test]
fn config_check_names_a_file_that_hangs() {
    let folder = Folder::new("hanging-check");
    let path = folder.file("config.toml", "").display().to_string();
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", &path];
    let inject = ["-e", "inject=openat:delay_enter=8s"];
    let daemon = binary(&["--config.file", &path, "config", "check"]);
    let mut command: Command = wrapped(&[strace.as_slice(), &inject].concat(), &daemon);
    let output = command.output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    // strace adds a line about the thread that it delayed.
    let ours = |line: &&str| !line.starts_with("strace:");
    let words: String = words.split_inclusive('\n').filter(ours).collect();
    let expected = format!(
        "api-key-exporter: invalid configuration:\n  {path}: the file cannot be read: its \
         file system does not respond; check the mount\n"
    );
    assert_eq!((words, output.status.code()), (expected, Some(2)));
}
