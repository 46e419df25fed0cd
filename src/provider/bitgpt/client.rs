//! One authenticated GET with every limit, and its answer judged. Does not retry and does not log:
//! the poller does.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, LOCATION,
    RETRY_AFTER,
};
use reqwest::header::{HeaderMap, HeaderValue, TRANSFER_ENCODING};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls_native_certs::load_native_certs;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId};
use crate::os::rlimits::is_lack_of_files;
use crate::provider::bitgpt::details;
use crate::provider::bitgpt::parse::{self, Parsed, Rules};
use crate::provider::bitgpt::resolver::Resolver;
use crate::provider::bitgpt::tls;
use crate::secret::Token;

/// How long a connection may take. A server that does not answer a SYN within 5 s, two
/// retransmissions, is not going to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the exporter calls itself at the API.
const USER_AGENT: &str = concat!("api-key-exporter/", env!("CARGO_PKG_VERSION"));

/// What a client needs to know of its account.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where the API is, without a trailing slash.
    pub base_url: Url,
    /// Certificate authorities to trust instead of the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// A proxy for https; its address may hold a password.
    pub proxy_url: Option<SecretString>,
    /// Limit for one whole attempt: connection, headers and body.
    pub timeout: Duration,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Most keys of a listing.
    pub keys_max: usize,
    /// The environment that the API must say it is.
    pub expected_env: Option<String>,
}

/// One attempt's end.
#[derive(Debug)]
pub struct Answer<T = Parsed> {
    /// What was asked for, or why there is none.
    pub result: Result<T, Failure>,
    /// The API's clock minus ours, in whole seconds, where it named a time.
    pub clock_skew: Option<TimeDelta>,
}

/// Where keys are listed; a key's own page is below.
const KEYS_PATH: &str = "/developers/api_keys";

/// Lists keys. Holds no connection between two calls, so that a moved address is seen at once.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    resolver: Resolver,
    settings: Arc<ClientSettings>,
}

impl Client {
    /// Builds the client. `authorities` are those of `ca_file`, where there is one; else loads the
    /// system's. Blocks for some 50 ms.
    pub fn new(
        settings: Arc<ClientSettings>,
        authorities: Option<Vec<CertificateDer<'static>>>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Self, Failure> {
        let trusted = match (authorities, settings.base_url.scheme()) {
            (Some(authorities), _) => tls::of(authorities),
            (None, "http") => RootCertStore::empty(),
            (None, _) => tls::of_system(native_authorities()?),
        };
        let tls = tls::config(trusted, now)?;
        let resolver = Resolver::default();
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(USER_AGENT)
            .dns_resolver(resolver.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .http1_only()
            .referer(false)
            .no_proxy();
        if let Some(proxy_url) = &settings.proxy_url {
            let proxy = reqwest::Proxy::all(proxy_url.expose_secret());
            builder = builder.proxy(proxy.map_err(|_redacted| {
                Failure::new(Reason::Internal, "accounts.proxy_url is no URL")
            })?);
        }
        // The error's text is left out on purpose: reqwest puts URLs into its errors.
        let http = builder.build().map_err(|_redacted| {
            Failure::new(Reason::Internal, "the HTTP client cannot be built")
        })?;
        Ok(Self {
            http,
            resolver,
            settings,
        })
    }

    /// `GET /developers/api_keys`, once, within `deadline` at most. `now` reads the clock when the
    /// answer is in, to compare it with the API's.
    pub async fn list(
        &self,
        token: &Token,
        deadline: Duration,
        now: impl Fn() -> DateTime<Utc>,
    ) -> Answer {
        let rules = self.rules(token);
        let parse = |status, body: &[u8]| parse::answer(status, body, &rules);
        self.get(KEYS_PATH, token, deadline, &now, parse).await
    }

    /// `GET /developers/api_keys/{id}`, likewise. The answer holds the key's full secret;
    /// nothing of it leaves this function.
    pub async fn details(
        &self,
        id: &KeyId,
        token: &Token,
        deadline: Duration,
        now: impl Fn() -> DateTime<Utc>,
    ) -> Result<Details, Failure> {
        // As parts of a URL these would be taken for the folder and the one above it.
        if matches!(id.as_str(), "." | "..") {
            let why = "the key's id cannot stand in a URL";
            return Err(Failure::new(Reason::Schema, why));
        }
        let path = format!("{KEYS_PATH}/{}", id.as_str());
        let rules = self.rules(token);
        let parse = |status, body: &[u8]| details::answer(status, body, id, &rules, now());
        self.get(&path, token, deadline, &now, parse).await.result
    }

    fn rules<'a>(&'a self, token: &'a Token) -> Rules<'a> {
        Rules {
            token,
            keys_max: self.settings.keys_max,
            expected_env: self.settings.expected_env.as_deref(),
        }
    }

    async fn get<T>(
        &self,
        path: &str,
        token: &Token,
        deadline: Duration,
        now: &impl Fn() -> DateTime<Utc>,
        parse: impl Fn(u16, &[u8]) -> Result<T, Failure>,
    ) -> Answer<T> {
        let timeout = self.settings.timeout.min(deadline);
        let mut clock_skew = None;
        // What an error status already told is not lost when its body never ends.
        let mut told = None;
        let attempt = self.attempt(path, token, now, &parse, &mut clock_skew, &mut told);
        let result = match tokio::time::timeout(timeout, attempt).await {
            Ok(result) => result,
            Err(_elapsed) => Err(told.unwrap_or_else(|| self.too_late(timeout, "complete answer"))),
        };
        Answer { result, clock_skew }
    }

    async fn attempt<T>(
        &self,
        path: &str,
        token: &Token,
        now: &impl Fn() -> DateTime<Utc>,
        parse: &impl Fn(u16, &[u8]) -> Result<T, Failure>,
        clock_skew: &mut Option<TimeDelta>,
        told: &mut Option<Failure>,
    ) -> Result<T, Failure> {
        let base_url = self.settings.base_url.as_str().trim_end_matches('/');
        let url = format!("{base_url}{path}");
        let request = self
            .http
            .get(url)
            .header(AUTHORIZATION, token.authorization())
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let date = date(&headers);
        *clock_skew = date.map(|date| TimeDelta::seconds((date - now()).num_seconds()));
        let is_success = matches!(status, 200..=202);
        let has_end =
            headers.contains_key(TRANSFER_ENCODING) || response.content_length().is_some();
        let retry_after = retry_after(&headers, date.unwrap_or_else(now));
        if !is_success {
            let to = redirect_host(&headers).map(|host| format!(", a redirect to {host}"));
            let why = format!("HTTP status {status}{}", to.unwrap_or_default());
            let failure = Failure::new(Reason::of_status(status), &why);
            *told = Some(Failure {
                http_status: Some(status),
                retry_after,
                ..failure
            });
        }
        let failed = |reason, why: &str| {
            let known = told.clone();
            known.unwrap_or_else(|| Failure {
                http_status: Some(status),
                ..Failure::new(reason, why)
            })
        };
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Err(failed(
                Reason::NotJson,
                "the body is compressed, which was not asked for",
            ));
        }
        if is_html(&headers) {
            return Err(failed(Reason::NotJson, "the answer is an HTML page"));
        }
        let body = read_body(&mut response, self.settings.body_bytes_max)
            .await
            .map_err(|(reason, why)| failed(reason, &why))?;
        parse(status, &body).map_err(|failure| {
            let retry_after = retry_after.or(failure.retry_after);
            // Without a length or chunks, the end of the connection looks like the end of the body.
            let is_cut = failure.reason == Reason::NotJson && !has_end;
            let reason = if is_cut {
                Reason::BodyTruncated
            } else {
                failure.reason
            };
            Failure {
                reason,
                retry_after,
                ..failure
            }
        })
    }
}

impl Client {
    /// No `what` came within `limit`; a name that is still looked up is the reason where there is
    /// one.
    fn too_late(&self, limit: Duration, what: &str) -> Failure {
        // Nobody needs the nanoseconds of what was left of a poll.
        let limit = Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let limit = humantime::format_duration(limit);
        let (reason, what) = if self.resolver.is_waiting() {
            (Reason::Dns, "address for the name")
        } else {
            (Reason::Timeout, what)
        };
        Failure::new(
            reason,
            &format!("{}: no {what} within {limit}", self.place()),
        )
    }

    /// Why there was no answer at all. Says the innermost cause only: reqwest's own text carries
    /// the URL.
    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return self.too_late(CONNECT_TIMEOUT, "connection");
        }
        let (reason, words) = cause(error);
        Failure::new(reason, &format!("{}: {words}", self.place()))
    }

    /// Whom a connection is made to, for people who look for the cause.
    fn place(&self) -> String {
        let ClientSettings {
            base_url,
            proxy_url,
            ..
        } = &*self.settings;
        let host = base_url.host_str().unwrap_or_default();
        let port = base_url.port_or_known_default().unwrap_or_default();
        let through = if proxy_url.is_some() {
            " through the proxy"
        } else {
            ""
        };
        format!("{host}:{port}{through}")
    }
}

async fn read_body(
    response: &mut reqwest::Response,
    bytes_max: usize,
) -> Result<Vec<u8>, (Reason, String)> {
    let too_large = || {
        (
            Reason::BodyTooLarge,
            format!("the body is larger than poll.max_body_bytes ({bytes_max})"),
        )
    };
    let announced = response.content_length().unwrap_or(0);
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > bytes_max => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(_) => {
                let why = format!(
                    "the connection ended after {} bytes of the body",
                    body.len()
                );
                return Err((Reason::BodyTruncated, why));
            }
        }
    }
}

/// The innermost cause of an error that was not about time.
fn cause(error: &reqwest::Error) -> (Reason, String) {
    let causes: Vec<&(dyn StdError + 'static)> =
        std::iter::successors(error.source(), |cause| (*cause).source()).collect();
    let last = causes
        .last()
        .map_or_else(|| "no answer".to_owned(), ToString::to_string);
    let tls_error = causes.iter().find_map(|cause| tls::error(*cause));
    let hyper_error = causes
        .iter()
        .find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let is_cut_handshake = causes.iter().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        error.is_connect() && io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
    });
    if is_lack_of_files(error) {
        (Reason::Internal, lack_of_files(&last))
    } else if error.is_dns() {
        (Reason::Dns, last)
    } else if let Some(tls_error) = tls_error {
        (Reason::Tls, tls::words(tls_error))
    } else if is_cut_handshake {
        (
            Reason::Tls,
            "the connection ended during the TLS handshake".to_owned(),
        )
    } else if hyper_error.is_some_and(hyper::Error::is_parse_too_large) {
        (
            Reason::NotJson,
            "the answer has too many or too large headers".to_owned(),
        )
    } else if hyper_error.is_some_and(hyper::Error::is_parse) {
        (Reason::NotJson, "the answer is not HTTP".to_owned())
    } else {
        (Reason::Connect, last)
    }
}

/// The system's certificate authorities. Those that cannot be opened for lack of files are missed
/// now and not for a day.
fn native_authorities() -> Result<Vec<CertificateDer<'static>>, Failure> {
    let loaded = load_native_certs();
    let lack = loaded.errors.iter().find(|error| is_lack_of_files(*error));
    lack.map_or(Ok(loaded.certs), |error| {
        let why = lack_of_files(&error.to_string());
        Err(Failure::new(Reason::Internal, &why))
    })
}

/// What to say of a failure that is no fault of the API's nor of the token's.
pub(super) fn lack_of_files(cause: &str) -> String {
    format!("the limit of open files is reached (ulimit -n, LimitNOFILE=): {cause}")
}

fn is_html(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    [&b"text/html"[..], b"application/xhtml"]
        .iter()
        .any(|html| {
            content_type
                .get(..html.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(html))
        })
}

/// The host that a redirect points to; the rest of the URL may hold anything.
fn redirect_host(headers: &HeaderMap) -> Option<String> {
    let location = Url::parse(headers.get(LOCATION)?.to_str().ok()?).ok()?;
    location.host_str().map(str::to_owned)
}

fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<DateTime<Utc>> {
    httpdate::parse_http_date(text).ok().map(DateTime::from)
}

/// The longest readable wait of all `Retry-After` headers; dates count from the API's own clock,
/// and one in the past is no wait.
fn retry_after(headers: &HeaderMap, api_now: DateTime<Utc>) -> Option<Duration> {
    let waits = headers.get_all(RETRY_AFTER).iter().filter_map(|value| {
        let text = value.to_str().ok()?;
        let until = || {
            Some(
                (http_date(text.trim())? - api_now)
                    .to_std()
                    .unwrap_or_default(),
            )
        };
        parse::retry_after(text).or_else(until)
    });
    waits.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_apis_clock() {
        let now = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases: [(&[&'static str], Option<u64>); 12] = [
            (&[], None),
            (&["120"], Some(120)),
            (&["0"], Some(0)),
            (&["Sun, 06 Nov 1994 08:50:37 GMT"], Some(60)),
            (&["Sun, 06 Nov 1994 08:00:00 GMT"], Some(0)),
            (&["abc"], None),
            (&["-1"], None),
            (&["1e9"], None),
            (&["1.5"], None),
            (&["99999999999999999999"], Some(u64::MAX)),
            (&["10", "30"], Some(30)),
            (&["", "7"], Some(7)),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(RETRY_AFTER, HeaderValue::from_static(value));
            }
            assert_eq!(
                retry_after(&headers, now),
                expected.map(Duration::from_secs),
                "{values:?}"
            );
        }
    }

    #[test]
    fn html_is_recognised_by_its_content_type() {
        for (content_type, expected) in [
            ("text/html; charset=UTF-8", true),
            ("TEXT/HTML", true),
            ("application/json", false),
            ("text", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_html(&headers), expected, "{content_type}");
        }
    }
}
