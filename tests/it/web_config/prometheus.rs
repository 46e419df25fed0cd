//! A real Prometheus and the exporter with the two files that the documentation shows: TLS, a
//! client certificate and a password.

use std::fs;
use std::time::{Duration, Instant};

use crate::prometheus::{free, query, start_with};
use crate::support::{Folder, in_repository};
use crate::web_config::{Material, Server};

const PASSWORD: &str = "a password: with \u{fc}";

/// The first block of YAML below a heading of docs/web-configuration.md; the first of all for "".
fn documented(heading: &str) -> String {
    let text = fs::read_to_string(in_repository("docs/web-configuration.md")).unwrap();
    let (_, below) = text.split_once(heading).unwrap();
    let (_, block) = below.split_once("```yaml\n").unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

/// `text` with each of these replaced; each must be in it.
fn replaced(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (old, new) in pairs {
        assert!(text.contains(old), "{old} in:\n{text}");
        text = text.replace(old, new);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_scrapes_with_the_documented_configuration() {
    let material = Material::new("web-prometheus");
    material.signed("client", "/CN=prometheus", "DNS:prometheus");
    let shown = documented("# Web configuration");
    let hash = shown.split_once("prometheus: ").unwrap().1.trim();
    let clients = "tls_server_config:\n  client_ca_file: tls-ca-chain.pem\n  \
                   client_auth_type: RequireAndVerifyClientCert";
    // The lowest cost, because this is a test.
    let ours = bcrypt::hash(PASSWORD, 4).unwrap();
    let web = replaced(
        shown.clone(),
        &[(hash, &ours), ("tls_server_config:", clients)],
    );
    material.0.file("web.yml", &web);
    let server = Server::ours(&material, "web.yml", &[]).unwrap();

    let target = format!("localhost:{}", server.address.port());
    let password = material.path("password");
    material.0.file("password", PASSWORD);
    let scrape = replaced(
        documented("## Prometheus"),
        &[
            ("exporter.example.com:10120", &target),
            ("/etc/prometheus/exporter-password", &password),
            (
                "/etc/prometheus/exporter-ca.pem",
                &material.path("tls-ca-chain.pem"),
            ),
            ("/etc/prometheus/client.crt", &material.path("client.pem")),
            ("/etc/prometheus/client.key", &material.path("client.key")),
        ],
    );
    let config = format!("global: {{ scrape_interval: 1s }}\n{scrape}");
    let (folder, address) = (Folder::new("web-prometheus-data"), free());
    let prometheus = start_with(&folder, address, "groups: []\n", &config);
    let until = async |what: &str, wanted: f64| {
        let start = Instant::now();
        while query(address, "up{job=\"api-key-exporter\"}").await != Some(wanted) {
            let log = prometheus.log();
            assert!(start.elapsed() < Duration::from_secs(40), "{what}:\n{log}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    until("a scrape", 1.0).await;
    let series = query(address, "count(api_key_account_info)").await;
    assert_eq!(series, Some(1.0));
    // Each of the three counts.
    material.0.file("password", "another");
    until("a wrong password", 0.0).await;
    material.0.file("password", PASSWORD);
    until("the password", 1.0).await;
    for (name, other) in [
        ("client", "client_selfsigned"),
        ("server", "client_selfsigned"),
    ] {
        let certificate = if name == "client" {
            "client.pem"
        } else {
            "server.crt"
        };
        let files = [certificate.to_owned(), format!("{name}.key")];
        let good = files
            .each_ref()
            .map(|file| fs::read(material.path(file)).unwrap());
        for (file, other) in files
            .iter()
            .zip([format!("{other}.pem"), format!("{other}.key")])
        {
            fs::copy(material.path(&other), material.path(file)).unwrap();
        }
        until(&format!("a {name} that is not certified"), 0.0).await;
        for (file, bytes) in files.iter().zip(good) {
            fs::write(material.path(file), bytes).unwrap();
        }
        until(&format!("the {name}"), 1.0).await;
    }
}
