//! What is wrong with a configuration, in words that name the thing and what would be right. Pure.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The file, by name.
    File(String),
    /// An environment variable, by name.
    Environment(String),
    /// A flag, as it is spelled.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(spelling) => write!(f, "flag {spelling}"),
        }
    }
}

/// One problem. Never holds a secret: values are cleaned, and some are not shown at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// A problem of no single option.
    pub fn general(words: String) -> Self {
        Self(words)
    }

    /// A value that cannot be used: `poll.interval = "1s" (file a.toml): must be 5s to 24h`.
    pub fn value(path: &str, given: Option<&str>, origin: &Origin, wanted: &str) -> Self {
        let given = given.map(|given| format!(" = {given}")).unwrap_or_default();
        // Nobody wrote a default, so nobody needs to be told where it stands.
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

/// A value as people may see it: what looks like a key, or like the user part of a URL, is blacked
/// out.
pub(super) fn shown(text: &str) -> String {
    let text = crate::domain::text::redact(text);
    let shown = match text
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)))
    {
        Some((scheme, (_, host))) => format!("{scheme}://{}@{host}", crate::domain::text::REDACTED),
        None => text.into_owned(),
    };
    format!("{shown:?}")
}
