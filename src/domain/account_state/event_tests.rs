//! Sequences of outcomes and the events that they yield, without logging.

use chrono::TimeDelta;

use super::tests::{listed, polled_every};
use super::*;
use crate::domain::event::Difference;
use crate::domain::inventory::Inventory;
use crate::domain::inventory::tests::entry;
use crate::domain::key::tests::{at, key};
use crate::domain::key::{Expiry, Key, Scopes};

/// Times are in days: polls are a day apart.
pub(super) const DAY: i64 = 86_400;

pub(super) fn account() -> AccountState {
    polled_every(Duration::from_secs(300), "a")
}

pub(super) fn keys(ids: &[&str]) -> Outcome {
    listed(ids.iter().map(|id| key(id)).collect())
}

pub(super) fn failed(reason: Reason) -> Outcome {
    Outcome {
        result: Err(Failure::new(reason, "")),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    }
}

fn skewed(outcome: Outcome, seconds: i64) -> Outcome {
    Outcome {
        clock_skew: Some(TimeDelta::seconds(seconds)),
        ..outcome
    }
}

fn rejecting(ids: &[&str], shape: u32) -> Outcome {
    let rejects = Rejects {
        shape,
        ..Rejects::default()
    };
    let keys = ids.iter().map(|id| key(id)).collect();
    let odd = KeyId::parse("odd").unwrap();
    Outcome {
        result: Ok(Listing::new(keys, rejects, None).with_rejected_ids(vec![odd])),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    }
}

pub(super) fn saved_at(second: i64, listing: Listing) -> SavedState {
    SavedState {
        listing: Arc::new(listing),
        listed_at: at(second),
        shrunk_listings: 0,
        token: None,
    }
}

pub(super) fn ending(id: &str, day: i64) -> Key {
    Key {
        expiry: Expiry::At(at(day * DAY)),
        ..key(id)
    }
}

fn own(scopes: &[&'static str]) -> Key {
    Key {
        is_own: true,
        scopes: Some(Scopes::new(scopes.to_vec())),
        ..key("own")
    }
}

/// A short description of an event.
pub(super) fn words(event: &Event) -> String {
    match event {
        Event::PollFailed(failure) => format!("failed: {}", failure.reason.as_str()),
        Event::PollSucceeded { keys, rejected } => format!("listed {keys}, rejected {rejected}"),
        Event::PollRecovered { failures, .. } => format!("recovered from {failures}"),
        Event::FirstListing { keys } => format!("first listing of {keys}"),
        Event::EntriesRejected { rejects, key_ids } => {
            format!("rejected {} of shape: {key_ids:?}", rejects.shape)
        }
        Event::ListingHeldBack {
            held,
            listed,
            seen,
            needed,
        } => format!("held back {held} to {listed}, {seen}/{needed}"),
        Event::HeldListingResolved { is_confirmed, .. } => format!("confirmed: {is_confirmed}"),
        Event::KeyChanged(changed) => {
            let kind = changed.difference.kind().as_str();
            format!("{} {kind}", changed.key.id)
        }
        Event::ChangesOmitted { count } => format!("{count} more changes"),
        Event::ThresholdCrossed(crossed) => {
            let days = crossed.key.time_left.unwrap().num_days();
            format!("{} {:?} {days}d", crossed.key.id, crossed.severity)
        }
        Event::CrossingsOmitted { count } => format!("{count} more crossings"),
        Event::CachedAnswer { age } => format!("cached for {}", age.as_secs()),
        Event::ClockSkewFound { skew } => format!("skew of {}", skew.num_seconds()),
        Event::ClockSkewGone { .. } => "skew gone".to_owned(),
        Event::KeysFromTheFuture { key_id, keys, .. } => {
            format!("{key_id} of {keys} from the future")
        }
        Event::OwnKeyRecognized(key) => format!("own key {}", key.id),
        Event::OwnKeyAbsent => "no own key".to_owned(),
        Event::OwnKeySurplusScopes { needed, scopes, .. } => format!("{scopes} besides {needed}"),
        Event::OrganizationChanged { held, listed } => format!("{held} replaced by {listed}"),
        Event::KeysUnlisted { keys, key_ids } => format!("{keys} unlisted: {key_ids:?}"),
        Event::ClockSetBack { by } => format!("clock set back by {}", by.num_seconds()),
        Event::UrgentKeys(urgent) => {
            let soonest = urgent.soonest.first().unwrap();
            let UrgentKeys {
                expired,
                critical,
                warning,
                ..
            } = **urgent;
            format!(
                "urgent {expired} {critical} {warning}, first {}",
                soonest.id
            )
        }
        Event::DetailsRead { .. } | Event::DetailsFailed { .. } => "details".to_owned(),
    }
}

/// The events of polls on days 0, 1, 2…, each with the expected events. The first success, the
/// missing own key and the summary are left out because every table would repeat them.
pub(super) fn check(
    name: &str,
    state: AccountState,
    polls: Vec<(Outcome, &[&str])>,
) -> AccountState {
    let rules = AssessmentRules::default();
    let (mut state, mut day) = (state, 0);
    for (outcome, expected) in polls {
        let (next, events) = state.after(outcome, &rules, at(day * DAY));
        let usual = |event: &&Event| {
            !matches!(
                event,
                Event::PollSucceeded { .. } | Event::OwnKeyAbsent | Event::UrgentKeys(_)
            )
        };
        let shown: Vec<String> = events.iter().filter(usual).map(words).collect();
        assert_eq!(shown, expected, "{name}, day {day}");
        (state, day) = (next, day + 1);
    }
    state
}

#[test]
fn an_answer_from_a_cache_is_reported_once_and_ages_the_listing() {
    let aged = |ids: &[&str], seconds: Option<u64>| Outcome {
        age: seconds.map(Duration::from_secs),
        ..keys(ids)
    };
    let state = check(
        "a cache",
        account(),
        vec![
            (
                aged(&["a"], Some(60)),
                &["cached for 60", "first listing of 1"][..],
            ),
            (aged(&["a"], Some(3600)), &[]),
        ],
    );
    assert_eq!(state.last_success_at, Some(at(DAY - 3600)));
    // The copy is older than the state.
    let older = state.polled(aged(&["a"], Some(10 * 86_400)), at(2 * DAY));
    assert_eq!(older.last_success_at, state.last_success_at);
    check(
        "the cache is gone and comes back",
        older,
        vec![
            (aged(&["a"], None), &["clock set back by 82800"][..]),
            (aged(&["a"], Some(7)), &["cached for 7"]),
        ],
    );
    // A listing from a clock that was ahead does not block later times.
    let ahead = account().polled(aged(&["a"], None), at(9 * DAY));
    let back = ahead.polled(aged(&["a"], Some(60)), at(DAY));
    assert_eq!(back.last_success_at, Some(at(DAY - 60)));
}

#[test]
fn new_keys_do_not_hide_that_others_are_lost() {
    check(
        "as many new keys as were lost",
        account(),
        vec![
            (keys(&["a", "b", "c"]), &["first listing of 3"][..]),
            (keys(&["c", "d", "e"]), &["held back 3 to 3, 1/2"]),
            (
                keys(&["a", "b", "c", "d"]),
                &["confirmed: false", "d added"],
            ),
            (
                keys(&["c", "d", "e", "f"]),
                &["a removed", "b removed", "e added", "f added"],
            ),
        ],
    );
}

#[test]
fn a_poll_yields_what_it_brought_to_light() {
    let (timeout, dns) = (|| failed(Reason::Timeout), || failed(Reason::Dns));
    check(
        "failures and recovery",
        account(),
        vec![
            (timeout(), &["failed: timeout"][..]),
            (timeout(), &["failed: timeout"]),
            (dns(), &["failed: dns"]),
            (keys(&["a"]), &["recovered from 3"]),
            (keys(&["a"]), &[]),
            (dns(), &["failed: dns"]),
            (keys(&["a"]), &["recovered from 1"]),
        ],
    );
    check(
        "a listing that lost most keys",
        account(),
        vec![
            (keys(&["a", "b", "c"]), &["first listing of 3"][..]),
            (keys(&["a"]), &["held back 3 to 1, 1/2"]),
            (keys(&["a", "b", "c"]), &["confirmed: false"]),
            (keys(&[]), &["held back 3 to 0, 1/2"]),
            (dns(), &["failed: dns"]),
            (
                keys(&["a"]),
                &[
                    "recovered from 1",
                    "confirmed: true",
                    "b removed",
                    "c removed",
                ],
            ),
            (keys(&["a"]), &[]),
        ],
    );
    check(
        "rejected entries",
        account(),
        vec![
            (
                rejecting(&["a"], 2),
                &["first listing of 1", "rejected 2 of shape: Some(\"odd\")"][..],
            ),
            (rejecting(&["a"], 2), &[]),
            (dns(), &["failed: dns"]),
            (rejecting(&["a"], 2), &["recovered from 1"]),
            (
                rejecting(&["a"], 1),
                &["rejected 1 of shape: Some(\"odd\")"],
            ),
            (keys(&["a"]), &[]),
            (
                rejecting(&["a"], 1),
                &["rejected 1 of shape: Some(\"odd\")"],
            ),
        ],
    );
    let born = |day: i64| {
        let key = Key {
            created_at: Some(at(day * DAY)),
            ..key("new")
        };
        listed(vec![key])
    };
    check(
        "clocks",
        account(),
        vec![
            (
                skewed(keys(&["new"]), 90),
                &["skew of 90", "first listing of 1"][..],
            ),
            (skewed(dns(), -90), &["failed: dns"]),
            (
                skewed(keys(&["new"]), 3),
                &["skew gone", "recovered from 1"],
            ),
            (skewed(born(4), 3), &["new of 1 from the future"]),
            // By then it is a day old.
            (skewed(born(3), 3), &[]),
            // Ahead of our clock, but not of the API's.
            (skewed(born(6), DAY), &["skew of 86400"]),
        ],
    );
    check(
        "the exporter's own key",
        account(),
        vec![
            (keys(&["a"]), &["first listing of 1"][..]),
            (
                listed(vec![key("a"), own(&["keys.read", "users.write"])]),
                &["own added", "own key own", "users.write besides keys.read"],
            ),
            (dns(), &["failed: dns"]),
            (
                listed(vec![key("a"), own(&["keys.read", "users.write"])]),
                &["recovered from 1"],
            ),
            // The scopes are checked when the key is recognized.
            (listed(vec![key("a"), own(&["keys.read"])]), &["own scopes"]),
            (listed(vec![own(&["keys.read"])]), &["a removed"]),
        ],
    );
}

#[test]
fn a_threshold_is_crossed_once_whether_polls_succeed_or_not() {
    let soon = || listed(vec![ending("soon", 9), ending("later", 400)]);
    check(
        "from far to expired",
        account(),
        vec![
            (soon(), &["first listing of 2", "soon Warning 9d"][..]),
            (soon(), &[]),
            (failed(Reason::Dns), &["failed: dns", "soon Critical 7d"]),
            (soon(), &["recovered from 1"]),
            (soon(), &[]),
            (soon(), &[]),
            (soon(), &[]),
            (soon(), &[]),
            (soon(), &[]),
            (soon(), &["soon Expired 0d"]),
            (failed(Reason::Dns), &["failed: dns"]),
            (
                listed(vec![ending("soon", 12), ending("later", 400)]),
                &["recovered from 1", "soon expiry"],
            ),
        ],
    );
    // Thresholds that a saved listing had already crossed are known.
    let saved = Listing::new(vec![ending("soon", 9)], Rejects::default(), None);
    let restarted = account().with_saved(saved_at(DAY, saved), at(DAY));
    let rules = AssessmentRules::default();
    let crossings = |events: Vec<Event>| -> Vec<String> {
        let crossed = |event: &&Event| matches!(event, Event::ThresholdCrossed(_));
        events.iter().filter(crossed).map(words).collect()
    };
    let (_, events) = restarted.after(failed(Reason::Dns), &rules, at(DAY + 60));
    assert_eq!(crossings(events), Vec::<String>::new());
    let (_, events) = restarted.after(failed(Reason::Dns), &rules, at(3 * DAY));
    assert_eq!(crossings(events), ["soon Critical 6d"]);
}

#[test]
fn what_widens_a_key_comes_first_and_what_is_too_much_is_a_number() {
    let many = |from: usize, to: usize| -> Vec<Key> {
        (from..to).map(|id| key(&format!("k{id:03}"))).collect()
    };
    let with_own = |mut keys: Vec<Key>, scopes: &[&'static str]| {
        keys.push(Key {
            is_own: false,
            ..own(scopes)
        });
        listed(keys)
    };
    let rules = AssessmentRules::default();
    let (state, _) = account().after(with_own(many(0, 60), &["a"]), &rules, at(0));
    let (_, events) = state.after(with_own(many(30, 90), &["a", "b"]), &rules, at(1));
    let shown: Vec<String> = events.iter().skip(1).map(words).collect();
    assert_eq!(shown.len(), CHANGES_MAX + 1, "{shown:?}");
    assert_eq!(shown[..2], ["own scopes", "k000 removed"]);
    assert_eq!(
        shown.last().unwrap(),
        &format!("{} more changes", 61 - CHANGES_MAX)
    );

    let expired = (0..60).map(|id| ending(&format!("k{id:03}"), -1)).collect();
    let (_, events) = account().after(listed(expired), &rules, at(0));
    let crossed = |event: &&Event| matches!(event, Event::ThresholdCrossed(_));
    assert_eq!(events.iter().filter(crossed).count(), CROSSINGS_MAX);
    assert!(events.contains(&Event::CrossingsOmitted { count: 10 }));
}

#[test]
fn changed_keys_have_the_inventorys_name_and_both_values() {
    let mut known = entry("soon");
    known.name = Some("Build".into());
    known.team = Some("platform".into());
    let rules = AssessmentRules {
        inventory: Inventory::new(vec![known]),
        ..AssessmentRules::default()
    };
    let (state, _) = account().after(listed(vec![ending("soon", 100)]), &rules, at(0));
    let (_, events) = state.after(listed(vec![ending("soon", 200)]), &rules, at(DAY));
    let Some(Event::KeyChanged(changed)) = events.get(1) else {
        panic!("not a change: {events:?}");
    };
    let key = &changed.key;
    assert_eq!(
        (key.name.as_deref(), key.team.as_deref()),
        (Some("Build"), Some("platform"))
    );
    assert_eq!(key.time_left, Some(TimeDelta::days(199)));
    let expected = Difference::Expiry {
        from: Expiry::At(at(100 * DAY)),
        to: Expiry::At(at(200 * DAY)),
    };
    assert_eq!(changed.difference, expected);
}
