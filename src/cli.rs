//! The command line as types. A token is never accepted here: every user of the machine can read
//! arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flag, Flags};
use crate::provider::Provider;
use crate::provider::profile::EnvironmentAccount;

/// Prometheus exporter that knows when your API keys expire.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "api-key-exporter",
    version = concat!(
        env!("CARGO_PKG_VERSION"),
        " (revision ", env!("API_KEY_EXPORTER_REVISION"), ", rustc ", env!("API_KEY_EXPORTER_RUSTC"), ")"
    ),
    after_help = after_help()
)]
pub struct Cli {
    /// What to do; the daemon unless something else is asked for.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options that every command takes.
    #[command(flatten)]
    pub options: Options,
}

fn after_help() -> String {
    let variables = Provider::default().profile().environment;
    variables.map_or_else(String::new, |EnvironmentAccount { token_file, token }| {
        format!(
            "Without a configuration file, {token_file} (a path) or {token} (the key) in the \
             environment makes one account named \"default\"."
        )
    })
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    Run,
    /// Run the daemon against an embedded fake API: no token, no configuration and no network
    /// needed
    Demo,
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration without any network: exit 0, or 2 with every problem named
    Check,
    /// Print the configuration in force, each value with where it came from
    Show,
}

/// Options of every command, spelled as the Prometheus ecosystem spells them.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Configuration file, TOML
    #[arg(long = "config.file", value_name = "PATH", global = true)]
    pub config_file: Option<PathBuf>,
    /// Address to listen on, instead of those configured; may be repeated
    #[arg(long = "web.listen-address", value_name = "ADDRESS", global = true)]
    pub listen_addresses: Vec<String>,
    /// Listen on the sockets that systemd hands over, instead of opening some
    #[arg(long = "web.systemd-socket", global = true)]
    pub systemd_socket: bool,
    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", global = true)]
    pub telemetry_path: Option<String>,
    /// Least severe level to log: error, warn, info, debug or trace
    #[arg(long = "log.level", value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,
    /// Form of the log: text or json
    #[arg(long = "log.format", value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
}

impl Options {
    /// The options that stand for a value of the configuration.
    pub fn flags(&self) -> Flags {
        let one = |value: &Option<String>| value.iter().cloned().collect();
        let addresses = self.listen_addresses.clone();
        let all = [
            (
                "web.listen_addresses",
                "--web.listen-address",
                addresses,
                true,
            ),
            (
                "web.telemetry_path",
                "--web.telemetry-path",
                one(&self.telemetry_path),
                false,
            ),
            ("log.level", "--log.level", one(&self.log_level), false),
            ("log.format", "--log.format", one(&self.log_format), false),
        ];
        let flags = all.map(|(path, spelling, values, is_list)| Flag {
            path,
            spelling,
            values,
            is_list,
        });
        Flags(
            flags
                .into_iter()
                .filter(|flag| !flag.values.is_empty())
                .collect(),
        )
    }
}
