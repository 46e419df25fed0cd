//! What many accounts cost: `cargo bench --bench many_accounts`. The exporter and the fake API are
//! processes of their own, so that CPU time and memory are the exporter's alone.
//!
//! Options after `--`: `--only start`, `--only polls` or `--only most`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench prints, measures, and gives up loudly"
)]

mod listing;
mod processes;

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{FakeApi, Reply, Request};

use crate::processes::{Client, Running, exporter, free_address, ms, myself, wait_for};

const TOKEN: &str = "sk_live_token-of-the-bench";

/// How often Prometheus scrapes by default.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "fake") {
        return fake(arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
    }
    let only = arguments
        .iter()
        .skip_while(|argument| *argument != "--only")
        .nth(1);
    let is_asked_for = |name: &str| only.is_none_or(|only| only == name);
    if is_asked_for("start") {
        start(1_000, 20);
    }
    if is_asked_for("polls") {
        for accounts in [30, 300] {
            polls(accounts, 20);
        }
    }
    if is_asked_for("most") {
        start(10_000, 2);
    }
}

/// A running exporter with its accounts, and what belongs to it.
struct Started {
    exporter: Running,
    _fake: Running,
    address: SocketAddr,
    at: Instant,
    folder: std::path::PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn start_exporter(accounts: usize, keys: usize, interval: &str) -> Started {
    let folder = std::env::temp_dir().join(format!("many-accounts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let api = free_address();
    let fake = Running::start(myself().args(["fake", &api.to_string(), &keys.to_string()]));
    let start = Instant::now();
    while TcpStream::connect(api).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "no fake API");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut config = format!("poll.interval = \"{interval}\"\n");
    for number in 0..accounts {
        write!(
            config,
            "[[accounts]]\nname = \"account-{number:05}\"\nbase_url = \"http://{api}/{number}\"\n\
             token_env = \"TOKEN\"\n"
        )
        .unwrap();
    }
    let file = folder.join("config.toml");
    std::fs::write(&file, config).unwrap();
    let address = free_address();
    let at = Instant::now();
    let exporter = Running::start(
        exporter()
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={address}"))
            .env("TOKEN", TOKEN),
    );
    Started {
        exporter,
        _fake: fake,
        address,
        at,
        folder,
    }
}

/// The start of many accounts at the default interval, scraped all the while.
fn start(accounts: usize, keys: usize) {
    let started = start_exporter(accounts, keys, "5m");
    wait_for(started.address, Duration::from_secs(30));
    let first = started.at.elapsed();
    let mut client = Client::new(started.address);
    let mut scrapes = Vec::new();
    let mut last_scrape = Instant::now();
    let ready = loop {
        if client.status("/-/ready") == 200 {
            break started.at.elapsed();
        }
        assert!(started.at.elapsed() < Duration::from_secs(300), "not ready");
        std::thread::sleep(Duration::from_millis(100));
        if last_scrape.elapsed() > Duration::from_secs(3) {
            scrapes.push(client.get(true).0);
            last_scrape = Instant::now();
        }
    };
    let processor_time = started.exporter.processor_time();
    let (took, gzip) = client.get(true);
    scrapes.push(took);
    let (_, text) = client.get(false);
    let listed = String::from_utf8_lossy(&text)
        .matches("\napi_key_info{")
        .count();
    // Memory is given back some seconds after a change.
    std::thread::sleep(Duration::from_secs(8));
    let mut again: Vec<Duration> = (0..9).map(|_| client.get(true).0).collect();
    again.sort_unstable();
    println!(
        "{accounts} accounts x {keys} keys, interval 5m:\n\
         \x20 first /metrics after {:.0} ms; ready after {:.1} s; CPU until ready {:.2} s\n\
         \x20 slowest of {} scrapes during the start {:.0} ms; keys in the first one when ready: {listed}\n\
         \x20 scrape: {} KiB text, {} KiB gzip, median of 9 {:.1} ms; RSS {} MiB, peak {} MiB\n",
        ms(first),
        ready.as_secs_f64(),
        processor_time.as_secs_f64(),
        scrapes.len(),
        ms(scrapes.into_iter().max().unwrap()),
        text.len() / 1024,
        gzip.len() / 1024,
        ms(again[again.len() / 2]),
        started.exporter.memory("VmRSS:") / 1024,
        started.exporter.memory("VmHWM:") / 1024,
    );
}

/// Polls every ten seconds, scraped as often as Prometheus does.
fn polls(accounts: usize, keys: usize) {
    let started = start_exporter(accounts, keys, "10s");
    wait_for(started.address, Duration::from_secs(30));
    let mut client = Client::new(started.address);
    while client.status("/-/ready") != 200 {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(5));
    let polls = |client: &mut Client| -> u64 {
        let text = String::from_utf8(client.get(false).1).unwrap();
        let lines = text.lines();
        let lines = lines.filter(|line| line.starts_with("api_key_account_polls_total{"));
        lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    };
    let before = polls(&mut client);
    let spent = started.exporter.processor_time();
    for _ in 0..2 {
        std::thread::sleep(SCRAPE_INTERVAL);
        client.get(true);
    }
    let spent = started.exporter.processor_time().saturating_sub(spent);
    let polled = polls(&mut client) - before;
    println!(
        "{accounts} accounts x {keys} keys, interval 10s: {polled} polls, CPU a poll {:.2} ms, \
         HTTP and a scrape each 15 s included; RSS {} MiB\n",
        ms(spent) / polled as f64,
        started.exporter.memory("VmRSS:") / 1024,
    );
}

/// Lists keys of its own for each account.
fn fake(address: SocketAddr, keys: usize) {
    let answer = move |request: &Request| {
        let number = request.line.split('/').nth(1).unwrap_or_default();
        let seed = number.parse().unwrap_or_default();
        Reply::body(200, "application/json", listing::listing(keys, seed))
    };
    processes::wait_for_ever(async move {
        let _fake = FakeApi::start(address, TOKEN, answer).await.unwrap();
        std::future::pending::<()>().await;
    });
}
