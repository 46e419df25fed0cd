//! What each stage of a poll and of a scrape costs, for each key: `cargo bench --bench stages`.
//!
//! Medians of some runs on whatever machine this is; compare stages with each other, not with
//! figures from another day. The last rows are what others would cost on the same text.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_types,
    reason = "a bench prints"
)]

mod listing;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_key_exporter::config::definition_of;
use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::glob::Glob;
use api_key_exporter::domain::inventory::{Entry, Inventory};
use api_key_exporter::domain::listing::Listing;
use api_key_exporter::domain::text::Label;
use api_key_exporter::domain::view::{Metrics, ViewSettings};
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::provider::json_list::{JsonList, read_page};
use api_key_exporter::provider::response::Response;
use api_key_exporter::secret::Token;
use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderMap;

const METRICS: Metrics = Metrics {
    relative: true,
    scope_info: true,
    max_scopes_per_key: 64,
    max_bytes_per_account: 64 << 20,
};

/// Runs of a stage; the median is told.
const RUNS: usize = 15;

fn main() {
    many_patterns();
    for count in [1_000, 10_000, 100_000] {
        stages(count);
    }
}

fn stages(count: usize) {
    let body = listing::listing(count, 1);
    let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let account = Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
        interval: Duration::from_secs(300),
    };
    let empty = AccountState::new(Arc::new(account));
    let read = || read(&body, count);
    let rules = AssessmentRules::default();
    let listed = || Outcome {
        result: Ok(read()),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let (state, _) = empty.after(listed(), &rules, now);
    let settings = ViewSettings {
        rules: Arc::new(rules.clone()),
        metrics: METRICS,
    };
    let render = || Exposition::new([state.clone()], &settings, now);
    let exposition = render();
    let whole = |encoding| exposition.body(now, &[], Format::Text, encoding).concat();
    let (text, gzip) = (whole(Encoding::Identity), whole(Encoding::Gzip));

    println!(
        "{count} keys: listing {} KiB, text {} KiB, gzip {} KiB",
        body.len() / 1024,
        text.len() / 1024,
        gzip.len() / 1024
    );
    let tell = |what: &str, took: Duration| {
        println!(
            "  {what:<44} {:>9.1} ns a key",
            took.as_secs_f64() * 1e9 / count as f64
        );
    };
    tell("poll: read the listing", median(|| drop(black_box(read()))));
    by_definition(&body, count, &tell);
    let outcomes: Vec<Outcome> = (0..=RUNS).map(|_| listed()).collect();
    let mut outcomes = outcomes.into_iter();
    tell(
        "poll: change the state",
        median(|| {
            let outcome = outcomes.next().unwrap();
            drop(black_box(empty.after(outcome, &rules, now)));
        }),
    );
    tell(
        "render: assess keys, write and compress text",
        median(|| drop(black_box(render()))),
    );
    for encoding in [Encoding::Identity, Encoding::Gzip] {
        let format = Format::OpenMetrics;
        let mut second = now;
        tell(
            &format!("scrape: the first of a second, {encoding:?}"),
            median(|| {
                second += TimeDelta::seconds(1);
                drop(black_box(exposition.body(second, &[], format, encoding)));
            }),
        );
        let scrape = || drop(black_box(exposition.body(second, &[], format, encoding)));
        tell(&format!("scrape: another, {encoding:?}"), median(scrape));
    }
    for level in [1, 6] {
        let mut len = 0;
        let took = median(|| {
            let level = flate2::Compression::new(level);
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(&text).unwrap();
            len = black_box(writer.finish().unwrap()).len();
        });
        tell(
            &format!("others: gzip level {level} of the whole text"),
            took,
        );
        println!(
            "    {} KiB; ours {:.2} times as much",
            len / 1024,
            gzip.len() as f64 / len as f64
        );
    }
}

/// What reading takes where a definition says what is read.
fn by_definition(body: &[u8], count: usize, tell: &dyn Fn(&str, Duration)) {
    let mut answer = Response {
        status: 200,
        headers: HeaderMap::new(),
        body: body.to_vec(),
    };
    let flat = json_list(FLAT);
    tell(
        "poll: read the listing by a definition",
        median(|| drop(black_box(read_defined(&flat, &answer, count)))),
    );
    answer.body = [b"{\"data\":[", body, b"]}"].concat();
    let nested = json_list(NESTED);
    tell(
        "poll: the same, nested",
        median(|| drop(black_box(read_defined(&nested, &answer, count)))),
    );
}

/// What the native reader reads, as a definition.
const FLAT: &str = r#"
    path = "/keys"
    items = "/data"
    id = "/id"
    label = "/label"
    expires_at = { at = "/expires_at", format = "naive_utc" }
    created_at = { at = "/created_at", format = "naive_utc" }
    updated_at = { at = "/updated_at", format = "naive_utc" }
    scopes = "/scopes"
    ip_allow_list = "/ip_allow_list"
    disabled = [{ at = "/revoked", is = true }]
"#;

/// The same list as one inside of an item.
const NESTED: &str = r#"
    path = "/keys"
    items = "/data"
    nested = "/data"
    id = "/id"
    label = "/label"
    expires_at = { at = "/expires_at", format = "naive_utc" }
    created_at = { at = "/created_at", format = "naive_utc" }
    updated_at = { at = "/updated_at", format = "naive_utc" }
    scopes = "/scopes"
    ip_allow_list = "/ip_allow_list"
    disabled = [{ at = "^/revoked", is = true }]
"#;

fn json_list(text: &str) -> JsonList {
    let definition = Arc::new(definition_of("bench", text).unwrap());
    JsonList::new(&definition, &BTreeMap::new()).unwrap()
}

fn read_defined(json_list: &JsonList, answer: &Response, keys_max: usize) -> Listing {
    let token = Token::parse(b"sk_live_token-of-the-bench", "bench").unwrap();
    let rules = Rules {
        token: &token,
        keys_max,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    let listed = read_page(json_list, answer, &rules, DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(listed.listing.keys().len(), keys_max);
    listed.listing
}

fn read(body: &[u8], keys_max: usize) -> Listing {
    let token = Token::parse(b"sk_live_token-of-the-bench", "bench").unwrap();
    let rules = Rules {
        token: &token,
        keys_max,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    parse::answer(200, body, &rules).unwrap().listing
}

/// As many patterns with wildcards as a configuration may have, and as long labels as there are.
fn many_patterns() {
    const KEYS: usize = 20_000;
    for (what, pattern) in [
        ("at the end", "x-team-{}-*"),
        ("at both ends", "*-team-{}-*"),
    ] {
        let entries = (0..1_000).map(|number| {
            let pattern = pattern.replace("{}", &format!("{number:04}"));
            Entry::new(Glob::parse(&pattern).unwrap())
        });
        let rules = AssessmentRules {
            inventory: Inventory::new(entries.collect()),
            ..AssessmentRules::default()
        };
        let mut keys = read(&listing::listing(KEYS, 1), KEYS).keys().to_vec();
        for (number, key) in keys.iter_mut().enumerate() {
            // Half of them match none.
            let label = format!("x-team-{:04}-{}", number % 2_000, "service ".repeat(28));
            key.label = Label::saved(&label, true);
        }
        let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let took = median(|| {
            for key in &keys {
                black_box(rules.assess("default", key, now));
            }
        });
        println!(
            "assess {KEYS} keys by 1,000 patterns with wildcards {what}: {:.0} ms",
            took.as_secs_f64() * 1e3
        );
    }
}

fn median(mut run: impl FnMut()) -> Duration {
    run();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times.get(RUNS / 2).copied().unwrap_or_default()
}
