//! One account's lister against an API on loopback, with a provider that exists only in the tests.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::domain::key::{Expiry, Key};
use crate::domain::listing::{Listing, Rejects};

fn lister(settings: ListerSettings) -> Lister {
    let token = Token::parse(b"abcdefghijklmnopqrstuvwxyz", "test").unwrap();
    let token = TokenSource::Env {
        variable: "TOKEN".into(),
        token,
    };
    let now = || DateTime::UNIX_EPOCH;
    Lister::new(token, settings, Arc::new(TlsConfigs::new(now)), None, now)
}

fn settings(base_url: &str) -> ListerSettings {
    ListerSettings {
        provider: Provider::default(),
        target: Arc::new(Target {
            base_url: base_url.parse().unwrap(),
            proxy_url: None,
            timeout: Duration::from_secs(15),
            body_bytes_max: 1_000,
        }),
        ca_file: None,
        keys_max: 10,
        pages_max: 200,
        expected_env: None,
    }
}

/// A second provider, as different from the first as possible: each key is a line, and the first
/// line of a page names the next page.
async fn list_lines(session: &mut Session, rules: &Rules<'_>) -> Result<Listed, Failure> {
    let mut keys = Vec::new();
    let mut link = Some("/lines?page=1".to_owned());
    for _ in 0..10 {
        let Some(next) = link.take() else {
            let listing = Listing::new(keys, Rejects::default(), None);
            return Ok(Listed {
                listing,
                support_id: None,
            });
        };
        let url = session.resolve(&next)?;
        let page = session.request(url, |page| {
            if page.status != 200 {
                let reason = Reason::of_foreign_status(page.status);
                return Err(Failure::new(reason, "no page"));
            }
            Ok(String::from_utf8_lossy(&page.body).into_owned())
        });
        let page = page.await?;
        let mut lines = page.lines();
        link = lines
            .next()
            .and_then(|it| it.strip_prefix("next "))
            .map(str::to_owned);
        keys.extend(lines.filter_map(KeyId::parse).map(|id| Key {
            expiry: Expiry::Never,
            ..crate::domain::key::tests::key(id.as_str())
        }));
        if keys.len() > rules.keys_max {
            return Err(Failure::new(Reason::TooManyKeys, "too many lines"));
        }
    }
    Err(Failure::new(Reason::Incomplete, "too many pages"))
}

/// The API's reaction to one request.
#[derive(Clone, Copy)]
enum Act {
    Page(&'static str),
    /// The same, and then the connection closes.
    Last(&'static str),
    Fail,
    Hang,
}
use Act::{Fail, Hang, Last, Page};

/// Lists from an API that follows `script`. Returns the ids or the reason, and the number of
/// connections and requests.
async fn poll(
    script: &'static [Act],
    deadline: Duration,
) -> (Result<Vec<String>, Reason>, usize, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (connections.clone(), requests.clone());
    let api = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counts.0.fetch_add(1, Ordering::SeqCst);
            let requests = counts.1.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                loop {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let number = requests.fetch_add(1, Ordering::SeqCst);
                    let request = String::from_utf8(std::mem::take(&mut head)).unwrap();
                    assert!(
                        request.contains("authorization: Bearer abcdefghijkl"),
                        "{request}"
                    );
                    assert!(request.contains("cache-control: no-cache"), "{request}");
                    let (status, body) = match script[number] {
                        Page(body) | Last(body) => ("200 OK", body),
                        Fail => ("403 Forbidden", "blocked"),
                        Hang => continue,
                    };
                    let length = body.len();
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if matches!(script[number], Last(_)) {
                        return;
                    }
                }
            });
        }
    });
    let lister = lister(settings(&base_url));
    let (token, mut session) = lister.open(deadline).await.unwrap();
    let result = list_lines(&mut session, &lister.rules(&token)).await;
    let answer = lister.close(session, None, result);
    api.abort();
    let ids = answer.result.map(|listed| {
        let keys = listed.listing.keys().iter();
        keys.map(|key| key.id.to_string()).collect()
    });
    let ids = ids.map_err(|failure| failure.reason);
    let counts = [connections, requests].map(|count| count.load(Ordering::SeqCst));
    (ids, counts[0], counts[1])
}

const FIRST: &str = "next /lines?page=2\na\nb\n";
const SECOND: &str = "next ?page=3\nc\n";
const THIRD: &str = "end\nd\n";
const LONG: Duration = Duration::from_secs(20);

fn all() -> Vec<String> {
    ["a", "b", "c", "d"].map(str::to_owned).into()
}

#[tokio::test]
async fn another_provider_lists_three_pages_on_one_connection() {
    let listed = poll(&[Page(FIRST), Page(SECOND), Page(THIRD)], LONG).await;
    assert_eq!(listed, (Ok(all()), 1, 3));
}

#[tokio::test]
async fn a_connection_that_closes_between_pages_is_opened_again() {
    let listed = poll(&[Page(FIRST), Last(SECOND), Page(THIRD)], LONG).await;
    assert_eq!(listed, (Ok(all()), 2, 3));
}

#[tokio::test]
async fn a_listing_is_all_pages_or_none() {
    let scripts: [(&[Act], Reason); 5] = [
        (&[Fail], Reason::Gateway),
        (&[Page(FIRST), Fail], Reason::Gateway),
        (&[Page(FIRST), Page(SECOND), Fail], Reason::Gateway),
        (&[Page("next http://127.0.0.1:1/\n")], Reason::Redirect),
        (&[Page("next https://127.0.0.1/\n")], Reason::Redirect),
    ];
    for (script, reason) in scripts {
        let (listed, connections, requests) = poll(script, LONG).await;
        assert_eq!((listed, connections), (Err(reason), 1));
        assert_eq!(requests, script.len());
    }
}

#[tokio::test]
async fn all_pages_share_the_deadline_and_the_limit_of_bytes() {
    let deadline = Duration::from_millis(300);
    let started = Instant::now();
    let (listed, ..) = poll(&[Page(FIRST), Page(SECOND), Hang], deadline).await;
    assert_eq!(listed, Err(Reason::Timeout));
    let took = started.elapsed();
    assert!((deadline..deadline * 10).contains(&took), "{took:?}");
    // Two pages fit into the 1,000 bytes, the third does not.
    let page: &str = Box::leak(format!("next ?\n{}", "x".repeat(400)).into_boxed_str());
    let script: &[Act] = Box::leak(Box::new([Page(page); 3]));
    let (listed, _, requests) = poll(script, LONG).await;
    assert_eq!((listed, requests), (Err(Reason::BodyTooLarge), 3));
}

#[tokio::test(start_paused = true)]
async fn authorities_are_read_again_after_a_day() {
    let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let name = format!("api-key-exporter-{}-day.pem", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, own.cert.pem()).unwrap();
    let settings = ListerSettings {
        ca_file: Some(path.clone()),
        ..settings("https://api.example")
    };
    let lister = lister(settings);
    let result = async || lister.prepare().await.map(drop);
    assert_eq!(result().await, Ok(()));
    std::fs::remove_file(&path).unwrap();
    tokio::time::advance(Duration::from_hours(23)).await;
    assert_eq!(result().await, Ok(()), "the file is not read yet");
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(result().await.unwrap_err().reason, Reason::Tls);
}
