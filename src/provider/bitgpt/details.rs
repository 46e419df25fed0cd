//! The page of one key: parses bytes into its details or a failure. Pure.
//!
//! The page is an entry as in the listing, with more fields. It contains the key's full secret,
//! which is skipped and never copied.

use chrono::{DateTime, Utc};

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId, LastUse};
use crate::domain::text::{Cleaner, Line};
use crate::provider::Rules;
use crate::provider::bitgpt::parse;
use crate::provider::bitgpt::wire::{self, Data, Entry, Text, Usage};
use crate::provider::json_body;
use crate::provider::response::is_success;
use crate::provider::time_format::parse_unambiguous;

/// Evaluates one whole answer to the request for `id`. Success requires the same as for a listing,
/// and an object in `data` with that id. A field that is missing or unreadable is unknown.
pub fn answer(
    http_status: u16,
    body: &[u8],
    id: &KeyId,
    rules: &Rules<'_>,
    read_at: DateTime<Utc>,
) -> Result<Details, Failure> {
    let body = &json_body::text(body);
    let is_http_success = is_success(http_status);
    let mut page = Entry::default();
    // The limit of 0 entries rejects lists, so the page is the only entry.
    let envelope = match wire::read(body, 0, &mut |entry| page = entry) {
        Ok(envelope) => envelope,
        Err(_) if !is_http_success => return Err(parse::no_envelope(http_status)),
        Err(error) => {
            return Err(Failure {
                http_status: Some(http_status),
                ..json_body::unreadable(&error)
            });
        }
    };
    let mut secrets = parse::secrets(body, rules.token);
    secrets.add(page.secret.as_str().unwrap_or_default());
    let cleaner = Cleaner::new(secrets);
    let failure = parse::as_failure(http_status, &envelope, &cleaner);
    if !is_http_success {
        return Err(parse::of_http_status(&envelope, failure));
    }
    let is_page = || match envelope.data {
        Data::Object if page.is_misshapen => Err("a field of `data` occurs twice"),
        Data::Object if page.id.as_str() != Some(id.as_str()) => Err("`data` is about another key"),
        Data::Object => Ok(()),
        Data::Absent => Err("the envelope has no `data`"),
        Data::List | Data::TooLong => Err("`data` is a list"),
        Data::Other => Err("`data` is not an object"),
    };
    let judged = parse::success(&envelope)
        .and_then(|()| is_page().map_err(|why| (Reason::Schema, why.to_owned())))
        .and_then(|()| parse::expected_env(&envelope, rules, &cleaner));
    judged.map_err(|(reason, why)| {
        let error = failure.error.clone().or_else(|| Some(Line::own(&why)));
        Failure {
            reason,
            error,
            ..failure
        }
    })?;
    Ok(Details {
        label: parse::label(&page.label, &cleaner),
        last_use: last_use(&page.usage),
        requests: page.usage.total_requests,
        read_at,
    })
}

/// The documentation has `null` for a key that was never used. A missing field means unknown.
fn last_use(usage: &Usage<'_>) -> LastUse {
    match &usage.last_used_at {
        Some(Text::Absent) => LastUse::Never,
        Some(Text::Is(moment)) => parse_unambiguous(moment).map_or(LastUse::Unknown, LastUse::At),
        Some(Text::Other) | None => LastUse::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::tests::at;
    use crate::secret::Token;

    const SECRET: &str = "sk_live_RlVMTC1TRUNSRVQtb2YtYS1rZXk.qWeRt";

    fn judge(http_status: u16, body: &str) -> Result<Details, Failure> {
        let token = Token::parse(b"sk_live_b3duLWtleQ.abcde", "test").unwrap();
        let rules = Rules {
            token: &token,
            keys_max: 1,
            pages_max: 200,
            expected_env: Some("production"),
            held: None,
        };
        let id = KeyId::parse("k").unwrap();
        answer(http_status, body.as_bytes(), &id, &rules, at(7))
    }

    fn good(data: &str) -> String {
        format!(
            r#"{{"status":200,"data":{data},"error":null,"support_id":"support_1","env":"production"}}"#
        )
    }

    #[test]
    fn the_documented_page_is_read_without_its_secret() {
        let data = format!(
            r#"{{"id":"k","organization_id":"org_1","label":"checkout","description":null,
                "secret":"{SECRET}","scopes":["payments.read"],"expires_at":null,
                "metrics":{{"api_key_id":"k","total_requests":1250,"last_used_at":"2025-07-01 09:15:30"}}}}"#
        );
        let details = judge(200, &good(&data)).unwrap();
        let expected = Details {
            label: Some("checkout".into()),
            last_use: LastUse::At(parse_unambiguous("2025-07-01 09:15:30").unwrap()),
            requests: Some(1250),
            read_at: at(7),
        };
        assert_eq!(details, expected);
    }

    #[test]
    fn what_is_missing_or_odd_is_unknown_and_only_null_is_never() {
        for (metrics, last_use, requests) in [
            (
                r#"{"last_used_at":null,"total_requests":0}"#,
                LastUse::Never,
                Some(0),
            ),
            (r#"{"last_used_at":"yesterday"}"#, LastUse::Unknown, None),
            (
                r#"{"last_used_at":7,"total_requests":-1}"#,
                LastUse::Unknown,
                None,
            ),
            (r#"{"total_requests":1.5}"#, LastUse::Unknown, None),
            (r#"{"total_requests":"12"}"#, LastUse::Unknown, None),
            ("{}", LastUse::Unknown, None),
            ("null", LastUse::Unknown, None),
            ("[1]", LastUse::Unknown, None),
        ] {
            let data = format!(r#"{{"id":"k","label":"","metrics":{metrics}}}"#);
            let details = judge(200, &good(&data)).unwrap();
            assert_eq!(details.label, None);
            assert_eq!(
                (details.last_use, details.requests),
                (last_use, requests),
                "{metrics}"
            );
        }
    }

    #[test]
    fn success_takes_everything_to_agree() {
        use Reason::*;
        let page = good(r#"{"id":"k"}"#);
        let cases = [
            (200, page.clone(), None),
            (200, format!("\u{feff}{page}"), None),
            (403, page.clone(), Some(Forbidden)),
            (404, page.clone(), Some(ClientError)),
            (404, "<html>".to_owned(), Some(Gateway)),
            (403, r#"{"message":"Forbidden"}"#.to_owned(), Some(Gateway)),
            (429, String::new(), Some(RateLimited)),
            (502, "<html>".to_owned(), Some(ServerError)),
            (200, "<html>".to_owned(), Some(NotJson)),
            (200, "[]".to_owned(), Some(Schema)),
            (200, good("null"), Some(Schema)),
            (200, good("[]"), Some(Schema)),
            (200, good("\"k\""), Some(Schema)),
            (200, good("{}"), Some(Schema)),
            (200, good(r#"{"id":"other"}"#), Some(Schema)),
            (200, good(r#"{"id":"k","id":"k"}"#), Some(Schema)),
            (200, good(r#"{"id":7}"#), Some(Schema)),
            (
                200,
                page.replace("\"error\":null", "\"error\":\"no\""),
                Some(ApiError),
            ),
            (
                200,
                page.replace("\"status\":200", "\"status\":500"),
                Some(ApiError),
            ),
            (
                200,
                page.replace("production", "development"),
                Some(EnvironmentMismatch),
            ),
        ];
        for (http_status, body, expected) in cases {
            let reason = judge(http_status, &body)
                .err()
                .map(|failure| failure.reason);
            assert_eq!(reason, expected, "HTTP {http_status}: {body}");
        }
        let failure = judge(200, &good("{}")).unwrap_err();
        let support_id = failure.support_id.as_ref().map(Line::as_str);
        assert_eq!(support_id, Some("support_1"));
    }

    #[test]
    fn no_secret_is_kept_wherever_it_stands() {
        let data = format!(
            r#"{{"id":"k","secret":"{SECRET}","label":"{SECRET}","{SECRET}":"{SECRET}",
                "metrics":{{"last_used_at":"{SECRET}","total_requests":"{SECRET}"}}}}"#
        );
        let details = format!("{:?}", judge(200, &good(&data)).unwrap());
        let failure = good(&data).replace("\"error\":null", &format!("\"error\":\"{SECRET}\""));
        let failure = format!("{:?}", judge(200, &failure).unwrap_err());
        let misplaced = format!(
            "{:?}",
            judge(200, &good(&format!("\"{SECRET}\""))).unwrap_err()
        );
        for shown in [details, failure, misplaced] {
            assert!(
                !shown.contains("RlVMTC1") && !shown.contains("qWeRt"),
                "{shown}"
            );
        }
    }
}
