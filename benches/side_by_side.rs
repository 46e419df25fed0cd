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

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use api_key_exporter::app;
use api_key_exporter::config::{Config, Sources};
use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use api_key_exporter::server::listen;
use hyper::body::{Body, Bytes, Frame, SizeHint};

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
        "{keys} keys: text {} KiB, gzip {} KiB; exporter's RSS {} MiB",
        plain_text.len() / 1024,
        gzip.len() / 1024,
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

/// An HTTP client as plain as can be, with one connection that it keeps.
struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: vec![0; 1 << 20],
        }
    }

    /// How long a GET took to its last byte, and the body. A connection that the server ended is
    /// opened anew.
    fn get(&mut self, is_gzip: bool) -> (Duration, Vec<u8>) {
        for _ in 0..3 {
            if self.stream.is_none() {
                let stream = TcpStream::connect(self.address).unwrap();
                stream.set_nodelay(true).unwrap();
                self.stream = Some(stream);
            }
            let start = Instant::now();
            if let Some(body) = self.attempt(is_gzip) {
                return (start.elapsed(), body);
            }
            self.stream = None;
        }
        panic!("{} does not answer", self.address);
    }

    fn attempt(&mut self, is_gzip: bool) -> Option<Vec<u8>> {
        let stream = self.stream.as_mut()?;
        let encoding = if is_gzip {
            "Accept-Encoding: gzip\r\n"
        } else {
            ""
        };
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n{encoding}\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut filled = 0;
        let head_len = loop {
            let read = stream
                .read(&mut self.buffer[filled..])
                .ok()
                .filter(|read| *read > 0)?;
            filled += read;
            if let Some(at) = self.buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_len]).to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(&self.buffer[head_len..filled]);
        while body.len() < length {
            let read = stream
                .read(&mut self.buffer)
                .ok()
                .filter(|read| *read > 0)?;
            body.extend_from_slice(&self.buffer[..read]);
        }
        Some(body)
    }
}

/// A child process; killed at the end.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// User and system time so far; the kernel counts hundredths of a second.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not killed: nginx would leave its workers behind.
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

fn start_nginx(folder: &std::path::Path, address: SocketAddr) -> Running {
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
    let reply = Reply::body(200, "application/json", listing::listing(keys));
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

fn wait_for_ever(task: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(task);
}

fn exporter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api-key-exporter"));
    command.env_clear();
    command
}

fn myself() -> Command {
    let path: PathBuf = std::env::current_exe().unwrap();
    Command::new(path)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until `address` answers `/metrics` with 200.
fn wait_for(address: SocketAddr, limit: Duration) {
    let start = Instant::now();
    loop {
        if let Ok(stream) = TcpStream::connect(address) {
            let mut client = Client {
                address,
                stream: Some(stream),
                buffer: vec![0; 1 << 16],
            };
            if client.attempt(false).is_some() {
                return;
            }
        }
        assert!(
            start.elapsed() < limit,
            "{address} does not answer (is nginx installed?)"
        );
        std::thread::sleep(Duration::from_micros(300));
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
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
