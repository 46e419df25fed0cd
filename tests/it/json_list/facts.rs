//! What is read of one answer: each option of a definition, with answers good and bad.

use api_key_exporter::domain::failure::Reason;
use api_key_exporter::domain::key::{Expiry, Field, LastUse, Scopes};
use api_key_exporter::domain::listing::Reject;
use api_key_exporter::domain::text::Line;
use api_key_exporter::provider::Provider;
use chrono::{DateTime, Utc};

use super::{TOKEN, answer, json_list, only};

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

/// The expiry of a key with this field, by a definition with these options for it.
fn expiry(options: &str, field: &str) -> Expiry {
    let options = format!("expires_at = {{ at = \"/e\", {options} }}");
    only(&options, &format!("{{\"id\":\"k\"{field}}}")).expiry
}

#[test]
fn each_time_format_is_read_exactly() {
    let moment = Expiry::At(at("2026-05-30T20:23:16Z"));
    let day = Expiry::At(at("2026-05-30T00:00:00Z"));
    let unknown = Expiry::Unknown;
    for (options, value, expected) in [
        (
            "format = \"rfc3339\"",
            "\"2026-05-30T22:23:16+02:00\"",
            moment,
        ),
        ("format = \"rfc3339\"", "\"2026-05-30T20:23:16\"", unknown),
        ("format = \"rfc3339\"", "1780172596", unknown),
        ("format = \"naive_utc\"", "\"2026-05-30 20:23:16\"", moment),
        ("format = \"naive_utc\"", "\"2026-05-30T20:23:16\"", moment),
        (
            "format = \"naive_utc\"",
            "\"2026-05-30T20:23:16Z\"",
            unknown,
        ),
        ("format = \"date\"", "\"2026-05-30\"", day),
        ("format = \"date\"", "\"2026-05-30T00:00:00Z\"", unknown),
        (
            "format = \"date\", ends = \"start_of_day\"",
            "\"2026-05-30\"",
            day,
        ),
        (
            "format = \"date\", ends = \"end_of_day\"",
            "\"2026-05-29\"",
            day,
        ),
        ("format = \"unix\"", "1780172596", moment),
        ("format = \"unix\"", "\"1780172596\"", moment),
        ("format = \"unix\"", "1780172596.0", moment),
        ("format = \"unix\"", "1e300", unknown),
        ("format = \"unix_ms\"", "1780172596000", moment),
        ("format = \"unix_ms\"", "1780172596000.5", unknown),
        ("format = \"unix\"", "true", unknown),
        ("format = \"unix\"", "[1780172596]", unknown),
        ("format = \"unix\"", "{\"x\":1}", unknown),
        ("format = \"unix\"", "\"\"", unknown),
    ] {
        let found = expiry(options, &format!(",\"e\":{value}"));
        assert_eq!(found, expected, "{options}: {value}");
    }
}

#[test]
fn only_what_the_definition_names_means_never() {
    let (never, unknown) = (Expiry::Never, Expiry::Unknown);
    let usual = "format = \"unix\"";
    let other = "format = \"unix\", never = [\"\", 0, -1, \"0001-01-01T00:00:00Z\"]";
    let null = "format = \"unix\", never = [\"null\"]";
    let nothing = "format = \"unix\", never = []";
    for (options, field, expected) in [
        (usual, "", never),
        (usual, ",\"e\":null", never),
        (usual, ",\"e\":\"\"", unknown),
        (usual, ",\"e\":0", Expiry::At(DateTime::UNIX_EPOCH)),
        (other, "", unknown),
        (other, ",\"e\":null", unknown),
        (other, ",\"e\":\"\"", never),
        (other, ",\"e\":0", never),
        (other, ",\"e\":-1", never),
        (other, ",\"e\":\"-1\"", never),
        (other, ",\"e\":-1.0", never),
        (other, ",\"e\":\"0001-01-01T00:00:00Z\"", never),
        (other, ",\"e\":1", Expiry::At(at("1970-01-01T00:00:01Z"))),
        (null, "", unknown),
        (null, ",\"e\":null", never),
        (nothing, "", unknown),
        (nothing, ",\"e\":null", unknown),
        (nothing, ",\"e\":0", Expiry::At(DateTime::UNIX_EPOCH)),
    ] {
        assert_eq!(expiry(options, field), expected, "{options}: {field}");
    }
    // Without the option, nothing is known of an end.
    assert_eq!(only("", "{\"id\":\"k\"}").expiry, unknown);
}

#[test]
fn a_field_may_be_deep_and_what_is_in_its_way_is_no_absence() {
    let options = "expires_at = { at = \"/a/b/1/e\", format = \"unix\" }";
    for (item, expected) in [
        (
            r#"{"id":"k","a":{"b":[{"e":5},{"e":7}]}}"#,
            Expiry::At(at("1970-01-01T00:00:07Z")),
        ),
        (r#"{"id":"k"}"#, Expiry::Never),
        (r#"{"id":"k","a":null}"#, Expiry::Never),
        (r#"{"id":"k","a":{}}"#, Expiry::Never),
        (r#"{"id":"k","a":{"b":[{"e":5}]}}"#, Expiry::Never),
        (r#"{"id":"k","a":"none"}"#, Expiry::Unknown),
        (r#"{"id":"k","a":[1]}"#, Expiry::Unknown),
        (r#"{"id":"k","a":{"b":7}}"#, Expiry::Unknown),
        (r#"{"id":"k","a":{"b":[1,"x"]}}"#, Expiry::Unknown),
    ] {
        assert_eq!(only(options, item).expiry, expected, "{item}");
    }
}

#[test]
fn ids_are_strings_or_integers() {
    let provider = json_list("items = \"\"\nid = \"/a~1b/c\"");
    let ids = |items: &str| {
        let listed = answer(&provider, 200, &[], &format!("[{items}]")).unwrap();
        let listing = listed.listing;
        let ids = listing.keys().iter().map(|key| key.id.to_string());
        (ids.collect::<Vec<_>>(), listing.rejects())
    };
    let item = |id: &str| format!("{{\"a/b\":{{\"c\":{id}}}}}");
    for (id, expected) in [
        ("\"x-1\"", Some("x-1")),
        ("42", Some("42")),
        ("-1", Some("-1")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("\"\\u0061\"", Some("a")),
        ("1.5", None),
        ("1e3", None),
        ("null", None),
        ("true", None),
        ("[1]", None),
        ("\"\"", None),
        ("\"a b\"", None),
        ("\"sk_live_c2VjcmV0\"", None),
        (&format!("\"{TOKEN}\""), None),
    ] {
        let (found, rejects) = ids(&item(id));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{id}");
        assert_eq!(
            rejects.count(Reject::Id),
            u32::from(expected.is_none()),
            "{id}"
        );
    }
    for shape in [
        "1",
        "null",
        "\"x\"",
        "[]",
        "{\"a/b\":{\"c\":1},\"a/b\":{\"c\":1}}",
    ] {
        let (found, rejects) = ids(&format!("{shape},{}", item("1")));
        assert_eq!(
            (found.len(), rejects.count(Reject::Shape)),
            (1, 1),
            "{shape}"
        );
    }
    let twice = "{\"a/b\":{\"c\":1,\"c\":2}}";
    assert_eq!(
        ids(twice).1.count(Reject::Shape),
        1,
        "a field is there twice"
    );
}

#[test]
fn scopes_are_lists_strings_or_keys() {
    let plain = "scopes = \"/s\"";
    let split = "scopes = { at = \"/s\", split = \" \" }";
    let deep = "scopes = \"/p/*/g/*/name\"";
    let keys = "scopes = \"/p/*\"";
    let all: &[&str] = &["a:b", "c"];
    for (options, field, expected) in [
        (plain, r#","s":["c","a:b","c"]"#, Some(all)),
        (plain, r#","s":{"a:b":true,"c":{"x":1}}"#, Some(all)),
        (plain, r#","s":"a:b c""#, Some(&["a:b c"])),
        (plain, r#","s":[]"#, Some(&[])),
        (plain, r#","s":{}"#, Some(&[])),
        (plain, r#","s":null"#, Some(&[])),
        (plain, "", Some(&[])),
        (plain, r#","s":7"#, None),
        (plain, r#","s":["a",7]"#, None),
        (plain, r#","s":["a",null]"#, None),
        (plain, r#","s":["a",{"b":1}]"#, None),
        (split, r#","s":"c  a:b ""#, Some(all)),
        (split, r#","s":"""#, Some(&[])),
        (split, r#","s":["a:b c"]"#, Some(all)),
        (
            deep,
            r#","p":[{"g":[{"name":"a:b"}]},{"g":[{"name":"c"},{"id":1}]},{"g":[]}]"#,
            Some(all),
        ),
        (
            deep,
            r#","p":{"x":{"g":{"y":{"name":"a:b"},"z":{"name":"c"}}}}"#,
            Some(all),
        ),
        (deep, r#","p":[]"#, Some(&[])),
        (deep, "", Some(&[])),
        (deep, r#","p":"all""#, None),
        (deep, r#","p":[{"g":[{"name":7}]}]"#, None),
        (keys, r#","p":["a:b",["c"]]"#, Some(all)),
        (keys, r#","p":[{"a:b":1},{"c":2}]"#, Some(all)),
    ] {
        let key = only(options, &format!("{{\"id\":\"k\"{field}}}"));
        let scopes = key
            .scopes
            .as_ref()
            .map(|scopes| scopes.iter().collect::<Vec<_>>());
        let expected = expected.map(<[&str]>::to_vec);
        assert_eq!(scopes, expected, "{options}: {field}");
        let is_unreadable = key.unreadable.contains(Field::Scopes);
        assert_eq!(is_unreadable, expected.is_none(), "{options}: {field}");
    }
}

#[test]
fn an_allow_list_is_read_like_scopes_and_none_is_no_restriction() {
    let options = "ip_allow_list = \"/c/*/in\"";
    for (field, networks, invalid, is_unrestricted) in [
        (r#","c":{"ip":{"in":["10.0.0.0/8","::1"]}}"#, 2, 0, false),
        (
            r#","c":[{"in":["10.0.0.1"]},{"in":["nowhere",7]}]"#,
            1,
            2,
            false,
        ),
        (r#","c":{"ip":{"in":[]}}"#, 0, 0, true),
        ("", 0, 0, true),
        (r#","c":null"#, 0, 0, true),
    ] {
        let key = only(options, &format!("{{\"id\":\"k\"{field}}}"));
        let list = key.allow_list.unwrap_or_else(|| panic!("{field}"));
        assert_eq!(
            (
                list.networks().len(),
                list.invalid_entries(),
                list.is_unrestricted()
            ),
            (networks, invalid, is_unrestricted),
            "{field}"
        );
    }
    let key = only(options, r#"{"id":"k","c":"any"}"#);
    assert_eq!(key.allow_list, None);
    assert!(key.unreadable.contains(Field::AllowList));
}

#[test]
fn an_object_is_an_allow_list_only_if_its_keys_are_addresses() {
    for (list, networks) in [
        (r#"{"10.0.0.0/8":{"note":"x"},"::1":1}"#, Some(2)),
        ("{}", Some(0)),
        (r#"{"x":{}}"#, None),
        (r#"{"10.0.0.1":{},"enabled":true}"#, None),
        (r#"["10.0.0.1","x"]"#, Some(1)),
    ] {
        let key = only(
            "ip_allow_list = \"/l\"",
            &format!("{{\"id\":\"k\",\"l\":{list}}}"),
        );
        let found = key.allow_list.map(|list| list.networks().len());
        assert_eq!(found, networks, "{list}");
        let is_unreadable = key.unreadable.contains(Field::AllowList);
        assert_eq!(is_unreadable, networks.is_none(), "{list}");
    }
}

#[test]
fn a_label_is_text_or_an_integer() {
    for (value, expected, is_readable) in [
        ("\"ci\"", Some("ci"), true),
        ("42", Some("42"), true),
        ("-7", Some("-7"), true),
        ("null", None, true),
        ("\"\"", None, true),
        ("1.5", None, false),
        ("true", None, false),
        ("[1]", None, false),
        ("{}", None, false),
    ] {
        let key = only("label = \"/n\"", &format!("{{\"id\":\"k\",\"n\":{value}}}"));
        assert_eq!(key.label.as_deref(), expected, "{value}");
        let is_unreadable = key.unreadable.contains(Field::Label);
        assert_eq!(is_unreadable, !is_readable, "{value}");
    }
}

#[test]
fn what_the_definition_does_not_point_at_is_unknown_and_not_empty() {
    let key = only(
        "",
        r#"{"id":"k","scopes":["a"],"ip_allow_list":[],"label":"x"}"#,
    );
    assert_eq!((key.scopes, key.allow_list, key.label), (None, None, None));
    assert_eq!((key.created_at, key.updated_at), (None, None));
    assert!(key.details.is_none());
}

#[test]
fn a_key_is_disabled_where_one_condition_holds() {
    let options = "disabled = [{ at = \"/r\", is = true }, { at = \"/s\", is_not = \"active\" }, \
                   { at = \"/t\", is_set = true }, { at = \"/n\", is = 3 }]";
    for (field, expected) in [
        ("", false),
        (",\"r\":true", true),
        (",\"r\":false", false),
        (",\"r\":null", false),
        (",\"r\":\"true\"", false),
        (",\"r\":1", false),
        (",\"s\":\"active\"", false),
        (",\"s\":\"revoked\"", true),
        (",\"s\":7", true),
        (",\"t\":null", false),
        (",\"t\":\"2026-01-01\"", true),
        (",\"t\":{}", true),
        (",\"t\":false", true),
        (",\"n\":3", true),
        (",\"n\":4", false),
        (",\"n\":\"3\"", false),
        (",\"r\":false,\"s\":\"active\",\"t\":null,\"n\":0", false),
    ] {
        let key = only(options, &format!("{{\"id\":\"k\"{field}}}"));
        assert_eq!(key.is_disabled, expected, "{field}");
    }
}

#[test]
fn a_condition_on_a_field_that_cannot_be_reached_does_not_hold() {
    let options = "disabled = [{ at = \"/r/at\", is_set = true }, \
                   { at = \"/s/state\", is_not = \"active\" }, { at = \"/l/0\", is = true }, \
                   { at = \"/d/e/f\", is_set = false }]";
    for (field, expected) in [
        (r#","r":false"#, false),
        (r#","r":"""#, false),
        (r#","r":null"#, false),
        (r#","r":[]"#, false),
        (r#","r":["at"]"#, false),
        (r#","r":{}"#, false),
        (r#","r":{"at":null}"#, false),
        (r#","r":{"at":"2026-01-01"}"#, true),
        (r#","s":"active""#, false),
        (r#","s":"revoked""#, false),
        (r#","s":1.5"#, false),
        (r#","s":{"state":"active"}"#, false),
        (r#","s":{"state":["active"]}"#, true),
        (r#","l":true"#, false),
        (r#","l":[true]"#, true),
        (r#","d":7"#, false),
        (r#","d":{"e":true}"#, false),
        (r#","d":{"e":{"f":null}}"#, true),
    ] {
        let key = only(options, &format!("{{\"id\":\"k\"{field}}}"));
        assert_eq!(key.is_disabled, expected, "{field}");
    }
}

#[test]
fn two_options_may_point_at_the_same_field_and_one_at_a_part_of_it() {
    let options = "expires_at = { at = \"/end\", format = \"unix\" }\n\
                   created_at = { at = \"/a/b\", format = \"unix\" }\n\
                   disabled = [{ at = \"/end\", is = 7 }, { at = \"/a\", is_not = 1 }]";
    let key = only(options, r#"{"id":"k","end":7,"a":{"b":5}}"#);
    assert_eq!(key.expiry, Expiry::At(at("1970-01-01T00:00:07Z")));
    assert_eq!(key.created_at, Some(at("1970-01-01T00:00:05Z")));
    assert!(key.is_disabled);
    assert!(!only(options, r#"{"id":"k","end":8}"#).is_disabled);
}

#[test]
fn the_last_use_comes_without_details() {
    let options = "last_used_at = { at = \"/u\", format = \"unix\" }";
    for (field, expected) in [
        (",\"u\":7", LastUse::At(at("1970-01-01T00:00:07Z"))),
        (",\"u\":null", LastUse::Never),
        ("", LastUse::Never),
        (",\"u\":\"soon\"", LastUse::Unknown),
    ] {
        let key = only(options, &format!("{{\"id\":\"k\"{field}}}"));
        assert_eq!(key.details.unwrap().last_use, expected, "{field}");
    }
}

#[test]
fn nested_lists_take_fields_of_both_items() {
    let provider = json_list(
        "items = \"/apps\"\nnested = \"/auth/secrets\"\nid = \"/id\"\nlabel = \"^/name\"\n\
         expires_at = { at = \"/end\", format = \"unix\" }\nscopes = \"^/roles\"",
    );
    let keys = |apps: &str| {
        let listed = answer(&provider, 200, &[], &format!("{{\"apps\":[{apps}]}}"));
        let listing = listed.map_err(|failure| failure.reason)?.listing;
        let keys = listing.keys().iter().map(|key| {
            let label = key.label.as_deref().unwrap_or("-");
            let scopes = key.scopes.as_ref().map_or(0, Scopes::len);
            format!("{} {label} {scopes}", key.id)
        });
        Ok((keys.collect::<Vec<_>>(), listing.rejects().total()))
    };
    // The outer fields come after the inner list too.
    let one = r#"{"auth":{"secrets":[{"id":"a","end":1},{"id":"b"}]},"name":"One","roles":["r"]}"#;
    let two = r#"{"name":"Two","auth":{"secrets":[{"id":"c","name":"inner"}]}}"#;
    let expected = ["a One 1", "b One 1", "c Two 0"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(keys(&format!("{one},{two}")), Ok((expected, 0)));
    // Half of a surrogate pair spoils its own field only.
    let half =
        r#"{"x\ud800":0,"name":"\udc00","auth":{"secrets":[{"\ud800":0,"id":"h"},{"id":"i"}]}}"#;
    let expected = ["h \u{fffd} 0", "i \u{fffd} 0"].map(str::to_owned).to_vec();
    assert_eq!(keys(half), Ok((expected, 0)));
    for (none, rejected) in [
        (r#"{"name":"Three"}"#, 0),
        (r#"{"auth":null}"#, 0),
        (r#"{"auth":{"secrets":null}}"#, 0),
        (r#"{"auth":{"secrets":[]}}"#, 0),
        (r#"{"auth":{"secrets":{"id":"x"}}}"#, 1),
        ("[]", 1),
        ("7", 1),
    ] {
        let found = keys(&format!("{two},{none}"));
        assert_eq!(found, Ok((vec!["c Two 0".to_owned()], rejected)), "{none}");
    }
    assert_eq!(keys(r#"{"name":"A"},{"name":"B"}"#), Err(Reason::Schema));
    assert_eq!(keys(""), Ok((vec![], 0)));
    let many = r#"{"auth":{"secrets":[{"id":"1"},{"id":"2"},{"id":"3"}]}}"#;
    assert_eq!(keys(&format!("{many},{many}")), Err(Reason::TooManyKeys));
}

#[test]
fn a_failed_answer_is_read_like_the_native_providers() {
    use Reason::*;
    let provider = json_list(
        "items = \"/data/keys\"\nid = \"/id\"\nerror = \"/error/text\"\n\
         support_id = { at = \"/request\" }",
    );
    let page = r#"{"data":{"keys":[{"id":"k"}]},"request":"r-1"}"#;
    let failed = r#"{"error":{"text":"No such thing"},"request":17}"#;
    for (status, body, expected) in [
        (200, page, None),
        (201, page, None),
        (202, page, None),
        (204, page, Some(Schema)),
        (206, page, Some(Schema)),
        (302, page, Some(Redirect)),
        (401, failed, Some(Unauthorized)),
        (403, failed, Some(Forbidden)),
        (404, "[]", Some(ClientError)),
        (401, "<html>", Some(Gateway)),
        (403, "", Some(Gateway)),
        (404, "not found", Some(Gateway)),
        (408, "", Some(ClientError)),
        (429, "slow down", Some(RateLimited)),
        (429, failed, Some(RateLimited)),
        (500, failed, Some(ServerError)),
        (502, "<html>", Some(ServerError)),
        (200, "", Some(NotJson)),
        (200, "<html>", Some(NotJson)),
        (200, r#"{"data":{"keys":[{"id":"k"}]}} {}"#, Some(NotJson)),
        (200, r#"{"data":{"keys":[{"id":"k"}]}"#, Some(NotJson)),
        (
            200,
            r#"{"data":{"keys":[]},"data":{"keys":[]}}"#,
            Some(NotJson),
        ),
        (200, r#"{"data":{"keys":null}}"#, Some(Schema)),
        (200, r#"{"data":{}}"#, Some(Schema)),
        (200, r#"{"data":{"keys":{}}}"#, Some(Schema)),
        (200, r#"{"data":{"keys":"all"}}"#, Some(Schema)),
        (200, r#"{"data":[]}"#, Some(Schema)),
        (200, "[]", Some(Schema)),
        (200, "7", Some(Schema)),
        (200, failed, Some(ApiError)),
        (200, r#"{"data":{"keys":[]}}"#, None),
        (
            200,
            r#"{"data":{"keys":[]},"error":{"text":"not allowed"}}"#,
            Some(ApiError),
        ),
        (
            200,
            r#"{"error":{"text":{"code":7}},"data":{"keys":[]}}"#,
            Some(ApiError),
        ),
        (200, r#"{"data":{"keys":[]},"error":{"text":""}}"#, None),
        (200, r#"{"data":{"keys":[]},"error":{"text":null}}"#, None),
        (200, r#"{"data":{"keys":[]},"error":{"text":[]}}"#, None),
        (200, r#"{"data":{"keys":[]},"error":{"text":false}}"#, None),
        (
            200,
            r#"{"data":{"keys":[{"id":"k"}]},"error":{"text":"a warning"}}"#,
            None,
        ),
        (
            200,
            r#"{"data":{"keys":[{"id":"1"},{"id":"2"},{"id":"3"},{"id":"4"},{"id":"5"},{"id":"6"}]}}"#,
            Some(TooManyKeys),
        ),
    ] {
        let found = answer(&provider, status, &[], body);
        let reason = found.as_ref().err().map(|failure| failure.reason);
        assert_eq!(reason, expected, "HTTP {status}: {body}: {found:?}");
        if let Err(failure) = found {
            assert_eq!(failure.http_status, Some(status));
        }
    }
    let failure = answer(&provider, 403, &[], failed).unwrap_err();
    let words = failure.error.as_ref().map(Line::as_str);
    let support_id = failure.support_id.as_ref().map(Line::as_str);
    assert_eq!((words, support_id), (Some("No such thing"), Some("17")));
    let listed = answer(&provider, 200, &[], page).unwrap();
    assert_eq!(listed.support_id.unwrap().as_str(), "r-1");
    let by_header = json_list(
        "items = \"\"\nid = \"/id\"\nerror = \"/message\"\nsupport_id = { header = \"X-Request-Id\" }",
    );
    let headers = [("x-request-id", "h-1")];
    let failure = answer(&by_header, 500, &headers, r#"{"message":["a",{"b":1}]}"#).unwrap_err();
    assert_eq!(failure.support_id.unwrap().as_str(), "h-1");
    assert_eq!(failure.error.unwrap().as_str(), r#"["a",{"b":1}]"#);
}

#[test]
fn an_answer_that_says_that_there_is_more_is_incomplete() {
    let nested = json_list("items = \"/result/keys\"\nid = \"/id\"");
    let whole = json_list("items = \"\"\nid = \"/id\"");
    let keys = r#""keys":[{"id":"k"}]"#;
    for (body, is_whole) in [
        (format!(r#"{{"result":{{{keys}}}}}"#), true),
        (format!(r#"{{"result":{{"next":"/2",{keys}}}}}"#), false),
        (format!(r#"{{"result":{{{keys},"has_more":true}}}}"#), false),
        (
            format!(r#"{{"result":{{{keys},"has_more":false,"next":null}}}}"#),
            true,
        ),
        (
            format!(r#"{{"result":{{{keys},"meta":{{"total":2}}}}}}"#),
            false,
        ),
        (
            format!(r#"{{"result":{{{keys},"meta":{{"total":1}}}}}}"#),
            true,
        ),
        (
            format!(r#"{{"result":{{{keys},"quota":{{"total":2}}}}}}"#),
            true,
        ),
        (
            format!(r#"{{"result":{{{keys}}},"pagination":{{"next_cursor":"x"}}}}"#),
            false,
        ),
        (
            format!(r#"{{"result":{{{keys}}},"links":{{"self":"x"}}}}"#),
            true,
        ),
    ] {
        let reason = answer(&nested, 200, &[], &body)
            .err()
            .map(|failure| failure.reason);
        let expected = (!is_whole).then_some(Reason::Incomplete);
        assert_eq!(reason, expected, "{body}");
    }
    let in_list = json_list("items = \"/1/keys\"\nid = \"/id\"");
    for (beside, is_whole) in [
        (r#"{"next":2}"#, false),
        (r#"{"meta":{"total":2}}"#, false),
        (r#"{"next":null,"total":1}"#, true),
        ("7", true),
    ] {
        for body in [
            format!("[{beside},{{{keys}}}]"),
            format!("[null,{{{keys}}},{beside}]"),
        ] {
            let reason = answer(&in_list, 200, &[], &body).err();
            let reason = reason.map(|failure| failure.reason);
            let expected = (!is_whole).then_some(Reason::Incomplete);
            assert_eq!(reason, expected, "{body}");
        }
    }
    for (name, value, is_whole) in [
        ("link", "</keys?page=2>; rel=\"next\"", false),
        ("link", "</keys>; rel=\"self\"", true),
        ("x-total-count", "2", false),
        ("x-total-count", "1", true),
        ("x-next-page", "2", false),
    ] {
        let found = answer(&whole, 200, &[(name, value)], r#"[{"id":"k"}]"#);
        assert_eq!(found.is_ok(), is_whole, "{name}: {value}");
    }
    // Where the definition says how the listing goes on, that counts and nothing else.
    let cursor = json_list(
        "items = \"/keys\"\nid = \"/id\"\n\
         pagination = { kind = \"cursor\", at = \"/next\", param = \"after\" }",
    );
    let body = format!(r#"{{{keys},"next":"x","total":9}}"#);
    assert!(answer(&cursor, 200, &[], &body).is_ok());
}

#[test]
fn secrets_of_an_answer_never_leave_the_parser() {
    let secret = "Zm9ybXVsYS1vZi1jb2xh";
    let provider = json_list(
        "items = \"/data\"\nid = \"/id\"\nlabel = \"/name\"\nscopes = \"/scopes\"\nerror = \"/error\"",
    );
    let names = [
        "token", "secret", "key", "password", "value", "hash", "Secret",
    ];
    for name in names {
        let body = format!(
            r#"{{"{name}":"{secret}","data":[{{"id":"k","{name}":"{secret}","name":"n"}}]}}"#
        );
        let listed = format!("{:?}", answer(&provider, 200, &[], &body).unwrap());
        assert!(
            listed.contains("\"k\"") && !listed.contains(secret),
            "{listed}"
        );
        let body = format!(r#"{{"error":[{{"{name}":"{secret}","text":"no"}}]}}"#);
        let failure = format!("{:?}", answer(&provider, 400, &[], &body).unwrap_err());
        assert!(
            failure.contains("text") && !failure.contains(secret),
            "{failure}"
        );
    }
    // Whatever the spelling, and whatever repeats it.
    for (field, shown) in [
        (
            r#""token":"Zm9v\/YmFyYmF6cXV4MTIz""#,
            "Zm9v/YmFyYmF6cXV4MTIz",
        ),
        (r#""hash":"\u0041BCDefghijklmn55""#, "ABCDefghijklmn55"),
        (
            r#""password":"horse staple battery correct""#,
            "horse staple battery correct",
        ),
        (
            r#""SECRET":"SeCrEtCaseAbcdefgh1234""#,
            "SeCrEtCaseAbcdefgh1234",
        ),
        (
            r#""token":[0,"ArrayTokenAbcd998877"]"#,
            "ArrayTokenAbcd998877",
        ),
        (r#""value":123456789012345678"#, "123456789012345678"),
        (r#""tok\u0065n":"NameWithEscape4711""#, "NameWithEscape4711"),
    ] {
        let body = format!(
            r#"{{"data":[{{"id":"k","name":"my {shown}","scopes":["x {shown}"]}},{{"id":"l",{field}}}]}}"#
        );
        let listed = format!("{:?}", answer(&provider, 200, &[], &body).unwrap());
        assert!(
            listed.contains("\"l\"") && !listed.contains(shown),
            "{listed}"
        );
    }
    // A list of objects is not a secret, but a text of the same name is.
    let inside = json_list("items = \"/value\"\nid = \"/key/id\"\nlabel = \"/name\"");
    let body = r#"{"value":[{"key":{"id":"long-enough-id"},"name":"long-enough-id"},
        {"key":{"id":"other"},"name":"my Zm9vYmFyYmF6","key":"Zm9vYmFyYmF6"}]}"#;
    let listed = format!("{:?}", answer(&inside, 200, &[], body));
    assert!(listed.contains("long-enough-id"), "{listed}");
    assert!(!listed.contains("Zm9vYmFyYmF6"), "{listed}");
    let body = format!(r#"{{"data":[{{"id":"k","name":"my {TOKEN}","scopes":["{TOKEN}"]}}]}}"#);
    let listed = format!("{:?}", answer(&provider, 200, &[], &body).unwrap());
    assert!(!listed.contains("c2VjcmV0"), "{listed}");
    let body = format!(r#"{{"error":"bad token {TOKEN}"}}"#);
    let failure = format!("{:?}", answer(&provider, 401, &[], &body).unwrap_err());
    assert!(!failure.contains("c2VjcmV0"), "{failure}");
}

#[test]
fn odd_bytes_spoil_their_own_field_only() {
    let provider = json_list("items = \"\"\nid = \"/id\"\nlabel = \"/name\"");
    let body = "\u{feff}[{\"id\":\"a\",\"name\":\"\\ud83d\"},{\"id\":\"b\",\"name\":\"x\"}]";
    let listed = answer(&provider, 200, &[], body).unwrap();
    let labels = listed.listing.keys().iter().map(|key| key.label.as_deref());
    assert_eq!(labels.collect::<Vec<_>>(), [Some("\u{fffd}"), Some("x")]);
    let deep = format!(
        "[{{\"id\":\"a\",\"x\":{}1{}}}]",
        "[".repeat(9_000),
        "]".repeat(9_000)
    );
    assert_eq!(
        answer(&provider, 200, &[], &deep)
            .unwrap()
            .listing
            .keys()
            .len(),
        1
    );
}

#[test]
fn secrets_of_the_request_are_removed_from_the_answer() {
    let provider = json_list(
        "items = \"/data\"\nid = \"/id\"\nlabel = \"/name\"\nerror = \"/error\"\n\
         query = { api_key = \"QsEcReT&0123456789abc\", sort = \"displayName\" }\n\
         headers = { X-Secret = \"hunter2hunter\", Accept = \"application/vnd.acme+json\" }\n\
         auth = { prefix = \"Key Zk81mPq4Tw9x \" }",
    );
    for secret in ["QsEcReT&0123456789abc", "HUNTER2hunter", "Zk81mPq4Tw9x"] {
        let body = format!(r#"{{"data":[{{"id":"k","name":"a {secret}"}}]}}"#);
        let listed = format!("{:?}", answer(&provider, 200, &[], &body).unwrap());
        assert!(listed.contains("[redacted]"), "{listed}");
        assert!(!listed.contains(secret), "{listed}");
        let body = format!(r#"{{"error":"bad key {secret}"}}"#);
        let failure = format!("{:?}", answer(&provider, 401, &[], &body).unwrap_err());
        assert!(failure.contains("bad key [redacted]"), "{failure}");
    }
    let body = r#"{"data":[{"id":"k","name":"displayName application/vnd.acme+json"}]}"#;
    let listed = answer(&provider, 200, &[], body).unwrap().listing;
    let label = listed.keys()[0].label.as_deref();
    assert_eq!(label, Some("displayName application/vnd.acme+json"));
    let provider = Provider::Json(provider.into());
    let base_url = "https://api.acme.example/v2/".parse().unwrap();
    let identity = provider.identity(&base_url);
    assert!(
        identity.starts_with("https://api.acme.example/v2#"),
        "{identity}"
    );
    assert!(!identity.contains("api_key"), "{identity}");
    let other = json_list("query = { api_key = \"other\" }\nitems = \"/data\"\nid = \"/id\"");
    let other = Provider::Json(other.into());
    assert_ne!(other.identity(&base_url), identity);
}
