//! The whole exposition of a fixed state at a fixed time, compared with a file. Read its diff like
//! code.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::failure::{Failure, Reason};
use api_key_exporter::domain::glob::Glob;
use api_key_exporter::domain::inventory::{Entry, Inventory};
use api_key_exporter::domain::key::{Details, Expiry, Key, KeyId, LastUse};
use api_key_exporter::domain::policy::Policy;
use api_key_exporter::domain::text::Line;
use api_key_exporter::domain::view::{Metrics, ViewSettings};
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use chrono::{DateTime, TimeDelta, Utc};

use crate::support::in_repository;

/// Of the fixture's own key; its masked form stands in the fixture.
const TOKEN: &[u8] = b"sk_live_ZXhwb3J0ZXJzIG93biBrZXk.aaaa4";

pub(crate) const EVERYTHING: Metrics = Metrics {
    relative: true,
    scope_info: true,
    max_scopes_per_key: 64,
    max_bytes_per_account: 64 << 20,
};

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// An account that listed the rich fixture and two more keys, one of which vanished at its expiry,
/// then failed; and one that was never polled.
pub(crate) fn states() -> [AccountState; 2] {
    let account = |name: &str| {
        let interval = Duration::from_secs(300);
        AccountState::new(Arc::new(Account {
            name: name.into(),
            provider: "bitgpt".into(),
            base_url: "https://api.bitgpt.xyz/".into(),
            interval,
            shrink: ShrinkGuard::default(),
            expired_retention: TimeDelta::days(7),
            listing_scope: None,
        }))
    };
    let token = Token::parse(TOKEN, "test").unwrap();
    let body = fs::read(in_repository("tests/fixtures/list_rich.json")).unwrap();
    let listing = parse::answer(
        200,
        &body,
        &Rules {
            token: &token,
            keys_max: 100,
            pages_max: 200,
            expected_env: None,
            held: None,
        },
    );
    let listing = listing.unwrap().listing;
    let clock_skew = Some(TimeDelta::seconds(-2));
    let id = |end| KeyId::parse(&format!("api_key_0197c0ec-0000-7000-8000-{end:012}")).unwrap();
    let details = |last_use, requests| Details {
        label: None,
        last_use,
        requests,
        read_at: at("2025-12-31T20:00:00Z"),
    };
    let details = [
        (
            id(1),
            details(LastUse::At(at("2025-12-31T09:15:30Z")), Some(1250)),
        ),
        (id(2), details(LastUse::Never, Some(0))),
        (id(3), details(LastUse::Unknown, None)),
    ];
    let ending = |number, end| Key {
        id: id(number),
        is_own: false,
        expiry: Expiry::At(at(end)),
        ..listing.keys()[3].clone()
    };
    let disabled = Key {
        is_disabled: true,
        ..ending(7, "2026-01-31T00:00:00Z")
    };
    let vanishing = ending(8, "2025-12-31T23:51:00Z");
    let good = |added: Vec<Key>| Outcome {
        result: Ok(listing
            .clone()
            .with_keys(added)
            .with_details(details.clone().into(), None)),
        clock_skew,
        age: None,
        token: None,
        asked_at: None,
    };
    let failure = Failure {
        support_id: Some(Line::own("support_1")),
        ..Failure::new(Reason::ServerError, "")
    };
    let bad = Outcome {
        result: Err(failure),
        clock_skew,
        age: None,
        token: None,
        asked_at: None,
    };
    let mut main = account("main");
    main.details_failures = Some([0; Reason::COUNT]);
    let polled = main
        .after(
            good(vec![disabled.clone(), vanishing]),
            &settings(),
            at("2025-12-31T23:50:00Z"),
        )
        .0
        .after(
            good(vec![disabled]),
            &settings(),
            at("2025-12-31T23:52:00Z"),
        )
        .0
        .after(bad, &settings(), at("2025-12-31T23:55:00.25Z"))
        .0
        .with_next_poll(at("2026-01-01T00:00:00Z"));
    [polled, account("odd \"name\" \\")]
}

/// An inventory that knows two of the keys, one of them muted and forgiven for a while.
pub(crate) fn settings() -> AssessmentRules {
    let entry = |pattern: &str| Entry::new(Glob::parse(pattern).unwrap());
    let checkout = Entry {
        name: Some("Checkout".into()),
        team: Some("payments".into()),
        warning: Some(TimeDelta::days(45)),
        rotate_url: Some("https://example.com/rotate?a=\"b\"".into()),
        ..entry("checkout")
    };
    let odd = Entry {
        muted_until: Some(at("2026-01-02T00:00:00Z")),
        exempt: [Policy::NeverExpires].into_iter().collect(),
        reason: Some("goes away with the old shop".into()),
        ..entry("odd *")
    };
    AssessmentRules {
        inventory: Inventory::new(vec![checkout, odd]),
        ..AssessmentRules::default()
    }
}

/// The exposition about keys and accounts two seconds into 2026.
pub(crate) fn exposition(metrics: Metrics) -> String {
    formatted(metrics, Format::Text)
}

fn formatted(metrics: Metrics, format: Format) -> String {
    let now = at("2026-01-01T00:00:02Z");
    let settings = ViewSettings {
        rules: Arc::new(settings()),
        metrics,
    };
    let exposition = Exposition::new(states(), &settings, now);
    let body = exposition.body(now, &[], format, Encoding::Identity);
    String::from_utf8(body.concat()).unwrap()
}

pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = in_repository("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; rerun with UPDATE_GOLDEN=1 and read the diff. Now:\n{actual}",
        path.display()
    );
}

#[test]
fn the_exposition_is_as_it_was() {
    assert_golden("metrics.prom", &exposition(EVERYTHING));
    assert_golden(
        "metrics.openmetrics",
        &formatted(EVERYTHING, Format::OpenMetrics),
    );
}

#[test]
fn families_can_be_turned_off_and_capped() {
    let everything = exposition(EVERYTHING);
    let less = exposition(Metrics {
        relative: false,
        scope_info: false,
        max_scopes_per_key: 64,
        max_bytes_per_account: 64 << 20,
    });
    let lines = |text: &str, name: &str| text.lines().filter(|line| line.contains(name)).count();
    for name in ["api_key_expires_in_seconds", "api_key_scope_info"] {
        assert!(lines(&everything, name) > 2, "{name}");
        assert_eq!(lines(&less, name), 0, "{name}");
    }
    let capped = exposition(Metrics {
        max_scopes_per_key: 1,
        ..EVERYTHING
    });
    // Four of the seven keys have one scope, one has two, and two have none, and of one nothing is
    // known; HELP and TYPE make two lines.
    assert_eq!(lines(&capped, "api_key_scope_info"), 2 + 5);
    assert!(capped.contains(
        "api_key_scopes{account=\"main\",key_id=\"api_key_0197c0ec-0000-7000-8000-000000000001\"} 2"
    ));
}

#[test]
fn before_the_first_poll_every_known_series_is_there_at_zero() {
    let text = exposition(EVERYTHING);
    let never_polled: Vec<&str> = text
        .lines()
        .filter(|line| line.contains(r#"account="odd \"name\" \\""#))
        .collect();
    assert_eq!(
        never_polled
            .iter()
            .filter(|line| line.contains("poll_failures_total"))
            .count(),
        Reason::COUNT
    );
    assert_eq!(
        never_polled
            .iter()
            .filter(|line| line.starts_with("api_key_account_keys{"))
            .count(),
        6
    );
    assert_eq!(
        never_polled
            .iter()
            .filter(|line| line.contains("keys_rejected"))
            .count(),
        3
    );
    for absent in [
        "api_key_account_up",
        "last_attempt",
        "last_success",
        "clock_skew",
        "next_poll",
    ] {
        assert!(
            !never_polled.iter().any(|line| line.contains(absent)),
            "{absent}"
        );
    }
}
