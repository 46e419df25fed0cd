//! `/-/reload`, where it is enabled: the one request that changes something. Words and statuses are
//! those of Prometheus.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use crate::reload::Reloads;
use crate::server::routes;

/// The path, which is also the handler's name for counting.
pub(super) const PATH: &str = "/-/reload";

/// Reloads and waits for the outcome; `reloads` is `None` where `web.enable_lifecycle` is off.
pub(super) async fn reload(method: &Method, reloads: Option<&Reloads>) -> Response<Vec<Bytes>> {
    if !matches!(*method, Method::POST | Method::PUT) {
        return routes::only("POST, PUT", "Only POST or PUT requests allowed\n");
    }
    let Some(reloads) = reloads else {
        return routes::refusal(
            StatusCode::FORBIDDEN,
            "Lifecycle API is not enabled.\n".into(),
        );
    };
    match reloads.request().await {
        Ok(()) => routes::text(StatusCode::OK, "reloaded\n"),
        Err(why) => {
            let words = format!("failed to reload config: {why}\n");
            routes::refusal(StatusCode::INTERNAL_SERVER_ERROR, words.into())
        }
    }
}
