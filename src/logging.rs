//! Sets up logging: one escaped line per event, to stderr, without ever blocking on its reader.

mod line;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{Log, Problem};

/// Lines that may wait for a slow reader; further lines are dropped. A line has at most 2 KiB in
/// practice, so this is 2 MiB.
const BUFFERED_LINES_MAX: usize = 1024;

/// Longest wait at exit until the reason of a failure is written. tracing-appender waits a second,
/// which is too short if other processes take all processor time.
const WRITING_MAX: Duration = Duration::from_secs(10);

/// Keeps logging running; dropping it writes the pending lines.
#[derive(Debug)]
pub struct Logging {
    worker: WorkerGuard,
    /// Disconnected when the worker has written everything.
    written: mpsc::Receiver<()>,
    dropped: DroppedLines,
}

/// Counts lost lines.
#[derive(Clone, Debug)]
pub struct DroppedLines {
    /// Lines dropped because of a slow reader.
    unqueued: ErrorCounter,
    /// Lines that could not be written.
    unwritten: Arc<AtomicU64>,
}

impl DroppedLines {
    /// The number of lost lines so far.
    pub fn count(&self) -> u64 {
        self.unqueued.dropped_lines() as u64 + self.unwritten.load(Ordering::Relaxed)
    }
}

/// Counts failed writes: to a full disk, or into a pipe without a reader.
struct Counting<W> {
    output: W,
    unwritten: Arc<AtomicU64>,
    /// Disconnects when the worker ends and drops it.
    _at_end: mpsc::Sender<()>,
}

impl<W: io::Write> io::Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes);
        if matches!(&written, Err(error) if error.kind() != io::ErrorKind::Interrupted) {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl Logging {
    /// Starts logging to stderr for the whole process. From here on, panics are logged too, with
    /// line breaks and secrets removed from their payload.
    pub fn start(log: Log) -> Self {
        let (logging, subscriber) = Self::to(log, io::stderr());
        // A second start, in a test, keeps the first subscriber.
        drop(tracing::subscriber::set_global_default(subscriber));
        std::panic::set_hook(Box::new(|panic| {
            let payload = panic.payload();
            let words = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let location = panic.location().map(ToString::to_string);
            tracing::error!(location, panic = words, "a task panicked");
        }));
        logging
    }

    /// A subscriber that writes to `output`.
    fn to(
        log: Log,
        output: impl io::Write + Send + 'static,
    ) -> (Self, impl Subscriber + Send + Sync) {
        let unwritten = Arc::new(AtomicU64::new(0));
        let (at_end, written) = mpsc::channel();
        let output = Counting {
            output,
            unwritten: unwritten.clone(),
            _at_end: at_end,
        };
        let (writer, worker): (NonBlocking, _) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(BUFFERED_LINES_MAX)
            .thread_name("log")
            .finish(output);
        let dropped = DroppedLines {
            unqueued: writer.error_counter(),
            unwritten,
        };
        let logging = Self {
            worker,
            written,
            dropped,
        };
        (logging, subscriber(log, writer))
    }

    /// Ends logging and waits until all lines are written, so that the reason of a failure is not
    /// lost. The wait is bounded, because the reader may have stopped reading.
    pub fn finish(self) {
        let Self {
            worker, written, ..
        } = self;
        drop(worker);
        // Nothing is ever sent: the channel closes when the worker ends.
        let _ended = written.recv_timeout(WRITING_MAX);
    }

    /// Counts lost lines.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

/// Logs every problem of an invalid configuration, one per line, and waits until each is written.
/// For use before a [`Logging`] exists.
pub fn problems(log: Log, problems: &[Problem]) {
    tracing::subscriber::with_default(subscriber(log, io::stderr), || {
        for problem in problems {
            let problem = problem.to_string();
            tracing::error!(problem, "invalid configuration");
        }
    });
}

fn subscriber(
    log: Log,
    writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .event_format(line::Format::new(log))
        // Otherwise, with a full disk behind stderr, it would try to print an error, and panic.
        .log_internal_errors(false);
    let own = LevelFilter::from_level(log.level);
    // Dependencies log headers and bytes below WARN, tokens among them.
    let others = own.min(LevelFilter::WARN);
    let filter = Targets::new()
        .with_default(others)
        .with_target("api_key_exporter", own);
    tracing_subscriber::registry().with(filter).with(layer)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use tracing::Level;

    use super::*;
    use crate::config::LogFormat;
    use crate::domain::text;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The output of `log` at `level`.
    pub(crate) fn logged(format: LogFormat, level: Level, log: impl FnOnce()) -> String {
        let settings = Log {
            level,
            format,
            has_priorities: false,
        };
        logged_by(settings, log)
    }

    fn logged_by(settings: Log, log: impl FnOnce()) -> String {
        let output = Output::default();
        let (logging, subscriber) = Logging::to(settings, output.clone());
        tracing::subscriber::with_default(subscriber, log);
        logging.finish();
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_text_line_is_logfmt() {
        let line = logged(LogFormat::Text, Level::INFO, || {
            tracing::warn!(
                account = "a",
                error = "not \"so\" = \\ é\u{301}",
                keys = 3,
                ratio = 0.5,
                empty = "",
                api_message = "m",
                none = None::<u8>,
                "it failed"
            );
            tracing::info!("stopped");
        });
        let lines: Vec<(&str, &str)> = line
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .collect();
        let [(time, first), (_, second)] = lines.as_slice() else {
            panic!("{line}")
        };
        assert_eq!(
            *first,
            "level=WARN msg=\"it failed\" account=a error=\"not \\\"so\\\" = \\\\ é\u{301}\" keys=3 \
             ratio=0.5 empty=\"\" message=m"
        );
        assert_eq!(*second, "level=INFO msg=stopped");
        let time = time.strip_prefix("time=").unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn a_json_line_is_json_with_both_messages_and_bare_numbers() {
        let line = logged(LogFormat::Json, Level::INFO, || {
            tracing::warn!(
                account = "a\"b",
                keys = 3,
                ratio = 0.5,
                odd = f64::NAN,
                big = u128::from(u64::MAX),
                api_message = "theirs",
                "ours"
            );
        });
        let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value.as_object_mut().unwrap().remove("time").unwrap();
        let expected = serde_json::json!({
            "level": "WARN", "msg": "ours", "account": "a\"b", "keys": 3, "ratio": 0.5,
            "odd": "NaN", "big": u64::MAX, "message": "theirs"
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_gcp_line_has_the_fields_that_google_cloud_logging_reads() {
        let line = logged(LogFormat::Gcp, Level::TRACE, || {
            tracing::warn!(account = "a", api_message = "theirs", "ours");
            tracing::error!("e");
            tracing::info!("i");
            tracing::debug!("d");
            tracing::trace!("t");
        });
        let mut lines = line.lines();
        let mut value: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let time = value.as_object_mut().unwrap().remove("time").unwrap();
        assert!(chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).is_ok());
        let expected = serde_json::json!({
            "severity": "WARNING", "message": "ours", "account": "a", "api_message": "theirs"
        });
        assert_eq!(value, expected);
        for severity in ["ERROR", "INFO", "DEBUG", "DEBUG"] {
            let line = lines.next().unwrap();
            assert!(
                line.contains(&format!("\"severity\":\"{severity}\"")),
                "{line}"
            );
        }
    }

    #[test]
    fn a_line_to_the_journal_starts_with_its_priority() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Gcp] {
            let settings = Log {
                level: Level::TRACE,
                format,
                has_priorities: true,
            };
            let lines = logged_by(settings, || {
                tracing::error!("e");
                tracing::warn!("w");
                tracing::info!("i");
                tracing::debug!("d");
                tracing::trace!("t");
            });
            let priorities: Vec<&str> = lines.lines().map(|line| line.get(..3).unwrap()).collect();
            assert_eq!(priorities, ["<3>", "<4>", "<6>", "<7>", "<7>"], "{lines}");
        }
    }

    #[test]
    fn no_line_breaks_escapes_or_secrets_come_through() {
        for format in [LogFormat::Text, LogFormat::Json, LogFormat::Gcp] {
            let line = logged(format, Level::INFO, || {
                tracing::info!(
                    evil = "a\r\nlevel=ERROR \u{1b}[31m\u{9b}\u{202e}\u{2028} sk_live_abc",
                    "hello sk_test_x"
                );
            });
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.trim_end().contains(text::is_hidden), "{line:?}");
            assert!(
                !line.contains("sk_live_abc") && !line.contains("sk_test_x"),
                "{line:?}"
            );
        }
    }

    #[test]
    fn dependencies_are_heard_from_warnings_on_only() {
        let lines = logged(LogFormat::Text, Level::TRACE, || {
            tracing::trace!(target: "hyper", "wire");
            tracing::warn!(target: "hyper", "trouble");
            tracing::trace!("ours");
        });
        assert!(!lines.contains("wire"), "{lines}");
        assert!(
            lines.contains("level=WARN msg=trouble target=hyper")
                && lines.contains("level=TRACE msg=ours"),
            "{lines}"
        );
    }
}
