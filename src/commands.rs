//! The subcommands, one in each file, and the choice between them.

mod config;
mod demo;
mod run;

use crate::app::Exit;
use crate::cli::{Cli, Command, ConfigCommand};

/// Runs the command that was asked for, the daemon if none was. `print` writes to stdout what the
/// demo says before it goes on running.
pub fn execute(cli: &Cli, print: &dyn Fn(&str)) -> Exit {
    let options = &cli.options;
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run::run(options),
        Command::Demo => demo::demo(options, print),
        Command::Config(ConfigCommand::Check) => config::check(options),
        Command::Config(ConfigCommand::Show) => config::show(options),
    }
}
