//! `config check --live`: lists each account once, and says what was asked, what came back and what
//! was understood.
//!
//! The lister and its limits are those of a poll. Nothing is retried, and no saved listing is read
//! or written, so that it can run beside a daemon with the same configuration.

mod report;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::commands::live::report::Inspected;
use crate::config::{Account, Config};
use crate::domain::failure::{Failure, Reason};
use crate::domain::text::redact;
use crate::os::clock;
use crate::os::threads::{self, ThreadsError};
use crate::poller::retry;
use crate::pollers;
use crate::provider::Answer;
use crate::provider::findings::Findings;
use crate::provider::lister::Lister;
use crate::provider::tls::TlsConfigs;

/// Accounts listed at the same time: enough that slow APIs do not add up, and few enough not to
/// exceed the rate limit of one that many accounts share.
const AT_ONCE: usize = 8;

/// Lists all accounts of `config`. Returns the report, and whether every listing succeeded.
pub(super) fn check(config: &Config) -> Result<(String, bool), ThreadsError> {
    let runtime = threads::runtime()?;
    let inspected = runtime.block_on(inspect_all(config));
    // A hanging name resolution must not delay the answer.
    runtime.shutdown_background();
    let is_good = inspected.iter().all(|one| one.answer.result.is_ok());
    let reports: Vec<String> = inspected.iter().map(report::text).collect();
    let report = reports.join("\n");
    // Names in a definition may contain anything that its author wrote.
    Ok((redact(&report).into_owned(), is_good))
}

async fn inspect_all(config: &Config) -> Vec<Inspected> {
    let tls = Arc::new(TlsConfigs::new(clock::now));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let tasks = config.accounts.iter().map(|account| {
        let settings = pollers::settings(account, config);
        let lister = Lister::new(
            account.token.clone(),
            settings,
            tls.clone(),
            None,
            clock::now,
        );
        let (places, limit) = (places.clone(), retry::poll_limit(account.interval));
        let task = tokio::spawn(async move {
            // Never closed.
            let _place = places.acquire().await;
            lister.inspect(limit).await
        });
        (account, AbortOnDropHandle::new(task))
    });
    // Starts all of them before waiting for the first.
    let tasks: Vec<_> = tasks.collect();
    let mut inspected = Vec::with_capacity(tasks.len());
    for (account, task) in tasks {
        let (answer, findings) = task.await.unwrap_or_else(|_panicked| {
            let failure = Failure::new(Reason::Internal, "the exporter panicked");
            (Answer::failed(failure), Findings::default())
        });
        inspected.push(of(account, answer, findings));
    }
    inspected
}

fn of(account: &Account, answer: Answer, findings: Findings) -> Inspected {
    Inspected {
        account: account.name.clone(),
        provider: account.provider.clone(),
        answer,
        findings,
    }
}
