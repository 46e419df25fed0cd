//! Reads and checks the configuration: defaults, file, environment, flags. Only this module reads
//! the environment.
//!
//! Each section is a struct whose `read` names its options, defaults and ranges, so a new section
//! is a new struct. All problems are reported together, so that one edit can fix them.

mod accounts;
mod assessment;
mod keys;
mod layers;
mod log;
mod problem;
mod providers;
mod reader;
mod shard;
mod suggestion;
mod value;
mod warnings;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use accounts::Account;
pub use assessment::Details;
pub use keys::parse_moment;
use layers::Layers;
pub use log::{Log, LogFormat};
use problem::shown_path;
pub use problem::{Origin, Place, Problem};
pub use providers::definition_of;
pub use reader::Effective;
use reader::{Least, Section};
use secrecy::zeroize::Zeroizing;
pub use suggestion::closest;

use url::Url;

use crate::domain::assessment::AssessmentRules;
use crate::domain::changes::ShrinkGuard;
use crate::domain::inventory::Inventory;
use crate::domain::shard::{Shard, shard_of};
use crate::domain::text::redact;
use crate::exposition::Metrics;
use crate::os::clock;
use crate::os::files::{self, FileError};
use crate::server::listen::ListenAddress;
use crate::server::routes::Paths;
use crate::server::web_config;

/// The prefix of all environment variables of the exporter.
const ENV_PREFIX: &str = "API_KEY_EXPORTER";

/// Largest configuration file and largest inventory. A hundred accounts take some 20 KiB, ten
/// thousand keys 2 MiB; 4 MiB rejects a file that was named by mistake.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The whole configuration; all values are checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[web]`
    pub web: Web,
    /// `[poll]`
    pub poll: Poll,
    /// `[details]`
    pub details: Details,
    /// `[thresholds]`, `[policy]`, `[[keys]]` and `inventory_file`: the rules for assessing keys.
    pub assessment_rules: Arc<AssessmentRules>,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[state]`
    pub state: StateDirectory,
    /// `[log]`
    pub log: Log,
    /// `[shard]`
    pub shard: Shard,
    /// `[[accounts]]`: those that this shard takes, with unique names; without shards at least one.
    pub accounts: Vec<Account>,
    /// The name of each account of the configuration, in file order, and the index of the shard
    /// that takes it.
    pub shards: Vec<(String, u16)>,
    /// Valid but probably unintended settings; for the log.
    pub warnings: Vec<String>,
    /// The effective value and origin of every option, in file order.
    pub effective: Vec<Effective>,
}

/// `[web]`: the exporter's own HTTP server.
#[derive(Clone, Debug)]
pub struct Web {
    /// Listen addresses; at least one.
    pub listen_addresses: Vec<ListenAddress>,
    /// Address for probes only, without TLS and authentication.
    pub probe_listen_address: Option<ListenAddress>,
    /// The web configuration file: TLS, users and other settings.
    pub config_file: Option<PathBuf>,
    /// All paths: `telemetry_path`, `external_url` and `route_prefix` combined.
    pub paths: Paths,
    /// Maximum number of connections; further ones are closed immediately.
    pub max_connections: usize,
    /// Whether `/-/reload` is enabled.
    pub enable_lifecycle: bool,
    /// Longest time from a signal to the exit.
    pub shutdown_grace: Duration,
}

/// `[poll]`: how the API is polled.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// Interval between polls of an account, 5 s to 24 h.
    pub interval: Duration,
    /// Timeout of one whole attempt.
    pub timeout: Duration,
    /// Maximum attempts per poll.
    pub attempts: u32,
    /// Largest response body.
    pub max_body_bytes: usize,
    /// Maximum keys in a listing.
    pub max_keys: usize,
    /// Maximum pages of a listing.
    pub max_pages: usize,
    /// When a listing that lost many keys is accepted.
    pub shrink: ShrinkGuard,
    /// How long an expired key is kept after it disappears from the API; zero does not keep it.
    pub expired_retention: Duration,
}

/// `[state]`: state that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDirectory {
    /// Directory for snapshots; `None` saves none.
    pub directory: Option<PathBuf>,
}

/// Values from the command line, by path; they override all others.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub Vec<Flag>);

/// One option given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The option's path in the file, `web.listen_addresses`.
    pub path: &'static str,
    /// Its spelling, `--web.listen-address`.
    pub spelling: &'static str,
    /// Its values; more than one if it is repeatable.
    pub values: Vec<String>,
    /// Whether it is repeatable.
    pub is_list: bool,
}

/// All sources of a configuration.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file, if one is given.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The command line.
    pub flags: Flags,
    /// Whether stderr is a terminal, which determines the default log format.
    pub is_terminal: bool,
    /// Whether stderr is the journal, which reads the priority prefix of each line.
    pub is_journal: bool,
    /// Whether to skip reading tokens, for a check where they are not available.
    pub skip_tokens: bool,
}

/// Omits the environment, which holds tokens.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Sources");
        shown.field("file", &self.file).field("flags", &self.flags);
        shown.finish_non_exhaustive()
    }
}

impl Sources {
    /// An environment variable that does not belong to an option.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// The given file and flags, and the current environment. Variables that are not valid Unicode
    /// are left out: they cannot hold an option's value.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn of_process(file: Option<PathBuf>, flags: Flags) -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let environment: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
        let journal = environment.get(log::JOURNAL_VARIABLE);
        let is_journal = journal.is_some_and(|journal| log::is_stderr(journal));
        Self {
            file,
            environment,
            flags,
            is_terminal: std::io::stderr().is_terminal(),
            is_journal,
            skip_tokens: false,
        }
    }
}

impl Config {
    /// Reads and checks everything, or reports every problem.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Problem>> {
        let text = match &sources.file {
            Some(path) => read_file(path).map_err(|problem| vec![problem])?,
            None => Zeroizing::default(),
        };
        Self::parse(&text, sources)
    }

    /// Like [`Config::load`], with the content of the file given.
    pub fn parse(text: &str, sources: &Sources) -> Result<Self, Vec<Problem>> {
        let Layers {
            values,
            is_file_empty,
        } = layers::merge(text, sources)?;
        let mut problems = accounts::in_environment(sources);
        let tried_environment = !problems.is_empty();
        let mut effective = Vec::new();
        let mut root = Section::root(
            values,
            sources.file.as_deref(),
            &mut problems,
            &mut effective,
        );
        // Before any section, where TOML requires it.
        let inventory_file = root.path("inventory_file");
        let web = root.section("web", Web::read).unwrap_or_default();
        let poll = root.section("poll", Poll::read).unwrap_or_default();
        let details = root.section("details", Details::read).unwrap_or_default();
        let thresholds = root.section("thresholds", assessment::read_thresholds);
        let policy = root.section("policy", assessment::read_limits);
        let metrics = root.section("metrics", Metrics::read).unwrap_or_default();
        let state = root
            .section("state", |section| StateDirectory::read(section, sources))
            .unwrap_or_default();
        let shard = root.section("shard", shard::read).flatten();
        let log = root
            .section("log", |section| Log::read(section, sources))
            .unwrap_or_default();
        let without_accounts = root.problem_count();
        let providers = providers::read(&mut root);
        let mut accounts = accounts::read(&mut root, &providers, &poll, sources, shard);
        let are_accounts_good = !tried_environment && root.problem_count() == without_accounts;
        let known = are_accounts_good.then_some(accounts.as_slice());
        let mut entries = keys::read(&mut root, known);
        root.finish();
        let mut empty_inventory = None;
        if let Some(path) = &inventory_file {
            let (of_file, warning) = keys::read_file(path, known, &mut problems);
            entries.extend(of_file);
            empty_inventory = warning;
        }
        keys::check_number(&entries, &mut problems);
        let path = sources.file.as_deref().unwrap_or(Path::new(""));
        let empty_file = is_file_empty.then(|| empty(text, path));
        if !problems.is_empty() {
            // The likely cause of all other problems.
            problems.splice(0..0, empty_file.map(Problem::general));
            return Err(problems);
        }
        let (thresholds, policy) = (thresholds.unwrap_or_default(), policy.unwrap_or_default());
        let shard = shard.unwrap_or_default();
        let of_options = warnings::of(&poll, &accounts, &details, &policy);
        let of_environment = warnings::of_environment(sources, &accounts, &effective);
        let names = accounts.iter().map(|account| account.name.clone());
        let shards = names.map(|name| {
            let index = shard_of(&name, shard.total());
            (name, index)
        });
        let shards: Vec<(String, u16)> = shards.collect();
        accounts.retain(|account| shard.takes(&account.name));
        let mut warnings: Vec<String> = empty_file.into_iter().chain(empty_inventory).collect();
        warnings.extend(warnings::of_shard(shard, &accounts, &effective));
        warnings.extend(of_options);
        if !sources.skip_tokens {
            warnings.extend(accounts.iter().flat_map(warnings::of_token));
        }
        warnings.extend(warnings::of_inventory(&entries, clock::now()));
        warnings.extend(of_environment);
        // They quote names and values, and a key can be pasted into any of them.
        let warnings = warnings.iter().map(|it| redact(it).into_owned()).collect();
        let assessment_rules = Arc::new(AssessmentRules {
            inventory: Inventory::new(entries).for_shard(shard),
            thresholds,
            policy,
            privileged_scopes: accounts.iter().map(Account::privileged_scopes).collect(),
        });
        Ok(Self {
            web,
            poll,
            details,
            assessment_rules,
            metrics,
            state,
            log,
            shard,
            accounts,
            shards,
            warnings,
            effective,
        })
    }
}

impl Web {
    /// The port is unregistered; it is free in Prometheus' list of default ports.
    const LISTEN_ADDRESS: &'static str = "127.0.0.1:10120";
    const TELEMETRY_PATH: &'static str = "/metrics";
    /// Prometheus needs one or two connections; 256 leaves room for people and stays well under the
    /// usual limit of 1,024 files.
    const MAX_CONNECTIONS: u64 = 256;
    /// Supervisors kill after 10 s (docker) to 90 s (systemd).
    const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

    fn read(section: &mut Section<'_>) -> Self {
        let listen_addresses = section.distinct_list(
            "listen_addresses",
            &[Self::LISTEN_ADDRESS],
            LISTEN_ADDRESS_WANTED,
            |text| text.parse().ok(),
        );
        let probe_listen_address = section.optional_text(
            "probe_listen_address",
            None,
            LISTEN_ADDRESS_WANTED,
            |text| text.parse().ok(),
        );
        if probe_listen_address
            .as_ref()
            .is_some_and(|probe| listen_addresses.contains(probe))
        {
            let words = "must differ from web.listen_addresses";
            section.problem("probe_listen_address", None, words);
        }
        let config_file = section.path("config_file");
        if let Some(path) = &config_file
            && let Err(problems) = web_config::check(path, clock::now)
        {
            for problem in problems {
                let words = format!("{}: {problem}", path.display());
                section.problem("config_file", None, &words);
            }
        }
        Self {
            listen_addresses,
            probe_listen_address,
            config_file,
            paths: read_paths(section),
            max_connections: section.number("max_connections", Self::MAX_CONNECTIONS, 1..=100_000),
            enable_lifecycle: section.flag("enable_lifecycle", false),
            shutdown_grace: section.duration(
                "shutdown_grace",
                Self::SHUTDOWN_GRACE,
                Duration::from_secs(1)..=Duration::from_mins(5),
            ),
        }
    }
}

impl Poll {
    /// Keys live for days to years; five minutes is prompt and costs 288 API requests a day.
    const INTERVAL: Duration = Duration::from_mins(5);
    /// A shorter interval would be a load test; with a longer one, a day could pass unnoticed.
    const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> =
        Duration::from_secs(5)..=Duration::from_hours(24);
    /// A listing takes well under a second; 15 s tolerates a slow API.
    const TIMEOUT: Duration = Duration::from_secs(15);
    const ATTEMPTS: u64 = 3;
    /// A key takes some 400 bytes, so that 20,000 keys fit.
    const MAX_BODY_BYTES: u64 = 8 * 1024 * 1024;
    const MAX_KEYS: u64 = 20_000;
    /// At the usual 100 keys per page, this matches the key limit.
    const MAX_PAGES: u64 = 200;
    /// A week includes working days, whatever the day of expiry.
    const EXPIRED_RETENTION: Duration = Duration::from_hours(24 * 7);

    fn read(section: &mut Section<'_>) -> Self {
        let shrink = ShrinkGuard::default();
        Self {
            interval: section.duration("interval", Self::INTERVAL, Self::INTERVAL_RANGE),
            timeout: section.duration(
                "timeout",
                Self::TIMEOUT,
                Duration::from_millis(100)..=Duration::from_mins(5),
            ),
            attempts: section.number("attempts", Self::ATTEMPTS, 1..=10),
            max_body_bytes: section.number("max_body_bytes", Self::MAX_BODY_BYTES, 1024..=1 << 30),
            max_keys: section.number("max_keys", Self::MAX_KEYS, 1..=1_000_000),
            max_pages: section.number("max_pages", Self::MAX_PAGES, 1..=10_000),
            shrink: ShrinkGuard {
                confirmations: section.number(
                    "shrink_confirmations",
                    shrink.confirmations.into(),
                    1..=100,
                ),
                ratio: section.fraction("shrink_ratio", shrink.ratio, Least::Zero),
            },
            expired_retention: section.duration(
                "expired_retention",
                Self::EXPIRED_RETENTION,
                Duration::ZERO..=Duration::from_hours(24 * 365),
            ),
        }
    }
}

/// Enough for everything except the scopes of the 20,000 keys that the default limits allow. During
/// an update, the old and the new text exist together, each with its compressed form, beside two
/// listings and a response: 64 MiB keeps the total below the memory limit of the unit and of the
/// chart; a test compares them.
const MAX_BYTES_PER_ACCOUNT: u64 = 64 << 20;

/// Providers document some 30 scopes, so a key with all of them shows all of them.
const MAX_SCOPES_PER_KEY: u64 = 64;

impl Metrics {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            relative: section.flag("relative", true),
            scope_info: section.flag("scope_info", true),
            max_scopes_per_key: section.number(
                "max_scopes_per_key",
                MAX_SCOPES_PER_KEY,
                1..=10_000,
            ),
            max_bytes_per_account: section.number(
                "max_bytes_per_account",
                MAX_BYTES_PER_ACCOUNT,
                64 << 10..=16 << 30,
            ),
        }
    }
}

/// The expected form of a listen address.
const LISTEN_ADDRESS_WANTED: &str = "an address and a port such as \"127.0.0.1:10120\", \
    \":10120\" or \"[::1]:10120\", or a socket's path such as \"unix:/run/exporter.sock\"";

/// As in Prometheus: the prefix of all paths is the path of the external URL, unless a proxy strips
/// it and `route_prefix` is set.
fn read_paths(section: &mut Section<'_>) -> Paths {
    let telemetry = section.text(
        "telemetry_path",
        Web::TELEMETRY_PATH,
        "a separate path such as \"/metrics\"",
        parse_telemetry_path,
    );
    let external = section.optional_text(
        "external_url",
        None,
        "a URL or a path such as \"https://example.com/keys\" or \"/keys\"",
        parse_external_url,
    );
    let prefix = section.optional_text(
        "route_prefix",
        None,
        "a path such as \"/keys\", or \"/\"",
        parse_prefix,
    );
    let (external_url, external_path) = external.unzip();
    let prefix = prefix.or_else(|| external_path.clone()).unwrap_or_default();
    Paths {
        links: external_path.unwrap_or_else(|| prefix.clone()),
        prefix,
        telemetry,
        external_url: external_url.flatten(),
    }
}

/// Set by systemd for a unit with `StateDirectory=`; multiple directories are separated by colons.
const STATE_DIRECTORY_VARIABLE: &str = "STATE_DIRECTORY";

impl StateDirectory {
    fn read(section: &mut Section<'_>, sources: &Sources) -> Self {
        let of_systemd = sources.environment.get(STATE_DIRECTORY_VARIABLE);
        let of_systemd = of_systemd.and_then(|paths| paths.split(':').next());
        let of_systemd = of_systemd.filter(|path| !path.is_empty());
        let directory = section.folder("directory");
        if directory.is_some() || of_systemd.is_none() {
            return Self { directory };
        }
        let directory = of_systemd.map(PathBuf::from);
        section.note_environment("directory", STATE_DIRECTORY_VARIABLE, directory.as_deref());
        Self { directory }
    }
}

/// Placeholder for a section that is not a table. The problem is recorded, so the value is never
/// used.
macro_rules! default_by_reading_nothing {
    ($($section:ty => $read:expr),*) => {
        $(impl Default for $section {
            fn default() -> Self {
                let (mut problems, mut effective) = (Vec::new(), Vec::new());
                let nothing = config::Map::new();
                let mut empty = Section::root(nothing, None, &mut problems, &mut effective);
                $read(&mut empty)
            }
        })*
    };
}

default_by_reading_nothing!(
    Web => Web::read,
    Poll => Poll::read,
    Details => Details::read,
    Metrics => Metrics::read,
    Log => |section| Log::read(section, &Sources::default())
);

/// Reports that the file sets no option; a file that is being written may look like this briefly.
fn empty(text: &str, path: &Path) -> String {
    let what = if text.trim().is_empty() {
        "the file is empty"
    } else {
        "the file sets no option; every line is blank or a comment"
    };
    format!("{}: {what}", shown_path(path))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, Problem> {
    let problem = |why: String| Problem::general(format!("{}: {why}", shown_path(path)));
    let content = match files::read(path, FILE_BYTES_MAX) {
        Ok(content) => content,
        Err(FileError::Unreadable(error)) => {
            return Err(problem(format!("cannot open the file: {error}")));
        }
        Err(error) => return Err(problem(format!("the file {error}"))),
    };
    // With a byte order mark, or ASCII text without one.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] = **content {
        return Err(problem("the file is UTF-16; save it as UTF-8".to_owned()));
    }
    match std::str::from_utf8(&content) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => {
            let valid = content
                .utf8_chunks()
                .next()
                .map_or("", |chunk| chunk.valid());
            let place = layers::place_after(valid);
            let words = format!(
                "{}:{place}: {error}; save the file as UTF-8",
                shown_path(path)
            );
            Err(Problem::general(words))
        }
    }
}

/// Parses a whole URL, or only its path; returns the path in the form of [`parse_prefix`].
fn parse_external_url(text: &str) -> Option<(Option<Url>, String)> {
    if text.starts_with('/') {
        return Some((None, parse_prefix(text)?));
    }
    let url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let path = parse_prefix(url.path()).filter(|_| is_plain)?;
    Some((Some(url), path))
}

/// A path that starts with one `/` and does not end with one; empty for the root.
fn parse_prefix(text: &str) -> Option<String> {
    let inner = text.trim_matches('/');
    if inner.is_empty() {
        return Some(String::new());
    }
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain_in_path)
    };
    inner
        .split('/')
        .all(is_segment)
        .then(|| format!("/{inner}"))
}

/// Whether a path may contain it unescaped.
fn is_plain_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~')
}

/// A path that is not used otherwise, in characters that need no escaping.
fn parse_telemetry_path(text: &str) -> Option<String> {
    let is_free = text != "/"
        && text != "/calendar.ics"
        && !["/-/", "/api/"].iter().any(|taken| text.starts_with(taken));
    (text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(is_plain_in_path)
        && is_free)
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
