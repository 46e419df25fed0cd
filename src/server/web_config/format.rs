//! The web configuration file: parses YAML to checked values, without reading other files. Pure.
//!
//! The format is that of Prometheus' exporter-toolkit; docs/web-configuration.md lists each field.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_yaml_ng::Value;

use crate::config::closest;
use crate::domain::text::{Line, REDACTED};

/// The headers that may be set, and their allowed values if these are limited.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// Highest bcrypt cost. Each step doubles the time; 20 takes about a minute, longer than a
/// connection lives, and only one hash is computed at a time.
const BCRYPT_COST_MAX: u32 = 20;

/// The minimum that bcrypt allows.
const BCRYPT_COST_MIN: u32 = 4;

/// The length of a bcrypt hash.
const BCRYPT_LEN: usize = 60;

/// Maximum users; the format is meant for a few.
const USERS_MAX: usize = 1_000;

/// The cipher suites of TLS 1.2 and 1.3 that rustls supports, by their names in the file.
const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// HTTP/2 requires one of these over TLS 1.2 (RFC 9113, 9.2.2).
const HTTP2_SUITES: [&str; 2] = [
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
];

/// The whole file except for TLS, checked.
#[derive(Debug)]
pub(super) struct WebConfig {
    pub(super) http2: bool,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Each user's bcrypt hash; if empty, authentication is off.
    pub(super) users: BTreeMap<String, SecretString>,
    pub(super) rate_limit: Option<RateLimit>,
}

/// `tls_server_config`.
#[derive(Debug)]
pub(super) struct TlsServer {
    /// `None` indicates a problem.
    pub(super) cert: Option<Pem>,
    /// `None` indicates a problem.
    pub(super) key: Option<Pem>,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    /// `None` allows every name.
    pub(super) client_allowed_sans: Option<Vec<String>>,
    pub(super) versions: Versions,
    /// Empty means all.
    pub(super) cipher_suites: Vec<String>,
    pub(super) prefer_server_cipher_suites: bool,
    /// In order of preference; empty means all.
    pub(super) curves: Vec<Curve>,
}

/// Location of certificates or a key.
#[derive(Debug)]
pub(super) enum Pem {
    File(PathBuf),
    Inline(SecretString),
}

/// `client_auth_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    None,
    Request,
    RequireAny,
    VerifyIfGiven,
    RequireAndVerify,
}

/// The TLS versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versions {
    Tls12,
    Tls13,
    Both,
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    X25519,
}

/// `rate_limit`: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateLimit {
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

/// The file in its raw form. Scalars are text here and are checked later, so that all problems are
/// reported together and messages do not repeat secrets.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    tls_server_config: Option<RawTls>,
    http_server_config: Option<RawHttp>,
    basic_auth_users: Option<Unique<String>>,
    rate_limit: Option<RawRateLimit>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTls {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    client_auth_type: Option<String>,
    client_ca_file: Option<String>,
    cipher_suites: Option<Vec<String>>,
    curve_preferences: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    prefer_server_cipher_suites: Option<Scalar>,
    client_allowed_sans: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawHttp {
    http2: Option<Scalar>,
    headers: Option<Unique<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRateLimit {
    interval: Option<String>,
    burst: Option<Scalar>,
}

/// A boolean or a number. As in the reference, it must not be in quotes.
struct Scalar {
    text: String,
    /// Whether YAML considers it to be text.
    is_text: bool,
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let (text, is_text) = match value {
            Value::String(text) => (text, true),
            Value::Bool(flag) => (flag.to_string(), false),
            Value::Number(number) => (number.to_string(), false),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
                return Err(serde::de::Error::custom("invalid type"));
            }
        };
        Ok(Self { text, is_text })
    }
}

/// A map that rejects duplicate keys.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom("duplicate field"));
                    }
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// The usable content of a file, and its problems.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) config: WebConfig,
    /// `None` serves plain HTTP, if there is no problem.
    pub(super) tls: Option<TlsServer>,
    pub(super) problems: Vec<String>,
}

/// Reads the file's content; relative paths in it are relative to `folder`. Problems never repeat a
/// secret; `Err` is a YAML error.
pub(super) fn parse(content: &[u8], folder: &Path) -> Result<Parsed, String> {
    let raw: Option<Raw> = serde_yaml_ng::from_slice(content).map_err(|error| structure(&error))?;
    let raw = raw.unwrap_or_default();
    let mut problems = Vec::new();
    let http = raw.http_server_config.unwrap_or_default();
    let http2 = flag(
        http.http2.as_ref(),
        "http_server_config.http2",
        &mut problems,
    );
    let tls = tls(
        raw.tls_server_config.unwrap_or_default(),
        folder,
        http2,
        &mut problems,
    );
    let config = WebConfig {
        http2,
        headers: headers(http.headers, &mut problems),
        users: users(raw.basic_auth_users, &mut problems),
        rate_limit: rate_limit(&raw.rate_limit.unwrap_or_default(), &mut problems),
    };
    Ok(Parsed {
        config,
        tls,
        problems,
    })
}

/// The YAML error and its location. The parser's own message repeats values, which may be secrets.
fn structure(error: &serde_yaml_ng::Error) -> String {
    let place = error.location().map_or_else(String::new, |location| {
        format!(" at line {}, column {}", location.line(), location.column())
    });
    let words = error.to_string();
    if let Some(name) = words
        .split_once("unknown field `")
        .and_then(|(_, rest)| rest.split_once('`'))
    {
        // Anything but a plain word may be a misplaced secret.
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let name = Some(name.0).filter(|name| name.len() <= 40 && name.chars().all(is_word));
        let meant = name.and_then(|name| suggestion(&words, name));
        let meant = meant.map_or_else(String::new, |it| format!("; did you mean {it:?}?"));
        let name = name.map_or_else(String::new, |name| format!(" {name:?}"));
        return format!("unknown field{name}{place}{meant}");
    }
    let kind = if words.contains("duplicate ") {
        "a field is given twice"
    } else if words.contains("more than one document") {
        "must be a single YAML document"
    } else if words.contains("invalid type") {
        "a value has the wrong type"
    } else {
        "is not valid YAML"
    };
    format!("{kind}{place}")
}

/// The closest of the expected fields, which serde's message lists as code.
fn suggestion<'a>(words: &'a str, name: &str) -> Option<&'a str> {
    let (_, expected) = words.rsplit_once("expected ")?;
    closest(name, expected.split('`').skip(1).step_by(2))
}

fn tls(raw: RawTls, folder: &Path, http2: bool, problems: &mut Vec<String>) -> Option<TlsServer> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let enables = [
        &raw.cert,
        &raw.key,
        &raw.client_ca,
        &raw.cert_file,
        &raw.key_file,
        &raw.client_auth_type,
        &raw.client_ca_file,
    ];
    let is_enabled = enables.into_iter().any(given);
    let mut problem = |words: String| problems.push(format!("tls_server_config.{words}"));
    let client_auth = match raw.client_auth_type.as_deref().unwrap_or_default() {
        "" | "NoClientCert" => ClientAuth::None,
        "RequestClientCert" => ClientAuth::Request,
        // The second is an old name of the first.
        "RequireAnyClientCert" | "RequireClientCert" => ClientAuth::RequireAny,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
        other => {
            problem(format!(
                "client_auth_type = {}: must be NoClientCert, RequestClientCert, \
                 RequireAnyClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert",
                shown(other)
            ));
            ClientAuth::None
        }
    };
    let versions = versions(&raw, &mut problem);
    let cipher_suites = raw.cipher_suites.unwrap_or_default();
    check_suites(&cipher_suites, versions, http2, &mut problem);
    let curves = curves(&raw.curve_preferences.unwrap_or_default(), &mut problem);
    let prefer_server_cipher_suites = match boolean(raw.prefer_server_cipher_suites.as_ref()) {
        Ok(flag) => flag.unwrap_or(true),
        Err(words) => {
            problem(format!("prefer_server_cipher_suites: {words}"));
            true
        }
    };
    if !is_enabled {
        return None;
    }
    let mut pem = |inline: Option<String>, file: Option<String>, name: &str| {
        let file = file.filter(|path| !path.is_empty());
        let inline = inline.filter(|text| !text.is_empty());
        match (inline, file) {
            // As in the reference, the file takes precedence.
            (_, Some(path)) => Some(Pem::File(folder.join(path))),
            (Some(text), None) => Some(Pem::Inline(text.into())),
            (None, None) if name == "client_ca" => None,
            (None, None) => {
                problem(format!("{name}_file is missing, and so is {name}"));
                None
            }
        }
    };
    let cert = pem(raw.cert, raw.cert_file, "cert");
    let key = pem(raw.key, raw.key_file, "key");
    let client_ca = pem(raw.client_ca, raw.client_ca_file, "client_ca");
    match (&client_ca, client_auth) {
        (Some(_), ClientAuth::None) => {
            problem(
                "client_ca_file needs a client_auth_type that asks for certificates".to_owned(),
            );
        }
        (None, ClientAuth::RequireAndVerify) => problem(
            "client_auth_type = \"RequireAndVerifyClientCert\" needs client_ca_file, \
             or no certificate could be accepted"
                .to_owned(),
        ),
        _ => {}
    }
    let is_required = matches!(
        client_auth,
        ClientAuth::RequireAny | ClientAuth::RequireAndVerify
    );
    if raw.client_allowed_sans.is_some() && !is_required {
        problem(
            "client_allowed_sans needs client_auth_type RequireAnyClientCert or \
             RequireAndVerifyClientCert"
                .to_owned(),
        );
    }
    Some(TlsServer {
        cert,
        key,
        client_ca,
        client_auth,
        client_allowed_sans: raw.client_allowed_sans,
        versions,
        cipher_suites,
        prefer_server_cipher_suites,
        curves,
    })
}

fn versions(raw: &RawTls, problem: &mut impl FnMut(String)) -> Versions {
    let mut version =
        |text: &Option<String>, name: &str, default| match text.as_deref().unwrap_or_default() {
            "" => default,
            "TLS12" => Versions::Tls12,
            "TLS13" => Versions::Tls13,
            old @ ("TLS10" | "TLS11") => {
                problem(format!(
                    "{name} = \"{old}\": TLS 1.0 and 1.1 are insecure and not supported; \
                     use TLS12 or TLS13"
                ));
                default
            }
            other => {
                problem(format!("{name} = {}: must be TLS12 or TLS13", shown(other)));
                default
            }
        };
    let min = version(&raw.min_version, "min_version", Versions::Tls12);
    let max = version(&raw.max_version, "max_version", Versions::Tls13);
    match (min, max) {
        (Versions::Tls13, Versions::Tls12) => {
            problem("min_version is higher than max_version".to_owned());
            Versions::Both
        }
        (Versions::Tls12, Versions::Tls12) => Versions::Tls12,
        (Versions::Tls13, _) => Versions::Tls13,
        _ => Versions::Both,
    }
}

fn check_suites(
    suites: &[String],
    versions: Versions,
    http2: bool,
    problem: &mut impl FnMut(String),
) {
    for suite in suites {
        let suite = suite.as_str();
        if CIPHER_SUITES.contains(&suite) {
            continue;
        }
        let is_old = suite.starts_with("TLS_") && (suite.contains("_CBC_") || is_rsa(suite));
        problem(if is_old {
            format!(
                "cipher_suites: {} is not supported: CBC suites and key exchange by RSA are \
                 insecure; leave it out",
                shown(suite)
            )
        } else {
            format!("cipher_suites: unknown cipher suite {}", shown(suite))
        });
    }
    let are_known = suites
        .iter()
        .all(|suite| CIPHER_SUITES.contains(&suite.as_str()));
    if suites.is_empty() || !are_known || versions == Versions::Tls13 {
        return;
    }
    if http2
        && !suites
            .iter()
            .any(|suite| HTTP2_SUITES.contains(&suite.as_str()))
    {
        problem(format!(
            "cipher_suites: HTTP/2 needs {} or {}; add one, or set http_server_config.http2 to \
             false",
            HTTP2_SUITES[0], HTTP2_SUITES[1]
        ));
    }
    let is_of_12 = |suite: &String| suite.starts_with("TLS_ECDHE_");
    if versions == Versions::Tls12 && !suites.iter().any(is_of_12) {
        problem("cipher_suites: none of them is a suite of TLS 1.2".to_owned());
    }
}

/// Whether the suite uses RSA key exchange, without forward secrecy.
fn is_rsa(suite: &str) -> bool {
    suite.starts_with("TLS_RSA_WITH_")
}

fn curves(names: &[String], problem: &mut impl FnMut(String)) -> Vec<Curve> {
    let mut curves = Vec::new();
    for name in names {
        curves.push(match name.as_str() {
            "CurveP256" => Curve::P256,
            "CurveP384" => Curve::P384,
            "X25519" => Curve::X25519,
            "CurveP521" => {
                problem("curve_preferences: CurveP521 is not supported; use CurveP384".to_owned());
                continue;
            }
            other => {
                problem(format!("curve_preferences: unknown curve {}", shown(other)));
                continue;
            }
        });
    }
    curves
}

fn headers(
    raw: Option<Unique<String>>,
    problems: &mut Vec<String>,
) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, text) in raw.map(|raw| raw.0).unwrap_or_default() {
        let mut problem =
            |words: &str| problems.push(format!("http_server_config.headers: {words}"));
        let Some((name, values)) = HEADERS.iter().find(|(known, _)| *known == name) else {
            let known = HEADERS.map(|(name, _)| name).join(", ");
            problem(&format!("{} cannot be set; only {known}", shown(&name)));
            continue;
        };
        if !values.is_empty() && !values.contains(&text.as_str()) {
            problem(&format!(
                "{name} = {}: must be {}",
                shown(&text),
                values.join(" or ")
            ));
            continue;
        }
        if text.is_empty() {
            continue;
        }
        match (HeaderName::try_from(*name), HeaderValue::try_from(text)) {
            (Ok(name), Ok(value)) => headers.push((name, value)),
            _ => problem(&format!("{name} has a value that no header can carry")),
        }
    }
    headers
}

fn users(
    raw: Option<Unique<String>>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, SecretString> {
    let raw = raw.map(|raw| raw.0).unwrap_or_default();
    if raw.len() > USERS_MAX {
        problems.push(format!("basic_auth_users: at most {USERS_MAX} users"));
    }
    let mut users = BTreeMap::new();
    for (user, hash) in raw {
        match bcrypt_cost(&hash) {
            Some(BCRYPT_COST_MIN..=BCRYPT_COST_MAX) => {}
            Some(_) => problems.push(format!(
                "basic_auth_users: the hash of user {} must have a cost from {BCRYPT_COST_MIN} to \
                 {BCRYPT_COST_MAX}",
                shown(&user)
            )),
            None => problems.push(format!(
                "basic_auth_users: what user {} has is not a bcrypt hash; make one with \
                 `htpasswd -nBC 10 \"\"`",
                shown(&user)
            )),
        }
        users.insert(user, hash.into());
    }
    users
}

/// The cost of a bcrypt hash such as `$2y$10$` and 53 characters; `None` if it is not a hash.
fn bcrypt_cost(hash: &str) -> Option<u32> {
    let (version, rest) = hash.strip_prefix('$')?.split_once('$')?;
    let (cost, rest) = rest.split_once('$')?;
    let is_digest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    let is_whole = hash.len() == BCRYPT_LEN && cost.len() == 2 && rest.bytes().all(is_digest);
    let is_known = matches!(version, "2a" | "2b" | "2x" | "2y");
    (is_whole && is_known).then(|| cost.parse().ok())?
}

fn rate_limit(raw: &RawRateLimit, problems: &mut Vec<String>) -> Option<RateLimit> {
    let interval = raw.interval.as_deref().unwrap_or("0");
    let interval = duration(interval).unwrap_or_else(|| {
        problems.push(format!(
            "rate_limit.interval = {}: must be a duration such as \"1s\" or \"100ms\", or 0",
            shown(interval)
        ));
        Duration::ZERO
    });
    let burst = raw.burst.as_ref().map_or(Some(0), |burst| {
        let number = burst.text.parse().ok().filter(|_| !burst.is_text);
        if number.is_none() {
            problems.push(format!(
                "rate_limit.burst = {}: must be a whole number that is not negative, without quotes",
                shown(&burst.text)
            ));
        }
        number
    });
    let burst = burst.unwrap_or(0);
    (interval > Duration::ZERO).then_some(RateLimit { interval, burst })
}

/// A duration in Go's format (`1m30s`, `1.5h`); a bare number is in nanoseconds, as in the
/// reference.
fn duration(text: &str) -> Option<Duration> {
    if let Ok(nanoseconds) = text.parse() {
        return Some(Duration::from_nanos(nanoseconds));
    }
    let mut total = 0.0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let end = after.find(is_number).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok())?
}

/// A flag that defaults to on.
fn flag(given: Option<&Scalar>, name: &str, problems: &mut Vec<String>) -> bool {
    match boolean(given) {
        Ok(flag) => flag.unwrap_or(true),
        Err(words) => {
            problems.push(format!("{name}: {words}"));
            true
        }
    }
}

/// The boolean words of YAML 1.1, which Go's parser accepts.
fn boolean(given: Option<&Scalar>) -> Result<Option<bool>, String> {
    let yes = ["y", "Y", "yes", "Yes", "YES", "on", "On", "ON"];
    let no = ["n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    let Some(Scalar { text, is_text }) = given else {
        return Ok(None);
    };
    match (text.as_str(), is_text) {
        ("true", false) => Ok(Some(true)),
        ("false", false) => Ok(Some(false)),
        // Text to this parser, with or without quotes.
        (text, true) if yes.contains(&text) => Ok(Some(true)),
        (text, true) if no.contains(&text) => Ok(Some(false)),
        (text, _) => Err(format!(
            "is {}, must be true or false, without quotes",
            shown(text)
        )),
    }
}

/// Text of the file for messages: redacted, shortened, in quotes. Text that looks like a misplaced
/// hash or key is not shown.
fn shown(text: &str) -> String {
    if text.contains("$2") || text.contains("-----") {
        return format!("{REDACTED:?}");
    }
    format!("{:?}", Line::own(text).as_str())
}

#[cfg(test)]
mod tests;
