//! TLS towards the API: trusted, untrusted, wrong name, expired.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::process::{Daemon, binary};
use crate::prometheus::free;
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
async fn certificates_are_checked() {
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
async fn authorities_that_are_replaced_are_seen_without_a_restart() {
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
async fn without_authorities_of_the_system_it_runs_and_trusts_no_stranger() {
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

/// A server with a certificate that openssl made with these arguments, in a folder that holds its
/// certificate as `NAME.pem`.
struct OpensslServer {
    child: Child,
    address: SocketAddr,
    pem: PathBuf,
}

impl OpensslServer {
    fn start(folder: &Folder, name: &str, certificate: &[&str], server: &[&str]) -> Self {
        let [pem, key] = ["pem", "key"].map(|kind| folder.0.join(format!("{name}.{kind}")));
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9".split(' '))
            .args(["-subj", "/CN=localhost", "-keyout"])
            .args([key.as_os_str(), "-out".as_ref(), pem.as_os_str()])
            .args(certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let address = free();
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-www", "-accept"])
            .arg(address.to_string())
            .args([
                "-cert".as_ref(),
                pem.as_os_str(),
                "-key".as_ref(),
                key.as_os_str(),
            ])
            .args(server)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            address,
            pem,
        }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "a table of servers, and one run with all of them"
)]
async fn each_failed_handshake_is_logged_with_cause_and_remedy() {
    let folder = Folder::new("tls-words");
    let san = "subjectAltName=DNS:localhost";
    let secret = format!("subjectAltName=DNS:a.example,DNS:{TOKEN}.example,DNS:b.example");
    let own = "basicConstraints=critical,CA:FALSE";
    let servers = [
        (
            "ca",
            vec!["-addext", san],
            vec![],
            "a CA certificate as its own",
        ),
        (
            "bare",
            vec!["-addext", own],
            vec![],
            "has no subjectAltName",
        ),
        (
            "names",
            vec!["-addext", own, "-addext", &secret],
            vec![],
            "is not valid for localhost: correct base_url",
        ),
        (
            "client",
            vec!["-addext", own, "-addext", san],
            vec!["-Verify", "1"],
            "requires a client certificate",
        ),
        (
            "client-1.2",
            vec!["-addext", own, "-addext", san],
            vec!["-Verify", "1", "-tls1_2"],
            "requires a client certificate",
        ),
        (
            "old",
            vec!["-addext", own, "-addext", san],
            vec!["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
            "neither TLS 1.2 nor TLS 1.3",
        ),
        (
            "cipher",
            vec!["-addext", own, "-addext", san],
            vec!["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
            "no cipher suite of the exporter",
        ),
    ];
    let servers = servers.map(|(name, certificate, server, expected)| {
        let server = OpensslServer::start(&folder, name, &certificate, &server);
        (name, server, expected)
    });
    let mut text = "poll.interval = \"5s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
                    web.listen_addresses = [\"127.0.0.1:0\"]\n"
        .to_owned();
    for (name, server, _) in &servers {
        let (port, pem) = (server.address.port(), server.pem.display());
        write!(
            text,
            "[[accounts]]\nname = \"{name}\"\nbase_url = \"https://localhost:{port}\"\n\
             token_env = \"TOKEN\"\nca_file = \"{pem}\"\n"
        )
        .unwrap();
    }
    // Beside them, a certificate that is trusted, so that the failures are not of the test's own.
    let good = OpensslServer::start(&folder, "good", &["-addext", own, "-addext", san], &[]);
    let (port, pem) = (good.address.port(), good.pem.display());
    write!(
        text,
        "[[accounts]]\nname = \"good\"\nbase_url = \"https://localhost:{port}\"\n\
         token_env = \"TOKEN\"\nca_file = \"{pem}\"\n"
    )
    .unwrap();
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    let daemon = Daemon::start(command, &folder);
    let has_failed = |scrape: &Scrape, name: &str, reason: &str| {
        let labels = format!("{{account=\"{name}\",reason=\"{reason}\"}}");
        let failures = scrape.get(&format!("api_key_account_poll_failures_total{labels}"));
        failures.unwrap() > 0.0
    };
    for (name, _, expected) in &servers {
        let failed = |scrape: &Scrape| has_failed(scrape, name, "tls");
        daemon.until(&format!("{name}: {expected}"), failed).await;
    }
    // It gets an HTML page from openssl, over TLS.
    let failed = |scrape: &Scrape| has_failed(scrape, "good", "not_json");
    daemon.until("the trusted one", failed).await;
    let log = daemon.log();
    for (name, _, expected) in &servers {
        let of_account = format!("account={name} ");
        let line = log
            .lines()
            .find(|line| line.contains(&of_account) && line.contains("WARN"));
        let line = line.unwrap_or_else(|| panic!("{name}: {log}"));
        assert!(line.contains(expected), "{name}: {line}");
    }
    assert!(log.contains("it is for a.example, "), "{log}");
    for shown in TOKEN.to_lowercase().as_bytes().windows(12) {
        let shown = std::str::from_utf8(shown).unwrap();
        assert!(!log.to_lowercase().contains(shown), "{shown}: {log}");
    }
}

#[test]
fn a_damaged_block_of_a_ca_file_is_named_by_its_number() {
    let folder = Folder::new("ca-blocks");
    let good = Authority::new().pem();
    let cut = good.replacen("MII", "MII!", 1);
    let ca_file = folder.file("ca.pem", &format!("# Two authorities\n{good}{cut}"));
    let text = format!("[[accounts]]\nname = \"a\"\ntoken_env = \"TOKEN\"\nca_file = {ca_file:?}");
    let config = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["config", "check", "--config.file", &config]);
    let output = command.env("TOKEN", TOKEN).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("block 2 of "), "{words}");
    assert!(words.contains("it is not base64"), "{words}");
}
