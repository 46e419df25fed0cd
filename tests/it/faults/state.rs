//! The saved snapshot: restarts in the middle of an outage, damaged files, bad disks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api_key_exporter::config::Config;
use api_key_exporter::fake_api::Reply;

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Exporter, Folder, Scrape, TOKEN, config, listing};

fn saving_in(folder: &Folder, api: &Api) -> Config {
    let directory = folder.0.join("state");
    let line = format!(
        "poll.attempts = 1\nstate.directory = {:?}",
        directory.display().to_string()
    );
    config(&api.url(), &line, "")
}

/// The one snapshot in the folder's state directory.
fn snapshot(folder: &Folder) -> Option<PathBuf> {
    let entries = fs::read_dir(folder.0.join("state")).ok()?;
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|end| end == "snapshot"))
}

pub(super) async fn saved(folder: &Folder) -> PathBuf {
    let start = Instant::now();
    loop {
        if let Some(path) = snapshot(folder) {
            return path;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "nothing is saved"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stops it, and waits until a save under way has let go of the folder.
pub(super) async fn stopped(exporter: Exporter, folder: &Folder) {
    exporter.stop().await;
    let lock = fs::File::open(folder.0.join("state/lock")).unwrap();
    let start = Instant::now();
    while lock.try_lock().is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "it is in use");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn down() -> Reply {
    Reply::error(500, "no", "support_1")
}

/// Lists once with a state directory, and stops.
async fn first_life(name: &str) -> (Folder, Api, f64) {
    let folder = Folder::new(name);
    let api = Api::start(listing(&["a", "b"])).await;
    let exporter = Exporter::with(&saving_in(&folder, &api)).await;
    let scrape = exporter.up().await;
    saved(&folder).await;
    stopped(exporter, &folder).await;
    let listed_at = scrape.account("last_success_timestamp_seconds").unwrap();
    (folder, api, listed_at)
}

#[tokio::test]
async fn a_restart_in_an_outage_keeps_the_keys_and_their_age() {
    let (folder, api, listed_at) = first_life("restart").await;
    api.reply(down());
    let mut config = saving_in(&folder, &api);
    // The first poll comes within two seconds: time to look before it.
    config.accounts[0].interval = Duration::from_secs(20);
    let exporter = Exporter::with(&config).await;
    let before = exporter.scrape().await;
    assert_eq!(before.key_ids(), ["a", "b"]);
    if before.account("polls_total") == Some(0.0) {
        assert_eq!(before.account("up"), None);
        assert_eq!(exporter.get("/-/ready").await.0, 200);
    }
    let during = exporter.fails("server_error").await;
    assert_eq!(during.key_ids(), ["a", "b"]);
    assert_eq!(during.account("up"), Some(0.0));
    let age = during.account("last_success_timestamp_seconds").unwrap() - listed_at;
    // What was saved may be of a later poll of the first life than the one that was seen.
    assert!((-0.001..5.0).contains(&age), "{age}");
    stopped(exporter, &folder).await;
}

#[tokio::test]
async fn what_changed_while_the_exporter_was_down_is_counted() {
    let (folder, api, _) = first_life("changed").await;
    api.reply(listing(&["b", "c"]));
    let exporter = Exporter::with(&saving_in(&folder, &api)).await;
    let scrape = exporter.up().await;
    for change in ["added", "removed"] {
        let changes =
            format!("api_key_account_changes_total{{account=\"default\",change=\"{change}\"}}");
        assert_eq!(scrape.get(&changes), Some(1.0), "{change}");
    }
    stopped(exporter, &folder).await;
}

#[tokio::test]
async fn a_damaged_file_is_ignored_and_replaced() {
    let (folder, api, _) = first_life("damaged").await;
    let path = snapshot(&folder).unwrap();
    let good = fs::read(&path).unwrap();
    let half = good[..good.len() / 2].to_vec();
    for bytes in [half, vec![], vec![0; good.len()], b"{}".to_vec()] {
        fs::write(&path, &bytes).unwrap();
        api.reply(down());
        let exporter = Exporter::with(&saving_in(&folder, &api)).await;
        assert_eq!(exporter.scrape().await.key_ids().len(), 0);
        exporter.fails("server_error").await;
        api.reply(listing(&["a", "b"]));
        exporter.up().await;
        let start = Instant::now();
        while fs::read(&path).unwrap() == bytes {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it is not replaced"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stopped(exporter, &folder).await;
    }
}

#[tokio::test]
async fn a_file_of_another_api_is_ignored() {
    let (folder, _api, _) = first_life("foreign").await;
    let other = Api::start(down()).await;
    let exporter = Exporter::with(&saving_in(&folder, &other)).await;
    let scrape = exporter.fails("server_error").await;
    assert_eq!(scrape.key_ids().len(), 0);
    stopped(exporter, &folder).await;
}

#[tokio::test]
async fn the_file_is_private_and_no_link_is_followed() {
    let (folder, api, _) = first_life("private").await;
    let path = snapshot(&folder).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let directory = fs::metadata(folder.0.join("state")).unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        !text.contains("sk_live_") && !text.contains(&TOKEN[8..20]),
        "{text}"
    );
    let victim = folder.file("victim", "precious");
    fs::remove_file(&path).unwrap();
    symlink(&victim, &path).unwrap();
    symlink(&victim, path.with_extension("new")).unwrap();
    let exporter = Exporter::with(&saving_in(&folder, &api)).await;
    exporter.up().await;
    let start = Instant::now();
    while fs::symlink_metadata(&path).unwrap().is_symlink() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it is not replaced"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    stopped(exporter, &folder).await;
}

const SAVE_FAILURES: &str = "api_key_exporter_state_save_failures_total";

#[tokio::test]
async fn a_second_exporter_saves_nothing() {
    let (folder, api, _) = first_life("second").await;
    let first = Exporter::with(&saving_in(&folder, &api)).await;
    first.up().await;
    let path = saved(&folder).await;
    let other = Api::start(listing(&["z"])).await;
    let second = Exporter::with(&saving_in(&folder, &other)).await;
    // It tried at several polls.
    let failing = |scrape: &Scrape| scrape.get(SAVE_FAILURES) >= Some(3.0);
    let failing = second.until("snapshots that are not saved", failing).await;
    assert_eq!(failing.account("up"), Some(1.0));
    let is_of_the_second = || fs::read_to_string(&path).unwrap().contains("\"z\"");
    assert!(!is_of_the_second());
    assert_eq!(first.scrape().await.get(SAVE_FAILURES), Some(0.0));
    // The rest of a rolling restart: the old one goes, and the new one saves from then on.
    first.stop().await;
    let start = Instant::now();
    while !is_of_the_second() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the second one never saves"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stopped(second, &folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_missing_at_the_start_is_used_once_it_is_there() {
    let folder = Folder::new("no-folder");
    let api = Api::start(listing(&["a"])).await;
    let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
    let parent = folder.0.join("volume");
    command.env("STATE_DIRECTORY", parent.join("state"));
    let daemon = Daemon::start(command, &folder);
    daemon.logs("starting without the saved snapshots").await;
    let told = "cannot save the snapshot;";
    let failing = |scrape: &Scrape| scrape.get(SAVE_FAILURES) >= Some(2.0);
    let failing = daemon.until("snapshots are not saved", failing).await;
    assert_eq!(failing.account("up"), Some(1.0));
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    fs::create_dir(&parent).unwrap();
    daemon.logs("saving the snapshots succeeded again").await;
    let entries = fs::read_dir(parent.join("state")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().any(|name| name != "lock"));
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_free_file_costs_the_snapshots_no_longer_than_that() {
    let (folder, api, _) = first_life("no-files").await;
    fs::remove_file(snapshot(&folder).unwrap()).unwrap();
    let lock = format!("-P{}", folder.0.join("state/lock").display());
    let once = ["-e", "inject=openat:error=EMFILE:when=1", &lock];
    let daemon = traced(&folder, &api, &once);
    daemon.logs("starting without the saved snapshots").await;
    assert!(
        daemon.log().contains("Too many open files"),
        "{}",
        daemon.log()
    );
    saved(&folder).await;
    daemon.signal_all("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

/// A daemon with a state directory, started by strace with these arguments.
fn traced(folder: &Folder, api: &Api, arguments: &[&str]) -> Daemon {
    let daemon = binary(&["--config.file", &config_file(folder, &api.url())]);
    let mut command = Command::new("strace");
    command
        // The last of several -o counts.
        .args(["-f", "-qq", "-o", "/dev/null"])
        .args(arguments)
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .env_clear()
        .env("STATE_DIRECTORY", folder.0.join("state"))
        .stdin(Stdio::null());
    Daemon::start(command, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_a_count_and_no_poll() {
    let (folder, api, _) = first_life("full-disk").await;
    let path = snapshot(&folder).unwrap();
    let before = fs::read(&path).unwrap();
    for (call, error) in [
        ("fsync", "ENOSPC"),
        ("fsync", "EIO"),
        ("rename", "EROFS"),
        ("rename", "EDQUOT"),
        ("unlink", "EACCES"),
    ] {
        let inject = format!("inject={call}:error={error}");
        let daemon = traced(&folder, &api, &["-e", &inject]);
        daemon.logs("cannot save the snapshot").await;
        let scrape = Scrape::parse(&daemon.get("/metrics").await);
        assert_eq!(scrape.account("up"), Some(1.0), "{call} {error}");
        let failures = scrape.get(SAVE_FAILURES);
        assert!(failures >= Some(1.0), "{call} {error}: {failures:?}");
        assert_eq!(fs::read(&path).unwrap(), before, "{call} {error}");
        daemon.signal_all("-TERM");
        let (code, _) = daemon.ended();
        assert_eq!(code, Some(0), "{call} {error}");
        let unfinished = path.with_extension("new").exists();
        assert!(!unfinished || call == "unlink", "{call} {error}");
    }
}

/// The system calls of a save, in order: each call's name, and the how manieth of that name it is.
async fn calls_of_a_save(folder: &Folder, api: &Api, paths: &[String]) -> Vec<(String, usize)> {
    let trace = folder.0.join("trace").display().to_string();
    let mut arguments = vec!["-o", &trace];
    arguments.extend(paths.iter().map(String::as_str));
    let daemon = traced(folder, api, &arguments);
    let start = Instant::now();
    let lines = loop {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        // The folder is closed last, after the file.
        if text.matches(" close(").count() >= 2 {
            break text;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    daemon.signal_all("-KILL");
    daemon.ended();
    let words = |line: &str| {
        let (pid, call) = line.split_once(char::is_whitespace)?;
        let (name, _) = call.trim_start().split_once('(')?;
        Some((pid.to_owned(), name.to_owned()))
    };
    let calls: Vec<(String, String)> = lines.lines().filter_map(words).collect();
    let (saver, _) = calls.iter().find(|(_, name)| name == "unlink").unwrap();
    let mut names: Vec<String> = Vec::new();
    let saving = calls.iter().filter(|(pid, _)| pid == saver);
    let counted = saving.map(|(_, name)| {
        names.push(name.clone());
        (
            name.clone(),
            names.iter().filter(|known| *known == name).count(),
        )
    });
    counted.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_of_a_save_it_finds_the_old_or_the_new_state() {
    let (folder, api, _) = first_life("killed").await;
    let path = snapshot(&folder).unwrap();
    // The lock is not touched by a save, and the snapshot itself only by the rename.
    let paths = [path.with_extension("new"), folder.0.join("state")];
    let paths = paths.map(|path| format!("-P{}", path.display()));
    let calls = calls_of_a_save(&folder, &api, &paths).await;
    for call in ["unlink", "openat", "write", "fsync", "rename", "close"] {
        assert!(
            calls.iter().any(|(name, _)| name == call),
            "{call}: {calls:?}"
        );
    }
    let mut old = vec!["a".to_owned(), "b".to_owned()];
    let mut found_new = 0;
    for (number, (call, count)) in calls.iter().enumerate() {
        let new = [format!("c{number}"), format!("d{number}")];
        api.reply(listing(&new.each_ref().map(String::as_str)));
        let inject = format!("inject={call}:signal=KILL:when={count}");
        let mut arguments = vec!["-e", &inject];
        arguments.extend(paths.iter().map(String::as_str));
        let (code, _) = traced(&folder, &api, &arguments).ended();
        assert_eq!(code, None, "it was not killed at {call} {count}");
        api.reply(down());
        let exporter = Exporter::with(&saving_in(&folder, &api)).await;
        let ids = exporter.scrape().await.key_ids();
        assert!(ids == old || ids == new, "{call} {count}: {ids:?}");
        found_new += usize::from(ids == new);
        old = ids;
        stopped(exporter, &folder).await;
    }
    // Some come before the new one is in place, some after.
    assert!(
        (1..calls.len()).contains(&found_new),
        "{found_new} of {calls:?}"
    );
}
