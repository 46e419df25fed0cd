//! Polls, reloads and scrapes in any order: the exposition that was updated step by step equals one
//! that is built from scratch.

use std::sync::Arc;

use api_key_exporter::domain::account_state::{AccountState, Outcome};
use api_key_exporter::domain::failure::{Failure, Reason};
use api_key_exporter::domain::listing::Listing;
use api_key_exporter::exposition::cache::ExpositionCache;
use api_key_exporter::exposition::text::Exposition;
use api_key_exporter::provider::bitgpt::parse;
use api_key_exporter::state_store::{AccountUpdate, StateStore};
use chrono::TimeDelta;
use serde_json::json;

use super::{listing, support};

const ACCOUNTS: [&str; 4] = ["a", "b", "c", "d"];

/// Most steps of an input; each renders two expositions in four forms.
const STEPS_MAX: usize = 8;

/// Checks a series of steps of three bytes: what happens, to which account, and its new data.
pub fn check(bytes: &[u8]) {
    let mut settings = listing::settings();
    let store = Arc::new(StateStore::new(settings.clone()));
    let mut accounts = ACCOUNTS.map(|name| (store.new_id(), Arc::new(listing::account(name))));
    let cache = ExpositionCache::new(store.clone());
    let mut order: Vec<usize> = Vec::new();
    let mut now = support::now();
    for step in bytes.chunks_exact(3).take(STEPS_MAX) {
        let &[what, which, data] = step else { return };
        let which = usize::from(which) % ACCOUNTS.len();
        now += TimeDelta::minutes(i64::from(what >> 3) * i64::from(data));
        match what & 3 {
            // A reload; it may remove accounts, add some, and change the settings.
            0 => {
                let before = std::mem::take(&mut order);
                let mut plan = Vec::new();
                for at in (0..ACCOUNTS.len()).filter(|at| data >> at & 1 == 1) {
                    let at = (at + which) % ACCOUNTS.len();
                    let (id, state) = &accounts[at];
                    plan.push(if before.contains(&at) {
                        AccountUpdate::Keep(*id)
                    } else {
                        AccountUpdate::Set(*id, state.clone())
                    });
                    order.push(at);
                }
                settings.metrics.relative = data & 16 == 0;
                settings.metrics.scope_info = data & 32 == 0;
                // Less than some accounts need, so that families are left out.
                settings.metrics.max_bytes_per_account =
                    if data & 64 == 0 { usize::MAX } else { 6000 };
                store.replace_accounts(plan, settings.clone());
            }
            kind => {
                let (id, state) = &mut accounts[which];
                let result = if kind == 1 {
                    Err(Failure::new(
                        Reason::ALL[usize::from(data) % Reason::ALL.len()],
                        "why",
                    ))
                } else {
                    Ok(keys(data))
                };
                let outcome = Outcome {
                    result,
                    clock_skew: None,
                    age: None,
                    token: None,
                    asked_at: None,
                };
                let (after, _) = state.after(outcome, &settings.rules, now);
                *state = Arc::new(after);
                store.publish(*id, state.clone());
            }
        }
        // Not every change is scraped.
        if what & 4 == 0 {
            let states = order.iter().map(|at| AccountState::clone(&accounts[*at].1));
            let fresh = Exposition::new(states, &settings, now);
            listing::assert_alike(&fresh, &listing::scraped(&cache, now), now);
        }
    }
}

/// Up to 15 keys, which depend on `data`.
fn keys(data: u8) -> Listing {
    let token = support::token();
    let scopes = &["a", "b", "c"][..usize::from(data >> 6)];
    let key = |number: u8| {
        let end = format!("2026-01-{:02} 00:00:00", number + 1);
        json!({
            "id": format!("key_{number}"),
            "label": format!("label {}", data >> 4),
            "scopes": scopes,
            "ip_allow_list": [],
            "expires_at": (number % 3 != data % 3).then_some(end),
        })
    };
    let keys: Vec<_> = (0..data & 15).map(key).collect();
    let body = json!({ "status": 200, "data": keys, "env": "development" }).to_string();
    let listed = parse::answer(200, body.as_bytes(), &support::rules(&token));
    listed.expect("a listing").listing
}
