//! The exporter's own HTTP server, and what bad clients may write into the log,
//! with the real binary where the system is part of it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::faults::limits::{for_anybody, nobody};
use crate::process::{Daemon, binary, config_file, wrapped};
use crate::support::{Api, Exporter, Folder, Scrape, TOKEN, client, key, listing};
use crate::tools::{ask, debian};

/// Sends `request`, and `body` until nobody takes any more of it: the answer, and how much was
/// taken.
async fn send(address: SocketAddr, request: &str, body: &[u8]) -> (String, usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answers, mut questions) = stream.split();
    let sending = async {
        let mut sent = 0;
        while let Ok(Ok(count)) =
            tokio::time::timeout(Duration::from_secs(5), questions.write(body)).await
            && count > 0
        {
            sent += count;
        }
        sent
    };
    let reading = async {
        let mut answer = Vec::new();
        // It may end with a reset: what was sent has been read by nobody.
        drop(answers.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    };
    let (sent, answer) = tokio::join!(sending, reading);
    (answer, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_that_fail_are_followed_by_others() {
    let api = Api::start(listing(&["a"])).await;
    // Connections that were lost cost no pause; at ours there is one, and one line.
    for (error, warnings) in [
        ("ECONNABORTED", 0),
        ("EPROTO", 0),
        ("EINTR", 0),
        ("ENFILE", 1),
        ("ENOBUFS", 1),
        ("ENOMEM", 1),
    ] {
        let folder = Folder::new(&format!("accept-{error}"));
        let daemon = binary(&["--config.file", &config_file(&folder, &api.url())]);
        let inject = format!("inject=accept4:error={error}:when=1..3");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        let daemon = Daemon::start(wrapped(&strace, &daemon), &folder);
        daemon.address().await;
        let scrape = Scrape::parse(&daemon.get("/metrics").await);
        let failed = scrape.get("api_key_exporter_http_rejected_total{reason=\"accept_failed\"}");
        // strace counts for each of the two threads that accept.
        let expected = if warnings == 0 { 0.0..=0.0 } else { 3.0..=6.0 };
        assert!(expected.contains(&failed.unwrap()), "{error}: {failed:?}");
        let log = daemon.log();
        let told = log
            .matches("level=WARN msg=\"cannot accept connections")
            .count();
        assert_eq!(told, warnings, "{error}: {log}");
        daemon.signal_all("-TERM");
        assert_eq!(daemon.ended().0, Some(0), "{error}");
    }
}

#[tokio::test]
async fn a_body_is_refused_and_never_read() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    let ten_gigabytes = "Content-Length: 10000000000\r\n";
    let asks_first = "Content-Length: 10000000000\r\nExpect: 100-continue\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (method, path, head, expected) in [
        ("POST", "/metrics", ten_gigabytes, "405 "),
        ("PUT", "/metrics", asks_first, "405 "),
        ("POST", "/nothing", ten_gigabytes, "404 "),
        ("GET", "/metrics", ten_gigabytes, "413 "),
        ("GET", "/metrics", asks_first, "413 "),
        ("GET", "/metrics", chunked, "413 "),
        ("HEAD", "/", ten_gigabytes, "413 "),
        ("POST", "/-/reload", asks_first, "403 "),
    ] {
        let what = format!("{method} {path} {head:?}");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        let body: &[u8] = if head == asks_first {
            &[]
        } else {
            &[b'x'; 8192]
        };
        let (answer, sent) = send(exporter.address, &request, body).await;
        // Where more was on its way, the reset may have overtaken the answer.
        let is_told = answer.starts_with(&format!("HTTP/1.1 {expected}"));
        assert!(
            is_told || (answer.is_empty() && sent > 0),
            "{what}: {answer}"
        );
        assert!(
            answer.is_empty() || answer.contains("connection: close\r\n"),
            "{what}: {answer}"
        );
        assert!(!answer.contains("100 Continue"), "{what}: {answer}");
        // What fits into the buffers of both ends.
        assert!(sent < 20_000_000, "{what}: {sent} bytes were taken");
    }
    // No body at all is no body.
    let request =
        "GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (answer, _) = send(exporter.address, request, &[]).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_scrapes_at_once_are_answered_where_there_are_places() {
    // Both ends of them are more than the usual 1,024 files.
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let keys: Vec<_> = (0..100)
        .map(|number| key(&format!("key_{number}")))
        .collect();
    let api = Api::start(Reply::listing(&keys)).await;
    for (max_connections, least) in [(600, 500), (256, 256)] {
        let folder = Folder::new(&format!("scrapes-{max_connections}"));
        let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
        let option = "API_KEY_EXPORTER__WEB__MAX_CONNECTIONS";
        command.env(option, max_connections.to_string());
        let daemon = Daemon::start(command, &folder);
        let address = daemon.address().await;
        daemon.logs("listed keys for the first time").await;
        // All are connected before the first one asks.
        let mut connected = Vec::new();
        for _ in 0..500 {
            connected.push(TcpStream::connect(address).await.unwrap());
        }
        let mut scrapes = JoinSet::new();
        for mut stream in connected {
            scrapes.spawn(async move {
                let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                let mut answer = String::new();
                stream.write_all(request.as_bytes()).await.ok()?;
                stream.read_to_string(&mut answer).await.ok()?;
                let (head, body) = answer.split_once("\r\n\r\n")?;
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                Some(Scrape::parse(body).key_ids().len())
            });
        }
        let mut answered = 0;
        while let Some(keys) = scrapes.join_next().await {
            if let Some(keys) = keys.unwrap() {
                assert_eq!(keys, 100);
                answered += 1;
            }
        }
        let scrape = Scrape::parse(&daemon.get("/metrics").await);
        let rejected = scrape.get("api_key_exporter_http_rejected_total{reason=\"conn_limit\"}");
        assert!(answered >= least, "{answered} of 500");
        // Nobody is left without an answer and uncounted.
        assert_eq!(f64::from(answered) + rejected.unwrap(), 500.0);
    }
}

#[tokio::test]
async fn there_is_nothing_to_debug_or_to_read_out() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    for path in [
        "/debug/pprof/",
        "/debug/pprof/heap",
        "/debug/vars",
        "/config",
        "/-/config",
        "/-/quit",
        "/api/v1/status/config",
        "/env",
        "/flags",
        "/.env",
        "/token",
        "/..%2f..%2fetc/passwd",
    ] {
        assert_eq!(exporter.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_exits_1_and_is_named() {
    let api = Api::start(listing(&["a"])).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let root = vec!["env".to_owned()];
    for (name, user, address, why) in [
        (
            "taken",
            &root,
            &*taken,
            "Address already in use (os error 98)",
        ),
        // Documentation's, so that no machine has it (RFC 5737).
        (
            "gone",
            &root,
            "192.0.2.1:10120",
            "Cannot assign requested address (os error 99)",
        ),
        (
            "privileged",
            &nobody(),
            "127.0.0.1:81",
            "Permission denied (os error 13)",
        ),
    ] {
        let folder = Folder::new(&format!("listen-{name}"));
        let mut daemon = for_anybody(&folder, &api.url());
        daemon.args(["--web.listen-address", address]);
        let output = wrapped(user, &daemon).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {words}");
        let told = format!("level=ERROR msg=exiting error=\"cannot listen on {address}: {why}\"");
        assert!(words.contains(&told), "{name}: {words}");
    }
    assert_eq!(api.requests().len(), 0, "nothing was polled");
}

#[tokio::test]
async fn it_listens_on_the_loopback_address_and_on_ipv6_alone() {
    let output = binary(&["config", "show"])
        .env("BITGPT_API_KEY", TOKEN)
        .output();
    let shown = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(shown.contains("listen_addresses = [\"127.0.0.1:10120\"]  # default"));
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("ipv6");
    let config = config_file(&folder, &api.url());
    let command = binary(&["--config.file", &config, "--web.listen-address", "[::1]:0"]);
    let daemon = Daemon::start(command, &folder);
    assert!(daemon.address().await.is_ipv6());
    assert!(
        daemon
            .get("/metrics")
            .await
            .contains("api_key_account_info")
    );
}

/// What both families get of a daemon that listens on `:PORT`, in network namespaces of its own
/// that `prepare` makes.
async fn families(name: &str, prepare: &str) -> [String; 2] {
    let folder = Folder::new(name);
    let config = config_file(&folder, "http://127.0.0.1:9");
    let daemon = binary(&["--config.file", &config, "--web.listen-address", ":10120"]);
    let script = format!("ip link set lo up && {prepare} && exec \"$@\"");
    let daemon = wrapped(&["unshare", "-n", "sh", "-c", &script, "sh"], &daemon);
    let daemon = Daemon::start(daemon, &folder);
    daemon.logs("level=INFO msg=started").await;
    let pid = daemon.pid().to_string();
    ["127.0.0.1", "[::1]"].map(|ip| {
        let url = format!("http://{ip}:10120/-/healthy");
        let curl = [
            "-n",
            "-t",
            &pid,
            "curl",
            "-s",
            "-g",
            "-w",
            "%{http_code}",
            "-o",
            "/dev/null",
        ];
        ask(debian("nsenter").args(curl).arg(url)).stdout
    })
}

#[tokio::test]
async fn a_port_alone_is_both_families_where_there_are_both_and_else_ipv4() {
    for (name, prepare, expected) in [
        ("both", "true", ["200", "200"]),
        (
            "only-v6",
            "echo 1 >/proc/sys/net/ipv6/bindv6only",
            ["200", "200"],
        ),
        (
            "disabled",
            "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
            ["200", "000"],
        ),
    ] {
        assert_eq!(families(name, prepare).await, expected, "{name}");
    }
    // A kernel without IPv6 refuses the socket, which is the first that the daemon opens.
    let folder = Folder::new("no-ipv6");
    let config = config_file(&folder, "http://127.0.0.1:9");
    let daemon = binary(&["--config.file", &config, "--web.listen-address", ":0"]);
    let inject = "inject=socket:error=EAFNOSUPPORT:when=1";
    let daemon = wrapped(
        &["strace", "-f", "-qq", "-o", "/dev/null", "-e", inject],
        &daemon,
    );
    let daemon = Daemon::start(daemon, &folder);
    assert!(daemon.address().await.is_ipv4(), "{}", daemon.log());
    daemon.signal_all("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test]
async fn the_first_line_has_the_address_of_the_probe_listener() {
    let folder = Folder::new("probes-address");
    let config = config_file(&folder, "http://127.0.0.1:9");
    let probes = ["--web.probe-listen-address", "127.0.0.2:0"];
    let arguments = [&["--config.file", &config][..], &probes].concat();
    let daemon = Daemon::start(binary(&arguments), &folder);
    daemon.logs(" probes=http://127.0.0.2:").await;
    let log = daemon.log();
    let (_, rest) = log.split_once(" probes=").unwrap();
    let url = rest.split_whitespace().next().unwrap();
    let healthy = ask(debian("curl").args(["-s", &format!("{url}/-/healthy")])).stdout;
    assert_eq!(healthy, "api-key-exporter is healthy.\n");
    // Without a probe listener, the field is absent.
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    daemon.logs("level=INFO msg=started").await;
    assert!(!daemon.log().contains("probes="), "{}", daemon.log());
}

#[tokio::test]
async fn a_unix_socket_is_served_replaced_after_a_kill_and_removed_at_the_end() {
    let folder = Folder::new("unix");
    let socket = folder.0.join("web.sock").display().to_string();
    let start = || {
        let config = config_file(&folder, "http://127.0.0.1:9");
        let address = format!("unix:{socket}");
        Daemon::start(
            binary(&["--config.file", &config, "--web.listen-address", &address]),
            &folder,
        )
    };
    let healthy = || {
        let arguments = ["-s", "--unix-socket", &socket, "http://localhost/-/healthy"];
        ask(debian("curl").args(arguments)).stdout
    };
    let daemon = start();
    daemon.logs(&format!("metrics=unix:{socket}")).await;
    assert_eq!(healthy(), "api-key-exporter is healthy.\n");
    // A second one leaves the first alone.
    let words = format!("cannot listen on unix:{socket}: Address already in use");
    let second = start();
    second.logs(&words).await;
    assert_eq!(second.ended().0, Some(1));
    assert_eq!(healthy(), "api-key-exporter is healthy.\n");
    daemon.signal("-KILL");
    assert_eq!(daemon.ended().0, None);
    assert!(Path::new(&socket).exists());
    let daemon = start();
    daemon.logs("level=INFO msg=started").await;
    assert_eq!(healthy(), "api-key-exporter is healthy.\n");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
    assert!(!Path::new(&socket).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_polls_and_bad_clients_write_a_line_and_no_more() {
    let api = Api::start(Reply::error(500, "no", "support_1")).await;
    let folder = Folder::new("flood");
    let daemon = binary(&["--config.file", &config_file(&folder, &api.url())]);
    let mut command = wrapped(&["env"], &daemon);
    command.env("API_KEY_EXPORTER__WEB__MAX_CONNECTIONS", "20");
    command.env("API_KEY_EXPORTER__POLL__ATTEMPTS", "1");
    let daemon = Daemon::start(command, &folder);
    let address = daemon.address().await;
    daemon.logs("listing keys failed").await;
    let lines = daemon.log().lines().count();
    let start = Instant::now();
    let polled = api.requests().len();
    let mut rounds = 0;
    while api.requests().len() < polled + 2 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it polls no more"
        );
        let mut open = Vec::new();
        for bytes in [
            &b"nonsense\r\n\r\n"[..],
            b"\0",
            b"GET / HTTP/9\r\n\r\n",
            b"",
        ] {
            for _ in 0..10 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                drop(stream.write_all(bytes).await);
                open.push(stream);
            }
        }
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = daemon.log();
    let written = log.lines().count() - lines;
    assert_eq!(
        written, 0,
        "after {rounds} rounds of 40 connections:\n{log}"
    );
}

#[tokio::test]
async fn samples_carry_no_time_and_a_deleted_key_is_gone_at_the_next_scrape() {
    let api = Api::start(listing(&["a", "b"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let url = format!("http://{}/metrics", exporter.address);
    for accept in ["text/plain", "application/openmetrics-text; version=1.0.0"] {
        let request = client().get(&url).header("Accept", accept);
        let text = request.send().await.unwrap().text().await.unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            // No label of this test holds a blank or a brace.
            let (sample, _exemplar) = line.split_once(" # ").unwrap_or((line, ""));
            let words: Vec<&str> = sample.split(' ').collect();
            assert_eq!(words.len(), 2, "{accept}: {line}");
        }
    }
    api.reply(listing(&["a"]));
    let asked = api.requests().len();
    let gone = |scrape: &Scrape| scrape.key_ids() == ["a"];
    let scrape = exporter.until("the key is gone", gone).await;
    let left = scrape
        .of("")
        .into_iter()
        .find(|(name, _)| name.contains("key_id=\"b\""));
    assert_eq!(left, None);
    // One poll was under way at most when the key was deleted.
    assert!(api.requests().len() <= asked + 3);
}
