//! Accounts of one host share its rate limit; accounts of other hosts are not affected.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use api_key_exporter::fake_api::{FakeApi, Reply, Request};
use tokio::time::Instant;

use crate::support::{Exporter, Scrape, TOKEN, any_port, config_of, listing};

/// The time that the tests' API asks to wait for.
const PAUSE: Duration = Duration::from_secs(3);

/// A configuration of five accounts at `first` and one at `second`.
fn six(first: &str, second: &str) -> api_key_exporter::config::Config {
    let names = ["a", "b", "c", "d", "e"];
    let mut accounts: Vec<(&str, &str, &str)> = names.map(|name| (name, first, "")).to_vec();
    accounts.push(("elsewhere", second, ""));
    config_of("poll.attempts = 3", &accounts)
}

/// An API that answers its request number `at` with `pause` and all others with a listing.
async fn pausing(at: usize, pause: Reply) -> FakeApi {
    let mut count = 0;
    let script = move |_: &Request| {
        count += 1;
        if count == at {
            pause.clone()
        } else {
            listing(&["a"])
        }
    };
    FakeApi::start(any_port(), TOKEN, script).await.unwrap()
}

async fn plain() -> FakeApi {
    let script = |_: &Request| listing(&["a"]);
    FakeApi::start(any_port(), TOKEN, script).await.unwrap()
}

/// Runs six accounts until the API's pause has ended. Returns the times of its requests, and how
/// many the other API got in the meantime.
async fn during_a_pause(reply: Reply) -> (Vec<Instant>, usize) {
    let (api, other) = (pausing(8, reply).await, plain().await);
    let url = |api: &FakeApi| format!("http://{}", api.address());
    let exporter = Exporter::with(&six(&url(&api), &url(&other))).await;
    // The pause, and time for one more poll of each account on a busy machine.
    let ends = Instant::now() + PAUSE * 4;
    while api.requests().len() < 16 {
        assert!(Instant::now() < ends, "{} requests", api.requests().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    exporter.stop().await;
    let times: Vec<Instant> = api.requests().iter().map(|request| request.at).collect();
    let paused = times[7]..times[7] + PAUSE;
    let meanwhile = other.requests();
    let meanwhile = meanwhile
        .iter()
        .filter(|it| paused.contains(&it.at))
        .count();
    (times, meanwhile)
}

/// Requests that were sent before the API's answer arrived may still come.
fn assert_paused(times: &[Instant]) {
    let asked = times[7];
    let in_flight = Duration::from_millis(100);
    let during = times
        .iter()
        .filter(|at| **at > asked + in_flight && **at < asked + PAUSE);
    let during: Vec<Duration> = during.map(|at| *at - asked).collect();
    assert!(during.is_empty(), "requests during the pause: {during:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_one_account_is_asked_for_holds_for_its_host_and_for_no_other() {
    let seconds = PAUSE.as_secs().to_string();
    let reply = Reply::error(429, "Too many requests", "support_1").header("Retry-After", &seconds);
    let (times, meanwhile) = during_a_pause(reply).await;
    assert_paused(&times);
    assert!(meanwhile >= 5, "{meanwhile} requests to the other host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_pauses_the_host_until_its_reset() {
    let reply = listing(&["a"])
        .header("X-RateLimit-Limit", "8")
        .header("X-RateLimit-Remaining", "0")
        .header("X-RateLimit-Reset", &PAUSE.as_secs().to_string());
    let (times, meanwhile) = during_a_pause(reply).await;
    assert_paused(&times);
    assert!(meanwhile >= 5, "{meanwhile} requests to the other host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_waits_for_its_turn_is_no_failure_and_says_when_it_comes() {
    let script = Arc::new(Mutex::new(0));
    let counted = script.clone();
    let api = FakeApi::start(any_port(), TOKEN, move |_: &Request| {
        let mut count = counted.lock().unwrap();
        *count += 1;
        let reply = listing(&["a"]);
        // Enough for the first listing of each account, and then for none for an hour.
        let left = if *count < 2 { "5" } else { "0" };
        reply.header(
            "RateLimit",
            &format!("limit=5, remaining={left}, reset=3600"),
        )
    })
    .await
    .unwrap();
    let url = format!("http://{}", api.address());
    let config = config_of("poll.attempts = 1", &[("a", &url, ""), ("b", &url, "")]);
    let exporter = Exporter::with(&config).await;
    let of = |name: &str, account: &str| format!("api_key_account_{name}{{account=\"{account}\"}}");
    let scrape = exporter
        .until("both wait", |scrape| {
            let next = ["a", "b"].map(|it| scrape.get(&of("next_poll_timestamp_seconds", it)));
            let now = chrono::Utc::now().timestamp() as f64;
            next.iter()
                .all(|next| next.is_some_and(|next| next > now + 3_000.0))
        })
        .await;
    let requests = api.requests().len();
    assert!(requests >= 2, "{requests}");
    for account in ["a", "b"] {
        assert_eq!(scrape.get(&of("up", account)), Some(1.0), "{account}");
    }
    let failed = scrape.of("api_key_account_poll_failures_total");
    assert!(failed.iter().all(|(_, count)| *count == 0.0), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_at_the_start_keeps_no_account_from_being_judged() {
    let reply = Reply::error(429, "Too many requests", "support_1").header("Retry-After", "3600");
    let api = FakeApi::start(any_port(), TOKEN, move |_: &Request| reply.clone())
        .await
        .unwrap();
    let url = format!("http://{}", api.address());
    let accounts = ["a", "b", "c"].map(|name| (name, url.as_str(), ""));
    let exporter = Exporter::with(&config_of("poll.attempts = 1", &accounts)).await;
    let failing = |scrape: &Scrape, account: &str| {
        let name =
            format!("api_key_account_failing{{account=\"{account}\",reason=\"rate_limited\"}}");
        scrape.get(&name) == Some(1.0)
    };
    exporter
        .until("all are judged", |scrape| {
            ["a", "b", "c"].iter().all(|it| failing(scrape, it))
        })
        .await;
    assert_eq!(exporter.get("/-/ready").await.0, 200);
}
