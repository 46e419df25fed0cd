//! Listings with many pages, from an API on loopback that keeps its connections open.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api_key_exporter::domain::failure::Reason;
use api_key_exporter::domain::listing::{Listing, Rejects};
use api_key_exporter::provider::http::Target;
use api_key_exporter::provider::lister::{Lister, ListerSettings};
use api_key_exporter::provider::tls::TlsConfigs;
use api_key_exporter::provider::{Answer, Provider};
use api_key_exporter::secret::{Token, TokenSource};
use chrono::DateTime;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use super::{TOKEN, answer, json_list};

/// What the API answers.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Reply {
    fn json(body: String) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body,
        }
    }

    fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// An API that answers each request as a function of its address says.
struct Api {
    base_url: Url,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Url>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Api {
    async fn start(answer: impl FnMut(&Url) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url: Url = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(Mutex::new(answer));
        let (counter, log, base) = (connections.clone(), requests.clone(), base_url.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (answer, log, base) = (answer.clone(), log.clone(), base.clone());
                let service = service_fn(move |request: hyper::Request<_>| {
                    let _: &hyper::Request<hyper::body::Incoming> = &request;
                    let url = base.join(&request.uri().to_string()).unwrap();
                    let is_known = request.headers().get("authorization").is_some_and(|value| {
                        value.as_bytes() == format!("Bearer {TOKEN}").as_bytes()
                    });
                    assert!(is_known, "a request without the token");
                    log.lock().unwrap().push(url.clone());
                    let reply = (answer.lock().unwrap())(&url);
                    let mut response = hyper::Response::builder().status(reply.status);
                    for (name, value) in reply.headers {
                        response = response.header(name, value);
                    }
                    let response = response.body(reqwest::Body::from(reply.body));
                    async move { Ok::<_, Infallible>(response.unwrap()) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            base_url,
            connections,
            requests,
            accepting,
        }
    }

    /// Lists once with a definition that has these options.
    async fn list(&self, options: &str, limits: Limits) -> Answer {
        let lister = self.lister(options, limits);
        lister.attempt(limits.deadline, None).await
    }

    fn lister(&self, options: &str, limits: Limits) -> Lister {
        let token = Token::parse(TOKEN.as_bytes(), "test").unwrap();
        let source = TokenSource::Env {
            variable: "TOKEN".into(),
            token,
        };
        let settings = ListerSettings {
            provider: Provider::Json(Arc::new(json_list(options))),
            target: Arc::new(Target {
                base_url: self.base_url.clone(),
                proxy_url: None,
                timeout: Duration::from_secs(15),
                body_bytes_max: limits.body_bytes_max,
            }),
            ca_file: None,
            keys_max: limits.keys_max,
            pages_max: limits.pages_max,
            expected_env: None,
        };
        let now = || DateTime::UNIX_EPOCH;
        Lister::new(source, settings, Arc::new(TlsConfigs::new(now)), None, now)
    }

    /// The addresses of the requests, without scheme and host.
    fn asked(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let asked = requests.iter().map(|url| match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        });
        asked.collect()
    }
}

#[derive(Clone, Copy)]
struct Limits {
    body_bytes_max: usize,
    keys_max: usize,
    pages_max: usize,
    deadline: Duration,
}

/// The usual ones.
const LIMITS: Limits = Limits {
    body_bytes_max: 8 * 1024 * 1024,
    keys_max: 20_000,
    pages_max: 200,
    deadline: Duration::from_secs(60),
};

const BASE: &str = "items = \"/data\"\nid = \"/id\"\n";

fn ids(answer: Answer) -> Result<Vec<String>, Reason> {
    let listed = answer.result.map_err(|failure| failure.reason)?;
    let rejects = listed.listing.rejects();
    assert_eq!(rejects.total(), 0, "{rejects:?}");
    let keys = listed.listing.keys().iter();
    Ok(keys.map(|key| key.id.to_string()).collect())
}

fn param(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

fn number(url: &Url, name: &str) -> usize {
    param(url, name).unwrap().parse().unwrap()
}

fn data(keys: &[String], more: &str) -> String {
    let items: Vec<String> = keys.iter().map(|id| format!("{{\"id\":{id:?}}}")).collect();
    format!("{{\"data\":[{}]{more}}}", items.join(","))
}

fn names(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("key-{number:05}")).collect()
}

/// The kinds of pagination, each with an API that serves `keys`, `size` on a page.
const KINDS: [&str; 8] = [
    "kind = \"page\", size = 2",
    "kind = \"page\", size = 2, total = \"/total\"",
    "kind = \"page\", size = 2, total_header = \"x-total\"",
    "kind = \"page\", size = 2, pages = \"/pages\"",
    "kind = \"offset\", size = 2",
    "kind = \"link\"",
    "kind = \"next_url\", at = \"/next\"",
    "kind = \"cursor\", at = \"/next\", param = \"after\", has_more = \"/more\"",
];

/// Whether a key that is deleted while the pages are read can hide another one, without a sign.
fn shows_no_total(kind: &str) -> bool {
    let is_numbered = kind.contains("\"page\"") || kind.contains("\"offset\"");
    is_numbered && !kind.contains("total")
}

fn options(kind: &str) -> String {
    format!("{BASE}pagination = {{ {kind} }}")
}

/// What such an API answers.
fn serve(kind: &str, keys: &[String], size: usize, url: &Url) -> Reply {
    let word = kind.split('"').nth(1).unwrap();
    let start = match word {
        "page" => (number(url, "page") - 1) * size,
        "offset" => number(url, "offset"),
        _ => param(url, "after").map_or(0, |text| text.parse().unwrap()),
    };
    let end = (start + size).min(keys.len());
    let page = keys.get(start..end).unwrap_or_default();
    let next = (end < keys.len()).then_some(end);
    let (total, pages) = (keys.len(), keys.len().div_ceil(size));
    let link = next.map(|next| format!("/keys?after={next}"));
    let said = match word {
        "next_url" => link.clone(),
        _ => next.map(|next| next.to_string()),
    };
    let more = format!(
        ",\"total\":{total},\"pages\":{pages},\"more\":{},\"next\":{}",
        next.is_some(),
        said.map_or_else(|| "null".to_owned(), |said| format!("{said:?}"))
    );
    let reply = Reply::json(data(page, &more)).header("x-total", total.to_string());
    match link {
        Some(link) => reply.header("link", format!("<{link}>; rel=\"next\"")),
        None => reply,
    }
}

#[tokio::test]
async fn every_kind_of_pagination_reads_all_pages_on_one_connection() {
    for kind in KINDS {
        for count in [0, 1, 2, 5] {
            let keys = names(0..count);
            let served = keys.clone();
            let api = Api::start(move |url| serve(kind, &served, 2, url)).await;
            let answer = api.list(&options(kind), LIMITS).await;
            assert_eq!(ids(answer), Ok(keys), "{kind}, {count}: {:?}", api.asked());
            let requests = api.asked().len();
            let least = count.div_ceil(2).max(1);
            // The first listing of several pages without a total is read twice.
            let passes = if shows_no_total(kind) { 2 } else { 1 };
            assert!(
                (least..=passes * (least + 1)).contains(&requests),
                "{kind}, {count}: {requests}"
            );
            assert_eq!(api.connections.load(Ordering::SeqCst), 1, "{kind}, {count}");
        }
    }
}

#[tokio::test]
async fn a_pointer_may_lead_through_the_list_around_the_items() {
    for pagination in [
        "kind = \"cursor\", at = \"/0/next\", param = \"after\"",
        "kind = \"next_url\", at = \"/0/url\"",
        "kind = \"page\", total = \"/2/0\"",
    ] {
        let keys = names(0..5);
        let served = keys.clone();
        let api = Api::start(move |url| {
            let after = param(url, "after").map(|text| text.parse().unwrap());
            let page = param(url, "page").map(|text| (text.parse::<usize>().unwrap() - 1) * 2);
            let start = after.or(page).unwrap_or(0);
            let items = data(&served[start..5.min(start + 2)], "");
            let next = if start < 4 {
                let next = start + 2;
                format!("{{\"next\":{next},\"url\":\"/keys?after={next}\"}}")
            } else {
                "{}".to_owned()
            };
            Reply::json(format!("[{next},{items},[5]]"))
        })
        .await;
        let options = format!("items = \"/1/data\"\nid = \"/id\"\npagination = {{ {pagination} }}");
        let answer = api.list(&options, LIMITS).await;
        assert_eq!(ids(answer), Ok(keys), "{pagination}");
        assert_eq!(api.asked().len(), 3, "{pagination}");
    }
}

#[tokio::test]
async fn twenty_thousand_keys_over_two_hundred_pages_take_one_connection_and_seconds() {
    for kind in ["kind = \"link\"", "kind = \"page\", size = 100"] {
        let keys = names(0..20_000);
        let served = keys.clone();
        let api = Api::start(move |url| serve(kind, &served, 100, url)).await;
        let start = Instant::now();
        let answer = api.list(&options(kind), LIMITS).await;
        assert_eq!(ids(answer), Ok(keys), "{kind}");
        assert!(
            start.elapsed() < Duration::from_secs(50),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(api.connections.load(Ordering::SeqCst), 1, "{kind}");
        let passes = if shows_no_total(kind) { 2 } else { 1 };
        assert!((200..=passes * 201).contains(&api.asked().len()), "{kind}");
    }
}

#[tokio::test]
async fn a_page_that_fails_at_any_position_fails_the_listing() {
    for kind in KINDS {
        for failing in 0..3 {
            let keys = names(0..5);
            let mut asked = 0;
            let api = Api::start(move |url| {
                asked += 1;
                let reply = serve(kind, &keys, 2, url);
                let is_failing = asked == failing + 1;
                Reply {
                    status: if is_failing { 503 } else { 200 },
                    ..reply
                }
            })
            .await;
            let answer = api.list(&options(kind), LIMITS).await;
            assert_eq!(ids(answer), Err(Reason::ServerError), "{kind}, {failing}");
            assert_eq!(api.asked().len(), failing + 1, "{kind}");
        }
    }
}

#[tokio::test]
async fn a_follow_up_goes_nowhere_else() {
    let elsewhere = Api::start(|_| Reply::json(data(&names(0..1), ""))).await;
    let port = elsewhere.base_url.port().unwrap();
    let options = options("kind = \"next_url\", at = \"/next\"");
    for link in [
        format!("http://127.0.0.1:{port}/keys"),
        format!("//127.0.0.1:{port}/keys"),
        "http://localhost/keys".to_owned(),
        "https://evil.example/keys".to_owned(),
        "file:///etc/passwd".to_owned(),
        "HTTPS://127.0.0.1/".to_owned(),
    ] {
        let said = link.clone();
        let api =
            Api::start(move |_| Reply::json(data(&names(0..2), &format!(",\"next\":{said:?}"))))
                .await;
        let answer = api.list(&options, LIMITS).await;
        assert_eq!(ids(answer), Err(Reason::Redirect), "{link}");
        assert_eq!(api.asked().len(), 1, "{link}");
    }
    assert_eq!(elsewhere.connections.load(Ordering::SeqCst), 0);
    let mut base = None;
    let api = Api::start(move |url| {
        let user = format!("http://user:pass@127.0.0.1:{}/keys", url.port().unwrap());
        base.get_or_insert(user.clone());
        Reply::json(data(&names(0..2), &format!(",\"next\":{user:?}")))
    })
    .await;
    let answer = api.list(&options, LIMITS).await;
    assert_eq!(ids(answer), Err(Reason::Redirect));
}

#[tokio::test]
async fn a_relative_link_is_resolved_against_the_request() {
    let api = Api::start(|url| {
        let (keys, next) = match (url.path(), url.query()) {
            ("/keys", None) => (names(0..1), "?p=2"),
            ("/keys", Some("p=2")) => (names(1..2), "more/three"),
            ("/more/three", None) => (names(2..3), "./four"),
            ("/more/four", None) => (names(3..4), ""),
            _ => panic!("{url}"),
        };
        Reply::json(data(&keys, &format!(",\"next\":{next:?}")))
    })
    .await;
    let answer = api
        .list(&options("kind = \"next_url\", at = \"/next\""), LIMITS)
        .await;
    assert_eq!(ids(answer), Ok(names(0..4)));
}

#[tokio::test]
async fn loops_and_endless_listings_end() {
    let next_url = "kind = \"next_url\", at = \"/next\"";
    // Each page names the first one, or itself, with other keys each time.
    for next in ["/keys", "/keys?p=2"] {
        let mut asked = 0;
        let api = Api::start(move |_| {
            asked += 1;
            Reply::json(data(
                &names(asked..asked + 1),
                &format!(",\"next\":{next:?}"),
            ))
        })
        .await;
        let answer = api.list(&options(next_url), LIMITS).await;
        assert_eq!(ids(answer), Err(Reason::Incomplete), "{next}");
        assert!(api.asked().len() <= 2, "{next}");
    }
    // The API does not know the parameter.
    let api = Api::start(|_| Reply::json(data(&names(0..2), ""))).await;
    let answer = api.list(&options("kind = \"page\""), LIMITS).await;
    assert_eq!(ids(answer), Err(Reason::Incomplete));
    assert_eq!(api.asked(), ["/keys?page=1", "/keys?page=2"]);
    let limits = Limits {
        pages_max: 3,
        ..LIMITS
    };
    for (kind, most) in [
        (next_url, 3),
        ("kind = \"page\"", 4),
        ("kind = \"offset\"", 4),
    ] {
        let mut asked = 0;
        let api = Api::start(move |_| {
            asked += 1;
            let next = format!(",\"next\":\"/keys?p={asked}\"");
            Reply::json(data(&names(asked..asked + 1), &next))
        })
        .await;
        let answer = api.list(&options(kind), limits).await;
        assert_eq!(ids(answer), Err(Reason::Incomplete), "{kind}");
        assert_eq!(api.asked().len(), most, "{kind}");
    }
}

#[tokio::test]
async fn limits_count_all_pages_together() {
    for (limits, expected) in [
        (LIMITS, None),
        (
            Limits {
                keys_max: 9,
                ..LIMITS
            },
            Some(Reason::TooManyKeys),
        ),
        (
            Limits {
                keys_max: 10,
                ..LIMITS
            },
            None,
        ),
        (
            Limits {
                body_bytes_max: 400,
                ..LIMITS
            },
            Some(Reason::BodyTooLarge),
        ),
        (
            Limits {
                deadline: Duration::from_millis(500),
                ..LIMITS
            },
            Some(Reason::Timeout),
        ),
    ] {
        let kind = "kind = \"page\", size = 2, total = \"/total\"";
        let keys = names(0..10);
        let api = Api::start(move |url| {
            // Longer than the shortest deadline, for all pages together.
            std::thread::sleep(Duration::from_millis(150));
            serve(kind, &keys, 2, url)
        })
        .await;
        let answer = api.list(&options(kind), limits).await;
        assert_eq!(ids(answer).err(), expected, "{:?}", limits.deadline);
    }
}

/// What happens to the keys while their pages are read.
#[derive(Clone, Copy, Debug)]
enum Event {
    CreatedFirst,
    CreatedLast,
    DeletedFirst,
    DeletedLast,
}

#[tokio::test]
async fn a_listing_that_changes_meanwhile_has_no_key_twice_and_loses_none() {
    use Event::{CreatedFirst, CreatedLast, DeletedFirst, DeletedLast};
    // The links and cursors of this API are offsets, which nothing shows.
    let numbered = KINDS.iter().filter(|kind| kind.contains("size"));
    for kind in numbered {
        for event in [CreatedFirst, CreatedLast, DeletedFirst, DeletedLast] {
            for moment in 1..3 {
                let mut keys = names(1..7);
                let before = keys.clone();
                let mut asked = 0;
                let api = Api::start(move |url| {
                    let reply = serve(kind, &keys, 2, url);
                    asked += 1;
                    if asked == moment {
                        match event {
                            CreatedFirst => keys.insert(0, "key-00000".to_owned()),
                            CreatedLast => keys.push("key-99999".to_owned()),
                            DeletedFirst => drop(keys.remove(0)),
                            DeletedLast => drop(keys.pop()),
                        }
                    }
                    reply
                })
                .await;
                let answer = api.list(&options(kind), LIMITS).await;
                let found = ids(answer).unwrap();
                let context = format!("{kind}, {event:?} after {moment}: {found:?}");
                let survivors = match event {
                    CreatedFirst | CreatedLast => &before[..],
                    DeletedFirst => &before[1..],
                    DeletedLast => &before[..5],
                };
                for key in survivors {
                    let times = found.iter().filter(|id| *id == key).count();
                    assert_eq!(times, 1, "{key}: {context}");
                }
            }
        }
    }
}

/// A key that moves to a page which was read is missed by one pass, where nothing says how many
/// there are.
#[tokio::test]
async fn keys_that_were_listed_before_are_looked_for_once_more() {
    for kind in KINDS {
        let (mut keys, mut asked) = (names(1..7), 0);
        let before = keys.clone();
        let api = Api::start(move |url| {
            let reply = serve(kind, &keys, 2, url);
            asked += 1;
            if asked == 1 {
                keys.remove(0);
            }
            reply
        })
        .await;
        let lister = api.lister(&options(kind), LIMITS);
        let held = before.iter().map(|id| {
            let whole = format!("[{{\"id\":{id:?}}}]");
            let answer = answer(&json_list("items = \"\"\nid = \"/id\""), 200, &[], &whole);
            answer.unwrap().listing.keys()[0].clone()
        });
        let held = Listing::new(held.collect(), Rejects::default(), None);
        let first = ids(lister.attempt(LIMITS.deadline, Some(&held)).await).unwrap();
        for key in &before[1..] {
            assert!(first.contains(key), "{kind}: {first:?}");
        }
        let deleted = ids(lister.attempt(LIMITS.deadline, Some(&held)).await);
        assert_eq!(deleted.unwrap(), before[1..], "{kind}");
        let asked = api.asked().len();
        let again = ids(lister.attempt(LIMITS.deadline, None).await).unwrap();
        assert_eq!(again, before[1..], "{kind}");
        let passes = if shows_no_total(kind) { 2 } else { 1 };
        assert!(api.asked().len() - asked <= 4 * passes, "{kind}");
    }
}

#[tokio::test]
async fn a_listing_that_shrinks_all_the_time_is_incomplete() {
    let kind = "kind = \"page\", size = 2, total = \"/total\"";
    let mut keys = names(0..50);
    let api = Api::start(move |url| {
        let reply = serve(kind, &keys, 2, url);
        keys.remove(0);
        reply
    })
    .await;
    let answer = api.list(&options(kind), LIMITS).await;
    assert_eq!(ids(answer), Err(Reason::Incomplete));
    assert!(api.asked().len() <= 6, "{:?}", api.asked());
}

#[tokio::test]
async fn a_second_read_that_fails_leaves_the_listing_of_the_first() {
    let kinds = KINDS.iter().filter(|kind| shows_no_total(kind));
    for kind in kinds {
        let keys = names(0..5);
        let all = keys.clone();
        let mut asked = 0;
        let api = Api::start(move |url| {
            asked += 1;
            let reply = serve(kind, &keys, 2, url);
            // The first read has three pages, and perhaps an empty one.
            Reply {
                status: if asked > 4 { 429 } else { 200 },
                ..reply
            }
        })
        .await;
        let answer = api.list(&options(kind), LIMITS).await;
        assert_eq!(ids(answer), Ok(all), "{kind}");
    }
}
