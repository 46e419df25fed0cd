//! Time: clocks that are wrong, step or lie, and exporters that all start
//! at once.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use crate::process::{Daemon, binary};
use crate::promtool::check_metrics;
use crate::support::{Api, Folder, Scrape, TOKEN, key, listing};
use crate::tls::{Authority, VALID};

/// The daemon's wall clock, which a test turns. What counts from some start, as waits do, goes on.
struct Clock(PathBuf);

impl Clock {
    /// `time` is an offset such as `+3600`, a moment that goes on from there such as
    /// `@1970-01-01 00:00:00`, or one that stands still, without the `@`. Moments are UTC.
    fn new(folder: &Folder, time: &str) -> Self {
        Self(folder.file("clock", time))
    }

    /// Lets `command` live by this clock.
    fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1")
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("TZ", "UTC")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    fn step(&self, time: &str) {
        // Renamed into place: the daemon reads it at any moment.
        let next = self.0.with_extension("next");
        fs::write(&next, time).unwrap();
        fs::rename(next, &self.0).unwrap();
    }
}

/// A daemon with one account at `base_url`, polled as often as allowed.
fn daemon(folder: &Folder, base_url: &str, lines: &str) -> Command {
    let text = format!(
        "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
         web.listen_addresses = [\"127.0.0.1:0\"]\n[[accounts]]\nname = \"default\"\n\
         base_url = \"{base_url}\"\ntoken_env = \"TOKEN\"\n{lines}\n"
    );
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    command
}

fn expires_in(scrape: &Scrape) -> f64 {
    let series = "api_key_expires_in_seconds{account=\"default\",key_id=\"a\"}";
    scrape.get(series).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_moves_no_poll_and_no_expiry() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("stepping");
    let clock = Clock::new(&folder, "+0");
    let mut command = daemon(&folder, &api.url(), "");
    clock.rule(&mut command);
    let daemon = Daemon::start(command, &folder);
    let polls = |count: f64| move |scrape: &Scrape| scrape.account("polls_total") == Some(count);
    let last_attempt = |scrape: &Scrape| scrape.account("last_attempt_timestamp_seconds").unwrap();
    let first = daemon.until("a poll", polls(1.0)).await;
    clock.step("+3600");
    let ahead = daemon.until("a poll in an hour", polls(2.0)).await;
    clock.step("-3600");
    let behind = daemon.until("a poll an hour ago", polls(3.0)).await;
    let near = |value: f64, expected: f64| (value - expected).abs() < 20.0;
    for (scrape, hours) in [(&ahead, 1.0), (&behind, -1.0)] {
        let moved = last_attempt(scrape) - last_attempt(&first);
        assert!(near(moved, hours * 3600.0), "{moved}");
        let nearer = expires_in(&first) - expires_in(scrape);
        assert!(near(nearer, hours * 3600.0), "{nearer}");
        let expiry = "api_key_expiry_timestamp_seconds{account=\"default\",key_id=\"a\"}";
        assert_eq!(scrape.get(expiry), first.get(expiry));
        assert_eq!(scrape.account("up"), Some(1.0));
    }
    // By the API's clock, they came when they should.
    let asked: Vec<_> = api.requests().iter().map(|request| request.at).collect();
    for pair in asked.windows(2) {
        let gap = pair[1] - pair[0];
        // The interval, a tenth of it, and a busy machine.
        let range = Duration::from_secs(3)..Duration::from_secs(9);
        assert!(range.contains(&gap), "{gap:?}");
    }
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_hide_that_keys_are_stale() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("set-back");
    let clock = Clock::new(&folder, "+8h");
    let state = format!(
        "[state]\ndirectory = {:?}",
        folder.0.join("state").display().to_string()
    );
    let start = || {
        let mut command = daemon(&folder, &api.url(), &state);
        clock.rule(&mut command);
        Daemon::start(command, &folder)
    };
    let last_success = |scrape: &Scrape| scrape.account("last_success_timestamp_seconds").unwrap();
    let seconds = || DateTime::<Utc>::from(std::time::SystemTime::now()).timestamp() as f64;
    let plausible = |scrape: &Scrape| {
        let (last, now) = (last_success(scrape), seconds());
        assert!((now - 60.0..=now + 1.0).contains(&last), "{last} at {now}");
        let next = scrape.account("next_poll_timestamp_seconds").unwrap();
        assert!((now - 60.0..now + 60.0).contains(&next), "{next} at {now}");
    };
    let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    let failed = |scrape: &Scrape| scrape.account("up") == Some(0.0);
    let is_ahead = |scrape: &Scrape| last_success(scrape) > seconds() + 7.0 * 3600.0;
    let set_back = "the clock was set back";
    let ahead = start();
    assert!(is_ahead(&ahead.until("a good poll", up).await));
    super::state::saved(&folder).await;
    drop(ahead);
    // What it saved is from the future; so it is before the first poll already.
    clock.step("+0");
    api.reply(Reply::error(500, "no", "support_1"));
    let daemon = start();
    let known = |scrape: &Scrape| scrape.key_ids() == ["a"];
    let scrape = daemon.until("the saved keys", known).await;
    let last = last_success(&scrape);
    assert!(
        (seconds() - 60.0..=seconds() + 1.0).contains(&last),
        "{last}"
    );
    plausible(&daemon.until("a failure", failed).await);
    daemon.logs(set_back).await;
    // The same while it runs.
    clock.step("+8h");
    api.reply(listing(&["a"]));
    daemon.until("a good poll that is ahead", is_ahead).await;
    api.reply(Reply::error(500, "no", "support_1"));
    clock.step("+0");
    let scrape = daemon.until("another failure", failed).await;
    plausible(&scrape);
    let more = scrape.failures("server_error") + 1.0;
    let again = move |scrape: &Scrape| scrape.failures("server_error") >= more;
    plausible(&daemon.until("one more failure", again).await);
    assert_eq!(
        daemon.log().matches(set_back).count(),
        2,
        "{}",
        daemon.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_starts_in_the_past_is_named_and_recovers() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("past");
    let authority = Authority::new();
    let address = authority.front(&api, "localhost", VALID).await;
    let ca_file = format!("ca_file = {:?}", folder.file("ca.pem", &authority.pem()));
    let clock = Clock::new(&folder, "@1960-01-01 00:00:00");
    let url = format!("https://localhost:{}", address.port());
    let mut command = daemon(&folder, &url, &ca_file);
    clock.rule(&mut command);
    let daemon = Daemon::start(command, &folder);
    daemon.logs("reason=tls").await;
    daemon.logs("is this machine's clock right?").await;
    clock.step("@1970-01-01 00:01:00");
    let failed = |scrape: &Scrape| scrape.failures("tls") == 1.0;
    let scrape = daemon.until("the first failure", failed).await;
    let of = |name: &str| scrape.account(&format!("{name}_timestamp_seconds"));
    assert_eq!(of("last_attempt"), Some(0.0), "before 1970 is 1970");
    assert_eq!(of("last_success"), None);
    assert!(of("next_poll") < Some(10.0));
    let again = |scrape: &Scrape| scrape.failures("tls") == 2.0;
    let scrape = daemon.until("the failure in 1970", again).await;
    let at = scrape.account("last_attempt_timestamp_seconds");
    assert!(at >= Some(60.0) && at < Some(90.0), "{at:?}");
    clock.step("+0");
    let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    let scrape = daemon.until("a good poll", up).await;
    assert!(scrape.account("last_success_timestamp_seconds") > Some(1.7e9));
    assert!(!daemon.log().contains("panic"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn far_years_are_written_whole() {
    let forever = json!({ "id": "a", "expires_at": "9999-12-31 23:59:59" });
    let api = Api::start(Reply::listing(&[forever])).await;
    for (time, now) in [
        ("2038-01-19 03:14:08", 2_147_483_648.0),
        ("2106-02-07 06:28:16", 4_294_967_296.0),
        ("9999-12-31 23:00:00", 253_402_297_200.0),
    ] {
        let folder = Folder::new(&format!("far-{now}"));
        let clock = Clock::new(&folder, &format!("@{time}"));
        let mut command = daemon(&folder, &api.url(), "");
        clock.rule(&mut command);
        let daemon = Daemon::start(command, &folder);
        let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
        let scrape = daemon.until("a good poll", up).await;
        let since = scrape.account("last_success_timestamp_seconds").unwrap() - now;
        assert!((0.0..60.0).contains(&since), "{time}: {since}");
        let left = expires_in(&scrape) + now - 253_402_300_799.0;
        assert!((-60.0..=0.0).contains(&left), "{time}: {left}");
        check_metrics(time, &daemon.get("/metrics").await);
        assert!(!daemon.log().contains("panic"), "{}", daemon.log());
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn no_timezone_changes_a_word() {
    let mut soon = key("a");
    soon["expires_at"] = json!("2026-03-08 07:00:01");
    soon["created_at"] = json!("2026-03-08 02:30:00");
    let api = Api::start(Reply::listing(&[soon, key("b")])).await;
    let mut told = Vec::new();
    // The second summer time of the last zone starts at this very second.
    for zone in ["UTC", "JST-9", "EST5EDT,M3.2.0,M11.1.0"] {
        let folder = Folder::new(&format!("zone-{}", &zone[..3]));
        let clock = Clock::new(&folder, "1772953200");
        let mut command = daemon(&folder, &api.url(), "");
        clock.rule(&mut command);
        command.env("FAKETIME_FMT", "%s").env("TZ", zone);
        let daemon = Daemon::start(command, &folder);
        let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
        daemon.until("a good poll", up).await;
        daemon.logs("key_id=a").await;
        let text = daemon.get("/metrics").await;
        // What is left out is random, or of the process.
        let is_about_keys = |line: &&str| {
            let is_random = line.contains("next_poll");
            line.starts_with("api_key_") && !line.starts_with("api_key_exporter_") && !is_random
        };
        let lines: Vec<String> = text
            .lines()
            .filter(is_about_keys)
            .map(str::to_owned)
            .collect();
        let log = daemon.log();
        let times: Vec<String> = log.lines().map(|line| line[5..29].to_owned()).collect();
        let crossing = log.lines().find(|line| line.contains("key_id=a")).unwrap();
        let crossing = crossing.to_owned();
        told.push((lines, times, crossing));
    }
    let expires_in = "api_key_expires_in_seconds{account=\"default\",key_id=\"a\"} 1";
    assert!(
        told[0].0.iter().any(|line| line == expires_in),
        "{:#?}",
        told[0]
    );
    assert!(
        told[0]
            .1
            .iter()
            .all(|time| time == "2026-03-08T07:00:00.000Z"),
        "{:?}",
        told[0].1
    );
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_disagree_are_logged_once() {
    let reply = |skew: TimeDelta, created_at: DateTime<Utc>| {
        let mut new = key("new");
        new["created_at"] = json!(created_at.format("%Y-%m-%d %H:%M:%S").to_string());
        let date = (Utc::now() + skew).format("%a, %d %b %Y %H:%M:%S GMT");
        let odd = json!({
            "id": "odd", "created_at": "2025-01-01 00:00:00", "updated_at": null,
            "expires_at": "2024-01-01 00:00:00"
        });
        Reply::listing(&[new, odd]).header("Date", &date.to_string())
    };
    let (hour, none) = (TimeDelta::hours(1), TimeDelta::zero());
    // By the API's own clock, the key is of tomorrow.
    let api = Api::start(reply(hour, Utc::now() + TimeDelta::days(1))).await;
    let folder = Folder::new("skewed");
    let daemon = Daemon::start(daemon(&folder, &api.url(), ""), &folder);
    let polls = |count: f64| move |scrape: &Scrape| scrape.account("polls_total") == Some(count);
    let scrape = daemon.until("two polls", polls(2.0)).await;
    assert_eq!(scrape.key_ids(), ["new", "odd"]);
    let skew = scrape.account("clock_skew_seconds").unwrap();
    assert!((3_580.0..=3_600.0).contains(&skew), "{skew}");
    // An hour ahead of us is fine for a key where it is fine for the API.
    api.reply(reply(none, Utc::now()));
    daemon
        .logs("clock skew between the API and this machine is gone")
        .await;
    let log = daemon.log();
    let lines = |words: &str| {
        log.lines()
            .filter(|line| line.contains(words))
            .collect::<Vec<_>>()
    };
    let found = lines("clock skew between the API and this machine; check time synchronization");
    assert_eq!(found.len(), 1, "{log}");
    assert!(
        found[0].contains(" level=WARN ") && found[0].contains("skew_seconds=3"),
        "{log}"
    );
    let future = lines("keys were created in the future");
    assert_eq!(future.len(), 1, "{log}");
    for words in [
        " level=WARN ",
        "timezone",
        "key_id=new",
        "created_at=20",
        "keys=1",
    ] {
        assert!(future[0].contains(words), "{words}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_that_start_together_do_not_arrive_together() {
    const EXPORTERS: usize = 16;
    let api = Api::start(listing(&["a"])).await;
    let folders: Vec<Folder> = (0..EXPORTERS)
        .map(|number| Folder::new(&format!("herd-{number}")))
        .collect();
    let daemons: Vec<(Instant, Daemon)> = folders
        .iter()
        .enumerate()
        .map(|(number, folder)| {
            // The path tells whose request it is.
            let base_url = format!("{}/{number}", api.url());
            let command = daemon(folder, &base_url, "interval = \"5m\"");
            (Instant::now(), Daemon::start(command, folder))
        })
        .collect();
    let start = Instant::now();
    while api.requests().len() < EXPORTERS {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "not all have asked"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut waits: Vec<Duration> = api
        .requests()
        .iter()
        .map(|request| {
            let number: usize = request.line.split('/').nth(1).unwrap().parse().unwrap();
            request.at.into_std() - daemons[number].0
        })
        .collect();
    waits.sort();
    // From 0 to 5 s, and some time for starting on a busy machine.
    assert!(waits[EXPORTERS - 1] < Duration::from_secs(10), "{waits:?}");
    let are_within = |waits: &[Duration], range| waits[waits.len() - 1] < waits[0] + range;
    assert!(!are_within(&waits, Duration::from_secs(2)), "{waits:?}");
    let tenth = Duration::from_millis(100);
    let is_apart = |some: &[Duration]| !are_within(some, tenth);
    assert!(waits.windows(EXPORTERS / 2).all(is_apart), "{waits:?}");
}
