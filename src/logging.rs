//! Sets up logging: one clean line an event, to stderr, never waiting for whoever reads it.
//!
//! The lines are written here and not by tracing-subscriber's own formats, because those pass line
//! breaks, terminal escapes and bidirectional characters through, and because the one place that
//! writes lines is the one place that can keep secrets out of all of them, the dependencies'
//! included.

use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::SecondsFormat;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat};
use crate::domain::text;

/// Lines that may wait for a slow reader; more are dropped. A line has 2 KiB at most in practice,
/// so this is 2 MiB.
const BUFFERED_LINES_MAX: usize = 1024;

/// What keeps logging going; dropping it writes what still waits.
#[derive(Debug)]
pub struct Logging {
    _worker: WorkerGuard,
    dropped: DroppedLines,
}

/// Counts the lines that were lost.
#[derive(Clone, Debug)]
pub struct DroppedLines {
    /// Those that found no room behind a slow reader.
    unqueued: ErrorCounter,
    /// Those that could not be written.
    unwritten: Arc<AtomicU64>,
}

impl DroppedLines {
    /// How many so far.
    pub fn count(&self) -> u64 {
        self.unqueued.dropped_lines() as u64 + self.unwritten.load(Ordering::Relaxed)
    }
}

/// Counts what cannot be written: to a full disk, or into a pipe that nobody reads any more.
struct Counting<W> {
    output: W,
    unwritten: Arc<AtomicU64>,
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
    /// Starts logging to stderr for the whole process. Panics are logged from here on too, without
    /// their payload's line breaks or secrets.
    pub fn start(log: Log) -> Self {
        let (logging, subscriber) = Self::to(log, io::stderr());
        // A second start, in a test, keeps the first one's subscriber.
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
        let output = Counting {
            output,
            unwritten: unwritten.clone(),
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
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(writer)
            .event_format(Format(log.format))
            // Otherwise a full disk behind stderr would make it print about that, and panic.
            .log_internal_errors(false);
        let own = LevelFilter::from_level(log.level);
        // Dependencies log headers and bytes below WARN; a token is among them.
        let others = own.min(LevelFilter::WARN);
        let filter = Targets::new()
            .with_default(others)
            .with_target("api_key_exporter", own);
        (
            Self {
                _worker: worker,
                dropped,
            },
            tracing_subscriber::registry().with(filter).with(layer),
        )
    }

    /// Counts the lines that are lost.
    pub fn dropped(&self) -> DroppedLines {
        self.dropped.clone()
    }
}

struct Format(LogFormat);

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let time = crate::os::clock::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        writer.write_str(&match self.0 {
            LogFormat::Text => fields.text_line(&time, *level, target),
            LogFormat::Json => fields.json_line(&time, *level, target),
        })
    }
}

/// An event's message and fields, as text; numbers and flags are remembered as such for JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String, IsBare)>,
}

/// Whether JSON writes a value without quotes.
type IsBare = bool;

impl Fields {
    /// `2026-01-01T00:00:00.000Z WARN listing keys failed account=a error="not so"`
    fn text_line(&self, time: &str, level: Level, target: &str) -> String {
        let mut line = format!("{time} {level} {}", visible(&self.message));
        for (name, value, _) in self.with_target(target) {
            let is_plain = !value.is_empty()
                && !value
                    .contains(|c: char| c == '"' || c == '=' || c == '\\' || c.is_whitespace());
            let value = visible(value);
            let written = if is_plain {
                write!(line, " {name}={value}")
            } else {
                write!(line, " {name}={value:?}")
            };
            written.expect("a string takes everything");
        }
        line.push('\n');
        line
    }

    /// `{"time":"…","level":"WARN","msg":"…","account":"a"}`; `msg` as in Prometheus' own logs, which leaves
    /// `message` to the API's.
    fn json_line(&self, time: &str, level: Level, target: &str) -> String {
        let quoted = |text: &str| serde_json::to_string(&visible(text)).unwrap_or_default();
        let message = quoted(&self.message);
        let mut line = format!("{{\"time\":\"{time}\",\"level\":\"{level}\",\"msg\":{message}");
        for (name, value, is_bare) in self.with_target(target) {
            let value = if is_bare {
                value.to_owned()
            } else {
                quoted(value)
            };
            write!(line, ",\"{name}\":{value}").expect("a string takes everything");
        }
        line.push_str("}\n");
        line
    }

    /// The fields; a line from a dependency says which.
    fn with_target<'a>(
        &'a self,
        target: &'a str,
    ) -> impl Iterator<Item = (&'static str, &'a str, IsBare)> {
        let target = (!target.starts_with("api_key_exporter")).then_some(("target", target, false));
        let others = self
            .others
            .iter()
            .map(|(name, value, is_bare)| (*name, value.as_str(), *is_bare));
        target.into_iter().chain(others)
    }

    fn add(&mut self, field: &Field, value: String, is_bare: IsBare) {
        match field.name() {
            "message" => self.message = value,
            // tracing keeps the name `message` for the event's own words.
            "api_message" => self.others.push(("message", value, is_bare)),
            name => self.others.push((name, value, is_bare)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned(), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.to_string(), true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.to_string(), true);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.to_string(), true);
    }
}

/// `text` with secrets blacked out and hidden characters made visible, whoever wrote it.
fn visible(text: &str) -> String {
    text::redact(text)
        .chars()
        .map(|c| {
            if text::is_hidden(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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

    /// What `log` writes at `level`.
    pub(crate) fn logged(format: LogFormat, level: Level, log: impl FnOnce()) -> String {
        let output = Output::default();
        let (logging, subscriber) = Logging::to(Log { level, format }, output.clone());
        tracing::subscriber::with_default(subscriber, log);
        drop(logging);
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_text_line_names_its_fields_and_quotes_where_needed() {
        let line = logged(LogFormat::Text, Level::INFO, || {
            tracing::warn!(
                account = "a",
                error = "not so",
                keys = 3,
                api_message = "m",
                none = None::<u8>,
                "it failed"
            );
        });
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "WARN it failed account=a error=\"not so\" keys=3 message=m\n"
        );
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
    }

    #[test]
    fn a_json_line_is_json_with_both_messages() {
        let line = logged(LogFormat::Json, Level::INFO, || {
            tracing::warn!(account = "a\"b", keys = 3, api_message = "theirs", "ours");
        });
        let mut value: serde_json::Value = serde_json::from_str(&line).unwrap();
        value.as_object_mut().unwrap().remove("time").unwrap();
        let expected = serde_json::json!({
            "level": "WARN", "msg": "ours", "account": "a\"b", "keys": 3, "message": "theirs"
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn fault_f4_no_line_breaks_escapes_or_secrets_come_through() {
        for format in [LogFormat::Text, LogFormat::Json] {
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
    fn fault_f6_dependencies_are_heard_from_warnings_on_only() {
        let lines = logged(LogFormat::Text, Level::TRACE, || {
            tracing::trace!(target: "hyper", "wire");
            tracing::warn!(target: "hyper", "trouble");
            tracing::trace!("ours");
        });
        assert!(!lines.contains("wire"), "{lines}");
        assert!(
            lines.contains("WARN trouble target=hyper") && lines.contains("TRACE ours"),
            "{lines}"
        );
    }
}
