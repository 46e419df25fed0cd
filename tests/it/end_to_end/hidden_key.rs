//! A key that the API hides once it has expired, and a challenge page in front of the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use chrono::{TimeDelta, Utc};

use super::pager::Pager;
use super::{OLD, alertmanager, exporter, of_time, until, with_others};
use crate::prometheus::{self, free};
use crate::support::{Folder, TOKEN, any_port};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_vanishes_at_its_expiry_pages_across_a_restart_and_a_challenge_page() {
    let folders = ["exporter", "prometheus", "alertmanager"]
        .map(|name| Folder::new(&format!("hidden-key-{name}")));
    let [exporter_address, prometheus_address, pager_address] = [free(), free(), free()];
    // Long enough to be listed before it expires.
    let end = Utc::now() + TimeDelta::seconds(20);
    let old = of_time(OLD, end - TimeDelta::days(90), end);
    let is_challenged = Arc::new(AtomicBool::new(false));
    let challenged = is_challenged.clone();
    let answer = move |_: &Request| {
        if challenged.load(Ordering::Relaxed) {
            let page = "<!DOCTYPE html><title>Just a moment...</title>";
            return Reply::body(403, "text/html", page);
        }
        let keys = if Utc::now() < end {
            vec![old.clone()]
        } else {
            vec![]
        };
        with_others(&keys)
    };
    let api = FakeApi::start(any_port(), TOKEN, answer).await.unwrap();
    let url = format!("http://{}", api.address());
    let alertmanager = alertmanager(&folders[2], pager_address);
    let scraping = prometheus::start(
        &folders[1],
        prometheus_address,
        exporter_address,
        Some(pager_address),
    );
    let running = exporter(&folders[0], exporter_address, &url);
    let pager = Pager::watch(pager_address);
    let programs = [&running, &scraping, &alertmanager];
    until("the key is hidden", &programs, async || {
        let unlisted = format!("api_key_unlisted{{account=\"shop\",key_id=\"{OLD}\"}}");
        prometheus::query(prometheus_address, &unlisted).await == Some(1.0)
    })
    .await;
    let expired = pager.fires("ApiKeyExpired").await;
    assert_eq!(expired.label("key_id"), OLD);
    let words = "API key \"checkout\" of team payments (account shop) expired ";
    assert!(
        expired.annotation("summary").starts_with(words),
        "{expired:?}"
    );

    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
    let running = exporter(&folders[0], exporter_address, &url);
    // Longer than keep_firing_for, which would hide that the key was forgotten.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(pager.holds("ApiKeyExpired").await);

    is_challenged.store(true, Ordering::Relaxed);
    let failing = pager.fires("ApiKeyAccountFailing").await;
    assert_eq!(
        failing.annotation("summary"),
        "Listing the API keys of account shop fails: gateway"
    );
    assert_eq!(failing.label("provider"), "bitgpt");
    for page in ["ApiKeyAccountForbidden", "ApiKeyAccountUnauthorized"] {
        assert!(!pager.holds(page).await, "{page}");
    }
    assert!(pager.holds("ApiKeyExpired").await);
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
}
