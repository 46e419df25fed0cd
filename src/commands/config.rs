//! `config check` and `config show`: inspect the configuration. Only `config check --live` uses
//! the network.

use std::fmt::Write as _;

use crate::app::{Exit, MISCONFIGURED, misconfigured, sources};
use crate::cli::Options;
use crate::commands::live;
use crate::config::{Config, Origin, Sources};
use crate::domain::text::{chain, redact};
use crate::pages::words;

/// `config check`: reports every problem; with `live`, also lists each account once.
pub(super) fn check(options: &Options, skip_tokens: bool, live: bool) -> Exit {
    let sources = Sources {
        skip_tokens,
        ..sources(options)
    };
    match Config::load(&sources) {
        Ok(config) => {
            let warnings = config
                .warnings
                .iter()
                .fold(String::new(), |words, warning| {
                    words + "warning: " + warning + "\n"
                });
            let accounts = accounts_of(&config);
            let unchecked = if skip_tokens {
                ", tokens not checked"
            } else {
                ""
            };
            let words = format!("{warnings}configuration is good: {accounts}{unchecked}\n");
            if !live {
                return Exit::Done(words);
            }
            match live::check(&config) {
                Ok((report, true)) => Exit::Done(words + "\n" + &report),
                Ok((report, false)) => Exit::Answered {
                    output: words + "\n" + &report,
                    words: String::new(),
                    code: MISCONFIGURED,
                },
                Err(error) => Exit::Failed(format!("api-key-exporter: {}\n", chain(&error))),
            }
        }
        Err(problems) => misconfigured(&problems),
    }
}

/// How many accounts are polled; of a shard, also which ones.
fn accounts_of(config: &Config) -> String {
    let count = config.accounts.len();
    if !config.shard.is_one_of_several() {
        return words::count(count, "account");
    }
    let (all, shard) = (words::count(config.shards.len(), "account"), config.shard);
    let names: Vec<String> = config
        .accounts
        .iter()
        .map(|account| format!("{:?}", account.name))
        .collect();
    let colon = if names.is_empty() { "" } else { ": " };
    let names = names.join(", ");
    format!("{count} of {all} in shard {shard}{colon}{names}")
}

/// `config show`: prints the effective configuration as TOML, each value with its origin.
pub(super) fn show(options: &Options) -> Exit {
    let config = match Config::load(&sources(options)) {
        Ok(config) => config,
        Err(problems) => return misconfigured(&problems),
    };
    let mut out = String::new();
    let mut before = None;
    for option in &config.effective {
        let section = (option.section.as_str(), option.index);
        if before.is_some_and(|before| before != section)
            || (before.is_none() && !section.0.is_empty())
        {
            let gap = if out.is_empty() { "" } else { "\n" };
            let taken_by = taken_by(&config, section);
            writeln!(out, "{gap}{}{taken_by}", section.0).expect("writing to a String cannot fail");
        }
        before = Some(section);
        let line = match (&option.value, &option.origin) {
            (Some(value), origin) => format!("{} = {value}  # {origin}", option.name),
            (None, Origin::Default) => format!("# {} is not set", option.name),
            (None, origin) => format!("# {} is not set  # {origin}", option.name),
        };
        writeln!(out, "{}", redact(&line)).expect("writing to a String cannot fail");
    }
    Exit::Done(out)
}

/// With shards, a comment with the shard that takes the account of this section.
fn taken_by(config: &Config, (section, index): (&str, usize)) -> String {
    let shard = config.shards.get(index).map(|(_, shard)| shard);
    match shard.filter(|_| section == "[[accounts]]" && config.shard.is_one_of_several()) {
        None => String::new(),
        Some(shard) if *shard == config.shard.index() => format!("  # shard {shard}, this one"),
        Some(shard) => format!("  # shard {shard}"),
    }
}
