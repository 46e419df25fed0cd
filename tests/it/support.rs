//! The harness: a running exporter, its scrape as a map, and waiting for something to become true.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api_key_exporter::app;
use api_key_exporter::config::{Config, Sources};
use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use api_key_exporter::server::listen;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The token of all tests. Nothing but the fake API takes it, and nothing may ever show it.
pub(crate) const TOKEN: &str = "sk_live_dGVzdC10b2tlbi1vZi1hbGwtdGVzdHM.zYxWv";

/// How often tests poll. Far below what a configuration may say, so that tests are quick.
pub(crate) const INTERVAL: Duration = Duration::from_millis(200);

/// Waiting for something that should come at once; long, because machines are shared.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A fake API whose reply can be changed while it runs.
pub(crate) struct Api {
    fake: FakeApi,
    reply: Arc<Mutex<Reply>>,
}

impl Api {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::start_at(any_port(), reply).await
    }

    pub(crate) async fn start_at(address: SocketAddr, reply: Reply) -> Self {
        let reply = Arc::new(Mutex::new(reply));
        let script = reply.clone();
        let answer = move |_: &Request| script.lock().unwrap().clone();
        let fake = FakeApi::start(address, TOKEN, answer).await.unwrap();
        Self { fake, reply }
    }

    /// From now on, every request gets this.
    pub(crate) fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.fake.address())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.fake.address()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.fake.requests()
    }
}

/// A key as the API lists it, with nothing remarkable about it.
pub(crate) fn key(id: &str) -> Value {
    json!({ "id": id, "scopes": ["payments.read"], "ip_allow_list": ["10.0.0.1"], "expires_at": "2099-01-01 00:00:00" })
}

/// A listing of unremarkable keys.
pub(crate) fn listing(ids: &[&str]) -> Reply {
    Reply::listing(&ids.iter().map(|id| key(id)).collect::<Vec<_>>())
}

/// A running exporter. Its tasks end with it.
pub(crate) struct Exporter {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// A configuration of one account at `base_url`, with more lines for the file and for the account.
pub(crate) fn config(base_url: &str, lines: &str, account_lines: &str) -> Config {
    config_of(lines, &[("default", base_url, account_lines)])
}

pub(crate) fn config_of(lines: &str, accounts: &[(&str, &str, &str)]) -> Config {
    let mut text = format!("{lines}\n");
    for (name, base_url, account_lines) in accounts {
        writeln!(text, "[[accounts]]\nname = {name:?}\nbase_url = {base_url:?}\ntoken_env = \"TOKEN\"\n{account_lines}").unwrap();
    }
    let environment = [("TOKEN".to_owned(), TOKEN.to_owned())].into();
    let mut config = Config::parse(
        &text,
        &Sources {
            environment,
            ..Sources::default()
        },
    )
    .unwrap();
    for account in &mut config.accounts {
        account.interval = INTERVAL;
    }
    config
}

impl Exporter {
    pub(crate) async fn start(api: &Api) -> Self {
        Self::with(&config(&api.url(), "poll.attempts = 1", "")).await
    }

    pub(crate) async fn with(config: &Config) -> Self {
        let listener = listen::bind_one(any_port()).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let tasks = app::spawn(config, vec![listener], &stop).await.unwrap();
        // The socket takes connections from here on.
        tokio::task::yield_now().await;
        Self {
            address,
            stop,
            tasks,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = client()
            .get(format!("http://{}{path}", self.address))
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn text(&self) -> String {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text
    }

    pub(crate) async fn scrape(&self) -> Scrape {
        Scrape::parse(&self.text().await)
    }

    /// Scrapes until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Scrape) -> bool) -> Scrape {
        let start = Instant::now();
        loop {
            let scrape = self.scrape().await;
            if condition(&scrape) {
                return scrape;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "not in {PATIENCE:?}: {what}\n{:#?}",
                scrape.of("api_key_account_")
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the first good poll.
    pub(crate) async fn up(&self) -> Scrape {
        self.until("a good poll", |scrape| scrape.account("up") == Some(1.0))
            .await
    }

    /// Waits for a failed poll of `reason`.
    pub(crate) async fn fails(&self, reason: &str) -> Scrape {
        self.until(&format!("a failure of reason {reason}"), |scrape| {
            scrape.failures(reason) > 0.0
        })
        .await
    }

    /// Stops it and sees it end.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    }
}

/// A client that is as plain as a scraper.
pub(crate) fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

/// A scrape: each series as it is written, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Reads the text format, strictly enough to see a torn or doubled line.
    pub(crate) fn parse(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no value: {line:?}"));
            let value = value
                .parse()
                .unwrap_or_else(|_| panic!("no number: {line:?}"));
            assert!(
                series.insert(name.to_owned(), value).is_none(),
                "twice: {line:?}"
            );
        }
        Self(series)
    }

    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// A series of the account named `default` without further labels.
    pub(crate) fn account(&self, name: &str) -> Option<f64> {
        self.get(&format!("api_key_account_{name}{{account=\"default\"}}"))
    }

    pub(crate) fn failures(&self, reason: &str) -> f64 {
        self.get(&format!(
            "api_key_account_poll_failures_total{{account=\"default\",reason=\"{reason}\"}}"
        ))
        .unwrap()
    }

    /// Every series whose name starts so.
    pub(crate) fn of(&self, prefix: &str) -> Vec<(&str, f64)> {
        let series = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        series
            .map(|(name, value)| (name.as_str(), *value))
            .collect()
    }

    /// The ids of the keys that have an info series.
    pub(crate) fn key_ids(&self) -> Vec<String> {
        let ids = self.of("api_key_info{").into_iter().map(|(name, _)| {
            let (_, rest) = name.split_once("key_id=\"").unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        });
        ids.collect()
    }
}

/// A path inside the repository.
pub(crate) fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A folder of this test's own, removed with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("api-key-exporter-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
