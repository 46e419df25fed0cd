//! The bytes of a listing to an exposition: the own reader finds the same keys in it, whatever the
//! format, the encoding and the way it was made.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use api_key_exporter::domain::account_state::{Account, AccountState, Outcome, SavedState};
use api_key_exporter::domain::assessment::AssessmentRules;
use api_key_exporter::domain::changes::ShrinkGuard;
use api_key_exporter::domain::failure::Failure;
use api_key_exporter::domain::key::{Expiry, Scopes};
use api_key_exporter::domain::listing::Listing;
use api_key_exporter::domain::view::{Metrics, ViewSettings};
use api_key_exporter::exposition::cache::ExpositionCache;
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::exposition::{Encoding, Format};
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::snapshot::format::{Identity, decode, encode};
use api_key_exporter::state_store::{AccountUpdate, StateStore};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::runtime::{Builder, Runtime};

use super::{reader, support};

/// A name that breaks whatever does not escape.
const ODD_NAME: &str = "odd \"name\" \\ ü";

/// Checks one body.
pub fn check(bytes: &[u8]) {
    let token = support::token();
    let rules = support::rules(&token);
    let refused = parse::answer(503, bytes, &rules).expect_err("an error status is no listing");
    support::assert_clean_failure(&refused);
    let result = parse::answer(200, bytes, &rules).map(|listed| listed.listing);
    match &result {
        Ok(listing) => assert_saved(listing),
        Err(failure) => {
            support::assert_clean_failure(failure);
            // Without one, the exposition depends on the reason alone; most inputs end here.
            if failure.support_id.is_none() {
                return;
            }
        }
    }
    assert_exposed(&polled(result));
}

/// The account after its first poll.
pub fn polled(result: Result<Listing, Failure>) -> AccountState {
    let outcome = Outcome {
        result,
        clock_skew: None,
        age: None,
        token: None,
        asked_at: None,
    };
    let rules = AssessmentRules::default();
    let (state, _) = account(ODD_NAME).after(outcome, &rules, support::now());
    state
}

/// A state's exposition is the same in all formats and encodings, however it is made.
pub fn assert_exposed(state: &AccountState) {
    let settings = settings();
    let other = account("other");
    let incremental = updated(&settings, &other, state);
    let fresh = Exposition::new([state.clone(), other], &settings, support::now());
    assert_series(&assert_alike(&fresh, &incremental, support::now()), state);
}

/// Every family, and each key whatever its size.
pub fn settings() -> ViewSettings {
    ViewSettings {
        rules: Arc::new(AssessmentRules::default()),
        metrics: Metrics {
            relative: true,
            scope_info: true,
            max_scopes_per_key: 64,
            max_bytes_per_account: usize::MAX,
        },
    }
}

/// The series of both expositions, which are the same in all formats and encodings.
pub fn assert_alike(
    fresh: &Exposition,
    incremental: &Exposition,
    now: DateTime<Utc>,
) -> reader::Series {
    let body = |exposition: &Exposition, format, encoding| {
        exposition.body(now, &[], format, encoding).concat()
    };
    let [text, open_metrics] = [Format::Text, Format::OpenMetrics].map(|format| {
        let plain = body(fresh, format, Encoding::Identity);
        assert!(
            plain == body(incremental, format, Encoding::Identity),
            "incremental differs"
        );
        for exposition in [fresh, incremental] {
            let mut unpacked = Vec::new();
            let packed = body(exposition, format, Encoding::Gzip);
            let mut decoder = flate2::read::GzDecoder::new(&*packed);
            decoder.read_to_end(&mut unpacked).expect("valid gzip");
            assert!(plain == unpacked, "gzip differs from identity");
        }
        let text = String::from_utf8(plain).expect("UTF-8");
        support::assert_no_token("the exposition", &text);
        reader::read(&text, format == Format::OpenMetrics)
    });
    assert_eq!(text, open_metrics, "the formats differ");
    text
}

/// What is known of the keys is what the series say, and there is no series of another key.
fn assert_series(series: &reader::Series, state: &AccountState) {
    let nothing = Arc::default();
    let listing = state.held.as_ref().unwrap_or(&nothing);
    assert_eq!(series.named("api_key_info").count(), listing.keys().len());
    let up = state
        .last_attempt
        .map(|it| if it.is_success { "1" } else { "0" });
    assert_eq!(series.get("api_key_account_up", ("account", ODD_NAME)), up);
    let states = series.named("api_key_account_keys");
    let states = states.filter(|(labels, _)| labels["account"] == ODD_NAME);
    let counted: f64 = states.map(|(_, value)| value.parse::<f64>().unwrap()).sum();
    assert_eq!(counted, listing.keys().len() as f64);
    for key in listing.keys() {
        let of_key = ("key_id", key.id.as_str());
        let value = |name| series.get(name, of_key);
        assert_eq!(value("api_key_info"), Some("1"));
        let expected = match key.expiry {
            Expiry::At(end) => {
                assert!(value("api_key_expires_in_seconds").is_some());
                Some(end.timestamp_micros() as f64 / 1e6)
            }
            Expiry::Never | Expiry::Unknown => None,
        };
        let expiry = value("api_key_expiry_timestamp_seconds");
        let expiry = expiry.map(|text| text.parse::<f64>().unwrap());
        match (expiry, expected) {
            (Some(expiry), Some(expected)) => {
                // A double has no room for more than that far from 1970.
                assert!((expiry - expected).abs() <= 1e-3, "{expiry} {expected}");
            }
            _ => assert_eq!(expiry, expected),
        }
        let flag = |is_set| Some(if is_set { "1" } else { "0" });
        assert_eq!(
            value("api_key_never_expires"),
            flag(key.expiry == Expiry::Never)
        );
        assert_eq!(
            value("api_key_expiry_unknown"),
            flag(key.is_expiry_unknown())
        );
        let count = key.scopes.as_ref().map(|scopes| scopes.len().to_string());
        assert_eq!(value("api_key_scopes"), count.as_deref());
        let scopes = series.named("api_key_scope_info");
        let scopes = scopes.filter(|(labels, _)| labels["key_id"] == of_key.1);
        let scopes: Vec<&str> = scopes.map(|(labels, _)| &*labels["scope"]).collect();
        let known = key.scopes.iter().flat_map(Scopes::iter);
        let known: Vec<&str> = known.take(64).collect();
        assert_eq!(scopes, known);
    }
}

/// A listing survives its snapshot.
pub fn assert_saved(listing: &Listing) {
    let identity = Identity {
        account: ODD_NAME.into(),
        provider: "bitgpt".into(),
        base_url: "https://api.example/".into(),
    };
    let state = SavedState {
        listing: Arc::new(listing.clone()),
        listed_at: support::now(),
        shrunk_listings: 0,
        token: None,
    };
    let bytes = encode(&identity, &state);
    let saved = decode(&bytes, &identity).expect("what was saved can be read");
    let again = encode(&identity, &saved);
    assert!(bytes == again, "a snapshot differs from what was saved");
    assert_eq!(saved.listing.keys().len(), listing.keys().len());
    support::assert_no_token("the saved state", &String::from_utf8_lossy(&bytes));
}

/// The exposition after an update of one account of two.
fn updated(settings: &ViewSettings, other: &AccountState, state: &AccountState) -> Arc<Exposition> {
    let store = Arc::new(StateStore::new(settings.clone()));
    let ids = [store.new_id(), store.new_id()];
    let before = account(ODD_NAME);
    let plan = vec![
        AccountUpdate::Set(ids[0], Arc::new(before)),
        AccountUpdate::Set(ids[1], Arc::new(other.clone())),
    ];
    store.replace_accounts(plan, settings.clone());
    let cache = ExpositionCache::new(store.clone());
    scraped(&cache, support::now());
    store.publish(ids[0], Arc::new(state.clone()));
    scraped(&cache, support::now())
}

/// Waits for the latest states: on a slow machine the cache serves the previous ones meanwhile.
pub fn scraped(cache: &ExpositionCache, now: DateTime<Utc>) -> Arc<Exposition> {
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            loop {
                let exposition = cache.read(now).await;
                if cache.is_up_to_date(now) {
                    return exposition;
                }
            }
        })
    })
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
}

/// An account that was never polled.
pub fn account(name: &str) -> AccountState {
    AccountState::new(Arc::new(Account {
        name: name.into(),
        provider: "bitgpt".into(),
        base_url: "https://api.example/".into(),
        interval: Duration::from_secs(300),
        shrink: ShrinkGuard::default(),
        expired_retention: TimeDelta::days(7),
        listing_scope: None,
    }))
}
