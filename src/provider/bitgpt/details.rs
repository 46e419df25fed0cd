//! One key's own page: bytes to its details, or to the failure that they tell of. Pure.
//!
//! The page holds the key's secret in full. It is read over like every field that is not asked for,
//! and nothing of it is copied.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Details, KeyId, LastUse};
use crate::domain::text::Line;
use crate::provider::bitgpt::parse::{self, Rules};
use crate::provider::bitgpt::wire::{self, Data, Text};
use crate::provider::time_format::parse_unambiguous;

/// The fields of a JSON object, unread.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Judges one whole answer to the question about `id`. Success takes what it takes for a listing,
/// and `data` an object about that very key. A field that is missing or cannot be read is unknown.
pub fn answer(
    http_status: u16,
    body: &[u8],
    id: &KeyId,
    rules: &Rules<'_>,
    read_at: DateTime<Utc>,
) -> Result<Details, Failure> {
    let body = String::from_utf8_lossy(body);
    let body = body.strip_prefix('\u{feff}').unwrap_or(&body);
    let is_http_success = matches!(http_status, 200..=202);
    let envelope = match wire::read(body, 0, &mut |_| {}) {
        Ok(envelope) => envelope,
        Err(_) if !is_http_success => {
            let nothing = Failure::new(Reason::Internal, "");
            return Err(parse::of_http_status(http_status, nothing));
        }
        Err(error) => {
            return Err(Failure {
                http_status: Some(http_status),
                ..parse::unreadable(&error)
            });
        }
    };
    let told = parse::told(http_status, &envelope, rules.token);
    if !is_http_success {
        return Err(parse::of_http_status(http_status, told));
    }
    let page = || match envelope.data {
        Data::Other => page(body, id),
        Data::Absent => Err("the envelope has no `data`"),
        Data::List | Data::TooLong => Err("`data` is a list"),
    };
    let judged = parse::success(&envelope)
        .and_then(|()| page().map_err(|why| (Reason::Schema, why.to_owned())))
        .and_then(|page| parse::expected_env(&envelope, rules).map(|()| page));
    let page = judged.map_err(|(reason, why)| {
        let error = told.error.clone().or_else(|| Some(Line::clean(&why)));
        Failure {
            reason,
            error,
            ..told
        }
    })?;
    let usage = page.get("metrics").and_then(|metrics| fields(metrics));
    let count = usage.as_ref().and_then(|usage| usage.get("total_requests"));
    Ok(Details {
        label: parse::shown(&text(&page, "label"), rules.token),
        last_use: usage.as_ref().map_or(LastUse::Unknown, last_use),
        requests: count.and_then(|count| count.get().parse().ok()),
        read_at,
    })
}

/// The fields of `data`, where it is about `id`.
fn page<'a>(body: &'a str, id: &KeyId) -> Result<Fields<'a>, &'static str> {
    let envelope: Fields<'_> = serde_json::from_str(body).unwrap_or_default();
    let data = envelope.get("data").and_then(|data| fields(data));
    let page = data.ok_or("`data` is not an object")?;
    if text(&page, "id").as_str() == Some(id.as_str()) {
        Ok(page)
    } else {
        Err("`data` is about another key")
    }
}

fn fields(object: &RawValue) -> Option<Fields<'_>> {
    serde_json::from_str(object.get()).ok()
}

fn text<'a>(fields: &Fields<'a>, name: &str) -> Text<'a> {
    let field = fields.get(name).copied();
    let text = field.map(|field| serde_json::from_str(field.get()).unwrap_or(Text::Other));
    text.unwrap_or_default()
}

/// The documentation has `null` for a key that was never used. A field that is not there says
/// nothing.
fn last_use(usage: &Fields<'_>) -> LastUse {
    match text(usage, "last_used_at") {
        Text::Absent if usage.contains_key("last_used_at") => LastUse::Never,
        Text::Is(moment) => parse_unambiguous(&moment).map_or(LastUse::Unknown, LastUse::At),
        Text::Absent | Text::Other => LastUse::Unknown,
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
            expected_env: Some("production"),
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
            (429, String::new(), Some(RateLimited)),
            (502, "<html>".to_owned(), Some(ServerError)),
            (200, "<html>".to_owned(), Some(NotJson)),
            (200, "[]".to_owned(), Some(Schema)),
            (200, good("null"), Some(Schema)),
            (200, good("[]"), Some(Schema)),
            (200, good("\"k\""), Some(Schema)),
            (200, good("{}"), Some(Schema)),
            (200, good(r#"{"id":"other"}"#), Some(Schema)),
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
