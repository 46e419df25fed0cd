//! The web configuration file, with the real binary and real clients, side by side with Debian's
//! `node_exporter`, which has the reference implementation.

mod prometheus;
mod reference;
mod runtime;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Daemon, binary, config_file};
use crate::prometheus::free;
use crate::support::{Folder, in_repository};
use crate::tools::{ask, debian, demand};

/// Files, certificates and keys, in one folder as the files name them.
struct Material(Folder);

impl Material {
    /// Everything that exporter-toolkit's own test files name.
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        for entry in fs::read_dir(in_repository("tests/fixtures/web_config")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_owned();
            fs::copy(&path, folder.0.join(name)).unwrap();
        }
        let material = Self(folder);
        material.self_signed(
            "ca.key",
            "tls-ca-chain.pem",
            "/CN=authority",
            "DNS:authority",
        );
        material.signed("server", "/CN=localhost", "DNS:localhost,IP:127.0.0.1");
        fs::rename(material.path("server.pem"), material.path("server.crt")).unwrap();
        material.self_signed(
            "client_selfsigned.key",
            "client_selfsigned.pem",
            "/CN=client",
            "DNS:client",
        );
        material.self_signed(
            "client2_selfsigned.key",
            "client2_selfsigned.pem",
            "/CN=client2",
            "DNS:one,DNS:two,DNS:three",
        );
        material
    }

    fn path(&self, name: &str) -> String {
        self.0.0.join(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, arguments: &[&str]) {
        demand(debian("openssl").args(arguments).current_dir(&self.0.0));
    }

    fn self_signed(&self, key: &str, certificate: &str, subject: &str, names: &str) {
        let names = format!("subjectAltName={names}");
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            key,
            "-out",
            certificate,
            "-subj",
            subject,
            "-addext",
            &names,
        ]);
    }

    /// A key and a certificate of the authority, `NAME.key` and `NAME.pem`.
    fn signed(&self, name: &str, subject: &str, names: &str) {
        let file = |ending: &str| format!("{name}.{ending}");
        let (key, request, certificate) = (file("key"), file("csr"), file("pem"));
        self.openssl(&[
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj",
            subject,
        ]);
        self.0
            .file("extensions", &format!("subjectAltName={names}\n"));
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "tls-ca-chain.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "extensions",
            "-out",
            &certificate,
        ]);
    }

    /// What curl got: the status and the version of HTTP, or 000 without an answer.
    fn curl(&self, url: &str, arguments: &[&str]) -> String {
        let authority = self.path("tls-ca-chain.pem");
        let mut curl = debian("curl");
        curl.args(["-s", "-o", "/dev/null", "-m", "10", "--cacert", &authority])
            .args(["--noproxy", "*", "-w", "%{http_code}/%{http_version}"])
            .args(arguments)
            .arg(url)
            .current_dir(&self.0.0);
        ask(&mut curl).stdout.trim_end_matches("/0").to_owned()
    }
}

/// A folder for the log of one server.
fn own_folder(name: &str) -> Folder {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    Folder::new(&format!("web-{name}-{number}"))
}

/// A server under test.
struct Server {
    daemon: Daemon,
    address: SocketAddr,
    /// Of its log.
    _folder: Folder,
}

impl Server {
    /// Ours with this web configuration file and more arguments; `Err` is the log where it
    /// refuses to start.
    fn ours(material: &Material, file: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::ours_with(material, file, arguments, |_| {})
    }

    /// The same, with a command that a test has prepared.
    fn ours_with(
        material: &Material,
        file: &str,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, String> {
        let (folder, address) = (own_folder("ours"), free());
        let config = config_file(&folder, "http://127.0.0.1:9");
        let mut command = binary(&["--config.file", &config]);
        command
            .args(["--web.listen-address", &address.to_string()])
            .args(["--web.config.file", &material.path(file)])
            .args(arguments);
        prepare(&mut command);
        Self::start(command, folder, address, "level=INFO msg=started")
    }

    /// The reference with it.
    fn reference(material: &Material, file: &str) -> Result<Self, String> {
        let (folder, address) = (own_folder("reference"), free());
        let mut command = debian("prometheus-node-exporter");
        command
            .arg("--collector.disable-defaults")
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--web.config.file={}", material.path(file)))
            .stdin(Stdio::null());
        Self::start(command, folder, address, "msg=\"TLS is ")
    }

    /// Waits for `word` in the log, and whether it lives on; `Err` is the log.
    fn start(
        command: Command,
        folder: Folder,
        address: SocketAddr,
        word: &str,
    ) -> Result<Self, String> {
        let mut daemon = Daemon::start(command, &folder);
        let start = Instant::now();
        while !daemon.log().contains(word) {
            if daemon.has_ended() {
                return Err(daemon.log());
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}",
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        // The reference checks one thing more after that.
        std::thread::sleep(Duration::from_millis(100));
        if daemon.has_ended() {
            return Err(daemon.log());
        }
        Ok(Self {
            daemon,
            address,
            _folder: folder,
        })
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}/metrics", self.address.port())
    }
}
