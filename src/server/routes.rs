//! (method, URI, what is known, now) to a response. Pure.

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

/// Not in the standard, and understood by every browser: loads the page again. In the page itself,
/// it could not be told from a page that moves on before it is read.
const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// GET and HEAD are answered.
    pub method: &'a Method,
    /// Its query is for pages alone.
    pub uri: &'a Uri,
    /// For the negotiation of the metrics' form.
    pub headers: &'a HeaderMap,
    /// Whether a body comes with it, which nobody reads.
    pub has_body: bool,
}

/// What an answer may depend on, besides the metrics.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Whether each account has finished a poll, good or bad, or a saved snapshot: an API that is
    /// down must not take the exporter out of service, when it is needed most.
    pub is_ready: bool,
    /// Whether the poll loops live.
    pub is_alive: bool,
    /// Where everything is.
    pub paths: &'a Paths,
    /// Whether nothing but the probes is there.
    pub probes_only: bool,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Paths {
    /// What all paths start with, without the last `/`; empty where they start with nothing more.
    pub prefix: String,
    /// The path of the metrics, after the prefix.
    pub telemetry: String,
    /// What the prefix is to people, which a proxy may change.
    pub links: String,
    /// Where people reach the exporter, where that is known.
    pub external_url: Option<Url>,
}

impl Paths {
    /// Whether the metrics are at this path.
    pub fn is_metrics(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()) == Some(self.telemetry.as_str())
    }

    /// The probes alone, which are at the same paths whatever the prefix is.
    pub fn of_probes() -> Self {
        Self {
            prefix: String::new(),
            telemetry: String::new(),
            links: String::new(),
            external_url: None,
        }
    }
}

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Metrics,
    Page(Page),
    /// Where the status page would be without the prefix, or without the last `/`.
    Start,
    Healthy,
    Ready,
}

/// Answers a request: the handler's name for counting, and the response with its body in pieces.
/// `metrics` writes the exposition, only where it is asked for, and so does `page` a page.
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
        // It means nothing here, and reading it, or over it, is work that anybody could cause.
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

/// The page that a request is answered with, where it is answered with one.
pub fn page(asked: Asked<'_>, view: View<'_>) -> Option<Page> {
    let is_read = matches!(*asked.method, Method::GET | Method::HEAD) && !asked.has_body;
    match route(asked.uri.path(), view)? {
        Route::Page(page) if is_read => Some(page),
        Route::Page(_) | Route::Metrics | Route::Start | Route::Healthy | Route::Ready => None,
    }
}

/// What is at a path; `None` where nothing is.
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
    /// The label value; a telemetry path of the user's own counts as `/metrics` too.
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

/// 302, as Prometheus sends it.
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

/// 405, naming the methods that are allowed.
pub(super) fn only(methods: &'static str, words: &'static str) -> Response<Content> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, words.into());
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// An answer to a request that may have a body, of any length; nobody is going to read it.
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
