//! Sequences of outcomes and the keys held after each, with and without restarts in between.

use chrono::TimeDelta;

use super::event_tests::{DAY, account, check, ending, failed, keys, words};
use super::tests::listed;
use super::*;
use crate::domain::inventory::Inventory;
use crate::domain::inventory::tests::entry;
use crate::domain::key::tests::{at, key};
use crate::domain::key::{Expiry, Field, Fields};

/// The ids held after a poll; unlisted keys are marked with a star.
fn ids(state: &AccountState) -> String {
    let keys = state.held.iter().flat_map(|listing| listing.keys());
    let mark = |key: &Key| {
        if key.unlisted_since.is_some() {
            "*"
        } else {
            ""
        }
    };
    let ids = keys.map(|key| format!("{}{}", key.id, mark(key)));
    ids.collect::<Vec<_>>().join(" ")
}

/// The keys held after polls a minute into days 0, 1, 2…, each with the expected ids. With
/// `restarts`, the exporter restarts from its saved state before each poll.
fn check_held(
    name: &str,
    rules: &AssessmentRules,
    polls: &[(Outcome, &str)],
    restarts: bool,
) -> AccountState {
    let mut state = account();
    for (day, (outcome, expected)) in (0..).zip(polls) {
        let now = at(day * DAY + 60);
        if let Some(saved) = state.to_save().filter(|_| restarts) {
            state = account().with_saved(saved, now);
        }
        state = state.after(outcome.clone(), rules, now).0;
        assert_eq!(
            ids(&state),
            *expected,
            "{name}, day {day}, restarts: {restarts}"
        );
    }
    state
}

#[test]
fn a_key_that_vanishes_when_it_expires_is_kept_for_a_while() {
    let (short, long) = (
        || ending("short", 2).clone(),
        || ending("long", 100).clone(),
    );
    let both = || listed(vec![short(), long()]);
    let without = || listed(vec![long()]);
    let outage = || failed(Reason::Dns);
    let rules = AssessmentRules::default();
    let held = "long short";
    let cases: [(&str, Vec<(Outcome, &str)>); 7] = [
        (
            "kept for seven days",
            vec![
                (both(), held),
                (both(), held),
                (without(), "long short*"),
                (without(), "long short*"),
                (outage(), "long short*"),
                (without(), "long short*"),
                (outage(), "long short*"),
                (without(), "long short*"),
                (without(), "long short*"),
                (without(), "long"),
                (without(), "long"),
            ],
        ),
        (
            "its time ends while polls fail",
            vec![
                (both(), held),
                (both(), held),
                (without(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long short*"),
                (outage(), "long"),
            ],
        ),
        (
            "failed polls around its end",
            vec![
                (both(), held),
                (outage(), held),
                (outage(), held),
                (outage(), held),
                (without(), "long short*"),
            ],
        ),
        (
            "deleted before its end",
            vec![(both(), held), (without(), "long"), (without(), "long")],
        ),
        (
            "listed as expired, then deleted",
            vec![
                (both(), held),
                (both(), held),
                (both(), held),
                (without(), "long"),
            ],
        ),
        (
            "back again, and then deleted",
            vec![
                (both(), held),
                (outage(), held),
                (without(), "long short*"),
                (both(), held),
                (without(), "long"),
            ],
        ),
        (
            "all keys at once, which is no loss to be confirmed",
            vec![
                (listed(vec![short()]), "short"),
                (outage(), "short"),
                (keys(&[]), "short*"),
            ],
        ),
    ];
    for (name, polls) in &cases {
        for restarts in [false, true] {
            check_held(name, &rules, polls, restarts);
        }
    }
}

#[test]
fn a_listing_that_is_held_back_shows_which_keys_are_still_listed() {
    let start = || {
        listed(vec![
            ending("short", 1),
            key("a"),
            key("b"),
            key("c"),
            key("d"),
        ])
    };
    let rules = AssessmentRules::default();
    for restarts in [false, true] {
        let polls = [
            (start(), "a b c d short"),
            (listed(vec![ending("short", 1)]), "a b c d short"),
            (keys(&["a"]), "a"),
        ];
        check_held("listed after its end", &rules, &polls, restarts);
        let polls = [
            (start(), "a b c d short"),
            (keys(&["a"]), "a b c d short"),
            (keys(&["a"]), "a short*"),
        ];
        check_held("not listed after its end", &rules, &polls, restarts);
    }
}

#[test]
fn a_listing_on_its_way_or_of_a_slow_clock_is_from_before_the_end() {
    let rules = AssessmentRules::default();
    let with = |asked_at: i64, skew: i64| Outcome {
        asked_at: Some(at(asked_at)),
        clock_skew: Some(TimeDelta::seconds(skew)),
        ..listed(vec![key("a"), ending("short", 1)])
    };
    for (name, second, outcome, expected) in [
        (
            "asked before its end",
            DAY + 1,
            with(DAY - 1, 0),
            "a short*",
        ),
        (
            "its end is in whole seconds",
            DAY + 1,
            with(DAY, 0),
            "a short*",
        ),
        ("asked after its end", DAY + 1, with(DAY + 1, 0), "a"),
        (
            "the API's clock is behind",
            DAY + 10,
            with(DAY + 10, -10),
            "a short*",
        ),
        (
            "it is not that far behind",
            DAY + 11,
            with(DAY + 11, -10),
            "a",
        ),
        ("it is ahead", DAY + 1, with(DAY + 1, 10), "a"),
        ("whole seconds", DAY + 1, with(DAY + 1, -1), "a"),
        (
            "the clock was set back meanwhile",
            DAY + 1,
            with(DAY + 99, 0),
            "a",
        ),
    ] {
        let state = account().after(outcome, &rules, at(second)).0;
        let state = state.after(keys(&["a"]), &rules, at(DAY + 300)).0;
        assert_eq!(ids(&state), expected, "{name}");
    }
}

#[test]
fn a_successor_or_a_mute_ends_it() {
    let labelled = |id: &str, created: i64, day| Key {
        label: Some("ci".into()),
        created_at: Some(at(created * DAY)),
        ..ending(id, day)
    };
    let (old, new) = (labelled("old", -90, 2), labelled("new", 1, 100));
    let with_old = || listed(vec![key("a"), old.clone()]);
    let rules = AssessmentRules::default();
    let polls = [
        (with_old(), "a old"),
        (with_old(), "a old"),
        (keys(&["a"]), "a old*"),
        (keys(&["a"]), "a old*"),
        (listed(vec![key("a"), new.clone()]), "a new"),
        (keys(&["a", "b"]), "a b"),
    ];
    check_held("a successor appears", &rules, &polls, true);
    let polls = [
        (with_old(), "a old"),
        (
            listed(vec![key("a"), old.clone(), new.clone()]),
            "a new old",
        ),
        (listed(vec![key("a"), new]), "a new"),
    ];
    check_held("a successor was there before", &rules, &polls, true);
    let mut muted = entry("old");
    muted.muted_until = Some(at(90 * DAY));
    let muting = AssessmentRules {
        inventory: Inventory::new(vec![muted]),
        ..AssessmentRules::default()
    };
    let polls = [
        (with_old(), "a old"),
        (with_old(), "a old"),
        (keys(&["a"]), "a"),
    ];
    check_held("muted before its end", &muting, &polls, true);
    let polls = [
        (with_old(), "a old"),
        (with_old(), "a old"),
        (keys(&["a"]), "a old*"),
    ];
    let state = check_held("muted afterwards", &rules, &polls, true);
    let (state, _) = state.after(failed(Reason::Dns), &muting, at(3 * DAY));
    assert_eq!(ids(&state), "a");
}

#[test]
fn keeping_can_be_off_and_has_a_limit() {
    let many = |from: i64| -> Vec<Key> {
        let ids = from..from + 800;
        let soon = ids.map(|id| Key {
            expiry: Expiry::At(at(from + 1)),
            ..key(&format!("k{id:06}"))
        });
        soon.chain([key("a")]).collect()
    };
    let rules = AssessmentRules::default();
    let mut state = account();
    for from in (0..8_000).step_by(800) {
        state = state.after(listed(many(from)), &rules, at(from)).0;
    }
    let held = state.held.as_ref().unwrap();
    let unlisted = held
        .keys()
        .iter()
        .filter(|key| key.unlisted_since.is_some());
    assert_eq!(unlisted.clone().count(), 1_000);
    let oldest = unlisted.filter_map(|key| key.unlisted_since).min();
    assert_eq!(oldest, Some(at(6_400)), "the latest are kept");

    let mut facts = (*account().account).clone();
    facts.expired_retention = TimeDelta::zero();
    let state = AccountState::new(Arc::new(facts));
    let with = |ids: &[Key]| listed(ids.to_vec());
    let state = state
        .after(with(&[key("a"), ending("b", 1)]), &rules, at(0))
        .0;
    let state = state.after(with(&[key("a")]), &rules, at(DAY)).0;
    assert_eq!(ids(&state), "a");
}

#[test]
fn the_end_of_an_unlisted_key_is_reported_once() {
    let both = || listed(vec![ending("short", 1), ending("long", 400)]);
    let without = || listed(vec![ending("long", 400)]);
    let state = check(
        "vanishes",
        account(),
        vec![
            (both(), &["first listing of 2", "short Critical 1d"][..]),
            (
                without(),
                &["1 unlisted: Some(\"short\")", "short Expired 0d"],
            ),
            (without(), &[]),
            (failed(Reason::Dns), &["failed: dns"]),
            (both(), &["recovered from 1"]),
            (without(), &["short removed"]),
        ],
    );
    let counts = state.changes().filter(|(_, count)| *count > 0);
    assert_eq!(counts.collect::<Vec<_>>(), [(Change::Removed, 1)]);
}

#[test]
fn keys_of_another_organization_replace_the_others_at_once() {
    let marked = |outcome: Outcome, token: u8| Outcome {
        token: Some(TokenMark {
            key: [7; 32],
            digest: [token; 32],
        }),
        ..outcome
    };
    let ours = || listed(vec![key("a"), key("b"), ending("short", 1)]);
    let theirs = || keys(&["x"]);
    for restarts in [false, true] {
        let polls = [
            (marked(ours(), 1), "a b short"),
            (marked(theirs(), 2), "x"),
            (marked(keys(&["y"]), 2), "x"),
            (marked(failed(Reason::Dns), 1), "x"),
            (marked(ours(), 1), "a b short"),
            // The same token, or tokens that cannot be compared.
            (theirs(), "a b short"),
        ];
        let state = check_held("tokens", &AssessmentRules::default(), &polls, restarts);
        assert!(state.changes().all(|(_, count)| count == 0), "{restarts}");
    }
    check(
        "another token of the same organization",
        account(),
        vec![
            (
                marked(keys(&["a", "b", "c"]), 1),
                &["first listing of 3"][..],
            ),
            (marked(keys(&["a"]), 2), &["b removed", "c removed"]),
            (marked(keys(&["x"]), 3), &["1 replaced by 1"]),
        ],
    );
}

#[test]
fn confirmations_outlive_failures_and_restarts() {
    let many = || keys(&["a", "b", "c", "d"]);
    let few = || keys(&["a"]);
    for restarts in [false, true] {
        let polls = [
            (many(), "a b c d"),
            (few(), "a b c d"),
            (failed(Reason::Dns), "a b c d"),
            (failed(Reason::Timeout), "a b c d"),
            (few(), "a"),
        ];
        check_held(
            "failures between",
            &AssessmentRules::default(),
            &polls,
            restarts,
        );
    }
}

#[test]
fn a_last_success_in_the_future_is_corrected_and_reported_once() {
    let rules = AssessmentRules::default();
    let set_back = |events: &[Event]| -> Vec<i64> {
        let words = events.iter().map(words);
        let seconds = words.filter_map(|it| it.strip_prefix("clock set back by ")?.parse().ok());
        seconds.collect()
    };
    let (ahead, _) = account().after(keys(&["a"]), &rules, at(9 * 3_600));
    for outcome in [keys(&["a"]), failed(Reason::Dns)] {
        let (state, events) = ahead.after(outcome.clone(), &rules, at(3_600));
        assert_eq!(state.last_success_at, Some(at(3_600)), "{outcome:?}");
        assert_eq!(set_back(&events), [8 * 3_600]);
        let (state, events) = state.after(failed(Reason::Dns), &rules, at(3_700));
        assert_eq!(state.last_success_at, Some(at(3_600)), "its age is shown");
        assert_eq!(set_back(&events), vec![0; 0]);
    }
    // Saved while the clock was ahead.
    let saved = ahead.to_save().unwrap();
    let restarted = account().with_saved(saved, at(60));
    assert_eq!(restarted.last_success_at, Some(at(60)));
    let (state, events) = restarted.after(failed(Reason::Dns), &rules, at(70));
    assert_eq!(
        (state.last_success_at, set_back(&events)),
        (Some(at(60)), vec![32_340])
    );
    assert_eq!(
        set_back(&state.after(keys(&["a"]), &rules, at(80)).1),
        vec![0; 0]
    );
    // A clock moving forwards changes nothing.
    let (state, events) = ahead.after(failed(Reason::Dns), &rules, at(99 * 3_600));
    assert_eq!(
        (state.last_success_at, set_back(&events)),
        (Some(at(9 * 3_600)), vec![])
    );
}

#[test]
fn a_field_keeps_its_value_through_restarts_and_outages() {
    let odd = || {
        let mut unreadable = Fields::default();
        unreadable.insert(Field::Expiry);
        listed(vec![Key {
            expiry: Expiry::Unknown,
            unreadable,
            ..key("a")
        }])
    };
    let rules = AssessmentRules::default();
    let (mut state, _) = account().after(listed(vec![ending("a", 5)]), &rules, at(0));
    for (second, outcome) in (1..).zip([odd(), failed(Reason::Dns), odd(), odd()]) {
        let saved = state.to_save().unwrap();
        state = account().with_saved(saved, at(second));
        state = state.after(outcome, &rules, at(second)).0;
        let key = &state.held.as_ref().unwrap().keys()[0];
        assert_eq!(key.expiry, Expiry::At(at(5 * DAY)));
        assert!(key.is_expiry_unknown());
        assert!(state.changes().all(|(_, count)| count == 0));
    }
    let (state, _) = state.after(listed(vec![ending("a", 6)]), &rules, at(DAY));
    assert!(!state.held.as_ref().unwrap().keys()[0].is_expiry_unknown());
    assert!(state.changes().any(|change| change == (Change::Expiry, 1)));
}

#[test]
fn urgent_keys_are_summed_up_once_a_day_and_after_each_start() {
    let rules = AssessmentRules::default();
    let summaries = |events: Vec<Event>| -> Vec<String> {
        let is_summary = |event: &&Event| matches!(event, Event::UrgentKeys(_));
        events.iter().filter(is_summary).map(words).collect()
    };
    let soon = || listed(vec![ending("a", 20), ending("b", 5)]);
    let mut state = account();
    let mut counts = Vec::new();
    for (second, outcome) in [
        (0, failed(Reason::Dns)),
        (60, soon()),
        (120, soon()),
        (DAY, soon()),
        (DAY + 60, failed(Reason::Dns)),
        (DAY + 120, soon()),
        // The clock is set back.
        (1_000, soon()),
        (1_060, soon()),
    ] {
        let (next, events) = state.after(outcome, &rules, at(second));
        let shown = summaries(events);
        assert!(
            shown.iter().all(|it| it == "urgent 0 1 1, first b"),
            "{shown:?}"
        );
        counts.push(shown.len());
        state = next;
    }
    assert_eq!(counts, [0, 1, 0, 0, 1, 0, 1, 0]);
    let restarted = account().with_saved(state.to_save().unwrap(), at(1_100));
    let (_, events) = restarted.after(failed(Reason::Dns), &rules, at(1_120));
    assert_eq!(summaries(events).len(), 1);
}
