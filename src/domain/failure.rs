//! Why a poll failed: a closed set of reasons for metrics, and details for people.

use std::time::Duration;

use crate::domain::text::Line;

/// The reason of a failed poll. The words are label values and part of the metrics contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The API's name could not be resolved.
    Dns,
    /// No connection, or it was closed before a response.
    Connect,
    /// No TLS session: an untrusted, expired or wrong certificate, or no common version.
    Tls,
    /// No complete response in time.
    Timeout,
    /// HTTP 3xx; redirects are never followed.
    Redirect,
    /// HTTP 401.
    Unauthorized,
    /// HTTP 403.
    Forbidden,
    /// HTTP 429.
    RateLimited,
    /// HTTP 4xx in a form that the provider's API does not use: an intermediary responded.
    Gateway,
    /// Any other HTTP 4xx.
    ClientError,
    /// HTTP 5xx and beyond.
    ServerError,
    /// The response is one page of several, and the others could not be read.
    Incomplete,
    /// More bytes than `poll.max_body_bytes`.
    BodyTooLarge,
    /// The connection ended in the middle of the body.
    BodyTruncated,
    /// The body is not JSON.
    NotJson,
    /// JSON, but not a listing.
    Schema,
    /// The HTTP status reports success and the envelope an error.
    ApiError,
    /// More keys than `poll.max_keys`.
    TooManyKeys,
    /// The environment of the API is not the one that the account expects.
    EnvironmentMismatch,
    /// The token could not be read.
    Credential,
    /// A bug in the exporter.
    Internal,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = 21;

    /// Every reason, in the order of the metric.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Redirect,
        Self::Unauthorized,
        Self::Forbidden,
        Self::RateLimited,
        Self::Gateway,
        Self::ClientError,
        Self::ServerError,
        Self::Incomplete,
        Self::BodyTooLarge,
        Self::BodyTruncated,
        Self::NotJson,
        Self::Schema,
        Self::ApiError,
        Self::TooManyKeys,
        Self::EnvironmentMismatch,
        Self::Credential,
        Self::Internal,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Redirect => "redirect",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate_limited",
            Self::Gateway => "gateway",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Incomplete => "incomplete",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTruncated => "body_truncated",
            Self::NotJson => "not_json",
            Self::Schema => "schema",
            Self::ApiError => "api_error",
            Self::TooManyKeys => "too_many_keys",
            Self::EnvironmentMismatch => "environment_mismatch",
            Self::Credential => "credential",
            Self::Internal => "internal",
        }
    }

    /// The reason for an unsuccessful HTTP status with a response that is not in the form of the
    /// provider's API: a proxy, firewall or content delivery network may have sent it.
    pub fn of_foreign_status(status: u16) -> Self {
        match status {
            // These mean the same from any sender.
            408 | 429 => Self::of_status(status),
            400..=499 => Self::Gateway,
            _ => Self::of_status(status),
        }
    }

    /// The reason for an unsuccessful HTTP status from the provider's API itself.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            429 => Self::RateLimited,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            // 1xx and successes without a listing (204, 206) are responses of another form.
            ..300 => Self::Schema,
            500.. => Self::ServerError,
        }
    }
}

/// A failed attempt or poll: the reason, and the API's message for people and for its support.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// The HTTP status, if there was a response.
    pub http_status: Option<u16>,
    /// The error message: the API's own, else the exporter's.
    pub error: Option<Line>,
    /// The id of the request or case that the provider's support asks for.
    pub support_id: Option<Line>,
    /// Other details, keyed by log field name: those from the API, and the `url` of the request
    /// without user and query.
    pub lines: Vec<(&'static str, Line)>,
    /// How long the API asks to wait, before any limit of ours applies.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with a reason and a fixed message.
    pub fn new(reason: Reason, error: &'static str) -> Self {
        Self {
            error: (!error.is_empty()).then(|| Line::own(error)),
            ..Self::because(reason, Line::own(error))
        }
    }

    /// A failure with a reason and a message that contains values.
    pub fn because(reason: Reason, error: Line) -> Self {
        Self {
            reason,
            http_status: None,
            error: Some(error),
            support_id: None,
            lines: Vec::new(),
            retry_after: None,
        }
    }

    /// The status as a number, if there is one.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.line(name)?.parse().ok()
    }

    /// The API's value for this log field.
    pub fn line(&self, name: &str) -> Option<&str> {
        let line = self.lines.iter().find(|(known, _)| *known == name);
        line.map(|(_, line)| line.as_str())
    }

    /// Whether the failure is transient: the same request may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self.reason {
            Reason::Dns
            | Reason::Connect
            | Reason::Timeout
            | Reason::BodyTruncated
            | Reason::RateLimited
            | Reason::Gateway => true,
            // 520 to 530 are sent by a content delivery network that did not reach the API.
            Reason::ServerError => {
                matches!(self.http_status, Some(500 | 502 | 503 | 504 | 520..=530))
            }
            Reason::ClientError => self.http_status == Some(408),
            Reason::Tls
            | Reason::Redirect
            | Reason::Unauthorized
            | Reason::Forbidden
            | Reason::Incomplete
            | Reason::BodyTooLarge
            | Reason::NotJson
            | Reason::Schema
            | Reason::ApiError
            | Reason::TooManyKeys
            | Reason::EnvironmentMismatch
            | Reason::Credential
            | Reason::Internal => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_they_are_listed() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
    }

    #[test]
    fn each_status_has_its_reason_and_only_passing_troubles_are_tried_again() {
        let cases = [
            (204, Reason::Schema, false),
            (206, Reason::Schema, false),
            (302, Reason::Redirect, false),
            (400, Reason::ClientError, false),
            (401, Reason::Unauthorized, false),
            (403, Reason::Forbidden, false),
            (404, Reason::ClientError, false),
            (408, Reason::ClientError, true),
            (429, Reason::RateLimited, true),
            (500, Reason::ServerError, true),
            (501, Reason::ServerError, false),
            (502, Reason::ServerError, true),
            (503, Reason::ServerError, true),
            (504, Reason::ServerError, true),
            (519, Reason::ServerError, false),
            (520, Reason::ServerError, true),
            (530, Reason::ServerError, true),
            (531, Reason::ServerError, false),
            (999, Reason::ServerError, false),
        ];
        for (status, reason, is_transient) in cases {
            let failure = Failure {
                http_status: Some(status),
                ..Failure::new(Reason::of_status(status), "")
            };
            assert_eq!(
                (failure.reason, failure.is_transient()),
                (reason, is_transient),
                "{status}"
            );
        }
    }

    #[test]
    fn a_foreign_4xx_is_of_a_gateway_and_tried_again() {
        for (status, reason, is_transient) in [
            (302, Reason::Redirect, false),
            (400, Reason::Gateway, true),
            (401, Reason::Gateway, true),
            (403, Reason::Gateway, true),
            (404, Reason::Gateway, true),
            (408, Reason::ClientError, true),
            (429, Reason::RateLimited, true),
            (451, Reason::Gateway, true),
            (499, Reason::Gateway, true),
            (501, Reason::ServerError, false),
            (503, Reason::ServerError, true),
        ] {
            let failure = Failure {
                http_status: Some(status),
                ..Failure::new(Reason::of_foreign_status(status), "")
            };
            let found = (failure.reason, failure.is_transient());
            assert_eq!(found, (reason, is_transient), "{status}");
        }
    }
}
