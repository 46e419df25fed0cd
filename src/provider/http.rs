//! The requests of all providers: authenticated GETs on one connection, with every limit enforced
//! and without following redirects. It neither retries nor logs; the poller does.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use rustls::ClientConfig;
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use url::Url;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::{Cleaner, Line};
use crate::provider::Provider;
use crate::provider::connection::{CONNECT_TIMEOUT, cause, client};
use crate::provider::findings::{SharedFindings, without_query};
use crate::provider::quota::{Quota, quota};
use crate::provider::resolver::Resolver;
use crate::provider::response::{
    Response, age, clock_skew, date, foreign, is_success, not_asked_for, redirect_host,
    status_words, wait_asked,
};
use crate::secret::Token;

/// The `User-Agent` of the exporter.
const AGENT: &str = concat!("api-key-exporter/", env!("CARGO_PKG_VERSION"));

/// The target of requests, and their limits.
#[derive(Clone, Debug)]
pub struct Target {
    /// The base URL of the API.
    pub base_url: Url,
    /// A proxy for https; its address may contain a password.
    pub proxy_url: Option<SecretString>,
    /// Limit for one request: connection, headers and body.
    pub timeout: Duration,
    /// Most bytes of all bodies of one session.
    pub body_bytes_max: usize,
}

/// The requests of an attempt, in numbers.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests sent.
    pub requests: u32,
    /// Bytes of all bodies.
    pub bytes: usize,
    /// The HTTP status of the last answer.
    pub status: Option<u16>,
    /// What the last answer says is left of the API's rate limit.
    pub quota: Option<Quota>,
}

/// The requests of one attempt. They share a connection that nothing else uses, so that the next
/// attempt resolves the address again.
#[derive(Debug)]
pub struct Session {
    target: Arc<Target>,
    client: reqwest::Client,
    resolver: Resolver,
    /// The deadline of all requests.
    ends: Instant,
    body_bytes_left: usize,
    /// The URL of the last request; links are relative to it.
    last_url: Url,
    now: fn() -> DateTime<Utc>,
    /// Cleans the text of connections and headers: the name of a host or a certificate may contain
    /// the token.
    cleaner: Cleaner,
    /// The API's clock minus the local one, in whole seconds, if the last answer has a time.
    pub clock_skew: Option<TimeDelta>,
    /// The largest age that a cache reported for an answer.
    pub age: Option<Duration>,
    /// The requests so far.
    pub traffic: Traffic,
    /// Collects what is found in the answers, for `config check --live`.
    pub(super) findings: Option<SharedFindings>,
}

impl Session {
    /// A session that opens its connection with the first request and ends at `ends`. `now` reads
    /// the clock after an answer has arrived, to compare it with the API's.
    pub(super) fn new(
        target: Arc<Target>,
        tls: &ClientConfig,
        resolver: Resolver,
        (provider, token): (&Provider, &Token),
        ends: Instant,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Self, Failure> {
        let profile = provider.profile();
        let auth_header = HeaderName::try_from(&*profile.auth_header).map_err(|_invalid| {
            let why = "the provider's authentication header has no valid name";
            Failure::new(Reason::Internal, why)
        })?;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (ACCEPT, "application/json"),
            (ACCEPT_ENCODING, "identity"),
            (CACHE_CONTROL, "no-cache"),
            (USER_AGENT, AGENT),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(provider.headers().iter().cloned());
        let auth_value = token.header(&profile.auth_prefix, profile.token_form);
        headers.insert(auth_header, auth_value);
        Ok(Self {
            client: client(tls, resolver.clone(), target.proxy_url.as_ref(), headers)?,
            last_url: target.base_url.clone(),
            body_bytes_left: target.body_bytes_max,
            target,
            resolver,
            ends,
            now,
            cleaner: Cleaner::new(provider.secrets(token)),
            clock_skew: None,
            age: None,
            traffic: Traffic::default(),
            findings: None,
        })
    }

    /// `GET`s a path below the base URL, with an optional query, and passes the answer to `read`,
    /// whatever its status.
    pub async fn get<T>(
        &mut self,
        path: &str,
        read: impl FnOnce(&Response) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let base_url = self.target.base_url.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base_url}{path}")).map_err(|_shows_the_url| {
            Failure::new(Reason::Internal, "the path of a request makes no URL")
        })?;
        self.request(url, read).await
    }

    /// The URL of a link from the last answer, absolute or relative to that answer's URL. It must
    /// have the same scheme, host and port: the token is never sent anywhere else.
    pub(super) fn resolve(&self, link: &str) -> Result<Url, Failure> {
        let url = self.last_url.join(link).map_err(|_shows_the_url| {
            Failure::new(Reason::Incomplete, "the link to the next page is not a URL")
        })?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.origin() != self.target.base_url.origin() {
            let host = url.host_str().unwrap_or("no host");
            let why = format!("the link to the next page leads elsewhere, to {host}");
            return Err(Failure::because(Reason::Redirect, self.cleaner.line(&why)));
        }
        Ok(url)
    }

    /// The URL of the last request.
    pub(super) fn last_url(&self) -> &Url {
        &self.last_url
    }

    /// The time left for the attempt.
    pub(super) fn time_left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// The current time.
    pub(super) fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }

    /// Stops counting the bodies read so far: their content was dropped.
    pub(super) fn forget_bodies(&mut self) {
        self.body_bytes_left = self.target.body_bytes_max;
    }

    /// As [`Session::get`], for a URL from [`Session::resolve`].
    pub(super) async fn request<T>(
        &mut self,
        url: Url,
        read: impl FnOnce(&Response) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.traffic.requests += 1;
        if let Some(findings) = &self.findings {
            findings.requested(&url, &self.cleaner);
        }
        self.last_url = url;
        let limit = self.target.timeout.min(self.time_left());
        // The information in an error status must survive a body that never ends.
        let mut known = None;
        let read = match timeout(limit, self.exchange(&mut known)).await {
            Ok(answer) => answer.and_then(|answer| answer.judged_by(read, self.now)),
            Err(_elapsed) => Err(known.unwrap_or_else(|| self.too_late(limit, "complete answer"))),
        };
        read.map_err(|mut failure| {
            let url = self.cleaner.line(&without_query(&self.last_url));
            failure.lines.push(("url", url));
            failure
        })
    }

    /// Sends one request and reads the whole answer.
    async fn exchange(&mut self, known: &mut Option<Failure>) -> Result<Response, Failure> {
        let request = self.client.get(self.last_url.clone());
        let mut response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let date = date(&headers);
        let now = (self.now)();
        self.age = self.age.max(age(&headers));
        self.clock_skew = clock_skew(&headers, now);
        self.traffic.status = Some(status);
        self.traffic.quota = quota(&headers, date.unwrap_or(now));
        if !is_success(status) {
            let to = redirect_host(&headers).map(|host| format!(", a redirect to {host}"));
            let why = status_words(status) + &to.unwrap_or_default();
            *known = Some(Failure {
                http_status: Some(status),
                retry_after: wait_asked(status, &headers, date.unwrap_or(now)),
                ..Failure::because(Reason::of_status(status), self.cleaner.line(&why))
            });
        }
        let failed = |reason, why: &str| {
            known.clone().unwrap_or_else(|| Failure {
                http_status: Some(status),
                ..Failure::because(reason, Line::own(why))
            })
        };
        if let Some(what) = not_asked_for(&headers) {
            let failure = failed(Reason::NotJson, what);
            let is_foreign = failure.reason != Reason::of_foreign_status(status);
            return Err(match known {
                Some(_) if is_foreign => foreign(status, what, failure),
                _ => failure,
            });
        }
        let body = self
            .read(response)
            .await
            .map_err(|(reason, why)| failed(reason, &why))?;
        Ok(Response {
            status,
            headers,
            body,
        })
    }

    async fn read(&mut self, mut response: reqwest::Response) -> Result<Vec<u8>, (Reason, String)> {
        let left = self.body_bytes_left;
        let bytes_max = self.target.body_bytes_max;
        let too_large = || {
            (
                Reason::BodyTooLarge,
                format!("the body is larger than poll.max_body_bytes ({bytes_max})"),
            )
        };
        let announced = response.content_length().unwrap_or(0);
        if announced > left as u64 {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > left => return Err(too_large()),
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_) => {
                    let read = bytes.len();
                    let why = format!("the connection ended after {read} bytes of the body");
                    return Err((Reason::BodyTruncated, why));
                }
            }
        }
        self.body_bytes_left = left - bytes.len();
        self.traffic.bytes += bytes.len();
        Ok(bytes)
    }

    /// Nothing arrived within `limit`. If a DNS lookup is still pending, it is the reason.
    fn too_late(&self, limit: Duration, what: &str) -> Failure {
        // Milliseconds are precise enough for a message.
        let limit = Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let limit = humantime::format_duration(limit);
        let (reason, what) = if self.resolver.is_waiting() {
            (Reason::Dns, "address for the name")
        } else {
            (Reason::Timeout, what)
        };
        let why = format!("{}: no {what} within {limit}", self.place());
        Failure::because(reason, Line::own(&why))
    }

    /// The failure if there was no answer at all.
    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        match cause(error) {
            Some((reason, words)) => {
                let why = format!("{}: {words}", self.place());
                Failure::because(reason, self.cleaner.line(&why))
            }
            None => self.too_late(CONNECT_TIMEOUT, "connection"),
        }
    }

    /// The other end of the connection, for troubleshooting.
    fn place(&self) -> String {
        let base_url = &self.target.base_url;
        let host = base_url.host_str().unwrap_or_default();
        let port = base_url.port_or_known_default().unwrap_or_default();
        let is_proxied = self.target.proxy_url.is_some();
        let through = if is_proxied { " through the proxy" } else { "" };
        format!("{host}:{port}{through}")
    }
}
