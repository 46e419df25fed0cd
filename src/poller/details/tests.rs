//! The exact schedule of the requests for pages, with tokio's clock paused.

use std::sync::{Arc, Mutex};

use super::*;
use crate::domain::account_state::Outcome;
use crate::domain::account_state::tests::polled_every;
use crate::domain::assessment::AssessmentRules;
use crate::domain::key::LastUse;
use crate::domain::key::tests::{at, key};
use crate::domain::listing::Rejects;

/// The wall clock of these tests, close enough to tokio's paused clock for the schedule.
fn now() -> DateTime<Utc> {
    at(1_000_000)
}

fn read_at(read_at: i64) -> Details {
    Details {
        label: None,
        last_use: LastUse::Never,
        requests: None,
        read_at: at(read_at),
    }
}

fn listing(ids: &[&str]) -> Listing {
    Listing::new(
        ids.iter().map(|id| key(id)).collect(),
        Rejects::default(),
        None,
    )
}

fn state(listing: Listing) -> AccountState {
    let outcome = Outcome {
        result: Ok(listing),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    polled_every(Duration::from_secs(300), "a").polled(outcome, now())
}

/// `second id` of each request.
type Asked = Arc<Mutex<Vec<String>>>;

/// A reader with 30 requests a minute; requests take `took` and return what `answer` returns.
fn reader(
    took: Duration,
    answer: impl Fn(&str) -> Result<(), Failure> + Send + Sync + 'static,
) -> (Reader, Asked) {
    let asked = Asked::default();
    let (seen, start) = (asked.clone(), Instant::now());
    let answer = Arc::new(answer);
    let ask: Ask = Box::new(move |id, _| {
        let line = format!("{} {}", start.elapsed().as_secs(), id.as_str());
        seen.lock().unwrap().push(line);
        let answer = answer.clone();
        Box::pin(async move {
            tokio::time::sleep(took).await;
            answer(id.as_str()).map(|()| read_at(1_000_000))
        })
    });
    let reader = Reader::new(ask, Duration::from_hours(6), 30, now);
    (reader, asked)
}

fn seen(asked: &Asked) -> Vec<String> {
    std::mem::take(&mut asked.lock().unwrap())
}

async fn read_for(reader: &mut Reader, seconds: u64, state: &mut AccountState) {
    let due = Instant::now() + Duration::from_secs(seconds);
    reader.read_until(due, state, |_| {}).await;
    sleep_until(due).await;
}

fn count(state: &AccountState, reason: Reason) -> u64 {
    state.details_failures.unwrap_or_default()[reason as usize]
}

#[tokio::test(start_paused = true)]
async fn each_page_is_read_once_at_the_pace_that_is_allowed() {
    let (mut reader, asked) = reader(Duration::ZERO, |_| Ok(()));
    let mut state = state(listing(&["a", "b", "c"]));
    read_for(&mut reader, 300, &mut state).await;
    assert_eq!(seen(&asked), ["0 a", "2 b", "4 c"]);
    // The next listing contains them, and no page is requested again while it is fresh.
    let enriched = reader.enrich(listing(&["a", "b", "c", "d"]), state.held.as_deref());
    let known = enriched.keys().iter().filter(|key| key.details.is_some());
    assert_eq!(known.count(), 3);
    state.held = Some(Arc::new(enriched));
    read_for(&mut reader, 300, &mut state).await;
    assert_eq!(seen(&asked), ["300 d"]);
}

/// A listing without labels differs from the previous one, which has them from the details.
#[tokio::test(start_paused = true)]
async fn a_label_from_the_details_is_no_change_at_the_next_poll() {
    let ask: Ask = Box::new(|_, _| {
        let details = Details {
            label: Some("ci".into()),
            ..read_at(1_000_000)
        };
        Box::pin(async { Ok(details) })
    });
    let mut reader = Reader::new(ask, Duration::from_hours(6), 30, now);
    let mut state = state(listing(&["a"]));
    for poll in 0..3 {
        read_for(&mut reader, 300, &mut state).await;
        let outcome = Outcome {
            result: Ok(reader.enrich(listing(&["a"]), state.held.as_deref())),
            clock_skew: None,
            age: None,
            token: None,
            asked_at: None,
        };
        let (next, events) = state.after(outcome, &AssessmentRules::default(), now());
        let is_change = |event: &Event| matches!(event, Event::KeyChanged(_));
        assert!(!events.iter().any(is_change), "poll {poll}: {events:?}");
        assert_eq!(
            next.held.as_ref().unwrap().keys()[0].label.as_deref(),
            Some("ci")
        );
        state = next;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_answers_never_make_it_faster_later() {
    let (mut reader, asked) = reader(Duration::from_secs(5), |_| Ok(()));
    let mut state = state(listing(&["a", "b", "c"]));
    read_for(&mut reader, 300, &mut state).await;
    assert_eq!(seen(&asked), ["0 a", "5 b", "10 c"]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_goes_first_and_the_page_is_asked_for_again() {
    let (mut reader, asked) = reader(Duration::from_secs(3), |_| Ok(()));
    let mut state = state(listing(&["a", "b"]));
    read_for(&mut reader, 5, &mut state).await;
    read_for(&mut reader, 5, &mut state).await;
    assert_eq!(seen(&asked), ["0 a", "3 b", "5 b"]);
    assert_eq!(state.details_failures, None, "nothing failed");
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_429_for_as_long_as_the_api_says_across_polls() {
    let (mut reader, asked) = reader(Duration::ZERO, |id| match id {
        "b" => Err(Failure {
            retry_after: Some(Duration::from_secs(400)),
            ..Failure::new(Reason::RateLimited, "")
        }),
        _ => Ok(()),
    });
    let mut state = state(listing(&["a", "b", "c"]));
    for _ in 0..3 {
        read_for(&mut reader, 300, &mut state).await;
    }
    // It continues where it stopped.
    assert_eq!(seen(&asked), ["0 a", "2 b", "402 b", "802 b"]);
    assert_eq!(count(&state, Reason::RateLimited), 3);
}

#[tokio::test(start_paused = true)]
async fn a_429_that_names_no_time_is_a_minute() {
    let (mut reader, asked) = reader(Duration::ZERO, |_| {
        Err(Failure::new(Reason::RateLimited, ""))
    });
    let mut state = state(listing(&["a", "b", "c"]));
    read_for(&mut reader, 150, &mut state).await;
    assert_eq!(seen(&asked), ["0 a", "60 a", "120 a"]);
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_401_and_403_for_an_hour() {
    for reason in [Reason::Unauthorized, Reason::Forbidden] {
        let (mut reader, asked) = reader(Duration::ZERO, move |_| Err(Failure::new(reason, "")));
        let mut state = state(listing(&["a", "b", "c"]));
        for _ in 0..24 {
            read_for(&mut reader, 300, &mut state).await;
        }
        assert_eq!(seen(&asked), ["0 a", "3600 a"], "{reason:?}");
        assert_eq!(count(&state, reason), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_its_own_trouble_is_passed_over_and_an_outage_waited_for() {
    let (mut reader, asked) = reader(Duration::ZERO, |id| match id {
        "a" => Err(Failure::new(Reason::ClientError, "")),
        "b" => Err(Failure::new(Reason::NotJson, "")),
        "d" => Err(Failure::new(Reason::ServerError, "")),
        _ => Ok(()),
    });
    let mut state = state(listing(&["a", "b", "c", "d", "e"]));
    read_for(&mut reader, 100, &mut state).await;
    assert_eq!(seen(&asked), ["0 a", "2 b", "4 c", "6 d", "66 d"]);
    assert_eq!(count(&state, Reason::ClientError), 1);
    assert_eq!(count(&state, Reason::NotJson), 1);
    assert_eq!(count(&state, Reason::ServerError), 2);
}

#[tokio::test(start_paused = true)]
async fn an_account_whose_listing_fails_is_left_alone() {
    let (mut reader, asked) = reader(Duration::ZERO, |_| Ok(()));
    let outage = Outcome {
        result: Err(Failure::new(Reason::RateLimited, "")),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let mut state = state(listing(&["a"])).polled(outage, now());
    read_for(&mut reader, 300, &mut state).await;
    assert_eq!(seen(&asked), Vec::<String>::new());
}

#[test]
fn the_longest_unread_page_is_next_when_it_is_old_enough() {
    let six_hours = TimeDelta::hours(6);
    let next = |times: &[(&str, Option<i64>)], now: i64| {
        let ids: Vec<&str> = times.iter().map(|(id, _)| *id).collect();
        let time = |key: &Key| {
            let (_, time) = times.iter().find(|(id, _)| *id == key.id.as_str()).unwrap();
            time.map(at)
        };
        longest_unread(&listing(&ids), time, six_hours, at(now))
            .map(|(id, wait)| (id.as_str().to_owned(), wait.as_secs()))
    };
    let table = [
        (&[][..], 0, None),
        (&[("a", None), ("b", None)], 0, Some(("a", 0))),
        (&[("a", Some(0)), ("b", None)], 1, Some(("b", 0))),
        (
            &[("a", Some(100)), ("b", Some(50))],
            100,
            Some(("b", 21_550)),
        ),
        (&[("a", Some(100)), ("b", Some(50))], 21_649, Some(("b", 1))),
        (&[("a", Some(100)), ("b", Some(50))], 21_650, Some(("b", 0))),
        (&[("a", Some(100)), ("b", Some(50))], 21_651, Some(("b", 0))),
        // A year later, the order is the same.
        (
            &[("a", Some(100)), ("b", Some(50))],
            31_536_000,
            Some(("b", 0)),
        ),
        // Read while the clock was ahead.
        (&[("a", Some(0)), ("b", Some(5_000))], 100, Some(("b", 0))),
    ];
    for (times, now, expected) in table {
        let expected = expected.map(|(id, wait): (&str, u64)| (id.to_owned(), wait));
        assert_eq!(next(times, now), expected, "{times:?} at {now}");
    }
}
