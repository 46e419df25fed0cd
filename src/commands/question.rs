//! What `check` and `explain` have in common: they load the configuration, list accounts once, and
//! judge the keys.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, interval_at};
use tracing::warn;

use crate::app;
use crate::cli::{JudgingOptions, Options};
use crate::commands::listing::{self, ListedAccount};
use crate::config::{self, Config, Sources};
use crate::domain::text::{chain, join_truncated};
use crate::logging::Logging;
use crate::os::clock::delta;
use crate::os::{clock, terminal, threads};
use crate::pages::Overview;

/// No progress is shown before; most listings take less.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);

/// The range of `--warning` and `--critical`: from a second, for tests of alerting, to a century.
const THRESHOLD_MAX: TimeDelta = TimeDelta::days(36_500);

/// Why there is no answer, in words.
#[derive(Debug)]
pub(super) struct Unanswered(pub(super) String);

/// The configuration, with the thresholds of the command line.
pub(super) struct Question {
    pub(super) config: Config,
    pub(super) sources: Sources,
    /// The moment of `--at`.
    pub(super) at: Option<DateTime<Utc>>,
}

impl Question {
    pub(super) fn new(options: &Options, judging: &JudgingOptions) -> Result<Self, Unanswered> {
        let threshold = |name, text: &Option<String>| {
            text.as_deref().map(|text| duration(name, text)).transpose()
        };
        let warning = threshold("warning", &judging.warning)?;
        let critical = threshold("critical", &judging.critical)?;
        if let (Some(warning), Some(critical)) = (warning, critical)
            && critical > warning
        {
            return unanswered("--critical must not be longer than --warning");
        }
        let at = match &judging.at {
            None => None,
            Some(text) => Some(config::parse_moment(text).ok_or_else(|| {
                Unanswered(format!(
                    "--at {text:?}: must be a day such as 2026-12-24 (its first second, UTC) or a \
                     time such as 2026-12-24T08:00:00Z"
                ))
            })?),
        };
        let sources = app::sources(options);
        let mut config = Config::load(&sources).map_err(|problems| {
            let lines = problems.iter().map(|problem| format!("\n  {problem}"));
            Unanswered(format!(
                "invalid configuration:{}",
                lines.collect::<String>()
            ))
        })?;
        let rules = Arc::make_mut(&mut config.assessment_rules);
        rules.thresholds.warning_of_all = warning;
        rules.thresholds.critical_of_all = critical;
        Ok(Self {
            config,
            sources,
            at,
        })
    }

    /// Fails unless each of `names` is the name of an account of this shard.
    pub(super) fn check_accounts(&self, names: &[String]) -> Result<(), Unanswered> {
        let (shard, accounts) = (self.config.shard, self.config.shards.iter());
        let known: Vec<&str> = accounts.clone().map(|(name, _)| &**name).collect();
        check_names("account", names, &known)?;
        let mut wanted = accounts.filter(|(name, _)| names.contains(name));
        match wanted.find(|(_, index)| *index != shard.index()) {
            None => Ok(()),
            Some((name, index)) => unanswered(&format!(
                "account {name:?} belongs to shard {index} of {}; this is shard {}",
                shard.total(),
                shard.index()
            )),
        }
    }

    /// Lists the accounts of these names, or all if there are no names, and judges their keys.
    pub(super) fn ask(&self, names: &[String]) -> Result<Overview, Unanswered> {
        // Writes pending lines when dropped.
        let _logging = Logging::start(self.config.log);
        for warning in &self.config.warnings {
            warn!(warning, "configuration warning");
        }
        let runtime = threads::runtime().map_err(|error| Unanswered(chain(&error)))?;
        let is_wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
        let accounts = self.config.accounts.iter();
        let total = accounts.filter(|account| is_wanted(&account.name)).count();
        let done = Arc::new(AtomicUsize::new(0));
        let listing = listing::list_once(&self.config, |account| is_wanted(&account.name), &done);
        let listed = runtime.block_on(with_progress(listing, &done, total));
        // A name resolution may hang, and nothing else is left to do.
        runtime.shutdown_background();
        for listed in &listed {
            warn_of_missing_details(listed);
        }
        let states = listed.into_iter().map(|it| Arc::new(it.state));
        Ok(Overview {
            states: states.collect(),
            rules: self.config.assessment_rules.clone(),
            now: self.at.unwrap_or_else(clock::now),
        })
    }
}

pub(super) fn unanswered<T>(words: &str) -> Result<T, Unanswered> {
    Err(Unanswered(words.to_owned()))
}

/// The value of the option `--name`.
pub(super) fn duration(name: &str, text: &str) -> Result<TimeDelta, Unanswered> {
    let parsed = humantime::parse_duration(text).ok().map(delta);
    let parsed = parsed.filter(|it| (TimeDelta::seconds(1)..=THRESHOLD_MAX).contains(it));
    parsed.ok_or_else(|| {
        Unanswered(format!(
            "--{name} {text:?}: must be a duration from 1s to 100 years, such as 14d or 36h"
        ))
    })
}

/// Fails unless each of `names` is one of `known`.
pub(super) fn check_names(what: &str, names: &[String], known: &[&str]) -> Result<(), Unanswered> {
    let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let suggestion = config::closest(name, known.iter().copied());
    let suggestion = suggestion.map(|name| format!("; did you mean {name:?}?"));
    let known = join_truncated(known.iter().copied()).unwrap_or_else(|| "none".to_owned());
    let suggestion = suggestion.unwrap_or_default();
    Err(Unanswered(format!(
        "no {what} {name:?}{suggestion} (there are: {known})"
    )))
}

/// Shows on a terminal how far `listing` is, if it takes a while.
async fn with_progress<T>(listing: impl Future<Output = T>, done: &AtomicUsize, total: usize) -> T {
    if !std::io::stderr().is_terminal() {
        return listing.await;
    }
    let start = Instant::now();
    let mut ticks = interval_at(start + PROGRESS_AFTER, PROGRESS_PERIOD);
    let mut listing = std::pin::pin!(listing);
    loop {
        tokio::select! {
            listed = &mut listing => {
                if start.elapsed() > PROGRESS_AFTER {
                    terminal::show_progress("");
                }
                return listed;
            }
            _ = ticks.tick() => {
                let done = done.load(Ordering::Relaxed);
                let seconds = start.elapsed().as_secs();
                let words = format!("listing accounts: {done} of {total} done after {seconds} s");
                terminal::show_progress(&words);
            }
        }
    }
}

fn warn_of_missing_details(listed: &ListedAccount) {
    let keys = listed.details_missing;
    if keys > 0 {
        let account = &listed.account.name;
        warn!(
            account,
            keys,
            "details of some keys not read: labels and last uses of these keys are unknown; at \
             most details.requests_per_minute keys are read"
        );
    }
}
