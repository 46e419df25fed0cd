//! What the system grants too little of (E4, I6 to I9, I12): files, threads, processor time, a
//! file system, with the real binary.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Daemon, binary, config_file, wrapped};
use crate::support::{Api, Folder, Scrape, client, listing};

/// The daemon with one account at `api`, started by `wrapper`.
fn daemon_under(wrapper: &[&str], folder: &Folder, api: &Api) -> Daemon {
    let daemon = binary(&["--config.file", &config_file(folder, &api.url())]);
    Daemon::start(wrapped(wrapper, &daemon), folder)
}

/// A scrape, tried again while there is no place for it.
async fn scrape(address: SocketAddr) -> Scrape {
    let start = Instant::now();
    loop {
        let url = format!("http://{address}/metrics");
        if let Ok(response) = client().get(url).send().await
            && let Ok(text) = response.text().await
        {
            return Scrape::parse(&text);
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not answer"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn rejected(scrape: &Scrape, reason: &str) -> f64 {
    let series = format!("api_key_exporter_http_rejected_total{{reason=\"{reason}\"}}");
    scrape.get(&series).unwrap()
}

fn cpu(scrape: &Scrape) -> f64 {
    scrape.get("process_cpu_seconds_total").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_e4_two_hundred_connections_take_no_file_that_a_poll_needs() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("64-files");
    let daemon = daemon_under(&["prlimit", "--nofile=64"], &folder, &api);
    let address = daemon.address().await;
    daemon.logs("listed keys for the first time").await;
    let polled = api.requests().len();
    let start = Instant::now();
    let before = scrape(address).await;
    // The exporter closes those that ask for nothing after five seconds; new ones come.
    let mut open = Vec::new();
    while api.requests().len() < polled + 2 {
        open.extend((0..200).map(|_| TcpStream::connect(address).unwrap()));
        open.drain(..open.len() - 200);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it polls no more"
        );
    }
    drop(open);
    let after = scrape(address).await;
    let took = start.elapsed().as_secs_f64();
    assert_eq!(after.account("up"), Some(1.0));
    assert_eq!(after.account("consecutive_failures"), Some(0.0));
    assert_eq!(rejected(&after, "accept_failed"), 0.0);
    assert!(rejected(&after, "conn_limit") > 100.0);
    let share = (cpu(&after) - cpu(&before)) / took;
    assert!(share < 0.2, "{share} of a core, unoptimised");
    let log = daemon.log();
    let told = "WARN few files may be open (ulimit -n, LimitNOFILE=); connections give way to \
                polls open_files_max=64 needed=283 connections_max=37";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    assert_eq!(log.matches(" WARN ").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_e4_a_soft_limit_is_raised_as_far_as_needed() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("soft-limit");
    let daemon = daemon_under(&["prlimit", "--nofile=64:"], &folder, &api);
    let scrape = scrape(daemon.address().await).await;
    assert_eq!(scrape.get("process_max_fds"), Some(283.0));
    assert!(!daemon.log().contains(" WARN "), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_e4_i6_without_any_file_left_it_waits_and_recovers() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("no-files");
    let daemon = daemon_under(&["prlimit", "--nofile=16"], &folder, &api);
    let address = daemon.address().await;
    // Sixteen are enough to poll and to serve one at a time.
    daemon.logs("listed keys for the first time").await;
    daemon.logs("WARN few files may be open").await;
    let before = scrape(address).await;
    assert_eq!(before.account("up"), Some(1.0));
    let limit = |soft: &str| {
        let status = Command::new("prlimit")
            .args(["--pid", &daemon.pid().to_string()])
            .arg(format!("--nofile={soft}:"))
            .status();
        assert!(status.unwrap().success());
    };
    // Fewer than are open already.
    limit("5");
    let start = Instant::now();
    let waiting: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    daemon.logs("cannot accept connections").await;
    daemon.logs("listing keys failed").await;
    let log = daemon.log();
    let told = "reason=internal error=\"the limit of open files is reached (ulimit -n, \
                LimitNOFILE=): cannot read token file ";
    assert!(log.contains(told), "{log}");
    limit("16");
    drop(waiting);
    let took = start.elapsed().as_secs_f64();
    let after = scrape(address).await;
    assert_eq!(after.key_ids(), ["a"]);
    assert_eq!(after.failures("credential"), 0.0);
    let failed = rejected(&after, "accept_failed");
    // 50 ms, 100 ms and so on to a second: four in the first second, then one each.
    assert!(failed <= took + 5.0, "{failed} in {took} s");
    let used = cpu(&after) - cpu(&before);
    assert!(used < 0.1 * took + 0.1, "{used} s in {took} s, unoptimised");
    let polled = api.requests().len();
    until(|| api.requests().len() > polled).await;
    daemon.logs("listing keys works again").await;
    let warnings = daemon.log().matches("cannot accept connections").count();
    assert_eq!(warnings, 1, "{}", daemon.log());
}
