//! `[[keys]]` and `inventory_file`: the operator's inventory.

use std::path::Path;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use url::Url;

use crate::config::Account;
use crate::config::assessment::NOTICE_RANGE;
use crate::config::layers;
use crate::config::problem::{Problem, shown};
use crate::config::reader::Section;
use crate::domain::glob::{self, Glob};
use crate::domain::inventory::Entry;
use crate::domain::policy::{Policies, Policy};
use crate::domain::text;
use crate::os::clock::delta;

/// Most entries of an inventory: half of the keys that a listing may have by default.
const ENTRIES_MAX: usize = 10_000;

/// Maximum entries with `*` or `?`, each of which is compared with every key: a thousand of them
/// and twenty thousand keys already take some seconds of a poll.
const GLOBS_MAX: usize = 1_000;

/// Reads `[[keys]]` of the configuration itself. `accounts` are the names that an entry may use;
/// `None` if some accounts are invalid, so that the names are incomplete.
pub(super) fn read(root: &mut Section<'_>, accounts: Option<&[Account]>) -> Vec<Entry> {
    let entries = root.sections("keys", |section| entry(section, accounts));
    entries.into_iter().flatten().collect()
}

/// Reads `[[keys]]` of an inventory file, which contains nothing else. Also returns a warning if it
/// is empty.
pub(super) fn read_file(
    path: &Path,
    accounts: Option<&[Account]>,
    problems: &mut Vec<Problem>,
) -> (Vec<Entry>, Option<String>) {
    let wanted = "the inventory must be TOML, with [[keys]] above each entry";
    let text = super::read_file(path).map_err(|problem| vec![problem]);
    let values = text.and_then(|text| Ok((layers::parse(&text, path, wanted)?, text)));
    let (values, text) = match values {
        Ok(read) => read,
        Err(mut of_file) => {
            problems.append(&mut of_file);
            return (Vec::new(), None);
        }
    };
    let empty = values.is_empty().then(|| super::empty(&text, path));
    // `config show` does not include the inventory: the file itself shows it.
    let mut unshown = Vec::new();
    let mut root = Section::root(values, Some(path), problems, &mut unshown);
    let entries = read(&mut root, accounts);
    root.finish();
    (entries, empty)
}

/// Records a problem if there are more entries than a poll can process.
pub(super) fn check_number(entries: &[Entry], problems: &mut Vec<Problem>) {
    let globs = entries.iter().filter(|entry| !entry.pattern.is_exact());
    for (count, max, what) in [
        (entries.len(), ENTRIES_MAX, "entries"),
        (globs.count(), GLOBS_MAX, "entries with * or ? in match"),
    ] {
        if count > max {
            let words = format!("keys: {count} {what}; the maximum is {max}");
            problems.push(Problem::general(words));
        }
    }
}

fn entry(section: &mut Section<'_>, accounts: Option<&[Account]>) -> Option<Entry> {
    let wanted = format!(
        "an id or a label of 1 to {} characters, * for any run of them, ? for any one",
        glob::CHARS_MAX
    );
    let had_problems = section.problem_count();
    let pattern = section.optional_text("match", None, &wanted, Glob::parse);
    if pattern.is_none() && section.problem_count() == had_problems {
        section.problem("match", None, &format!("is missing: {wanted}"));
    }
    let account = section.optional_text("account", None, "the name of an account", fit);
    if let (Some(name), Some(accounts)) = (&account, accounts)
        && !accounts.iter().any(|account| account.name == **name)
    {
        let names: Vec<&str> = accounts.iter().map(|it| it.name.as_str()).collect();
        let words = format!("must be one of the accounts: {}", names.join(", "));
        section.problem("account", Some(&shown(name)), &words);
    }
    let label = "1 to 255 characters without control characters, not a key";
    let name = section.optional_text("name", None, label, fit);
    let team = section.optional_text("team", None, label, fit);
    let url = "an http:// or https:// URL without a user";
    let rotate_url = section.optional_text("rotate_url", None, url, parse_url);
    let runbook_url = section.optional_text("runbook_url", None, url, parse_url);
    let warning = section.optional_duration("warning", None, NOTICE_RANGE);
    let critical = section.optional_duration("critical", None, NOTICE_RANGE);
    if let (Some(warning), Some(critical)) = (warning, critical)
        && critical > warning
    {
        section.problem("critical", None, "must not be longer than warning");
    }
    let muted_until = section.optional_text(
        "muted_until",
        None,
        "a day such as 2026-12-31 (its first second, UTC) or a time such as 2026-12-31T08:00:00Z",
        parse_moment,
    );
    let words: Vec<&str> = Policy::ALL.into_iter().map(Policy::as_str).collect();
    let policy = format!("policies out of {}", words.join(", "));
    let exempt: Policies = section
        .any_list("exempt", &[], &policy, parse_policy)
        .into_iter()
        .collect();
    let reason = section.optional_text("reason", None, label, fit);
    if reason.is_none() && (muted_until.is_some() || !exempt.is_empty()) {
        section.problem(
            "reason",
            None,
            "is missing: say why the key is muted or exempt",
        );
    }
    Some(Entry {
        account,
        name,
        team,
        rotate_url,
        runbook_url,
        warning: warning.map(delta),
        critical: critical.map(delta),
        muted_until,
        exempt,
        reason,
        ..Entry::new(pattern?)
    })
}

/// Text that can be used unchanged as a label value.
fn fit(text: &str) -> Option<Box<str>> {
    let is_fit = !text.trim().is_empty() && text::label(text) == text;
    is_fit.then(|| text.into())
}

fn parse_url(text: &str) -> Option<Box<str>> {
    let url = Url::parse(text).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    let is_bare = url.username().is_empty() && url.password().is_none();
    (is_web && is_bare).then_some(text).and_then(fit)
}

/// A date starts at midnight UTC; a time needs an explicit zone, because the local one is
/// ambiguous.
pub fn parse_moment(text: &str) -> Option<DateTime<Utc>> {
    let day = || {
        let day: NaiveDate = text.parse().ok()?;
        Some(day.and_time(NaiveTime::MIN).and_utc())
    };
    let moment = DateTime::parse_from_rfc3339(text).ok();
    moment.map(|moment| moment.to_utc()).or_else(day)
}

fn parse_policy(text: &str) -> Option<Policy> {
    Policy::ALL
        .into_iter()
        .find(|policy| policy.as_str() == text)
}

#[cfg(test)]
mod tests;
