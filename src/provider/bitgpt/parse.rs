//! Parses the bytes of one answer into a listing or a failure. Pure.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::domain::allow_list::AllowList;
use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Expiry, Field, Fields, Key, KeyId, Scopes};
use crate::domain::listing::{Listing, Reject, Rejects};
use crate::domain::text::{Cleaner, Label, Line, Secrets, json_words};
use crate::provider::bitgpt::wire::{self, Data, Entry, Envelope, Text, Texts};
use crate::provider::bitgpt::{PROFILE, observe};
use crate::provider::findings::{Findings, SharedFindings};
use crate::provider::json_body;
use crate::provider::response::{foreign, is_success, seconds, status_words};
use crate::provider::secret_fields;
use crate::provider::time_format::parse_unambiguous;
use crate::provider::{Listed, Rules};
use crate::secret::Token;

/// Evaluates one whole answer. Success requires all of: HTTP 200, 201 or 202; a JSON object; an
/// envelope `status` of 2xx; `error` null; in `data`, a list within the limit; the expected
/// environment. Bytes that are not UTF-8 make only their own field unreadable, not the listing.
pub fn answer(http_status: u16, body: &[u8], rules: &Rules<'_>) -> Result<Listed, Failure> {
    answer_observed(http_status, body, rules, None)
}

/// As [`answer`]; if `findings` are wanted, adds what was found in the answer.
pub(super) fn answer_observed(
    http_status: u16,
    body: &[u8],
    rules: &Rules<'_>,
    findings: Option<&SharedFindings>,
) -> Result<Listed, Failure> {
    let mut found = findings.map(|_| observe::start());
    let listed = read(http_status, &json_body::text(body), rules, found.as_mut());
    if let Some((shared, found)) = findings.zip(found) {
        shared.restart();
        shared.add(found);
        shared.count_page(false);
    }
    listed
}

/// The token, and the secrets of an answer.
pub(super) fn secrets(body: &str, token: &Token) -> Secrets {
    let mut secrets = token.secrets(body.len());
    let is_secret = |name: &str| name.eq_ignore_ascii_case("secret");
    secret_fields::find(body, is_secret, &mut |secret| secrets.add(secret));
    secrets
}

fn read(
    http_status: u16,
    body: &str,
    rules: &Rules<'_>,
    mut findings: Option<&mut Findings>,
) -> Result<Listed, Failure> {
    let cleaner = &Cleaner::new(secrets(body, rules.token));
    let is_http_success = is_success(http_status);
    if let Some(findings) = &mut findings {
        observe::structure(body, is_http_success, cleaner, findings);
    }
    let mut keys = Vec::new();
    let mut rejects = Rejects::default();
    let mut rejected_ids = Vec::new();
    let mut collect = |entry: Entry<'_>| {
        // Entries of an error answer are not used for anything else.
        if !is_http_success {
            return;
        }
        let key = key(&entry, rules.token, cleaner);
        if let Some(findings) = &mut findings {
            observe::entry(&entry, &key, findings);
        }
        match key {
            Ok(key) => keys.push(key),
            Err(reject) => {
                rejects.add(reject);
                rejected_ids.extend(id(&entry, cleaner));
            }
        }
    };
    let envelope = match wire::read(body, rules.keys_max, &mut collect) {
        Ok(envelope) => envelope,
        Err(_) if !is_http_success => return Err(no_envelope(http_status)),
        Err(error) => {
            return Err(Failure {
                http_status: Some(http_status),
                ..json_body::unreadable(&error)
            });
        }
    };
    let as_failure = as_failure(http_status, &envelope, cleaner);
    if !is_http_success {
        return Err(of_http_status(&envelope, as_failure));
    }
    let entries = keys.len() + rejects.total() as usize;
    if let Err((reason, why)) = verdict(&envelope, entries, rules, cleaner) {
        let error = as_failure.error.clone().or_else(|| Some(Line::own(&why)));
        return Err(Failure {
            reason,
            error,
            ..as_failure
        });
    }
    let api_env = envelope
        .env
        .and_then(string)
        .and_then(|env| cleaner.label(&env));
    let listing = Listing::new(keys, rejects, api_env).with_rejected_ids(rejected_ids);
    Ok(Listed {
        listing,
        support_id: as_failure.support_id,
    })
}

/// Evaluates the envelope of a listing: `Ok` for a success, or the reason and a message.
fn verdict(
    envelope: &Envelope<'_>,
    entries: usize,
    rules: &Rules<'_>,
    cleaner: &Cleaner,
) -> Result<(), (Reason, String)> {
    let schema = |why: &str| Err((Reason::Schema, why.to_owned()));
    success(envelope)?;
    match envelope.data {
        Data::List => {}
        Data::TooLong => {
            return Err((
                Reason::TooManyKeys,
                format!("more than poll.max_keys ({}) keys", rules.keys_max),
            ));
        }
        Data::Absent => return schema("the envelope has no `data`"),
        Data::Object | Data::Other => return schema("`data` is not a list"),
    }
    match envelope.paging.missing(entries) {
        Some(why) => Err((Reason::Incomplete, why)),
        None => expected_env(envelope, rules, cleaner),
    }
}

/// Whether the envelope of any answer indicates success.
pub(super) fn success(envelope: &Envelope<'_>) -> Result<(), (Reason, String)> {
    let schema = |why: &str| Err((Reason::Schema, why.to_owned()));
    if envelope.has_duplicate {
        return Err((
            Reason::NotJson,
            "a field of the envelope occurs twice".to_owned(),
        ));
    }
    let Some(status) = envelope.status.and_then(integer) else {
        return schema("the envelope has no integer `status`");
    };
    if envelope.error.is_some_and(|error| !is_null(error)) {
        return Err((Reason::ApiError, "the envelope has an `error`".to_owned()));
    }
    if !(200..=299).contains(&status) {
        return Err((
            Reason::ApiError,
            format!("the envelope's `status` is {status}"),
        ));
    }
    Ok(())
}

/// Whether the API reports the environment that the account expects.
pub(super) fn expected_env(
    envelope: &Envelope<'_>,
    rules: &Rules<'_>,
    cleaner: &Cleaner,
) -> Result<(), (Reason, String)> {
    let env = envelope.env.and_then(string);
    match rules.expected_env {
        Some(expected) if env.as_deref() != Some(expected) => {
            let env = env.map_or("nothing".to_owned(), |env| {
                format!("{:?}", cleaner.line(&env))
            });
            Err((
                Reason::EnvironmentMismatch,
                format!("the API says env {env}, the account expects {expected:?}"),
            ))
        }
        _ => Ok(()),
    }
}

/// The messages of the envelope for users, in successes and failures.
pub(super) fn as_failure(http_status: u16, envelope: &Envelope<'_>, cleaner: &Cleaner) -> Failure {
    let line = |field: Option<&RawValue>| {
        let field = field.filter(|field| !is_null(field))?;
        Some(cleaner.line(&words(field)))
    };
    // Documented as text, but a value of any other type may help support to find the case too.
    let support_id = envelope.support_id.filter(|id| !is_null(id)).map(words);
    let api_status = envelope.status.and_then(integer);
    let lines = [
        (
            "api_status",
            api_status.map(|status| Line::own(&status.to_string())),
        ),
        ("validator", line(envelope.validator)),
        ("api_log", line(envelope.log)),
        ("message", line(envelope.message)),
    ];
    Failure {
        reason: Reason::Internal,
        http_status: Some(http_status),
        error: line(envelope.error),
        support_id: support_id.and_then(|id| cleaner.support_id(&id)),
        lines: lines
            .into_iter()
            .filter_map(|(name, line)| Some((name, line?)))
            .collect(),
        retry_after: envelope
            .retry_after
            .and_then(|field| seconds(&words(field))),
    }
}

/// The failure for the HTTP status, with the messages of the envelope. An answer without `status`,
/// or with none of the other fields of the envelope, did not come from the API.
pub(super) fn of_http_status(envelope: &Envelope<'_>, failure: Failure) -> Failure {
    let http_status = failure.http_status.unwrap_or_default();
    let is_envelope = envelope.status.is_some()
        && (envelope.error.is_some()
            || envelope.support_id.is_some()
            || envelope.data != Data::Absent);
    if !is_envelope {
        return foreign(http_status, "JSON without the API's envelope", failure);
    }
    let error = failure
        .error
        .clone()
        .or_else(|| Some(Line::own(&status_words(http_status))));
    Failure {
        reason: Reason::of_status(http_status),
        error,
        ..failure
    }
}

/// The failure for the HTTP status if the body is not JSON.
pub(super) fn no_envelope(http_status: u16) -> Failure {
    let nothing = Failure::new(Reason::Internal, "");
    foreign(http_status, "the body is not JSON", nothing)
}

fn key(entry: &Entry<'_>, token: &Token, cleaner: &Cleaner) -> Result<Key, Reject> {
    if entry.is_misshapen {
        return Err(Reject::Shape);
    }
    let id = id(entry, cleaner).ok_or(Reject::Id)?;
    let secret = entry.secret.as_str().unwrap_or_default();
    let mut unreadable = Fields::default();
    let texts = [
        (Field::Label, &entry.label),
        (Field::OrganizationId, &entry.organization_id),
        (Field::Secret, &entry.secret),
    ];
    for (field, text) in texts {
        if matches!(text, Text::Other) {
            unreadable.insert(field);
        }
    }
    let mut time = |field, text: &Text<'_>| {
        let time = text.as_str().and_then(parse_unambiguous);
        if time.is_none() && !matches!(text, Text::Absent) {
            unreadable.insert(field);
        }
        time
    };
    let expires_at = time(Field::Expiry, &entry.expires_at);
    let created_at = time(Field::CreatedAt, &entry.created_at);
    let updated_at = time(Field::UpdatedAt, &entry.updated_at);
    let scopes = scopes(&entry.scopes, cleaner);
    if scopes.is_none() {
        unreadable.insert(Field::Scopes);
    }
    let allow_list = allow_list(&entry.ip_allow_list);
    if allow_list.is_none() {
        unreadable.insert(Field::AllowList);
    }
    Ok(Key {
        id,
        label: label(&entry.label, cleaner),
        organization_id: label(&entry.organization_id, cleaner),
        mode: PROFILE.mode_of(secret),
        is_own: token.is_shown_as(secret, PROFILE.mask.as_ref()),
        is_disabled: false,
        expiry: match expires_at {
            Some(end) => Expiry::At(end),
            None if unreadable.contains(Field::Expiry) => Expiry::Unknown,
            None => Expiry::Never,
        },
        created_at,
        updated_at,
        scopes,
        allow_list,
        unreadable,
        is_listed_expired: false,
        unlisted_since: None,
        details: None,
    })
}

/// The entry's id, if it has one that can be shown.
fn id(entry: &Entry<'_>, cleaner: &Cleaner) -> Option<KeyId> {
    let text = entry.id.as_str()?;
    KeyId::parse(text).filter(|_| cleaner.is_free_of_secrets(text))
}

pub(super) fn label(text: &Text<'_>, cleaner: &Cleaner) -> Option<Label> {
    cleaner.label(text.as_str()?)
}

/// Scopes are identifiers that programs compare, so one that is not text makes all of them
/// unreadable.
fn scopes(scopes: &Texts<'_>, cleaner: &Cleaner) -> Option<Scopes> {
    let texts = match scopes {
        Texts::Absent => return Some(Scopes::default()),
        Texts::Are(texts) => texts,
        Texts::Other => return None,
    };
    let mut names = Vec::with_capacity(texts.len());
    for text in texts {
        names.push(cleaner.name(text.as_str()?));
    }
    Some(Scopes::new(names))
}

fn allow_list(entries: &Texts<'_>) -> Option<AllowList> {
    match entries {
        Texts::Absent => Some(AllowList::unrestricted()),
        Texts::Are(entries) => Some(AllowList::parse(entries.iter().map(Text::as_str))),
        Texts::Other => None,
    }
}

fn is_null(field: &RawValue) -> bool {
    field.get() == "null"
}

fn integer(field: &RawValue) -> Option<i64> {
    field.get().parse().ok()
}

fn string(field: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(field.get())
        .ok()
        .and_then(|text| match text {
            Text::Is(text) => Some(text),
            Text::Absent | Text::Other => None,
        })
}

/// The text of a string; for any other value, its JSON.
fn words(field: &RawValue) -> Cow<'_, str> {
    string(field).unwrap_or_else(|| json_words(field.get()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::allow_list::Ipv6Count;
    use crate::domain::key::Mode;

    const SECRET: &str = "sk_live_MDE5N2MwZWMtYTE5Ny03MTlmLTg0YTktOTkyNzBhNzliNDJh.GdwdA";

    fn judge(http_status: u16, body: &[u8]) -> Result<Listed, Failure> {
        let token = Token::parse(SECRET.as_bytes(), "test").unwrap();
        answer(
            http_status,
            body,
            &Rules {
                token: &token,
                keys_max: 5,
                pages_max: 200,
                expected_env: None,
                held: None,
            },
        )
    }

    fn listing(entries: &str) -> Listing {
        let body = format!(r#"{{"status":200,"data":[{entries}],"error":null}}"#);
        judge(200, body.as_bytes())
            .unwrap_or_else(|failure| panic!("{body}: {failure:?}"))
            .listing
    }

    fn only(entry: &str) -> Key {
        let listing = listing(entry);
        assert_eq!(
            (listing.keys().len(), listing.rejects().total()),
            (1, 0),
            "{entry}"
        );
        listing.keys()[0].clone()
    }

    #[test]
    fn the_documented_example_is_read() {
        let body = include_bytes!("../../../tests/fixtures/list_documented.json");
        let Listed {
            listing,
            support_id,
        } = judge(200, body).unwrap();
        assert_eq!(support_id, None);
        assert_eq!(listing.api_env(), Some("development"));
        let [key] = listing.keys() else {
            panic!("{listing:?}")
        };
        assert_eq!(
            key.id.as_str(),
            "api_key_0197c0ec-a197-719f-84a9-99270a79b42a"
        );
        assert_eq!(key.mode, Some(Mode::Live));
        assert!(key.is_own, "the masked secret is our token's");
        assert_eq!(
            key.expiry,
            Expiry::At(parse_unambiguous("2026-05-30 20:23:16").unwrap())
        );
        assert_eq!(key.created_at, parse_unambiguous("2025-06-30 15:00:22"));
        assert_eq!(key.updated_at, None);
        assert_eq!(key.scopes, Some(Scopes::new(vec!["products.create"])));
        let allow_list = key.allow_list.as_ref().unwrap();
        assert_eq!(allow_list.ipv4_addresses(), 1);
        assert_eq!(allow_list.ipv6_addresses(), Ipv6Count::Some(0));
    }

    #[test]
    fn what_is_missing_is_null_and_what_is_new_is_ignored() {
        for entry in [
            r#"{"id":"a"}"#,
            r#"{"id":"a","secret":null,"scopes":null,"ip_allow_list":null,"expires_at":null,"created_at":null,
                "updated_at":null,"label":null,"organization_id":null,"new":{"field":[1]}}"#,
        ] {
            let key = only(entry);
            assert_eq!(
                (key.expiry, key.mode, key.is_own, key.label),
                (Expiry::Never, None, false, None)
            );
            assert_eq!(key.scopes, Some(Scopes::default()));
            assert_eq!(key.allow_list, Some(AllowList::unrestricted()));
        }
    }

    #[test]
    fn an_expiry_that_is_no_time_is_unknown_and_the_key_stays() {
        for expires_at in [
            "\"0000-00-00 00:00:00\"",
            "\"\"",
            "1780172596",
            "true",
            "[]",
            "{\"a\":1}",
            "\"2026-05-30 20:23:60\"",
        ] {
            let key = only(&format!(r#"{{"id":"a","expires_at":{expires_at}}}"#));
            assert_eq!(key.expiry, Expiry::Unknown, "{expires_at}");
        }
    }

    #[test]
    fn one_odd_entry_is_counted_and_the_rest_stands() {
        let cases = [
            ("null", Reject::Shape),
            ("1.5", Reject::Shape),
            ("\"a\"", Reject::Shape),
            ("[\"a\"]", Reject::Shape),
            (
                r#"{"id":"b","expires_at":null,"expires_at":"2026-05-30 20:23:16"}"#,
                Reject::Shape,
            ),
            ("{}", Reject::Id),
            (r#"{"id":null}"#, Reject::Id),
            (r#"{"id":7}"#, Reject::Id),
            (r#"{"id":""}"#, Reject::Id),
            (r#"{"id":"b\u0000"}"#, Reject::Id),
            (r#"{"id":"b\"c"}"#, Reject::Id),
            (r#"{"id":"sk_live_abc"}"#, Reject::Id),
            (
                r#"{"id":"a","expires_at":"2026-05-30 20:23:16"}"#,
                Reject::Duplicate,
            ),
        ];
        for (odd, reason) in cases {
            let listing = listing(&format!(r#"{odd},{{"id":"a"}}"#));
            assert_eq!(listing.keys().len(), 1, "{odd}");
            assert_eq!(
                (listing.rejects().count(reason), listing.rejects().total()),
                (1, 1),
                "{odd}"
            );
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_spoils_only_itself() {
        let good = r#""id":"a","label":"ci","scopes":["a.read"],"ip_allow_list":["10.0.0.1"],
            "expires_at":"2026-05-30 20:23:16","created_at":"2025-05-30 20:23:16""#;
        for (field, odd, count) in [
            (Field::Expiry, r#""expires_at":"soon""#, 0),
            (Field::Expiry, r#""expires_at":1780172596"#, 0),
            (Field::CreatedAt, r#""created_at":"then""#, 1),
            (Field::CreatedAt, r#""created_at":{}"#, 1),
            (Field::UpdatedAt, r#""updated_at":"""#, 1),
            (Field::Scopes, r#""scopes":"all""#, 1),
            (Field::Scopes, r#""scopes":{"a.read":true}"#, 1),
            (Field::Scopes, r#""scopes":["a.read",1]"#, 1),
            (Field::AllowList, r#""ip_allow_list":"10.0.0.1""#, 1),
            (Field::Label, r#""label":7"#, 1),
            (Field::OrganizationId, r#""organization_id":["org_1"]"#, 1),
            (Field::Secret, r#""secret":true"#, 1),
        ] {
            let name = odd.split(':').next().unwrap();
            let kept = good
                .split(',')
                .filter(|part| !part.trim().starts_with(name));
            let entry = format!("{{{},{odd}}}", kept.collect::<Vec<_>>().join(","));
            let listing = listing(&entry);
            let [key] = listing.keys() else {
                panic!("{entry}: {listing:?}")
            };
            let mut expected = Fields::default();
            expected.insert(field);
            assert_eq!(key.unreadable, expected, "{entry}");
            let rejects = listing.rejects();
            assert_eq!((rejects.shape, rejects.total()), (count, count), "{entry}");
            let is_known = |of, is_known: bool| assert!(of == field || is_known, "{of:?}: {entry}");
            is_known(Field::Expiry, matches!(key.expiry, Expiry::At(_)));
            is_known(Field::CreatedAt, key.created_at.is_some());
            is_known(Field::Label, key.label.as_deref() == Some("ci"));
            is_known(
                Field::Scopes,
                key.scopes.as_ref().is_some_and(|it| it.len() == 1),
            );
            is_known(Field::AllowList, key.allow_list.is_some());
        }
    }

    #[test]
    fn entries_of_which_none_can_be_used_are_a_failure() {
        for (entries, reason) in [
            ("7", Some(Reason::Schema)),
            (r#"{"name":"a"},{"id":1}"#, Some(Reason::Schema)),
            (r#"{"id":"a","id":"a"}"#, Some(Reason::Schema)),
            (r#"7,{"id":"a","expires_at":[]}"#, None),
            ("", None),
        ] {
            let body = format!(
                r#"{{"status":200,"data":[{entries}],"error":null,"support_id":"support_1"}}"#
            );
            let failure = judge(200, body.as_bytes()).unwrap().usable().err();
            let support_id = failure
                .as_ref()
                .and_then(|failure| failure.support_id.as_ref());
            assert_eq!(support_id.is_some(), reason.is_some(), "{entries}");
            assert_eq!(failure.map(|failure| failure.reason), reason, "{entries}");
        }
    }

    #[test]
    fn an_allow_list_entry_that_is_no_text_is_an_invalid_entry() {
        let key = only(r#"{"id":"a","ip_allow_list":["10.0.0.1",7,null,"x"]}"#);
        let list = key.allow_list.unwrap();
        assert_eq!((list.networks().len(), list.invalid_entries()), (1, 3));
    }

    #[test]
    fn scopes_are_distinct_and_clean() {
        let key =
            only(r#"{"id":"a","scopes":["b.read","a.read","b.read","","x\ny","sk_live_abc"]}"#);
        let scopes = key.scopes.unwrap();
        let scopes: Vec<&str> = scopes.iter().collect();
        assert_eq!(scopes, ["[redacted]", "a.read", "b.read", "x\u{fffd}y"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_spoil_only_their_field() {
        let body = b"{\"status\":200,\"error\":null,\"log\":\"\xff\",\"data\":[{\"id\":\"a\",\"label\":\"x\xff\"},{\"id\":\"\xfe\"}]}";
        let listing = judge(200, body).unwrap().listing;
        assert_eq!(listing.keys()[0].label.as_deref(), Some("x\u{fffd}"));
        assert_eq!(listing.rejects().id, 1);
    }

    #[test]
    fn half_of_a_surrogate_pair_spoils_only_its_field() {
        let listing = listing(
            r#"{"id":"a","label":"\ud800 \ud83d\ude00 \\ud800 \udc00"},{"id":"\ud800"},{"id":"b"}"#,
        );
        assert_eq!(
            listing.keys()[0].label.as_deref(),
            Some("\u{fffd} 😀 \\ud800 \u{fffd}")
        );
        assert_eq!((listing.keys().len(), listing.rejects().id), (2, 1));
    }

    #[test]
    fn ids_of_rejected_entries_are_told() {
        let entries = r#"{"id":"b","id":"b"},{"id":"a"},{"id":"a"},{"id":"c","scopes":[7]},7"#;
        let listing = listing(entries);
        let ids: Vec<&str> = listing.rejected_ids().map(KeyId::as_str).collect();
        assert_eq!(ids, ["a", "b", "c"]);
    }

    #[test]
    fn a_support_id_that_is_no_text_is_told_all_the_same() {
        let failure = judge(500, br#"{"status":500,"error":"no","support_id":12345}"#).unwrap_err();
        assert_eq!(failure.support_id.as_ref().map(Line::as_str), Some("12345"));
    }

    #[test]
    fn success_takes_everything_to_agree() {
        use Reason::*;
        let good = r#"{"status":200,"data":[],"error":null}"#;
        let cases = [
            (200, good, None),
            (201, good, None),
            (202, r#"{"status":206,"data":[]}"#, None),
            (200, "\u{feff}{\"status\":200,\"data\":[]}", None),
            (204, good, Some(Schema)),
            (302, good, Some(Redirect)),
            (401, good, Some(Unauthorized)),
            (500, good, Some(ServerError)),
            (502, "<html>", Some(ServerError)),
            (
                200,
                r#"{"status":500,"data":[],"error":null}"#,
                Some(ApiError),
            ),
            (
                200,
                r#"{"status":200,"data":[],"error":"no"}"#,
                Some(ApiError),
            ),
            (
                200,
                r#"{"status":200,"data":[],"error":false}"#,
                Some(ApiError),
            ),
            (
                200,
                r#"{"status":200,"data":[],"error":""}"#,
                Some(ApiError),
            ),
            (200, r#"{"data":[],"error":null}"#, Some(Schema)),
            (
                200,
                r#"{"status":"200","data":[],"error":null}"#,
                Some(Schema),
            ),
            (
                200,
                r#"{"status":200,"data":null,"error":null}"#,
                Some(Schema),
            ),
            (200, r#"{"status":200,"error":null}"#, Some(Schema)),
            (
                200,
                r#"{"status":200,"data":{},"error":null}"#,
                Some(Schema),
            ),
            (200, "[200,[]]", Some(Schema)),
            (200, "null", Some(Schema)),
            (
                200,
                r#"{"status":200,"status":200,"data":[]}"#,
                Some(NotJson),
            ),
            (200, r#"{"status":200,"data":[],"data":[]}"#, Some(NotJson)),
            (200, "", Some(NotJson)),
            (200, "<html></html>", Some(NotJson)),
            (200, r#"{"status":200,"data":["#, Some(NotJson)),
            (200, r#"{"status":200,"data":[]} x"#, Some(NotJson)),
            (200, r#"{"status":200,"data":[]}{}"#, Some(NotJson)),
            (200, "{\"status\":200,\"data\":[]}\0", Some(NotJson)),
            (200, r#"{"status":200,"data":[NaN]}"#, Some(NotJson)),
            (
                200,
                r#"{"status":200,"data":[{},{},{},{},{},{}]}"#,
                Some(TooManyKeys),
            ),
        ];
        for (http_status, body, expected) in cases {
            let reason = judge(http_status, body.as_bytes())
                .err()
                .map(|failure| failure.reason);
            assert_eq!(reason, expected, "HTTP {http_status}: {body}");
        }
    }

    #[test]
    fn an_answer_of_another_form_is_a_gateways_and_one_page_is_not_the_listing() {
        use Reason::*;
        let cases = [
            (401, "", Some(Gateway)),
            (403, "<html>", Some(Gateway)),
            (403, "blocked", Some(Gateway)),
            (404, r#"{"message":"Forbidden"}"#, Some(Gateway)),
            (400, r#"{"status":400}"#, Some(Gateway)),
            (400, r#"{"status":400,"error":"no"}"#, Some(ClientError)),
            (
                401,
                r#"{"status":401,"error":"\ud800"}"#,
                Some(Unauthorized),
            ),
            (408, "", Some(ClientError)),
            (
                200,
                r#"{"status":200,"data":[],"next_cursor":"abc"}"#,
                Some(Incomplete),
            ),
            (
                200,
                r#"{"status":200,"meta":{"total":1},"data":[]}"#,
                Some(Incomplete),
            ),
            (
                200,
                r#"{"status":200,"meta":{"total":2},"data":[{},{"id":"a","scopes":7}]}"#,
                None,
            ),
            (
                200,
                r#"{"status":200,"meta":{"total":3},"data":[{},{"id":"a","scopes":7}]}"#,
                Some(Incomplete),
            ),
            (429, "<html>", Some(RateLimited)),
        ];
        for (http_status, body, expected) in cases {
            let failure = judge(http_status, body.as_bytes()).err();
            let reason = failure.map(|failure| failure.reason);
            assert_eq!(reason, expected, "HTTP {http_status}: {body}");
        }
    }

    #[test]
    fn a_failure_tells_all_that_the_api_told() {
        let body = include_bytes!("../../../tests/fixtures/error_validator.json");
        let failure = judge(400, body).unwrap_err();
        let text = |line: &Option<Line>| {
            line.as_ref()
                .map(|line| line.as_str().to_owned())
                .unwrap_or_default()
        };
        let named = |name| failure.line(name).unwrap_or_default();
        assert_eq!(
            (
                failure.reason,
                failure.http_status,
                failure.number("api_status")
            ),
            (Reason::ClientError, Some(400), Some(400))
        );
        assert_eq!(text(&failure.error), "Validation failed");
        assert_eq!(
            text(&failure.support_id),
            "support_0197c0ec-a197-719f-84a9-99270a79b42b"
        );
        assert_eq!(
            named("validator"),
            r#"{ "page": "The page field must be a positive integer." }"#
        );
        assert_eq!(named("api_log"), r#"{ "request_id": "req_1234567890" }"#);
        assert_eq!(named("message"), "The request was malformed");
    }

    #[test]
    fn the_support_id_is_found_whatever_the_log_holds() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let long = format!("\"{}\"", "x".repeat(1_000_000));
        for log in [&deep, &long, "null", "{\"a\":[1e400]}"] {
            let body = format!(
                r#"{{"log":{log},"data":null,"status":500,"error":"no","support_id":"support_1"}}"#
            );
            for http_status in [200, 500] {
                let failure = judge(http_status, body.as_bytes()).unwrap_err();
                assert_eq!(
                    failure.support_id.as_ref().map(Line::as_str),
                    Some("support_1")
                );
                let chars = failure.line("api_log").map_or(0, |log| log.chars().count());
                assert!(chars <= crate::domain::text::LINE_CHARS_MAX, "{chars}");
            }
        }
    }

    #[test]
    fn too_many_keys_still_tell_their_support_id() {
        let body = r#"{"status":200,"data":[{},{},{},{},{},{}],"support_id":"support_1"}"#;
        let failure = judge(200, body.as_bytes()).unwrap_err();
        assert_eq!(failure.reason, Reason::TooManyKeys);
        assert_eq!(
            failure.support_id.as_ref().map(Line::as_str),
            Some("support_1")
        );
    }

    #[test]
    fn the_body_may_ask_to_be_left_alone() {
        for (field, expected) in [
            (r#""retry_after":120"#, Some(120)),
            (r#""Retry-After":"120""#, Some(120)),
            (r#""retryAfter":0"#, Some(0)),
            (r#""retry_after":-1"#, None),
            (r#""retry_after":1.5"#, None),
            (r#""retry_after":null"#, None),
            (r#""retry_after":"soon""#, None),
        ] {
            let body = format!(r#"{{"status":429,"error":"slow down",{field}}}"#);
            let failure = judge(429, body.as_bytes()).unwrap_err();
            assert_eq!(
                failure.retry_after,
                expected.map(Duration::from_secs),
                "{field}"
            );
        }
    }

    #[test]
    fn another_environment_than_expected_is_a_failure() {
        let token = Token::parse(SECRET.as_bytes(), "test").unwrap();
        let rules = Rules {
            token: &token,
            keys_max: 3,
            pages_max: 200,
            expected_env: Some("production"),
            held: None,
        };
        for (env, expected) in [
            ("\"production\"", None),
            ("\"development\"", Some(Reason::EnvironmentMismatch)),
            ("null", Some(Reason::EnvironmentMismatch)),
        ] {
            let body = format!(r#"{{"status":200,"data":[],"env":{env}}}"#);
            let reason = answer(200, body.as_bytes(), &rules)
                .err()
                .map(|failure| failure.reason);
            assert_eq!(reason, expected, "{env}");
        }
    }

    #[test]
    fn no_secret_is_kept_wherever_it_stands() {
        let everywhere = format!(
            r#"{{"status":500,"error":"{SECRET}","log":{{"a":"{SECRET}"}},"validator":"{SECRET}",
                "support_id":"{SECRET}","message":"{SECRET}","data":null}}"#
        );
        let failure = format!("{:?}", judge(500, everywhere.as_bytes()).unwrap_err());
        let entry = format!(
            r#"{{"id":"a","secret":"{SECRET}","label":"{SECRET}","organization_id":"{SECRET}","scopes":["{SECRET}"],
                "ip_allow_list":["{SECRET}"],"expires_at":"{SECRET}"}}"#
        );
        let listed = format!("{:?}", listing(&entry));
        for shown in [failure, listed] {
            assert!(
                !shown.contains("MDE5N2Mw") && !shown.contains("GdwdA"),
                "{shown}"
            );
        }
        for field in [
            r#""Secret":"Zm9v\/YmFyYmF6cXV4""#,
            r#""secret":["Zm9v\u002fYmFyYmF6cXV4"]"#,
            r#""secret":{"secret":"Zm9v/YmFyYmF6cXV4"}"#,
        ] {
            let shown = format!(
                "{:?}",
                listing(&format!(
                    r#"{{"id":"a","label":"Zm9v/YmFyYmF6cXV4"}},{{"id":"b",{field}}}"#
                ))
            );
            assert!(
                shown.contains("\"b\"") && !shown.contains("YmFyYmF6"),
                "{shown}"
            );
        }
    }
}
