//! What a page of many keys costs: `cargo bench --bench pages`.
//!
//! CPU time of this thread, the least of some runs, so that other work on the machine counts
//! little.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints")]

mod listing;

use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::glob::Glob;
use api_key_exporter::domain::inventory::{Entry, Inventory};
use api_key_exporter::pages::{Body, Exporter, Overview, Page};
use api_key_exporter::provider::Rules;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::secret::Token;
use chrono::{DateTime, Utc};
use rustix::time::{ClockId, clock_gettime};

const RUNS: usize = 15;

fn main() {
    for count in [10, 1_000, 10_000] {
        let overview = overview(count);
        println!("{count} keys");
        for (page, query) in [
            (Page::Status, ""),
            (Page::Status, "q=service+7&state=valid"),
            (Page::Status, "limit=500&offset=9000"),
            (Page::Keys, "limit=10000"),
            (Page::Calendar, ""),
        ] {
            let (took, bytes) = cost(page, &overview, query);
            let path = page.path();
            println!(
                "  {path:<16} {query:<26} {:>8.2} ms {:>8} KiB",
                took.as_secs_f64() * 1e3,
                bytes / 1024
            );
        }
    }
}

/// The least CPU time of some runs, and how long the document is.
fn cost(page: Page, overview: &Overview, query: &str) -> (Duration, usize) {
    let exporter = Exporter {
        is_alive: true,
        is_config_current: true,
        links: String::new(),
        telemetry_path: "/metrics".to_owned(),
    };
    let runs = (0..RUNS).map(|_| {
        let start = cpu_time();
        let document = page.render(overview.clone(), &exporter, query);
        let bytes = match document.body {
            Body::Whole(bytes) => bytes.len(),
            Body::Pieces(pieces) => pieces.map(|piece| piece.len()).sum(),
        };
        (cpu_time().saturating_sub(start), bytes)
    });
    runs.min().unwrap()
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// One account, an inventory with names for all keys and teams for some.
fn overview(count: usize) -> Overview {
    let token = Token::parse(b"sk_live_YmVuY2htYXJrLXRva2Vu.zzzzz", "bench").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: count,
        pages_max: 1,
        held: None,
        expected_env: None,
    };
    let listing = parse::answer(200, &listing::listing(count, 1), &rules).unwrap();
    let outcome = Outcome {
        result: Ok(listing.listing),
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let entry = |pattern: &str, team: &str| Entry {
        team: Some(team.into()),
        ..Entry::new(Glob::parse(pattern).unwrap())
    };
    let entries = (0..100).map(|team| entry(&format!("service {team}*"), &format!("team {team}")));
    let rules = AssessmentRules {
        inventory: Inventory::new(entries.collect()),
        ..AssessmentRules::default()
    };
    let account = Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        shrink: ShrinkGuard::default(),
        expired_retention: chrono::TimeDelta::days(7),
        listing_scope: None,
        interval: Duration::from_secs(300),
    };
    let now: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
    let (state, _) = AccountState::new(Arc::new(account)).after(outcome, &rules, now);
    Overview {
        states: [Arc::new(state)].into(),
        rules: Arc::new(rules),
        now,
    }
}
