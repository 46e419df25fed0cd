//! The soak: the exporter polls fake APIs a hundred times as often as by default, while they walk
//! through the fault catalogue and the process is reloaded, starved of its disk and killed. After
//! each storm comes a quiet spell in which `/metrics` must tell exactly what happened.
//!
//! `cargo run --release --example soak -- --minutes 20 --seed 1`; exit code 0 where nothing differed.
//! `… soak -- --steady 10` only polls, as fast as it can, and tells whether memory grows.
//! The daemon is this program itself, started again with a configuration file, so that it can poll
//! faster than any configuration may say.
#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    clippy::too_many_lines,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test program stops at the first thing that it did not expect"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api_key_exporter::app::{self, Exit};
use api_key_exporter::config::{Config, Flags, Sources};
use api_key_exporter::fake_api::{FakeApi, Framing, Reply};
use api_key_exporter::os::systemd::Unit;
use api_key_exporter::reload::Load;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// By default an account is polled every five minutes. Shorter, and a machine that stands still for
/// two seconds would cause faults that no script knows of.
const INTERVAL: Duration = Duration::from_secs(3);

/// Each has an API and a script of its own. Some polls of each a round, and enough together to tell
/// a leak from noise.
const ACCOUNTS: usize = 64;

/// Accounts that are never answered as they must be, and the reason of each of their failures: no
/// listener, a server that speaks no TLS, a name that is none (RFC 6761).
const DEAD_ACCOUNTS: [(&str, &str); 3] = [
    ("refused", "connect"),
    ("plain", "tls"),
    ("nameless", "dns"),
];

/// Long enough for some polls of each account.
const STORM: Duration = Duration::from_secs(12);

/// How long the truth may take to show.
const PATIENCE: Duration = Duration::from_secs(30);

const TOKEN: &str = "sk_live_c29hayB0ZXN0IHRva2VuIG9mIG5vIHZhbHVl.zYxWv";

/// Keys of the largest good listing; one more than `poll.max_keys` is too many.
const KEYS_MAX: usize = 40;

/// What a script did to one account since its exporter was started.
#[derive(Clone, Default)]
struct Truth {
    is_quiet: bool,
    requests: u64,
    failures: BTreeMap<&'static str, u64>,
    /// The last good listing: id and expiry.
    held: Option<BTreeMap<String, i64>>,
    changes: BTreeMap<&'static str, u64>,
    faults: u64,
}

impl Truth {
    fn listed(&mut self, listing: BTreeMap<String, i64>) {
        if let Some(held) = &self.held {
            let added = listing.keys().filter(|id| !held.contains_key(*id)).count();
            let removed = held.keys().filter(|id| !listing.contains_key(*id)).count();
            let moved = |(id, end): &(&String, &i64)| held.get(*id).is_some_and(|old| old != *end);
            let moved = listing.iter().filter(moved).count();
            for (change, count) in [("added", added), ("removed", removed), ("expiry", moved)] {
                *self.changes.entry(change).or_default() += count as u64;
            }
        }
        self.held = Some(listing);
    }
}

/// One answer, and what it means to the truth.
fn answer(random: &mut fastrand::Rng, truth: &Mutex<Truth>) -> Reply {
    let mut truth = truth.lock().unwrap();
    truth.requests += 1;
    if truth.is_quiet || random.u32(..100) < 45 {
        let listing = match (&truth.held, truth.is_quiet) {
            (Some(held), true) => held.clone(),
            _ => random_listing(random),
        };
        let reply = Reply::listing(&listing.iter().map(key).collect::<Vec<_>>());
        truth.listed(listing);
        return reply;
    }
    let (reason, reply) = fault(random);
    *truth.failures.entry(reason).or_default() += 1;
    truth.faults += 1;
    reply
}

fn random_listing(random: &mut fastrand::Rng) -> BTreeMap<String, i64> {
    let count = random.usize(1..=KEYS_MAX);
    (0..count)
        .map(|_| {
            (
                format!("api_key_{}", random.u32(..100)),
                random.i64(1_800_000_000..4_000_000_000),
            )
        })
        .collect()
}

fn key((id, end): (&String, &i64)) -> Value {
    let end = chrono::DateTime::from_timestamp(*end, 0).unwrap();
    let end = end.format("%Y-%m-%d %H:%M:%S").to_string();
    json!({ "id": id, "expires_at": end, "secret": "sk_live_bWFza2Vk...12345", "scopes": ["a"] })
}

/// The catalogue, as far as one API can cause it: the reason that the exporter must count.
fn fault(random: &mut fastrand::Rng) -> (&'static str, Reply) {
    let good = || Reply::listing(&[json!({ "id": "wrong" })]);
    let id = "support_0197c0ec-a197-719f-84a9-0000000000aa";
    let error = |status| {
        Reply::error(
            status,
            "no\r\nERROR sk_live_bm90IHRvIGJlIHNlZW4 \u{1b}[31m",
            id,
        )
    };
    match random.u32(..23) {
        0 => ("server_error", error(500)),
        1 => ("server_error", error(503).header("Retry-After", "1")),
        2 => ("unauthorized", error(401)),
        3 => ("forbidden", error(403)),
        4 => ("client_error", error(404)),
        5 => ("rate_limited", error(429).header("Retry-After", "2")),
        6 => (
            "redirect",
            Reply::body(302, "text/plain", "").header("Location", "http://127.0.0.1:1/"),
        ),
        7 => (
            "not_json",
            Reply::body(200, "text/html", "<html>Bad gateway</html>"),
        ),
        8 => ("not_json", good().header("Content-Encoding", "gzip")),
        9 => (
            "not_json",
            Reply::body(200, "application/json", "{\"status\": 200, \"data\": ["),
        ),
        10 => (
            "not_json",
            Reply::body(200, "application/json", vec![0xff; 1_000]),
        ),
        11 => (
            "body_truncated",
            Reply {
                framing: Framing::FalseLength(100_000),
                ..good()
            },
        ),
        12 => (
            "body_truncated",
            Reply {
                framing: Framing::Chunked,
                cut_after: Some(40),
                ..good()
            },
        ),
        13 => (
            "body_truncated",
            Reply {
                framing: Framing::Close,
                cut_after: Some(40),
                ..good()
            },
        ),
        14 => (
            "schema",
            Reply::json(200, &json!({ "status": 200, "data": null, "error": null })),
        ),
        15 => ("schema", Reply::json(200, &json!([200, []]))),
        16 => (
            "api_error",
            Reply::json(
                200,
                &json!({ "status": 200, "data": [], "error": "no", "support_id": id }),
            ),
        ),
        17 => (
            "api_error",
            Reply::json(200, &json!({ "status": 500, "data": [], "error": null })),
        ),
        18 => (
            "body_too_large",
            Reply {
                framing: Framing::FalseLength(1 << 40),
                ..good()
            },
        ),
        19 => {
            let endless = Reply::body(200, "application/json", vec![b' '; 65_536]);
            (
                "body_too_large",
                Reply {
                    framing: Framing::Close,
                    is_endless: true,
                    ..endless
                },
            )
        }
        20 => (
            "too_many_keys",
            Reply::listing(&vec![json!({ "id": "x" }); KEYS_MAX + 1]),
        ),
        21 => (
            "timeout",
            Reply {
                delay: Duration::from_secs(60),
                ..good()
            },
        ),
        _ => (
            "timeout",
            Reply {
                body_drip: Duration::from_millis(200),
                ..good()
            },
        ),
    }
}

/// The exporter under test.
struct Daemon {
    child: Child,
    address: SocketAddr,
}

impl Daemon {
    async fn start(folder: &Path, port: u16, interval: Duration) -> Self {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["daemon", &folder.join("config.toml").display().to_string()])
            .arg(interval.as_millis().to_string())
            .stderr(log.unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        let start = Instant::now();
        while daemon.scrape().await.is_none() {
            assert!(start.elapsed() < PATIENCE, "the daemon does not answer");
            sleep(Duration::from_millis(10)).await;
        }
        daemon
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    async fn scrape(&self) -> Option<BTreeMap<String, f64>> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let mut series = BTreeMap::new();
        for line in lines {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let before = series.insert(name.to_owned(), value.parse().unwrap());
            assert!(before.is_none(), "twice: {line}");
        }
        Some(series)
    }

    fn of_proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    fn count(&self, name: &str) -> usize {
        fs::read_dir(self.of_proc(name)).unwrap().count()
    }

    fn rss_kib(&self) -> f64 {
        let status = fs::read_to_string(self.of_proc("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Everything in one place: the scripts, the files, the exporter.
struct Soak {
    folder: PathBuf,
    port: u16,
    config: String,
    truths: Vec<Arc<Mutex<Truth>>>,
    daemon: Daemon,
    mismatches: u64,
    is_after_kill: bool,
}

impl Soak {
    fn config_file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Where account `number`'s next snapshot is written.
    fn unfinished(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.join("state")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "snapshot"))
            .map(|path| path.with_extension("new"))
            .collect()
    }

    /// `may_kill`: whether the process may be killed, too.
    async fn storm(&mut self, random: &mut fastrand::Rng, may_kill: bool) -> Vec<&'static str> {
        for truth in &self.truths {
            truth.lock().unwrap().is_quiet = false;
        }
        sleep(STORM / 3).await;
        let mut done = Vec::new();
        let blocked = if random.u32(..3) == 0 {
            done.push("disk");
            self.unfinished()
        } else {
            Vec::new()
        };
        // Nothing can be written where a folder with something in it stands.
        for path in &blocked {
            drop(fs::remove_file(path));
            fs::create_dir_all(path.join("in the way")).unwrap();
        }
        if random.u32(..3) == 0 {
            done.push("broken reload");
            fs::write(self.config_file(), "[poll").unwrap();
            self.daemon.signal("-HUP");
        }
        if random.u32(..3) == 0 {
            done.push("torn token");
            fs::write(self.folder.join("token"), "").unwrap();
        }
        sleep(STORM / 3).await;
        if random.u32(..2) == 0 {
            done.push("hangups");
            for _ in 0..random.u32(1..20) {
                self.daemon.signal("-HUP");
            }
        }
        if may_kill && random.u32(..3) == 0 {
            done.push("kill");
            self.kill().await;
        }
        sleep(STORM / 3).await;
        for path in &blocked {
            drop(fs::remove_dir_all(path));
        }
        fs::write(self.config_file(), &self.config).unwrap();
        fs::write(self.folder.join("new-token"), TOKEN).unwrap();
        fs::rename(self.folder.join("new-token"), self.folder.join("token")).unwrap();
        self.daemon.signal("-HUP");
        done
    }

    async fn kill(&mut self) {
        let had_snapshots = self.unfinished().len();
        self.daemon.child.kill().unwrap();
        self.daemon.child.wait().unwrap();
        // Requests that were under way must have reached their script.
        sleep(Duration::from_millis(300)).await;
        fs::write(self.config_file(), &self.config).unwrap();
        fs::write(self.folder.join("token"), TOKEN).unwrap();
        for truth in &self.truths {
            let mut truth = truth.lock().unwrap();
            truth.requests = 0;
            truth.failures.clear();
            truth.changes.clear();
        }
        // Which of the last two listings was saved is not known, and so neither what changed.
        self.is_after_kill = true;
        self.daemon = Daemon::start(&self.folder, self.port, INTERVAL).await;
        let scrape = self.daemon.scrape().await.unwrap();
        let accounts_with_keys: BTreeSet<&str> = scrape
            .keys()
            .filter_map(|series| series.strip_prefix("api_key_info{account=\""))
            .map(|rest| rest.split_once('"').unwrap().0)
            .collect();
        if accounts_with_keys.len() < had_snapshots {
            self.differs(&format!(
                "{had_snapshots} snapshots, {accounts_with_keys:?} known"
            ));
        }
    }

    fn differs(&mut self, what: &str) {
        println!("MISMATCH {what}");
        self.mismatches += 1;
    }

    /// Waits until the exporter tells the truth, or says where it does not.
    async fn quiet(&mut self) -> u64 {
        for truth in &self.truths {
            truth.lock().unwrap().is_quiet = true;
        }
        sleep(INTERVAL * 3).await;
        let start = Instant::now();
        loop {
            let before: Vec<Truth> = self
                .truths
                .iter()
                .map(|truth| truth.lock().unwrap().clone())
                .collect();
            let scrape = self
                .daemon
                .scrape()
                .await
                .expect("an exporter that answers");
            let differences = self.differences(&before, &scrape);
            if differences.is_empty() {
                self.is_after_kill = false;
                return scrape
                    .iter()
                    .filter(|(series, _)| series.starts_with("api_key_account_polls_total"))
                    .map(|(_, value)| *value as u64)
                    .sum();
            }
            if start.elapsed() > PATIENCE {
                for difference in differences {
                    self.differs(&difference);
                }
                return 0;
            }
            // A poll may have been under way.
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn differences(&self, truths: &[Truth], scrape: &BTreeMap<String, f64>) -> Vec<String> {
        let mut differences = Vec::new();
        let mut expect = |series: String, expected: Option<f64>| {
            let shown = scrape.get(&series).copied();
            if shown != expected {
                differences.push(format!("{series} is {shown:?}, not {expected:?}"));
            }
        };
        expect(
            "api_key_exporter_config_last_reload_successful".to_owned(),
            Some(1.0),
        );
        expect(
            "api_key_exporter_task_panics_total{task=\"poller\"}".to_owned(),
            Some(0.0),
        );
        expect(
            "api_key_exporter_task_panics_total{task=\"connection\"}".to_owned(),
            Some(0.0),
        );
        for (name, reason) in DEAD_ACCOUNTS {
            let account = format!("account=\"{name}\"");
            let polls = scrape.get(&format!("api_key_account_polls_total{{{account}}}"));
            let of_reason = |reason: &str| {
                let labels = format!("{{{account},reason=\"{reason}\"}}");
                scrape.get(&format!("api_key_account_poll_failures_total{labels}"))
            };
            let tokenless = of_reason("credential").copied().unwrap_or(0.0);
            let expected = polls.map(|polls| polls - tokenless);
            expect(
                format!("api_key_account_poll_failures_total{{{account},reason=\"{reason}\"}}"),
                expected,
            );
            expect(
                format!("api_key_account_consecutive_failures{{{account}}}"),
                polls.copied(),
            );
            expect(format!("api_key_account_up{{{account}}}"), Some(0.0));
        }
        let mut keys = 0;
        for (number, truth) in truths.iter().enumerate() {
            let account = format!("account=\"a{number}\"");
            let failures = |reason: &str| {
                format!("api_key_account_poll_failures_total{{{account},reason=\"{reason}\"}}")
            };
            // The API knows nothing of polls that had no token to ask with.
            let tokenless = scrape.get(&failures("credential")).copied().unwrap_or(0.0);
            expect(
                format!("api_key_account_polls_total{{{account}}}"),
                Some(truth.requests as f64 + tokenless),
            );
            expect(format!("api_key_account_up{{{account}}}"), Some(1.0));
            expect(
                format!("api_key_account_consecutive_failures{{{account}}}"),
                Some(0.0),
            );
            for reason in REASONS {
                let count = truth.failures.get(reason).copied().unwrap_or(0);
                expect(failures(reason), Some(count as f64));
            }
            for change in ["added", "removed", "expiry"] {
                let series =
                    format!("api_key_account_changes_total{{{account},change=\"{change}\"}}");
                let count = truth.changes.get(change).copied().unwrap_or(0);
                if !self.is_after_kill {
                    expect(series, Some(count as f64));
                }
            }
            for (id, end) in truth.held.iter().flatten() {
                keys += 1;
                expect(
                    format!("api_key_expiry_timestamp_seconds{{{account},key_id=\"{id}\"}}"),
                    Some(*end as f64),
                );
            }
        }
        let shown = scrape
            .keys()
            .filter(|series| series.starts_with("api_key_info{"))
            .count();
        if shown != keys {
            differences.push(format!("{shown} keys are shown, not {keys}"));
        }
        if self.is_after_kill && differences.is_empty() {
            self.take_changes(scrape);
        }
        differences
    }

    /// From here on, changes are counted from what the exporter shows.
    fn take_changes(&self, scrape: &BTreeMap<String, f64>) {
        for (number, truth) in self.truths.iter().enumerate() {
            let mut truth = truth.lock().unwrap();
            for change in ["added", "removed", "expiry"] {
                let series = format!(
                    "api_key_account_changes_total{{account=\"a{number}\",change=\"{change}\"}}"
                );
                truth.changes.insert(change, scrape[&series] as u64);
            }
        }
    }
}

/// Every reason that a script can cause, and those that must never come.
const REASONS: [&str; 18] = [
    "dns",
    "connect",
    "tls",
    "timeout",
    "redirect",
    "unauthorized",
    "forbidden",
    "rate_limited",
    "client_error",
    "server_error",
    "body_too_large",
    "body_truncated",
    "not_json",
    "schema",
    "api_error",
    "too_many_keys",
    "environment_mismatch",
    "internal",
];

/// RSS of one quiet spell: which life of the process, its polls so far, KiB.
type Sample = (usize, f64, f64);

/// KiB for each million polls, and the standard error of that: the line through each life's samples, all lives together, without
/// each life's first third, in which buffers grow to their size.
fn slope(samples: &[Sample]) -> String {
    let lives: BTreeSet<usize> = samples.iter().map(|sample| sample.0).collect();
    let (mut covariance, mut variance, mut rss_variance, mut freedom) = (0.0, 0.0, 0.0, -1.0);
    for life in lives {
        let of_life: Vec<&Sample> = samples.iter().filter(|sample| sample.0 == life).collect();
        let (_, of_life) = of_life.split_at(of_life.len().div_ceil(3));
        let count = of_life.len() as f64;
        let mean =
            |of: fn(&Sample) -> f64| of_life.iter().map(|sample| of(sample)).sum::<f64>() / count;
        let (polls, rss) = (mean(|sample| sample.1), mean(|sample| sample.2));
        for sample in of_life {
            covariance += (sample.1 - polls) * (sample.2 - rss);
            variance += (sample.1 - polls).powi(2);
            rss_variance += (sample.2 - rss).powi(2);
        }
        freedom += (count - 1.0).max(0.0);
    }
    if variance == 0.0 || freedom < 1.0 {
        return "of too few samples".to_owned();
    }
    let slope = covariance / variance;
    let error = ((rss_variance - slope * covariance).max(0.0) / freedom / variance).sqrt();
    format!("{:.0} ± {:.0} KiB", 1e6 * slope, 1e6 * error)
}

/// One account that changes at each poll and fails at every third, polled without a pause.
async fn steady(duration: Duration) -> ExitCode {
    let folder = std::env::temp_dir().join(format!("api-key-exporter-soak-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token"), TOKEN).unwrap();
    let mut dice = fastrand::Rng::with_seed(1);
    let mut number = 0_u64;
    let script = move |_: &_| {
        number += 1;
        if number.is_multiple_of(3) {
            return Reply::error(500, "no", "support_1");
        }
        Reply::listing(
            &random_listing(&mut dice)
                .iter()
                .map(key)
                .collect::<Vec<_>>(),
        )
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let api = FakeApi::start(address, TOKEN, script).await.unwrap();
    let port = free_port();
    let config = format!(
        "web.listen_addresses = [\"127.0.0.1:{port}\"]\nstate.directory = \"state\"\npoll.attempts = 1\n\
         poll.shrink_confirmations = 1\n[[accounts]]\nname = \"a\"\nbase_url = \"http://{}\"\n\
         token_file = \"token\"\n",
        api.address()
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    let mut daemon = Daemon::start(&folder, port, Duration::from_millis(1)).await;
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < duration {
        sleep(duration / 60).await;
        let scrape = daemon.scrape().await.expect("an exporter that answers");
        let polls = scrape["api_key_account_polls_total{account=\"a\"}"];
        samples.push((0, polls, daemon.rss_kib()));
    }
    let (_, polls, rss) = samples.last().unwrap();
    println!(
        "steady: {polls} polls, rss {rss} KiB, rss slope {} for each million polls; file descriptors {}; threads {}",
        slope(&samples),
        daemon.count("fd"),
        daemon.count("task")
    );
    daemon.signal("-TERM");
    let code = daemon.child.wait().unwrap().code();
    drop(fs::remove_dir_all(&folder));
    ExitCode::from(u8::from(code != Some(0)))
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The daemon, with an interval that no file may have.
fn daemon(config: &str, interval: Duration) -> ExitCode {
    let sources = Sources::of_process(Some(config.into()), Flags::default());
    let load: Load = Arc::new(move || {
        let mut config = Config::load(&sources)?;
        for account in &mut config.accounts {
            account.interval = interval;
        }
        Ok(config)
    });
    match app::serve(
        async || Ok(load),
        Unit::default(),
        false,
        &app::misconfigured,
        &|_, _| {},
    ) {
        Exit::Done(_) => ExitCode::SUCCESS,
        Exit::Answered { code, .. } => ExitCode::from(code),
        Exit::Failed(_) => ExitCode::from(1),
        Exit::Misconfigured(words) => {
            println!("{words}");
            ExitCode::from(2)
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (minutes, seed) = match words.as_slice() {
        ["daemon", config, interval] => {
            return daemon(config, Duration::from_millis(interval.parse().unwrap()));
        }
        ["--steady", minutes] => {
            let duration = Duration::from_secs_f64(60.0 * minutes.parse::<f64>().unwrap());
            return tokio::runtime::Runtime::new()
                .unwrap()
                .block_on(steady(duration));
        }
        [] => (3.0, 1),
        ["--minutes", minutes] => (minutes.parse().unwrap(), 1),
        ["--minutes", minutes, "--seed", seed] => (minutes.parse().unwrap(), seed.parse().unwrap()),
        _ => panic!("usage: soak [--minutes N [--seed N] | --steady MINUTES]"),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soak(Duration::from_secs_f64(60.0 * minutes), seed))
}

/// Answers whatever is said to it with words.
async fn start_plain_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Who gives up before is no matter.
            drop(stream.write_all(b"220 this is no TLS\r\n").await);
        }
    });
    address
}

async fn soak(duration: Duration, seed: u64) -> ExitCode {
    let start = Instant::now();
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = std::env::temp_dir().join(format!("api-key-exporter-soak-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("token"), TOKEN).unwrap();
    let port = free_port();
    let mut config = format!(
        "web.listen_addresses = [\"127.0.0.1:{port}\"]\nstate.directory = \"state\"\npoll.attempts = 1\n\
         poll.timeout = \"2600ms\"\npoll.max_keys = {KEYS_MAX}\npoll.max_body_bytes = 100000\n\
         poll.shrink_confirmations = 1\n"
    );
    let (mut apis, mut truths) = (Vec::new(), Vec::new());
    for number in 0..ACCOUNTS {
        let truth = Arc::new(Mutex::new(Truth::default()));
        let (shared, mut dice) = (truth.clone(), fastrand::Rng::with_seed(random.u64(..)));
        let script = move |_: &_| answer(&mut dice, &shared);
        let api = FakeApi::start(SocketAddr::from(([127, 0, 0, 1], 0)), TOKEN, script)
            .await
            .unwrap();
        writeln!(
            config,
            "[[accounts]]\nname = \"a{number}\"\nbase_url = \"http://{}\"\ntoken_file = \"token\"",
            api.address()
        )
        .unwrap();
        apis.push(api);
        truths.push(truth);
    }
    let base_urls = [
        "http://127.0.0.1:1".to_owned(),
        format!("https://{}", start_plain_server().await),
        "https://api.soak.invalid".to_owned(),
    ];
    for ((name, _), base_url) in DEAD_ACCOUNTS.iter().zip(base_urls) {
        writeln!(
            config,
            "[[accounts]]\nname = \"{name}\"\nbase_url = \"{base_url}\"\ntoken_file = \"token\""
        )
        .unwrap();
    }
    fs::write(folder.join("config.toml"), &config).unwrap();
    let daemon = Daemon::start(&folder, port, INTERVAL).await;
    let mut soak = Soak {
        folder,
        port,
        config,
        truths,
        daemon,
        mismatches: 0,
        is_after_kill: false,
    };
    let (mut samples, mut life, mut polls, mut polls_before) = (Vec::new(), 0, 0, 0);
    let (mut rounds, mut fds, mut threads) = (0, BTreeSet::new(), BTreeSet::new());
    while start.elapsed() < duration {
        rounds += 1;
        // The first half is one long life, in which a leak would show.
        let may_kill = start.elapsed() > duration / 2;
        let done = soak.storm(&mut random, may_kill).await;
        let was_killed = done.contains(&"kill");
        let polls_now = soak.quiet().await;
        if was_killed {
            life += 1;
            polls_before = 0;
        }
        polls += polls_now.saturating_sub(polls_before);
        polls_before = polls_now;
        let rss = soak.daemon.rss_kib();
        samples.push((life, polls_now as f64, rss));
        fds.insert(soak.daemon.count("fd"));
        threads.insert(soak.daemon.count("task"));
        println!(
            "round {rounds}: {polls_now} polls in this life, rss {rss} KiB, mismatches {}, {}",
            soak.mismatches,
            done.join(", ")
        );
    }
    soak.daemon.signal("-TERM");
    let stopping = Instant::now();
    let code = soak.daemon.child.wait().unwrap().code();
    let stopped_in = stopping.elapsed();
    if code != Some(0) {
        soak.differs(&format!("exit code {code:?}"));
    }
    let log = fs::read_to_string(soak.folder.join("log")).unwrap();
    for word in [&TOKEN[8..30], "bm90IHRvIGJlIHNlZW4", "\u{1b}", "panicked"] {
        if log.contains(word) {
            soak.differs(&format!("the log holds {word:?}"));
        }
    }
    let faults: u64 = soak
        .truths
        .iter()
        .map(|truth| truth.lock().unwrap().faults)
        .sum();
    let slope = slope(&samples);
    println!(
        "soak: seed {seed}, {:.1} minutes, {rounds} rounds, {} lives, {polls} polls, {faults} faults, {} lines of log",
        start.elapsed().as_secs_f64() / 60.0,
        life + 1,
        log.lines().count()
    );
    println!(
        "soak: rss slope {slope} for each million polls; file descriptors {fds:?}; threads {threads:?}; stopped in {stopped_in:?}"
    );
    println!("soak: {} mismatches", soak.mismatches);
    drop(fs::remove_dir_all(&soak.folder));
    ExitCode::from(u8::from(soak.mismatches > 0))
}
