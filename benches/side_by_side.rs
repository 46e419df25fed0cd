//! This exporter beside nginx with the identical bytes and a plain exporter, on one machine, in
//! turn: `cargo bench --bench side_by_side`. Needs nginx (Debian package `nginx-light`).
//!
//! Rounds are interleaved, so that a noisy machine is noisy for all; medians and ratios are told.
//! Options after `--`: `--keys 10,1000` for other sizes, `--rounds 3`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench prints, measures, and gives up loudly"
)]

mod listing;
mod plain_exporter;
mod processes;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api_key_exporter::app;
use api_key_exporter::config::{Config, Sources};
use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use api_key_exporter::server::listen;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::processes::{
    Client, Running, exporter, free_address, ms, myself, wait_for, wait_for_ever,
};

pub(crate) const TOKEN: &str = "sk_live_token-of-the-bench";

/// Most time that one target gets in one round.
const TURN: Duration = Duration::from_millis(1_500);

/// How long polls are left alone, so that their own cost is seen: some 25 of them.
const UNSCRAPED: Duration = Duration::from_secs(10);

/// Most requests of one client in one round.
const REQUESTS_MAX: usize = 60;

fn main() {
    // As the program itself does.
    api_key_exporter::os::allocator::give_back();
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        arguments
            .iter()
            .skip_while(|argument| *argument != name)
            .nth(1)
            .cloned()
    };
    match arguments.get(1).map(String::as_str) {
        Some("fake") => wait_for_ever(async { fake(arguments[2].parse().unwrap()).await }),
        Some("plain") => {
            let (address, api) = (arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
            wait_for_ever(async move { plain_exporter::run(address, api).await });
        }
        Some("quick-polls") => {
            wait_for_ever(async {
                quick_polls(&arguments[2], arguments[3].parse().unwrap()).await;
            });
        }
        _ => {
            let keys = after("--keys").unwrap_or_else(|| "10,1000,10000,100000".to_owned());
            let rounds = after("--rounds").map_or(5, |rounds| rounds.parse().unwrap());
            start_time();
            memory(10_000, false);
            memory(10_000, true);
            for keys in keys.split(',') {
                compare(keys.parse().unwrap(), rounds);
            }
        }
    }
}

/// From the start of the process to the first 200 on `/metrics`, with an https account.
fn start_time() {
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let address = free_address();
            let start = Instant::now();
            let mut exporter = exporter();
            exporter
                .arg(format!("--web.listen-address={address}"))
                .env("BITGPT_API_KEY", TOKEN);
            exporter.env("API_KEY_EXPORTER__POLL__INTERVAL", "24h");
            let _exporter = Running::start(&mut exporter);
            wait_for(address, Duration::from_secs(5));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "start to first 200 on /metrics, https account: median {:.1} ms of {}\n",
        ms(times[times.len() / 2]),
        times.len()
    );
}

/// Memory and processor time of a hundred polls and scrapes.
fn memory(keys: usize, changing: bool) {
    let (_fake, api) = start_fake(keys, changing);
    let address = free_address();
    let child =
        Running::start(myself().args(["quick-polls", &address.to_string(), &api.to_string()]));
    wait_for(address, Duration::from_secs(20));
    let mut client = Client::new(address);
    let polls = |client: &mut Client| {
        let text = String::from_utf8(client.get(false).1).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with("api_key_account_polls_total"))
            .unwrap()
            .to_owned();
        line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()
    };
    while polls(&mut client) < 2 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let cost = |(before, first): (Duration, u64), (after, last): (Duration, u64)| {
        1e6 * after.saturating_sub(before).as_secs_f64() / (last - first) as f64 / keys as f64
    };
    let now = |client: &mut Client| (child.processor_time(), polls(client));
    let first = now(&mut client);
    std::thread::sleep(UNSCRAPED);
    let second = now(&mut client);
    let mut scrapes = 0;
    while polls(&mut client) < first.1 + 100 {
        client.get(true);
        scrapes += 2;
        std::thread::sleep(Duration::from_millis(200));
    }
    let last = now(&mut client);
    println!(
        "{keys} keys, {} polls of {} listing: RSS {} MiB, peak {} MiB; processor time a key and poll {:.1} microseconds,\n\
         with {scrapes} scrapes beside the last {} polls {:.1}\n",
        last.1 - first.1,
        if changing { "a changing" } else { "the same" },
        child.memory("VmRSS:") / 1024,
        child.memory("VmHWM:") / 1024,
        cost(first, second),
        last.1 - second.1,
        cost(second, last),
    );
}

fn compare(keys: usize, rounds: usize) {
    let folder = std::env::temp_dir().join(format!("side-by-side-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (_fake, api) = start_fake(keys, false);
    let ours = free_address();
    let config = folder.join("config.toml");
    let text = format!(
        "poll.interval = \"24h\"\npoll.timeout = \"60s\"\npoll.max_keys = 1000000\npoll.max_body_bytes = 1073741824\n\
         [[accounts]]\nbase_url = \"http://{api}\"\ntoken_env = \"TOKEN\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = exporter();
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--web.listen-address={ours}"));
    let exporter = Running::start(command.env("TOKEN", TOKEN));
    wait_for(ours, Duration::from_secs(20));
    let mut client = Client::new(ours);
    let start = Instant::now();
    while !String::from_utf8_lossy(&client.get(false).1)
        .contains("\napi_key_account_up{account=\"default\"} 1\n")
    {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the exporter does not come up"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let (plain_text, gzip) = (client.get(false).1, client.get(true).1);
    std::fs::write(folder.join("metrics"), &plain_text).unwrap();
    std::fs::write(folder.join("metrics.gz"), &gzip).unwrap();
    let nginx = free_address();
    let _nginx = start_nginx(&folder, nginx);
    wait_for(nginx, Duration::from_secs(10));
    let plain = free_address();
    let _plain = Running::start(myself().args(["plain", &plain.to_string(), &api.to_string()]));
    wait_for(plain, plain_exporter::START);
    println!(
        "{keys} keys: text {} KiB, gzip {} KiB, {:.2} times what gzip -6 makes of it; exporter's RSS {} MiB",
        plain_text.len() / 1024,
        gzip.len() / 1024,
        gzip.len() as f64 / gzip_6(&folder.join("metrics")) as f64,
        exporter.memory("VmRSS:") / 1024
    );
    println!(
        "  encoding  clients     ours    nginx    plain  ours/nginx  plain/ours   (p50, microseconds)"
    );
    for is_gzip in [false, true] {
        for clients in [1, 8] {
            let mut times: [Vec<Duration>; 3] = Default::default();
            for _ in 0..rounds {
                for (times, address) in times.iter_mut().zip([ours, nginx, plain]) {
                    times.extend(turn(address, is_gzip, clients));
                }
            }
            let [ours, nginx, plain] = times.map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2].as_secs_f64() * 1e6
            });
            println!(
                "  {:<9} {clients:>7} {ours:>8.0} {nginx:>8.0} {plain:>8.0} {:>11.2} {:>11.1}",
                if is_gzip { "gzip" } else { "identity" },
                ours / nginx,
                plain / ours
            );
        }
    }
    println!();
    drop(std::fs::remove_dir_all(folder));
}

/// What the reference program makes of the file.
fn gzip_6(file: &Path) -> usize {
    let output = Command::new("gzip").args(["-6", "-c"]).arg(file).output();
    output.unwrap().stdout.len()
}

/// One target's turn: the times of all requests of `clients` clients at once.
fn turn(address: SocketAddr, is_gzip: bool, clients: usize) -> Vec<Duration> {
    let one = move || {
        let mut client = Client::new(address);
        let start = Instant::now();
        let mut times = Vec::new();
        while times.is_empty() || (times.len() < REQUESTS_MAX && start.elapsed() < TURN) {
            times.push(client.get(is_gzip).0);
        }
        times
    };
    let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(one)).collect();
    threads
        .into_iter()
        .flat_map(|thread| thread.join().unwrap())
        .collect()
}

fn start_nginx(folder: &Path, address: SocketAddr) -> Running {
    let shown = folder.display();
    let config = format!(
        "daemon off; pid {shown}/nginx.pid; error_log {shown}/error.log; worker_processes 2;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type text/plain;\n\
         client_body_temp_path {shown}/b; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f;\n\
         uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen {address}; root {shown}; gzip_static on; }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).unwrap();
    let file = format!("{shown}/nginx.conf");
    // Its workers may not be root's; the folder is the user's own otherwise.
    let mut command = Command::new("nginx");
    command.args(["-c", &file, "-g", "user root;"]);
    Running::start(&mut command)
}

fn start_fake(keys: usize, changing: bool) -> (Running, SocketAddr) {
    let address = free_address();
    let mut command = myself();
    command
        .args(["fake", &format!("{keys}")])
        .env("ADDRESS", address.to_string());
    if changing {
        command.env("CHANGING", "1");
    }
    let fake = Running::start(&mut command);
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the fake API does not come up"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    (fake, address)
}

async fn fake(keys: usize) {
    let address: SocketAddr = std::env::var("ADDRESS").unwrap().parse().unwrap();
    let reply = Reply::body(200, "application/json", listing::listing(keys, 1));
    let is_changing = std::env::var_os("CHANGING").is_some();
    let mut number = 0_usize;
    let answer = move |_: &Request| {
        let mut reply = reply.clone();
        if is_changing {
            // Another creation time of the first key makes another listing.
            number += 1;
            let known = b"2025-06-30 15:00:22";
            let at = reply
                .body
                .windows(known.len())
                .position(|part| part == known)
                .unwrap();
            let other = format!("2025-06-30 15:01:{:02}", number % 60);
            reply.body[at..at + known.len()].copy_from_slice(other.as_bytes());
        }
        reply
    };
    let _fake = FakeApi::start(address, TOKEN, answer).await.unwrap();
    std::future::pending::<()>().await;
}

/// The daemon itself, polling more often than a configuration may say.
async fn quick_polls(address: &str, api: SocketAddr) {
    let text = format!(
        "poll.interval = \"5s\"\n[[accounts]]\nbase_url = \"http://{api}\"\ntoken_env = \"TOKEN\"\n"
    );
    let environment = [("TOKEN".to_owned(), TOKEN.to_owned())].into();
    let mut config = Config::parse(
        &text,
        &Sources {
            environment,
            ..Sources::default()
        },
    )
    .unwrap();
    config.accounts[0].interval = Duration::from_millis(400);
    let listener = listen::bind_one(address.parse().unwrap()).unwrap();
    let mut tasks = app::spawn(
        &config,
        vec![listener],
        &tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap();
    tasks.join_next().await;
}

/// A body in one piece.
pub(crate) struct Whole(pub(crate) Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
