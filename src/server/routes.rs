//! (method, URI, state, now) to a response. Pure.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HeaderName, HeaderValue, LOCATION, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use url::Url;

use crate::exposition::{Encoding, Format};
use crate::pages::{self, Body, Document, Page};
use crate::server::negotiate;
use crate::server::segments::Content;

const PLAIN: &str = "text/plain; charset=utf-8";

/// Non-standard, but supported by every browser: reloads the page. In the page itself, it would be
/// indistinguishable from a redirect.
const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// The request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// GET and HEAD are supported.
    pub method: &'a Method,
    /// The query is used by pages only.
    pub uri: &'a Uri,
    /// For format negotiation of the metrics.
    pub headers: &'a HeaderMap,
    /// Whether the request has a body, which is never read.
    pub has_body: bool,
}

/// The inputs of a response, besides the metrics.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Whether each account has completed a poll, successful or not, or has a saved snapshot. An
    /// API outage must not take the exporter out of service when it is needed most.
    pub is_ready: bool,
    /// Whether the poll loops are alive.
    pub is_alive: bool,
    /// The paths.
    pub paths: &'a Paths,
    /// Whether only the probes are served.
    pub probes_only: bool,
}

/// The paths of all resources.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The prefix of all paths, without the trailing `/`; may be empty.
    pub prefix: String,
    /// The path of the metrics, after the prefix.
    pub telemetry: String,
    /// The prefix as users see it, which a proxy may change.
    pub links: String,
    /// The URL under which users reach the exporter, if known.
    pub external_url: Option<Url>,
}

impl Paths {
    /// Whether this is the path of the metrics.
    pub fn is_metrics(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()) == Some(self.telemetry.as_str())
    }

    /// The probes only, whose paths do not depend on the prefix.
    pub fn of_probes() -> Self {
        Self {
            prefix: String::new(),
            telemetry: String::new(),
            links: String::new(),
            external_url: None,
        }
    }
}

/// A resource that can be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Page(Page),
    /// The status page's path without the prefix, or without the trailing `/`.
    Start,
    Healthy,
    Ready,
}

/// Answers a request: returns the handler's name for metrics, and the response with its body in
/// chunks. `metrics` renders the exposition and `page` a page, each only if it is requested.
pub fn respond(
    asked: Asked<'_>,
    view: View<'_>,
    metrics: impl FnOnce(Format, Encoding) -> Vec<Bytes>,
    page: impl FnOnce(Page) -> Option<Document>,
) -> (&'static str, Response<Content>) {
    let Asked {
        method,
        uri,
        headers,
        has_body,
    } = asked;
    let Some(route) = route(uri.path(), view) else {
        return ("other", text(StatusCode::NOT_FOUND, "Not Found\n"));
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return (route.handler(), method_not_allowed());
    }
    if has_body {
        // A body has no meaning here, and reading or skipping it is work that any client could
        // cause.
        let words = "A request has no body here\n".into();
        return (
            route.handler(),
            refusal(StatusCode::PAYLOAD_TOO_LARGE, words),
        );
    }
    let response = match route {
        Route::Metrics => exposition(headers, metrics),
        Route::Page(wanted) => match page(wanted) {
            Some(document) => paged(wanted, document),
            None => text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n"),
        },
        Route::Start => to_status_page(&view.paths.links),
        Route::Healthy if view.is_alive => text(StatusCode::OK, "api-key-exporter is healthy.\n"),
        Route::Healthy => text(StatusCode::SERVICE_UNAVAILABLE, "A poll loop is stuck.\n"),
        Route::Ready if view.is_ready => text(StatusCode::OK, "api-key-exporter is ready.\n"),
        Route::Ready => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "Waiting for each account's first poll.\n",
        ),
    };
    (route.handler(), response)
}

/// The page that the response contains, if any.
pub fn page(asked: Asked<'_>, view: View<'_>) -> Option<Page> {
    let is_read = matches!(*asked.method, Method::GET | Method::HEAD) && !asked.has_body;
    match route(asked.uri.path(), view)? {
        Route::Page(page) if is_read => Some(page),
        Route::Page(_) | Route::Metrics | Route::Start | Route::Healthy | Route::Ready => None,
    }
}

/// The resource at a path; `None` if there is none.
fn route(whole: &str, view: View<'_>) -> Option<Route> {
    let prefix = view.paths.prefix.as_str();
    let path = whole.strip_prefix(prefix);
    match path {
        Some("/-/healthy") => Some(Route::Healthy),
        Some("/-/ready") => Some(Route::Ready),
        _ if view.probes_only => None,
        Some(path) if path == view.paths.telemetry => Some(Route::Metrics),
        Some(path) if let Some(page) = Page::at(path) => Some(Route::Page(page)),
        _ if !prefix.is_empty() && (path == Some("") || whole == "/") => Some(Route::Start),
        _ => None,
    }
}

impl Route {
    /// The label value; a custom telemetry path counts as `/metrics` too.
    fn handler(self) -> &'static str {
        match self {
            Self::Metrics => "/metrics",
            Self::Page(page) => page.path(),
            Self::Start => Page::Status.path(),
            Self::Healthy => "/-/healthy",
            Self::Ready => "/-/ready",
        }
    }
}

/// 302, as in Prometheus.
fn to_status_page(links: &str) -> Response<Content> {
    let mut response = text(StatusCode::FOUND, "Found\n");
    if let Ok(location) = HeaderValue::try_from(format!("{links}/")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn exposition(
    headers: &HeaderMap,
    metrics: impl FnOnce(Format, Encoding) -> Vec<Bytes>,
) -> Response<Content> {
    let (chosen, encoding) = (negotiate::format(headers), negotiate::encoding(headers));
    let mut response = response(
        StatusCode::OK,
        PLAIN,
        Content::Whole(metrics(chosen.format, encoding)),
    );
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&chosen.content_type()) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if encoding == Encoding::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn paged(page: Page, document: Document) -> Response<Content> {
    let status = if document.is_refused {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    let content = match document.body {
        Body::Whole(bytes) => Content::Whole(vec![bytes]),
        Body::Pieces(pieces) => Content::Written(pieces),
    };
    let mut response = response(status, document.content_type, content);
    let headers = response.headers_mut();
    if page == Page::Status {
        let policy = HeaderValue::from_str(&pages::CONTENT_SECURITY_POLICY);
        headers.extend(policy.map(|policy| (CONTENT_SECURITY_POLICY, policy)));
    }
    if let Some(seconds) = document.refresh {
        headers.insert(REFRESH, seconds.into());
    }
    response
}

fn method_not_allowed() -> Response<Content> {
    only("GET, HEAD", "Method Not Allowed\n")
}

/// 405, naming the allowed methods.
pub(super) fn only(methods: &'static str, words: &'static str) -> Response<Content> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, words.into());
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// The response to a request that may have a body of any length, which is not read.
pub(super) fn refusal(status: StatusCode, words: Bytes) -> Response<Content> {
    let mut response = response(status, PLAIN, Content::Whole(vec![words]));
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(super) fn text(status: StatusCode, words: &'static str) -> Response<Content> {
    let words = Bytes::from_static(words.as_bytes());
    response(status, PLAIN, Content::Whole(vec![words]))
}

fn response(status: StatusCode, content_type: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
