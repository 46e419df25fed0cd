//! TLS towards the API: trusted, untrusted, wrong name, expired.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::process::{Daemon, binary};
use crate::support::{Api, Exporter, Folder, Scrape, TOKEN, config, listing};

/// A certificate authority of the test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, as a `ca_file` has it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Serves TLS with a certificate for `name` in front of `api`; `years` is when the certificate
    /// is valid.
    pub(crate) async fn front(&self, api: &Api, name: &str, years: (i32, i32)) -> SocketAddr {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = api.address();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut plain).await);
                });
            }
        });
        address
    }
}

pub(crate) const VALID: (i32, i32) = (2020, 2090);

/// A server that answers a TLS greeting as web servers without TLS do.
async fn plain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await);
        }
    });
    address
}

#[tokio::test]
async fn fault_a15_certificates_are_checked() {
    let folder = Folder::new("tls");
    let api = Api::start(listing(&["a"])).await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca_file = format!("ca_file = {:?}", folder.file("ca.pem", &ours.pem()));
    let cases = [
        ("good", ours.front(&api, "localhost", VALID).await, true),
        (
            "unknown authority",
            theirs.front(&api, "localhost", VALID).await,
            false,
        ),
        (
            "wrong name",
            ours.front(&api, "example.org", VALID).await,
            false,
        ),
        (
            "expired",
            ours.front(&api, "localhost", (2020, 2021)).await,
            false,
        ),
        (
            "not yet valid",
            ours.front(&api, "localhost", (2089, 2090)).await,
            false,
        ),
        ("no TLS at all", plain().await, false),
    ];
    for (name, address, is_good) in cases {
        let url = format!("https://localhost:{}", address.port());
        let exporter = Exporter::with(&config(&url, "poll.attempts = 1", &ca_file)).await;
        let ended = |scrape: &Scrape| scrape.account("up").is_some();
        let scrape = exporter.until(name, ended).await;
        assert_eq!(
            scrape.account("up"),
            Some(f64::from(u8::from(is_good))),
            "{name}"
        );
        assert_eq!(
            scrape.failures("tls") > 0.0,
            !is_good,
            "{name}: {:?}",
            scrape.of("api_key_account_poll_failures")
        );
    }
}

#[tokio::test]
async fn without_a_ca_file_an_own_authority_is_not_trusted() {
    let api = Api::start(listing(&["a"])).await;
    let address = Authority::new().front(&api, "localhost", VALID).await;
    let exporter = Exporter::with(&config(
        &format!("https://localhost:{}", address.port()),
        "poll.timeout = \"10s\"\npoll.attempts = 1",
        "",
    ))
    .await;
    let scrape = exporter
        .until("a finished poll", |scrape| scrape.account("up").is_some())
        .await;
    // Loading the system's certificates may take longer than one of a test's short polls.
    assert_eq!(scrape.account("up"), Some(0.0));
    exporter.fails("tls").await;
}

/// A daemon with an account for each line, at the same server.
fn daemon(folder: &Folder, address: SocketAddr, accounts: &[(&str, &str)]) -> Command {
    let url = format!("https://localhost:{}", address.port());
    let lines = "poll.interval = \"5s\"\npoll.timeout = \"4s\"\nlog.format = \"text\"\n\
                 web.listen_addresses = [\"127.0.0.1:0\"]\n";
    let text = accounts
        .iter()
        .fold(lines.to_owned(), |text, (name, line)| {
            format!(
                "{text}[[accounts]]\nname = \"{name}\"\nbase_url = \"{url}\"\n\
             token_env = \"TOKEN\"\n{line}\n"
            )
        });
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_a16_authorities_that_are_replaced_are_seen_without_a_restart() {
    let folder = Folder::new("rotated");
    let api = Api::start(listing(&["a"])).await;
    let (old, new) = (Authority::new(), Authority::new());
    let address = new.front(&api, "localhost", VALID).await;
    let own = folder.file("own.pem", &old.pem());
    let system = folder.file("system.pem", &old.pem());
    let ca_file = format!("ca_file = {own:?}");
    let mut command = daemon(&folder, address, &[("own", &ca_file), ("system", "")]);
    command.env("SSL_CERT_FILE", &system);
    let daemon = Daemon::start(command, &folder);
    let of = |scrape: &Scrape, series: &str, labels: &str| {
        ["own", "system"].map(|account| {
            let labels = format!("{{account=\"{account}\"{labels}}}");
            scrape.get(&format!("api_key_account_{series}{labels}"))
        })
    };
    let fail =
        |scrape: &Scrape| of(scrape, "poll_failures_total", ",reason=\"tls\"") == [Some(1.0); 2];
    daemon.until("both fail", fail).await;
    for path in [own, system] {
        let next = folder.file("next.pem", &new.pem());
        std::fs::rename(next, path).unwrap();
    }
    let are_up = |scrape: &Scrape| of(scrape, "up", "") == [Some(1.0); 2];
    daemon.until("both are up", are_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_a17_without_authorities_of_the_system_it_runs_and_trusts_no_stranger() {
    let folder = Folder::new("no-authorities");
    let api = Api::start(listing(&["a"])).await;
    let address = Authority::new().front(&api, "localhost", VALID).await;
    let mut command = daemon(&folder, address, &[("default", "")]);
    command
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent");
    let daemon = Daemon::start(command, &folder);
    daemon
        .until("a failure", |scrape| scrape.failures("tls") > 0.0)
        .await;
    daemon
        .logs("is not trusted (UnknownIssuer): accounts.ca_file")
        .await;
    assert_eq!(api.requests().len(), 0);
}
