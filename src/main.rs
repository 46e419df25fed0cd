//! Parses the command line, calls the library, prints its output, sets the exit code.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use api_key_exporter::app::Exit;
use api_key_exporter::cli::{self, Invocation};
use api_key_exporter::commands;
use api_key_exporter::domain::text::redact;
use api_key_exporter::os::{allocator, rlimits};
use api_key_exporter::pages::{self, Status};
use api_key_exporter::reload;

fn main() -> ExitCode {
    reload::survive_early_hangups();
    allocator::give_back();
    rlimits::keep_memory_private();
    let invocation = match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(refused) => {
            let words = cli::words(&refused.error);
            print(refused.error.use_stderr(), &words);
            if refused.is_nagios {
                let words = words.trim_start_matches("error: ");
                print(false, &pages::nagios_unknown(words));
            }
            return ExitCode::from(refused.code);
        }
    };
    match commands::execute(&invocation, &|words| print(false, words)) {
        Exit::Done(words) => {
            print(false, &words);
            ExitCode::SUCCESS
        }
        Exit::Answered {
            output,
            words,
            status,
        } => {
            print(true, &words);
            match write_all(&output) {
                // The reader has seen enough.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    print(
                        true,
                        &format!("api-key-exporter: cannot write the output: {error}\n"),
                    );
                    ExitCode::from(Status::Unknown.code())
                }
                Ok(()) | Err(_) => ExitCode::from(status.code()),
            }
        }
        Exit::Failed(words) => {
            print(true, &words);
            ExitCode::from(1)
        }
        Exit::Misconfigured(words) => {
            print(true, &words);
            ExitCode::from(2)
        }
    }
}

/// Prints to a standard stream. A failed write cannot be reported anywhere.
fn print(is_error: bool, words: &str) {
    if is_error {
        // A misplaced key may be part of an error about a path.
        drop(std::io::stderr().write_all(redact(words).as_bytes()));
    } else {
        drop(write_all(words));
    }
}

fn write_all(words: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(words.as_bytes())?;
    stdout.flush()
}
