//! The composition root: configuration, board, pollers, servers; waits for a signal or a death;
//! drains.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::bitgpt::client::Settings;
use crate::bitgpt::lister::Lister;
use crate::board::Board;
use crate::cli::Options;
use crate::config::{Account, Config, Origin, Problem, Sources, Web};
use crate::domain::changes::ShrinkGuard;
use crate::domain::state::{self, AccountState};
use crate::domain::text::{chain, redact};
use crate::liveness::Liveness;
use crate::logging::Logging;
use crate::poller::Poller;
use crate::server::Server;
use crate::store::{self, Store};
use crate::telemetry::Telemetry;
use crate::{clock, demo};

/// Threads that serve and poll. Two: one may be busy with a large listing while the other answers.
/// More would only cost memory, and a 128-core host would get 128.
const WORKER_THREADS: usize = 2;

/// Threads for files and name resolution, which block.
const BLOCKING_THREADS_MAX: usize = 16;

/// Kept back from the grace period for the runtime to end in, name resolutions that hang included.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// Connections that the kernel keeps waiting; more than `web.max_connections` makes no sense.
const BACKLOG: u32 = 1024;

/// How the program ends, and what it says then.
#[derive(Debug)]
pub enum Exit {
    /// As asked: exit code 0.
    Done(String),
    /// Failed while running: exit code 1.
    Failed(String),
    /// Bad command line, configuration or token: exit code 2.
    Misconfigured(String),
}

/// Why a running daemon ends although nobody asked.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    #[error("cannot register the exporter's own metrics")]
    Telemetry(#[source] prometheus::Error),
    #[error("the {0} task ended")]
    TaskEnded(&'static str),
    #[error("a task panicked")]
    TaskPanicked,
    #[error("stopping took longer than web.shutdown_grace ({})", humantime::format_duration(*.0))]
    DrainTimeout(Duration),
}

/// `run`: the daemon.
pub fn run(options: &Options) -> Exit {
    let config = match Config::load(&sources(options)) {
        Ok(config) => config,
        Err(problems) => return misconfigured(&problems),
    };
    // Declared before the runtime, so that it outlives the tasks that log.
    let logging = Logging::start(config.log);
    let exit = ended(runtime().and_then(|runtime| {
        let result = runtime.block_on(async {
            let listeners = bind(&config.web.listen_addresses)?;
            daemon(&config, listeners).await
        });
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
        result
    }));
    drop(logging);
    exit
}

/// `demo`: the daemon against the embedded fake API. `print` gets what people should read first.
pub fn demo(options: &Options, print: &dyn Fn(&str)) -> Exit {
    if let Some(path) = &options.config_file {
        let path = path.display();
        return Exit::Misconfigured(format!(
            "api-key-exporter: demo takes no --config.file ({path}); it brings its own\n"
        ));
    }
    let mut misconfigured_exit = None;
    let mut logging = None;
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(async {
            let api = demo::start_api()
                .await
                .map_err(|error| RunError::Bind(demo::API_ADDRESS, error))?;
            let sources = demo::sources(&sources(options));
            let config = match Config::parse(&demo::config_text(api.address()), &sources) {
                Ok(config) => config,
                Err(problems) => {
                    misconfigured_exit = Some(misconfigured(&problems));
                    return Ok(());
                }
            };
            logging = Some(Logging::start(config.log));
            let listeners = bind(&config.web.listen_addresses)?;
            let addresses: Vec<SocketAddr> = listeners
                .iter()
                .filter_map(|listener| listener.local_addr().ok())
                .collect();
            print(&demo::welcome(&addresses, &config.web.telemetry_path));
            daemon(&config, listeners).await
        });
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
        result
    });
    drop(logging);
    misconfigured_exit.unwrap_or_else(|| ended(result))
}

/// `config check`: names every problem, without any network.
pub fn check_config(options: &Options) -> Exit {
    match Config::load(&sources(options)) {
        Ok(config) => {
            let warnings = config
                .warnings
                .iter()
                .fold(String::new(), |words, warning| {
                    words + "warning: " + warning + "\n"
                });
            Exit::Done(format!(
                "{warnings}configuration is good: {} account(s)\n",
                config.accounts.len()
            ))
        }
        Err(problems) => misconfigured(&problems),
    }
}

/// `config show`: the configuration in force as TOML, each value with its origin.
pub fn show_config(options: &Options) -> Exit {
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
            writeln!(out, "{gap}{}", section.0).expect("a string takes everything");
        }
        before = Some(section);
        let line = match (&option.value, &option.origin) {
            (Some(value), origin) => format!("{} = {value}  # {origin}", option.name),
            (None, Origin::Default) => format!("# {} is not set", option.name),
            (None, origin) => format!("# {} is not set  # {origin}", option.name),
        };
        writeln!(out, "{}", redact(&line)).expect("a string takes everything");
    }
    Exit::Done(out)
}

fn sources(options: &Options) -> Sources {
    Sources::of_process(options.config_file.clone(), options.flags())
}

fn misconfigured(problems: &[Problem]) -> Exit {
    let words = problems.iter().fold(String::new(), |words, problem| {
        format!("{words}  {problem}\n")
    });
    Exit::Misconfigured(format!(
        "api-key-exporter: the configuration cannot be used:\n{words}"
    ))
}

fn ended(result: Result<(), RunError>) -> Exit {
    match result {
        Ok(()) => Exit::Done(String::new()),
        Err(error) => {
            let words = chain(&error);
            error!(error = words, "exiting");
            Exit::Failed(format!("api-key-exporter: {words}\n"))
        }
    }
}

fn runtime() -> Result<Runtime, RunError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)
}

/// Listens on all `addresses`; must be called within the runtime.
pub fn bind_one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    // A restart must not wait until the kernel forgets the last one's connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, RunError> {
    let bound = addresses
        .iter()
        .map(|address| bind_one(*address).map_err(|error| RunError::Bind(*address, error)));
    bound.collect()
}

/// Polls and serves until a signal says stop, or a task dies.
async fn daemon(config: &Config, listeners: Vec<TcpListener>) -> Result<(), RunError> {
    let mut signals = Signals::register().map_err(RunError::Runtime)?;
    let stop = CancellationToken::new();
    let mut tasks = spawn(config, listeners, &stop).map_err(RunError::Telemetry)?;
    let signal = tokio::select! {
        Some(ended) = tasks.join_next() => {
            stop.cancel();
            return Err(ended.map_or(RunError::TaskPanicked, RunError::TaskEnded));
        }
        signal = signals.next() => signal,
    };
    info!(signal, "stopping");
    stop.cancel();
    let grace = config.web.shutdown_grace;
    let drained = async { while tasks.join_next().await.is_some() {} };
    tokio::select! {
        drained = timeout_at(Instant::now() + grace.saturating_sub(RUNTIME_SHUTDOWN), drained) => {
            if drained.is_err() {
                // Answers that nobody reads do not make a stop a failure.
                warn!(error = RunError::DrainTimeout(grace).to_string(), "leaving connections behind");
            }
        }
        signal = signals.next() => info!(signal, "stopping at once"),
    }
    info!("stopped");
    Ok(())
}

/// Starts a poller for each account and a server for each listener; says so in one line.
pub fn spawn(
    config: &Config,
    listeners: Vec<TcpListener>,
    stop: &CancellationToken,
) -> Result<JoinSet<&'static str>, prometheus::Error> {
    let telemetry = Telemetry::new()?;
    let liveness = Liveness::new(config.accounts.len());
    let store = open_store(config);
    let states: Vec<AccountState> = config
        .accounts
        .iter()
        .map(|account| state_of(account, config.poll.shrink))
        .map(|state| loaded(state, store.as_ref()))
        .collect();
    let board = Arc::new(Board::new(states.clone(), config.metrics));
    let mut tasks = JoinSet::new();
    for (index, (account, state)) in config.accounts.iter().zip(states).enumerate() {
        let lister = Lister::new(account.token.clone(), settings(account, config), clock::now);
        let poller = Poller {
            attempt: async move |deadline| lister.attempt(deadline).await,
            state,
            attempts_max: config.poll.attempts,
            board: board.clone(),
            index,
            heartbeat: liveness.heartbeat(index),
            poll_duration: telemetry.poll_duration(&account.name),
            now: clock::now,
            random: fastrand::f64,
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            poller.run(stop).await;
            "poller"
        });
    }
    if let Some(store) = store {
        let saving = store::save_all(
            Arc::new(store),
            board.clone(),
            telemetry.state_save_failures.clone(),
            stop.clone(),
        );
        tasks.spawn(async move {
            saving.await;
            "saver"
        });
    }
    let server = Arc::new(Server {
        board,
        telemetry,
        liveness,
        telemetry_path: config.web.telemetry_path.clone(),
        places: Arc::new(Semaphore::new(config.web.max_connections)),
        now: clock::now,
    });
    announce(config, &listeners);
    for listener in listeners {
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            server.run(listener, stop).await;
            "server"
        });
    }
    Ok(tasks)
}

fn announce(config: &Config, listeners: &[TcpListener]) {
    let Web { telemetry_path, .. } = &config.web;
    let addresses = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok());
    let urls: Vec<String> = addresses
        .map(|address| format!("http://{address}{telemetry_path}"))
        .collect();
    let accounts: Vec<&str> = config
        .accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    let tokens: Vec<String> = config
        .accounts
        .iter()
        .map(|account| account.token.describe())
        .collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("API_KEY_EXPORTER_REVISION"),
        metrics = urls.join(" "),
        accounts = accounts.join(" "),
        tokens = tokens.join(", "),
        interval = humantime::format_duration(config.poll.interval).to_string(),
        "started"
    );
    for warning in &config.warnings {
        warn!(warning, "questionable configuration");
    }
}

fn state_of(account: &Account, shrink: ShrinkGuard) -> AccountState {
    AccountState::new(Arc::new(state::Account {
        name: account.name.as_str().into(),
        provider: account.provider,
        base_url: account.base_url.as_str().into(),
        interval: account.interval,
        shrink,
    }))
}

/// The store of snapshots, where one is configured and can be used. Without one the exporter works
/// as well, and forgets at a restart.
fn open_store(config: &Config) -> Option<Store> {
    let directory = config.state.directory.as_deref()?;
    match Store::open(directory, config.poll.max_body_bytes) {
        Ok(store) => Some(store),
        Err(error) => {
            warn!(error = chain(&error), "no snapshots are saved");
            None
        }
    }
}

fn loaded(state: AccountState, store: Option<&Store>) -> AccountState {
    let snapshot = store.and_then(|store| store.load(&store::identity(&state)));
    match snapshot {
        Some(snapshot) => state.with_snapshot(snapshot.listing, snapshot.listed_at),
        None => state,
    }
}

fn settings(account: &Account, config: &Config) -> Settings {
    Settings {
        base_url: account.base_url.clone(),
        ca_file: account.ca_file.clone(),
        proxy_url: account.proxy_url.clone(),
        timeout: config.poll.timeout,
        body_bytes_max: config.poll.max_body_bytes,
        keys_max: config.poll.max_keys,
        expected_env: account.expected_env.clone(),
    }
}

/// The signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
