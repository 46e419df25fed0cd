//! What happens while it runs: changed files, broken files, passwords, probes, the watchdog.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::tools::{ask, debian, demand};
use crate::web_config::{Material, Server};

/// The file that the server reads; it is replaced by others.
const ACTIVE: &str = "active.yml";

/// Of carol in `web_config_users_noTLS.good.yml`.
const CAROL: &str = "carol:carol123";

impl Material {
    /// Replaces the active file, as a careful editor does.
    fn activate(&self, text: &str) {
        let new = self.0.file("new", text);
        fs::rename(new, self.path(ACTIVE)).unwrap();
    }

    fn activate_file(&self, name: &str) {
        self.activate(&fs::read_to_string(self.path(name)).unwrap());
    }
}

fn both(material: &Material) -> [(&'static str, Server); 2] {
    [
        ("ours", Server::ours(material, ACTIVE, &[]).unwrap()),
        ("reference", Server::reference(material, ACTIVE).unwrap()),
    ]
}

#[test]
fn a_changed_file_counts_at_once_and_a_broken_one_serves_nobody() {
    let material = Material::new("web-changes");
    let good = fs::read_to_string(material.path("web_config_noAuth.good.yml")).unwrap();
    material.activate(&good);
    let servers = both(&material);
    let check = |what: &str, expected: &str| {
        for (name, server) in &servers {
            let got = material.curl(&server.url("https"), &[]);
            assert_eq!(got, expected, "{what}: {name}:\n{}", server.daemon.log());
            let plain = material.curl(&server.url("http"), &[]);
            assert!(
                matches!(plain.as_str(), "400/1" | "000"),
                "{what}: {name}: {plain}"
            );
        }
    };
    check("good", "200/2");
    material.activate_file("web_config_noAuth.good.blocking.yml");
    check("no authority", "000");
    material.activate(&good);
    check("good again", "200/2");
    for broken in [
        "tls_server_config: [",
        "unknown: 1",
        "",
        "basic_auth_users: {a: b}",
    ] {
        material.activate(broken);
        check(broken, "000");
    }
    fs::remove_file(material.path(ACTIVE)).unwrap();
    check("no file", "000");
    material.activate(&good);
    check("good at last", "200/2");
    // A key that does not belong to the certificate, and then its certificate too.
    let key = fs::read(material.path("server.key")).unwrap();
    material.signed("new", "/CN=localhost", "DNS:localhost");
    fs::copy(material.path("new.key"), material.path("server.key")).unwrap();
    check("another key", "000");
    let certificate = fs::read(material.path("server.crt")).unwrap();
    fs::copy(material.path("new.pem"), material.path("server.crt")).unwrap();
    check("another pair", "200/2");
    fs::write(material.path("server.crt"), certificate).unwrap();
    fs::write(material.path("server.key"), &key).unwrap();
    let [(_, ours), _] = servers;
    // A pipe and a folder are no files, and nobody waits for them.
    fs::remove_file(material.path("server.key")).unwrap();
    demand(debian("mkfifo").arg(material.path("server.key")));
    let start = Instant::now();
    assert_eq!(material.curl(&ours.url("https"), &[]), "000");
    assert!(start.elapsed() < Duration::from_secs(4));
    fs::remove_file(material.path("server.key")).unwrap();
    fs::write(material.path("server.key"), key).unwrap();
    assert_eq!(material.curl(&ours.url("https"), &[]), "200/2");
    let log = ours.daemon.log();
    let lines = log.matches("cannot use the web configuration file").count();
    assert!((3..=10).contains(&lines), "{log}");
    assert!(
        log.contains("web configuration file is usable again"),
        "{log}"
    );
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn a_thousand_connections_while_the_file_is_broken_are_a_line() {
    let material = Material::new("web-flood");
    material.activate_file("web_config_users_noTLS.good.yml");
    let server = Server::ours(&material, ACTIVE, &[]).unwrap();
    material.activate("nonsense");
    let url = server.url("http").replace("/metrics", "/[1-1000]");
    let mut curl = debian("curl");
    let got = ask(curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code} ", &url])).stdout;
    assert_eq!(got.matches("500 ").count(), 1000, "{got}");
    let log = server.daemon.log();
    assert_eq!(log.matches("web configuration file").count(), 1, "{log}");
}

#[test]
fn only_users_with_their_passwords_are_served() {
    let material = Material::new("web-users");
    material.activate_file("web_config_users_noTLS.good.yml");
    let servers = both(&material);
    let over_long = format!("{CAROL}{}", "x".repeat(3000));
    let long_name = format!("{}:carol123", "carol".repeat(500));
    for (name, server) in &servers {
        for (user, expected) in [
            (None, "401/1.1"),
            (Some(CAROL), "200/1.1"),
            (Some("dave:dave123"), "200/1.1"),
            (Some("dave:carol123"), "401/1.1"),
            (Some("carol:"), "401/1.1"),
            (Some("nobody:carol123"), "401/1.1"),
            (Some(&over_long), "401/1.1"),
            (Some(&long_name), "401/1.1"),
            (Some(CAROL), "200/1.1"),
        ] {
            let arguments = user.map_or(vec![], |user| vec!["-u", user]);
            let got = material.curl(&server.url("http"), &arguments);
            assert_eq!(got, expected, "{name}: {user:?}");
        }
        let mut curl = debian("curl");
        let answer = demand(curl.args(["-s", "-i", &server.url("http")])).to_lowercase();
        assert!(
            answer.contains("\r\nwww-authenticate: basic\r\n"),
            "{name}: {answer}"
        );
        assert!(
            answer.ends_with("\r\n\r\nunauthorized\n"),
            "{name}: {answer}"
        );
    }
    // Another password counts at once, and an unusable file lets nobody in.
    let file = fs::read_to_string(material.path(ACTIVE)).unwrap();
    let dave = "$2y$10$2UXri9cIDdgeKjBo4Rlpx.U3ZLDV8X1IxKmsfOvhcM5oXQt/mLmXq";
    material.activate(&format!("basic_auth_users: {{carol: {dave}}}"));
    for (name, server) in &servers {
        let got = |user| material.curl(&server.url("http"), &["-u", user]);
        assert_eq!(got(CAROL), "401/1.1", "{name}");
        assert_eq!(got("carol:dave123"), "200/1.1", "{name}");
    }
    material.activate("basic_auth_users: {carol: plain}");
    let [(_, ours), (_, reference)] = &servers;
    assert_eq!(material.curl(&ours.url("http"), &["-u", CAROL]), "500/1.1");
    // It compares what it cannot read, which comes to the same.
    assert_eq!(
        material.curl(&reference.url("http"), &["-u", CAROL]),
        "401/1.1"
    );
    for broken in ["[", "unknown: 1"] {
        material.activate(broken);
        for (name, server) in &servers {
            let got = material.curl(&server.url("http"), &["-u", CAROL]);
            assert_eq!(got, "500/1.1", "{name}: {broken}");
        }
    }
    // A file that is being written is empty for a moment; one that stays so has no users.
    material.activate(&file);
    assert_eq!(material.curl(&ours.url("http"), &[]), "401/1.1");
    material.activate("");
    assert_eq!(material.curl(&ours.url("http"), &[]), "401/1.1");
    assert_eq!(material.curl(&ours.url("http"), &["-u", CAROL]), "200/1.1");
    assert_eq!(material.curl(&reference.url("http"), &[]), "200/1.1");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(material.curl(&ours.url("http"), &[]), "200/1.1");
}

#[test]
fn no_password_hash_or_key_is_in_the_log_at_any_level() {
    let material = Material::new("web-secrets");
    let key = fs::read_to_string(material.path("server.key")).unwrap();
    let indented = format!("    {}\n", key.trim_end().replace('\n', "\n    "));
    let users = fs::read_to_string(material.path("web_config_users_noTLS.good.yml")).unwrap();
    let good = format!("tls_server_config:\n  cert_file: server.crt\n  key: |\n{indented}{users}");
    material.activate(&good);
    let server = Server::ours(&material, ACTIVE, &["--log.level", "trace"]).unwrap();
    let got = |user: &str| material.curl(&server.url("https"), &["-u", user]);
    assert_eq!(got(CAROL), "200/2");
    assert_eq!(got("carol:a wrong password"), "401/2");
    let hash = "$2y$10$qRTBuFoULoYNA7AQ/F3ck.trZBPyjV64.oA4ZsSBCIWvXuvQlQTuu";
    let mut words = String::new();
    for broken in [
        good.replace("carol: $2y", "carol: $9y"),
        good.replace("  key: |", "  key: [|"),
        good.replace("    MII", "MII"),
        good.replace("basic_auth_users:", "basic_auth_users: x"),
        good.replace("  carol: ", "  ? "),
        format!("{hash}: carol"),
        format!("basic_auth_users:\n  {hash}: carol"),
        format!("tls_server_config:\n  client_auth_type: {hash}"),
        format!("http_server_config:\n  headers:\n    {hash}: {hash}"),
        format!("tls_server_config:\n  cert: |\n{indented}  key: |\n{indented}"),
    ] {
        material.activate(&broken);
        assert_eq!(got(CAROL), "000", "{broken}");
        let error = Server::ours(&material, ACTIVE, &[]).err();
        words += &error.unwrap_or_else(|| panic!("accepted: {broken}"));
    }
    words += &server.daemon.log();
    let line_of_key = key.lines().nth(3).unwrap();
    for secret in [
        "carol123",
        "a wrong password",
        "qRTBuFoULoYNA7AQ",
        line_of_key,
        "PRIVATE",
    ] {
        assert!(!words.contains(secret), "{secret} is in\n{words}");
    }
}

#[test]
fn headers_of_the_file_are_in_every_response() {
    let material = Material::new("web-headers");
    for (name, server) in [
        (
            "ours",
            Server::ours(&material, "web_config_headers.good.yml", &[]),
        ),
        (
            "reference",
            Server::reference(&material, "web_config_headers.good.yml"),
        ),
    ] {
        let url = server.as_ref().unwrap().url("http");
        for path in ["/metrics", "/", "/nothing"] {
            let url = url.replace("/metrics", path);
            let answer = demand(debian("curl").args(["-s", "-i", &url])).to_lowercase();
            for header in [
                "x-frame-options: deny",
                "strict-transport-security: max-age=31536000; includesubdomains",
                "x-content-type-options: nosniff",
                "x-xss-protection: 1",
                "content-security-policy: default-src 'self' *.test.example.net",
            ] {
                let line = format!("\r\n{header}\r\n");
                assert_eq!(answer.matches(&line).count(), 1, "{name} {path}: {answer}");
            }
        }
    }
}

#[test]
fn the_rate_limit_is_for_all_together_and_comes_before_passwords() {
    let material = Material::new("web-rate");
    let users = fs::read_to_string(material.path("web_config_users_noTLS.good.yml")).unwrap();
    material.activate(&format!("{users}rate_limit: {{interval: 2s, burst: 2}}\n"));
    let server = Server::ours(&material, ACTIVE, &[]).unwrap();
    let got = |user| material.curl(&server.url("http"), &["-u", user]);
    // The first comparison may take long.
    assert_eq!(got(CAROL), "200/1.1");
    std::thread::sleep(Duration::from_millis(4200));
    assert_eq!(got(CAROL), "200/1.1");
    assert_eq!(got(CAROL), "200/1.1");
    assert_eq!(got(CAROL), "429/1.1");
    assert_eq!(got("nobody:x"), "429/1.1");
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(got(CAROL), "200/1.1");
    // The last figure counts when the file changes.
    material.activate(&users);
    for _ in 0..5 {
        assert_eq!(got(CAROL), "200/1.1");
    }
    // What the reference's own file says.
    let file = "web_config_rate_limiter_one_second.yaml";
    let server = Server::ours(&material, file, &[]).unwrap();
    let url = server.url("http");
    let mut curl = debian("curl");
    let got = ask(curl.args([
        "-s",
        "-w",
        "%{http_code} ",
        "-o",
        "/dev/null",
        &url,
        "-o",
        "/dev/null",
        &url,
    ]));
    assert_eq!(got.stdout, "200 429 ");
}

#[test]
fn certificates_of_an_authority_are_judged_as_the_reference_does() {
    let material = Material::new("web-chain");
    material.signed("known", "/CN=known", "DNS:known");
    material.self_signed("other.key", "other.pem", "/CN=other", "DNS:other");
    let tls = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  \
               client_ca_file: tls-ca-chain.pem\n  client_auth_type: ";
    for (policy, expected) in [
        ("RequestClientCert", ["200/2", "200/2", "200/2"]),
        ("RequireAnyClientCert", ["000", "200/2", "200/2"]),
        ("RequireClientCert", ["000", "200/2", "200/2"]),
        ("VerifyClientCertIfGiven", ["200/2", "200/2", "000"]),
        ("RequireAndVerifyClientCert", ["000", "200/2", "000"]),
    ] {
        material.activate(&format!("{tls}{policy}\n"));
        for (name, server) in both(&material) {
            let url = server.url("https");
            for version in ["1.2", "1.3"] {
                let got = |certificate: Option<(&str, &str)>| {
                    let mut arguments = vec!["--tls-max", version];
                    if let Some((certificate, key)) = certificate {
                        arguments.extend(["--cert", certificate, "--key", key]);
                    }
                    material.curl(&url, &arguments)
                };
                let all = [
                    got(None),
                    got(Some(("known.pem", "known.key"))),
                    got(Some(("other.pem", "other.key"))),
                ];
                assert_eq!(
                    all, expected,
                    "{policy}: {name}, {version}: none, known, other"
                );
            }
        }
    }
}

/// What only a client with a certificate and a password gets.
fn closed(material: &Material) {
    let users = fs::read_to_string(material.path("web_config_users_noTLS.good.yml")).unwrap();
    let tls = "tls_config_noAuth.requireandverifyclientcert.good.yml";
    let tls = fs::read_to_string(material.path(tls)).unwrap();
    material.activate(&format!("{tls}{users}"));
}

#[test]
fn probes_are_answered_to_everybody_at_their_own_address_and_nothing_else_is() {
    let material = Material::new("web-probes");
    closed(&material);
    let probes = crate::prometheus::free();
    let arguments = [
        "--web.probe-listen-address",
        &probes.to_string(),
        "--web.route-prefix=/keys",
    ];
    let server = Server::ours(&material, ACTIVE, &arguments).unwrap();
    let url = server.url("https").replace("/metrics", "/keys/metrics");
    let certificate = [
        "--cert",
        "client_selfsigned.pem",
        "--key",
        "client_selfsigned.key",
    ];
    assert_eq!(material.curl(&url, &[]), "000");
    assert_eq!(material.curl(&url, &certificate), "401/2");
    assert_eq!(
        material.curl(&url, &[&certificate[..], &["-u", CAROL]].concat()),
        "200/2"
    );
    for broken in [false, true] {
        if broken {
            material.activate("nonsense");
        }
        for (path, method, expected) in [
            ("/-/healthy", "GET", "200/1.1"),
            ("/-/healthy", "POST", "405/1.1"),
            ("/metrics", "GET", "404/1.1"),
            ("/keys/metrics", "GET", "404/1.1"),
            ("/keys/-/healthy", "GET", "404/1.1"),
            ("/", "GET", "404/1.1"),
            ("/-/reload", "POST", "404/1.1"),
        ] {
            let got = material.curl(&format!("http://{probes}{path}"), &["-X", method]);
            assert_eq!(got, expected, "{method} {path}");
        }
        let ready = material.curl(&format!("http://{probes}/-/ready"), &[]);
        assert!(matches!(ready.as_str(), "200/1.1" | "503/1.1"), "{ready}");
    }
}

#[test]
fn the_watchdog_is_fed_whatever_the_file_asks_of_clients() {
    let material = Material::new("web-watchdog");
    closed(&material);
    let socket = UnixDatagram::bind(material.path("notify")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let prepare = |command: &mut Command| {
        command
            .env("NOTIFY_SOCKET", material.path("notify"))
            .env("WATCHDOG_USEC", "400000");
    };
    let server = Server::ours_with(&material, ACTIVE, &[], prepare).unwrap();
    let fed = |times: usize| {
        let mut fed = 0;
        let mut message = [0; 1024];
        while fed < times {
            let length = socket.recv(&mut message).expect("a keep-alive");
            fed += usize::from(message[..length].starts_with(b"WATCHDOG=1"));
        }
    };
    fed(3);
    material.activate("nonsense");
    fed(5);
    drop(server);
    // Nor does it use up the rate limit.
    material.activate("rate_limit: {interval: 1h, burst: 1}");
    let server = Server::ours_with(&material, ACTIVE, &[], prepare).unwrap();
    fed(5);
    assert_eq!(material.curl(&server.url("http"), &[]), "200/1.1");
    assert_eq!(material.curl(&server.url("http"), &[]), "429/1.1");
}

#[test]
fn clients_that_never_finish_a_handshake_are_closed_and_hold_up_no_stop() {
    let material = Material::new("web-slow");
    let socket = material.path("own.sock");
    let arguments = ["--web.listen-address", &format!("unix:{socket}")];
    let server = Server::ours(&material, "web_config_noAuth.good.yml", &arguments).unwrap();
    let connect = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    };
    let start = Instant::now();
    // Nothing, a part of a handshake, and what is none.
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x00\x05nonsense"] {
        let mut answer = Vec::new();
        drop(connect(bytes).read_to_end(&mut answer));
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let passed = start.elapsed();
    assert!(passed < Duration::from_secs(16), "{passed:?}");
    let mut answer = String::new();
    let mut plain = connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    plain.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 400 Bad Request\r\n"),
        "{answer}"
    );
    // A Unix socket gives the same answer, and TLS works after the look at the first byte.
    let unix = ["-sk", "--unix-socket", &socket];
    let plain = demand(
        debian("curl")
            .args(unix)
            .args(["--http0.9", "-i", "http://a/metrics"]),
    );
    assert_eq!(plain.replace('\r', ""), answer.replace('\r', ""));
    let healthy = demand(debian("curl").args(unix).arg("https://localhost/-/healthy"));
    assert_eq!(healthy, "api-key-exporter is healthy.\n");
    let url = server.url("https");
    let mut curl = debian("curl");
    let scrape = demand(curl.args(["-s", "-k", &url]));
    let failed = "api_key_exporter_http_rejected_total{reason=\"tls_handshake\"} 3\n";
    assert!(scrape.contains(failed), "{scrape}");
    let _silent: Vec<_> = (0..20).map(|_| connect(b"")).collect();
    server.daemon.signal("-TERM");
    let (code, took) = server.daemon.ended();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
