//! The additional text of `--help` and of the manual page, and what is generated from the command
//! line: the manual page and the completion scripts.

use std::fmt::Write as _;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, PROGRAM};
use crate::provider::Provider;
use crate::provider::profile::EnvironmentAccount;

/// After the options of `-h`.
pub(super) fn short() -> String {
    with_variables(
        "Without a configuration file, {token_file} (a path) or {token} (the key)\n\
         configures one account named \"default\".\n\n\
         --help also shows environment variables, exit codes and examples.",
    )
}

/// `text` with the variables of the default provider.
fn with_variables(text: &str) -> String {
    match Provider::default().profile().environment {
        None => text.to_owned(),
        Some(EnvironmentAccount { token_file, token }) => text
            .replace("{token_file}", token_file)
            .replace("{token}", token),
    }
}

/// After the options of `demo --help`.
pub(super) const DEMO: &str = "\
The demo ignores the environment and has its own configuration. It fails with exit code 1 and says
why if it cannot start, for example because the address is in use.

Examples:
  api-key-exporter demo
  api-key-exporter demo --provider gitlab
  api-key-exporter demo --web.listen-address 127.0.0.1:0    (any free port)";

/// After the options of `check --help`.
pub(super) const CHECK: &str = "\
Lists every account once, as the exporter does, and judges the keys by the same thresholds,
inventory and policies. Keys that are muted, superseded or disabled do not alert. It needs no
running exporter and does not disturb one: no saved listing is read or written. The output goes to
standard output, the log to standard error.

Exit codes, the worst first:
  2  a key has expired or is inside its critical threshold
  3  could not tell: an account could not be listed, bad command line or configuration
  1  a key is inside its warning threshold, breaks a policy or has an unreadable expiry
  0  all is well

Environment variables:
  COLUMNS   the width of the table on a terminal
  NO_COLOR  no colours, if not empty

Examples:
  api-key-exporter check --config.file /etc/api-key-exporter/config.toml
  api-key-exporter check --team payments --within 14d
  api-key-exporter check --at 2026-12-24
  api-key-exporter check --output nagios --warning 30d --critical 7d
  api-key-exporter check --output textfile --output-file /var/lib/node_exporter/api_keys.prom";

/// After the options of `explain --help`.
pub(super) const EXPLAIN: &str = "\
Lists the accounts once and explains one key: its facts, how each option and inventory entry applies
to it, what supersedes it, which of the shipped alerts fire now, and which one fires next.

Exit codes, as those of check, for this key:
  0  all is well
  1  warning
  2  critical or expired
  3  could not tell: no such key, several such keys, bad command line or configuration

Examples:
  api-key-exporter explain checkout
  api-key-exporter explain key_1234 --account shop --at 2026-12-24";

/// After the options of `config check --help`.
pub(super) const CONFIG_CHECK: &str = "\
Problems go to standard error, with file, line and column; warnings go to standard output. Only
--live uses the network. It makes one attempt for each account, reads and writes no saved listing,
and prints no value of any key.

Exit codes:
  0  the configuration can be used, perhaps with warnings; with --live, each account could be listed
  2  it cannot be used, and every problem is listed; or, with --live, an account could not be listed

Examples:
  api-key-exporter config check --config.file /etc/api-key-exporter/config.toml
  api-key-exporter config check --config.file config.toml --skip-tokens    (in CI)
  api-key-exporter config check --config.file config.toml --live    (tests tokens and definitions)";

/// After the options of `config show --help`.
pub(super) const CONFIG_SHOW: &str = "\
The output is TOML. Tokens, and the user, password and query of every URL, are redacted.

Exit codes:
  0  printed
  2  invalid configuration; every problem is listed";

/// After the arguments of `completions --help`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  api-key-exporter completions bash > /etc/bash_completion.d/api-key-exporter
  api-key-exporter completions zsh > /usr/local/share/zsh/site-functions/_api-key-exporter
  api-key-exporter completions fish > ~/.config/fish/completions/api-key-exporter.fish";

/// After the options of `man --help`.
pub(super) const MAN: &str = "\
Examples:
  api-key-exporter man > /usr/local/share/man/man1/api-key-exporter.1
  api-key-exporter man | man -l -";

/// A part of the help: its title, and rows of a term and its meaning.
type Part = (&'static str, &'static [(&'static str, &'static str)]);

/// Shown by `--help` after the options, and as sections in the manual page.
const PARTS: [Part; 4] = [
    (
        "Environment variables",
        &[
            (
                "{token_file}",
                "path of a file with the token of an account named \"default\", if no file \
                 configures accounts",
            ),
            ("{token}", "the token itself, likewise; a file is safer"),
            (
                "API_KEY_EXPORTER__SECTION__OPTION",
                "any option of the configuration except accounts and keys, with two underscores for \
                 each dot: API_KEY_EXPORTER__POLL__INTERVAL=1m",
            ),
            (
                "STATE_DIRECTORY",
                "where snapshots are saved, if state.directory is not set; systemd sets it",
            ),
            (
                "JOURNAL_STREAM",
                "set by systemd; log lines to the journal start with their priority",
            ),
        ],
    ),
    (
        "Configuration",
        &[
            (
                "Order",
                "defaults, file, environment, flags; later ones win",
            ),
            (
                "Reload",
                "SIGHUP reloads the configuration; an invalid one leaves the previous one in force",
            ),
        ],
    ),
    (
        "Exit codes",
        &[
            ("0", "stopped as asked, or the command succeeded"),
            (
                "1",
                "failed while running: an address is in use, the output cannot be written",
            ),
            (
                "2",
                "bad command line or configuration, or a token that cannot be read at start",
            ),
            (
                "3",
                "check, explain and config check --live: could not tell; their help says more",
            ),
        ],
    ),
    (
        "Examples",
        &[
            (
                "api-key-exporter demo",
                "try it without token, configuration or network",
            ),
            (
                "{token_file}=/run/secrets/key api-key-exporter",
                "watch the keys of one account",
            ),
            (
                "api-key-exporter --config.file /etc/api-key-exporter/config.toml",
                "run with a configuration file",
            ),
            (
                "api-key-exporter check --config.file config.toml",
                "list all keys now and print which need attention",
            ),
            (
                "api-key-exporter config check --config.file config.toml",
                "check that file before a deployment",
            ),
        ],
    ),
];

/// Columns of the long help.
const WIDTH: usize = 90;

/// What `--help` shows after the options.
pub(super) fn long() -> String {
    let mut out = String::new();
    for (title, rows) in PARTS {
        let gap = if out.is_empty() { "" } else { "\n" };
        writeln!(out, "{gap}{title}:").expect("writing to a String cannot fail");
        for (term, meaning) in rows {
            let term = with_variables(term);
            // Exit codes are beside their meaning, longer terms above it.
            if term.len() == 1 {
                writeln!(out, "  {term}  {meaning}").expect("writing to a String cannot fail");
            } else {
                writeln!(out, "  {term}").expect("writing to a String cannot fail");
                for line in wrapped(meaning, WIDTH - 10) {
                    writeln!(out, "          {line}").expect("writing to a String cannot fail");
                }
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Wraps `text` into lines of at most `width` columns; a longer word gets its own line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The manual page in roff: every command with its options, then the parts of the long help.
pub fn man() -> String {
    let mut page = Vec::new();
    render_man(&mut page).expect("writing to a Vec cannot fail");
    String::from_utf8(page).expect("roff of UTF-8 is UTF-8")
}

fn render_man(page: &mut Vec<u8>) -> std::io::Result<()> {
    // clap_mangen would show the parts as one section called EXTRA.
    let root = Cli::command().after_help("").after_long_help("");
    let man = Man::new(root.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    for command in root.get_subcommands() {
        describe(&mut commands, PROGRAM, command);
    }
    commands.to_writer(page)?;
    for (title, rows) in PARTS {
        let mut part = Roff::new();
        part.control("SH", [title.to_uppercase().as_str()]);
        for (term, meaning) in rows {
            part.control("TP", []);
            part.text([bold(with_variables(term))]);
            part.text([roman(*meaning)]);
        }
        part.to_writer(page)?;
    }
    Ok(())
}

/// One command and its subcommands, as entries with the options that only they take.
fn describe(out: &mut Roff, above: &str, command: &clap::Command) {
    let name = format!("{above} {}", command.get_name());
    let below: Vec<&clap::Command> = command.get_subcommands().collect();
    for command in &below {
        describe(out, &name, command);
    }
    if !below.is_empty() {
        return;
    }
    let about = command.get_about().map(ToString::to_string);
    let options = command.get_arguments().map(|argument| {
        let value = argument.get_value_names().and_then(|names| names.first());
        let takes_value = argument.get_action().takes_values();
        let value = value.filter(|_| takes_value);
        match (argument.get_long(), value) {
            (Some(long), Some(value)) => format!("--{long} {value}"),
            (Some(long), None) => format!("--{long}"),
            (None, value) => value.map(ToString::to_string).unwrap_or_default(),
        }
    });
    let options: Vec<String> = options.collect();
    out.control("TP", []);
    out.text([bold(name)]);
    out.text([roman(about.unwrap_or_default())]);
    if !options.is_empty() {
        out.control("br", []);
        out.text([roman(format!("Options: {}", options.join(", ")))]);
    }
}

/// The completion script for `shell`.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    String::from_utf8(script).expect("the names of commands and options are UTF-8")
}
