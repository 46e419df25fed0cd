//! Renders an event as one line: logfmt, JSON, or JSON for Google Cloud Logging.
//!
//! This module renders the lines itself, because tracing-subscriber's own formats pass line breaks,
//! terminal escapes and bidirectional characters through. Also, a single place that renders lines
//! can remove secrets from all of them, those of dependencies included.

use std::fmt::{self, Write as _};

use chrono::SecondsFormat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat};
use crate::domain::text;

/// Writes events as lines of one format.
pub(super) struct Format {
    format: LogFormat,
    has_priorities: bool,
}

impl Format {
    pub(super) fn new(log: Log) -> Self {
        Self {
            format: log.format,
            has_priorities: log.has_priorities,
        }
    }
}

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
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        if self.has_priorities {
            write!(writer, "<{}>", priority(level))?;
        }
        writer.write_str(&match self.format {
            LogFormat::Text => fields.text_line(&time, level, target),
            LogFormat::Json => {
                let (level, message) = (level.as_str(), fields.message.as_str());
                let first = [("time", &*time), ("level", level), ("msg", message)];
                fields.json_line(&first, target, API_MESSAGE)
            }
            LogFormat::Gcp => {
                let (severity, message) = (severity(level), fields.message.as_str());
                let first = [
                    ("severity", severity),
                    ("time", &*time),
                    ("message", message),
                ];
                fields.json_line(&first, target, "api_message")
            }
        })
    }
}

/// The field for the API's own message where `message` is available: `msg` is ours, as in
/// Prometheus' own logs.
const API_MESSAGE: &str = "message";

/// The priority of syslog(3), which journald reads from the start of a line.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The severity of Google Cloud Logging.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// An event's message and fields as text; numbers and booleans are marked as such for JSON.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String, IsBare)>,
}

/// The event field with the API's message; tracing reserves the name `message` for the event's own.
const API_FIELD: &str = "api_message";

/// Whether JSON writes the value without quotes.
type IsBare = bool;

impl Fields {
    /// `time=2026-01-01T00:00:00.000Z level=WARN msg="listing keys failed" account=a`
    fn text_line(&self, time: &str, level: Level, target: &str) -> String {
        let message = logfmt_value(&self.message);
        let mut line = format!("time={time} level={level} msg={message}");
        for (name, value, _) in self.with_target(target) {
            let name = if name == API_FIELD { API_MESSAGE } else { name };
            write!(line, " {name}={}", logfmt_value(value))
                .expect("writing to a String cannot fail");
        }
        line.push('\n');
        line
    }

    /// One JSON object: the `first` fields, then the event's, with the API's message as
    /// `api_message`.
    fn json_line(&self, first: &[(&str, &str)], target: &str, api_message: &str) -> String {
        let mut line = String::new();
        for (name, value) in first {
            let separator = if line.is_empty() { '{' } else { ',' };
            write!(line, "{separator}\"{name}\":{}", quoted(value))
                .expect("writing to a String cannot fail");
        }
        for (name, value, is_bare) in self.with_target(target) {
            let name = if name == API_FIELD { api_message } else { name };
            let value = if is_bare {
                value.to_owned()
            } else {
                quoted(value)
            };
            write!(line, ",\"{name}\":{value}").expect("writing to a String cannot fail");
        }
        line.push_str("}\n");
        line
    }

    /// The fields; a line from a dependency names the dependency.
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

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.add(field, value.to_string(), true);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.add(field, value.to_string(), true);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        self.add(field, value.to_string(), value.is_finite());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.to_string(), true);
    }
}

/// A value in logfmt: bare if possible, otherwise quoted and escaped as in JSON.
fn logfmt_value(value: &str) -> String {
    let is_special = |c: char| c == '"' || c == '=' || c == '\\' || c.is_whitespace();
    if value.is_empty() || value.contains(is_special) || value.contains(char::is_control) {
        quoted(value)
    } else {
        visible(value)
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(&visible(text)).unwrap_or_default()
}

/// `text` with secrets redacted and hidden characters escaped, whatever its source.
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
