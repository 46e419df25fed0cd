//! How many instructions a poll and a scrape take: `cargo bench --bench instructions`. Needs
//! valgrind (the Debian package of that name).
//!
//! Counts by callgrind, so they are the same on a noisy machine as on a quiet one. Each case runs
//! in a process of its own, which does it some times before the one that counts.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench prints, and gives up loudly"
)]

mod listing;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::view::{Metrics, ViewSettings};
use api_key_exporter::exposition::cache::ExpositionCache;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use api_key_exporter::state_store::{AccountUpdate, StateStore};
use chrono::{DateTime, TimeDelta, Utc};

/// What is counted; the words are arguments of the process that does it.
const CASES: [(&str, &str); 10] = [
    ("read", "a poll: read the listing"),
    (
        "change",
        "a poll: publish a listing, every key of it changed",
    ),
    ("same", "a poll: publish a listing, none of it changed"),
    ("render-change", "the first scrape after the one"),
    ("render-same", "the first scrape after the other"),
    ("second-identity", "the first scrape of a second, identity"),
    ("second-gzip", "the first scrape of a second, gzip"),
    ("same-identity", "another in the same second, identity"),
    ("same-gzip", "another in the same second, gzip"),
    ("nothing", "nothing"),
];

/// The name that callgrind looks for.
const COUNTED: &str = "*instructions_counted*";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("case") => run(
            arguments.get(2).unwrap(),
            arguments.get(3).unwrap().parse().unwrap(),
        ),
        _ => {
            for keys in [1_000, 10_000] {
                println!("{keys} keys");
                for (case, words) in CASES {
                    let count = count(case, keys);
                    println!(
                        "  {words:<58} {count:>12} instructions {:>9.1} a key",
                        count as f64 / keys as f64
                    );
                }
            }
        }
    }
}

/// What callgrind counts for the case.
fn count(case: &str, keys: usize) -> u64 {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--collect-atstart=no",
        ])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(std::env::current_exe().unwrap())
        .args(["case", case, &keys.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("cannot run valgrind (Debian package valgrind): {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let line = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    line.unwrap_or_else(|| panic!("{said}"))
        .1
        .trim()
        .parse()
        .unwrap()
}

#[inline(never)]
fn instructions_counted<T>(what: impl FnOnce() -> T) -> T {
    black_box(what())
}

fn run(case: &str, keys: usize) {
    api_key_exporter::os::allocator::give_back();
    let body = listing::listing(keys, 1);
    let token = Token::parse(b"sk_live_token-of-the-bench", "bench").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: keys,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    let changed = String::from_utf8(body.clone())
        .unwrap()
        .replace("2027-", "2028-");
    let read = |body: &[u8]| Outcome {
        result: Ok(parse::answer(200, body, &rules).unwrap().listing),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let account = Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
        interval: Duration::from_secs(300),
    };
    let metrics = Metrics {
        relative: true,
        scope_info: true,
        max_scopes_per_key: 64,
        max_bytes_per_account: 64 << 20,
    };
    let at = |second| -> DateTime<Utc> {
        let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        start + TimeDelta::seconds(second)
    };
    let empty = AccountState::new(Arc::new(account));
    let assessment_rules = AssessmentRules::default();
    let (state, _) = empty.after(read(&body), &assessment_rules, at(0));
    let settings = ViewSettings {
        rules: Arc::new(assessment_rules.clone()),
        metrics,
    };
    let store = Arc::new(StateStore::new(settings.clone()));
    let id = store.new_id();
    store.replace_accounts(vec![AccountUpdate::Set(id, Arc::new(state))], settings);
    let exposition = ExpositionCache::new(store.clone());
    // What is rendered in the background is counted too: it is waited for.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let scrape = |second, encoding| {
        let now = at(second);
        let latest = loop {
            let latest = runtime.block_on(exposition.read(now));
            if exposition.is_up_to_date(now) {
                break latest;
            }
        };
        latest.body(now, &[], Format::OpenMetrics, encoding)
    };
    let publish = |outcome: Outcome, second| {
        let state = store.state(id).unwrap();
        let (state, _) = state.after(outcome, &assessment_rules, at(second));
        store.publish(id, Arc::new(state));
    };
    // The allocator and the lazily made tables are warm.
    scrape(0, Encoding::Identity);
    scrape(1, Encoding::Gzip);
    let (same, changed) = (read(&body), read(changed.as_bytes()));
    match case {
        "read" => drop(instructions_counted(|| read(&body))),
        "change" => instructions_counted(|| publish(changed, 2)),
        "same" => instructions_counted(|| publish(same, 2)),
        "render-change" => {
            publish(changed, 2);
            drop(instructions_counted(|| scrape(2, Encoding::Gzip)));
        }
        "render-same" => {
            publish(same, 2);
            drop(instructions_counted(|| scrape(2, Encoding::Gzip)));
        }
        "second-identity" => drop(instructions_counted(|| scrape(2, Encoding::Identity))),
        "second-gzip" => drop(instructions_counted(|| scrape(2, Encoding::Gzip))),
        "same-identity" => drop(instructions_counted(|| scrape(1, Encoding::Identity))),
        "same-gzip" => drop(instructions_counted(|| scrape(1, Encoding::Gzip))),
        "nothing" => instructions_counted(|| {}),
        case => panic!("there is no case {case}"),
    }
}
