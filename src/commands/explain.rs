//! `explain`: everything about one key.

use std::collections::HashMap;

use crate::app::Exit;
use crate::cli::{ExplainOptions, Options};
use crate::commands::question::{Question, Unanswered};
use crate::config::{self, Config};
use crate::domain::text::join_truncated;
use crate::pages::{self, KeyRow, Origins, Overview, Status};

/// Keys listed where several match. More would not help to choose one.
const LISTED_MAX: usize = 20;

/// Answers `explain`.
pub(super) fn explain(options: &Options, asked: &ExplainOptions) -> Exit {
    let (output, words, status) = match answer(options, asked) {
        Ok((output, status)) => (output, String::new(), status),
        Err(Unanswered(words)) => {
            let words = format!("api-key-exporter: {words}\n");
            (String::new(), words, Status::Unknown)
        }
    };
    Exit::Answered {
        output,
        words,
        code: status.code(),
    }
}

fn answer(options: &Options, asked: &ExplainOptions) -> Result<(String, Status), Unanswered> {
    let question = Question::new(options, &asked.judging)?;
    question.check_accounts(&asked.accounts)?;
    let overview = question.ask(&asked.accounts)?;
    let rows: Vec<KeyRow<'_>> = overview.keys().collect();
    // An id names one key, whatever other keys are called.
    let has_id = |row: &&KeyRow<'_>| row.key.id.as_str() == asked.key;
    let is_called = |row: &&KeyRow<'_>| names(row).any(|name| name == asked.key);
    let mut found: Vec<&KeyRow<'_>> = rows.iter().filter(has_id).collect();
    if found.is_empty() {
        found = rows.iter().filter(is_called).collect();
    }
    match found[..] {
        [row] => Ok(pages::explain(&overview, row, &origins(&question.config))),
        [] => {
            let words = not_found(&asked.key, &rows, &overview);
            let elsewhere = elsewhere(&question.config, &asked.accounts);
            Err(Unanswered(words + &elsewhere))
        }
        _ => Err(Unanswered(ambiguous(&asked.key, &found))),
    }
}

/// What a key may be called.
fn names<'a>(row: &KeyRow<'a>) -> impl Iterator<Item = &'a str> {
    let label = row.key.label.as_deref();
    [Some(row.key.id.as_str()), row.name(), label]
        .into_iter()
        .flatten()
}

fn not_found(key: &str, rows: &[KeyRow<'_>], overview: &Overview) -> String {
    let wanted = key.to_lowercase();
    let mut near: Vec<&str> = rows
        .iter()
        .flat_map(names)
        .filter(|name| name.to_lowercase().contains(&wanted))
        .collect();
    if near.is_empty() {
        near.extend(config::closest(key, rows.iter().flat_map(names)));
    }
    near.sort_unstable();
    near.dedup();
    let near = join_truncated(near).map(|near| format!("; similar: {near}"));
    let failed = overview.accounts().filter(|row| row.is_up() != Some(true));
    let failed = join_truncated(failed.map(|row| row.name()));
    let failed = failed.map(|names| format!("; could not be listed: {names}"));
    format!(
        "no key has the id, name or label {key:?}{}{}",
        near.unwrap_or_default(),
        failed.unwrap_or_default()
    )
}

/// Why a key may exist although this shard has none of this name.
fn elsewhere(config: &Config, accounts: &[String]) -> String {
    if !config.shard.is_one_of_several() || !accounts.is_empty() {
        return String::new();
    }
    let shard = config.shard;
    let has_none = config.accounts.is_empty().then_some(" has no account and");
    let has_none = has_none.unwrap_or_default();
    format!("; shard {shard}{has_none} does not list the accounts of other shards")
}

fn ambiguous(key: &str, found: &[&KeyRow<'_>]) -> String {
    let lines = found.iter().take(LISTED_MAX).map(|row| {
        format!(
            "\n  {}  {}  account {}",
            row.key.id,
            row.title(),
            row.account_name()
        )
    });
    let lines: String = lines.collect();
    let more = match found.len().checked_sub(LISTED_MAX) {
        Some(more @ 1..) => format!("\n  and {more} more"),
        Some(0) | None => String::new(),
    };
    // An option or an id helps only if the keys differ in it.
    let differ = |part: fn(&KeyRow<'_>) -> String| {
        let mut parts = found.iter().map(|row| part(row));
        let first = parts.next();
        parts.any(|part| Some(part) != first)
    };
    let differ_in_account = differ(|row| row.account_name().to_owned());
    let advice = match (differ(|row| row.key.id.to_string()), differ_in_account) {
        (true, true) => "give the id of one, or --account",
        (true, false) => "give the id of one",
        (false, _) => "choose with --account",
    };
    let count = found.len();
    format!("{count} keys are called {key:?}; {advice}:{lines}{more}")
}

/// The value and the origin of each option, and the place of each inventory entry.
fn origins(config: &Config) -> Origins {
    let path = |section: &str, name: &str| {
        let section = section.trim_matches(['[', ']']);
        format!("{section}.{name}")
            .trim_start_matches('.')
            .to_owned()
    };
    let options: HashMap<String, String> = config
        .effective
        .iter()
        .map(|option| {
            let words = match &option.value {
                Some(value) => format!("= {value} ({})", option.origin),
                None => "is not set".to_owned(),
            };
            (path(&option.section, &option.name), words)
        })
        .collect();
    let patterns = config.effective.iter();
    let patterns = patterns.filter(|it| (&*it.section, &*it.name) == ("[[keys]]", "match"));
    let mut entries: Vec<String> = patterns
        .enumerate()
        .map(|(index, option)| format!("keys[{index}] ({})", option.origin))
        .collect();
    // Entries of the file follow those of the configuration.
    let of_file = options.get("inventory_file").cloned().unwrap_or_default();
    let in_config = entries.len();
    let all = config.assessment_rules.inventory.entries().len();
    entries.extend((in_config..all).map(|index| {
        let index = index - in_config;
        format!("keys[{index}] of inventory_file {of_file}")
    }));
    Origins { options, entries }
}
