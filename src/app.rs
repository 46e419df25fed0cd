//! The composition root: starts configuration, pollers, state consumers and servers; waits for a
//! signal or a fatal failure; then drains.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::Options;
use crate::config::{Config, Log, Problem, Sources};
use crate::domain::text::chain;
use crate::exposition::cache::ExpositionCache;
use crate::inventory_watch;
use crate::logging::Logging;
use crate::os::signals::{Request, Signals};
use crate::os::systemd::Unit;
use crate::os::threads::ThreadsError;
use crate::os::{allocator, clock, rlimits, systemd, threads};
use crate::pollers::Pollers;
use crate::reload::{Load, Reloader, Reloads};
use crate::server::listen::{self, ListenAddress, ListenError, Listener};
use crate::server::routes::Paths;
use crate::server::web_config::WebFile;
use crate::server::{self, Server};
use crate::telemetry::Telemetry;
use crate::{logging, snapshot};

/// Part of the grace period that is reserved for runtime shutdown, including hanging name
/// resolutions.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(500);

/// Maximum connections of the probe listener: a kubelet and a load balancer need one each.
const PROBE_CONNECTIONS_MAX: usize = 8;

/// How the program ends, and the message it prints.
#[derive(Debug)]
pub enum Exit {
    /// Requested stop: exit code 0.
    Done(String),
    /// The answer of `check`, `explain` or `config check --live`.
    Answered {
        /// For stdout.
        output: String,
        /// For stderr.
        words: String,
        /// The exit code.
        code: u8,
    },
    /// Runtime failure: exit code 1. The log holds the reason, or this message does if there is no
    /// log yet.
    Failed(String),
    /// Invalid command line, configuration or token: [`MISCONFIGURED`].
    Misconfigured(String),
}

/// The exit code for an invalid command line, configuration or token, and for accounts that `config
/// check --live` cannot list.
pub const MISCONFIGURED: u8 = 2;

/// Why the daemon ends without a stop request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime.
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// The signal handlers.
    #[error("cannot handle signals")]
    Signals(#[source] std::io::Error),
    /// A listening socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The web configuration file, which was usable a moment earlier.
    #[error("cannot use the web configuration file: {0}")]
    WebConfig(String),
    /// The fake API of the demo cannot get a listening address.
    #[error("cannot start the embedded API")]
    Demo(#[source] std::io::Error),
    /// Two metrics about the exporter itself have the same name.
    #[error("cannot register the exporter's own metrics")]
    Telemetry(#[source] prometheus::Error),
    /// A task ended that should run until shutdown.
    #[error("the {0} task ended unexpectedly")]
    TaskEnded(&'static str),
    /// An unsupervised task panicked.
    #[error("a task panicked")]
    TaskPanicked,
}

/// Runs the daemon until a signal or a failure ends it. `prepare` returns the function that reads
/// the configuration, at start and at each reload. With `systemd_socket`, the daemon serves the
/// sockets that systemd passed instead of opening its own. `misconfigured` reports an invalid
/// configuration. `bound` is called once the daemon listens, with the root URL of each listener.
///
/// Failures before the log exists are in the returned [`Exit`]; later failures are in the log.
pub fn serve(
    prepare: impl AsyncFnOnce() -> Result<Load, RunError>,
    unit: Unit,
    systemd_socket: bool,
    misconfigured: &dyn Fn(&[Problem]) -> Exit,
    bound: &dyn Fn(&[String], &Config),
) -> Exit {
    // Before anything is read, so that a SIGHUP from here on reloads and a SIGTERM stops cleanly.
    let (runtime, mut signals) = match with_signals() {
        Ok(both) => both,
        Err(error) => return failed_early(&error),
    };
    let load = match runtime.block_on(prepare()) {
        Ok(load) => load,
        Err(error) => return failed_early(&error),
    };
    // On the blocking thread, so that the daemon can be stopped while a file system hangs.
    let loaded = runtime.block_on(async {
        let load = load.clone();
        tokio::select! {
            loaded = tokio::task::spawn_blocking(move || load()) => Some(loaded),
            _ = signals.stop() => None,
        }
    });
    let config = match loaded {
        Some(Ok(Ok(config))) => config,
        Some(Ok(Err(problems))) => return misconfigured(&problems),
        Some(Err(_panicked)) => return failed_early(&RunError::TaskPanicked),
        None => {
            runtime.shutdown_background();
            return Exit::Done(String::new());
        }
    };
    // Dropped last, so that it outlives the tasks that log.
    let logging = Logging::start(config.log);
    let result = runtime.block_on(async {
        let listeners = if systemd_socket {
            listen::from_systemd()?
        } else {
            listen::bind(&config.web.listen_addresses)?
        };
        let probes = config.web.probe_listen_address.as_ref();
        let probes = probes.map(listen::bind_to).transpose()?;
        let web_file = open_web_file(&config)?;
        bound(&urls(&listeners, web_file.as_deref()), &config);
        let daemon = Daemon {
            sockets: Sockets {
                listeners,
                probes,
                web_file,
            },
            signals,
            logging: &logging,
            unit,
        };
        daemon.run(&config, load).await
    });
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    match result {
        Ok(()) => Exit::Done(String::new()),
        Err(error) => {
            // In the log, in the configured format.
            error!(error = chain(&error), "exiting");
            logging.finish();
            Exit::Failed(String::new())
        }
    }
}

/// The root URL of each listener, without the trailing `/`.
fn urls(listeners: &[Listener], web_file: Option<&WebFile>) -> Vec<String> {
    let is_encrypted = web_file.is_some_and(WebFile::is_encrypted);
    let scheme = if is_encrypted { "https" } else { "http" };
    let url = |address: ListenAddress| match address {
        ListenAddress::Unix(_) | ListenAddress::PassedUnix(_) => address.to_string(),
        ListenAddress::EveryAddress(_) | ListenAddress::Tcp(_) => format!("{scheme}://{address}"),
    };
    listeners
        .iter()
        .filter_map(Listener::address)
        .map(url)
        .collect()
}

fn open_web_file(config: &Config) -> Result<Option<Arc<WebFile>>, RunError> {
    let Some(path) = &config.web.config_file else {
        return Ok(None);
    };
    let file = WebFile::open(path, clock::now);
    let file = file.map_err(|problems| RunError::WebConfig(problems.join("; ")))?;
    Ok(Some(Arc::new(file)))
}

/// The configuration sources for these options.
pub fn sources(options: &Options) -> Sources {
    Sources::of_process(options.file.config_file.clone(), options.flags())
}

/// Exit for a start with an invalid configuration: reports every problem.
pub fn misconfigured(problems: &[Problem]) -> Exit {
    let mut words = "api-key-exporter: invalid configuration:\n".to_owned();
    for problem in problems {
        writeln!(words, "  {problem}").expect("writing to a String cannot fail");
    }
    Exit::Misconfigured(words)
}

/// Like [`misconfigured`], for a daemon: if the log format is JSON, the problems are logged as JSON
/// lines.
pub fn misconfigured_daemon(sources: &Sources, problems: &[Problem]) -> Exit {
    match Log::for_problems(sources) {
        Some(log) => {
            logging::problems(log, problems);
            Exit::Misconfigured(String::new())
        }
        None => misconfigured(problems),
    }
}

/// Exit before the log exists.
fn failed_early(error: &RunError) -> Exit {
    Exit::Failed(format!("api-key-exporter: {}\n", chain(error)))
}

/// Everything that a daemon needs besides its configuration.
struct Daemon<'a> {
    sockets: Sockets,
    signals: Signals,
    logging: &'a Logging,
    unit: Unit,
}

/// The listeners of a daemon, and its web configuration file.
struct Sockets {
    listeners: Vec<Listener>,
    probes: Option<Listener>,
    web_file: Option<Arc<WebFile>>,
}

impl Sockets {
    /// Open files that the probes need.
    fn probe_files(&self) -> usize {
        self.probes
            .as_ref()
            .map_or(0, |_| 1 + PROBE_CONNECTIONS_MAX)
    }
}

impl Daemon<'_> {
    /// Polls and serves until a stop signal arrives or a task fails.
    async fn run(self, config: &Config, load: Load) -> Result<(), RunError> {
        let Self {
            sockets,
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
                sockets.listeners.len() + sockets.probe_files(),
                config.accounts.len(),
            ),
        };
        let mut tasks = tokio::select! {
            tasks = start(config, sockets, parts, &stop) => tasks,
            signal = signals.stop() => {
                info!(signal, "stopped during startup");
                return Ok(());
            }
        };
        notifier.ready();
        let signal = loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => {
                    stop.cancel();
                    return Err(ended.map_or(RunError::TaskPanicked, RunError::TaskEnded));
                }
                request = signals.next() => match request {
                    Request::Reload => reloads.ask(),
                    Request::Stop(signal) => break signal,
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
                    // Clients that do not read, or do not complete a request, are not a failure.
                    warn!("closing the remaining connections: web.shutdown_grace has elapsed");
                }
            }
            signal = signals.stop() => info!(signal, "stopping at once"),
        }
        info!("stopped");
        Ok(())
    }
}

/// Starts everything for a caller without reload and supervisor: a poller for each account and a
/// server for each listener. Logs one line.
pub async fn spawn(
    config: &Config,
    listeners: Vec<TcpListener>,
    stop: &CancellationToken,
) -> Result<JoinSet<&'static str>, RunError> {
    let unchanged = config.clone();
    let (reloads, reloader) = Reloads::new(Arc::new(move || Ok(unchanged.clone())));
    let parts = Parts {
        telemetry: Telemetry::new().map_err(RunError::Telemetry)?,
        reloads,
        reloader,
        unit: Unit::default(),
        connections_max: config.web.max_connections,
    };
    let sockets = Sockets {
        listeners: listeners.into_iter().map(Listener::from).collect(),
        probes: None,
        web_file: open_web_file(config)?,
    };
    Ok(start(config, sockets, parts, stop).await)
}

/// Shared parts of the daemon's tasks.
struct Parts {
    telemetry: Telemetry,
    reloads: Reloads,
    reloader: Reloader,
    unit: Unit,
    connections_max: usize,
}

async fn start(
    config: &Config,
    sockets: Sockets,
    parts: Parts,
    stop: &CancellationToken,
) -> JoinSet<&'static str> {
    let telemetry = parts.telemetry;
    let pollers = Pollers::start(config, telemetry.clone(), clock::now, stop).await;
    let mut tasks = JoinSet::new();
    if let Some(directory) = &pollers.directory {
        let failures = telemetry.state_save_failures.clone();
        let saving = snapshot::save_all(
            directory.clone(),
            pollers.store.clone(),
            failures,
            stop.clone(),
        );
        tasks.spawn(async move {
            saving.await;
            "saver"
        });
    }
    let watching = inventory_watch::run(pollers.store.clone(), stop.clone());
    tasks.spawn(async move {
        watching.await;
        "inventory"
    });
    let trimming = allocator::trim_after_changes(pollers.store.subscribe(), stop.clone());
    tasks.spawn(async move {
        trimming.await;
        "allocator"
    });
    let Sockets {
        listeners,
        probes,
        web_file,
    } = sockets;
    let metrics = urls(&listeners, web_file.as_deref());
    announce(config, &metrics, urls(probes.as_slice(), None).first());
    let own = probes.as_ref().or(listeners.first());
    let own = own.and_then(Listener::address);
    let probe_server = Server {
        store: pollers.store.clone(),
        exposition: ExpositionCache::new(pollers.store.clone()),
        telemetry: telemetry.clone(),
        liveness: pollers.liveness.clone(),
        paths: Paths::of_probes(),
        probes_only: true,
        web_file: None,
        reloads: None,
        places: Arc::new(Semaphore::new(PROBE_CONNECTIONS_MAX)),
        page_places: Arc::new(Semaphore::new(server::PAGES_AT_ONCE)),
        now: clock::now,
    };
    let server = Arc::new(Server {
        store: pollers.store.clone(),
        exposition: ExpositionCache::new(pollers.store.clone()),
        telemetry,
        liveness: pollers.liveness.clone(),
        paths: config.web.paths.clone(),
        probes_only: false,
        web_file,
        reloads: config.web.enable_lifecycle.then_some(parts.reloads),
        places: Arc::new(Semaphore::new(parts.connections_max)),
        page_places: Arc::new(Semaphore::new(server::PAGES_AT_ONCE)),
        now: clock::now,
    });
    let (store, liveness) = (pollers.store.clone(), pollers.liveness.clone());
    let reporting = systemd::report(parts.unit.clone(), store, liveness, own, stop.clone());
    tasks.spawn(async move {
        reporting.await;
        "systemd"
    });
    tasks.spawn(pollers.run(parts.reloader, parts.unit.notifier));
    let probe_server = Arc::new(probe_server);
    let probes = probes.map(|listener| (listener, probe_server));
    let listeners = listeners
        .into_iter()
        .map(|listener| (listener, server.clone()));
    for (listener, server) in listeners.chain(probes) {
        let stop = stop.clone();
        tasks.spawn(async move {
            server.run(listener, stop).await;
            "server"
        });
    }
    tasks
}

fn announce(config: &Config, urls: &[String], probes: Option<&String>) {
    let Paths {
        prefix, telemetry, ..
    } = &config.web.paths;
    let urls: Vec<String> = urls
        .iter()
        .map(|url| format!("{url}{prefix}{telemetry}"))
        .collect();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = env!("API_KEY_EXPORTER_REVISION"),
        metrics = urls.join(" "),
        probes,
        accounts = config.accounts.len(),
        shard = config
            .shard
            .is_one_of_several()
            .then(|| config.shard.to_string()),
        "started"
    );
    for account in &config.accounts {
        info!(
            account = account.name,
            base_url = account.base_url.as_str(),
            token = account.token.describe(),
            interval = humantime::format_duration(account.interval).to_string(),
            "monitoring an account"
        );
    }
    for warning in &config.warnings {
        warn!(warning, "configuration warning");
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
