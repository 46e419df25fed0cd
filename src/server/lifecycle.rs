//! `/-/reload`, if it is enabled: the only request that changes state. Texts and status codes match
//! Prometheus.

use http::request::Parts;
use http::{Method, Response, StatusCode};
use url::Url;

use crate::reload::Reloads;
use crate::server::segments::Content;
use crate::server::{request, routes};

/// The path, which is also the handler's name in metrics.
pub(super) const PATH: &str = "/-/reload";

const METHODS: &str = "POST, PUT";

/// The first sentence is that of Prometheus.
const NOT_ENABLED: &str =
    "Lifecycle API is not enabled. Start the exporter with --web.enable-lifecycle to enable it.\n";

/// Reloads and waits for the outcome; `reloads` is `None` if `web.enable_lifecycle` is off. A page
/// of another site cannot make a user's browser trigger a reload.
pub(super) async fn reload(
    request: &Parts,
    reloads: Option<&Reloads>,
    external: Option<&Url>,
) -> Response<Content> {
    let is_allowed = matches!(request.method, Method::POST | Method::PUT);
    let reloads = match reloads {
        Some(reloads) if is_allowed => reloads,
        Some(_) => return routes::only(METHODS, "Only POST or PUT requests allowed\n"),
        None if is_allowed => return routes::refusal(StatusCode::FORBIDDEN, NOT_ENABLED.into()),
        None => return routes::only(METHODS, NOT_ENABLED),
    };
    if request::is_cross_site(&request.uri, &request.headers, external) {
        let words = "Cross-site requests are not allowed.\n";
        return routes::refusal(StatusCode::FORBIDDEN, words.into());
    }
    match reloads.request().await {
        Ok(()) => routes::text(StatusCode::OK, "reloaded\n"),
        Err(why) => {
            let words = format!("failed to reload config: {why}\n");
            routes::refusal(StatusCode::INTERNAL_SERVER_ERROR, words.into())
        }
    }
}
