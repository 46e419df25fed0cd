//! What the web configuration file costs a scrape: without it, with TLS, with a password and with
//! both, beside Debian's `node_exporter` with the same files: `cargo bench --bench web_config`.
//! Needs the Debian package `prometheus-node-exporter`.
//!
//! Rounds are interleaved, so that a noisy machine is noisy for all; medians and ratios are printed.
//! Options after `--`: `--rounds 3`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench prints, measures, and gives up loudly"
)]

mod processes;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};

use crate::processes::{Client, Running, exporter, free_address, listens};

/// Requests of each kind to each server in a round.
const REQUESTS: usize = 100;

const PASSWORD: &str = "a password";

/// The cost that `htpasswd` users choose; both servers remember a correct password.
const BCRYPT_COST: u32 = 10;

/// A web configuration file, and a client that it lets in.
struct Access {
    name: &'static str,
    file: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    header: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut after = arguments.iter().skip_while(|it| *it != "--rounds").skip(1);
    let rounds = after.next().map_or(5, |rounds| rounds.parse().unwrap());
    let folder = std::env::temp_dir().join(format!("bench-web-config-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    println!(
        "p50 of a scrape in microseconds; \"times\" compares with the same server's first line"
    );
    println!("  file       connection      ours  times  node_exporter  times  ours/node_exporter");
    let mut bases = [[0.0; 2]; 2];
    for access in accesses(&folder) {
        let addresses = [free_address(), free_address()];
        let _servers = [
            ours(&access, addresses[0]),
            reference(&access, addresses[1]),
        ];
        for (base, is_new) in bases.iter_mut().zip([false, true]) {
            let mut times: [Vec<Duration>; 2] = Default::default();
            for _ in 0..rounds {
                for (times, address) in times.iter_mut().zip(addresses) {
                    times.extend(turn(&access, address, is_new));
                }
            }
            let medians = times.map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2].as_secs_f64() * 1e6
            });
            if access.file.is_none() {
                *base = medians;
            }
            let [ours, theirs] = medians;
            println!(
                "  {:<10} {:<10} {ours:>9.0} {:>6.2} {theirs:>14.0} {:>6.2} {:>19.2}",
                access.name,
                if is_new { "new" } else { "kept" },
                ours / base[0],
                theirs / base[1],
                ours / theirs
            );
        }
    }
    drop(fs::remove_dir_all(folder));
}

/// The files, in a folder with a certificate.
fn accesses(folder: &Path) -> [Access; 4] {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("server.crt"), cert.pem()).unwrap();
    fs::write(folder.join("server.key"), signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Prometheus does not resume sessions either.
    tls.resumption = Resumption::disabled();
    let tls = Arc::new(tls);
    let encrypted = "tls_server_config: { cert_file: server.crt, key_file: server.key }\n";
    let hash = bcrypt::hash(PASSWORD, BCRYPT_COST).unwrap();
    let users = format!("basic_auth_users: {{ prometheus: {hash} }}\n");
    let credentials = BASE64_STANDARD.encode(format!("prometheus:{PASSWORD}"));
    let header = format!("Authorization: Basic {credentials}\r\n");
    let access = |name: &'static str, is_encrypted: bool, has_users: bool| {
        let text = [(is_encrypted, encrypted), (has_users, &users)];
        let text: String = text.iter().filter(|it| it.0).map(|it| it.1).collect();
        let path = folder.join(format!("{name}.yml"));
        fs::write(&path, &text).unwrap();
        Access {
            name,
            file: (!text.is_empty()).then(|| path.display().to_string()),
            tls: is_encrypted.then(|| tls.clone()),
            header: if has_users {
                header.clone()
            } else {
                String::new()
            },
        }
    };
    [
        access("none", false, false),
        access("TLS", true, false),
        access("password", false, true),
        access("both", true, true),
    ]
}

fn ours(access: &Access, address: SocketAddr) -> Running {
    let mut command = exporter();
    command
        .args(["demo", &format!("--web.listen-address={address}")])
        .args(
            access
                .file
                .iter()
                .map(|file| format!("--web.config.file={file}")),
        );
    start(&mut command, address)
}

/// Without its collectors, it serves metrics about itself only: some 7 KiB, ours some 30 KiB.
fn reference(access: &Access, address: SocketAddr) -> Running {
    let mut command = Command::new("prometheus-node-exporter");
    command
        .arg("--collector.disable-defaults")
        .arg(format!("--web.listen-address={address}"))
        .args(
            access
                .file
                .iter()
                .map(|file| format!("--web.config.file={file}")),
        );
    start(&mut command, address)
}

fn start(command: &mut Command, address: SocketAddr) -> Running {
    let running = Running::start(command);
    listens(address, Duration::from_secs(20));
    running
}

/// The times of some scrapes, over one connection or each over a new one.
fn turn(access: &Access, address: SocketAddr, is_new: bool) -> Vec<Duration> {
    let mut client = Client::with(address, access.tls.clone(), &access.header);
    // The first one checks the password and warms up.
    client.get(true);
    let times = (0..REQUESTS).map(|_| {
        let start = Instant::now();
        if is_new {
            client.disconnect();
        }
        client.get(true);
        start.elapsed()
    });
    times.collect()
}
