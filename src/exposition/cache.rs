//! The exposition that is served: updated when a scrape finds changed states, once for all
//! concurrent scrapers. The only part of the exposition that is not pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::domain::account_state::AccountState;
use crate::event_log::ExpositionLog;
use crate::exposition::compression::Compressor;
use crate::exposition::text::{Exposition, Update};
use crate::state_store::{AccountId, Replaced, StateStore, Subscription};

/// Up to this much work runs in the scrape that finds it, on the runtime's own thread: rendering
/// and compressing this many keys takes some 20 ms. Larger work runs on a blocking thread.
const INLINE_KEYS_MAX: usize = 2_000;

/// The cost of an account's own samples, in keys.
const ACCOUNT_KEYS: usize = 2;

/// How long a scrape waits for larger work. After that it serves the last complete text, which is
/// correct as of the time that it states, and the next scrape gets the new one.
const RENDER_WAIT: Duration = Duration::from_millis(250);

/// How long a scrape waits if there is no text yet, because a response would not contain any
/// account.
const FIRST_RENDER_WAIT: Duration = Duration::from_millis(750);

/// The exposition of a store's states.
#[derive(Debug)]
pub struct ExpositionCache {
    store: Arc<StateStore>,
    latest: Arc<Mutex<Built>>,
    /// Locked during rendering.
    renderer: Arc<tokio::sync::Mutex<Renderer>>,
}

/// The last complete exposition.
#[derive(Clone, Debug, Default)]
struct Built {
    exposition: Arc<Exposition>,
    /// The version of the store that it shows; 0 means none.
    version: u64,
}

/// Follows the store and renders changes.
#[derive(Debug)]
struct Renderer {
    changes: Subscription,
    latest: Arc<Mutex<Built>>,
    compressor: Compressor,
    /// The accounts of the last complete exposition, with their positions.
    positions: HashMap<AccountId, usize>,
    /// The pending work, and the store's version that it leads to. Kept until it is rendered, so
    /// that a panic loses nothing.
    pending: BTreeMap<AccountId, Arc<AccountState>>,
    version: u64,
    /// The new accounts.
    accounts: Option<Replaced>,
    /// Whether there are changes that the last complete exposition does not show.
    is_replaced: bool,
    log: ExpositionLog<AccountId>,
}

impl ExpositionCache {
    /// Nothing is rendered before the first scrape.
    pub fn new(store: Arc<StateStore>) -> Self {
        let latest = Arc::default();
        let renderer = Renderer {
            changes: store.subscribe(),
            latest: Arc::clone(&latest),
            compressor: Compressor::new(),
            positions: HashMap::new(),
            pending: BTreeMap::new(),
            version: 0,
            accounts: None,
            is_replaced: false,
            log: ExpositionLog::default(),
        };
        Self {
            store,
            latest,
            renderer: Arc::new(tokio::sync::Mutex::new(renderer)),
        }
    }

    /// The exposition as of `now`: of the latest states or, if rendering those takes long, the last
    /// complete one.
    pub async fn read(&self, now: DateTime<Utc>) -> Arc<Exposition> {
        let built = self.latest();
        if self.is_current(&built, now) {
            return built.exposition;
        }
        let wait = match built.version {
            0 => FIRST_RENDER_WAIT,
            _ => RENDER_WAIT,
        };
        // At the deadline the last complete one is served anyway.
        drop(timeout_at(Instant::now() + wait, self.render(now)).await);
        self.latest().exposition
    }

    /// Whether all known states are rendered as of `now`.
    pub fn is_up_to_date(&self, now: DateTime<Utc>) -> bool {
        self.is_current(&self.latest(), now)
    }

    /// Renders changes. Continues in the background if the caller stops waiting.
    async fn render(&self, now: DateTime<Utc>) {
        let mut renderer = self.renderer.clone().lock_owned().await;
        // Another scraper may have done it in the meantime.
        if self.is_current(&self.latest(), now) {
            return;
        }
        if renderer.prepare(now) <= INLINE_KEYS_MAX {
            renderer.render(now);
            return;
        }
        let rendering = spawn_blocking(move || renderer.render(now));
        // A panic is already logged; the next scrape retries.
        drop(rendering.await);
    }

    fn is_current(&self, built: &Built, now: DateTime<Utc>) -> bool {
        built.version == self.store.version() && built.exposition.holds_at(now)
    }

    fn latest(&self) -> Built {
        latest(&self.latest)
    }
}

impl Renderer {
    /// Takes the changes of the store, and returns how many keys have to be rendered.
    fn prepare(&mut self, now: DateTime<Utc>) -> usize {
        let changes = self.changes.take();
        self.version = changes.version;
        self.pending.extend(changes.states);
        if let Some(replaced) = changes.replaced {
            let before = self.accounts.replace(replaced);
            self.is_replaced = true;
            let settings = self.accounts.as_ref().map(|accounts| &accounts.settings);
            if before.as_ref().map(|before| &before.settings) != settings {
                self.add_all();
            }
        }
        let exposition = latest(&self.latest).exposition;
        self.add_outdated(&exposition, now);
        let Some(Replaced { settings, .. }) = &self.accounts else {
            return 0;
        };
        let keys = self.pending.iter().map(|(id, state)| {
            let position = self.positions.get(id).copied();
            ACCOUNT_KEYS + exposition.keys_to_render(position, state, settings, now)
        });
        keys.sum()
    }

    /// Schedules all accounts for rendering.
    fn add_all(&mut self) {
        for id in self.accounts.iter().flat_map(|accounts| &*accounts.order) {
            if !self.pending.contains_key(id)
                && let Some(state) = self.changes.state(*id)
            {
                self.pending.insert(*id, state);
            }
        }
    }

    /// Schedules the accounts with outdated text for rendering.
    fn add_outdated(&mut self, exposition: &Exposition, now: DateTime<Utc>) {
        if exposition.holds_at(now) {
            return;
        }
        let outdated: Vec<usize> = exposition.outdated(now).collect();
        let ids = self.positions.iter();
        let ids = ids.filter(|(_, position)| outdated.binary_search(position).is_ok());
        for (id, _) in ids {
            if !self.pending.contains_key(id)
                && let Some(state) = self.changes.state(*id)
            {
                self.pending.insert(*id, state);
            }
        }
    }

    /// Renders pending changes, and makes the result the latest exposition.
    fn render(&mut self, now: DateTime<Utc>) {
        let Some(Replaced { order, settings }) = &self.accounts else {
            return;
        };
        let before = latest(&self.latest).exposition;
        let replaced = self.is_replaced.then(|| {
            let kept = order.iter().map(|id| self.positions.get(id).copied());
            let kept: Vec<Option<usize>> = kept.collect();
            let positions: HashMap<AccountId, usize> = order.iter().copied().zip(0..).collect();
            (positions, kept)
        });
        let (positions, kept) = match &replaced {
            Some((positions, kept)) => (positions, Some(kept.as_slice())),
            None => (&self.positions, None),
        };
        let states = self.pending.iter();
        let states = states.filter_map(|(id, state)| Some((*positions.get(id)?, state.clone())));
        let mut states: Vec<(usize, Arc<AccountState>)> = states.collect();
        states.sort_unstable_by_key(|(position, _)| *position);
        let update = Update {
            kept,
            states: &states,
            settings,
        };
        let (exposition, dropped) = before.updated(&update, now, &mut self.compressor);
        let exposition = Arc::new(exposition);
        self.log.retain(|id| positions.contains_key(id));
        let bytes_max = settings.metrics.max_bytes_per_account;
        for (position, families) in dropped {
            let state = states.binary_search_by_key(&position, |(position, _)| *position);
            let state = state.ok().and_then(|index| states.get(index));
            if let (Some(id), Some((_, state))) = (order.get(position), state) {
                self.log
                    .dropped(*id, &state.account.name, &families, bytes_max);
            }
        }
        // Nothing is discarded before this point, in case of a panic.
        if let Some((positions, _)) = replaced {
            self.positions = positions;
        }
        self.is_replaced = false;
        self.pending.clear();
        let version = self.version;
        let built = Built {
            exposition,
            version,
        };
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = built;
    }
}

/// A panic while the lock was held leaves a complete value behind.
fn latest(latest: &Mutex<Built>) -> Built {
    let latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
    latest.clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::assessment::AssessmentRules;
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::Key;
    use crate::domain::key::tests::{at, key};
    use crate::domain::policy::Limits;
    use crate::domain::view::{Metrics, ViewSettings};
    use crate::exposition::{Encoding, Format};
    use crate::state_store::AccountUpdate;

    fn settings(rules: AssessmentRules) -> ViewSettings {
        ViewSettings {
            rules: Arc::new(rules),
            metrics: Metrics {
                relative: true,
                scope_info: false,
                max_scopes_per_key: 1,
                max_bytes_per_account: 64 << 20,
            },
        }
    }

    /// A store of these accounts, and the exposition of it.
    fn cache(
        states: Vec<AccountState>,
        settings: ViewSettings,
    ) -> (Arc<StateStore>, Vec<AccountId>, ExpositionCache) {
        let store = Arc::new(StateStore::new(settings.clone()));
        let ids: Vec<AccountId> = states.iter().map(|_| store.new_id()).collect();
        let plan = ids.iter().zip(states);
        let plan = plan.map(|(id, state)| AccountUpdate::Set(*id, Arc::new(state)));
        store.replace_accounts(plan.collect(), settings);
        let cache = ExpositionCache::new(store.clone());
        (store, ids, cache)
    }

    async fn text(cache: &ExpositionCache, now: DateTime<Utc>) -> String {
        let exposition = cache.read(now).await;
        let body = exposition.body(now, &[], Format::Text, Encoding::Identity);
        String::from_utf8(body.concat()).unwrap()
    }

    fn account(name: &str, ids: &[&str], now: i64) -> AccountState {
        let keys = ids.iter().map(|id| key(id)).collect();
        polled_every(Duration::from_secs(60), name).polled(listed(keys), at(now))
    }

    #[tokio::test]
    async fn a_scrape_is_a_function_of_state_and_now_whatever_was_read_before() {
        // One key, created at 0, muted until 100, too old from 200 on.
        let key = Key {
            created_at: Some(at(0)),
            ..key("k")
        };
        let muted = Entry {
            muted_until: Some(at(100)),
            ..entry("*")
        };
        let rules = AssessmentRules {
            inventory: Inventory::new(vec![muted]),
            policy: Limits {
                max_age: Some(chrono::TimeDelta::seconds(200)),
                ..Limits::default()
            },
            ..AssessmentRules::default()
        };
        let table = [
            (0, (true, false)),
            (99, (true, false)),
            (100, (false, false)),
            (101, (false, false)),
            (199, (false, false)),
            (200, (false, true)),
            (201, (false, true)),
            (1 << 40, (false, true)),
        ];
        let other = account("b", &["other"], 0);
        for (listed_at, _) in table {
            let state = polled_every(Duration::from_secs(60), "a");
            let state = state.polled(listed(vec![key.clone()]), at(listed_at));
            let (_, _, cache) = cache(vec![other.clone(), state], settings(rules.clone()));
            // Forwards, and back again, as a clock may do.
            for (now, expected) in table.iter().chain(table.iter().rev()) {
                let text = text(&cache, at(*now)).await;
                let shown = (
                    text.contains("api_key_muted{account=\"a\",key_id=\"k\"} 1"),
                    text.contains("key_id=\"k\",policy=\"too_old\""),
                );
                assert_eq!(shown, *expected, "from {listed_at} to {now}");
            }
        }
    }

    #[tokio::test]
    async fn text_that_still_holds_is_not_rendered_again() {
        let state = account("a", &["k"], 0);
        let rules = AssessmentRules::default();
        let (store, ids, cache) = cache(vec![state.clone()], settings(rules));
        let first = cache.read(at(0)).await;
        assert!(Arc::ptr_eq(&first, &cache.read(at(99)).await));
        store.publish(ids[0], Arc::new(state.with_next_poll(at(7))));
        let second = cache.read(at(99)).await;
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(
            text(&cache, at(99))
                .await
                .contains("next_poll_timestamp_seconds{account=\"a\"} 7")
        );
    }

    #[tokio::test]
    async fn whatever_changes_the_text_is_that_of_an_exposition_made_from_nothing() {
        let mut random = fastrand::Rng::with_seed(5);
        let rules = AssessmentRules::default();
        let view = settings(rules);
        let any_state = |random: &mut fastrand::Rng, number: u32| {
            let numbers: Vec<u16> = (0..random.u32(..20)).map(|_| random.u16(..)).collect();
            let keys = numbers.iter().map(|number| key(&format!("key_{number}")));
            let name = format!("account {number}");
            let empty = polled_every(Duration::from_secs(60), &name);
            match random.u8(..4) {
                0 => empty,
                _ => empty.polled(listed(keys.collect()), at(0)),
            }
        };
        let (store, mut ids, cache) = cache(Vec::new(), view.clone());
        let mut states: HashMap<AccountId, AccountState> = HashMap::new();
        for turn in 0..200_u32 {
            if turn % 20 == 0 {
                // Some are removed, some are new, in any order.
                random.shuffle(&mut ids);
                ids.truncate(random.usize(..=ids.len()));
                let mut plan: Vec<AccountUpdate> =
                    ids.iter().map(|id| AccountUpdate::Keep(*id)).collect();
                for number in 0..random.u32(..10) {
                    let id = store.new_id();
                    let state = any_state(&mut random, turn * 100 + number);
                    states.insert(id, state.clone());
                    let at = random.usize(..=ids.len());
                    ids.insert(at, id);
                    plan.insert(at, AccountUpdate::Set(id, Arc::new(state)));
                }
                store.replace_accounts(plan, view.clone());
            }
            for _ in 0..random.u8(..4) {
                let Some(id) = random.choice(&ids) else { break };
                let known = &states[id];
                let other = any_state(&mut random, 0);
                let next = other.of(known.account.clone());
                states.insert(*id, next.clone());
                store.publish(*id, Arc::new(next));
            }
            let now = at(i64::from(turn));
            let afresh = Exposition::new(ids.iter().map(|id| states[id].clone()), &view, now);
            let afresh = afresh.body(now, &[], Format::Text, Encoding::Identity);
            assert!(
                text(&cache, now).await.as_bytes() == afresh.concat(),
                "{turn}"
            );
        }
    }

    #[tokio::test]
    async fn other_settings_show_every_account_anew() {
        let states = vec![account("a", &["k"], 0), account("b", &["l"], 0)];
        let (store, ids, cache) = cache(states, settings(AssessmentRules::default()));
        assert!(!text(&cache, at(0)).await.contains("team=\"x\""));
        let team = Entry {
            team: Some("x".into()),
            ..entry("*")
        };
        let rules = AssessmentRules {
            inventory: Inventory::new(vec![team]),
            ..AssessmentRules::default()
        };
        let plan = ids.iter().map(|id| AccountUpdate::Keep(*id));
        store.replace_accounts(plan.collect(), settings(rules));
        assert_eq!(text(&cache, at(0)).await.matches("team=\"x\"").count(), 2);
    }

    #[tokio::test]
    async fn a_scrape_does_not_wait_for_a_long_rendering() {
        let (store, ids, cache) = cache(
            vec![account("a", &["k"], 0)],
            settings(AssessmentRules::default()),
        );
        assert!(text(&cache, at(0)).await.contains("key_id=\"k\""));
        let next = account("a", &["l"], 0);
        store.publish(ids[0], Arc::new(next));
        // Another scraper is rendering slowly.
        let rendering = cache.renderer.clone().lock_owned().await;
        let start = Instant::now();
        assert!(text(&cache, at(0)).await.contains("key_id=\"k\""));
        assert!(start.elapsed() < RENDER_WAIT * 4);
        drop(rendering);
        assert!(text(&cache, at(0)).await.contains("key_id=\"l\""));
    }

    #[tokio::test]
    async fn many_keys_are_rendered_in_the_background_and_shown_when_ready() {
        let ids: Vec<String> = (0..=INLINE_KEYS_MAX)
            .map(|id| format!("key_{id}"))
            .collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let (_, _, cache) = cache(
            vec![account("a", &ids, 0)],
            settings(AssessmentRules::default()),
        );
        let start = Instant::now();
        while !text(&cache, at(0)).await.contains("key_id=\"key_1000\"") {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }
}
