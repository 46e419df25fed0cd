//! Many alerts at once, from a real Alertmanager to the chat: how many messages, and what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::{alertmanager_with, exporter, of_time, until};
use crate::process::Daemon;
use crate::prometheus::{self, free, shipped, shorten};
use crate::support::{Api, Folder, client};
use api_key_exporter::fake_api::Reply;

/// A chat server that keeps what it is sent.
struct Chat {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl Chat {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let messages = Arc::new(Mutex::new(Vec::new()));
        let kept = messages.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(message) = receive(&stream.unwrap()) {
                    kept.lock().unwrap().push(message);
                }
            }
        });
        Self { address, messages }
    }

    fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }
}

/// Reads one request with a JSON body, and accepts it.
fn receive(mut stream: &TcpStream) -> Option<Value> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        .ok()?;
    serde_json::from_slice(&body).ok()
}

/// The shipped Alertmanager, which sends chat messages to `chat`, three seconds after the first
/// alert of a group.
fn alertmanager(folder: &Folder, address: SocketAddr, chat: &Chat) -> Daemon {
    let shipped = shipped("alertmanager.yml");
    let file = "api_url_file: /etc/alertmanager/secrets/slack-url";
    assert!(shipped.contains(file));
    let config = shipped.replace(file, &format!("api_url: http://{}/", chat.address));
    let (config, times) = shorten(&config, "group_wait", "3s");
    assert_eq!(times, 1);
    alertmanager_with(folder, address, &config)
}

/// The text of a message's only attachment.
fn text(message: &Value) -> &str {
    message["attachments"][0]["text"].as_str().unwrap()
}

fn title(message: &Value) -> &str {
    message["attachments"][0]["title"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_300_keys_is_one_message_about_the_ten_that_expire_first() {
    const KEYS: i64 = 300;
    let folders = ["exporter", "prometheus", "alertmanager"]
        .map(|name| Folder::new(&format!("storm-{name}")));
    let [exporter_address, prometheus_address, pager_address] = [free(), free(), free()];
    let now = Utc::now();
    // All inside the warning time of 22 minutes and outside of the critical one. The last id
    // expires first, each of the others a second later.
    let keys: Vec<Value> = (0..KEYS)
        .map(|number| {
            let end = now + TimeDelta::minutes(14) + TimeDelta::seconds(KEYS - number);
            let id = format!("storm_{number:03}");
            let mut key = of_time(&id, now - TimeDelta::hours(2), end);
            key["label"] = json!(format!("<!channel> R&D {number}"));
            key
        })
        .collect();
    let api = Api::start(Reply::listing(&keys)).await;
    let chat = Chat::start();
    let alertmanager = alertmanager(&folders[2], pager_address, &chat);
    let scraping = prometheus::start(
        &folders[1],
        prometheus_address,
        exporter_address,
        Some(pager_address),
    );
    let running = exporter(&folders[0], exporter_address, &api.url());
    until(
        "the message",
        &[&running, &scraping, &alertmanager],
        async || {
            let messages = chat.messages();
            messages
                .iter()
                .any(|message| title(message).contains("ApiKeyExpiringSoon"))
        },
    )
    .await;
    // Time for a second message, were there one: several rounds of group_wait.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let messages = chat.messages();
    let about_keys: Vec<&Value> = messages
        .iter()
        .filter(|message| title(message).contains("ApiKeyExpiringSoon"))
        .collect();
    let [message] = about_keys.as_slice() else {
        panic!("{} messages: {messages:#?}", about_keys.len());
    };
    assert_eq!(title(message), "[FIRING:300] ApiKeyExpiringSoon (warning)");
    assert_eq!(message["channel"], "#platform");
    let lines: Vec<&str> = text(message).lines().collect();
    assert_eq!(lines.len(), 12, "{lines:#?}");
    for (line, number) in lines.iter().zip((290..300).rev()) {
        let start =
            format!("• API key \"&lt;!channel&gt; R&amp;D {number}\" (account shop) expires in 1");
        assert!(line.starts_with(&start), "{line} does not start {start}");
    }
    assert_eq!(lines[10], "• and 290 more");
    assert!(
        lines[11].ends_with("ApiKeyExpiringSoon.md|Runbook>"),
        "{lines:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_a_provider_is_one_message_that_names_the_reasons() {
    let folder = Folder::new("outage-alertmanager");
    let address = free();
    let chat = Chat::start();
    let alertmanager = alertmanager(&folder, address, &chat);
    let mut alerts = Vec::new();
    for number in 0..40 {
        let account = format!("account-{number:02}");
        for (name, summary) in [
            (
                "ApiKeyAccountFailing",
                format!("Listing the API keys of account {account} fails: server_error"),
            ),
            (
                "ApiKeyInventoryStale",
                format!("Account {account} was last listed 1h 0m ago"),
            ),
        ] {
            let provider = if number < 38 { "one" } else { "two" };
            alerts.push(json!({
                "labels": { "alertname": name, "account": account, "provider": provider,
                    "severity": "warning" },
                "annotations": { "summary": summary, "description": "d",
                    "runbook_url": "https://example.com/runbook" },
            }));
        }
    }
    let body = Value::from(alerts).to_string();
    until("Alertmanager takes alerts", &[&alertmanager], async || {
        let url = format!("http://{address}/api/v2/alerts");
        let request = client()
            .post(url)
            .header("Content-Type", "application/json");
        let answer = request.body(body.clone()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut messages = chat.messages();
    messages.sort_by_key(|message| text(message).len());
    let titles: Vec<&str> = messages.iter().map(title).collect();
    assert_eq!(
        titles,
        [
            "[FIRING:2] ApiKeyAccountFailing (warning)",
            "[FIRING:38] ApiKeyAccountFailing (warning)"
        ]
    );
    let lines: Vec<&str> = text(&messages[1]).lines().collect();
    assert_eq!(
        lines[0],
        "• Listing the API keys of account account-00 fails: server_error"
    );
    assert_eq!(lines[10], "• and 28 more");
    assert_eq!(lines.len(), 12);
}
