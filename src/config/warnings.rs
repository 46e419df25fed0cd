//! What a configuration may say and hardly means, in words for the log.

use std::os::unix::fs::PermissionsExt;

use crate::config::{Account, Details, Poll};
use crate::domain::policy::Limits;
use crate::secret::TokenSource;

/// Bits of a file's mode that let everybody read it.
const EVERYBODY_READS: u32 = 0o004;

/// All that is questionable.
pub(super) fn of(
    poll: &Poll,
    accounts: &[Account],
    details: &Details,
    policy: &Limits,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if policy.max_unused.is_some() && !details.enabled {
        warnings.push(
            "policy.max_unused does nothing without details.enabled: only details tell the last use"
                .to_owned(),
        );
    }
    let shortest = accounts
        .iter()
        .map(|account| account.interval)
        .min()
        .unwrap_or(poll.interval);
    if poll.timeout >= shortest {
        warnings.push(format!(
            "poll.timeout ({}) is not shorter than the poll interval ({}); polls are cut at nine \
             tenths of the interval",
            humantime::format_duration(poll.timeout),
            humantime::format_duration(shortest)
        ));
    }
    for account in accounts {
        warnings.extend(of_token(account));
    }
    warnings
}

/// What is questionable about an account's token and the place where it lies.
fn of_token(account: &Account) -> Vec<String> {
    let name = &account.name;
    let mut warnings = Vec::new();
    if account.token.read().is_ok_and(|token| !token.looks_usual()) {
        warnings.push(format!(
            "the token of account {name:?} does not start with sk_live_… or sk_test_…, as API keys do"
        ));
    }
    match &account.token {
        TokenSource::File(path) => {
            let mode = std::fs::metadata(path).map(|file| file.permissions().mode());
            if mode.is_ok_and(|mode| mode & EVERYBODY_READS != 0) {
                warnings.push(format!(
                    "everybody on this machine may read the token of account {name:?}: chmod o= {}",
                    path.display()
                ));
            }
        }
        // Plain HTTP goes to this machine only: a test, and no key that is worth a warning.
        TokenSource::Env { variable, .. } if account.base_url.scheme() == "https" => {
            warnings.push(format!(
                "the token of account {name:?} stands in the environment ({variable}), where crash \
                 reports and child processes find it, and changes only with a restart; put it into \
                 a file"
            ));
        }
        TokenSource::Env { .. } => {}
    }
    warnings
}
