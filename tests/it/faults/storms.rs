//! How much is logged under storms: an API that is down for hundreds of accounts, one that
//! flaps, keys that change, expire and cross thresholds all at once, reloads, hostile requests.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::{Value, json};

use crate::process::{Daemon, binary};
use crate::support::{Folder, TOKEN, any_port, client, key};

/// So many keys, or accounts.
const MANY: usize = 300;

/// How long the storms last.
const STORM: Duration = Duration::from_secs(40);

async fn api(answer: impl Fn(usize) -> Reply + Send + Sync + 'static) -> String {
    let number = AtomicUsize::new(0);
    let answer = move |_: &Request| answer(number.fetch_add(1, Ordering::SeqCst));
    let api = FakeApi::start(any_port(), TOKEN, answer).await.unwrap();
    let url = format!("http://{}", api.address());
    // It serves until the test ends.
    std::mem::forget(api);
    url
}

fn many(expires_at: DateTime<Utc>, scope: &str) -> Reply {
    let expires_at = expires_at.format("%Y-%m-%d %H:%M:%S").to_string();
    let entry = |number: usize| {
        let mut key = key(&format!("k{number}"));
        key["expires_at"] = json!(expires_at);
        key["scopes"] = json!([scope]);
        key
    };
    Reply::listing(&(0..MANY).map(entry).collect::<Vec<Value>>())
}

/// Requests that no scraper sends.
fn hostile() -> Vec<Vec<u8>> {
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    let headers = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "a: b\r\n".repeat(500)
    );
    vec![
        b"\x16\x03\x01\0\0".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET http://[::::]/ HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_vec(),
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nOrigin: http://evil\r\n\r\n".to_vec(),
        vec![0; 100],
        long.into_bytes(),
        headers.into_bytes(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_storm_floods_the_log() {
    let start = Utc::now();
    let later = move |days: i64| start + TimeDelta::days(days);
    let flapping = api(|number| match number % 2 {
        0 => Reply::listing(&[key("a")]),
        _ => Reply::error(503, "no", "support_1"),
    });
    let expiring = api(move |_| many(start + TimeDelta::seconds(15), "a"));
    // Into a threshold and out of it.
    let crossing = api(move |number| many(later(if number % 2 == 0 { 400 } else { 1 }), "a"));
    let changing = api(move |number| many(later(400), &format!("scope-{number}")));
    let folder = Folder::new("storms");
    let mut text = String::from(
        "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
         web.listen_addresses = [\"127.0.0.1:0\"]\nweb.enable_lifecycle = true\n",
    );
    let mut account = |name: &str, url: &str| {
        writeln!(
            text,
            "[[accounts]]\nname = {name:?}\nbase_url = {url:?}\ntoken_env = \"TOKEN\""
        )
        .unwrap();
    };
    let storms = [
        ("flapping", flapping.await),
        ("expiring", expiring.await),
        ("crossing", crossing.await),
        ("changing", changing.await),
    ];
    for (name, url) in &storms {
        account(name, url);
    }
    for number in 0..MANY {
        // Nothing listens on the port of the discard service.
        account(&format!("down-{number}"), "http://127.0.0.1:9");
    }
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    let daemon = Daemon::start(command, &folder);
    let address = daemon.address().await;
    let began = Instant::now();
    let (client, requests) = (client(), hostile());
    for number in 0.. {
        if began.elapsed() > STORM {
            break;
        }
        for request in &requests {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            // It may close the connection before it has read everything.
            drop(stream.write_all(request));
            drop(stream.read(&mut [0; 64]));
        }
        if number < 50 {
            let reload = format!("http://{address}/-/reload");
            let reload = client.request(Method::POST, reload).send().await.unwrap();
            assert_eq!(reload.status(), 200);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = daemon.log();
    let of = |name: &str| {
        let field = format!("account={name} ");
        log.lines().filter(|line| line.contains(&field)).count()
    };
    // A burst of 20 changes, 50 crossed thresholds or 5 failures and recoveries; then a few a
    // minute, summaries, and what each account says at its start.
    for (name, most) in [
        ("flapping", 20),
        ("changing", 35),
        ("expiring", 65),
        ("crossing", 90),
    ] {
        let lines = of(name);
        assert!((2..=most).contains(&lines), "{name}: {lines}");
    }
    for number in 0..MANY {
        // The account at the start, and the first failure.
        let lines = of(&format!("down-{number}"));
        assert_eq!(lines, 2, "down-{number}");
    }
    let others = log.lines().filter(|line| !line.contains(" account="));
    let others: Vec<&str> = others.collect();
    // The start, some reloads, and the counts of those that were not logged.
    assert!(others.len() <= 15, "{} {:#?}", others.len(), others);
    let reloads = others.iter().filter(|line| line.contains("reloaded"));
    assert!((1..=10).contains(&reloads.count()), "{others:#?}");
}
