//! Scrapes while the state is swapped: each tells of one state, whole.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
use chrono::{DateTime, TimeDelta};

use crate::support::{Api, Exporter, Scrape, config, listing};

#[tokio::test]
async fn scrapes_while_the_state_is_swapped_are_never_torn() {
    let api = Api::start(listing(&["a"])).await;
    let mut config = config(&api.url(), "", "");
    config.accounts[0].interval = Duration::from_millis(10);
    let exporter = Exporter::with(&config).await;
    exporter.up().await;
    let start = Instant::now();
    let mut sizes = BTreeSet::new();
    let mut turn = 0;
    while start.elapsed() < Duration::from_secs(2) {
        turn += 1;
        let many = ["a", "b", "c", "d"];
        api.reply(listing(&many[..=turn % 4]));
        let scrape = exporter.scrape().await;
        let counted: f64 = scrape
            .of("api_key_account_keys{")
            .iter()
            .map(|(_, count)| count)
            .sum();
        let shown = scrape.key_ids().len();
        assert_eq!(counted, shown as f64);
        assert_eq!(scrape.of("api_key_expires_in_seconds{").len(), shown);
        sizes.insert(shown);
    }
    assert!(sizes.len() > 1, "the state never changed");
}

#[test]
fn whoever_reads_while_another_publishes_as_fast_as_it_can_reads_one_state() {
    let token = Token::parse(b"sk_live_token-of-the-test", "test").unwrap();
    let rules = Rules {
        token: &token,
        keys_max: 100,
        pages_max: 200,
        expected_env: None,
        held: None,
    };
    let account = Account {
        name: "a".into(),
        provider: "bitgpt".into(),
        base_url: "https://api.bitgpt.xyz/".into(),
        interval: Duration::from_secs(300),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
    };
    let empty = AccountState::new(Arc::new(account));
    let now = |second| DateTime::from_timestamp(second, 0).unwrap();
    let states: Vec<AccountState> = (1..50)
        .map(|count| {
            let ids: Vec<String> = (0..count).map(|id| format!("key_{id}")).collect();
            let body = listing(&ids.iter().map(String::as_str).collect::<Vec<_>>()).body;
            let outcome = Outcome {
                result: Ok(parse::answer(200, &body, &rules).unwrap().listing),
                clock_skew: None,
                age: None,
                token: None,
                asked_at: None,
            };
            empty.after(outcome, &AssessmentRules::default(), now(0)).0
        })
        .collect();
    let metrics = Metrics {
        relative: true,
        scope_info: true,
        max_scopes_per_key: 64,
        max_bytes_per_account: 64 << 20,
    };
    let settings = ViewSettings {
        rules: Arc::default(),
        metrics,
    };
    let store = Arc::new(StateStore::new(settings.clone()));
    let id = store.new_id();
    let plan = vec![AccountUpdate::Set(id, Arc::new(empty.clone()))];
    store.replace_accounts(plan, settings);
    let exposition = ExpositionCache::new(store.clone());
    let is_over = AtomicBool::new(false);
    let read = |format, encoding| {
        let (mut sizes, mut scrapes) = (BTreeSet::new(), 0);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        while !is_over.load(Ordering::Relaxed) {
            scrapes += 1;
            // Some readers share a second, most do not.
            let moment = now(scrapes / 3);
            let latest = runtime.block_on(exposition.read(moment));
            let body = latest.body(moment, &[], format, encoding).concat();
            let scrape = Scrape::parse(&match encoding {
                Encoding::Identity => String::from_utf8(body).unwrap(),
                Encoding::Gzip => gunzip(&body),
            });
            let counts = scrape.of("api_key_account_keys{");
            let counted: f64 = counts.iter().map(|(_, count)| count).sum();
            assert_eq!(counted, scrape.of("api_key_info{").len() as f64);
            assert_eq!(
                counted,
                scrape.of("api_key_expires_in_seconds{").len() as f64
            );
            sizes.insert(scrape.key_ids().len());
        }
        (sizes.len(), scrapes)
    };
    let mut published = 0;
    let seen = std::thread::scope(|scope| {
        let readers = [
            (Format::Text, Encoding::Identity),
            (Format::Text, Encoding::Gzip),
            (Format::OpenMetrics, Encoding::Identity),
            (Format::OpenMetrics, Encoding::Gzip),
        ]
        .map(|(format, encoding)| scope.spawn(move || read(format, encoding)));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            for state in &states {
                store.publish(id, Arc::new(state.clone()));
                published += 1;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    for (sizes, scrapes) in seen {
        assert!(
            sizes > 1 && scrapes > 10,
            "{published} published, {scrapes} read, {sizes} sizes"
        );
    }
}

/// What an independent reader makes of a gzip file.
fn gunzip(file: &[u8]) -> String {
    let mut text = String::new();
    let mut reader = flate2::bufread::GzDecoder::new(file);
    reader.read_to_string(&mut text).unwrap();
    text
}
