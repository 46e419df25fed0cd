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

use crate::cli::Options;
use crate::config::{Config, Origin, Problem, Sources, Web};
use crate::domain::text::{chain, redact};
use crate::logging::Logging;
use crate::os::socket_activation::{self, SocketError};
use crate::os::systemd::Unit;
use crate::os::threads::ThreadsError;
use crate::os::{clock, rlimits, systemd, threads};
use crate::pollers::Pollers;
use crate::reload::{Load, Reloader, Reloads};
use crate::server::Server;
use crate::telemetry::Telemetry;
use crate::{demo, snapshot};

/// Kept back from the grace period for the runtime to end in, name resolutions that hang included.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// Connections that the kernel keeps waiting; more than `web.max_connections` makes no sense.
const BACKLOG: u32 = 1024;

/// How the program ends, and what it says then.
#[derive(Debug)]
pub enum Exit {
    /// As asked: exit code 0.
    Done(String),
    /// Failed while running: exit code 1. The log says why, or these words, where there was none
    /// yet.
    Failed(String),
    /// Bad command line, configuration or token: exit code 2.
    Misconfigured(String),
}

/// Why a running daemon ends although nobody asked.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    #[error("cannot listen to signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot take a socket of systemd's")]
    HandedOver(#[source] std::io::Error),
    #[error("cannot register the exporter's own metrics")]
    Telemetry(#[source] prometheus::Error),
    #[error("the {0} task ended")]
    TaskEnded(&'static str),
    #[error("a task panicked")]
    TaskPanicked,
}

/// `run`: the daemon.
pub fn run(options: &Options) -> Exit {
    let sources = sources(options);
    let unit = Unit::new(&sources);
    let load: Load = Arc::new(move || Config::load(&sources));
    serve(&load, unit, options.systemd_socket)
}

/// Runs the daemon with the configuration that `load` reads, now and at each reload; on systemd's
/// sockets instead of its own where `systemd_socket` says so.
pub fn serve(load: &Load, unit: Unit, systemd_socket: bool) -> Exit {
    // Before anything is read: a SIGHUP from here on is a reload, and a SIGTERM a clean stop.
    let (runtime, signals) = match with_signals() {
        Ok(both) => both,
        Err(error) => return failed_early(&error),
    };
    let config = match load() {
        Ok(config) => config,
        Err(problems) => return misconfigured(&problems),
    };
    // Dropped last, so that it outlives the tasks that log.
    let logging = Logging::start(config.log);
    let result = handed_over(systemd_socket).and_then(|sockets| {
        runtime.block_on(async {
            let listeners = match sockets {
                Some(sockets) => adopt(sockets)?,
                None => bind(&config.web.listen_addresses)?,
            };
            let daemon = Daemon {
                listeners,
                signals,
                logging: &logging,
                unit,
            };
            daemon.run(&config, load.clone()).await
        })
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    let exit = ended(result);
    drop(logging);
    exit
}

/// The sockets that systemd opened, where they were asked for.
fn handed_over(is_asked_for: bool) -> Result<Option<Vec<std::net::TcpListener>>, RunError> {
    if !is_asked_for {
        return Ok(None);
    }
    Ok(Some(socket_activation::take()?))
}

/// Makes handed over sockets tokio's; must be called within the runtime.
fn adopt(sockets: Vec<std::net::TcpListener>) -> Result<Vec<TcpListener>, RunError> {
    let adopted = sockets.into_iter().map(TcpListener::from_std);
    adopted
        .collect::<Result<_, _>>()
        .map_err(RunError::HandedOver)
}

/// `demo`: the daemon against the embedded fake API. `print` gets what people should read first.
pub fn demo(options: &Options, print: &dyn Fn(&str)) -> Exit {
    if let Some(path) = &options.config_file {
        let path = path.display();
        return Exit::Misconfigured(format!(
            "api-key-exporter: demo takes no --config.file ({path}); it brings its own\n"
        ));
    }
    let (runtime, signals) = match with_signals() {
        Ok(both) => both,
        Err(error) => return failed_early(&error),
    };
    let mut misconfigured_exit = None;
    let mut logging = None;
    let result = runtime.block_on(async {
        let api = demo::start_api()
            .await
            .map_err(|error| RunError::Bind(demo::API_ADDRESS, error))?;
        let sources = demo::sources(&sources(options));
        let address = api.address();
        let load: Load = Arc::new(move || Config::parse(&demo::config_text(address), &sources));
        let config = match load() {
            Ok(config) => config,
            Err(problems) => {
                misconfigured_exit = Some(misconfigured(&problems));
                return Ok(());
            }
        };
        let listeners = bind(&config.web.listen_addresses)?;
        let addresses: Vec<SocketAddr> = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect();
        print(&demo::welcome(&addresses, &config.web.telemetry_path));
        let daemon = Daemon {
            listeners,
            signals,
            logging: logging.insert(Logging::start(config.log)),
            unit: Unit::default(),
        };
        daemon.run(&config, load).await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    let exit = misconfigured_exit.unwrap_or_else(|| ended(result));
    drop(logging);
    exit
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
            // The log is where a daemon tells, in the form that was asked for.
            error!(error = chain(&error), "exiting");
            Exit::Failed(String::new())
        }
    }
}

/// An end before there is a log.
fn failed_early(error: &RunError) -> Exit {
    Exit::Failed(format!("api-key-exporter: {}\n", chain(error)))
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

/// All that a daemon needs besides its configuration.
struct Daemon<'a> {
    listeners: Vec<TcpListener>,
    signals: Signals,
    logging: &'a Logging,
    unit: Unit,
}

impl Daemon<'_> {
    /// Polls and serves until a signal says stop, or a task dies.
    async fn run(self, config: &Config, load: Load) -> Result<(), RunError> {
        let Self {
            listeners,
            mut signals,
            logging,
            unit,
        } = self;
        let stop = CancellationToken::new();
        let telemetry = Telemetry::new().map_err(RunError::Telemetry)?;
        telemetry.watch_log(logging.dropped());
        let (reloads, reloader) = Reloads::new(load);
        let notifier = unit.notifier.clone();
        let parts = Parts {
            telemetry,
            reloads: reloads.clone(),
            reloader,
            unit,
            connections_max: rlimits::connections(
                config.web.max_connections,
                listeners.len(),
                config.accounts.len(),
            ),
        };
        let mut tasks = start(config, listeners, parts, &stop);
        notifier.ready();
        let signal = loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    stop.cancel();
                    return Err(ended.map_or(RunError::TaskPanicked, RunError::TaskEnded));
                }
                signal = signals.next() => match signal {
                    "SIGHUP" => reloads.ask(),
                    signal => break signal,
                }
            }
        };
        info!(signal, "stopping");
        notifier.stopping();
        stop.cancel();
        let grace = config.web.shutdown_grace;
        let ends = Instant::now() + grace.saturating_sub(RUNTIME_SHUTDOWN);
        let drained = async { while tasks.join_next().await.is_some() {} };
        tokio::select! {
            drained = timeout_at(ends, drained) => {
                if drained.is_err() {
                    // Clients that do not read, or do not finish asking, are no failure.
                    warn!("leaving open connections behind, web.shutdown_grace is over");
                }
            }
            signal = signals.end() => info!(signal, "stopping at once"),
        }
        info!("stopped");
        Ok(())
    }
}

/// Starts everything, for a caller that neither reloads nor has a supervisor: a poller for each
/// account and a server for each listener. Says so in one line.
pub fn spawn(
    config: &Config,
    listeners: Vec<TcpListener>,
    stop: &CancellationToken,
) -> Result<JoinSet<&'static str>, prometheus::Error> {
    let unchanged = config.clone();
    let (reloads, reloader) = Reloads::new(Arc::new(move || Ok(unchanged.clone())));
    let parts = Parts {
        telemetry: Telemetry::new()?,
        reloads,
        reloader,
        unit: Unit::default(),
        connections_max: config.web.max_connections,
    };
    Ok(start(config, listeners, parts, stop))
}

/// What the tasks of a daemon share.
struct Parts {
    telemetry: Telemetry,
    reloads: Reloads,
    reloader: Reloader,
    unit: Unit,
    connections_max: usize,
}

fn start(
    config: &Config,
    listeners: Vec<TcpListener>,
    parts: Parts,
    stop: &CancellationToken,
) -> JoinSet<&'static str> {
    let telemetry = parts.telemetry;
    let pollers = Pollers::start(config, telemetry.clone(), clock::now, stop);
    let mut tasks = JoinSet::new();
    if let Some(directory) = &pollers.directory {
        let failures = telemetry.state_save_failures.clone();
        let saving = snapshot::save_all(
            directory.clone(),
            pollers.board.clone(),
            failures,
            stop.clone(),
        );
        tasks.spawn(async move {
            saving.await;
            "saver"
        });
    }
    let server = Arc::new(Server {
        board: pollers.board.clone(),
        telemetry,
        liveness: pollers.liveness.clone(),
        telemetry_path: config.web.telemetry_path.clone(),
        reloads: config.web.enable_lifecycle.then_some(parts.reloads),
        places: Arc::new(Semaphore::new(parts.connections_max)),
        now: clock::now,
    });
    announce(config, &listeners);
    let own = listeners.first().and_then(|first| first.local_addr().ok());
    let (board, liveness) = (pollers.board.clone(), pollers.liveness.clone());
    let reporting = systemd::report(parts.unit.clone(), board, liveness, own, stop.clone());
    tasks.spawn(async move {
        reporting.await;
        "systemd"
    });
    tasks.spawn(pollers.run(parts.reloader, parts.unit.notifier));
    for listener in listeners {
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            server.run(listener, stop).await;
            "server"
        });
    }
    tasks
}

fn announce(config: &Config, listeners: &[TcpListener]) {
    let Web { telemetry_path, .. } = &config.web;
    let addresses = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok());
    let urls: Vec<String> = addresses
        .map(|address| format!("http://{address}{telemetry_path}"))
        .collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("API_KEY_EXPORTER_REVISION"),
        metrics = urls.join(" "),
        accounts = config.accounts.len(),
        "started"
    );
    for account in &config.accounts {
        info!(
            account = account.name,
            base_url = account.base_url.as_str(),
            token = account.token.describe(),
            interval = humantime::format_duration(account.interval).to_string(),
            "watching an account"
        );
    }
    for warning in &config.warnings {
        warn!(warning, "questionable configuration");
    }
}

fn with_signals() -> Result<(Runtime, Signals), RunError> {
    let runtime = threads::runtime()?;
    let signals = {
        let _within = runtime.enter();
        Signals::register().map_err(RunError::Signals)?
    };
    Ok((runtime, signals))
}

/// The signals that the daemon hears.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }

    /// The next one that ends the daemon.
    async fn end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                "SIGHUP" => {}
                signal => return signal,
            }
        }
    }
}
