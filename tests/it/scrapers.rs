//! The servers that scrape the exporter: several versions of Prometheus, and `VictoriaMetrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::docs::prose_and_code;
use crate::process::{Daemon, binary};
use crate::prometheus::{free, quick_config, quick_rules, results, start_program};
use crate::rules::live::{broken_rules, until};
use crate::support::{Folder, client, in_repository};
use crate::tools::{ask, debian, demand, prometheus};

/// The Debian releases with the versions of Prometheus that we support.
const VERSIONS: [(&str, &str); 3] = [("bookworm", "2.42."), ("trixie", "2.53."), ("sid", "3.")];

/// A server with its data in a folder of its own.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) daemon: Daemon,
    _folder: Folder,
}

/// The demo, and where it listens.
pub(crate) fn demo(folder: &Folder) -> (Daemon, SocketAddr) {
    let address = free();
    let listen = address.to_string();
    let demo = binary(&["demo", "--web.listen-address", &listen]);
    (Daemon::start(demo, folder), address)
}

/// Each version of Prometheus, scraping `exporter` with the shipped configuration, only faster.
/// `more` is appended to the configuration of the version with this name.
pub(crate) fn prometheus_versions(
    test: &str,
    exporter: SocketAddr,
    more: impl Fn(&str) -> String,
) -> Vec<Server> {
    let start = |(name, _)| {
        let (address, folder) = (free(), Folder::new(&format!("{test}-{name}")));
        let config = quick_config(exporter, None) + &more(name);
        let mut command = prometheus(name);
        command.arg("--enable-feature=exemplar-storage");
        Server {
            name,
            address,
            daemon: start_program(command, &folder, address, &quick_rules(), &config),
            _folder: folder,
        }
    };
    VERSIONS.map(start).into()
}

/// `VictoriaMetrics`, scraping `exporter`, if any, as docs/alerts.md says.
pub(crate) fn victoria_metrics(test: &str, exporter: Option<SocketAddr>) -> Server {
    let (address, folder) = (free(), Folder::new(&format!("{test}-victoria-metrics")));
    let mut command = debian("victoria-metrics");
    command
        .arg(format!("-storageDataPath={}/data", folder.0.display()))
        .arg(format!("-httpListenAddr={address}"))
        // By default, queries leave out the last 30 s.
        .arg("-search.latencyOffset=0s");
    if let Some(exporter) = exporter {
        let config = quick_config(exporter, None) + "    disable_keepalive: true\n";
        let config = folder.file("prometheus.yml", &config);
        command
            .arg(format!("-promscrape.config={}", config.display()))
            // The shipped configuration has sections that only Prometheus knows.
            .arg("-promscrape.config.strictParse=false");
    }
    Server {
        name: "victoria-metrics",
        address,
        daemon: Daemon::start(command, &folder),
        _folder: folder,
    }
}

#[test]
fn the_versions_of_prometheus_are_the_supported_ones() {
    for (name, version) in VERSIONS {
        let said = ask(prometheus(name).arg("--version"));
        let start = format!("prometheus, version {version}");
        assert!(said.words.starts_with(&start), "{name}: {}", said.words);
    }
}

/// Labels without the empty ones, which no server stores.
type Labels = BTreeMap<String, String>;

fn labels(metric: &Value) -> Labels {
    let labels: Labels = serde_json::from_value(metric.clone()).unwrap();
    labels.into_iter().filter(|it| !it.1.is_empty()).collect()
}

/// What `VictoriaMetrics` stores of the series that `selector` matches, at this millisecond.
async fn stored(server: &Server, selector: &str, at: f64) -> BTreeMap<Labels, f64> {
    let selector: String = url::form_urlencoded::byte_serialize(selector.as_bytes()).collect();
    let url = format!("http://{}/api/v1/export?match[]={selector}", server.address);
    let Ok(response) = client().get(url).send().await else {
        return BTreeMap::new();
    };
    let text = response.text().await.unwrap();
    let mut stored = BTreeMap::new();
    for line in text.lines() {
        let series: Value = serde_json::from_str(line).unwrap();
        let times = series["timestamps"].as_array().unwrap().iter();
        if let Some(index) = times.clone().position(|time| time.as_f64() == Some(at)) {
            let value = series["values"][index].as_f64().unwrap();
            stored.insert(labels(&series["metric"]), value);
        }
    }
    stored
}

/// `VictoriaMetrics` stores at least twelve significant digits.
fn assert_equal(stored: &BTreeMap<Labels, f64>, sent: &BTreeMap<Labels, f64>) {
    let series = |map: &BTreeMap<Labels, f64>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(series(stored), series(sent));
    for (labels, value) in sent {
        let error = (stored[labels] - value).abs();
        assert!(
            error <= value.abs() * 1e-12,
            "{labels:?}: {} {value}",
            stored[labels]
        );
    }
}

/// Every series and value of the newest scrape that is complete, and its time.
async fn newest_scrape(prometheus: &Server) -> Option<(f64, BTreeMap<Labels, f64>)> {
    let series = results(prometheus.address, "{job=\"api-key-exporter\"}[5s]").await?;
    // Prometheus adds this one last.
    let last = |series: &&Value| series["metric"]["__name__"] == "scrape_series_added";
    let samples = series.iter().find(last)?["values"].as_array()?.clone();
    let time = samples.last()?[0].as_f64()?;
    let at_that_time = |series: &Value| {
        let samples = series["values"].as_array()?.iter();
        let mut samples = samples.filter(|sample| sample[0] == json!(time));
        let value = samples.next()?[1].as_str()?.parse().ok()?;
        Some((labels(&series["metric"]), value))
    };
    let scrape: BTreeMap<Labels, f64> = series.iter().filter_map(at_that_time).collect();
    Some(((time * 1000.0).round(), scrape))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_prometheus_evaluates_the_rules_and_its_remote_writes_read_back_identical() {
    let folder = Folder::new("remote-write-demo");
    let (_demo, exporter) = demo(&folder);
    let store = victoria_metrics("remote-write", None);
    let versions = prometheus_versions("remote-write", exporter, |name| {
        format!(
            "remote_write:\n  - url: http://{}/api/v1/write\n    write_relabel_configs:\n      \
             - target_label: scraped_by\n        replacement: {name}\n",
            store.address
        )
    });
    for prometheus in &versions {
        let broken = until("rules are evaluated", &prometheus.daemon, async || {
            broken_rules(prometheus.address).await
        });
        assert_eq!(broken.await, [] as [String; 0], "{}", prometheus.name);
        let (at, sent) = until("a scrape", &prometheus.daemon, async || {
            let scrape = newest_scrape(prometheus).await?;
            // The demo has listed its keys.
            (scrape.1.len() > 400).then_some(scrape)
        })
        .await;
        let selector = format!(
            "{{job=\"api-key-exporter\",scraped_by=\"{}\"}}",
            prometheus.name
        );
        let read_back = until("the scrape is written", &store.daemon, async || {
            let stored = stored(&store, &selector, at).await;
            let without_mark = |(mut labels, value): (Labels, f64)| {
                labels.remove("scraped_by");
                (labels, value)
            };
            (stored.len() >= sent.len()).then(|| stored.into_iter().map(without_mark).collect())
        });
        assert_equal(&read_back.await, &sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn victoria_metrics_reads_every_family_as_it_is_written() {
    let text = crate::golden::exposition(crate::golden::EVERYTHING);
    let store = victoria_metrics("import", None);
    let at = chrono::Utc::now().timestamp() * 1000;
    let url = format!(
        "http://{}/api/v1/import/prometheus?timestamp={at}",
        store.address
    );
    until("the import", &store.daemon, async || {
        let sent = client().post(&url).body(text.clone()).send().await;
        sent.is_ok_and(|response| response.status() == 204)
            .then_some(())
    })
    .await;
    // A parser of its own reads what was sent.
    let program = "import json, sys\n\
                   from prometheus_client.parser import text_string_to_metric_families as parse\n\
                   samples = [s for family in parse(sys.stdin.read()) for s in family.samples]\n\
                   print(json.dumps([[dict(s.labels, __name__=s.name), s.value] for s in samples]))";
    let folder = Folder::new("import-text");
    let file = std::fs::File::open(folder.file("exposition", &text)).unwrap();
    let mut python = crate::tools::python("python3");
    let sent = demand(python.args(["-c", program]).stdin(file));
    let sent: Vec<(Value, f64)> = serde_json::from_str(&sent).unwrap();
    let sent: BTreeMap<Labels, f64> = sent
        .iter()
        .map(|(metric, value)| (labels(metric), *value))
        .collect();
    assert!(sent.len() > 100, "{}", sent.len());
    let read_back = until("the series", &store.daemon, async || {
        let stored = stored(&store, "{__name__!=\"\"}", at as f64).await;
        (stored.len() >= sent.len()).then_some(stored)
    });
    assert_equal(&read_back.await, &sent);
}

#[test]
fn vmalert_accepts_the_rules_once_the_documented_command_has_changed_them() {
    let folder = Folder::new("vmalert");
    let rules = std::fs::read_to_string(in_repository("deploy/prometheus/rules.yml")).unwrap();
    folder.file("rules.yml", &rules);
    let check = || {
        ask(debian("vmalert")
            .args(["-dryRun", "-rule=rules.yml"])
            .current_dir(&folder.0))
    };
    let said = check();
    assert!(
        !said.is_content && said.words.contains("keep_firing_for"),
        "{}",
        said.words
    );
    let page = std::fs::read_to_string(in_repository("docs/alerts.md")).unwrap();
    let (_, blocks) = prose_and_code(&page);
    let mut blocks = blocks.iter().map(|(_, code)| code);
    let command = blocks.find(|code| code.contains("keep_firing_for"));
    demand(
        debian("sh")
            .args(["-c", command.unwrap()])
            .current_dir(&folder.0),
    );
    let said = check();
    assert!(said.is_content, "{}", said.words);
}
