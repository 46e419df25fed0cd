//! The providers of the monitored API keys, and what they have in common: requests and answers.
//!
//! A provider is a value of [`Provider`]; everything outside this module uses only that and its
//! [`Profile`]. `http` makes the requests for all of them, `lister` runs one account's polls.

pub mod bitgpt;
mod connection;
pub mod definitions;
pub mod findings;
pub mod http;
mod json_body;
pub mod json_list;
mod link_header;
pub mod lister;
pub mod paging_hints;
mod pending;
pub mod profile;
pub mod quota;
mod resolver;
pub mod response;
pub mod secret_fields;
pub mod time_format;
pub mod tls;
mod tls_failure;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use chrono::{DateTime, TimeDelta, Utc};
use ring::digest;
use url::Url;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId};
use crate::domain::listing::Listing;
use crate::domain::text::{Line, Secrets};
use crate::domain::token_mark::TokenMark;
use crate::provider::http::{Session, Traffic};
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::Pagination;
use crate::provider::profile::Profile;
use crate::secret::Token;

/// The provider of snapshots that were saved before other providers existed.
pub const SAVED_WITHOUT_PROVIDER: &str = bitgpt::NAME;

/// A provider of API keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// BitGPT, the default.
    #[default]
    BitGpt,
    /// A provider with a definition of how it lists keys as JSON.
    Json(Arc<JsonList>),
}

/// A successful listing, with the metadata of its answer.
#[derive(Debug)]
pub struct Listed {
    /// The keys.
    pub listing: Listing,
    /// The id that the provider's support needs.
    pub support_id: Option<Line>,
}

impl Listed {
    /// Returns the listing, or a failure if it has entries and none of them is usable: an API that
    /// changed its format must not look like an account without keys.
    fn usable(self) -> Result<Self, Failure> {
        if !self.listing.is_unusable() {
            return Ok(self);
        }
        let why = "the list has entries, and none of them can be used";
        Err(Failure {
            support_id: self.support_id,
            ..Failure::new(Reason::Schema, why)
        })
    }
}

/// The result of one attempt.
#[derive(Debug)]
pub struct Answer<T = Listed> {
    /// The requested data, or the failure.
    pub result: Result<T, Failure>,
    /// The API's clock minus the local one, in whole seconds, if the answer has a time.
    pub clock_skew: Option<TimeDelta>,
    /// How long a cache between the API and the exporter has kept the answer. `None` if no cache
    /// reports it.
    pub age: Option<Duration>,
    /// The mark of the token that the request used.
    pub token: Option<TokenMark>,
    /// The requests that were made.
    pub traffic: Traffic,
    /// Whether the attempt was put off instead: the API has paused the host, and nothing was asked.
    pub is_postponed: bool,
}

impl<T> Answer<T> {
    /// The result of an attempt that made no request.
    pub fn failed(failure: Failure) -> Self {
        Self {
            result: Err(failure),
            clock_skew: None,
            age: None,
            token: None,
            traffic: Traffic::default(),
            is_postponed: false,
        }
    }
}

/// The rules for reading an answer.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The exporter's own token: recognised among the keys, and redacted wherever the API repeats
    /// it.
    pub token: &'a Token,
    /// Most keys of a listing.
    pub keys_max: usize,
    /// Most pages of a listing.
    pub pages_max: usize,
    /// The environment that the API must report.
    pub expected_env: Option<&'a str>,
    /// The previous listing.
    pub held: Option<&'a Listing>,
}

impl Provider {
    /// All providers with code of their own.
    pub const NATIVE: [Self; 1] = [Self::BitGpt];

    /// The names of the providers that need no user definition, the default one first.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        let native = [bitgpt::NAME].into_iter();
        native.chain(definitions::BUILT_IN.iter().map(|(name, _)| *name))
    }

    /// The variables that configure an account without a file, as text for messages.
    pub fn environment_variables() -> String {
        let providers = Self::NATIVE.into_iter();
        let variables = providers.filter_map(|provider| provider.profile().environment);
        let named = variables.map(|it| format!("{} or {}", it.token_file, it.token));
        named.collect::<Vec<_>>().join(" or ")
    }

    /// The properties of the provider.
    pub fn profile(&self) -> &Profile {
        match self {
            Self::BitGpt => &bitgpt::PROFILE,
            Self::Json(json_list) => json_list.profile(),
        }
    }

    /// Distinguishes its listing at `base_url` from others of the same provider there: with other
    /// parameters, the keys are different ones. The path and the query may contain secrets, so the
    /// identity contains only a hash of them.
    pub fn identity(&self, base_url: &Url) -> String {
        match self {
            Self::BitGpt => base_url.to_string(),
            Self::Json(json_list) => {
                let base_url = base_url.as_str().trim_end_matches('/');
                let path = digest::digest(&digest::SHA256, json_list.request().path.as_bytes());
                // Eight bytes: enough to tell the listings of one base URL apart.
                let path = path.as_ref().first_chunk().copied().unwrap_or_default();
                format!("{base_url}#{:016x}", u64::from_be_bytes(path))
            }
        }
    }

    /// Whether a listing says when each key was last used.
    pub fn lists_last_use(&self) -> bool {
        match self {
            Self::BitGpt => false,
            Self::Json(json_list) => json_list.definition().facts.last_used_at.is_some(),
        }
    }

    /// How it distributes a listing over several answers.
    pub fn pagination(&self) -> &Pagination {
        match self {
            Self::BitGpt => &Pagination::None,
            Self::Json(json_list) => &json_list.definition().pagination,
        }
    }

    /// The secrets to remove from text about a connection and from headers.
    fn secrets(&self, token: &Token) -> Secrets {
        match self {
            Self::BitGpt => token.secrets(0),
            Self::Json(json_list) => json_list.secrets(token, 0),
        }
    }

    /// Request headers besides those that all providers share.
    fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        match self {
            Self::BitGpt => &[],
            Self::Json(json_list) => &json_list.request().headers,
        }
    }

    /// Lists all keys, in as many requests of `session` as necessary: all of them or none.
    async fn list(&self, session: &mut Session, rules: &Rules<'_>) -> Result<Listed, Failure> {
        let listed = match self {
            Self::BitGpt => bitgpt::list(session, rules).await,
            Self::Json(json_list) => json_list::list(session, json_list, rules).await,
        };
        listed?.usable()
    }

    /// Reads the fields that only a key's own page has.
    async fn details(
        &self,
        session: &mut Session,
        id: &KeyId,
        rules: &Rules<'_>,
        now: fn() -> DateTime<Utc>,
    ) -> Result<Details, Failure> {
        match self {
            Self::BitGpt => bitgpt::details(session, id, rules, now).await,
            Self::Json(_) => {
                let why = "this provider has no details of a key";
                Err(Failure::new(Reason::Internal, why))
            }
        }
    }
}
