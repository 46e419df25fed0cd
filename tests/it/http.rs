//! The exporter's own HTTP: methods, headers, limits.

use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Api, Exporter, client, config, listing};

async fn exporter() -> (Api, Exporter) {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    (api, exporter)
}

#[tokio::test]
async fn every_answer_has_these_headers_and_no_others() {
    let (_api, exporter) = exporter().await;
    let common = [
        "cache-control",
        "content-length",
        "content-type",
        "date",
        "x-content-type-options",
    ];
    for (path, status, content_type) in [
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/", 200, "text/html; charset=utf-8"),
        ("/-/healthy", 200, "text/plain; charset=utf-8"),
        ("/-/ready", 200, "text/plain; charset=utf-8"),
        ("/nothing", 404, "text/plain; charset=utf-8"),
    ] {
        let response = client()
            .get(format!("http://{}{path}", exporter.address))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], content_type, "{path}");
        let mut names: Vec<&str> = response
            .headers()
            .keys()
            .map(reqwest::header::HeaderName::as_str)
            .collect();
        let own: &[&str] = match path {
            "/metrics" => &["vary"],
            "/" => &["content-security-policy", "refresh"],
            _ => &[],
        };
        for name in own {
            assert!(names.contains(name), "{path}: {name}");
        }
        names.retain(|name| !own.contains(name));
        names.sort_unstable();
        assert_eq!(names, common, "{path}");
        assert!(response.text().await.unwrap().ends_with('\n'), "{path}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let (_api, exporter) = exporter().await;
    for path in ["/metrics", "/", "/-/healthy"] {
        let url = format!("http://{}{path}", exporter.address);
        let response = client().head(url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let length: usize = response.headers()["content-length"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(length > 0, "{path}");
        assert_eq!(response.bytes().await.unwrap().len(), 0, "{path}");
    }
}

#[tokio::test]
async fn other_methods_are_refused_and_told_which_are_not() {
    let (_api, exporter) = exporter().await;
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::PATCH,
        Method::TRACE,
    ] {
        let url = format!("http://{}/metrics", exporter.address);
        let response = client()
            .request(method.clone(), url)
            .body("x".repeat(100_000))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 405, "{method}");
        assert_eq!(response.headers()["allow"], "GET, HEAD", "{method}");
    }
}

#[tokio::test]
async fn metrics_answer_before_the_first_poll_and_ready_after_it() {
    let api = Api::start(Reply {
        delay: Duration::from_secs(1),
        ..listing(&["a"])
    })
    .await;
    let mut config = config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_secs(10);
    let exporter = Exporter::with(&config).await;
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.account("up"), None);
    assert_eq!(scrape.account("polls_total"), Some(0.0));
    assert_eq!(exporter.get("/-/ready").await.0, 503);
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    exporter.up().await;
    assert_eq!(exporter.get("/-/ready").await.0, 200);
}

#[tokio::test]
async fn the_metrics_may_live_elsewhere_and_the_page_links_there() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::with(&config(
        &api.url(),
        "web.telemetry_path = \"/keys/metrics\"",
        "",
    ))
    .await;
    assert_eq!(exporter.get("/keys/metrics").await.0, 200);
    assert_eq!(exporter.get("/metrics").await.0, 404);
    let (_, page) = exporter.get("/").await;
    assert!(page.contains("<a href=\"/keys/metrics\">"), "{page}");
}

#[tokio::test]
async fn requests_are_counted_by_handler_never_by_what_was_asked() {
    let (_api, exporter) = exporter().await;
    exporter.get("/nothing").await;
    exporter.get("/something/else").await;
    let scrape = exporter.scrape().await;
    let requests = |handler: &str, code: u16| {
        scrape.get(&format!(
            "api_key_exporter_http_requests_total{{code=\"{code}\",handler=\"{handler}\"}}"
        ))
    };
    assert_eq!(requests("other", 404), Some(2.0));
    assert!(requests("/metrics", 200).unwrap() >= 1.0);
    assert!(
        scrape
            .of("api_key_exporter_http_requests_total")
            .iter()
            .all(|(series, _)| !series.contains("nothing"))
    );
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_counted() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::with(&config(&api.url(), "web.max_connections = 3", "")).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(idle(&exporter).await);
    }
    let mut refused = TcpStream::connect(exporter.address).await.unwrap();
    assert_eq!(
        refused.read(&mut [0]).await.unwrap_or(0),
        0,
        "the fourth connection should be closed"
    );
    drop(held);
    let rejected = "api_key_exporter_http_rejected_total{reason=\"conn_limit\"}";
    let start = Instant::now();
    // Places come back as soon as the server sees that the others are gone.
    let scrape = loop {
        if let Ok(response) = client()
            .get(format!("http://{}/metrics", exporter.address))
            .send()
            .await
        {
            break crate::support::Scrape::parse(&response.text().await.unwrap());
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(scrape.get(rejected).unwrap() >= 1.0);
}

#[tokio::test]
async fn a_request_that_never_ends_is_closed_and_others_are_served() {
    let (_api, exporter) = exporter().await;
    let mut slow = TcpStream::connect(exporter.address).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        .await
        .unwrap();
    let mut silent = TcpStream::connect(exporter.address).await.unwrap();
    let start = Instant::now();
    assert_eq!(exporter.get("/-/healthy").await.0, 200);
    for stream in [&mut slow, &mut silent] {
        let mut rest = Vec::new();
        // Closed, with or without a word.
        drop(stream.read_to_end(&mut rest).await);
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    let closed_after = start.elapsed();
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(10)).contains(&closed_after),
        "{closed_after:?}"
    );
}

#[tokio::test]
async fn garbage_gets_an_error_or_a_closed_connection() {
    let (_api, exporter) = exporter().await;
    let long_uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1_000_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "X-A: b\r\n".repeat(500));
    let garbage: [&[u8]; 9] = [
        b"\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET http://[::::]/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        long_uri.as_bytes(),
        many_headers.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(exporter.address).await.unwrap();
        // It may close before it has read all.
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        assert!(
            answer.is_empty() || shown.starts_with("HTTP/1.1 4"),
            "{shown:?}"
        );
        assert_eq!(exporter.get("/-/healthy").await.0, 200);
    }
}

/// The first line of the answer to what is written here.
async fn status(exporter: &Exporter, request: &str) -> String {
    let mut stream = TcpStream::connect(exporter.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_without_exactly_one_host_or_with_no_real_target_is_refused() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::with(&config(&api.url(), "web.enable_lifecycle = true", "")).await;
    let close = "Connection: close\r\n\r\n";
    for (head, expected) in [
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK"),
        ("GET /metrics HTTP/1.1\r\nHost:\r\n", "HTTP/1.1 200 OK"),
        (
            "GET http://a/metrics HTTP/1.1\r\nHost: a\r\n",
            "HTTP/1.1 200 OK",
        ),
        ("GET /metrics HTTP/1.0\r\n", "HTTP/1.0 200 OK"),
        ("GET /metrics HTTP/1.1\r\n", "HTTP/1.1 400 Bad Request"),
        (
            "GET /metrics HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: a b\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "GET /metrics HTTP/1.1\r\nHost: a/b\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "GET http://[::::]/metrics HTTP/1.1\r\nHost: a\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "POST http://[::::]/-/reload HTTP/1.1\r\nHost: a\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        (
            "POST http://u@a/-/reload HTTP/1.1\r\nHost: a\r\n",
            "HTTP/1.1 400 Bad Request",
        ),
        ("POST /-/reload HTTP/1.1\r\n", "HTTP/1.1 400 Bad Request"),
        ("POST /-/reload HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK"),
    ] {
        let got = status(&exporter, &format!("{head}{close}")).await;
        assert_eq!(got, expected, "{head:?}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_reload() {
    let api = Api::start(listing(&["a"])).await;
    let lines = "web.enable_lifecycle = true\nweb.external_url = \"https://keys.example.com/\"";
    let exporter = Exporter::with(&config(&api.url(), lines, "")).await;
    let url = format!("http://{}/-/reload", exporter.address);
    let own = format!("http://{}", exporter.address);
    for (name, value, expected) in [
        ("Origin", own.as_str(), 200),
        ("Origin", "https://keys.example.com", 200),
        ("Origin", "https://evil.example.com", 403),
        ("Origin", "http://127.0.0.1", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Sec-Fetch-Site", "cross-site", 403),
    ] {
        for method in [Method::POST, Method::PUT] {
            let request = client().request(method.clone(), &url).header(name, value);
            let status = request.send().await.unwrap().status();
            assert_eq!(status, expected, "{method} {name}: {value}");
        }
    }
    // Reading is for every page that can.
    let request = client().get(format!("http://{}/metrics", exporter.address));
    let request = request.header("Origin", "https://evil.example.com");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn everything_is_below_the_prefix_and_links_are_those_of_the_proxy() {
    let api = Api::start(listing(&["a"])).await;
    for (lines, prefix, links) in [
        ("web.route_prefix = \"/keys\"", "/keys", "/keys"),
        (
            "web.external_url = \"https://example.com/a/b/\"",
            "/a/b",
            "/a/b",
        ),
        (
            "web.external_url = \"/a\"\nweb.route_prefix = \"/\"",
            "",
            "/a",
        ),
        (
            "web.external_url = \"/a\"\nweb.route_prefix = \"/b\"",
            "/b",
            "/a",
        ),
    ] {
        let exporter = Exporter::with(&config(&api.url(), lines, "")).await;
        for path in ["/metrics", "/-/healthy", "/-/reload", "/"] {
            let expected = if path == "/-/reload" { 405 } else { 200 };
            assert_eq!(
                exporter.get(&format!("{prefix}{path}")).await.0,
                expected,
                "{lines}"
            );
        }
        let (_, page) = exporter.get(&format!("{prefix}/")).await;
        for link in ["/metrics", "/-/healthy", "/-/ready"] {
            assert!(
                page.contains(&format!("href=\"{links}{link}\"")),
                "{lines}: {page}"
            );
        }
        if prefix.is_empty() {
            continue;
        }
        for path in [
            "/metrics",
            "/-/healthy",
            &format!("{prefix}{prefix}"),
            &format!("{prefix}x"),
        ] {
            assert_eq!(exporter.get(path).await.0, 404, "{lines}: {path}");
        }
        for path in ["/", prefix] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let mut stream = TcpStream::connect(exporter.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 302 Found\r\n"), "{answer}");
            assert!(
                answer.contains(&format!("\r\nlocation: {links}/\r\n")),
                "{answer}"
            );
        }
    }
}

/// A connection that sends nothing, accepted for sure: a second one would be refused before it
/// otherwise.
async fn idle(exporter: &Exporter) -> TcpStream {
    let stream = TcpStream::connect(exporter.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream
}
