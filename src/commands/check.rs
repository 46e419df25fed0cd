//! `check`: lists all keys once, prints which need attention, and ends with a code that says so.

use std::io::IsTerminal;

use crate::app::Exit;
use crate::cli::{CheckOptions, Options, Output};
use crate::commands::question::{Question, Unanswered, check_names, duration, unanswered};
use crate::config::Sources;
use crate::domain::text::{chain, redact};
use crate::exposition::text::Exposition;
use crate::exposition::{Encoding, Format, textfile};
use crate::os::output_file::{OutputError, OutputFile};
use crate::os::{clock, terminal};
use crate::pages::{self, Check, Choice, Look, Overview, Status};
use crate::pollers;

/// Answers `check`.
pub(super) fn check(options: &Options, asked: &CheckOptions) -> Exit {
    match answer(options, asked) {
        Ok((output, status)) => Exit::Answered {
            output,
            words: String::new(),
            code: status.code(),
        },
        Err(Unanswered(words)) => {
            // A key may have been pasted as the value of an option.
            let words = redact(&words);
            // Monitoring systems show what a plugin prints to stdout.
            let output = match asked.output {
                Output::Nagios => pages::nagios_unknown(&words),
                Output::Table | Output::Json | Output::Textfile => String::new(),
            };
            Exit::Answered {
                output,
                words: format!("api-key-exporter: {words}\n"),
                code: Status::Unknown.code(),
            }
        }
    }
}

fn answer(options: &Options, asked: &CheckOptions) -> Result<(String, Status), Unanswered> {
    let within = asked.within.as_deref();
    let choice = Choice {
        teams: asked.teams.clone(),
        within: within.map(|text| duration("within", text)).transpose()?,
    };
    if asked.output == Output::Textfile {
        refuse_partial_metrics(asked)?;
    }
    let question = Question::new(options, &asked.judging)?;
    question.check_accounts(&asked.accounts)?;
    let entries = question.config.assessment_rules.inventory.entries().iter();
    let mut teams: Vec<&str> = entries.filter_map(|entry| entry.team.as_deref()).collect();
    teams.sort_unstable();
    teams.dedup();
    check_names("team", &asked.teams, &teams)?;
    let file = asked
        .output_file
        .as_deref()
        .map(OutputFile::new)
        .transpose();
    let file = file.map_err(|error| unwritten(&error))?;
    let overview = question.ask(&asked.accounts)?;
    let check = Check::new(&overview, &choice);
    let text = match asked.output {
        Output::Table => {
            let look = look(&question.sources, file.is_some());
            check.table(question.at.is_some(), look)
        }
        Output::Json => check.json(clock::now(), question.at),
        Output::Nagios => check.nagios(),
        Output::Textfile => metrics(&question, &overview),
    };
    match file {
        None => Ok((text, check.status)),
        Some(file) => {
            let written = file.write(text.as_bytes());
            written.map_err(|error| unwritten(&error))?;
            Ok((String::new(), check.status))
        }
    }
}

/// Metrics are about all keys of an account, and about now: a collector adds no time to them.
fn refuse_partial_metrics(asked: &CheckOptions) -> Result<(), Unanswered> {
    let partial = [
        ("at", asked.judging.at.is_some()),
        ("team", !asked.teams.is_empty()),
        ("within", asked.within.is_some()),
    ];
    match partial.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let why = "metrics are about all keys, as of now; choose in the query instead";
            unanswered(&format!(
                "--output textfile cannot be used with --{option}: {why}"
            ))
        }
    }
}

fn unwritten(error: &OutputError) -> Unanswered {
    Unanswered(chain(error))
}

fn metrics(question: &Question, overview: &Overview) -> String {
    let settings = pollers::view_settings(&question.config);
    let states = overview.states.iter().map(|state| (**state).clone());
    let exposition = Exposition::new(states, &settings, overview.now);
    let body = exposition.body(overview.now, &[], Format::Text, Encoding::Identity);
    textfile(&String::from_utf8_lossy(&body.concat()))
}

/// Fits the terminal behind stdout, if there is one.
fn look(sources: &Sources, has_file: bool) -> Look {
    let stdout = std::io::stdout();
    if has_file || !stdout.is_terminal() {
        return Look::default();
    }
    let columns = sources
        .variable("COLUMNS")
        .and_then(|text| text.parse().ok());
    let columns = columns.or_else(|| terminal::columns(&stdout));
    let is_plain = sources.variable("TERM").is_none_or(|term| term == "dumb");
    let is_refused = sources
        .variable("NO_COLOR")
        .is_some_and(|it| !it.is_empty());
    Look {
        width: columns.map(|columns| columns.max(pages::WIDTH_MIN)),
        has_colours: !is_plain && !is_refused,
    }
}
