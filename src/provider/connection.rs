//! One HTTP/1.1 connection to one API, directly or through a proxy, and why there is none.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tower_service::Service;

use crate::domain::failure::{Failure, Reason};
use crate::os::rlimits::is_lack_of_files;
use crate::provider::resolver::{LookupError, Resolver};
use crate::provider::tls;

/// How long a connection may take. A server that does not answer a SYN within 5 s, two
/// retransmissions, is not going to.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

type Direct = HttpsConnector<HttpConnector<Resolver>>;
type Proxied = HttpsConnector<Tunnel<Direct>>;

/// An open connection; it closes when this is dropped.
#[derive(Debug)]
pub(super) struct Connection(http1::SendRequest<Empty<Bytes>>);

impl Connection {
    /// Connects to `uri`, which must name a host. `life` bounds the connection's life.
    pub(super) async fn open(
        uri: &Uri,
        tls: Arc<ClientConfig>,
        resolver: Resolver,
        proxy_url: Option<&SecretString>,
        life: Duration,
    ) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // Shared among the addresses of a name, so that one that is silent leaves time for another.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut direct = Direct::from((tcp, tls.clone()));
        let Some(proxy_url) = proxy_url else {
            return Self::start(direct.call(uri.clone()).await?, life).await;
        };
        let matcher = Matcher::builder().all(proxy_url.expose_secret()).build();
        // The error says nothing of the URL, which may hold a password.
        let proxy = matcher
            .intercept(uri)
            .ok_or("accounts.proxy_url is no URL")?;
        let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let mut proxied = Proxied::from((tunnel, tls));
        Self::start(proxied.call(uri.clone()).await?, life).await
    }

    async fn start(
        io: impl Read + Write + Unpin + Send + 'static,
        life: Duration,
    ) -> Result<Self, BoxError> {
        let (sender, driver) = http1::handshake(io).await?;
        // It ends by itself when the sender and the response are dropped; the limit is for a peer
        // that does not let go.
        tokio::spawn(async move { drop(tokio::time::timeout(life, driver).await) });
        Ok(Self(sender))
    }

    /// Whether another request can be sent; waits for the end of the last one.
    pub(super) async fn is_reusable(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.0.send_request(request).await
    }
}

/// Why there is no connection or no answer: the reason, and the innermost cause in words. `None`
/// where it took too long. `is_connecting` before a request was sent.
pub(super) fn cause(
    error: &(dyn StdError + 'static),
    is_connecting: bool,
) -> Option<(Reason, String)> {
    let causes: Vec<&(dyn StdError + 'static)> =
        std::iter::successors(Some(error), |cause| (*cause).source()).collect();
    let last = causes.last().map(ToString::to_string).unwrap_or_default();
    let is_io = |kind: io::ErrorKind| {
        let mut io = causes
            .iter()
            .filter_map(|it| it.downcast_ref::<io::Error>());
        io.any(|error| error.kind() == kind)
    };
    let tls_error = causes.iter().find_map(|cause| tls::error(*cause));
    let mut hyper_errors = causes
        .iter()
        .filter_map(|it| it.downcast_ref::<hyper::Error>());
    let hyper_error = hyper_errors.next();
    Some(if is_lack_of_files(error) {
        (Reason::Internal, lack_of_files(&last))
    } else if causes.iter().any(|cause| cause.is::<LookupError>()) {
        (Reason::Dns, last)
    } else if let Some(tls_error) = tls_error {
        (Reason::Tls, tls::words(tls_error))
    } else if is_io(io::ErrorKind::TimedOut) {
        return None;
    } else if is_connecting && is_io(io::ErrorKind::UnexpectedEof) {
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

/// What to say of a failure that is no fault of the API's nor of the token's.
pub(super) fn lack_of_files(cause: &str) -> String {
    format!("the limit of open files is reached (ulimit -n, LimitNOFILE=): {cause}")
}

/// The failure for [`lack_of_files`].
pub(super) fn no_files(cause: &str) -> Failure {
    Failure::new(Reason::Internal, &lack_of_files(cause))
}
