//! TLS towards the API: trusted, untrusted, wrong name, expired.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{Api, Exporter, Folder, config, listing};

/// A certificate authority of the test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Serves TLS with a certificate for `name` in front of `api`; `years` is when the certificate
    /// is valid.
    async fn front(&self, api: &Api, name: &str, years: (i32, i32)) -> SocketAddr {
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

const VALID: (i32, i32) = (2020, 2090);

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
    let ca_file = format!("ca_file = {:?}", folder.file("ca.pem", &ours.0.pem()));
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
        let ended = |scrape: &crate::support::Scrape| scrape.account("up").is_some();
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
