//! Every assessment at its boundaries: one second before, at, and after.

use super::*;
use crate::domain::inventory::tests::entry;
use crate::domain::key::Expiry;
use crate::domain::key::tests::{at, key};
use crate::domain::listing::Rejects;
use crate::domain::policy::Policy;

const DAY: i64 = 86_400;

/// A key created at 0 that expires `life` seconds later.
fn living(life: i64) -> Key {
    Key {
        created_at: Some(at(0)),
        expiry: Expiry::At(at(life)),
        ..key("a")
    }
}

fn seconds(notice: Notice) -> (i64, i64) {
    (notice.warning.num_seconds(), notice.critical.num_seconds())
}

#[test]
fn one_rule_serves_a_day_long_key_and_a_two_year_one() {
    let thresholds = Thresholds::default();
    for (life, expected) in [
        (730 * DAY, (30 * DAY, 7 * DAY)),
        // A quarter of 120 days is 30 days: the boundary.
        (120 * DAY + 4, (30 * DAY, 7 * DAY)),
        (120 * DAY, (30 * DAY, 7 * DAY)),
        (120 * DAY - 4, (30 * DAY - 1, 7 * DAY - 1)),
        (90 * DAY, (1_944_000, 453_600)),
        (DAY, (6 * 3_600, 5_040)),
        (600, (150, 35)),
        (1, (0, 0)),
        // The lifetime is unknown.
        (0, (30 * DAY, 7 * DAY)),
        (-5, (30 * DAY, 7 * DAY)),
    ] {
        let notice = thresholds.notice(&living(life), None);
        assert_eq!(seconds(notice), expected, "a life of {life} s");
    }
    let undated = Key {
        created_at: None,
        ..living(DAY)
    };
    let notice = thresholds.notice(&undated, None);
    assert_eq!(seconds(notice), (30 * DAY, 7 * DAY));
    assert_eq!(
        seconds(thresholds.notice(&key("never"), None)),
        (30 * DAY, 7 * DAY)
    );
}

#[test]
fn the_own_key_alerts_earlier_whatever_its_life() {
    let thresholds = Thresholds::default();
    for (life, expected) in [(730 * DAY, (60 * DAY, 14 * DAY)), (DAY, (43_200, 10_080))] {
        let own = Key {
            is_own: true,
            ..living(life)
        };
        assert_eq!(seconds(thresholds.notice(&own, None)), expected);
    }
}

#[test]
fn what_the_inventory_says_goes_before_everything() {
    let thresholds = Thresholds::default();
    let days = |days: Option<i64>| days.map(TimeDelta::days);
    for (warning, critical, expected) in [
        (Some(3), Some(2), (3 * DAY, 2 * DAY)),
        (Some(90), None, (90 * DAY, 7 * DAY)),
        // Neither may exceed the other.
        (Some(3), None, (3 * DAY, 3 * DAY)),
        (None, Some(3), (30 * DAY, 3 * DAY)),
        (None, Some(40), (40 * DAY, 40 * DAY)),
        (None, None, (30 * DAY, 7 * DAY)),
    ] {
        let said = Entry {
            warning: days(warning),
            critical: days(critical),
            ..entry("*")
        };
        let notice = thresholds.notice(&living(730 * DAY), Some(&said));
        assert_eq!(seconds(notice), expected, "{warning:?} {critical:?}");
    }
    let said = Entry {
        warning: Some(TimeDelta::days(2)),
        ..entry("*")
    };
    let own = Key {
        is_own: true,
        ..living(DAY)
    };
    // Applied as it is, even if the key does not live that long; the other one is a fraction of its
    // lifetime.
    assert_eq!(
        seconds(thresholds.notice(&own, Some(&said))),
        (2 * DAY, 10_080)
    );
}

#[test]
fn urgency_turns_at_the_exact_second() {
    let notice = Notice {
        warning: TimeDelta::seconds(100),
        critical: TimeDelta::seconds(10),
    };
    let key = living(1_000);
    for (now, expected) in [
        (0, Severity::None),
        (899, Severity::None),
        (900, Severity::Warning),
        (901, Severity::Warning),
        (989, Severity::Warning),
        (990, Severity::Critical),
        (999, Severity::Critical),
        (1_000, Severity::Expired),
        (1_001, Severity::Expired),
        (100 * 365 * DAY, Severity::Expired),
    ] {
        assert_eq!(notice.severity(&key, at(now)), expected, "at {now}");
    }
    for expiry in [Expiry::Never, Expiry::Unknown] {
        let endless = Key {
            expiry,
            ..living(1_000)
        };
        assert_eq!(notice.severity(&endless, at(1 << 40)), Severity::None);
    }
}

#[test]
fn a_verdict_tells_who_what_and_why() {
    let said = Entry {
        name: Some("Checkout".into()),
        team: Some("payments".into()),
        muted_until: Some(at(500)),
        exempt: [Policy::NeverExpires].into_iter().collect(),
        reason: Some("moves next week".into()),
        ..entry("check*")
    };
    let settings = AssessmentRules {
        inventory: Inventory::new(vec![said]),
        ..AssessmentRules::default()
    };
    let labelled = Key {
        label: Some("checkout".into()),
        ..key("a")
    };
    let assessment = settings.assess("shop", &labelled, at(499));
    assert_eq!(assessment.name(&labelled), Some("Checkout"));
    assert_eq!(assessment.team(), Some("payments"));
    assert!(assessment.is_muted);
    let broken: Vec<Policy> = assessment.broken.iter().collect();
    assert_eq!(broken, [Policy::NoIpAllowList]);
    assert!(!settings.assess("shop", &labelled, at(500)).is_muted);
    let points: Vec<_> = settings.turning_points(&labelled, &assessment).collect();
    assert_eq!(points, [at(500)]);
    let other = key("b");
    let assessment = settings.assess("shop", &other, at(499));
    assert_eq!((assessment.entry, assessment.name(&other)), (None, None));
    assert_eq!(assessment.broken.iter().count(), 2);
}

fn listing(keys: &[(&str, i64)]) -> Listing {
    let keys = keys.iter().map(|(id, end)| Key {
        expiry: Expiry::At(at(*end)),
        ..key(id)
    });
    Listing::new(keys.collect(), Rejects::default(), None)
}

/// The ids and severities of the crossings with thresholds of 100 and 10 seconds.
fn crossed(before: Option<(&Listing, i64)>, now_listed: &Listing, now: i64) -> String {
    let settings = AssessmentRules {
        thresholds: Thresholds {
            warning: TimeDelta::seconds(100),
            critical: TimeDelta::seconds(10),
            ..Thresholds::default()
        },
        ..AssessmentRules::default()
    };
    let before = before.map(|(listing, then)| (listing, at(then)));
    let crossings = settings.crossings("shop", before, now_listed, at(now));
    let words = crossings.map(|it| format!("{}:{:?}", it.key.id.as_str(), it.assessment.severity));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_threshold_is_crossed_once_however_often_one_looks() {
    let keys = listing(&[("a", 1_000), ("b", 5_000)]);
    let mut told = Vec::new();
    let mut before = None;
    for now in [800, 899, 900, 901, 950, 989, 990, 995, 1_000, 1_001, 2_000] {
        let words = crossed(before.map(|then| (&keys, then)), &keys, now);
        if !words.is_empty() {
            told.push(format!("{now} {words}"));
        }
        before = Some(now);
    }
    assert_eq!(told, ["900 a:Warning", "990 a:Critical", "1000 a:Expired"]);
}

#[test]
fn an_entry_or_the_own_key_is_told_as_early_as_it_asks() {
    let said = Entry {
        critical: Some(TimeDelta::days(300)),
        ..entry("early")
    };
    let settings = AssessmentRules {
        inventory: Inventory::new(vec![said]),
        ..AssessmentRules::default()
    };
    let ends = |id: &str, days: i64, is_own| Key {
        expiry: Expiry::At(at(days * DAY)),
        is_own,
        ..key(id)
    };
    let keys = vec![
        ends("early", 299, false),
        ends("other", 299, false),
        ends("own", 59, true),
        ends("usual", 31, false),
    ];
    let keys = Listing::new(keys, Rejects::default(), None);
    let crossings = settings.crossings("shop", None, &keys, at(0));
    let told: Vec<(&str, Severity)> = crossings
        .map(|it| (it.key.id.as_str(), it.assessment.severity))
        .collect();
    assert_eq!(
        told,
        [("early", Severity::Critical), ("own", Severity::Warning)]
    );
}

#[test]
fn what_happened_while_nobody_looked_is_told_once_and_a_renewed_key_again() {
    let keys = listing(&[("a", 1_000)]);
    // After a gap of a year: one line, with the worst severity.
    assert_eq!(crossed(Some((&keys, 0)), &keys, 365 * DAY), "a:Expired");
    // The first check ever, and a new key.
    assert_eq!(crossed(None, &keys, 950), "a:Warning");
    assert_eq!(crossed(Some((&listing(&[]), 950)), &keys, 951), "a:Warning");
    // Its expiry was postponed, then came close again.
    let renewed = listing(&[("a", 3_000)]);
    assert_eq!(crossed(Some((&keys, 950)), &renewed, 960), "");
    assert_eq!(crossed(Some((&renewed, 960)), &renewed, 2_950), "a:Warning");
    // Its expiry was brought forward.
    assert_eq!(crossed(Some((&renewed, 960)), &keys, 961), "a:Warning");
    // A clock that goes backwards crosses nothing.
    assert_eq!(crossed(Some((&keys, 1_000)), &keys, 950), "");
}

#[test]
fn thresholds_of_all_keys_apply_whatever_the_entry_and_the_lifetime_say() {
    let (a_day, entry) = (TimeDelta::days(1), entry("*"));
    let short_lived = Key {
        created_at: Some(at(0)),
        expiry: Expiry::At(at(40 * DAY)),
        ..key("a")
    };
    let of = |days: [Option<i32>; 4]| {
        let [warning, critical, of_entry, critical_of_entry] =
            days.map(|it| it.map(|it| a_day * it));
        let thresholds = Thresholds {
            warning_of_all: warning,
            critical_of_all: critical,
            ..Thresholds::default()
        };
        let entry = Entry {
            warning: of_entry,
            critical: critical_of_entry,
            ..entry.clone()
        };
        let sources = thresholds.with_sources(&short_lived, Some(&entry));
        let notice = thresholds.notice(&short_lived, Some(&entry));
        assert_eq!([notice.warning, notice.critical], sources.map(|(it, _)| it));
        sources.map(|(threshold, source)| (threshold.num_hours(), source))
    };
    let lifetime = ThresholdSource::Lifetime(a_day * 40);
    let (all, entry, other) = (
        ThresholdSource::OfAll,
        ThresholdSource::Entry,
        ThresholdSource::Other,
    );
    for (days, expected) in [
        ([None; 4], [(240, lifetime), (56, lifetime)]),
        ([Some(20), None, None, None], [(480, all), (56, lifetime)]),
        ([Some(2), None, None, None], [(48, all), (48, other)]),
        ([None, Some(20), None, None], [(480, other), (480, all)]),
        ([Some(3), Some(1), Some(9), Some(8)], [(72, all), (24, all)]),
        ([Some(3), None, Some(9), Some(8)], [(72, all), (72, other)]),
        (
            [None, Some(9), Some(5), Some(4)],
            [(216, other), (216, all)],
        ),
        ([None, None, Some(1), None], [(24, entry), (24, other)]),
        ([None, None, None, Some(30)], [(720, other), (720, entry)]),
    ] {
        assert_eq!(of(days), expected, "{days:?}");
    }
}
