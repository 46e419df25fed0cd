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

/// Reloads and waits for the outcome; `reloads` is `None` if `web.enable_lifecycle` is off. A page
/// of another site cannot make a user's browser trigger a reload.
pub(super) async fn reload(
    request: &Parts,
    reloads: Option<&Reloads>,
    external: Option<&Url>,
) -> Response<Content> {
    if !matches!(request.method, Method::POST | Method::PUT) {
        return routes::only("POST, PUT", "Only POST or PUT requests allowed\n");
    }
    let Some(reloads) = reloads else {
        return routes::refusal(
            StatusCode::FORBIDDEN,
            "Lifecycle API is not enabled.\n".into(),
        );
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
