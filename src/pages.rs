//! What people read, written from states: the status page, JSON, the calendar, and the answers of
//! the command line. Pure: (states, now, query) in, a document out.

mod calendar;
mod check;
mod chunks;
mod explain;
mod json;
mod nagios;
mod query;
mod rows;
mod status_page;
mod table;
mod timeline;
pub(crate) mod words;

use bytes::Bytes;

pub use crate::pages::check::{Check, Choice, Counts, Status};
pub use crate::pages::chunks::Chunks;
pub use crate::pages::explain::{Origins, explain};
pub use crate::pages::query::{Filter, Query, QueryError, StateFilter, Takes};
pub use crate::pages::rows::{AccountRow, KeyRow, Overview, RowId, Urgency};
pub use crate::pages::status_page::{CONTENT_SECURITY_POLICY, Exporter};
pub use crate::pages::table::{Look, WIDTH_MIN};

/// A document for people, or for their programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// For a browser.
    Status,
    /// The keys as JSON.
    Keys,
    /// The accounts as JSON.
    Accounts,
    /// What both are like.
    OpenApi,
    /// The expiries as a calendar.
    Calendar,
}

/// A page as it is answered.
#[derive(Debug)]
pub struct Document {
    /// Its body.
    pub body: Body,
    /// Its media type.
    pub content_type: &'static str,
    /// What is wrong with the query, where the body says so.
    pub is_refused: bool,
    /// Seconds after which a browser loads it again.
    pub refresh: Option<u32>,
}

/// The bytes of a page.
#[derive(Debug)]
pub enum Body {
    /// All of them.
    Whole(Bytes),
    /// A piece at a time.
    Pieces(Chunks),
}

const JSON: &str = "application/json";
const CALENDAR: &str = "text/calendar; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Page {
    /// Every page.
    pub const ALL: [Self; 5] = [
        Self::Status,
        Self::Keys,
        Self::Accounts,
        Self::OpenApi,
        Self::Calendar,
    ];

    /// Where it is, and what its requests are counted as.
    pub fn path(self) -> &'static str {
        match self {
            Self::Status => "/",
            Self::Keys => "/api/v1/keys",
            Self::Accounts => "/api/v1/accounts",
            Self::OpenApi => "/api/v1/openapi.json",
            Self::Calendar => "/calendar.ics",
        }
    }

    /// The page at this path.
    pub fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|page| page.path() == path)
    }

    /// The page for `query`, the text after the `?`.
    pub fn render(self, overview: Overview, exporter: &Exporter, query: &str) -> Document {
        let takes = match self {
            Self::Status => Takes::StatusPage,
            Self::Keys => Takes::Keys,
            Self::Accounts => Takes::Accounts,
            Self::Calendar => Takes::Calendar,
            Self::OpenApi => return Document::new(JSON, json::OPENAPI.into()),
        };
        let query = match Query::parse(query, takes) {
            Ok(query) => query,
            Err(error) => return self.refusal(&error),
        };
        match self {
            Self::Status => Document {
                refresh: query.refresh,
                ..Document::new(HTML, status_page::page(&overview, exporter, &query).into())
            },
            Self::Keys => Document::in_pieces(JSON, json::keys(overview, &query)),
            Self::Accounts => Document::in_pieces(JSON, json::accounts(overview, &query)),
            Self::OpenApi => Document::new(JSON, json::OPENAPI.into()),
            Self::Calendar => Document::in_pieces(CALENDAR, calendar::calendar(overview, &query)),
        }
    }

    fn refusal(self, error: &QueryError) -> Document {
        let words = error.to_string();
        let document = match self {
            Self::Status | Self::Calendar => Document::new(PLAIN, format!("{words}\n").into()),
            Self::Keys | Self::Accounts | Self::OpenApi => {
                Document::new(JSON, json::error(&words).into())
            }
        };
        Document {
            is_refused: true,
            ..document
        }
    }
}

impl Check<'_> {
    /// The table for people; `is_as_of` mentions the moment as of which keys are judged.
    pub fn table(&self, is_as_of: bool, look: Look) -> String {
        table::table(self, is_as_of, look)
    }

    /// The line for monitoring systems that run plugins.
    pub fn nagios(&self) -> String {
        nagios::line(self)
    }
}

/// The line for monitoring systems that run plugins, if no key could be checked.
pub fn nagios_unknown(words: &str) -> String {
    nagios::unknown(words)
}

impl Document {
    fn new(content_type: &'static str, body: Bytes) -> Self {
        Self {
            body: Body::Whole(body),
            content_type,
            is_refused: false,
            refresh: None,
        }
    }

    fn in_pieces(content_type: &'static str, pieces: Chunks) -> Self {
        Self {
            body: Body::Pieces(pieces),
            ..Self::new(content_type, Bytes::new())
        }
    }
}
