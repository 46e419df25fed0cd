//! `[log]`: what is logged, and how.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::Level;

use crate::config::Sources;
use crate::config::layers;
use crate::config::reader::Section;

/// Set by systemd where stdout or stderr is the journal, to `device:inode` of the socket.
pub(super) const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: Level,
    /// The line format.
    pub format: LogFormat,
    /// Whether a line starts with its syslog priority, `<4>`, which the journal removes.
    pub has_priorities: bool,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and logfmt parsers: `time=… level=WARN msg="…" key=value …`
    Text,
    /// One JSON object per line.
    Json,
    /// One JSON object per line, with the field names of Google Cloud Logging.
    Gcp,
}

impl Log {
    const LEVELS: [(&'static str, Level); 5] = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];

    /// Level names that other programs use.
    const LEVEL_ALIASES: [(&'static str, &'static str); 1] = [("warning", "warn")];

    const FORMATS: [(&'static str, LogFormat); 3] = [
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("gcp", LogFormat::Gcp),
    ];

    pub(super) fn read(section: &mut Section<'_>, sources: &Sources) -> Self {
        let default = if sources.is_terminal { "text" } else { "json" };
        Self {
            level: section.choice_or_alias("level", "info", &Self::LEVELS, &Self::LEVEL_ALIASES),
            format: section.choice("format", default, &Self::FORMATS),
            has_priorities: sources.is_journal,
        }
    }

    /// How to log an invalid configuration: as JSON lines if its readable part requests them,
    /// otherwise as text for people.
    pub fn for_problems(sources: &Sources) -> Option<Self> {
        let text = sources.file.as_deref().map(super::read_file);
        let text = text.and_then(Result::ok).unwrap_or_default();
        // If the file is not TOML, environment and flags remain.
        let merged = layers::merge(&text, sources).or_else(|_| layers::merge("", sources));
        let (mut problems, mut effective) = (Vec::new(), Vec::new());
        let mut root = Section::root(merged.ok()?.values, None, &mut problems, &mut effective);
        // On a terminal the default is text, so JSON is in force only if an option sets it.
        let asked = Sources {
            is_terminal: true,
            is_journal: sources.is_journal,
            ..Sources::default()
        };
        let log = root.section("log", |section| Self::read(section, &asked))?;
        (log.format != LogFormat::Text).then_some(log)
    }
}

/// Whether stderr is the socket that `journal`, a `device:inode`, names: a process with redirected
/// stderr still inherits the variable.
pub(super) fn is_stderr(journal: &str) -> bool {
    let own = || {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().ok()?;
        let metadata = std::fs::File::from(stderr).metadata().ok()?;
        Some(format!("{}:{}", metadata.dev(), metadata.ino()))
    };
    own().is_some_and(|own| own == journal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{load, problems};

    const ACCOUNT: &str = "[[accounts]]\ntoken_env = \"TOKEN\"";

    #[test]
    fn levels_are_accepted_in_any_case_and_warning_for_warn() {
        for (given, expected) in [
            ("warn", Level::WARN),
            ("WARN", Level::WARN),
            ("Warning", Level::WARN),
            ("ERROR", Level::ERROR),
            ("Info", Level::INFO),
            ("dEbUg", Level::DEBUG),
            ("TRACE", Level::TRACE),
        ] {
            let config = load(&format!("log.level = \"{given}\"\n{ACCOUNT}"), &[]).unwrap();
            assert_eq!(config.log.level, expected, "{given}");
        }
        let variables = [("API_KEY_EXPORTER__LOG__FORMAT", "GCP")];
        let config = load(ACCOUNT, &variables).unwrap();
        assert_eq!(config.log.format, LogFormat::Gcp);
        let given = problems(&format!("log.level = \"warnin\"\n{ACCOUNT}"), &[]);
        let expected = "log.level = \"warnin\" (file a.toml): must be one of \"error\", \"warn\", \
            \"info\", \"debug\", \"trace\"; did you mean \"warn\"?";
        assert_eq!(given, [expected]);
    }

    #[test]
    fn stderr_is_recognized_by_device_and_inode() {
        assert!(!is_stderr(""));
        assert!(!is_stderr("0:0"));
        let stderr = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
        let metadata = std::fs::File::from(stderr).metadata().unwrap();
        assert!(is_stderr(&format!("{}:{}", metadata.dev(), metadata.ino())));
    }
}
