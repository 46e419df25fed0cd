//! The subcommands, one per file, and their dispatch.

mod check;
mod config;
mod demo;
mod explain;
mod generate;
pub mod listing;
mod live;
mod question;
mod run;

use crate::app::Exit;
use crate::cli::{Invocation, Task};

/// Runs the command. `print` writes the demo's introduction to stdout while the demo runs.
pub fn execute(Invocation { task, options }: &Invocation, print: &dyn Fn(&str)) -> Exit {
    match task {
        Task::Run => run::run(options),
        Task::Demo { provider } => demo::demo(options, provider, print),
        Task::Check(asked) => check::check(options, asked),
        Task::Explain(asked) => explain::explain(options, asked),
        Task::ConfigCheck { skip_tokens, live } => config::check(options, *skip_tokens, *live),
        Task::ConfigShow => config::show(options),
        Task::Completions(shell) => generate::completions(*shell),
        Task::Man => generate::man(),
    }
}
