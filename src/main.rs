//! Parses the command line, calls the library, prints its output, sets the exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use api_key_exporter::app::{Exit, MISCONFIGURED};
use api_key_exporter::cli::{self, Invocation};
use api_key_exporter::commands;
use api_key_exporter::domain::text::redact;
use api_key_exporter::os::{allocator, rlimits};
use api_key_exporter::pages::{self, Status};
use api_key_exporter::reload;

/// The exit code of a failure that has none of its own.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    reload::survive_early_hangups();
    allocator::give_back();
    rlimits::keep_memory_private();
    let invocation = match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(refused) => {
            let words = cli::words(&refused.error);
            if !refused.error.use_stderr() {
                return answer(&words, refused.code, FAILED);
            }
            say(&words);
            if !refused.is_nagios {
                return ExitCode::from(refused.code);
            }
            let line = pages::nagios_unknown(words.trim_start_matches("error: "));
            return answer(&line, refused.code, refused.code);
        }
    };
    // The demo goes on without its introduction.
    let introduce = |words: &str| drop(write_all(words));
    match commands::execute(&invocation, &introduce) {
        Exit::Done(words) => answer(&words, 0, FAILED),
        Exit::Answered {
            output,
            words,
            code,
        } => {
            say(&words);
            answer(&output, code, Status::Unknown.code())
        }
        Exit::Failed(words) => {
            say(&words);
            ExitCode::from(FAILED)
        }
        Exit::Misconfigured(words) => {
            say(&words);
            ExitCode::from(MISCONFIGURED)
        }
    }
}

/// Prints to stderr. A failed write cannot be reported anywhere.
fn say(words: &str) {
    // A misplaced key may be part of an error about a path.
    drop(std::io::stderr().write_all(redact(words).as_bytes()));
}

/// Prints to stdout, and ends with `code`; with `code_of_failure` if the output cannot be written.
fn answer(output: &str, code: u8, code_of_failure: u8) -> ExitCode {
    match write_all(output) {
        // The reader has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say(&format!(
                "api-key-exporter: cannot write the output: {error}\n"
            ));
            ExitCode::from(code_of_failure)
        }
        Ok(()) | Err(_) => ExitCode::from(code),
    }
}

fn write_all(words: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(words.as_bytes())?;
    stdout.flush()
}
