//! A scrape allocates next to nothing for what a poll has written, however much that is.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::view::ViewSettings;
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use chrono::{DateTime, TimeDelta, Utc};

use crate::golden::EVERYTHING;
use crate::support::TOKEN;

/// All of `count` keys, ready to be scraped.
fn exposition(count: usize, now: DateTime<Utc>) -> Exposition {
    let mut body = String::from("{\"status\":200,\"error\":null,\"data\":[");
    for number in 0..count {
        let comma = if number == 0 { "" } else { "," };
        let id = format!("api_key_{number:032x}");
        write!(
            body,
            "{comma}{{\"id\":\"{id}\",\"expires_at\":\"2030-01-01 00:00:00\"}}"
        )
        .unwrap();
    }
    body.push_str("]}");
    let token = Token::parse(TOKEN.as_bytes(), "test").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: count,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    let listing = parse::answer(200, body.as_bytes(), &rules).unwrap().listing;
    let account = Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        interval: Duration::from_secs(300),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
    };
    let outcome = Outcome {
        result: Ok(listing),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let settings = ViewSettings {
        rules: Arc::default(),
        metrics: EVERYTHING,
    };
    let empty = AccountState::new(Arc::new(account));
    let (state, _) = empty.after(outcome, &settings.rules, now);
    Exposition::new([state], &settings, now)
}

#[test]
fn a_scrape_allocates_a_few_small_things_whatever_the_number_of_keys() {
    let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    for count in [10, 1_000, 10_000] {
        let exposition = exposition(count, now);
        // The first scrape of a second, in a format, lists and writes what the others share.
        exposition.body(now, &[], Format::OpenMetrics, Encoding::Identity);
        for encoding in [Encoding::Identity, Encoding::Gzip] {
            let mut body = Vec::new();
            let cost = allocation_counter::measure(|| {
                body = exposition.body(now, &[], Format::OpenMetrics, encoding);
            });
            assert!(
                cost.count_total <= 60,
                "{count} keys, {encoding:?}: {cost:?}"
            );
            // References to the chunks, and small neighbours of what depends on the clock made one.
            let sent: usize = body.iter().map(bytes::Bytes::len).sum();
            let most = 100_000.max(sent as u64 / 50);
            assert!(
                cost.bytes_total < most,
                "{count} keys, {encoding:?}, {sent} sent: {cost:?}"
            );
        }
    }
}
