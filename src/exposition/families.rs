//! Every metric family about keys and accounts: name, type, help, and its samples. Pure.
//!
//! A change here is a change of the public contract. A test compares docs/metrics.md with it.

use chrono::{DateTime, Utc};

use crate::domain::account_state::AccountState;
use crate::domain::allow_list::Ipv6Count;
use crate::domain::assessment::Assessment;
use crate::domain::failure::Reason;
use crate::domain::key::{Expiry, Key, KeyState, LastUse, Mode, Scopes};
use crate::domain::listing::Reject;
use crate::domain::view::Metrics;
use crate::exposition::format::{Format, Kind};
use crate::exposition::samples::{Samples, Value};

/// One metric family.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) source: Source,
}

/// The source of the samples, which determines how long they remain valid.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// One key of the held listing; valid until the next successful poll, or until its assessment
    /// changes.
    Key(fn(&KeyFacts<'_>, &mut Samples<'_>)),
    /// `api_key_expires_in_seconds`; depends on the clock.
    ExpiresIn,
    /// All keys of the held listing together; valid for as long.
    Listing(fn(&ListingFacts, Samples<'_>)),
    /// One account; valid until the next poll. The same in both formats.
    Account(fn(&AccountState, &mut Samples<'_>)),
    /// One account, with exemplars if the format has them.
    Failures(fn(&AccountState, &mut Samples<'_>)),
    /// `api_key_account_keys`; depends on the clock.
    KeyStates,
}

impl Family {
    /// The destination for samples of this family. `labels` are those that each of them carries,
    /// opened and not closed.
    pub(super) fn samples<'a>(
        &self,
        out: &'a mut String,
        labels: &'a str,
        format: Format,
    ) -> Samples<'a> {
        Samples {
            out,
            name: self.name,
            labels,
            format,
        }
    }

    /// Whether its samples change without a poll.
    pub(super) fn depends_on_clock(&self) -> bool {
        matches!(self.source, Source::ExpiresIn | Source::KeyStates)
    }
}

/// A key with the data that only its listing provides.
pub(super) struct KeyFacts<'a> {
    pub(super) key: &'a Key,
    pub(super) assessment: &'a Assessment<'a>,
    pub(super) provider: &'a str,
    pub(super) api_env: &'a str,
    pub(super) is_superseded: bool,
    pub(super) metrics: Metrics,
}

/// A listing as a whole.
#[derive(Default)]
pub(super) struct ListingFacts {
    /// Keys that no entry of the inventory matches; `None` if there is no inventory.
    pub(super) unmatched: Option<usize>,
    /// Omitted families.
    pub(super) dropped: Box<[&'static str]>,
}

const fn key(
    name: &'static str,
    help: &'static str,
    samples: fn(&KeyFacts<'_>, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        source: Source::Key(samples),
    }
}

const fn account(
    name: &'static str,
    help: &'static str,
    samples: fn(&AccountState, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        source: Source::Account(samples),
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: fn(&AccountState, &mut Samples<'_>),
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        source: Source::Account(samples),
    }
}

/// All families, in the order of the exposition.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "api_key_info",
        kind: Kind::Info,
        help: "Describes the key, as of the last successful listing; always 1.",
        source: Source::Key(info),
    },
    key(
        "api_key_expiry_timestamp_seconds",
        "When the key expires, as of the last successful listing; absent if the key never expires or its expiry cannot be parsed.",
        |facts, samples| {
            if let Expiry::At(end) = facts.key.expiry {
                samples.sample(Value::Time(end));
            }
        },
    ),
    Family {
        name: "api_key_expires_in_seconds",
        kind: Kind::Gauge,
        help: "Time until the key expires at the moment of the scrape, negative afterwards, as of the last successful listing.",
        source: Source::ExpiresIn,
    },
    key(
        "api_key_never_expires",
        "Whether the key has no expiry, as of the last successful listing.",
        |facts, samples| samples.sample((facts.key.expiry == Expiry::Never).into()),
    ),
    key(
        "api_key_expiry_unknown",
        "Whether the key's expiry in the last successful listing cannot be parsed; an earlier expiry is kept.",
        |facts, samples| samples.sample(facts.key.is_expiry_unknown().into()),
    ),
    key(
        "api_key_created_timestamp_seconds",
        "When the key was created, as of the last successful listing.",
        |facts, samples| time(facts.key.created_at, samples),
    ),
    key(
        "api_key_updated_timestamp_seconds",
        "When the key was last changed, as of the last successful listing.",
        |facts, samples| time(facts.key.updated_at, samples),
    ),
    key(
        "api_key_scopes",
        "How many distinct scopes the key has, as of the last successful listing.",
        |facts, samples| {
            if let Some(scopes) = &facts.key.scopes {
                samples.sample(Value::Count(scopes.len() as u64));
            }
        },
    ),
    Family {
        name: "api_key_scope_info",
        kind: Kind::Info,
        help: "One series for each scope that the key has, as of the last successful listing; always 1.",
        source: Source::Key(scope_info),
    },
    key(
        "api_key_ip_allow_list_entries",
        "How many distinct, valid entries the key's IP allow list has, as of the last successful listing.",
        |facts, samples| {
            if let Some(list) = &facts.key.allow_list {
                samples.sample(Value::Count(list.networks().len() as u64));
            }
        },
    ),
    key(
        "api_key_ip_allow_list_invalid_entries",
        "How many entries of the key's IP allow list are neither an address nor a network, as of the last successful listing.",
        |facts, samples| {
            if let Some(list) = &facts.key.allow_list {
                samples.sample(Value::Count(list.invalid_entries().into()));
            }
        },
    ),
    key(
        "api_key_ip_allow_list_addresses",
        "How many addresses may use the key, overlapping networks counted once, as of the last successful listing.",
        addresses,
    ),
    key(
        "api_key_ip_unrestricted",
        "Whether the key's IP allow list is empty or allows all of IPv4 or all of IPv6, as of the last successful listing.",
        |facts, samples| {
            if let Some(list) = &facts.key.allow_list {
                samples.sample(list.is_unrestricted().into());
            }
        },
    ),
    key(
        "api_key_alert_threshold_seconds",
        "Time before the expiry at which the key alerts, by severity, from the configuration and the key's lifetime.",
        |facts, samples| {
            let notice = facts.assessment.notice;
            for (severity, time) in [("warning", notice.warning), ("critical", notice.critical)] {
                samples.labelled(
                    &[("severity", severity)],
                    Value::Integer(time.num_seconds()),
                );
            }
        },
    ),
    key(
        "api_key_policy_violation",
        "One series for each configured policy that the key breaks, as of the last successful listing; always 1.",
        |facts, samples| {
            for policy in facts.assessment.broken.iter() {
                samples.labelled(&[("policy", policy.as_str())], Value::Count(1));
            }
        },
    ),
    key(
        "api_key_superseded",
        "Whether a newer key of the same account, mode and exact name expires later and is not disabled, as of the last successful listing; only for keys with a name.",
        |facts, samples| {
            if facts.assessment.name(facts.key).is_some() {
                samples.sample(facts.is_superseded.into());
            }
        },
    ),
    key(
        "api_key_unlisted",
        "Marks an expired key that the API stopped listing when it expired, kept for poll.expired_retention; always 1.",
        |facts, samples| {
            if facts.key.unlisted_since.is_some() {
                samples.sample(Value::Count(1));
            }
        },
    ),
    key(
        "api_key_disabled",
        "Marks a key that the provider says is revoked, disabled or inactive, as of the last successful listing; always 1.",
        |facts, samples| {
            if facts.key.is_disabled {
                samples.sample(Value::Count(1));
            }
        },
    ),
    Family {
        name: "api_key_link_info",
        kind: Kind::Info,
        help: "Links of the key to its rotation page and runbook, from the inventory; always 1.",
        source: Source::Key(link_info),
    },
    key(
        "api_key_muted",
        "Whether the inventory mutes the alerts of the key at the moment.",
        |facts, samples| samples.sample(facts.assessment.is_muted.into()),
    ),
    key(
        "api_key_own",
        "Marks the key that the exporter itself uses, as of the last successful listing; always 1.",
        |facts, samples| {
            if facts.key.is_own {
                samples.sample(Value::Count(1));
            }
        },
    ),
    key(
        "api_key_last_used_timestamp_seconds",
        "When the key was last used, as of the last read of its details; absent if it never was.",
        |facts, samples| {
            let details = facts.key.details.as_ref();
            if let Some(LastUse::At(moment)) = details.map(|details| details.last_use) {
                samples.sample(Value::Time(moment));
            }
        },
    ),
    Family {
        name: "api_key_requests_total",
        kind: Kind::Counter,
        help: "Requests made with the key so far, as of the last read of its details.",
        source: Source::Key(|facts, samples| {
            let details = facts.key.details.as_ref();
            if let Some(requests) = details.and_then(|details| details.requests) {
                samples.sample(Value::Count(requests));
            }
        }),
    },
    Family {
        name: "api_key_account_info",
        kind: Kind::Info,
        help: "Describes the account, from the configuration; always 1.",
        source: Source::Account(|state, samples| {
            samples.labelled(&[("provider", &*state.account.provider)], Value::Count(1));
        }),
    },
    account(
        "api_key_account_up",
        "Whether the last finished poll of the account's API succeeded.",
        |state, samples| {
            if let Some(attempt) = state.last_attempt {
                samples.sample(attempt.is_success.into());
            }
        },
    ),
    counter(
        "api_key_account_polls_total",
        "Finished polls of the account's API.",
        |state, samples| samples.sample(Value::Count(state.polls)),
    ),
    Family {
        name: "api_key_account_poll_failures_total",
        kind: Kind::Counter,
        help: "Failed polls of the account's API, by reason.",
        source: Source::Failures(|state, samples| {
            for (reason, failures) in state.failures() {
                let last = failures.last_support_id.as_ref();
                let exemplar = last.map(|(id, at)| ("support_id", id.as_str(), *at));
                samples.counted(&[("reason", reason.as_str())], failures.count, exemplar);
            }
        }),
    },
    account(
        "api_key_account_failing",
        "Present while the last finished poll of the account's API failed, with its reason; always 1.",
        |state, samples| {
            if let Some(reason) = state.failing {
                samples.labelled(&[("reason", reason.as_str())], Value::Count(1));
            }
        },
    ),
    account(
        "api_key_account_last_attempt_timestamp_seconds",
        "When the last poll of the account's API finished, successful or not.",
        |state, samples| time(state.last_attempt.map(|attempt| attempt.at), samples),
    ),
    account(
        "api_key_account_last_success_timestamp_seconds",
        "When the last successful poll of the account's API finished: the time of the listing that key metrics reflect.",
        |state, samples| time(state.last_success_at, samples),
    ),
    account(
        "api_key_account_next_poll_timestamp_seconds",
        "When the next poll of the account's API is due.",
        |state, samples| time(state.next_poll_at, samples),
    ),
    account(
        "api_key_account_poll_interval_seconds",
        "How often the account's API is polled, from the configuration.",
        |state, samples| samples.sample(Value::Seconds(state.account.interval)),
    ),
    account(
        "api_key_account_consecutive_failures",
        "Failed polls of the account's API since the last success.",
        |state, samples| samples.sample(Value::Count(state.consecutive_failures)),
    ),
    Family {
        name: "api_key_account_keys",
        kind: Kind::Gauge,
        help: "Keys of the last successful listing, by their state at the moment of the scrape.",
        source: Source::KeyStates,
    },
    account(
        "api_key_account_keys_rejected",
        "Entries of the last successful listing that were rejected, by reason.",
        |state, samples| {
            let rejects = state
                .held
                .as_ref()
                .map(|listing| listing.rejects())
                .unwrap_or_default();
            for reason in Reject::ALL {
                samples.labelled(
                    &[("reason", reason.as_str())],
                    Value::Count(rejects.count(reason).into()),
                );
            }
        },
    ),
    Family {
        name: "api_key_account_keys_unmatched",
        kind: Kind::Gauge,
        help: "Keys of the last successful listing that match no inventory entry.",
        source: Source::Listing(|facts, mut samples| {
            if let Some(unmatched) = facts.unmatched {
                samples.sample(Value::Count(unmatched as u64));
            }
        }),
    },
    counter(
        "api_key_account_details_failures_total",
        "Failed requests for the details of single keys, by reason, as of the last poll.",
        |state, samples| {
            for (reason, count) in Reason::ALL
                .into_iter()
                .zip(state.details_failures.iter().flatten())
            {
                samples.labelled(&[("reason", reason.as_str())], Value::Count(*count));
            }
        },
    ),
    counter(
        "api_key_account_changes_total",
        "Changes between successful listings of the account's API, by kind.",
        |state, samples| {
            for (change, count) in state.changes() {
                samples.labelled(&[("change", change.as_str())], Value::Count(count));
            }
        },
    ),
    Family {
        name: "api_key_account_families_dropped",
        kind: Kind::Gauge,
        help: "Present while a family about keys is left out because the account's text would exceed its memory budget; always 1.",
        source: Source::Listing(|facts, mut samples| {
            for family in &facts.dropped {
                samples.labelled(&[("family", family)], Value::Count(1));
            }
        }),
    },
    account(
        "api_key_account_shrink_held",
        "Whether a listing that lost suspiciously many keys is held back until confirmed.",
        |state, samples| samples.sample((state.shrunk_listings > 0).into()),
    ),
    account(
        "api_key_account_clock_skew_seconds",
        "The API's clock minus the exporter's, from the Date header of the API's last answer.",
        |state, samples| {
            if let Some(skew) = state.clock_skew {
                samples.sample(Value::Integer(skew.num_seconds()));
            }
        },
    ),
    Family {
        name: "api_key_exporter_poll_duration_seconds",
        kind: Kind::Histogram,
        help: "Duration of a whole poll of an account's API, retries included.",
        source: Source::Account(|state, samples| {
            let durations = &state.poll_durations;
            for (bound, count) in durations.buckets() {
                samples.suffixed("_bucket", &[("le", bound)], Value::Count(count));
            }
            samples.suffixed("_sum", &[], Value::Seconds(durations.sum()));
            samples.suffixed("_count", &[], Value::Count(durations.count()));
        }),
    },
];

/// Writes the number of the account's keys in each state.
pub(super) fn key_states(counts: &[(KeyState, usize)], mut samples: Samples<'_>) {
    for (key_state, count) in counts {
        samples.labelled(
            &[("state", key_state.as_str())],
            Value::Count(*count as u64),
        );
    }
}

fn info(facts: &KeyFacts<'_>, samples: &mut Samples<'_>) {
    let key = facts.key;
    let labels = [
        ("provider", facts.provider),
        ("name", facts.assessment.name(key).unwrap_or_default()),
        ("team", facts.assessment.team().unwrap_or_default()),
        ("api_env", facts.api_env),
        ("mode", key.mode.map(Mode::as_str).unwrap_or_default()),
        (
            "organization_id",
            key.organization_id.as_deref().unwrap_or_default(),
        ),
    ];
    samples.labelled(&labels, Value::Count(1));
}

fn link_info(facts: &KeyFacts<'_>, samples: &mut Samples<'_>) {
    let Some(entry) = facts.assessment.entry else {
        return;
    };
    let links = [
        ("rotate_url", entry.rotate_url.as_deref()),
        ("runbook_url", entry.runbook_url.as_deref()),
    ];
    if links.iter().any(|(_, url)| url.is_some()) {
        let links = links.map(|(name, url)| (name, url.unwrap_or_default()));
        samples.labelled(&links, Value::Count(1));
    }
}

fn scope_info(facts: &KeyFacts<'_>, samples: &mut Samples<'_>) {
    if !facts.metrics.scope_info {
        return;
    }
    let scopes = facts.key.scopes.iter().flat_map(Scopes::iter);
    for scope in scopes.take(facts.metrics.max_scopes_per_key) {
        samples.labelled(&[("scope", scope)], Value::Count(1));
    }
}

fn addresses(facts: &KeyFacts<'_>, samples: &mut Samples<'_>) {
    let Some(allow_list) = &facts.key.allow_list else {
        return;
    };
    samples.labelled(
        &[("family", "ipv4")],
        Value::Count(allow_list.ipv4_addresses()),
    );
    let ipv6 = match allow_list.ipv6_addresses() {
        Ipv6Count::Some(count) => Value::Huge(count),
        Ipv6Count::All => Value::AllIpv6,
    };
    samples.labelled(&[("family", "ipv6")], ipv6);
}

fn time(time: Option<DateTime<Utc>>, samples: &mut Samples<'_>) {
    if let Some(time) = time {
        samples.sample(Value::Time(time));
    }
}
