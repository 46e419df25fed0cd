//! The API and the way to it, and what a hostile one may cost.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{Framing, Reply};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::faults::{assert_kept, keeps};
use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Exporter, Folder, Scrape, any_port, client, config, key, listing};

#[tokio::test]
async fn syn_black_hole() {
    // Once the queue of a listener that accepts nothing is full, Linux drops further SYNs.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(any_port()).unwrap();
    let deaf = socket.listen(1).unwrap();
    let address = deaf.local_addr().unwrap();
    let connect = || tokio::net::TcpStream::connect(address);
    let mut queue = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), connect()).await {
        queue.push(connected.unwrap());
        assert!(queue.len() < 10, "the queue does not fill");
    }
    let lines = "poll.attempts = 1\npoll.timeout = \"1s\"";
    let mut config = config(&format!("http://{address}"), lines, "");
    config.accounts[0].interval = Duration::from_secs(2);
    let exporter = Exporter::with(&config).await;
    let scrape = exporter.fails("timeout").await;
    let sum = scrape.get("api_key_exporter_poll_duration_seconds_sum{account=\"default\"}");
    assert!(
        sum < Some(1.9 * scrape.account("polls_total").unwrap()),
        "{sum:?}"
    );
}

#[tokio::test]
async fn each_poll_connects_anew() {
    // A server that would gladly keep its connections.
    let listener = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let body = String::from_utf8(listing(&["a"]).body).unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let body = body.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while stream.read(&mut request).await.unwrap_or(0) > 0 {
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
                    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                    drop(stream.write_all(answer.as_bytes()).await);
                }
            });
        }
    });
    let url = format!("http://{address}");
    let exporter = Exporter::with(&config(&url, "poll.attempts = 1", "")).await;
    let five = |scrape: &Scrape| scrape.account("polls_total") >= Some(5.0);
    let scrape = exporter.until("five polls", five).await;
    assert!(connections.load(Ordering::SeqCst) as f64 >= scrape.account("polls_total").unwrap());
    exporter.stop().await;
    serving.abort();
}

#[tokio::test]
async fn a_support_id_is_found_and_cleaned_whatever_comes_with_it() {
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let deeper = |log: &str, id: &str| {
        format!("{{\"status\":500,\"error\":\"no\",\"log\":{log},\"support_id\":{id}}}")
    };
    let cases = [
        (deeper(&deep.to_string(), "\"support_1\""), "support_1"),
        (
            deeper(
                &format!("{}{}", "[".repeat(200), "]".repeat(200)),
                "\"support_2\"",
            ),
            "support_2",
        ),
        (
            deeper(&format!("\"{}\"", "x".repeat(1_000_000)), "\"support_3\""),
            "support_3",
        ),
        (
            deeper("null", "\"support_4\\r\\n level=ERROR \\u001b[31m\""),
            "support_4 level=ERROR",
        ),
    ];
    for (body, id) in cases {
        let (_, exporter, _) =
            keeps("server_error", Reply::body(500, "application/json", body)).await;
        let response = client()
            .get(format!("http://{}/metrics", exporter.address))
            .header("Accept", "application/openmetrics-text; version=1.0.0")
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        assert!(text.contains(&format!("# {{support_id=\"{id}\"}}")), "{id}");
    }
    let huge = deeper("null", &format!("\"{}\"", "y".repeat(1_000_000)));
    keeps("server_error", Reply::body(500, "application/json", huge)).await;
}

#[tokio::test]
async fn answers_that_are_hardly_http() {
    let headers = |reply: Reply, count: usize, length: usize| {
        let value = "x".repeat(length);
        (0..count).fold(reply, |reply, number| {
            reply.header(&format!("X-{number}"), &value)
        })
    };
    let faults = [
        headers(listing(&["c"]), 200, 10),
        headers(listing(&["c"]), 1, 1_000_000),
        listing(&["c"]).header("Content-Length", "7"),
    ];
    for fault in faults {
        let api = Api::start(listing(&["a", "b"])).await;
        let exporter = Exporter::start(&api).await;
        exporter.up().await;
        api.reply(fault);
        let down = |scrape: &Scrape| scrape.account("up") == Some(0.0);
        assert_kept(&exporter.until("a failure", down).await);
    }
}

#[tokio::test]
async fn json_that_is_none() {
    let good = String::from_utf8(listing(&["c"]).body).unwrap();
    let bodies = [
        (
            "utf-16",
            good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        ("garbage behind", format!("{good}x").into_bytes()),
        ("two documents", format!("{good}{good}").into_bytes()),
        ("nul behind", format!("{good}\0").into_bytes()),
        ("infinite", good.replacen("200", "1e400", 1).into_bytes()),
        ("not a number", good.replacen("200", "NaN", 1).into_bytes()),
        ("half", good.as_bytes()[..good.len() / 2].to_vec()),
    ];
    for (name, body) in bodies {
        let api = Api::start(listing(&["a", "b"])).await;
        let exporter = Exporter::start(&api).await;
        exporter.up().await;
        api.reply(Reply::body(200, "application/json", body));
        let down = |scrape: &Scrape| scrape.account("up") == Some(0.0);
        let scrape = exporter.until(name, down).await;
        assert_eq!(scrape.key_ids(), ["a", "b"], "{name}");
    }
    let deep = format!("{{\"status\":200,\"data\":{}", "[".repeat(150_000));
    keeps("not_json", Reply::body(200, "application/json", deep)).await;
    keeps("schema", Reply::json(200, &json!([200, []]))).await;
}

#[tokio::test]
async fn keys_that_are_new_at_each_poll_leave_nothing_behind() {
    let api = Api::start(listing(&["k0", "l0", "m0"])).await;
    let exporter = Exporter::start(&api).await;
    let series = exporter.up().await.of("api_key_").len();
    for round in 1..15 {
        let ids = ["k", "l", "m"].map(|name| format!("{name}{round}"));
        api.reply(Reply::listing(&ids.each_ref().map(|id| key(id))));
        let scrape = exporter
            .until("the new keys", |scrape| scrape.key_ids() == ids)
            .await;
        let now = scrape.of("api_key_").len();
        // Counts of requests and the clock's skew have series that come later.
        assert!(
            now <= series + 5,
            "round {round}: {now} series after {series}"
        );
    }
}

#[tokio::test]
async fn expiries_that_are_none_or_far() {
    let expiring = |id: &str, at: Value| json!({ "id": id, "expires_at": at });
    let keys = [
        expiring("a", Value::Null),
        expiring("b", json!("0000-00-00 00:00:00")),
        expiring("c", json!("9999-12-31 23:59:59")),
        expiring("d", json!("2026-05-30T20:23:16+02:00")),
    ];
    let api = Api::start(Reply::listing(&keys)).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    let of = |name: &str, id: &str| {
        scrape.get(&format!(
            "api_key_{name}{{account=\"default\",key_id=\"{id}\"}}"
        ))
    };
    let expiry = "expiry_timestamp_seconds";
    assert_eq!(
        (of(expiry, "a"), of("never_expires", "a")),
        (None, Some(1.0))
    );
    assert_eq!(
        (of(expiry, "b"), of("expiry_unknown", "b")),
        (None, Some(1.0))
    );
    assert_eq!(of(expiry, "c"), Some(253_402_300_799.0));
    assert_eq!(of(expiry, "d"), Some(1_780_165_396.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn enormous_strings_are_one_short_line_in_the_log() {
    let huge = "x".repeat(1_000_000);
    let body = json!({
        "status": 500, "data": null, "error": huge, "log": huge, "validator": huge,
        "support_id": huge, "message": huge
    });
    let api = Api::start(Reply::json(500, &body)).await;
    let folder = Folder::new("enormous");
    let config = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    daemon.logs("listing keys failed").await;
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("failed")).unwrap();
    assert!(line.len() < 1_500, "{} bytes", line.len());
    for name in ["error", "validator", "api_log", "message"] {
        let (_, told) = line.split_once(&format!(" {name}=")).unwrap();
        let told = told.split(' ').next().unwrap().trim_matches('"');
        assert_eq!(told.chars().count(), 200, "{name}: {told}");
        assert!(told.ends_with('…'), "{name}: {told}");
    }
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_matches([':', ' ', '\t'])
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_costs_more_than_64_mib() {
    let many = |entry: &str, count: usize| {
        let entries = format!("{entry},").repeat(count);
        let body = format!("{{\"status\":200,\"error\":null,\"data\":[{entries}{{}}]}}");
        Reply::body(200, "application/json", body)
    };
    let spaces = Reply::body(200, "application/json", vec![b' '; 65_536]);
    let long = "x".repeat(8_000_000);
    let bodies = [
        (
            "20,000 keys",
            many("{\"id\":\"x\",\"scopes\":[\"a\",\"b\"]}", 19_999),
        ),
        ("two million empty keys", many("{}", 2_000_000)),
        ("2 MB of keys without end", many("{\"id\":\"x\"}", 180_000)),
        (
            "endless",
            Reply {
                framing: Framing::Close,
                is_endless: true,
                ..spaces
            },
        ),
        (
            "nested",
            Reply::body(200, "application/json", "[".repeat(8_000_000)),
        ),
        (
            "a long message",
            Reply::json(
                500,
                &json!({ "status": 500, "message": long, "error": "no" }),
            ),
        ),
        (
            "a gzip bomb",
            Reply::body(200, "application/json", vec![0; 1_000_000])
                .header("Content-Encoding", "gzip"),
        ),
    ];
    let mut figures = Vec::new();
    for (name, body) in bodies {
        let api = Api::start(body).await;
        let folder = Folder::new(&format!("rss-{}", name.replace([' ', ','], "-")));
        let config = config_file(&folder, &api.url());
        let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
        daemon.logs("list").await;
        let start = Instant::now();
        while api.requests().len() < 2 && start.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let most = status_kib(daemon.pid(), "VmHWM");
        figures.push((name, most));
        assert!(most < 64 * 1024, "KiB: {figures:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_read_nothing_share_what_they_do_not_read() {
    let keys: Vec<Value> = (0..2_000)
        .map(|number| key(&format!("key_{number}")))
        .collect();
    let api = Api::start(Reply::listing(&keys)).await;
    let folder = Folder::new("slow-readers");
    let config = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    let address = daemon.address().await;
    daemon.logs("listed keys for the first time").await;
    let start = Instant::now();
    while daemon.get("/metrics").await.len() < 1_000_000 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the keys do not show"
        );
    }
    let before = status_kib(daemon.pid(), "VmRSS");
    let readers: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = Instant::now();
    daemon.get("/-/healthy").await;
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    let grown = status_kib(daemon.pid(), "VmRSS").saturating_sub(before);
    // Without sharing, it would be 200 times more than a megabyte.
    assert!(grown < 20 * 1024, "{grown} KiB");
    drop(readers);
}
