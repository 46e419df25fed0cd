//! `/api/v1`: keys and accounts as JSON documents, described by `openapi.json`. Pure.
//!
//! Documents are generated chunk by chunk, so that a document of ten thousand keys takes no more
//! memory than the chunks being sent.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;

use crate::domain::allow_list::AllowList;
use crate::domain::assessment::Severity;
use crate::domain::key::{LastUse, Mode};
use crate::domain::listing::Reject;
use crate::domain::policy::Policy;
use crate::domain::text::Line;
use crate::pages::chunks::Chunks;
use crate::pages::query::Query;
use crate::pages::rows::{AccountRow, KeyRow, Overview};

/// The `OpenAPI` document.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// The fields before the list in each document.
#[derive(Debug, Serialize)]
struct Head {
    generated_at: String,
    total: usize,
    limit: usize,
    offset: usize,
    next_offset: Option<usize>,
}

/// One key. `docs/api.md` documents the fields.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "so has the document")]
pub(super) struct KeyJson<'a> {
    account: &'a str,
    provider: &'a str,
    key_id: &'a str,
    name: Option<&'a str>,
    label: Option<&'a str>,
    team: Option<&'a str>,
    api_env: Option<&'a str>,
    organization_id: Option<&'a str>,
    mode: Option<&'static str>,
    own: bool,
    state: &'static str,
    severity: &'static str,
    expires_at: Option<String>,
    expires_in_seconds: Option<i64>,
    expiry_unknown: bool,
    created_at: Option<String>,
    age_seconds: Option<i64>,
    updated_at: Option<String>,
    warning_threshold_seconds: i64,
    critical_threshold_seconds: i64,
    disabled: bool,
    unlisted_since: Option<String>,
    superseded: bool,
    muted: bool,
    muted_until: Option<String>,
    policy_violations: Vec<&'static str>,
    exempt: Vec<&'static str>,
    reason: Option<&'a str>,
    scopes: Option<Vec<&'a str>>,
    ip_allow_list: Option<Vec<String>>,
    ip_allow_list_invalid_entries: Option<u32>,
    ip_unrestricted: Option<bool>,
    last_used_at: Option<String>,
    never_used: Option<bool>,
    requests_total: Option<u64>,
    rotate_url: Option<&'a str>,
    runbook_url: Option<&'a str>,
    listed_at: Option<String>,
}

/// One account.
#[derive(Debug, Serialize)]
pub(super) struct AccountJson<'a> {
    name: &'a str,
    provider: &'a str,
    api_env: Option<&'a str>,
    up: Option<bool>,
    keys: BTreeMap<&'static str, usize>,
    keys_total: usize,
    entries_rejected: BTreeMap<&'static str, u32>,
    poll_interval_seconds: u64,
    polls_total: u64,
    poll_failures_total: u64,
    consecutive_failures: u64,
    last_attempt_at: Option<String>,
    last_success_at: Option<String>,
    last_success_age_seconds: Option<i64>,
    next_poll_at: Option<String>,
    shrink_held: bool,
    last_failure: Option<FailureJson<'a>>,
}

/// The last failed poll of an account.
#[derive(Debug, Serialize)]
struct FailureJson<'a> {
    at: Option<String>,
    age_seconds: i64,
    reason: &'static str,
    http_status: Option<u16>,
    error: Option<&'a str>,
    support_id: Option<&'a str>,
    details: BTreeMap<&'static str, &'a str>,
}

/// The error of a rejected request.
#[derive(Debug, Serialize)]
struct ErrorJson<'a> {
    error: &'a str,
}

/// The document at `/api/v1/keys`.
pub(super) fn keys(overview: Overview, query: &Query) -> Chunks {
    let rows = overview.select(&query.filter);
    let head = head(&overview, query, rows.len());
    let page = rows.iter().skip(query.offset).take(query.limit);
    let ids: Vec<_> = page.map(|row| row.id).collect();
    document(&head, "keys", ids, move |id, out| {
        if let Some(row) = overview.row(id) {
            write(out, &key(&row, &overview));
        }
    })
}

/// The document at `/api/v1/accounts`.
pub(super) fn accounts(overview: Overview, query: &Query) -> Chunks {
    let total = overview.states.len();
    let head = head(&overview, query, total);
    let end = query.offset.saturating_add(query.limit).min(total);
    let positions: Vec<usize> = (query.offset..end).collect();
    // Counting reads all keys; it is done lazily for the accounts of this page, one at a time.
    document(&head, "accounts", positions, move |position, out| {
        if let Some(row) = overview.account(position) {
            write(out, &account(&row, &overview));
        }
    })
}

/// The body of the response to a rejected request.
pub(super) fn error(words: &str) -> String {
    let mut body = Vec::new();
    write(&mut body, &ErrorJson { error: words });
    body.push(b'\n');
    String::from_utf8(body).unwrap_or_default()
}

fn head(overview: &Overview, query: &Query, total: usize) -> Head {
    let next = query.offset.saturating_add(query.limit);
    Head {
        generated_at: time(overview.now).unwrap_or_default(),
        total,
        limit: query.limit,
        offset: query.offset,
        next_offset: (next < total).then_some(next),
    }
}

/// `{head…, "list": [entries]}`, in chunks.
fn document<T: Send + 'static>(
    head: &Head,
    list: &str,
    entries: Vec<T>,
    mut write_entry: impl FnMut(T, &mut Vec<u8>) + Send + 'static,
) -> Chunks {
    let mut start = Vec::new();
    write(&mut start, head);
    // The list replaces the head's closing brace.
    start.pop();
    start.extend(format!(",\"{list}\":[").bytes());
    let mut is_first = true;
    let write_next = move |entry, out: &mut Vec<u8>| {
        let separator: &[u8] = if is_first { b"\n" } else { b",\n" };
        is_first = false;
        out.extend(separator);
        write_entry(entry, out);
    };
    Chunks::new(start, entries, write_next, b"\n]}\n")
}

/// Serializing derived types with string keys to memory cannot fail.
pub(super) fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "{written:?}");
}

pub(super) fn key<'a>(row: &KeyRow<'a>, overview: &Overview) -> KeyJson<'a> {
    let (key, notice) = (row.key, row.assessment.notice);
    let (last_use, allow_list) = (row.last_use(), key.allow_list.as_ref());
    KeyJson {
        account: row.account_name(),
        provider: row.provider(),
        key_id: key.id.as_str(),
        name: row.name(),
        label: key.label.as_deref(),
        team: row.team(),
        api_env: row.api_env(),
        organization_id: key.organization_id.as_deref(),
        mode: key.mode.map(Mode::as_str),
        own: key.is_own,
        state: row.state.as_str(),
        severity: severity(row.assessment.severity),
        expires_at: row.expires_at().and_then(time),
        expires_in_seconds: row.time_left().map(whole_seconds),
        expiry_unknown: key.is_expiry_unknown(),
        created_at: key.created_at.and_then(time),
        age_seconds: key.created_at.map(|at| whole_seconds(overview.now - at)),
        updated_at: key.updated_at.and_then(time),
        warning_threshold_seconds: notice.warning.num_seconds(),
        critical_threshold_seconds: notice.critical.num_seconds(),
        disabled: key.is_disabled,
        unlisted_since: key.unlisted_since.and_then(time),
        superseded: row.is_superseded,
        muted: row.assessment.is_muted,
        muted_until: row.muted_until().and_then(time),
        policy_violations: row.broken_policies().map(Policy::as_str).collect(),
        exempt: row.exemptions().map(Policy::as_str).collect(),
        reason: row.reason(),
        scopes: key.scopes.as_ref().map(|it| it.iter().collect()),
        ip_allow_list: allow_list.map(|it| it.networks().iter().map(ToString::to_string).collect()),
        ip_allow_list_invalid_entries: allow_list.map(AllowList::invalid_entries),
        ip_unrestricted: allow_list.map(AllowList::is_unrestricted),
        last_used_at: match last_use {
            LastUse::At(at) => time(at),
            LastUse::Never | LastUse::Unknown => None,
        },
        never_used: match last_use {
            LastUse::At(_) => Some(false),
            LastUse::Never => Some(true),
            LastUse::Unknown => None,
        },
        requests_total: key.details.as_ref().and_then(|details| details.requests),
        rotate_url: row.rotate_url(),
        runbook_url: row.runbook_url(),
        listed_at: row.account.last_success_at.and_then(time),
    }
}

pub(super) fn account<'a>(row: &AccountRow<'a>, overview: &Overview) -> AccountJson<'a> {
    let state = row.state;
    let failure = row.last_failure().map(|last| FailureJson {
        at: time(last.at),
        age_seconds: whole_seconds(overview.now - last.at),
        reason: last.failure.reason.as_str(),
        http_status: last.failure.http_status,
        error: last.failure.error.as_ref().map(Line::as_str),
        support_id: last.failure.support_id.as_ref().map(Line::as_str),
        details: last
            .failure
            .lines
            .iter()
            .map(|(name, line)| (*name, line.as_str()))
            .collect(),
    });
    let keys = overview.state_counts(row);
    let rejects = row.rejects();
    let rejected = Reject::ALL.map(|reason| (reason.as_str(), rejects.count(reason)));
    AccountJson {
        name: row.name(),
        provider: row.provider(),
        api_env: row.api_env(),
        up: row.is_up(),
        keys: keys.map(|(state, count)| (state.as_str(), count)).into(),
        keys_total: row.keys_len(),
        entries_rejected: rejected.into(),
        poll_interval_seconds: state.account.interval.as_secs(),
        polls_total: state.polls,
        poll_failures_total: row.failures(),
        consecutive_failures: state.consecutive_failures,
        last_attempt_at: state.last_attempt.and_then(|attempt| time(attempt.at)),
        last_success_at: state.last_success_at.and_then(time),
        last_success_age_seconds: row.age().map(whole_seconds),
        next_poll_at: state.next_poll_at.and_then(time),
        shrink_held: state.shrunk_listings > 0,
        last_failure: failure,
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::None => "none",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
        Severity::Expired => "expired",
    }
}

/// Rounded down, as in the metrics.
fn whole_seconds(span: TimeDelta) -> i64 {
    let seconds = span.num_seconds();
    if span < TimeDelta::seconds(seconds) {
        seconds - 1
    } else {
        seconds
    }
}

/// RFC 3339, which allows four-digit years only; `None` for other years.
pub(super) fn time(at: DateTime<Utc>) -> Option<String> {
    (0..=9999)
        .contains(&at.year())
        .then(|| at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
