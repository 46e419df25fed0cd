//! Problems of a configuration, in messages that name the option and the valid values. Pure.

use std::fmt;
use std::path::Path;

use crate::domain::text;

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not set by any layer.
    Default,
    /// The file, by name, and the location in it.
    File(String, Place),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, as it is spelled.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name, place) => write!(f, "file {name}:{place}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(spelling) => write!(f, "flag {spelling}"),
        }
    }
}

/// One problem. Never contains a secret: values are redacted, and some are not shown at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem that does not belong to a single option.
    pub fn general(words: String) -> Self {
        Self(words)
    }

    /// A value that cannot be used:
    /// `poll.interval = "1s" (file a.toml:2:12): must be 5s to 24h`.
    pub fn value(path: &str, given: Option<&str>, origin: &Origin, wanted: &str) -> Self {
        let given = given.map(|given| format!(" = {given}")).unwrap_or_default();
        // A default value is not in any file, so its location is omitted.
        let origin = if *origin == Origin::Default {
            String::new()
        } else {
            format!(" ({origin})")
        };
        Self(format!("{path}{given}{origin}: {wanted}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` can be a file path, rather than a URL or a misplaced token, which errors about
/// the file would show.
pub(super) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains("://") && text::redact_url(text) == text
}

/// A path, redacted for output.
pub(super) fn shown_path(path: &Path) -> String {
    text::redact_url(&path.display().to_string())
}

/// The name of an option, a section or a variable, which may be a misplaced value, redacted for
/// output.
pub(super) fn shown_name(name: &str) -> String {
    text::redact_url(&text::label(name))
}

/// A value, redacted for output: without anything that looks like a key, and without user, password
/// and query of a URL.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text::redact_url(text))
}
