//! The same files for us and for the reference: who refuses them, and what clients see.

use crate::web_config::{Material, Server};

/// A client: its name, its scheme, and what curl is told.
type Client = (&'static str, &'static str, &'static [&'static str]);

const CLIENTS: [Client; 12] = [
    ("http", "http", &[]),
    ("https", "https", &[]),
    ("http1.1", "https", &["--http1.1"]),
    (
        "tls1.1",
        "https",
        &["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"],
    ),
    ("tls1.3", "https", &["--tlsv1.3"]),
    (
        "aes128",
        "https",
        &[
            "--tls-max",
            "1.2",
            "--ciphers",
            "ECDHE-RSA-AES128-GCM-SHA256",
        ],
    ),
    (
        "aes256",
        "https",
        &[
            "--tls-max",
            "1.2",
            "--ciphers",
            "ECDHE-RSA-AES256-GCM-SHA384",
        ],
    ),
    (
        "cbc",
        "https",
        &[
            "--http1.1",
            "--tls-max",
            "1.2",
            "--ciphers",
            "ECDHE-RSA-AES256-SHA",
        ],
    ),
    ("p384", "https", &["--curves", "P-384"]),
    ("p521", "https", &["--curves", "P-521"]),
    (
        "client",
        "https",
        &[
            "--cert",
            "client_selfsigned.pem",
            "--key",
            "client_selfsigned.key",
        ],
    ),
    (
        "client2",
        "https",
        &[
            "--cert",
            "client2_selfsigned.pem",
            "--key",
            "client2_selfsigned.key",
        ],
    ),
];

/// What our clients get, in the order of [`CLIENTS`]; `.` is no answer.
const PLAIN: &str = "200/1.1 . . . . . . . . . . .";
const TLS: &str = "400/1 200/2 200/1.1 . 200/2 200/2 200/2 . 200/2 . . .";

/// Each file, why it is refused or what clients get, and where the reference differs: what its
/// clients get, or `None` where it refuses the file, and why we differ.
type Case = (
    &'static str,
    Result<&'static str, &'static str>,
    Option<(Option<&'static str>, &'static str)>,
);

const CBC: &str = "rustls has neither CBC suites nor P-521, and both are old";
const NEWER: &str = "Debian's version of exporter-toolkit does not know the field yet";
const NO_CA: &str = "no certificate could be accepted, which is better said at the start";
const REFERENCE_TLS: &str = "400/1 200/2 200/1.1 . 200/2 200/2 200/2 200/1.1 200/2 200/2 . .";

const CASES: [Case; 39] = [
    ("web_config_empty.yml", Ok(PLAIN), None),
    ("web_config_headers.good.yml", Ok(PLAIN), None),
    (
        "web_config_junk.yml",
        Err("a value has the wrong type at line 1"),
        None,
    ),
    (
        "web_config_junk_key.yml",
        Err("unknown field \"cert_filse\" at line 2"),
        None,
    ),
    (
        "web_config_noAuth_certPath_empty.bad.yml",
        Err("cert_file is missing"),
        None,
    ),
    (
        "web_config_noAuth_cert_empty.bad.yml",
        Err("cert_file is missing"),
        None,
    ),
    (
        "web_config_noAuth_certPath_keyPath_empty.bad.yml",
        Err("cert_file is missing"),
        None,
    ),
    (
        "web_config_noAuth_keyPath_empty.bad.yml",
        Err("key_file is missing"),
        None,
    ),
    (
        "web_config_noAuth_key_empty.bad.yml",
        Err("key_file is missing"),
        None,
    ),
    (
        "web_config_noAuth_certPath_invalid.bad.yml",
        Err("No such file"),
        None,
    ),
    (
        "web_config_noAuth_keyPath_invalid.bad.yml",
        Err("No such file"),
        None,
    ),
    (
        "web_config_noAuth_certPath_keyPath_invalid.bad.yml",
        Err("No such file"),
        None,
    ),
    (
        "web_config_auth_clientCAs_invalid.bad.yml",
        Err("No such file"),
        None,
    ),
    (
        "web_config_noAuth.bad.yml",
        Err("needs a client_auth_type"),
        None,
    ),
    (
        "web_config_auth_clientCAs_missing.bad.yml",
        Err("needs client_ca_file"),
        Some((Some("400/1 . . . . . . . . . . ."), NO_CA)),
    ),
    (
        "web_config_noAuth.good.blocking.yml",
        Err("needs client_ca_file"),
        Some((Some("400/1 . . . . . . . . . . ."), NO_CA)),
    ),
    (
        "web_config_auth_user_list_invalid.bad.yml",
        Err("not a bcrypt hash"),
        None,
    ),
    (
        "web_config_noAuth_inventedCiphers.bad.yml",
        Err("unknown cipher suite"),
        None,
    ),
    (
        "web_config_noAuth_inventedCurves.bad.yml",
        Err("unknown curve"),
        None,
    ),
    (
        "web_config_noAuth_wrongTLSVersion.bad.yml",
        Err("must be TLS12 or TLS13"),
        None,
    ),
    (
        "web_config_headers_content_type_options.bad.yml",
        Err("must be nosniff"),
        None,
    ),
    (
        "web_config_headers_frame_options.bad.yml",
        Err("must be deny or sameorigin"),
        None,
    ),
    (
        "web_config_headers_extra_header.bad.yml",
        Err("\"Content-Type\" cannot be set"),
        None,
    ),
    (
        "web_config_noAuth_noHTTP2Cipher.bad.yml",
        Err("HTTP/2 needs"),
        None,
    ),
    (
        "web_config_noAuth.good.yml",
        Ok(TLS),
        Some((Some(REFERENCE_TLS), CBC)),
    ),
    (
        "web_config_noAuth_allCiphers.good.yml",
        Err("CBC suites and key exchange by RSA are insecure"),
        Some((Some(REFERENCE_TLS), CBC)),
    ),
    (
        "web_config_noAuth_someCiphers.good.yml",
        Ok("400/1 200/2 200/1.1 . . 200/2 200/2 . 200/2 . . ."),
        Some((
            Some("400/1 200/2 200/1.1 . . 200/2 200/2 . 200/2 200/2 . ."),
            CBC,
        )),
    ),
    (
        "web_config_noAuth_someCiphers_noOrder.good.yml",
        Ok("400/1 200/2 200/1.1 . . 200/2 200/2 . 200/2 . . ."),
        Some((
            Some("400/1 200/2 200/1.1 . . 200/2 200/2 . 200/2 200/2 . ."),
            CBC,
        )),
    ),
    (
        "web_config_noAuth_allCurves.good.yml",
        Err("CurveP521 is not supported"),
        Some((Some(REFERENCE_TLS), CBC)),
    ),
    (
        "web_config_noAuth_someCurves.good.yml",
        Err("CurveP521 is not supported"),
        Some((Some("400/1 200/2 200/1.1 . 200/2 . . . . 200/2 . ."), CBC)),
    ),
    (
        "web_config_noAuth_noHTTP2.good.yml",
        Ok("400/1 200/1.1 200/1.1 . . . 200/1.1 . 200/1.1 . . ."),
        Some((
            Some("400/1 200/1.1 200/1.1 . . . 200/1.1 . 200/1.1 200/1.1 . ."),
            CBC,
        )),
    ),
    (
        "tls_config_noAuth.requireanyclientcert.good.yml",
        Ok("400/1 . . . . . . . . . 200/2 200/2"),
        None,
    ),
    (
        "tls_config_noAuth.requireandverifyclientcert.good.yml",
        Ok("400/1 . . . . . . . . . 200/2 ."),
        None,
    ),
    (
        "web_config_auth_client_san.good.yaml",
        Ok("400/1 . . . . . . . . . . 200/2"),
        Some((None, NEWER)),
    ),
    (
        "web_config_auth_client_san.bad.yaml",
        Ok("400/1 . . . . . . . . . . ."),
        Some((None, NEWER)),
    ),
    (
        "web_config_users.good.yml",
        Ok("400/1 401/2 401/1.1 . 401/2 401/2 401/2 . 401/2 . 401/2 401/2"),
        Some((
            Some("400/1 401/2 401/1.1 . 401/2 401/2 401/2 401/1.1 401/2 401/2 401/2 401/2"),
            CBC,
        )),
    ),
    (
        "web_config_users_noTLS.good.yml",
        Ok("401/1.1 . . . . . . . . . . ."),
        None,
    ),
    (
        "web_config_rate_limiter_nonblocking.yaml",
        Ok(PLAIN),
        Some((None, NEWER)),
    ),
    (
        "web_config_rate_limiter_one_second.yaml",
        Ok(PLAIN),
        Some((None, NEWER)),
    ),
];

/// What all clients get of a server, in one line.
fn answers(material: &Material, server: &Server) -> String {
    let answers = CLIENTS.map(|(_, scheme, arguments)| {
        material
            .curl(&server.url(scheme), arguments)
            .replace("000", ".")
    });
    answers.join(" ")
}

#[test]
fn the_reference_s_own_files_do_what_they_do_there_or_else_there_is_a_reason() {
    let material = Material::new("web-reference");
    let names: Vec<&str> = CLIENTS.iter().map(|(name, ..)| *name).collect();
    let mut wrong = Vec::new();
    for (file, expected, difference) in CASES {
        let ours = Server::ours(&material, file, &[]);
        match (&ours, expected) {
            (Ok(server), Ok(expected)) => {
                let answers = answers(&material, server);
                if answers != expected {
                    wrong.push(format!(
                        "{file}: {names:?}\n  {answers}\n  {expected} expected"
                    ));
                }
            }
            (Err(log), Err(expected)) if log.contains(expected) => {}
            (Err(log), _) => wrong.push(format!("{file}: refused: {log}")),
            (Ok(_), Err(_)) => wrong.push(format!("{file}: accepted")),
        }
        let theirs = Server::reference(&material, file).ok();
        let theirs = theirs.map(|server| answers(&material, &server));
        let theirs = theirs.as_deref();
        match difference {
            None if theirs == expected.ok() => {}
            Some((known, _why)) if theirs == known && known != expected.ok() => {}
            _ => wrong.push(format!("{file}: the reference: {names:?}\n  {theirs:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // No file is left out.
    let files = std::fs::read_dir(crate::support::in_repository("tests/fixtures/web_config"));
    assert_eq!(files.unwrap().count(), CASES.len() + 1, "and the README");
}
