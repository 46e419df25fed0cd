//! The HTTP client of one attempt: one connection for all of its requests, direct or through a
//! proxy. Also explains why a request got no answer.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::header::HeaderMap;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::Line;
use crate::os::rlimits::is_lack_of_files;
use crate::provider::resolver::Resolver;
use crate::provider::tls_failure;

/// Time limit for a connection. A server that does not answer a SYN within 5 s (two
/// retransmissions) will not answer.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a further connection waits for the open one. hyper returns a connection to its pool a
/// moment after the end of a body, usually within microseconds. A request that finds the pool empty
/// would open another connection.
const REUSE_WAIT: Duration = Duration::from_millis(50);

/// A client with one connection for consecutive requests, which no other client shares. The next
/// attempt resolves the address again. `headers` are sent with each request.
pub(super) fn client(
    tls: &ClientConfig,
    resolver: Resolver,
    proxy_url: Option<&SecretString>,
    headers: HeaderMap,
) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .default_headers(headers)
        .dns_resolver(resolver)
        .connect_timeout(CONNECT_TIMEOUT)
        .connector_layer(Reuse::default())
        .pool_max_idle_per_host(1)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .referer(false)
        .no_proxy();
    if let Some(proxy_url) = proxy_url {
        let proxy = reqwest::Proxy::all(proxy_url.expose_secret());
        builder = builder.proxy(proxy.map_err(|_shows_the_url| {
            Failure::new(Reason::Internal, "accounts.proxy_url is not a URL")
        })?);
    }
    // The error's text is omitted on purpose: reqwest puts URLs into its errors.
    builder
        .build()
        .map_err(|_shows_the_url| Failure::new(Reason::Internal, "the HTTP client cannot be built"))
}

/// Delays every connection but the first by [`REUSE_WAIT`].
#[derive(Clone, Debug, Default)]
struct Reuse(Arc<AtomicBool>);

/// A connector that adds the delay.
#[derive(Clone, Debug)]
struct Delayed<S> {
    inner: S,
    has_connected: Arc<AtomicBool>,
}

impl<S> Layer<S> for Reuse {
    type Service = Delayed<S>;

    fn layer(&self, inner: S) -> Delayed<S> {
        Delayed {
            inner,
            has_connected: self.0.clone(),
        }
    }
}

impl<S, R> Service<R> for Delayed<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let is_first = !self.has_connected.swap(true, Ordering::Relaxed);
        let connecting = self.inner.call(target);
        Box::pin(async move {
            if !is_first {
                sleep(REUSE_WAIT).await;
            }
            connecting.await
        })
    }
}

/// Why there is no answer: the reason, and the text of the innermost cause, because reqwest's own
/// text contains the URL. `None` for a timeout.
pub(super) fn cause(error: &reqwest::Error) -> Option<(Reason, String)> {
    if error.is_timeout() {
        return None;
    }
    let causes: Vec<&(dyn StdError + 'static)> =
        std::iter::successors(error.source(), |cause| (*cause).source()).collect();
    let last = causes
        .last()
        .map_or_else(|| "no answer".to_owned(), ToString::to_string);
    let tls_error = causes.iter().find_map(|cause| tls_failure::error(*cause));
    let hyper_error = causes
        .iter()
        .find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let is_cut_handshake = causes.iter().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        error.is_connect() && io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof)
    });
    Some(if is_lack_of_files(error) {
        (Reason::Internal, lack_of_files(&last))
    } else if error.is_dns() {
        (Reason::Dns, last)
    } else if let Some(tls_error) = tls_error {
        (Reason::Tls, tls_failure::words(tls_error))
    } else if is_cut_handshake {
        let why = "the connection ended during the TLS handshake";
        (Reason::Tls, why.to_owned())
    } else if hyper_error.is_some_and(hyper::Error::is_parse_too_large) {
        let why = "the answer has too many or too large headers";
        (Reason::NotJson, why.to_owned())
    } else if hyper_error.is_some_and(hyper::Error::is_parse) {
        (Reason::NotJson, "the answer is not HTTP".to_owned())
    } else {
        (Reason::Connect, last)
    })
}

/// The message for a failure that neither the API nor the token caused.
pub(super) fn lack_of_files(cause: &str) -> String {
    format!("the limit of open files is reached (ulimit -n, LimitNOFILE=): {cause}")
}

/// The failure for [`lack_of_files`].
pub(super) fn no_files(cause: &str) -> Failure {
    Failure::because(Reason::Internal, Line::own(&lack_of_files(cause)))
}
