//! The way to the API: names, routes and links that fail, in a network of the test's own.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::faults::netns::{API_URL, NetworkNamespace};
use crate::faults::{assert_kept, keeps};
use crate::support::{
    Api, Exporter, Scrape, any_port, config as in_process, in_repository, key, listing,
};

/// Accounts by name and base URL, polled as often as allowed.
fn config(accounts: &[(&str, &str)]) -> String {
    let lines = "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\n\
                 log.format = \"text\"\n";
    let accounts = accounts.iter().map(|(name, base_url)| {
        format!(
            "[[accounts]]\nname = \"{name}\"\nbase_url = \"{base_url}\"\ntoken_env = \"TOKEN\"\n"
        )
    });
    accounts.fold(lines.to_owned(), |text, account| text + &account)
}

/// A listing of some 40 kB, which no packet takes whole.
fn long_listing(last: &str) -> Reply {
    let mut keys: Vec<Value> = (0..200).map(|number| key(&format!("a{number}"))).collect();
    keys.push(key(last));
    Reply::listing(&keys)
}

fn failures(scrape: &Scrape, account: &str, reason: &str) -> f64 {
    let name = "api_key_account_poll_failures_total";
    let series = format!("{name}{{account=\"{account}\",reason=\"{reason}\"}}");
    scrape.get(&series).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_do_not_resolve() {
    let api = Api::start(listing(&["a", "b"])).await;
    let room = NetworkNamespace::new("dns", &api);
    room.write("resolv.conf", "nameserver 127.0.0.2\noptions timeout:30\n");
    let daemon = room.exporter(&config(&[
        ("default", API_URL),
        ("nxdomain", "https://nxdomain.test"),
        ("servfail", "https://servfail.test"),
        ("silent", "https://silent.test"),
    ]));
    let names = ["nxdomain", "servfail", "silent"];
    let all = |scrape: &Scrape| {
        let mut names = names.iter();
        names.all(|name| failures(scrape, name, "dns") > 0.0)
    };
    let scrape = daemon.until("failures of reason dns", all).await;
    // A name that is fine is not held up by the others.
    assert_eq!(scrape.key_ids(), ["a", "b"]);
    assert_eq!(scrape.account("up"), Some(1.0));
    let log = daemon.log();
    let words = "silent.test:443: no address for the name within 4s";
    assert!(log.contains(words), "{log}");
    // The lookup that was given up has a minute to go.
    daemon.signal("-TERM");
    let (code, took) = daemon.ended();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");

    room.write("resolv.conf", "");
    let daemon = room.exporter(&config(&[("nobody", "https://name.test")]));
    let failed = |scrape: &Scrape| failures(scrape, "nobody", "dns") == 1.0;
    daemon.until("a failure of reason dns", failed).await;
}

#[tokio::test]
async fn a_server_that_closes_idle_connections() {
    // It offers to keep each connection, and breaks off the moment it is used again.
    let listener = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = String::from_utf8(listing(&["a"]).body).unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                assert_ne!(stream.read(&mut request).await?, 0);
                stream.write_all(answer.as_bytes()).await?;
                stream.read(&mut request).await
            });
        }
    });
    let url = format!("http://{address}");
    let exporter = Exporter::with(&in_process(&url, "poll.attempts = 1", "")).await;
    let twenty = |scrape: &Scrape| scrape.account("polls_total") >= Some(20.0);
    let scrape = exporter.until("twenty polls", twenty).await;
    let failures = scrape.of("api_key_account_poll_failures_total");
    assert!(
        failures.iter().all(|(_, count)| *count == 0.0),
        "{failures:?}"
    );
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_goes_down_in_the_middle_of_a_body() {
    let api = Api::start(listing(&["a", "b"])).await;
    let room = NetworkNamespace::new("link", &api);
    let daemon = room.exporter(&config(&[("default", API_URL)]));
    daemon.logs("listed keys for the first time").await;
    let asked = api.requests().len();
    api.reply(Reply {
        body_drip: Duration::from_millis(10),
        ..listing(&["c", "d"])
    });
    let start = Instant::now();
    while api.requests().len() == asked {
        assert!(start.elapsed() < Duration::from_secs(20), "no second poll");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    room.run("ip link set lo down");
    api.reply(listing(&["a", "c"]));
    let down = |scrape: &Scrape| scrape.account("up") == Some(0.0);
    let scrape = daemon.until("a failure", down).await;
    assert_kept(&scrape);
    assert_eq!(scrape.failures("timeout"), 1.0);
    room.run("ip link set lo up");
    let recovered = |scrape: &Scrape| scrape.key_ids() == ["a", "c"];
    let scrape = daemon.until("the new keys", recovered).await;
    assert_eq!(scrape.account("up"), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_vanish() {
    let api = Api::start(listing(&["a", "b"])).await;
    let room = NetworkNamespace::new("black-hole", &api);
    let daemon = room.exporter(&config(&[("default", API_URL)]));
    daemon.logs("listed keys for the first time").await;
    let rule = "OUTPUT -p tcp --sport 8080 -m length --length 600: -j DROP";
    room.run(&format!("iptables -A {rule}"));
    api.reply(long_listing("c"));
    let down = |scrape: &Scrape| scrape.account("up") == Some(0.0);
    let scrape = daemon.until("a failure", down).await;
    assert_kept(&scrape);
    assert_eq!(scrape.failures("timeout"), 1.0);
    room.run(&format!("iptables -D {rule}"));
    let recovered = |scrape: &Scrape| scrape.key_ids().len() == 201;
    daemon.until("the new keys", recovered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_that_loses_a_third_never_has_two_polls_in_flight() {
    let keys: Vec<Value> = (0..100).map(|number| key(&format!("a{number}"))).collect();
    let api = Api::start(Reply::listing(&keys)).await;
    let room = NetworkNamespace::new("lossy", &api);
    room.run(
        "ip link set lo mtu 1500 && tc qdisc add dev lo root tbf rate 100kbit burst 4kb latency 2s",
    );
    room.run("iptables -A INPUT -p tcp -m statistic --mode random --probability 0.3 -j DROP");
    let daemon = room.exporter(&config(&[("default", API_URL)]));
    // Our ends of connections to the API that are being made or open, as the kernel lists them: a
    // set, because it may list one twice while it changes.
    let in_flight = || {
        let connections = fs::read_to_string(format!("/proc/{}/net/tcp", daemon.pid())).unwrap();
        let open = connections.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (ours, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
            let is_open = peer.ends_with(":1F90") && matches!(state, "01" | "02");
            is_open.then(|| ours.to_owned())
        });
        open.collect::<BTreeSet<String>>().len()
    };
    let most = AtomicUsize::new(0);
    let three_polls = |scrape: &Scrape| {
        most.fetch_max(in_flight(), Ordering::SeqCst);
        scrape.account("polls_total") >= Some(3.0)
    };
    let scrape = daemon.until("three polls", three_polls).await;
    assert_eq!(most.into_inner(), 1, "connections at a time");
    let of_the_link = scrape.failures("timeout") + scrape.failures("connect");
    let failures = scrape.of("api_key_account_poll_failures_total");
    let failures: f64 = failures.iter().map(|(_, count)| count).sum();
    assert_eq!(of_the_link, failures, "{}", daemon.log());
    let sum = "api_key_exporter_poll_duration_seconds_sum{account=\"default\"}";
    assert!(scrape.get(sum) > Some(1.0), "the link is not slow");
    room.run("iptables -F && tc qdisc del dev lo root");
    let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    daemon.until("a good poll", up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_costs_less_than_a_second() {
    let api = Api::start(listing(&["a"])).await;
    let room = NetworkNamespace::new("six", &api);
    room.write("hosts", "2001:db8::24 localhost\n127.0.0.1 localhost\n");
    room.run("ip -6 address add 2001:db8::24/128 dev lo nodad");
    room.run("ip6tables -A OUTPUT -d 2001:db8::24 -j DROP");
    let daemon = room.exporter(&config(&[("default", API_URL)]));
    let up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    let scrape = daemon.until("a good poll", up).await;
    let sum = "api_key_exporter_poll_duration_seconds_sum{account=\"default\"}";
    let took = scrape.get(sum).unwrap();
    // The address that leads nowhere was tried.
    assert!((0.25..1.25).contains(&took), "{took} s");
}

#[test]
fn http_2_is_not_compiled_into_the_client() {
    // The server has it, for TLS.
    let lock = fs::read_to_string(in_repository("Cargo.lock")).unwrap();
    let mut packages = lock.split("[[package]]");
    let client = packages.find(|it| it.contains("\nname = \"reqwest\"\n"));
    let client = client.unwrap();
    assert!(client.contains("\n \"hyper\",\n"), "{client}");
    assert!(!client.contains("\n \"h2\",\n"), "{client}");
}

#[tokio::test]
async fn statuses_that_come_with_no_listing() {
    for status in [101, 204, 206, 226] {
        keeps(
            "schema",
            Reply {
                status,
                ..listing(&["c"])
            },
        )
        .await;
    }
    keeps(
        "server_error",
        Reply {
            status: 999,
            ..listing(&["c"])
        },
    )
    .await;
}

#[tokio::test]
async fn interim_answers_without_end_are_cut_by_the_deadline() {
    let listener = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                while stream
                    .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                    .await
                    .is_ok()
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
    });
    let exporter = Exporter::with(&in_process(&url, "poll.attempts = 1", "")).await;
    exporter.fails("timeout").await;
    serving.abort();
}
