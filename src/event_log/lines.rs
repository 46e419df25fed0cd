//! The log line of each event: a constant message, and fields.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tracing::{debug, info, warn};

use crate::domain::assessment::Severity;
use crate::domain::event::{Difference, Event, KeyChanged, NamedKey, ThresholdCrossed, UrgentKeys};
use crate::domain::failure::Failure;
use crate::domain::key::{Expiry, KeyId};
use crate::domain::listing::Rejects;
use crate::domain::span;
use crate::domain::text::Line;
use crate::event_log::account_log::PollFacts;
use crate::event_log::rate_limit::LogDecision;

/// A failed attempt that the poll will retry.
pub fn attempt_failed(account: &str, failure: &Failure, retry_in: Duration) {
    let reason = failure.reason.as_str();
    debug!(account, reason, ?retry_in, "attempt failed, retrying");
}

/// A failed poll, at the level from `decision`.
pub(super) fn failure(account: &str, failure: &Failure, facts: &PollFacts, decision: LogDecision) {
    let error = text(failure.error.as_ref());
    let support_id = text(failure.support_id.as_ref());
    let validator = failure.line("validator");
    let api_log = failure.line("api_log");
    let api_message = failure.line("message");
    let retry_in = facts.retry_in.map(whole_seconds);
    macro_rules! line {
        ($level:ident, $($rest:tt)*) => {
            $level!(
                account,
                reason = failure.reason.as_str(),
                http_status = failure.http_status,
                api_status = failure.number("api_status"),
                error,
                support_id,
                validator,
                api_log,
                api_message,
                attempts = facts.attempts,
                retry_in,
                url = failure.line("url"),
                $($rest)*
            )
        };
    }
    match decision {
        LogDecision::Log { suppressed } => line!(warn, suppressed, "listing keys failed"),
        LogDecision::Suppress => line!(debug, "listing keys failed again"),
    }
}

/// Details that could not be read, at the level from `decision`.
pub(super) fn details_failure(
    account: &str,
    key_id: &KeyId,
    failure: &Failure,
    paused_for: Duration,
    decision: LogDecision,
) {
    let error = text(failure.error.as_ref());
    let support_id = text(failure.support_id.as_ref());
    let paused_for = (!paused_for.is_zero()).then(|| whole_seconds(paused_for));
    macro_rules! line {
        ($level:ident, $($rest:tt)*) => {
            $level!(
                account,
                key_id = key_id.as_str(),
                reason = failure.reason.as_str(),
                http_status = failure.http_status,
                api_status = failure.number("api_status"),
                error,
                support_id,
                url = failure.line("url"),
                paused_for,
                $($rest)*
            )
        };
    }
    match decision {
        LogDecision::Log { suppressed } => {
            line!(warn, suppressed, "reading the details of a key failed");
        }
        LogDecision::Suppress => line!(debug, "reading the details of a key failed again"),
    }
}

/// A line about a key: `key_line!(warn, account, key, {more fields}, "message")`.
macro_rules! key_line {
    ($level:ident, $account:expr, $key:expr, {$($fields:tt)*}, $message:literal) => {{
        let key: &NamedKey = $key;
        $level!(
            account = $account,
            key_id = key.id.as_str(),
            name = key.name.as_deref(),
            team = key.team.as_deref(),
            expires_at = expires_at(key.expiry),
            expires_in = key.time_left.map(span::words),
            expires_in_seconds = key.time_left.map(|left| left.num_seconds()),
            $($fields)*
            $message
        )
    }};
}

/// A changed key, at WARN if it may now do more than before or be used from more addresses.
pub(super) fn change(account: &str, changed: &KeyChanged, suppressed: Option<u64>) {
    let KeyChanged { key, difference } = changed;
    let change = difference.kind().as_str();
    match difference {
        Difference::Added => key_line!(info, account, key, {suppressed,}, "a key was added"),
        Difference::Removed => key_line!(info, account, key, {suppressed,}, "a key was removed"),
        Difference::Scopes { added, removed } => {
            let is_widened = added.is_some();
            let (added, removed) = (text(added.as_ref()), text(removed.as_ref()));
            if is_widened {
                key_line!(warn, account, key, {change, added, removed, suppressed,}, "the scopes of a key were widened");
            } else {
                key_line!(info, account, key, {change, added, removed, suppressed,}, "a key changed");
            }
        }
        Difference::IpAllowList {
            added,
            removed,
            is_widened,
        } => {
            let (added, removed) = (text(added.as_ref()), text(removed.as_ref()));
            if *is_widened {
                key_line!(warn, account, key, {change, added, removed, suppressed,}, "the IP allow list of a key was widened");
            } else {
                key_line!(info, account, key, {change, added, removed, suppressed,}, "a key changed");
            }
        }
        Difference::Disabled { is_disabled: true } => {
            key_line!(info, account, key, {change, suppressed,}, "a key was disabled");
        }
        Difference::Disabled { is_disabled: false } => {
            key_line!(warn, account, key, {change, suppressed,}, "a key was enabled again");
        }
        Difference::Expiry { from, to } => {
            let (from, to) = (expiry_value(*from), expiry_value(*to));
            key_line!(info, account, key, {change, from, to, suppressed,}, "a key changed");
        }
        Difference::Name { from, to } => {
            let (from, to) = (from.as_deref(), to.as_deref());
            key_line!(info, account, key, {change, from, to, suppressed,}, "a key changed");
        }
    }
}

/// A key that entered a threshold.
pub(super) fn crossing(account: &str, crossed: &ThresholdCrossed, suppressed: Option<u64>) {
    let ThresholdCrossed {
        key,
        severity,
        rotate_url,
        runbook_url,
        muted_until,
        mute_reason,
    } = crossed;
    macro_rules! line {
        ($message:literal) => {
            key_line!(
                warn,
                account,
                key,
                {
                    rotate_url = rotate_url.as_deref(),
                    runbook_url = runbook_url.as_deref(),
                    muted_until = muted_until.map(rfc3339),
                    reason = mute_reason.as_deref(),
                    suppressed,
                },
                $message
            )
        };
    }
    match severity {
        Severity::Expired => line!("a key expired"),
        Severity::Critical => line!("a key entered its critical threshold"),
        Severity::Warning => line!("a key entered its warning threshold"),
        Severity::None => {}
    }
}

/// All other events.
pub(super) fn other(account: &str, event: &Event, suppressed: Option<u64>) {
    match event {
        Event::FirstListing { keys } => info!(
            account,
            keys, suppressed, "listed keys for the first time since the start"
        ),
        Event::EntriesRejected { rejects, key_ids } => {
            log_rejects(account, *rejects, key_ids.as_deref(), suppressed);
        }
        Event::ListingHeldBack {
            held,
            listed,
            seen,
            needed,
        } => warn!(
            account,
            held,
            listed,
            seen,
            needed,
            suppressed,
            "the listing lost most keys; keeping the previous one until this is confirmed"
        ),
        Event::HeldListingResolved {
            is_confirmed,
            held,
            listed,
        } => log_resolved(account, *is_confirmed, *held, *listed, suppressed),
        Event::CachedAnswer { age } => warn!(
            account,
            age = whole_seconds(*age),
            suppressed,
            "a cache between the exporter and the API responds; key data is as old as its copy"
        ),
        Event::OrganizationChanged { held, listed } => warn!(
            account,
            held,
            listed,
            suppressed,
            "the token belongs to another organization now; its keys replace the previous ones"
        ),
        Event::KeysUnlisted { keys, key_ids } => info!(
            account,
            keys, key_ids, suppressed, "expired keys are no longer listed; keeping them"
        ),
        Event::ClockSetBack { by } => warn!(
            account,
            ahead_seconds = by.num_seconds(),
            suppressed,
            "the last successful poll is in the future: the clock was set back; counting it as now"
        ),
        Event::ClockSkewFound { skew } => warn!(
            account,
            skew_seconds = skew.num_seconds(),
            suppressed,
            "clock skew between the API and this machine; check time synchronization"
        ),
        Event::ClockSkewGone { skew } => info!(
            account,
            skew_seconds = skew.num_seconds(),
            suppressed,
            "clock skew between the API and this machine is gone"
        ),
        Event::KeysFromTheFuture {
            key_id,
            created_at,
            keys,
        } => warn!(
            account,
            key_id = key_id.as_str(),
            created_at = created_at.map(rfc3339),
            keys,
            suppressed,
            "keys were created in the future; does the API use a timezone other than UTC?"
        ),
        Event::OwnKeyRecognized(key) => {
            key_line!(info, account, key, {suppressed,}, "recognized the exporter's own key");
        }
        Event::OwnKeyAbsent => info!(
            account,
            suppressed, "the exporter's own key is not in the listing"
        ),
        Event::OwnKeySurplusScopes {
            key,
            needed,
            scopes,
        } => log_surplus_scopes(account, key, needed, scopes, suppressed),
        Event::PollFailed(_)
        | Event::PollSucceeded { .. }
        | Event::PollRecovered { .. }
        | Event::KeyChanged(_)
        | Event::ChangesOmitted { .. }
        | Event::ThresholdCrossed(_)
        | Event::CrossingsOmitted { .. }
        | Event::UrgentKeys(_)
        | Event::DetailsRead { .. }
        | Event::DetailsFailed { .. } => {}
    }
}

/// The keys that need attention; those that expire soonest are named.
pub(super) fn urgent_keys(account: &str, urgent: &UrgentKeys) {
    let UrgentKeys {
        expired,
        critical,
        warning,
        soonest,
    } = urgent;
    let keys: Vec<String> = soonest.iter().map(urgent_key).collect();
    let keys = keys.join("; ");
    macro_rules! line {
        ($level:ident) => {
            $level!(
                account,
                expired,
                critical,
                warning,
                keys,
                "keys need attention"
            )
        };
    }
    if expired + critical > 0 {
        line!(warn);
    } else {
        line!(info);
    }
}

/// `Build (platform) expires in 3d 4h`
fn urgent_key(key: &NamedKey) -> String {
    let name = key.name.as_deref().unwrap_or(key.id.as_str());
    let team = key.team.as_deref().map(|team| format!(" ({team})"));
    let left = key.time_left.unwrap_or_default();
    let left = if left > TimeDelta::zero() {
        format!("expires in {}", span::words(left))
    } else {
        format!("expired {} ago", span::words(-left))
    };
    format!("{name}{} {left}", team.unwrap_or_default())
}

fn log_resolved(
    account: &str,
    is_confirmed: bool,
    held: usize,
    listed: usize,
    suppressed: Option<u64>,
) {
    if is_confirmed {
        info!(
            account,
            held, listed, suppressed, "the loss of most keys is confirmed"
        );
    } else {
        info!(
            account,
            held, listed, suppressed, "the lost keys are listed again"
        );
    }
}

fn log_surplus_scopes(
    account: &str,
    key: &NamedKey,
    needed: &str,
    scopes: &str,
    suppressed: Option<u64>,
) {
    warn!(
        account,
        key_id = key.id.as_str(),
        name = key.name.as_deref(),
        team = key.team.as_deref(),
        needed,
        scopes,
        suppressed,
        "the exporter's own key holds more scopes than listing needs"
    );
}

fn log_rejects(account: &str, rejects: Rejects, key_ids: Option<&str>, suppressed: Option<u64>) {
    let Rejects {
        id,
        duplicate,
        shape,
    } = rejects;
    warn!(
        account,
        id, duplicate, shape, key_ids, suppressed, "entries of the listing were rejected"
    );
}

/// A clean line as a field.
pub(super) fn text(line: Option<&Line>) -> Option<&str> {
    line.map(Line::as_str)
}

/// An expiry as the field `expires_at`, omitted if it cannot be read.
fn expires_at(expiry: Expiry) -> Option<String> {
    match expiry {
        Expiry::At(end) => Some(rfc3339(end)),
        Expiry::Never => Some("never".to_owned()),
        Expiry::Unknown => None,
    }
}

/// An expiry as an old or new value.
fn expiry_value(expiry: Expiry) -> String {
    expires_at(expiry).unwrap_or_else(|| "unreadable".to_owned())
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// `4m 10s`: milliseconds of jitter are not useful.
fn whole_seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}
