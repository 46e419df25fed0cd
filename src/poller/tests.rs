//! The poll loop against a script, with tokio's clock paused: no sockets, no waiting.

use std::sync::{Arc, Mutex};

use chrono::TimeDelta;

use super::*;
use crate::domain::account_state::tests::polled_every;
use crate::domain::failure::{Failure, Reason};
use crate::domain::listing::Listing;
use crate::domain::view::{Metrics, ViewSettings};
use crate::liveness::Liveness;
use crate::provider::Listed;
use crate::provider::http::Traffic;
use crate::state_store::AccountUpdate;

const METRICS: Metrics = Metrics {
    relative: true,
    scope_info: true,
    max_scopes_per_key: 64,
    max_bytes_per_account: 64 << 20,
};

/// The API's behaviour, attempt by attempt; the last step repeats.
struct Script {
    steps: Vec<Step>,
    then: Step,
}

/// One attempt: its duration and its result.
#[derive(Clone)]
struct Step(u64, Result<(), Failure>);

struct Run {
    /// When each attempt began, in milliseconds from the start.
    attempts: Vec<u64>,
    /// When each attempt ended, and whether it succeeded or what wait the API requested.
    ended: Vec<(u64, Result<(), Option<Duration>>)>,
    state: AccountState,
}

fn good() -> Step {
    Step(0, Ok(()))
}

fn bad(reason: Reason) -> Step {
    Step(0, Err(Failure::new(reason, "")))
}

fn asking(seconds: u64) -> Step {
    let failure = Failure::new(Reason::RateLimited, "");
    Step(
        0,
        Err(Failure {
            retry_after: Some(Duration::from_secs(seconds)),
            ..failure
        }),
    )
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_000_000, 0).unwrap()
}

/// Polls every `interval` seconds for `seconds`, with three attempts and all random numbers in the
/// middle of their range.
async fn run(script: Script, interval: u64, seconds: u64) -> Run {
    run_with(script, interval, seconds, (3, || 0.5)).await
}

async fn run_with(
    script: Script,
    interval: u64,
    seconds: u64,
    (attempts_max, random): (u32, fn() -> f64),
) -> Run {
    let state = polled_every(Duration::from_secs(interval), "a");
    let settings = ViewSettings {
        rules: Arc::default(),
        metrics: METRICS,
    };
    let store = Arc::new(StateStore::new(settings.clone()));
    let id = store.new_id();
    let plan = vec![AccountUpdate::Set(id, Arc::new(state.clone()))];
    store.replace_accounts(plan, settings);
    let start = Instant::now();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (seen, seen_ended) = (attempts.clone(), ended.clone());
    let elapsed = move || u64::try_from(start.elapsed().as_millis()).unwrap();
    let poller = Poller {
        attempt: async move |time_left: Duration| {
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.push(elapsed());
                seen.len()
            };
            assert_eq!(
                seen_ended.lock().unwrap().len(),
                number - 1,
                "two at a time"
            );
            let Step(took, result) = script.steps.get(number - 1).unwrap_or(&script.then).clone();
            let took = Duration::from_secs(took);
            let result = if took > time_left {
                sleep(time_left).await;
                Err(Failure::new(Reason::Timeout, ""))
            } else {
                sleep(took).await;
                result
            };
            let ended = result.as_ref().copied();
            let ended = ended.map_err(|failure| failure.retry_after);
            seen_ended.lock().unwrap().push((elapsed(), ended));
            let result = result.map(|()| Listed {
                listing: Listing::default(),
                support_id: None,
            });
            Answer {
                result,
                clock_skew: None,
                age: None,
                token: None,
                traffic: Traffic::default(),
                is_postponed: false,
            }
        },
        details: None,
        state,
        attempts_max,
        store: store.clone(),
        id,
        first_wait_max: retry::first_wait_max(Duration::from_secs(interval), 1),
        origin: Arc::default(),
        carryover: Arc::default(),
        heartbeat: Liveness::new().heartbeat(),
        now,
        random,
    };
    let stop = CancellationToken::new();
    let polling = tokio::spawn(poller.run(stop.clone()));
    sleep(Duration::from_secs(seconds)).await;
    stop.cancel();
    polling.await.unwrap();
    let (attempts, ended) = (
        attempts.lock().unwrap().clone(),
        ended.lock().unwrap().clone(),
    );
    let state = Arc::unwrap_or_clone(store.state(id).unwrap());
    Run {
        attempts,
        ended,
        state,
    }
}

fn failures(state: &AccountState) -> u64 {
    state.failures().map(|(_, failures)| failures.count).sum()
}

#[tokio::test(start_paused = true)]
async fn good_polls_come_at_the_interval() {
    let run = run(
        Script {
            steps: vec![],
            then: good(),
        },
        60,
        250,
    )
    .await;
    // The first one waits half of a tenth of the interval.
    assert_eq!(run.attempts, [2_500, 62_500, 122_500, 182_500, 242_500]);
    assert_eq!((run.state.polls, failures(&run.state)), (5, 0));
    assert_eq!(
        run.state.next_poll_at,
        Some((run.state.last_success_at.unwrap()) + TimeDelta::seconds(60))
    );
}

#[tokio::test(start_paused = true)]
async fn a_passing_failure_is_tried_again_within_the_poll() {
    let script = Script {
        steps: vec![bad(Reason::Connect), bad(Reason::Timeout)],
        then: good(),
    };
    let run = run(script, 60, 50).await;
    // Half a second, then half of 2 s.
    assert_eq!(run.attempts, [2_500, 3_000, 4_000]);
    assert_eq!((run.state.polls, failures(&run.state)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lasting_failure_is_not_tried_again_before_the_next_poll() {
    let run = run(
        Script {
            steps: vec![],
            then: bad(Reason::Unauthorized),
        },
        60,
        130,
    )
    .await;
    assert_eq!(run.attempts, [2_500, 62_500, 122_500]);
    assert_eq!((run.state.polls, run.state.consecutive_failures), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn an_outage_uses_up_the_budget_and_then_costs_one_request_a_poll() {
    let run = run(
        Script {
            steps: vec![],
            then: bad(Reason::Connect),
        },
        60,
        3_600,
    )
    .await;
    assert_eq!(run.attempts.len(), 60 + 10);
    let gaps = run.attempts.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().unwrap() >= 500);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_asks_to_be_left_alone_is_left_alone_across_polls() {
    let run = run(
        Script {
            steps: vec![asking(120)],
            then: good(),
        },
        5,
        130,
    )
    .await;
    assert_eq!(run.attempts[..2], [250, 120_250]);
    assert_eq!(run.attempts[2], 125_250);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_asks_for_a_year_is_asked_again_after_an_hour() {
    let run = run(
        Script {
            steps: vec![asking(u64::MAX)],
            then: good(),
        },
        5,
        3_602,
    )
    .await;
    assert_eq!(run.attempts[..2], [250, 3_600_250]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_api_never_has_two_requests_at_a_time() {
    let run = run(
        Script {
            steps: vec![],
            then: Step(20, Ok(())),
        },
        5,
        31,
    )
    .await;
    // Each poll is cut off at nine tenths of the interval, with no time left for a retry.
    assert_eq!(
        run.attempts,
        [250, 5_250, 10_250, 15_250, 20_250, 25_250, 30_250]
    );
    assert_eq!((run.state.polls, failures(&run.state)), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn the_loop_stops_in_the_middle_of_a_request() {
    let run = run(
        Script {
            steps: vec![],
            then: Step(40, Ok(())),
        },
        60,
        10,
    )
    .await;
    assert_eq!((run.attempts.len(), run.state.polls), (1, 0));
}

/// A random API: fast and slow, successes and failures of every kind, any `Retry-After` or none.
fn any_step(interval: u64) -> Step {
    let took = fastrand::u64(..interval + 5) * u64::from(fastrand::bool());
    if fastrand::u8(..3) == 0 {
        return Step(took, Ok(()));
    }
    let asked = [0, 1, 30, 7_200, u64::MAX, fastrand::u64(..4_000)];
    let reason = fastrand::choice(Reason::ALL).unwrap();
    let failure = Failure {
        retry_after: fastrand::choice(asked)
            .filter(|_| fastrand::u8(..4) == 0)
            .map(Duration::from_secs),
        ..Failure::new(reason, "")
    };
    Step(took, Err(failure))
}

#[tokio::test(start_paused = true)]
async fn whatever_the_api_does_polls_keep_to_the_budget_the_gaps_and_the_waits_asked_for() {
    for seed in 0..200 {
        fastrand::seed(seed);
        let interval = fastrand::choice([5, 17, 60, 300, 3_600, 86_400]).unwrap();
        let attempts_max = fastrand::u32(1..=10);
        // Some APIs end in a permanent state: good, bad, or slow.
        let script = Script {
            steps: (0..fastrand::usize(..60))
                .map(|_| any_step(interval))
                .collect(),
            then: any_step(interval),
        };
        let run = run_with(
            script,
            interval,
            interval * 40,
            (attempts_max, fastrand::f64),
        )
        .await;
        let what = format!("seed {seed}, interval {interval}, {attempts_max} attempts");

        let polls = run.state.polls;
        let failed = failures(&run.state);
        assert!(failed <= polls && polls > 0, "{what}");
        let successes = run
            .ended
            .iter()
            .filter(|(_, result)| result.is_ok())
            .count() as u64;
        assert_eq!(polls - failed, successes, "{what}");
        // The last poll may still be in progress.
        let requests = run.attempts.len() as u64;
        assert!(
            requests <= polls + 1 + 10 + successes / 10,
            "{what}: {requests} of {polls}"
        );
        assert!(requests <= (polls + 1) * u64::from(attempts_max), "{what}");

        let hour = 3_600_000;
        let longest = (interval * 1_100).max(hour) + 1;
        assert!(run.attempts[0] <= 5_000, "{what}: {}", run.attempts[0]);
        for (next, (ended, result)) in run.attempts[1..].iter().zip(&run.ended) {
            let wait = next - ended;
            assert!(wait <= longest, "{what}: {wait} ms");
            assert!(wait >= 500, "{what}: {wait} ms");
            let Err(asked) = result else { continue };
            if let Some(asked) = asked {
                let asked = u64::try_from(asked.as_millis())
                    .unwrap_or(u64::MAX)
                    .min(hour);
                assert!(
                    wait >= asked,
                    "{what}: asked for {asked} ms, came after {wait}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_the_host_between_attempts_keeps_the_reason_of_the_failure() {
    let answer = |reason, is_postponed| Answer {
        is_postponed,
        ..Answer::failed(Failure::new(reason, ""))
    };
    let answers = Mutex::new(vec![
        answer(Reason::RateLimited, true),
        answer(Reason::Timeout, false),
    ]);
    let attempts = Attempts {
        account: "a",
        max: 3,
        limit: Duration::from_secs(60),
        now: crate::os::clock::now,
        random: || 0.5,
    };
    let attempt = async |_: Duration| answers.lock().unwrap().pop().unwrap();
    let poll = attempts.poll(&attempt, &Mutex::default()).await;
    let reason = poll.answer.result.unwrap_err().reason;
    assert_eq!((reason, poll.attempts), (Reason::Timeout, 1));
    assert!(answers.lock().unwrap().is_empty());
}
