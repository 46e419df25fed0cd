//! Accepts connections, limits them, answers from memory, and drains at shutdown.

mod accept_backoff;
mod connection;
mod lifecycle;
pub mod listen;
pub mod negotiate;
mod request;
pub mod routes;
pub mod segments;
pub mod web_config;

use std::sync::Arc;

use chrono::{DateTime, Datelike, Utc};
use http::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, DATE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::event_log::AcceptLog;
use crate::exposition::cache::ExpositionCache;
use crate::liveness::Liveness;
use crate::pages::{Document, Exporter, Overview, Page};
use crate::reload::Reloads;
use crate::server::accept_backoff::AcceptBackoff;
use crate::server::listen::{Listener, Stream};
use crate::server::routes::{Asked, Paths, View};
use crate::server::segments::{Content, Segments};
use crate::server::web_config::{InForce, Refusal, WebFile};
use crate::state_store::StateStore;
use crate::telemetry::{Rejected, Task, Telemetry};

/// Maximum pages that are rendered at the same time.
pub const PAGES_AT_ONCE: usize = 1;

/// State shared by all connections.
#[derive(Debug)]
pub struct Server {
    /// The state of all accounts.
    pub store: Arc<StateStore>,
    /// The exposition for scrapers.
    pub exposition: ExpositionCache,
    /// The metrics about the exporter itself.
    pub telemetry: Telemetry,
    /// Whether the poll loops are alive.
    pub liveness: Liveness,
    /// The paths.
    pub paths: Paths,
    /// Whether it serves only the probes.
    pub probes_only: bool,
    /// TLS, users and other settings; `None` serves plain HTTP without authentication.
    pub web_file: Option<Arc<WebFile>>,
    /// Sends reload requests; `None` if `web.enable_lifecycle` is off.
    pub reloads: Option<Reloads>,
    /// Permits for connections.
    pub places: Arc<Semaphore>,
    /// Permits for rendering pages.
    pub page_places: Arc<Semaphore>,
    /// The wall clock.
    pub now: fn() -> DateTime<Utc>,
}

impl Server {
    /// Serves `listener` until `stop`, then completes pending responses.
    pub async fn run(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let mut log = AcceptLog::new(self.telemetry.http_rejected(Rejected::AcceptFailed));
        let mut backoff = AcceptBackoff::default();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let error = match accepted {
                Ok(stream) => {
                    backoff.is_over();
                    self.admit(stream, &connections, &stop);
                    continue;
                }
                Err(error) => error,
            };
            if let Some(pause) = backoff.failed(&error) {
                log.failed(&error);
                // `stop` is checked after the pause, which is far shorter than the grace period.
                sleep(pause).await;
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// Serves the connection, or closes it immediately if the connection limit is reached.
    fn admit(
        self: &Arc<Self>,
        stream: Stream,
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
            connection::serve(&server, stream, stop).await;
            server.telemetry.http_connections.dec();
            drop(place);
        });
    }

    /// Answers a request that arrived with or without TLS.
    async fn answer(&self, request: Request<Incoming>, is_encrypted: bool) -> Response<Segments> {
        let has_body = !request.body().is_end_stream();
        // The body is not read: a client that sends `Expect: 100-continue` gets no 100 response.
        let (request, _) = request.into_parts();
        let now = (self.now)();
        let mut response = self.admitted(&request, has_body, is_encrypted, now).await;
        let headers = response.headers_mut();
        if request.version == Version::HTTP_2 {
            // HTTP/2 does not have this header; its streams end on their own.
            headers.remove(CONNECTION);
        } else if has_body {
            // The start of the next request is unknown.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(date) = http_date(now) {
            headers.insert(DATE, date);
        }
        response.map(Segments::new)
    }

    /// Answers requests that are well-formed and that the web configuration file allows.
    async fn admitted(
        &self,
        request: &http::request::Parts,
        has_body: bool,
        is_encrypted: bool,
        now: DateTime<Utc>,
    ) -> Response<Content> {
        if !request::is_valid(request.version, &request.uri, &request.headers) {
            self.telemetry.count_request("other", 400);
            return routes::refusal(StatusCode::BAD_REQUEST, "Bad Request\n".into());
        }
        let in_force = match &self.web_file {
            None => None,
            Some(file) => match file.admit(&request.headers, is_encrypted).await {
                Ok(in_force) => Some(in_force),
                Err((refusal, in_force)) => {
                    let mut response = refused(refusal);
                    add_headers(&mut response, in_force.as_deref());
                    let code = response.status().as_u16();
                    self.telemetry.count_request("other", code);
                    return response;
                }
            },
        };
        let path = request.uri.path().strip_prefix(self.paths.prefix.as_str());
        let mut response = if path == Some(lifecycle::PATH) && !self.probes_only {
            let external = self.paths.external_url.as_ref();
            let response = lifecycle::reload(request, self.reloads.as_ref(), external).await;
            let code = response.status().as_u16();
            self.telemetry.count_request(lifecycle::PATH, code);
            response
        } else {
            self.look_up(request, has_body, now).await
        };
        add_headers(&mut response, in_force.as_deref());
        response
    }

    /// Answers from memory.
    async fn look_up(
        &self,
        request: &http::request::Parts,
        has_body: bool,
        now: DateTime<Utc>,
    ) -> Response<Content> {
        let view = View {
            is_ready: self.store.is_ready(),
            is_alive: self.liveness.is_alive(),
            paths: &self.paths,
            probes_only: self.probes_only,
        };
        // Other routes do not need it rendered.
        let exposition = if self.paths.is_metrics(request.uri.path()) && !self.probes_only {
            Some(self.exposition.read(now).await)
        } else {
            None
        };
        let asked = Asked {
            method: &request.method,
            uri: &request.uri,
            headers: &request.headers,
            has_body,
        };
        let page = match routes::page(asked, view) {
            Some(page) => self.page(page, request.uri.query(), now).await,
            None => None,
        };
        let metrics = |format, encoding| {
            let process = self.telemetry.gather(now);
            let exposition = exposition.unwrap_or_default();
            exposition.body(now, &process, format, encoding)
        };
        let (handler, response) = routes::respond(asked, view, metrics, |_| page);
        self.telemetry
            .count_request(handler, response.status().as_u16());
        response
    }

    /// Renders a page, off the runtime's worker threads: a page of ten thousand keys takes some ten
    /// milliseconds. `None` if rendering panicked, which is logged.
    async fn page(&self, page: Page, query: Option<&str>, now: DateTime<Utc>) -> Option<Document> {
        // Page renderings queue for permits, which leaves the other processors to scrapes.
        let place = self.page_places.clone().acquire_owned().await.ok()?;
        let snapshot = self.store.snapshot();
        let states = snapshot.accounts.into_iter().map(|(_, state)| state);
        let overview = Overview {
            states: states.collect(),
            rules: snapshot.settings.rules,
            now,
        };
        let exporter = Exporter {
            is_alive: self.liveness.is_alive(),
            is_config_current: self.telemetry.is_config_current(),
            links: self.paths.links.clone(),
            telemetry_path: self.paths.telemetry.clone(),
        };
        let query = query.unwrap_or_default().to_owned();
        // A disconnecting reader does not release the permit before the work is done.
        let rendering = spawn_blocking(move || {
            let document = page.render(overview, &exporter, &query);
            drop(place);
            document
        });
        rendering.await.ok()
    }
}

/// The time in HTTP format (RFC 9110, 5.6.7), which allows four-digit years only.
fn http_date(now: DateTime<Utc>) -> Option<HeaderValue> {
    let date = (now.year() <= 9999).then(|| now.format("%a, %d %b %Y %H:%M:%S GMT").to_string())?;
    HeaderValue::from_str(&date).ok()
}

/// The response to a request that the web configuration file rejects.
fn refused(refusal: Refusal) -> Response<Content> {
    let mut response = routes::refusal(refusal.status(), refusal.words().into());
    if refusal == Refusal::Unauthorized {
        let basic = HeaderValue::from_static("Basic");
        response.headers_mut().insert(WWW_AUTHENTICATE, basic);
    }
    response
}

/// Headers of the web configuration file override our own.
fn add_headers(response: &mut Response<Content>, in_force: Option<&InForce>) {
    for (name, value) in in_force.map_or(&[][..], InForce::headers) {
        response.headers_mut().insert(name, value.clone());
    }
}
