//! The pollers of all accounts: started, supervised, and replaced when the configuration changes. A
//! reload applies completely or not at all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::config::{Account, Config, Details, Effective};
use crate::domain::account_state::{self, AccountState};
use crate::domain::text::chain;
use crate::domain::text::join_truncated;
use crate::domain::view::ViewSettings;
use crate::event_log::{ReloadLog, Reloaded};
use crate::liveness::Liveness;
use crate::os::clock::delta;
use crate::os::systemd::Notifier;
use crate::poller::details::{Ask, Reader};
use crate::poller::origin_limit::{OriginLimit, OriginLimits};
use crate::poller::{Poller, PollerCarryover, retry};
use crate::provider::http::Target;
use crate::provider::lister::{Lister, ListerSettings};
use crate::provider::tls::TlsConfigs;
use crate::reload::Reloader;
use crate::secret;
use crate::snapshot::{self, SnapshotDirectory};
use crate::state_store::{AccountId, AccountUpdate, StateStore};
use crate::supervisor::{Ended, supervise};
use crate::telemetry::{Task, Telemetry};

/// Sections with options that are read only at start, when sockets, log and files are opened.
const FIXED_AT_START: [&str; 3] = ["[web]", "[log]", "[state]"];

/// All pollers, with the resources that they share.
#[derive(Debug)]
pub struct Pollers {
    /// Where they publish states.
    pub store: Arc<StateStore>,
    /// Whether they are alive.
    pub liveness: Liveness,
    /// Where the snapshots are saved, if a directory is configured.
    pub directory: Option<Arc<SnapshotDirectory>>,
    telemetry: Telemetry,
    /// Shared by all accounts.
    tls: Arc<TlsConfigs>,
    /// Shared by the accounts of each origin.
    origins: OriginLimits,
    log: ReloadLog,
    /// The active configuration.
    config: Config,
    /// The options with which the daemon started and that a reload does not change.
    fixed: BTreeSet<(String, Option<String>)>,
    handles: Vec<PollerHandle>,
    /// Cancelled when a poller is crash-looping, or its supervision panics.
    dead: CancellationToken,
    stop: CancellationToken,
    now: fn() -> DateTime<Utc>,
}

/// One account's poller.
#[derive(Debug)]
struct PollerHandle {
    account: Account,
    id: AccountId,
    carryover: Arc<Mutex<PollerCarryover>>,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Pollers {
    /// Starts a poller for each account, with the account's saved state. They stop with `stop`.
    pub async fn start(
        config: &Config,
        telemetry: Telemetry,
        now: fn() -> DateTime<Utc>,
        stop: &CancellationToken,
    ) -> Self {
        let mut pollers = Self {
            store: Arc::new(StateStore::new(view_settings(config))),
            liveness: Liveness::new(),
            directory: open_store(config).await,
            telemetry,
            tls: Arc::new(TlsConfigs::new(now)),
            origins: OriginLimits::default(),
            log: ReloadLog::default(),
            config: config.clone(),
            fixed: fixed_options(&config.effective),
            handles: Vec::new(),
            dead: CancellationToken::new(),
            stop: stop.clone(),
            now,
        };
        pollers.origins.arrange(&config.accounts);
        let mut new = Vec::new();
        let mut plan = Vec::new();
        for account in &config.accounts {
            let id = pollers.store.new_id();
            let state = pollers.first_state(account, config).await;
            plan.push(AccountUpdate::Set(id, Arc::new(state)));
            new.push((account.clone(), id, Arc::default()));
        }
        pollers.store.replace_accounts(plan, view_settings(config));
        pollers.spawn_all(new);
        pollers.telemetry.set_shard(config.shard);
        pollers.telemetry.config_loaded(now());
        pollers
    }

    /// Reloads on request. Ends when it is stopped, or with the name of a task that is
    /// crash-looping.
    pub async fn run(mut self, mut reloader: Reloader, notifier: Notifier) -> &'static str {
        loop {
            let waiting = tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.dead.cancelled() => return "poller",
                waiting = reloader.asked() => waiting,
            };
            notifier.reloading();
            let outcome = match reloader.load().await {
                Ok(config) => {
                    self.apply(config).await;
                    Ok(())
                }
                Err(problems) => {
                    self.telemetry.config_refused();
                    self.log.refused(&problems);
                    Err(problems)
                }
            };
            notifier.ready();
            for one in waiting {
                // The requester may be gone.
                drop(one.send(outcome.clone()));
            }
        }
        for poller in self.handles {
            poller.end().await;
        }
        "pollers"
    }

    /// Activates a checked configuration. An account with the same name and `base_url` keeps its
    /// state; it also keeps its poller if nothing about polling has changed.
    async fn apply(&mut self, config: Config) {
        self.origins.arrange(&config.accounts);
        let before = std::mem::take(&mut self.handles).into_iter();
        let mut before: BTreeMap<String, PollerHandle> = before
            .map(|handle| (handle.account.name.clone(), handle))
            .collect();
        let same_polling =
            (&self.config.poll, self.config.details) == (&config.poll, config.details);
        let (mut kept, mut new, mut plan) = (Vec::new(), Vec::new(), Vec::new());
        let (mut changed, mut added, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for account in &config.accounts {
            let is_same_api = |known: &PollerHandle| {
                let api = |of: &Account| (of.provider.clone(), of.base_url.clone());
                api(&known.account) == api(account)
            };
            let is_known = before.get(&account.name).map(is_same_api);
            let running = match is_known {
                Some(true) => before.remove(&account.name),
                _ => None,
            };
            let Some(running) = running else {
                // Reported as changed: it has a known name, although its state is new.
                match is_known {
                    Some(_) => changed.push(account.name.clone()),
                    None => added.push(account.name.clone()),
                }
                let id = self.store.new_id();
                let state = self.first_state(account, &config).await;
                plan.push(AccountUpdate::Set(id, Arc::new(state)));
                new.push((account.clone(), id, Arc::default()));
                continue;
            };
            if same_polling && running.account.is_polled_like(account) {
                plan.push(AccountUpdate::Keep(running.id));
                kept.push(running);
                continue;
            }
            changed.push(account.name.clone());
            let (id, carryover) = (running.id, running.carryover.clone());
            running.end().await;
            let state = match self.store.state(id) {
                Some(known) => with_details(
                    known.of(facts(account, &config)),
                    details_of(account, &config),
                ),
                None => self.first_state(account, &config).await,
            };
            plan.push(AccountUpdate::Set(id, Arc::new(state)));
            new.push((account.clone(), id, carryover));
        }
        let names: HashSet<&str> = config.accounts.iter().map(|it| it.name.as_str()).collect();
        for (name, running) in before {
            running.end().await;
            if !names.contains(name.as_str()) {
                removed.push(name);
            }
        }
        let fixed = fixed_options(&config.effective);
        let need_restart = fixed.difference(&self.fixed).map(|(name, _)| name.as_str());
        let need_restart: Vec<&str> = need_restart.collect();
        let need_restart = (!need_restart.is_empty()).then(|| need_restart.join(", "));
        self.store.replace_accounts(plan, view_settings(&config));
        if config.shard != self.config.shard {
            self.telemetry.set_shard(config.shard);
        }
        self.config = config;
        self.handles = kept;
        self.spawn_all(new);
        self.telemetry.config_loaded((self.now)());
        let accounts = self.handles.len();
        let [added, removed, changed] =
            [added, removed, changed].map(|names| join_truncated(names.iter().map(String::as_str)));
        self.log.reloaded(&Reloaded {
            accounts,
            added,
            removed,
            changed,
            need_restart,
            warnings: &self.config.warnings,
        });
    }

    /// The first state of a new account: its saved state, or an empty one.
    async fn first_state(&self, account: &Account, config: &Config) -> AccountState {
        let state = with_details(
            AccountState::new(facts(account, config)),
            details_of(account, config),
        );
        let saved = match &self.directory {
            Some(directory) => directory.load(snapshot::identity(&state)).await,
            None => None,
        };
        match saved {
            Some(saved) => state.with_saved(saved, (self.now)()),
            None => state,
        }
    }

    /// Starts pollers; if there are many, their first polls are spread.
    fn spawn_all(&mut self, new: Vec<(Account, AccountId, Arc<Mutex<PollerCarryover>>)>) {
        let together = new.len();
        for (account, id, carryover) in new {
            let poller = self.spawn(account, id, carryover, together);
            self.handles.push(poller);
        }
    }

    fn spawn(
        &self,
        account: Account,
        id: AccountId,
        carryover: Arc<Mutex<PollerCarryover>>,
        together: usize,
    ) -> PollerHandle {
        let stop = self.stop.child_token();
        let settings = settings(&account, &self.config);
        let (token, tls, now) = (account.token.clone(), self.tls.clone(), self.now);
        let (store, remembered, stopping) = (self.store.clone(), carryover.clone(), stop.clone());
        let origin = self.origins.of(&account);
        let heartbeat = self.liveness.heartbeat();
        let panics = self.telemetry.panics(Task::Poller);
        let attempts_max = self.config.poll.attempts;
        let has_details = details_of(&account, &self.config);
        let first_state = with_details(
            AccountState::new(facts(&account, &self.config)),
            has_details,
        );
        let details = self.config.details;
        let first_wait_max = retry::first_wait_max(account.interval, together);
        let start = {
            let stop = stop.clone();
            move || {
                // The last published state, if an earlier run was cut short.
                let state = store.state(id);
                let state = state.map_or_else(|| first_state.clone(), Arc::unwrap_or_clone);
                let mark_key = state.token().map(|mark| mark.key);
                let lister = Arc::new(Lister::new(
                    token.clone(),
                    settings.clone(),
                    tls.clone(),
                    mark_key.or_else(secret::random_mark_key),
                    now,
                ));
                let (known, limit) = (store.clone(), origin.clone());
                let poller = Poller {
                    details: has_details.then(|| reader(&lister, &origin, details, now)),
                    attempt: async move |deadline| {
                        let attempt = async |deadline| {
                            let held = known.state(id).and_then(|state| state.held.clone());
                            lister.attempt(deadline, held.as_deref()).await
                        };
                        limit.attempt(deadline, attempt).await
                    },
                    origin: origin.clone(),
                    state,
                    attempts_max,
                    store: store.clone(),
                    id,
                    first_wait_max,
                    carryover: remembered.clone(),
                    heartbeat: heartbeat.clone(),
                    now,
                    random: fastrand::f64,
                };
                let stop = stop.clone();
                async move { poller.run(stop).await }
            }
        };
        // Also cancelled if the supervision itself panics.
        let dead = self.dead.clone().drop_guard();
        let task = tokio::spawn(async move {
            let task = Task::Poller.as_str();
            if supervise(task, start, &panics, &stopping).await == Ended::Stopped {
                drop(dead.disarm());
            }
        });
        PollerHandle {
            account,
            id,
            carryover,
            stop,
            task: AbortOnDropHandle::new(task),
        }
    }
}

impl PollerHandle {
    /// Stops the poller and waits until it has published its last state.
    async fn end(self) {
        self.stop.cancel();
        // It ends at its next wait; a panic has the same effect.
        drop(self.task.await);
    }
}

/// The snapshot directory, if one is configured. If it cannot be opened, the exporter starts
/// without saved listings and retries at each save.
async fn open_store(config: &Config) -> Option<Arc<SnapshotDirectory>> {
    let directory = config.state.directory.as_deref()?;
    let directory = Arc::new(SnapshotDirectory::new(
        directory,
        config.poll.max_body_bytes,
    ));
    if let Err(error) = directory.open().await {
        warn!(
            error = chain(&error),
            "starting without the saved snapshots"
        );
    }
    Some(directory)
}

/// The options that take effect only at a start, with their values.
fn fixed_options(effective: &[Effective]) -> BTreeSet<(String, Option<String>)> {
    let fixed = effective
        .iter()
        .filter(|option| FIXED_AT_START.contains(&option.section.as_str()));
    fixed
        .map(|option| {
            let section = option.section.trim_matches(['[', ']']);
            (format!("{section}.{}", option.name), option.value.clone())
        })
        .collect()
}

/// Whether details of the account's keys are read.
pub fn details_of(account: &Account, config: &Config) -> bool {
    config.details.enabled && account.provider.profile().has_details
}

/// With details enabled, their failure counts exist from the start; otherwise they are absent.
pub fn with_details(mut state: AccountState, has_details: bool) -> AccountState {
    state.details_failures = match state.details_failures {
        Some(known) if has_details => Some(known),
        _ => has_details.then(Default::default),
    };
    state
}

/// Requests single keys in the same way as the listing.
fn reader(
    lister: &Arc<Lister>,
    origin: &Arc<OriginLimit>,
    details: Details,
    now: fn() -> DateTime<Utc>,
) -> Reader {
    let (lister, origin) = (lister.clone(), origin.clone());
    let ask: Ask = Box::new(move |id, time_left| {
        let (lister, origin) = (lister.clone(), origin.clone());
        Box::pin(async move {
            let ask = async |time_left| lister.details(&id, time_left).await;
            origin.ask(time_left, ask).await
        })
    });
    Reader::new(ask, details.interval, details.requests_per_minute, now)
}

/// The settings for showing states.
pub fn view_settings(config: &Config) -> ViewSettings {
    ViewSettings {
        rules: config.assessment_rules.clone(),
        metrics: config.metrics,
    }
}

/// The properties of `account` that its state carries.
pub fn facts(account: &Account, config: &Config) -> Arc<account_state::Account> {
    let profile = account.provider.profile();
    Arc::new(account_state::Account {
        name: account.name.as_str().into(),
        provider: profile.name.as_ref().into(),
        listing_scope: profile.listing_scope.as_deref().map(Into::into),
        base_url: account.provider.identity(&account.base_url).into(),
        interval: account.interval,
        shrink: config.poll.shrink,
        expired_retention: delta(config.poll.expired_retention),
    })
}

/// What the lister of `account` needs.
pub fn settings(account: &Account, config: &Config) -> ListerSettings {
    ListerSettings {
        provider: account.provider.clone(),
        target: Arc::new(Target {
            base_url: account.base_url.clone(),
            proxy_url: account.proxy_url.clone(),
            timeout: config.poll.timeout,
            body_bytes_max: config.poll.max_body_bytes,
        }),
        ca_file: account.ca_file.clone(),
        keys_max: config.poll.max_keys,
        pages_max: config.poll.max_pages,
        expected_env: account.expected_env.clone(),
    }
}
