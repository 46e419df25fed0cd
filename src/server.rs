//! Accepts connections, limits them, answers from memory, and drains at the end.

mod accept_backoff;
mod lifecycle;
pub mod listen;
pub mod negotiate;
pub mod routes;
mod segments;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, DATE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::event_log::AcceptLog;
use crate::exposition::cache::ExpositionCache;
use crate::liveness::Liveness;
use crate::reload::Reloads;
use crate::server::accept_backoff::AcceptBackoff;
use crate::server::routes::{Asked, View};
use crate::server::segments::Segments;
use crate::state_store::StateStore;
use crate::telemetry::{Rejected, Task, Telemetry};

/// How long a request's head may take. Prometheus sends it in one packet.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be used before it is asked to end, and then how long its last answer
/// may take. Together 30 s: a reader that reads nothing holds its place no longer.
const CONNECTION_LIFE: Duration = Duration::from_secs(20);
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// How long a connection may last after a stop. An answer under way is with a reader that reads in
/// milliseconds; a request that is not whole by then, nobody needs answered.
const DRAIN: Duration = Duration::from_secs(3);

/// Largest request head. Prometheus' has some 500 bytes; hyper's least is 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What every connection shares.
#[derive(Debug)]
pub struct Server {
    /// What is known.
    pub store: Arc<StateStore>,
    /// What is served of it to scrapers.
    pub exposition: ExpositionCache,
    /// The metrics about ourselves.
    pub telemetry: Telemetry,
    /// Whether the poll loops live.
    pub liveness: Liveness,
    /// The path of the metrics.
    pub telemetry_path: String,
    /// Where a reload is asked for; `None` where `web.enable_lifecycle` is off.
    pub reloads: Option<Reloads>,
    /// Places for connections.
    pub places: Arc<Semaphore>,
    /// The wall clock.
    pub now: fn() -> DateTime<Utc>,
}

impl Server {
    /// Serves `listener` until `stop`, then finishes the answers under way.
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let mut log = AcceptLog::new(self.telemetry.http_rejected(Rejected::AcceptFailed));
        let mut backoff = AcceptBackoff::default();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let error = match accepted {
                Ok((stream, _peer)) => {
                    backoff.is_over();
                    self.admit(stream, &connections, &stop);
                    continue;
                }
                Err(error) => error,
            };
            if let Some(pause) = backoff.failed(&error) {
                log.failed(&error);
                // A stop is seen after it; it is far shorter than the grace period.
                sleep(pause).await;
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// Serves the connection where there is a place for it, and closes it at once where there is
    /// none.
    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        connections: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.telemetry.http_rejected(Rejected::ConnLimit).inc();
            return;
        };
        let (server, stop) = (self.clone(), stop.clone());
        connections.spawn(async move {
            let _counted = server.telemetry.panic_guard(Task::Connection);
            server.telemetry.http_connections.inc();
            server.connection(stream, stop).await;
            server.telemetry.http_connections.dec();
            drop(place);
        });
    }

    async fn connection(&self, stream: TcpStream, stop: CancellationToken) {
        // Answers are written whole; waiting to fill a packet would only delay their last one.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = error.to_string(), "cannot set TCP_NODELAY");
        }
        let answer = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(self.answer(request).await)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's own panics before 1970 and after 9999; `answer` writes one.
            .auto_date_header(false)
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        let mut connection = pin!(connection);
        let left = tokio::select! {
            ended = connection.as_mut() => return note(ended),
            () = stop.cancelled() => DRAIN,
            () = sleep(CONNECTION_LIFE) => LAST_ANSWER,
        };
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = timeout(left, connection).await {
            note(ended);
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Segments> {
        let has_body = !request.body().is_end_stream();
        // A body is not read: a client that asks before it sends one is not told to.
        let (request, _) = request.into_parts();
        let now = (self.now)();
        let mut response = if request.uri.path() == lifecycle::PATH {
            let response = lifecycle::reload(&request.method, self.reloads.as_ref()).await;
            let code = response.status().as_u16();
            self.telemetry.count_request(lifecycle::PATH, code);
            response
        } else {
            self.look_up(&request, has_body, now).await
        };
        if has_body {
            // Where the next request would start, nobody knows.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        if let Some(date) = http_date(now) {
            response.headers_mut().insert(DATE, date);
        }
        response.map(Segments::new)
    }

    /// Answers from memory.
    async fn look_up(
        &self,
        request: &http::request::Parts,
        has_body: bool,
        now: DateTime<Utc>,
    ) -> Response<Vec<Bytes>> {
        let view = View {
            is_ready: self.store.is_ready(),
            is_alive: self.liveness.is_alive(),
            telemetry_path: &self.telemetry_path,
        };
        // Nothing else needs it rendered.
        let exposition = if request.uri.path() == self.telemetry_path {
            Some(self.exposition.read(now).await)
        } else {
            None
        };
        let metrics = |format, encoding| {
            let process = self.telemetry.gather(now);
            let exposition = exposition.unwrap_or_default();
            exposition.body(now, &process, format, encoding)
        };
        let asked = Asked {
            method: &request.method,
            uri: &request.uri,
            headers: &request.headers,
            has_body,
        };
        let (handler, response) = routes::respond(asked, view, metrics);
        self.telemetry
            .count_request(handler, response.status().as_u16());
        response
    }
}

/// The time as HTTP writes it (RFC 9110, 5.6.7), which has room for four digits of a year.
fn http_date(now: DateTime<Utc>) -> Option<HeaderValue> {
    let date = (now.year() <= 9999).then(|| now.format("%a, %d %b %Y %H:%M:%S GMT").to_string())?;
    HeaderValue::from_str(&date).ok()
}

/// What ends a connection is the peer's affair; it is worth no more than a line for whoever debugs.
fn note(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        debug!(error = error.to_string(), "a connection ended badly");
    }
}
