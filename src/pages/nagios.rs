//! The line that monitoring plugins print: a status, what is wrong, and performance data. Pure.
//!
//! Format: <https://www.monitoring-plugins.org/doc/guidelines.html#PLUGOUTPUT>

use crate::domain::policy::Policy;
use crate::domain::text::cut;
use crate::pages::check::{self, Check, Status};
use crate::pages::rows::KeyRow;
use crate::pages::words;

/// Keys and accounts named in the line. Nagios and Icinga cut output after some kilobytes, and a
/// person reads no more on a phone.
const NAMED_MAX: usize = 5;

/// Longest name in the line, so that five of them leave room for what is wrong.
const NAME_CHARS_MAX: usize = 64;

/// The line, with the line end.
pub(super) fn line(check: &Check<'_>) -> String {
    let failed = check.failed_accounts().map(|row| {
        let failure = check::failure(&row);
        format!("account {} not listed: {failure}", row.name())
    });
    let bad = check
        .keys
        .iter()
        .filter(|(_, status)| *status != Status::Ok);
    let (critical, others): (Vec<_>, Vec<_>) = bad.partition(|(_, it)| *it == Status::Critical);
    let describe = |keys: Vec<&(KeyRow<'_>, Status)>| -> Vec<String> {
        keys.into_iter().map(|(row, _)| key(row)).collect()
    };
    let all = describe(critical).into_iter().chain(failed);
    let all: Vec<String> = all.chain(describe(others)).collect();
    let mut parts = vec![check.summary()];
    parts.extend(all.iter().take(NAMED_MAX).cloned());
    if let Some(more @ 1..) = all.len().checked_sub(NAMED_MAX) {
        parts.push(format!("{more} more"));
    }
    let soonest = check.keys.iter().filter(|(row, _)| !row.is_quiet());
    let soonest = soonest.filter_map(|(row, _)| row.time_left()).min();
    let soonest = soonest.map(|left| format!(" next_expiry={}s", left.num_seconds()));
    let counts = check.counts;
    let numbers = [
        ("keys", check.total),
        ("expired", counts.expired),
        ("critical", counts.critical),
        ("warning", counts.warning),
        ("unreadable", counts.unreadable),
        ("policy", counts.policy),
        ("accounts", check.overview.states.len()),
        ("failed_accounts", counts.failed_accounts),
    ];
    let numbers = numbers.map(|(name, count)| format!("{name}={count};;;0"));
    format!(
        "{} | {}{}\n",
        without_perfdata(check.status, &parts.join("; ")),
        numbers.join(" "),
        soonest.unwrap_or_default()
    )
}

/// The line if no key could be checked: the first paragraph of `words`.
pub(super) fn unknown(words: &str) -> String {
    let lines = words.trim().lines().map(str::trim);
    let lines = lines.take_while(|line| !line.is_empty());
    let words = lines.fold(String::new(), |words, line| match words.chars().last() {
        None => line.to_owned(),
        Some(':') => words + " " + line,
        Some(_) => words + "; " + line,
    });
    without_perfdata(Status::Unknown, &words) + "\n"
}

fn without_perfdata(status: Status, words: &str) -> String {
    format!(
        "API_KEYS {}: {}",
        status.as_str().to_uppercase(),
        plain(words)
    )
}

/// `checkout (payments) in 5 days`.
fn key(row: &KeyRow<'_>) -> String {
    let team = row.team();
    let team = team.map(|team| format!(" ({})", cut(team, NAME_CHARS_MAX)));
    let policies: Vec<&str> = row.broken_policies().map(Policy::as_str).collect();
    let end = match row.time_left() {
        Some(left) => words::expires(left),
        None if row.key.is_expiry_unknown() => "has an unreadable expiry".to_owned(),
        None => "never expires".to_owned(),
    };
    let policies = if policies.is_empty() {
        String::new()
    } else {
        format!(", breaks {}", policies.join(" and "))
    };
    format!(
        "{}{} {end}{policies}",
        cut(row.title(), NAME_CHARS_MAX),
        team.unwrap_or_default()
    )
}

/// Replaces what would end the line or begin its performance data, and what Nagios reads as an
/// escaped line end.
fn plain(words: &str) -> String {
    let plain = words.chars().map(|c| match c {
        '|' => '¦',
        '\\' => '/',
        c if c.is_control() => ' ',
        c => c,
    });
    plain.collect()
}
