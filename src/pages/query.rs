//! The query parameters of the pages: which keys, and how many. Pure.

use std::ops::RangeInclusive;

use url::form_urlencoded;

use crate::domain::key::KeyState;
use crate::domain::text;

/// Longest query, in bytes: every filter at its maximum length, percent-encoded, fits several
/// times.
const QUERY_BYTES_MAX: usize = 4096;

/// Longest parameter value, in characters: that of a label.
const VALUE_CHARS_MAX: usize = 255;

/// Default number of keys or accounts per page.
pub(super) const LIMIT_DEFAULT: usize = 100;

/// Maximum keys on an HTML page, which then has some 700 KiB.
pub(super) const PAGE_LIMIT_MAX: usize = 500;

/// Maximum entries of one JSON document, which is generated chunk by chunk.
pub(super) const JSON_LIMIT_MAX: usize = 10_000;

/// Seconds between two reloads of the status page.
const REFRESH_DEFAULT: u32 = 60;

/// Shorter intervals cause load; longer ones are not a useful refresh.
const REFRESH: RangeInclusive<u32> = 10..=3600;

/// Which keys to show; all of them by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Keys of the account of this name.
    pub account: Option<String>,
    /// Keys of this team.
    pub team: Option<String>,
    /// Keys in this state.
    pub state: Option<StateFilter>,
    /// Keys that contain this lower-case text in a name, a label, an id, a team or a scope.
    pub text: Option<String>,
}

/// The value of `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// A state as `api_key_account_keys` counts it.
    State(KeyState),
    /// Inside the critical threshold.
    Critical,
    /// Needs attention today: expired, critical or unreadable, and neither muted nor superseded.
    Attention,
}

/// The parsed query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which keys.
    pub filter: Filter,
    /// Maximum number of keys.
    pub limit: usize,
    /// Number of keys to skip.
    pub offset: usize,
    /// Seconds until the status page reloads; `None` means never.
    pub refresh: Option<u32>,
}

/// The parameters that a page accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Filters, pages of `PAGE_LIMIT_MAX`, and the refresh; others are ignored.
    StatusPage,
    /// Filters, and pages of `JSON_LIMIT_MAX`.
    Keys,
    /// Paging only.
    Accounts,
    /// Filters only.
    Calendar,
}

/// Why a query is rejected; the message names the parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is too long.
    #[error("the query is longer than {QUERY_BYTES_MAX} bytes")]
    TooLong,
    /// The parameter is unknown.
    #[error("unknown parameter {0:?}; known: {1}")]
    Unknown(String, &'static str),
    /// A parameter is given twice.
    #[error("parameter {0:?} is given more than once")]
    Twice(&'static str),
    /// A value is invalid.
    #[error("parameter {0:?} must be {1}")]
    Value(&'static str, String),
}

impl StateFilter {
    /// Every value, as spelled in the parameter.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let states = KeyState::ALL.map(|state| (state.as_str(), Self::State(state)));
        let others = [("critical", Self::Critical), ("attention", Self::Attention)];
        states.into_iter().chain(others)
    }

    /// The value of the parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State(state) => state.as_str(),
            Self::Critical => "critical",
            Self::Attention => "attention",
        }
    }
}

impl Takes {
    fn names(self) -> &'static str {
        match self {
            Self::StatusPage => "account, team, state, q, limit, offset, refresh",
            Self::Keys => "account, team, state, q, limit, offset",
            Self::Accounts => "limit, offset",
            Self::Calendar => "account, team, state, q",
        }
    }

    fn takes(self, name: &str) -> Option<&'static str> {
        self.names().split(", ").find(|known| *known == name)
    }

    fn limit_max(self) -> usize {
        match self {
            Self::StatusPage => PAGE_LIMIT_MAX,
            Self::Keys | Self::Accounts | Self::Calendar => JSON_LIMIT_MAX,
        }
    }
}

impl Default for Query {
    fn default() -> Self {
        Self {
            filter: Filter::default(),
            limit: LIMIT_DEFAULT,
            offset: 0,
            refresh: Some(REFRESH_DEFAULT),
        }
    }
}

impl Query {
    /// Reads the part after the `?`. An empty value counts as unset, because forms send all fields.
    pub fn parse(text: &str, takes: Takes) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(QueryError::TooLong);
        }
        let mut query = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let Some(name) = takes.takes(&name) else {
                if takes == Takes::StatusPage {
                    continue;
                }
                return Err(QueryError::Unknown(shortened(&name), takes.names()));
            };
            if seen.contains(&name) {
                return Err(QueryError::Twice(name));
            }
            seen.push(name);
            if !value.is_empty() {
                query.set(name, &value, takes)?;
            }
        }
        Ok(query)
    }

    fn set(&mut self, name: &'static str, value: &str, takes: Takes) -> Result<(), QueryError> {
        if value.chars().nth(VALUE_CHARS_MAX).is_some() {
            let words = format!("at most {VALUE_CHARS_MAX} characters long");
            return Err(QueryError::Value(name, words));
        }
        let number = |range: RangeInclusive<usize>| {
            let words = || {
                let (least, most) = (range.start(), range.end());
                QueryError::Value(name, format!("a whole number from {least} to {most}"))
            };
            let number = is_plain_number(value).then(|| value.parse().ok()).flatten();
            number.filter(|it| range.contains(it)).ok_or_else(words)
        };
        match name {
            // Cleaned as the text that they are compared with: the page shows them.
            "account" => self.filter.account = Some(text::label(value)),
            "team" => self.filter.team = Some(text::label(value)),
            "q" => self.filter.text = Some(text::label(value).to_lowercase()),
            "limit" => self.limit = number(1..=takes.limit_max())?,
            // 2^32 - 1: far above any number of keys.
            "offset" => self.offset = number(0..=u32::MAX as usize)?,
            "refresh" => self.refresh = refresh(value)?,
            _ => {
                let known = StateFilter::all().find(|(word, _)| *word == value);
                let words = || {
                    let words: Vec<&str> = StateFilter::all().map(|(word, _)| word).collect();
                    QueryError::Value(name, format!("one of {}", words.join(", ")))
                };
                self.filter.state = Some(known.ok_or_else(words)?.1);
            }
        }
        Ok(())
    }

    /// Formats the part after the `?`, without default values.
    pub fn encode(&self) -> String {
        let Self {
            filter,
            limit,
            offset,
            refresh,
        } = self;
        let default = Self::default();
        let mut query = form_urlencoded::Serializer::new(String::new());
        let state = filter.state.map(StateFilter::as_str);
        for (name, value) in [
            ("account", filter.account.as_deref()),
            ("team", filter.team.as_deref()),
            ("state", state),
            ("q", filter.text.as_deref()),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        for (name, value, usual) in [
            ("limit", *limit, default.limit),
            ("offset", *offset, default.offset),
        ] {
            if value != usual {
                query.append_pair(name, itoa::Buffer::new().format(value));
            }
        }
        if *refresh != default.refresh {
            let seconds = refresh.unwrap_or(0);
            query.append_pair("refresh", itoa::Buffer::new().format(seconds));
        }
        query.finish()
    }

    /// Whether it may leave out keys.
    pub fn is_filtered(&self) -> bool {
        self.filter != Filter::default()
    }

    /// The same without paging.
    #[must_use]
    pub fn filters_only(&self) -> Self {
        Self {
            filter: self.filter.clone(),
            ..Self::default()
        }
    }

    /// The same for all keys.
    #[must_use]
    pub fn without_filter(&self) -> Self {
        Self {
            filter: Filter::default(),
            ..self.clone()
        }
    }

    /// The same, starting from another entry.
    #[must_use]
    pub fn at(&self, offset: usize) -> Self {
        Self {
            offset,
            ..self.clone()
        }
    }
}

fn refresh(value: &str) -> Result<Option<u32>, QueryError> {
    let seconds = is_plain_number(value).then(|| value.parse().ok()).flatten();
    match seconds {
        Some(0) => Ok(None),
        Some(seconds) if REFRESH.contains(&seconds) => Ok(Some(seconds)),
        _ => {
            let (least, most) = (REFRESH.start(), REFRESH.end());
            let words = format!("0, or seconds from {least} to {most}");
            Err(QueryError::Value("refresh", words))
        }
    }
}

/// `parse` accepts a plus sign, which is not documented.
fn is_plain_number(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit())
}

/// A parameter name, shortened for an error message.
fn shortened(name: &str) -> String {
    name.chars().take(50).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, String> {
        Query::parse(text, Takes::Keys).map_err(|error| error.to_string())
    }

    #[test]
    fn every_parameter_is_read_and_written_again() {
        for text in [
            "",
            "account=main&team=a+b%26c&state=never_expires&q=%C3%BC&limit=7&offset=21",
            "state=attention",
        ] {
            assert_eq!(parse(text).unwrap().encode(), text);
        }
        let page = Query::parse("refresh=0&utm_source=x", Takes::StatusPage).unwrap();
        assert_eq!((page.refresh, &*page.encode()), (None, "refresh=0"));
        assert_eq!(
            parse("account=&team=&state=&q=&limit=").unwrap(),
            Query::default()
        );
        for (query, text) in [
            ("q=ABC", "abc"),
            ("q=a%00%1B%5B1m%0Ab", "a\u{fffd}\u{fffd}\u{fffd}b"),
        ] {
            assert_eq!(parse(query).unwrap().filter.text.unwrap(), text);
        }
    }

    #[test]
    fn bad_parameters_are_named() {
        for (text, words) in [
            (
                "stat=expired",
                "unknown parameter \"stat\"; known: account, team, state, q, limit, offset",
            ),
            (
                "state=bad",
                "parameter \"state\" must be one of valid, expiring, expired, never_expires, unknown",
            ),
            (
                "limit=0",
                "parameter \"limit\" must be a whole number from 1 to 10000",
            ),
            (
                "limit=10001",
                "parameter \"limit\" must be a whole number from 1 to 10000",
            ),
            ("limit=+5", "parameter \"limit\" must be"),
            ("limit=%2B5", "parameter \"limit\" must be"),
            (
                "offset=-1",
                "parameter \"offset\" must be a whole number from 0 to 4294967295",
            ),
            (
                "offset=99999999999999999999999",
                "parameter \"offset\" must be",
            ),
            ("q=a&q=b", "parameter \"q\" is given more than once"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(words), "{text}: {error}");
        }
        assert!(parse(&format!("q={}", "a".repeat(255))).is_ok());
        assert!(parse(&format!("q={}", "a".repeat(256))).is_err());
        assert!(
            parse(&"a".repeat(5000))
                .unwrap_err()
                .contains("longer than 4096 bytes")
        );
        for seconds in ["9", "3601", "x", "-1", "+60"] {
            let query = format!("refresh={seconds}");
            assert!(
                Query::parse(&query, Takes::StatusPage).is_err(),
                "{seconds}"
            );
        }
    }
}
