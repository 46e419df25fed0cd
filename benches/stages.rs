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

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::exposition::body::Exposition;
use api_key_exporter::exposition::prepared::Prepared;
use api_key_exporter::exposition::{Encoding, Format, Metrics};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use chrono::{DateTime, TimeDelta, Utc};

const METRICS: Metrics = Metrics {
    relative: true,
    scope_info: true,
    max_scopes_per_key: 64,
};

/// Runs of a stage; the median is told.
const RUNS: usize = 15;

fn main() {
    for count in [1_000, 10_000, 100_000] {
        stages(count);
    }
}

fn stages(count: usize) {
    let body = listing::listing(count);
    let token = Token::parse(b"sk_live_token-of-the-bench", "bench").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: count,
        expected_env: None,
    };
    let now: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    let account = Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        shrink: ShrinkGuard::default(),
        listing_scope: None,
        interval: Duration::from_secs(300),
    };
    let empty = AccountState::new(Arc::new(account));
    let read = || parse::answer(200, &body, &rules).unwrap().listing;
    let settings = Arc::new(AssessmentRules::default());
    let listed = || Outcome {
        result: Ok(read()),
        clock_skew: None,
        age: None,
    };
    let (state, _) = empty.after(listed(), &settings, now);
    let prepare = || Prepared::new(state.clone(), None, METRICS, &settings, now);
    let prepared = Arc::new(prepare());
    let exposition = Exposition::new(vec![prepared.clone()]);
    let moving = exposition.moving(now, None);
    let whole = |encoding| {
        exposition
            .body(&moving, &[], Format::Text, encoding)
            .concat()
    };
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
    let outcomes: Vec<Outcome> = (0..=RUNS).map(|_| listed()).collect();
    let mut outcomes = outcomes.into_iter();
    tell(
        "poll: change the state",
        median(|| {
            let outcome = outcomes.next().unwrap();
            drop(black_box(empty.after(outcome, &settings, now)));
        }),
    );
    tell(
        "poll: judge, write and compress the text",
        median(|| drop(black_box(prepare()))),
    );
    tell(
        "poll: string the pieces",
        median(|| drop(black_box(Exposition::new(vec![prepared.clone()])))),
    );
    tell(
        "once a poll: write the moving families",
        median(|| drop(black_box(exposition.moving(now, None)))),
    );
    let (mut second, mut rewritten) = (now, None);
    tell(
        "once a second: rewrite their digits",
        median(|| {
            second += TimeDelta::seconds(1);
            rewritten = Some(exposition.moving(second, rewritten.take()));
        }),
    );
    for encoding in [Encoding::Identity, Encoding::Gzip] {
        let format = Format::OpenMetrics;
        let scrape = || drop(black_box(exposition.body(&moving, &[], format, encoding)));
        tell(
            &format!("scrape: string a body, {encoding:?}"),
            median(scrape),
        );
    }
    tell(
        "others: gzip level 1 of the whole text",
        median(|| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
            writer.write_all(&text).unwrap();
            black_box(writer.finish().unwrap());
        }),
    );
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
