//! A plain exporter, of the kind that a developer writes in an afternoon, to compare with:
//! `GaugeVec`s that are reset and filled at each poll, `TextEncoder` and gzip at each scrape.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use serde_json::Value;

/// The families, each with its labels besides `account` and `key_id`.
const FAMILIES: [(&str, &[&str]); 11] = [
    ("api_key_info", &["name", "api_env"]),
    ("api_key_expiry_timestamp_seconds", &[]),
    ("api_key_expires_in_seconds", &[]),
    ("api_key_never_expires", &[]),
    ("api_key_created_timestamp_seconds", &[]),
    ("api_key_scopes", &[]),
    ("api_key_scope_info", &["scope"]),
    ("api_key_ip_allow_list_entries", &[]),
    ("api_key_ip_allow_list_addresses", &["family"]),
    ("api_key_ip_unrestricted", &[]),
    ("api_key_superseded", &[]),
];

struct Plain {
    registry: Registry,
    gauges: Vec<GaugeVec>,
}

/// Serves on `address` what `api` lists, for ever.
pub(crate) async fn run(address: SocketAddr, api: SocketAddr) {
    let registry = Registry::new();
    let gauges = FAMILIES.iter().map(|(name, labels)| {
        let labels = [&["account", "key_id"], *labels].concat();
        let gauge = GaugeVec::new(Opts::new(*name, "A plain metric."), &labels).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        gauge
    });
    let gauges = gauges.collect();
    let plain = Arc::new(Mutex::new(Plain { registry, gauges }));
    let body = list(api);
    plain
        .lock()
        .unwrap()
        .fill(&serde_json::from_slice(&body).unwrap());
    drop(body);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let plain = plain.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let body = plain
                .lock()
                .unwrap()
                .scrape(request.headers().contains_key("accept-encoding"));
            async move {
                Ok::<_, std::convert::Infallible>(Response::new(crate::Whole(Some(Bytes::from(
                    body,
                )))))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

/// One request by hand: what fetches the listing is not what is compared.
fn list(api: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(api).unwrap();
    let token = crate::TOKEN;
    write!(
        stream,
        "GET /developers/api_keys HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    answer.split_off(body)
}

impl Plain {
    fn fill(&self, listing: &Value) {
        let set = |family: usize, labels: &[&str], value: f64| {
            if let Some(gauge) = self.gauges.get(family) {
                gauge.with_label_values(labels).set(value);
            }
        };
        for key in listing["data"].as_array().unwrap() {
            let id = key["id"].as_str().unwrap();
            let time = |field: &str| {
                let text = key[field].as_str()?;
                let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
                Some(time.and_utc().timestamp() as f64)
            };
            set(
                0,
                &[
                    "default",
                    id,
                    key["label"].as_str().unwrap_or(""),
                    listing["env"].as_str().unwrap_or(""),
                ],
                1.0,
            );
            if let Some(end) = time("expires_at") {
                set(1, &["default", id], end);
                set(2, &["default", id], end);
            }
            set(
                3,
                &["default", id],
                f64::from(u8::from(key["expires_at"].is_null())),
            );
            set(4, &["default", id], time("created_at").unwrap_or(0.0));
            let scopes = key["scopes"].as_array().cloned().unwrap_or_default();
            set(5, &["default", id], scopes.len() as f64);
            for scope in &scopes {
                set(6, &["default", id, scope.as_str().unwrap_or("")], 1.0);
            }
            let entries = key["ip_allow_list"].as_array().map_or(0, Vec::len);
            set(7, &["default", id], entries as f64);
            set(8, &["default", id, "ipv4"], 65_537.0);
            set(8, &["default", id, "ipv6"], 0.0);
            set(9, &["default", id], f64::from(u8::from(entries == 0)));
            set(10, &["default", id], 0.0);
        }
    }

    fn scrape(&self, gzip: bool) -> Vec<u8> {
        let now: DateTime<Utc> = std::time::SystemTime::now().into();
        let families = self.registry.gather();
        for family in families
            .iter()
            .filter(|family| family.name() == "api_key_expiry_timestamp_seconds")
        {
            for metric in family.get_metric() {
                let labels: Vec<&str> = metric
                    .get_label()
                    .iter()
                    .map(prometheus::proto::LabelPair::value)
                    .collect();
                let left = metric.get_gauge().get_value() - now.timestamp() as f64;
                self.gauges[2].with_label_values(&labels).set(left);
            }
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .unwrap();
        if !gzip {
            return text;
        }
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(&text).unwrap();
        writer.finish().unwrap()
    }
}

/// How long to wait for it: it fills its vectors before it listens.
pub(crate) const START: Duration = Duration::from_secs(60);
