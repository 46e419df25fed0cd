//! Independent judges of both formats: the strict OpenMetrics parser, curl, and a real Prometheus.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Api, Exporter, Folder, client, in_repository, listing};

/// A name that would break whatever does not escape.
const ODD: &str = "q\"b\\ é鍵🔑{}=,# <b>";

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0";

/// Runs a tool and demands success; a missing one is named with what installs it.
fn run(program: &str, arguments: &[&str], input: &[u8]) -> String {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child =
        child.unwrap_or_else(|error| panic!("{program} is needed; tests/run installs it: {error}"));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{program}: {words}\n{}",
        String::from_utf8_lossy(input)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Reads `text` with the reference parser of Python's client library, which is strict.
fn parse_strictly(text: &str) {
    let python = in_repository("target/tools/python/bin/python");
    let program = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        families = list(parse(sys.stdin.read()))\n\
        assert len(families) > 10, families\n";
    run(
        &python.display().to_string(),
        &["-c", program],
        text.as_bytes(),
    );
}

async fn openmetrics(exporter: &Exporter) -> String {
    let request = client()
        .get(format!("http://{}/metrics", exporter.address))
        .header("Accept", OPENMETRICS);
    let response = request.send().await.unwrap();
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.headers()["content-type"], content_type);
    response.text().await.unwrap()
}

/// An exporter with hostile values and one failure that has a support id.
async fn hostile() -> (Api, Exporter) {
    let key = json!({ "id": "a", "label": ODD, "organization_id": ODD, "scopes": [ODD, "x.read"],
        "ip_allow_list": [ODD], "expires_at": "2099-01-01 00:00:00" });
    let api = Api::start(Reply::listing(&[key.clone(), json!({ "id": "b" })])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    api.reply(Reply::error(500, "no", "support_0197c0ec"));
    exporter.fails("server_error").await;
    api.reply(Reply::listing(&[key, json!({ "id": "b" })]));
    exporter.up().await;
    (api, exporter)
}

#[tokio::test]
async fn the_strict_parser_reads_openmetrics_with_hostile_values_and_exemplars() {
    let (_api, exporter) = hostile().await;
    let text = openmetrics(&exporter).await;
    parse_strictly(&text);
    let line = text
        .lines()
        .find(|line| line.contains("reason=\"server_error\""))
        .unwrap();
    assert!(
        line.contains(" # {support_id=\"support_0197c0ec\"} 1 "),
        "{line}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_strict_parser_reads_the_golden_file() {
    parse_strictly(
        &std::fs::read_to_string(in_repository("tests/golden/metrics.openmetrics")).unwrap(),
    );
}

#[test]
fn the_strict_parser_can_say_no() {
    let golden =
        std::fs::read_to_string(in_repository("tests/golden/metrics.openmetrics")).unwrap();
    let torn = golden.trim_end_matches("# EOF\n").to_owned();
    assert!(std::panic::catch_unwind(|| parse_strictly(&torn)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_reads_the_compressed_answer_of_both_formats() {
    let ids: Vec<String> = (0..2_000).map(|n| format!("api_key_{n:032x}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let api = Api::start(listing(&ids)).await;
    let mut config = crate::support::config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_secs(10);
    let exporter = Exporter::with(&config).await;
    exporter
        .until("a good poll", |scrape| scrape.account("up") == Some(1.0))
        .await;
    for accept in ["text/plain", OPENMETRICS] {
        let url = format!("http://{}/metrics", exporter.address);
        let accept = format!("Accept: {accept}");
        let arguments = ["-sS", "--fail", "-H", &accept, &url];
        let plain = run("curl", &arguments, b"");
        let unpacked = run("curl", &[&arguments[..], &["--compressed"]].concat(), b"");
        let lines = |text: &str| text.lines().filter(|line| line.contains("key_id=")).count();
        assert_eq!(lines(&unpacked), lines(&plain));
        assert!(lines(&plain) > 20_000);
        let headers = run(
            "curl",
            &["-sS", "-I", "-H", "Accept-Encoding: gzip", &url],
            b"",
        )
        .to_lowercase();
        assert!(headers.contains("content-encoding: gzip\r\n"), "{headers}");
        assert!(
            headers.contains("vary: accept, accept-encoding\r\n"),
            "{headers}"
        );
    }
}

/// A real Prometheus; killed with the test.
struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Scrapes `targets` every second.
    fn start(folder: &Folder, targets: &[SocketAddr]) -> Self {
        let jobs: Vec<String> = targets
            .iter()
            .enumerate()
            .map(|(job, target)| {
                format!("  - job_name: j{job}\n    static_configs: [{{ targets: ['{target}'] }}]\n")
            })
            .collect();
        let config = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n{}",
            jobs.concat()
        );
        let config = folder.file("prometheus.yml", &config);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.0.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child
            .unwrap_or_else(|error| panic!("prometheus is needed; tests/run installs it: {error}"));
        Self { child, address }
    }

    /// The samples of `query`, once there are any: labels and value.
    async fn query(&self, query: &str) -> Vec<(Value, String)> {
        let start = Instant::now();
        loop {
            let mut url =
                url::Url::parse(&format!("http://{}/api/v1/query", self.address)).unwrap();
            url.query_pairs_mut().append_pair("query", query);
            if let Ok(response) = client().get(url).send().await {
                let answer: Value =
                    serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
                let samples = answer["data"]["result"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                if !samples.is_empty() {
                    let sample = |sample: Value| {
                        (
                            sample["metric"].clone(),
                            sample["value"][1].as_str().unwrap().to_owned(),
                        )
                    };
                    return samples.into_iter().map(sample).collect();
                }
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "Prometheus has nothing for {query}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Passes requests on with another `Accept`, as an older or other scraper would send it.
async fn asking_for(accept: &'static str, behind: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut scraper, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    head.push(char::from(scraper.read_u8().await.unwrap()));
                }
                let kept = head.lines().filter(|line| {
                    let name = line.split(':').next().unwrap().to_ascii_lowercase();
                    !["accept", "connection"].contains(&name.as_str()) && !line.is_empty()
                });
                let head = kept.collect::<Vec<_>>().join("\r\n");
                let mut exporter = TcpStream::connect(behind).await.unwrap();
                let request = format!("{head}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
                exporter.write_all(request.as_bytes()).await.unwrap();
                drop(tokio::io::copy(&mut exporter, &mut scraper).await);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_reads_both_formats_with_hostile_values() {
    let (_api, exporter) = hostile().await;
    let folder = Folder::new("prometheus");
    let text = asking_for("text/plain;version=0.0.4;q=1,*/*;q=0.1", exporter.address).await;
    let prometheus = Prometheus::start(&folder, &[exporter.address, text]);
    for job in ["j0", "j1"] {
        let up = prometheus.query(&format!("up{{job=\"{job}\"}} == 1")).await;
        assert_eq!(up.len(), 1, "{job}");
        let info = prometheus
            .query(&format!("api_key_info{{job=\"{job}\",key_id=\"a\"}}"))
            .await;
        assert_eq!(
            (&info[0].0["name"], info[0].1.as_str()),
            (&json!(ODD), "1"),
            "{job}"
        );
        let expiry = format!("api_key_expiry_timestamp_seconds{{job=\"{job}\"}}");
        assert_eq!(prometheus.query(&expiry).await[0].1, "4070908800", "{job}");
        let failures =
            format!("api_key_account_poll_failures_total{{job=\"{job}\",reason=\"server_error\"}}");
        assert!(
            prometheus.query(&failures).await[0]
                .1
                .parse::<f64>()
                .unwrap()
                >= 1.0,
            "{job}"
        );
        let addresses = format!(
            "api_key_ip_allow_list_addresses{{job=\"{job}\",key_id=\"b\",family=\"ipv6\"}}"
        );
        assert_eq!(
            prometheus.query(&addresses).await[0].1,
            "3.402823669209385e+38"
        );
        let polls = format!("api_key_exporter_poll_duration_seconds_count{{job=\"{job}\"}}");
        assert!(
            prometheus.query(&polls).await[0].1.parse::<f64>().unwrap() >= 3.0,
            "{job}"
        );
    }
}
