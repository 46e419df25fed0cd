//! The command line as types. A token is never accepted here: every user of the machine can read
//! arguments.

mod help;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint,
};
pub use clap_complete::Shell;

pub use self::help::{completions, man};
use crate::config::{Flag, Flags};
use crate::domain::text::{REDACTED, redact};
use crate::provider::Provider;

/// The name of the program, as users type it.
const PROGRAM: &str = "api-key-exporter";

/// Longest word of letters that an error message repeats. Commands and options are shorter; tokens
/// have digits.
const SHOWN_WORD_CHARS_MAX: usize = 32;

/// Longest word with digits that an error message repeats. Tokens are longer, and so are the parts
/// of them that are of use to anybody.
const SHOWN_NUMBER_CHARS_MAX: usize = 11;

/// The command with all options, wherever they appear on the command line.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The command.
    pub task: Task,
    /// The options; those that the command does not take are not set.
    pub options: Options,
}

/// The command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run the daemon.
    Run,
    /// Run the daemon against the embedded fake API.
    Demo {
        /// The provider that the API is like.
        provider: &'static str,
    },
    /// List now, and print which keys need attention.
    Check(CheckOptions),
    /// Print everything about one key.
    Explain(ExplainOptions),
    /// Check the configuration.
    ConfigCheck {
        /// Whether to check it without reading any token.
        skip_tokens: bool,
        /// Whether to list each account once.
        live: bool,
    },
    /// Print the effective configuration.
    ConfigShow,
    /// Print a completion script.
    Completions(Shell),
    /// Print the manual page.
    Man,
}

/// Prometheus exporter that watches when API keys expire.
#[derive(Clone, Debug, Parser)]
#[command(
    name = PROGRAM,
    version = concat!(
        env!("CARGO_PKG_VERSION"),
        " (revision ", env!("API_KEY_EXPORTER_REVISION"), ", rustc ", env!("API_KEY_EXPORTER_RUSTC"), ")"
    ),
    after_help = help::short(),
    after_long_help = help::long(),
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, and not for long")]
enum Command {
    /// Run the daemon (the default)
    Run(Options),
    /// Run the daemon against an embedded fake API: no token, configuration or network needed
    #[command(after_long_help = help::DEMO)]
    Demo {
        #[command(flatten)]
        settings: Settings,
        /// Built-in provider that the fake API is like, for example gitlab
        #[arg(
            long,
            value_name = "NAME",
            default_value = Provider::built_in_names().next(),
            value_parser = built_in_provider(),
            hide_possible_values = true
        )]
        provider: &'static str,
    },
    /// List all keys once, print which need attention, and exit with a code that says so
    #[command(after_long_help = help::CHECK)]
    Check {
        #[command(flatten)]
        options: QuestionOptions,
        #[command(flatten)]
        check: CheckOptions,
    },
    /// Explain one key: facts, judgements with their reasons, and alerts
    #[command(after_long_help = help::EXPLAIN)]
    Explain {
        #[command(flatten)]
        options: QuestionOptions,
        #[command(flatten)]
        explain: ExplainOptions,
    },
    /// Check or print the configuration
    Config {
        #[command(flatten)]
        options: ConfigOptions,
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    #[command(after_long_help = help::COMPLETIONS)]
    Completions {
        /// The shell that reads the script
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_long_help = help::MAN)]
    Man,
}

#[derive(Clone, Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration; exit 0, or 2 with every problem listed
    #[command(after_long_help = help::CONFIG_CHECK)]
    Check {
        #[command(flatten)]
        options: ConfigOptions,
        /// Do not read tokens: for CI, which has the configuration but not the secrets
        #[arg(long)]
        skip_tokens: bool,
        /// List each account once, and say what was asked, what came back and what was understood
        #[arg(long, conflicts_with = "skip_tokens")]
        live: bool,
    },
    /// Print the effective configuration, each value with its origin, secrets redacted
    #[command(after_long_help = help::CONFIG_SHOW)]
    Show(ConfigOptions),
}

/// The options of the daemon, spelled as the Prometheus ecosystem spells them.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// Where the configuration is.
    #[command(flatten)]
    pub file: FileOption,
    /// Values that override the configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Who opens the sockets.
    #[command(flatten)]
    pub socket: SocketOption,
    /// Which accounts to poll.
    #[command(flatten)]
    pub shard: ShardOptions,
}

/// `--config.file`
#[derive(Args, Clone, Debug, Default)]
pub struct FileOption {
    /// Configuration file, TOML [default: none]
    #[arg(long = "config.file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub config_file: Option<PathBuf>,
}

/// `--web.systemd-socket`
#[derive(Args, Clone, Debug, Default)]
pub struct SocketOption {
    /// Listen on the sockets that systemd passes instead of opening any
    #[arg(long = "web.systemd-socket")]
    pub systemd_socket: bool,
}

/// `--shard` and `--total-shards`
#[derive(Args, Clone, Debug, Default)]
pub struct ShardOptions {
    /// Index of this exporter among --total-shards, from 0 [default: 0]
    #[arg(long = "shard", value_name = "INDEX")]
    pub shard: Option<String>,
    /// Number of exporters that share the accounts; each polls those that it takes [default: 1]
    #[arg(long = "total-shards", value_name = "NUMBER")]
    pub total_shards: Option<String>,
}

/// Options that override a value of the configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// Address to listen on, instead of those configured; repeatable [default: 127.0.0.1:10120]
    #[arg(long = "web.listen-address", value_name = "ADDRESS", value_hint = ValueHint::Hostname)]
    pub listen_addresses: Vec<String>,
    /// Web configuration file, YAML: TLS and authentication [default: none]
    #[arg(long = "web.config.file", value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub web_config_file: Option<String>,
    /// Address for probes only, without TLS and authentication [default: none]
    #[arg(
        long = "web.probe-listen-address",
        value_name = "ADDRESS",
        value_hint = ValueHint::Hostname
    )]
    pub probe_listen_address: Option<String>,
    /// URL under which users reach the exporter [default: none]
    #[arg(long = "web.external-url", value_name = "URL", value_hint = ValueHint::Url)]
    pub external_url: Option<String>,
    /// Prefix of all paths [default: the path of --web.external-url]
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub route_prefix: Option<String>,
    /// Path of the metrics [default: /metrics]
    #[arg(long = "web.telemetry-path", value_name = "PATH")]
    pub telemetry_path: Option<String>,
    /// Enable reloading by POST or PUT to /-/reload
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogOptions,
}

/// `--log.level` and `--log.format`
#[derive(Args, Clone, Debug, Default)]
pub struct LogOptions {
    /// Least severe level to log: error, warn, info, debug or trace [default: info]
    #[arg(long = "log.level", value_name = "LEVEL")]
    pub level: Option<String>,
    /// Log format: text, json or gcp [default: text on a terminal, else json]
    #[arg(long = "log.format", value_name = "FORMAT")]
    pub format: Option<String>,
}

/// The options that `check` and `explain` share with the daemon.
#[derive(Args, Clone, Debug, Default)]
struct QuestionOptions {
    #[command(flatten)]
    file: FileOption,
    #[command(flatten)]
    log: LogOptions,
}

/// The options of `check` only.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// What to print
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub output: Output,
    /// Write to this file instead, replacing it as a whole
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub output_file: Option<PathBuf>,
    /// List only the account of this name; repeatable
    #[arg(long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
    /// Check only the keys of this team; repeatable
    #[arg(long = "team", value_name = "NAME")]
    pub teams: Vec<String>,
    /// Check only keys that have expired or expire within this time, for example 14d
    #[arg(long, value_name = "DURATION")]
    pub within: Option<String>,
    /// How keys are judged.
    #[command(flatten)]
    pub judging: JudgingOptions,
}

/// The options of `explain` only.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Id, name or label of the key
    pub key: String,
    /// Look only in the account of this name; repeatable
    #[arg(long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
    /// How keys are judged.
    #[command(flatten)]
    pub judging: JudgingOptions,
}

/// How `check` and `explain` judge keys.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct JudgingOptions {
    /// Warning threshold of all keys, instead of those configured
    #[arg(long, value_name = "DURATION")]
    pub warning: Option<String>,
    /// Critical threshold of all keys, instead of those configured
    #[arg(long, value_name = "DURATION")]
    pub critical: Option<String>,
    /// Judge as of this time: 2026-12-24 or 2026-12-24T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
}

/// What `check` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    #[default]
    Table,
    /// A JSON document
    Json,
    /// A line with performance data, for Nagios, Icinga and others
    Nagios,
    /// Metrics for the textfile collector of the node exporter
    Textfile,
}

/// A command line that cannot be run.
#[derive(Debug)]
pub struct Refused {
    /// What to print; [`words`] cleans it.
    pub error: clap::Error,
    /// The exit code.
    pub code: u8,
    /// Whether a monitoring system reads stdout.
    pub is_nagios: bool,
}

/// The options of `config check` and `config show`.
#[derive(Args, Clone, Debug, Default)]
struct ConfigOptions {
    #[command(flatten)]
    file: FileOption,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    shard: ShardOptions,
}

impl Invocation {
    /// Reads the command line, the program's name included.
    pub fn parse(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, Refused> {
        let arguments = with_negative_values(arguments.into_iter().map(Into::into));
        Self::read(&arguments).map_err(|error| {
            let code = match error.use_stderr() {
                false => 0,
                true if is_question(&arguments) => 3,
                true => 2,
            };
            let is_nagios = code == 3 && wants_nagios(&arguments);
            Refused {
                error,
                code,
                is_nagios,
            }
        })
    }

    fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        refuse_misplaced(&mut command, &matches)?;
        let cli = Cli::from_arg_matches(&matches)?;
        let (task, options) = match cli.command {
            None => (Task::Run, Options::default()),
            Some(Command::Run(options)) => (Task::Run, options),
            Some(Command::Demo { settings, provider }) => {
                (Task::Demo { provider }, settings.into())
            }
            Some(Command::Check { options, check }) => (Task::Check(check), options.into()),
            Some(Command::Explain { options, explain }) => (Task::Explain(explain), options.into()),
            Some(Command::Config { options, command }) => {
                let (task, inner) = match command {
                    ConfigCommand::Check {
                        options,
                        skip_tokens,
                        live,
                    } => (Task::ConfigCheck { skip_tokens, live }, options),
                    ConfigCommand::Show(options) => (Task::ConfigShow, options),
                };
                (task, Options::from(inner).or(options.into()))
            }
            Some(Command::Completions { shell }) => (Task::Completions(shell), Options::default()),
            Some(Command::Man) => (Task::Man, Options::default()),
        };
        let options = options.or(cli.options);
        Ok(Self { task, options })
    }
}

/// `--shard -1` as `--shard=-1`. No option begins with a digit, so this is a value, whose problem
/// has a better message than that of an unknown option.
fn with_negative_values(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for argument in arguments {
        let text = argument.to_str().unwrap_or_default();
        let digits = text.strip_prefix('-').unwrap_or_default();
        let is_negative = digits.starts_with(|c: char| c.is_ascii_digit());
        let is_option =
            |before: &str| before.len() > 2 && before.starts_with("--") && !before.contains('=');
        match joined.last_mut() {
            Some(before) if is_negative && before.to_str().is_some_and(is_option) => {
                before.push("=");
                before.push(argument);
            }
            Some(_) | None => joined.push(argument),
        }
    }
    joined
}

/// Whether a command line that cannot be run wants the output of a monitoring plugin.
fn wants_nagios(arguments: &[OsString]) -> bool {
    let pairs = arguments.iter().zip(arguments.iter().skip(1));
    let mut pairs = pairs.map(|(option, value)| (option.to_str(), value.to_str()));
    pairs.any(|pair| pair == (Some("--output"), Some("nagios")))
        || arguments.iter().any(|it| it == "--output=nagios")
}

/// Whether a command line that cannot be run is one of `check` or `explain`, for which 2 means that
/// a key is critical.
fn is_question(arguments: &[OsString]) -> bool {
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(arguments);
    matches.is_ok_and(|matches| matches!(matches.subcommand_name(), Some("check" | "explain")))
}

/// Reads the name of a built-in provider.
fn built_in_provider() -> impl TypedValueParser<Value = &'static str> {
    PossibleValuesParser::new(Provider::built_in_names()).map(|given| {
        let mut names = Provider::built_in_names();
        names.find(|name| *name == given).unwrap_or_default()
    })
}

/// An option may precede or follow the command, but only if the command takes it.
fn refuse_misplaced(root: &mut clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let mut given: Vec<clap::Arg> = Vec::new();
    let (mut command, mut matches) = (root, matches);
    while let Some((name, below)) = matches.subcommand() {
        let is_given =
            |id: &str| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
        let arguments = command.get_arguments();
        given.extend(
            arguments
                .filter(|it| is_given(it.get_id().as_str()))
                .cloned(),
        );
        let Some(next) = command.find_subcommand_mut(name) else {
            return Ok(());
        };
        (command, matches) = (next, below);
    }
    let is_taken = |option: &clap::Arg| {
        let mut arguments = command.get_arguments();
        arguments.any(|argument| argument.get_id() == option.get_id())
    };
    match given.iter().find(|option| !is_taken(option)) {
        None => Ok(()),
        Some(option) => {
            let (option, name) = (option.get_long().unwrap_or_default(), command.get_name());
            let words = format!("the option '--{option}' cannot be used with '{name}'");
            Err(command.error(ErrorKind::ArgumentConflict, words))
        }
    }
}

/// The error for a command line that clap does not understand. clap repeats its input, which may be
/// a misplaced token, so only words that could be a command or an option are shown.
pub fn words(error: &clap::Error) -> String {
    let kinds = [
        ContextKind::InvalidSubcommand,
        ContextKind::InvalidArg,
        ContextKind::InvalidValue,
    ];
    let mut words = error.render().to_string();
    for kind in kinds {
        if let Some(ContextValue::String(typed)) = error.get(kind)
            && !typed.is_empty()
            && !could_be_a_word(typed)
        {
            words = words.replace(typed.as_str(), REDACTED);
        }
    }
    redact(&words).into_owned()
}

/// Whether `typed` looks like a command, an option, perhaps followed by its `<VALUE>`, or a name.
fn could_be_a_word(typed: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._<> ".contains(c);
    let chars_max = if typed.contains(|c: char| c.is_ascii_digit()) {
        SHOWN_NUMBER_CHARS_MAX
    } else {
        SHOWN_WORD_CHARS_MAX
    };
    typed.len() <= chars_max && typed.chars().all(is_plain)
}

impl Options {
    /// These options, with unset ones taken from `outer`.
    fn or(self, outer: Self) -> Self {
        let (own, outer_settings) = (self.settings, outer.settings);
        let listen_addresses = [outer_settings.listen_addresses, own.listen_addresses].concat();
        Self {
            file: FileOption {
                config_file: self.file.config_file.or(outer.file.config_file),
            },
            settings: Settings {
                listen_addresses,
                web_config_file: own.web_config_file.or(outer_settings.web_config_file),
                probe_listen_address: own
                    .probe_listen_address
                    .or(outer_settings.probe_listen_address),
                external_url: own.external_url.or(outer_settings.external_url),
                route_prefix: own.route_prefix.or(outer_settings.route_prefix),
                telemetry_path: own.telemetry_path.or(outer_settings.telemetry_path),
                enable_lifecycle: own.enable_lifecycle || outer_settings.enable_lifecycle,
                log: LogOptions {
                    level: own.log.level.or(outer_settings.log.level),
                    format: own.log.format.or(outer_settings.log.format),
                },
            },
            socket: SocketOption {
                systemd_socket: self.socket.systemd_socket || outer.socket.systemd_socket,
            },
            shard: ShardOptions {
                shard: self.shard.shard.or(outer.shard.shard),
                total_shards: self.shard.total_shards.or(outer.shard.total_shards),
            },
        }
    }
}

impl From<Settings> for Options {
    fn from(settings: Settings) -> Self {
        Self {
            settings,
            ..Self::default()
        }
    }
}

impl From<QuestionOptions> for Options {
    fn from(QuestionOptions { file, log }: QuestionOptions) -> Self {
        let settings = Settings {
            log,
            ..Settings::default()
        };
        Self {
            file,
            settings,
            ..Self::default()
        }
    }
}

impl From<ConfigOptions> for Options {
    fn from(options: ConfigOptions) -> Self {
        let ConfigOptions {
            file,
            settings,
            shard,
        } = options;
        Self {
            file,
            settings,
            shard,
            ..Self::default()
        }
    }
}

impl Options {
    /// The options that are configuration values.
    pub fn flags(&self) -> Flags {
        let Settings {
            listen_addresses,
            web_config_file,
            probe_listen_address,
            external_url,
            route_prefix,
            telemetry_path,
            enable_lifecycle,
            log,
        } = &self.settings;
        let list = |path, spelling, values: &[String], is_list| Flag {
            path,
            spelling,
            values: values.to_vec(),
            is_list,
        };
        let one =
            |path, spelling, value: &Option<String>| list(path, spelling, value.as_slice(), false);
        let enable_lifecycle = enable_lifecycle.then(|| "true".to_owned());
        let ShardOptions {
            shard,
            total_shards,
        } = &self.shard;
        let flags = [
            list(
                "web.listen_addresses",
                "--web.listen-address",
                listen_addresses,
                true,
            ),
            one("web.config_file", "--web.config.file", web_config_file),
            one(
                "web.probe_listen_address",
                "--web.probe-listen-address",
                probe_listen_address,
            ),
            one("web.external_url", "--web.external-url", external_url),
            one("web.route_prefix", "--web.route-prefix", route_prefix),
            one("web.telemetry_path", "--web.telemetry-path", telemetry_path),
            one(
                "web.enable_lifecycle",
                "--web.enable-lifecycle",
                &enable_lifecycle,
            ),
            one("shard.index", "--shard", shard),
            one("shard.total", "--total-shards", total_shards),
            one("log.level", "--log.level", &log.level),
            one("log.format", "--log.format", &log.format),
        ];
        Flags(
            flags
                .into_iter()
                .filter(|flag| !flag.values.is_empty())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
