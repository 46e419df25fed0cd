//! The exporter's metrics about itself: direct instrumentation, in a `prometheus` registry.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use chrono::{DateTime, Utc};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::domain::shard::Shard;
use crate::logging::DroppedLines;
use crate::os::process_metrics;

/// The registry and the handles into it.
#[derive(Clone, Debug)]
pub struct Telemetry {
    registry: Registry,
    /// The last sample of the process metrics.
    process: Arc<Mutex<ProcessReading>>,
    http_requests: IntCounterVec,
    /// Connections open now.
    pub http_connections: IntGauge,
    http_rejected: IntCounterVec,
    /// Snapshots that could not be saved.
    pub state_save_failures: IntCounter,
    task_panics: IntCounterVec,
    config_reload_successful: IntGauge,
    config_reload_success_at: Gauge,
    shard_info: IntGaugeVec,
    log: Arc<OnceLock<DroppedLines>>,
}

/// Tasks that are restarted or isolated when they panic. The words are label values.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Polls one account.
    Poller,
    /// Serves one connection.
    Connection,
}

impl Task {
    const ALL: [Self; 2] = [Self::Poller, Self::Connection];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poller => "poller",
            Self::Connection => "connection",
        }
    }
}

/// Counts a panic of the code that holds it.
#[derive(Debug)]
pub struct PanicGuard(IntCounter);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.inc();
        }
    }
}

/// The second of the sample, and its content.
type ProcessReading = Option<(i64, Vec<MetricFamily>)>;

/// Why a connection is rejected. The words are label values.
#[derive(Clone, Copy, Debug)]
pub enum Rejected {
    /// The connection limit is reached: `web.max_connections`, or what the open-file limit allows.
    ConnLimit,
    /// Accept failed: too many open files, or no memory. Each failure counts; the connection may
    /// wait and be accepted later.
    AcceptFailed,
    /// Its TLS handshake failed: no common version, no accepted client certificate, or too slow.
    TlsHandshake,
}

impl Rejected {
    const ALL: [Self; 3] = [Self::ConnLimit, Self::AcceptFailed, Self::TlsHandshake];

    fn as_str(self) -> &'static str {
        match self {
            Self::ConnLimit => "conn_limit",
            Self::AcceptFailed => "accept_failed",
            Self::TlsHandshake => "tls_handshake",
        }
    }
}

impl Telemetry {
    /// A separate registry, so that two exporters in one process (as in tests) do not interfere.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build_info = Opts::new(
            "api_key_exporter_build_info",
            "Describes the running program; always 1.",
        )
        .const_label("version", env!("CARGO_PKG_VERSION"))
        .const_label("revision", env!("API_KEY_EXPORTER_REVISION"))
        .const_label("rustc", env!("API_KEY_EXPORTER_RUSTC"));
        let build_info = IntGauge::with_opts(build_info)?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;
        let http_requests = IntCounterVec::new(
            Opts::new(
                "api_key_exporter_http_requests_total",
                "HTTP requests answered, by handler and status code.",
            ),
            &["handler", "code"],
        )?;
        registry.register(Box::new(http_requests.clone()))?;
        let http_connections = IntGauge::new(
            "api_key_exporter_http_connections",
            "HTTP connections open at the moment.",
        )?;
        registry.register(Box::new(http_connections.clone()))?;
        let http_rejected = IntCounterVec::new(
            Opts::new(
                "api_key_exporter_http_rejected_total",
                "HTTP connections turned away, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(http_rejected.clone()))?;
        for reason in Rejected::ALL {
            http_rejected
                .with_label_values(&[reason.as_str()])
                .inc_by(0);
        }
        let process = Arc::default();
        let state_save_failures = IntCounter::new(
            "api_key_exporter_state_save_failures_total",
            "Snapshots of an account's keys that could not be saved.",
        )?;
        registry.register(Box::new(state_save_failures.clone()))?;
        let task_panics = IntCounterVec::new(
            Opts::new(
                "api_key_exporter_task_panics_total",
                "Panics, by task; the task is restarted.",
            ),
            &["task"],
        )?;
        registry.register(Box::new(task_panics.clone()))?;
        for task in Task::ALL {
            task_panics.with_label_values(&[task.as_str()]).inc_by(0);
        }
        let config_reload_successful = IntGauge::new(
            "api_key_exporter_config_last_reload_successful",
            "Whether the last attempt to load the configuration succeeded.",
        )?;
        registry.register(Box::new(config_reload_successful.clone()))?;
        let config_reload_success_at = Gauge::new(
            "api_key_exporter_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was loaded.",
        )?;
        registry.register(Box::new(config_reload_success_at.clone()))?;
        let shard_info = IntGaugeVec::new(
            Opts::new(
                "api_key_exporter_shard_info",
                "Index of this exporter among those that share the accounts, and their number; \
                 always 1.",
            ),
            &["index", "total"],
        )?;
        registry.register(Box::new(shard_info.clone()))?;
        let log = Arc::new(OnceLock::new());
        registry.register(Box::new(LogCollector::new(log.clone())?))?;
        Ok(Self {
            registry,
            process,
            http_requests,
            http_connections,
            http_rejected,
            state_save_failures,
            task_panics,
            config_reload_successful,
            config_reload_success_at,
            shard_info,
            log,
        })
    }

    /// Exposes the number of lost log lines. The first log is the process's.
    pub fn watch_log(&self, dropped: DroppedLines) {
        drop(self.log.set(dropped));
    }

    /// The counter of panics of `task`.
    pub fn panics(&self, task: Task) -> IntCounter {
        self.task_panics.with_label_values(&[task.as_str()])
    }

    /// Returns a guard that counts a panic of `task` while it is held.
    pub fn panic_guard(&self, task: Task) -> PanicGuard {
        PanicGuard(self.panics(task))
    }

    /// A configuration is in force since `now`.
    pub fn config_loaded(&self, now: DateTime<Utc>) {
        self.config_reload_successful.set(1);
        // Exact to the millisecond for 285,000 years.
        self.config_reload_success_at
            .set(now.timestamp_millis() as f64 / 1000.0);
    }

    /// Exposes which shard this exporter is, if it is one of several.
    pub fn set_shard(&self, shard: Shard) {
        self.shard_info.reset();
        if shard.is_one_of_several() {
            let [index, total] = [shard.index(), shard.total()].map(|number| number.to_string());
            self.shard_info.with_label_values(&[index, total]).set(1);
        }
    }

    /// Whether the last reload of the configuration succeeded.
    pub fn is_config_current(&self) -> bool {
        self.config_reload_successful.get() != 0
    }

    /// A configuration could not be loaded.
    pub fn config_refused(&self) {
        self.config_reload_successful.set(0);
    }

    /// Counts a response. `handler` is one of a few fixed words, never the requested path.
    pub fn count_request(&self, handler: &str, code: u16) {
        self.http_requests
            .with_label_values(&[handler, itoa::Buffer::new().format(code)])
            .inc();
    }

    /// Counts connections rejected for `reason`.
    pub fn http_rejected(&self, reason: Rejected) -> IntCounter {
        self.http_rejected.with_label_values(&[reason.as_str()])
    }

    /// Renders all metrics. The process metrics are sampled at most once a second: they cost more
    /// than the rest of the scrape.
    pub fn gather(&self, now: DateTime<Utc>) -> Vec<MetricFamily> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if process
            .as_ref()
            .is_none_or(|(second, _)| *second != now.timestamp())
        {
            *process = Some((now.timestamp(), process_metrics::families()));
        }
        let process = process
            .iter()
            .flat_map(|(_, families)| families.iter().cloned());
        self.registry.gather().into_iter().chain(process).collect()
    }
}

/// Exposes a counter that the log maintains.
struct LogCollector {
    /// At 0; the exposed value is a copy.
    empty: IntCounter,
    log: Arc<OnceLock<DroppedLines>>,
}

impl LogCollector {
    const NAME: &str = "api_key_exporter_log_lines_dropped_total";
    const HELP: &str = "Log lines dropped because the reader was too slow or the disk was full.";

    fn new(log: Arc<OnceLock<DroppedLines>>) -> Result<Self, prometheus::Error> {
        let empty = IntCounter::new(Self::NAME, Self::HELP)?;
        Ok(Self { empty, log })
    }
}

impl Collector for LogCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.empty.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(counter) = IntCounter::new(Self::NAME, Self::HELP) else {
            return Vec::new();
        };
        counter.inc_by(self.log.get().map_or(0, DroppedLines::count));
        counter.collect()
    }
}
