//! Files good and bad, word for word.

use super::*;

/// A hash as `htpasswd` makes it.
const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

fn parsed(text: &str) -> Parsed {
    let parsed = parse(text.as_bytes(), Path::new("/etc/x")).unwrap();
    assert_eq!(parsed.problems, Vec::<String>::new(), "{text}");
    parsed
}

fn problems(text: &str) -> Vec<String> {
    match parse(text.as_bytes(), Path::new("/etc/x")) {
        Ok(parsed) => parsed.problems,
        Err(problem) => vec![problem],
    }
}

#[test]
fn nothing_said_is_plain_http_for_everybody() {
    let nothing = [
        "",
        "---\n",
        "# a comment\n",
        "{}",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
        "tls_server_config: {cert_file: ~, key_file: \"\"}",
        "tls_server_config:\n  min_version: TLS13\n",
        "rate_limit: {interval: 0, burst: 5}",
    ];
    for text in nothing {
        let Parsed { config, tls, .. } = parsed(text);
        assert!(tls.is_none() && config.users.is_empty(), "{text}");
        assert!(config.headers.is_empty() && config.http2, "{text}");
        assert_eq!(config.rate_limit, None, "{text}");
    }
}

#[test]
fn every_field_is_read() {
    let Parsed { config, tls, .. } = parsed(&format!(
        "tls_server_config:\n  cert_file: a.crt\n  key: inline\n  client_ca_file: /ca.pem\n  \
         client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [a, b]\n  \
         min_version: TLS12\n  max_version: TLS12\n  prefer_server_cipher_suites: no\n  \
         cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n  \
         curve_preferences: [X25519, CurveP384]\n\
         http_server_config:\n  http2: off\n  headers:\n    X-XSS-Protection: 1\n    \
         Content-Security-Policy: \"\"\n\
         basic_auth_users:\n  alice: {HASH}\n\
         rate_limit:\n  interval: 1m30s\n  burst: 7\n"
    ));
    let tls = tls.unwrap();
    let Some(Pem::File(cert)) = &tls.cert else {
        panic!("{tls:?}")
    };
    assert_eq!(cert, Path::new("/etc/x/a.crt"));
    assert!(matches!(&tls.key, Some(Pem::Inline(_))));
    assert!(matches!(&tls.client_ca, Some(Pem::File(path)) if path == Path::new("/ca.pem")));
    assert_eq!(tls.client_auth, ClientAuth::RequireAndVerify);
    assert_eq!(tls.client_allowed_sans.unwrap(), ["a", "b"]);
    assert_eq!(tls.versions, Versions::Tls12);
    assert!(!tls.prefer_server_cipher_suites && !config.http2);
    assert_eq!(tls.cipher_suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    assert_eq!(tls.curves, [Curve::X25519, Curve::P384]);
    let headers: Vec<_> = config
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(headers, ["x-xss-protection"]);
    assert_eq!(config.users.keys().collect::<Vec<_>>(), ["alice"]);
    let interval = Duration::from_secs(90);
    assert_eq!(config.rate_limit, Some(RateLimit { interval, burst: 7 }));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_wrong_is_said_and_no_secret_is() {
    let secret = "c2VjcmV0IGluIHRoZSB0ZXN0cw";
    let pair = "cert_file: a, key_file: b";
    for (text, expected) in [
        ("a: 1", "unknown field \"a\" at line 1, column 1"),
        (
            "rate_limit: {a: 1}",
            "unknown field \"a\" at line 1, column 14",
        ),
        (
            "rate_limit: {}\nrate_limit: {}",
            "a field is given twice at line 1, column 1",
        ),
        (
            "basic_auth_users: {a: x, a: x}",
            "a field is given twice at line 1, column 19",
        ),
        ("{}\n---\n{}", "must be a single YAML document"),
        (
            "rate_limit: [",
            "a value has the wrong type at line 1, column 13",
        ),
        ("{", "is not valid YAML at line 2, column 1"),
        (
            &format!("basic_auth_users: {secret}"),
            "a value has the wrong type at line 1, column 19",
        ),
        (
            &format!("tls_server_config: {{key: [{secret}]}}"),
            "a value has the wrong type at line 1, column 26",
        ),
        (
            &format!("basic_auth_users: {{alice: {secret}}}"),
            "basic_auth_users: what user \"alice\" has is not a bcrypt hash; make one with `htpasswd -nBC 10 \"\"`",
        ),
        (
            &format!("basic_auth_users: {{{HASH}: alice}}"),
            "basic_auth_users: what user \"[redacted]\" has is not a bcrypt hash; make one with `htpasswd -nBC 10 \"\"`",
        ),
        (
            &format!("basic_auth_users: {{a: {}}}", HASH.replace("$10$", "$21$")),
            "basic_auth_users: the hash of user \"a\" must have a cost from 4 to 20",
        ),
        (
            &format!("basic_auth_users: {{a: {}}}", HASH.replace("$2y", "$3y")),
            "basic_auth_users: what user \"a\" has is not a bcrypt hash; make one with `htpasswd -nBC 10 \"\"`",
        ),
        (
            "tls_server_config: {cert_file: a}",
            "tls_server_config.key_file is missing, and so is key",
        ),
        (
            "tls_server_config: {key_file: a}",
            "tls_server_config.cert_file is missing, and so is cert",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_ca_file: c}}"),
            "tls_server_config.client_ca_file needs a client_auth_type that asks for certificates",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_auth_type: RequireAndVerifyClientCert}}"),
            "tls_server_config.client_auth_type = \"RequireAndVerifyClientCert\" needs client_ca_file, or no certificate could be accepted",
        ),
        (
            &format!("tls_server_config: {{{pair}, client_allowed_sans: []}}"),
            "tls_server_config.client_allowed_sans needs client_auth_type RequireAnyClientCert or RequireAndVerifyClientCert",
        ),
        (
            &format!("tls_server_config: {{{pair}, min_version: TLS11}}"),
            "tls_server_config.min_version = \"TLS11\": TLS 1.0 and 1.1 are insecure and not supported; use TLS12 or TLS13",
        ),
        (
            &format!("tls_server_config: {{{pair}, max_version: TLS14}}"),
            "tls_server_config.max_version = \"TLS14\": must be TLS12 or TLS13",
        ),
        (
            &format!("tls_server_config: {{{pair}, min_version: TLS13, max_version: TLS12}}"),
            "tls_server_config.min_version is higher than max_version",
        ),
        (
            &format!(
                "tls_server_config: {{{pair}, cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]}}"
            ),
            "tls_server_config.cipher_suites: \"TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\" is not supported: CBC suites and key exchange by RSA are insecure; leave it out",
        ),
        (
            &format!("tls_server_config: {{{pair}, cipher_suites: [nonsense]}}"),
            "tls_server_config.cipher_suites: unknown cipher suite \"nonsense\"",
        ),
        (
            &format!(
                "tls_server_config: {{{pair}, max_version: TLS12, cipher_suites: [TLS_AES_128_GCM_SHA256]}}\nhttp_server_config: {{http2: false}}"
            ),
            "tls_server_config.cipher_suites: none of them is a suite of TLS 1.2",
        ),
        (
            &format!("tls_server_config: {{{pair}, curve_preferences: [CurveP521]}}"),
            "tls_server_config.curve_preferences: CurveP521 is not supported; use CurveP384",
        ),
        (
            &format!("tls_server_config: {{{pair}, prefer_server_cipher_suites: 1}}"),
            "tls_server_config.prefer_server_cipher_suites: is \"1\", must be true or false",
        ),
        (
            "http_server_config: {http2: maybe}",
            "http_server_config.http2: is \"maybe\", must be true or false",
        ),
        (
            "http_server_config: {headers: {x-frame-options: deny}}",
            "http_server_config.headers: \"x-frame-options\" cannot be set; only Content-Security-Policy, Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-Protection",
        ),
        (
            "http_server_config: {headers: {Content-Security-Policy: \"a\\nb\"}}",
            "http_server_config.headers: Content-Security-Policy has a value that no header can carry",
        ),
        (
            "rate_limit: {interval: soon}",
            "rate_limit.interval = \"soon\": must be a duration such as \"1s\" or \"100ms\", or 0",
        ),
        (
            "rate_limit: {interval: -1s}",
            "rate_limit.interval = \"-1s\": must be a duration such as \"1s\" or \"100ms\", or 0",
        ),
        (
            "rate_limit: {interval: 1s, burst: -1}",
            "rate_limit.burst = \"-1\": must be a whole number that is not negative",
        ),
    ] {
        let found = problems(text);
        assert_eq!(found, [expected], "{text}");
    }
}

#[test]
fn all_problems_are_reported_together() {
    let text = "tls_server_config: {cert: a, min_version: TLS10}\nbasic_auth_users: {a: b, c: d}\n\
                rate_limit: {interval: x, burst: y}";
    assert_eq!(problems(text).len(), 6, "{:?}", problems(text));
}

#[test]
fn durations_are_those_of_go() {
    for (text, nanoseconds) in [
        ("0", Some(0)),
        ("5", Some(5)),
        ("1s", Some(1_000_000_000)),
        ("1.5h", Some(5_400_000_000_000)),
        ("1h2m3s4ms5us6ns", Some(3_723_004_005_006)),
        ("+2m", Some(120_000_000_000)),
        ("1", Some(1)),
        ("1.5", None),
        ("s", None),
        ("1d", None),
        ("1e300h", None),
        ("", None),
    ] {
        let duration = duration(text).map(|duration| duration.as_nanos());
        assert_eq!(duration, nanoseconds, "{text}");
    }
}
