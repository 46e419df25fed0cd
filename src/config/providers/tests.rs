//! Valid and invalid definitions, each option by itself.

use super::*;
use crate::config::tests::{load, problems};

/// A definition with only the required options.
const LEAST: &str = "path = \"/keys\"\nitems = \"/data\"\nid = \"/id\"\n";

fn read(options: &str) -> Definition {
    definition_of("acme", &format!("{LEAST}{options}"))
        .unwrap_or_else(|problems| panic!("{options}: {problems:?}"))
}

/// The problems of a definition with these options in addition to [`LEAST`].
fn wrong(options: &str) -> Vec<String> {
    let text = format!("{LEAST}{options}");
    let problems = definition_of("acme", &text).expect_err(options);
    problems.iter().map(ToString::to_string).collect()
}

fn at(pointer: &str) -> Pointer {
    Pointer::parse(pointer).unwrap()
}

fn place(text: &str) -> Place {
    Place::parse_many(text).unwrap()
}

#[test]
fn every_built_in_definition_is_good() {
    for (name, text) in BUILT_IN {
        if let Err(problems) = definition_of(name, text) {
            panic!("{name}: {problems:?}");
        }
    }
    let names = BUILT_IN.map(|(name, _)| name);
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_example_of_the_documentation_is_read_whole() {
    let config = load(
        r#"
        [[accounts]]
        name = "acme"
        provider = "acme"
        params = { tenant = "t/1" }
        token_env = "TOKEN"
        [providers.acme]
        base_url = "https://api.acme.example"
        path = "/v1/{tenant}/tokens"
        query = { include_expired = "true", tag = "a&{tenant}" }
        auth = { header = "X-Api-Key", prefix = "" }
        headers = { Accept = "application/vnd.acme.v3+json" }
        items = "/data"
        nested = "/credentials"
        id = "/id"
        label = "^/name"
        expires_at = { at = "/expires", format = "rfc3339", never = ["absent", "null", "", 0, -1] }
        created_at = { at = "/created", format = "unix" }
        updated_at = { at = "/updated", format = "date", ends = "end_of_day" }
        last_used_at = { at = "/used", format = "naive_utc" }
        scopes = { at = "/scopes", split = " " }
        ip_allow_list = "/condition/*/in"
        disabled = [{ at = "/revoked", is = true }, { at = "/status", is_not = "active" }, { at = "/revoked_at", is_set = true }, { at = "/code", is = 3 }]
        support_id = { header = "x-request-id" }
        error = "/message"
        privileged_scopes = ["admin", "*:write"]
        pagination = { kind = "none" }
        "#,
        &[],
    )
    .unwrap();
    let account = &config.accounts[0];
    assert_eq!(account.base_url.as_str(), "https://api.acme.example/");
    let Provider::Json(json_list) = &account.provider else {
        panic!("{account:?}");
    };
    let path = "/v1/t%2F1/tokens?include_expired=true&tag=a%26t%2F1";
    assert_eq!(json_list.request().path, path);
    let [(name, value)] = json_list.request().headers.as_slice() else {
        panic!("{json_list:?}");
    };
    assert_eq!(
        (name.as_str(), value.as_bytes()),
        ("accept", &b"application/vnd.acme.v3+json"[..])
    );
    let definition = json_list.definition();
    let profile = &definition.profile;
    assert_eq!(
        (&*profile.name, &*profile.auth_header, &*profile.auth_prefix),
        ("acme", "x-api-key", "")
    );
    assert_eq!(*profile.privileged_scopes, ["admin", "*:write"]);
    assert_eq!(definition.items, at("/data"));
    assert_eq!(definition.nested, Some(at("/credentials")));
    assert_eq!(definition.error, Some(at("/message")));
    let header = SupportId::Header(HeaderName::from_static("x-request-id"));
    assert_eq!(definition.support_id, Some(header));
    let never = |texts: &[&str]| {
        let texts = texts.iter().map(|text| Never::Text((*text).to_owned()));
        [Never::Absent, Never::Null]
            .into_iter()
            .chain(texts)
            .collect()
    };
    let time = |place_text: &str, format, nevers: &[&str]| {
        Some(TimePlace {
            place: place(place_text),
            format,
            never: never(nevers),
        })
    };
    let condition = |place_text: &str, test| Condition {
        place: place(place_text),
        test,
    };
    let ends = DateEnds::EndOfDay;
    let expected = FactPlaces {
        id: place("/id"),
        label: Some(place("^/name")),
        expires_at: time("/expires", TimeFormat::Rfc3339, &["", "0", "-1"]),
        created_at: time("/created", TimeFormat::Unix, &[]),
        updated_at: time("/updated", TimeFormat::Date { ends }, &[]),
        last_used_at: time("/used", TimeFormat::NaiveUtc, &[]),
        scopes: Some(TextsPlace {
            place: place("/scopes"),
            split: Some(" ".to_owned()),
        }),
        ip_allow_list: Some(TextsPlace {
            place: place("/condition/*/in"),
            split: None,
        }),
        disabled: vec![
            condition("/revoked", Test::Is(Scalar::Bool(true))),
            condition("/status", Test::IsNot(Scalar::Text("active".to_owned()))),
            condition("/revoked_at", Test::IsSet(true)),
            condition("/code", Test::Is(Scalar::Integer(3))),
        ],
    };
    assert_eq!(definition.facts, expected);
}

#[test]
fn what_a_definition_leaves_out_has_defaults() {
    let definition = read("");
    let profile = &definition.profile;
    assert_eq!(
        (
            &profile.base_url,
            &*profile.auth_header,
            &*profile.auth_prefix
        ),
        (&None, "authorization", "Bearer ")
    );
    assert_eq!(definition.pagination, Pagination::None);
    assert_eq!(definition.facts.scopes, None);
    let basic = read("auth = { basic = true }").profile;
    assert_eq!(
        (&*basic.auth_header, &*basic.auth_prefix, basic.token_form),
        ("authorization", "Basic ", TokenForm::Base64)
    );
    let prefix = read("auth = { prefix = \"ApiKey \" }").profile;
    assert_eq!(
        (&*prefix.auth_header, &*prefix.auth_prefix),
        ("authorization", "ApiKey ")
    );
}

#[test]
fn every_pagination_is_read() {
    let with = |options: &str| read(&format!("pagination = {{ {options} }}")).pagination;
    let page = |page_param: &str, size: Option<(&str, u64)>, end| Pagination::Page {
        page_param: page_param.to_owned(),
        first: 1,
        size: size.map(|(param, size)| (param.to_owned(), size)),
        end,
    };
    for (options, expected) in [
        ("kind = \"none\"", Pagination::None),
        ("kind = \"link\"", Pagination::Link),
        (
            "kind = \"next_url\", at = \"/links/next\"",
            Pagination::NextUrl {
                at: at("/links/next"),
            },
        ),
        ("kind = \"page\"", page("page", None, PageEnd::EmptyPage)),
        (
            "kind = \"page\", page_param = \"p\", size_param = \"n\", size = 50, total = \"/total\"",
            page("p", Some(("n", 50)), PageEnd::Total(at("/total"))),
        ),
        (
            "kind = \"page\", size = 100, total_header = \"X-Total\"",
            page(
                "page",
                Some(("per_page", 100)),
                PageEnd::TotalHeader(HeaderName::from_static("x-total")),
            ),
        ),
        (
            "kind = \"page\", pages = \"/meta/pages\"",
            page("page", None, PageEnd::Pages(at("/meta/pages"))),
        ),
        (
            "kind = \"cursor\", at = \"/next\", param = \"after\", has_more = \"/more\"",
            Pagination::Cursor {
                at: at("/next"),
                param: "after".to_owned(),
                has_more: Some(at("/more")),
            },
        ),
        (
            "kind = \"offset\", size = 10, total = \"/total\"",
            Pagination::Offset {
                offset_param: "offset".to_owned(),
                size: Some(("limit".to_owned(), 10)),
                total: Some(at("/total")),
            },
        ),
    ] {
        assert_eq!(with(options), expected, "{options}");
    }
}

#[test]
fn each_bad_option_is_named_with_its_path_its_value_and_what_would_be_right() {
    for (options, start, end) in [
        (
            "colour = 1",
            "colour (file acme:4:1)",
            "unknown option; valid here: base_url, path",
        ),
        (
            "base_url = \"ftp://x\"",
            "base_url = \"ftp://x\"",
            "must be an https:// URL",
        ),
        (
            "base_url = \"http://api.acme.example\"",
            "base_url = ",
            "must be an https:// URL",
        ),
        ("nested = \"x\"", "nested = \"x\"", "must be a JSON pointer"),
        ("nested = \"\"", "nested = \"\"", "must be a JSON pointer"),
        (
            "error = \"/a~2\"",
            "error = \"/a~2\"",
            "must be a JSON pointer",
        ),
        (
            "error = \"/a/*\"",
            "error = \"/a/*\"",
            "must be a JSON pointer",
        ),
        (
            "label = \"name\"",
            "label = \"name\"",
            "must be a JSON pointer",
        ),
        ("label = \"/*\"", "label = \"/*\"", "must be a JSON pointer"),
        ("label = \"^/name\"", "label", "^ is for the outer item"),
        (
            "query = \"a=b\"",
            "query",
            "must be a table of query parameters",
        ),
        ("query = { a = [1] }", "query.a", "must be query parameters"),
        (
            "query = { \"a b\" = \"c\" }",
            "query.a b",
            "must be query parameters",
        ),
        (
            "query = { a = \"{b\" }",
            "query.a",
            "must be query parameters",
        ),
        (
            "headers = { \"a b\" = \"c\" }",
            "headers.a b",
            "must be headers",
        ),
        (
            "headers = { Host = \"c\" }",
            "headers.Host",
            "must be headers",
        ),
        (
            "headers = { Accept-Encoding = \"gzip\" }",
            "headers.Accept-Encoding",
            "must be headers",
        ),
        (
            "headers = { A = \"b\\nc\" }",
            "headers.A",
            "must be headers",
        ),
        ("headers = { A = \"\" }", "headers.A", "must be headers"),
        (
            "params = { \"a b\" = \"c\" }",
            "params.a b",
            "must be parameters",
        ),
        (
            "params = { a = \"b\" }",
            "params.a",
            "path, query and headers have no such name",
        ),
        ("auth = \"x\"", "auth", "must be { header"),
        (
            "auth = { header = \"a b\" }",
            "auth.header = \"a b\"",
            "must be the name of a header",
        ),
        (
            "auth = { header = \"Host\" }",
            "auth.header = \"Host\"",
            "must be the name of a header",
        ),
        (
            "auth = { prefix = \"é\" }",
            "auth.prefix",
            "must be printable ASCII",
        ),
        (
            "auth = { basic = \"yes\" }",
            "auth.basic = \"yes\"",
            "must be true or false",
        ),
        (
            "auth = { basic = true, prefix = \"\" }",
            "auth.basic",
            "basic authentication sets",
        ),
        ("auth = { token = \"x\" }", "auth.token", "unknown option"),
        (
            "expires_at = \"/x\"",
            "expires_at = \"/x\"",
            "must be a table such as",
        ),
        (
            "expires_at = { format = \"unix\" }",
            "expires_at.at",
            "is missing: must be a JSON",
        ),
        (
            "expires_at = { at = \"/x\" }",
            "expires_at.format",
            "is missing: must be one of",
        ),
        (
            "expires_at = { at = \"/x\", format = \"iso\" }",
            "expires_at.format = \"iso\"",
            "must be",
        ),
        (
            "expires_at = { at = \"/x\", format = \"unix\", ends = \"end_of_day\" }",
            "expires_at.ends",
            "is for format = \"date\" only",
        ),
        (
            "expires_at = { at = \"/x\", format = \"date\", ends = \"noon\" }",
            "expires_at.ends = \"noon\"",
            "must be \"start_of_day\"",
        ),
        (
            "expires_at = { at = \"/x\", format = \"date\", never = \"null\" }",
            "expires_at.never = \"null\"",
            "must be a list of the values",
        ),
        (
            "expires_at = { at = \"/x\", format = \"date\", never = [1.5] }",
            "expires_at.never",
            "must be a list of the values",
        ),
        (
            "expires_at = { at = \"/x\", format = \"date\", zone = 1 }",
            "expires_at.zone",
            "unknown option",
        ),
        ("scopes = 1", "scopes = 1", "must be a JSON pointer"),
        ("scopes = \"a\"", "scopes = \"a\"", "must be a JSON pointer"),
        ("scopes = { split = \" \" }", "scopes.at", "is missing"),
        (
            "scopes = { at = \"/s\", split = \"\" }",
            "scopes.split = \"\"",
            "must be 1 to 8",
        ),
        (
            "ip_allow_list = \"/a/~\"",
            "ip_allow_list = \"/a/~\"",
            "must be a JSON pointer",
        ),
        (
            "disabled = { at = \"/x\", is = 1 }",
            "disabled",
            "must be a list of conditions",
        ),
        ("disabled = [{ is = 1 }]", "disabled[0].at", "is missing"),
        (
            "disabled = [{ at = \"/x\" }]",
            "disabled[0].at",
            "must be combined with one of is",
        ),
        (
            "disabled = [{ at = \"/x\", is = 1, is_not = 2 }]",
            "disabled[0].at",
            "must be combined",
        ),
        (
            "disabled = [{ at = \"/x\", is = [] }]",
            "disabled[0].is",
            "must be true, false",
        ),
        (
            "disabled = [{ at = \"/x\", is_set = \"no\" }]",
            "disabled[0].is_set",
            "must be true",
        ),
        (
            "disabled = [\"/x\"]",
            "disabled",
            "must be a list of conditions",
        ),
        (
            "support_id = \"x\"",
            "support_id = \"x\"",
            "must be { header",
        ),
        ("support_id = {}", "support_id.at", "is missing"),
        (
            "support_id = { header = \"a b\" }",
            "support_id.header = \"a b\"",
            "must be the name",
        ),
        (
            "support_id = { header = \"a\", at = \"/b\" }",
            "support_id.at",
            "header is set too",
        ),
        (
            "support_id = { at = \"/data/0\" }",
            "support_id.at = \"/data/0\"",
            "must point beside",
        ),
        (
            "privileged_scopes = \"admin\"",
            "privileged_scopes = \"admin\"",
            "must be a list",
        ),
        (
            "privileged_scopes = [\"\"]",
            "privileged_scopes = \"\"",
            "must be a pattern",
        ),
        (
            "pagination = \"link\"",
            "pagination = \"link\"",
            "must be a table such as",
        ),
        (
            "pagination = {}",
            "pagination.kind",
            "is missing: must be one of \"none\"",
        ),
        (
            "pagination = { kind = \"pages\" }",
            "pagination.kind = \"pages\"",
            "must be one of",
        ),
        (
            "pagination = { kind = \"link\", size = 1 }",
            "pagination.size",
            "unknown option",
        ),
        (
            "pagination = { kind = \"next_url\" }",
            "pagination.at",
            "is missing",
        ),
        (
            "pagination = { kind = \"next_url\", at = \"/data/next\" }",
            "pagination.at = \"/data/next\"",
            "must point beside the list",
        ),
        (
            "pagination = { kind = \"next_url\", at = \"\" }",
            "pagination.at = \"\"",
            "must point beside the list",
        ),
        (
            "pagination = { kind = \"page\", page_param = \"p\", size_param = \"p\", size = 5 }",
            "pagination.size_param = \"p\"",
            "must differ",
        ),
        (
            "pagination = { kind = \"offset\", offset_param = \"limit\", size = 5 }",
            "pagination.size_param = \"limit\"",
            "must differ",
        ),
        (
            "pagination = { kind = \"page\", size = 0 }",
            "pagination.size = 0",
            "must be a whole",
        ),
        (
            "pagination = { kind = \"page\", size_param = \"n\" }",
            "pagination.size_param",
            "size is",
        ),
        (
            "pagination = { kind = \"page\", page_param = \"a=b\" }",
            "pagination.page_param",
            "must be",
        ),
        (
            "pagination = { kind = \"page\", total = \"/t\", pages = \"/p\" }",
            "pagination.pages",
            "set one of total",
        ),
        (
            "pagination = { kind = \"page\", total_header = \"a b\" }",
            "pagination.total_header",
            "must be the name of a header",
        ),
        (
            "pagination = { kind = \"page\" }\nquery = { page = \"2\" }",
            "query.page",
            "pagination sets this parameter",
        ),
        (
            "pagination = { kind = \"cursor\", at = \"/c\" }",
            "pagination.param",
            "is missing",
        ),
        (
            "pagination = { kind = \"cursor\", param = \"c\" }",
            "pagination.at",
            "is missing",
        ),
        (
            "pagination = { kind = \"offset\", total_header = \"x\" }",
            "pagination.total_header",
            "unknown option",
        ),
    ] {
        let problems = wrong(options);
        let [problem] = problems.as_slice() else {
            panic!("{options}: {problems:?}");
        };
        let (found, words) = problem.split_once(": ").unwrap_or((problem, ""));
        assert!(found.starts_with(start), "{options}: {problem}");
        assert!(words.starts_with(end), "{options}: {problem}");
    }
}

#[test]
fn what_a_definition_needs_is_asked_for() {
    let problems = definition_of("acme", "").unwrap_err();
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let starts = ["path: is missing", "items: is missing", "id: is missing"];
    assert_eq!(problems.len(), starts.len(), "{problems:?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
    for path in [
        "keys",
        "",
        "/a?b=c",
        "/a#b",
        "/a b",
        "/../keys",
        "/a/%2e%2E/b",
        "/{",
        "/{}",
    ] {
        let text = format!("path = {path:?}\nitems = \"\"\nid = \"/id\"");
        let problems = definition_of("acme", &text).unwrap_err();
        assert_eq!(problems.len(), 1, "{path}: {problems:?}");
    }
}

/// An account of the provider with these options, and its definition.
fn with_account(account: &str, definition: &str) -> String {
    format!(
        "[[accounts]]\nname = \"a\"\ntoken_env = \"TOKEN\"\nprovider = \"acme\"\n{account}\n\
         [providers.acme]\nid = \"/id\"\nitems = \"\"\n{definition}"
    )
}

#[test]
fn parameters_are_filled_exactly() {
    let definition = "base_url = \"https://a.example\"\npath = \"/{org}/{team}/keys\"\n\
                      params = { team = \"-\" }";
    let load_with = |params: &str| load(&with_account(params, definition), &[]);
    let path = |params: &str| {
        let config = load_with(params).unwrap();
        match &config.accounts[0].provider {
            Provider::Json(json_list) => json_list.request().path.clone(),
            Provider::BitGpt => panic!("another provider"),
        }
    };
    assert_eq!(path("params = { org = \"x\" }"), "/x/-/keys");
    assert_eq!(path("params = { org = \"x\", team = 7 }"), "/x/7/keys");
    for (params, expected) in [
        ("", "params.org"),
        ("params = { team = \"x\" }", "params.org"),
        ("params = { org = \"\" }", "params.org"),
        ("params = { org = \"x\", tenant = \"y\" }", "params.tenant"),
        ("params = { org = \"..\" }", "params.org"),
        ("params = { org = \"a\\u0000\" }", "params.org"),
        ("params = \"x\"", "params"),
    ] {
        let problems = load_with(params).unwrap_err();
        let of_params = problems.iter().filter(|it| it.contains(expected));
        assert!(of_params.count() >= 1, "{params}: {problems:?}");
    }
    let native = "[[accounts]]\ntoken_env = \"TOKEN\"\nparams = { org = \"x\" }";
    let found = problems(native, &[]);
    assert!(found[0].contains("has no such parameter"), "{found:?}");
}

#[test]
fn an_address_comes_from_the_account_where_the_definition_has_none() {
    let path = "path = \"/keys\"";
    let found = load(&with_account("", path), &[]).unwrap_err();
    assert!(found[0].contains("base_url"), "{found:?}");
    assert!(found[0].contains("is missing"), "{found:?}");
    let config = load(&with_account("base_url = \"https://b.example\"", path), &[]).unwrap();
    assert_eq!(config.accounts[0].base_url.as_str(), "https://b.example/");
}

#[test]
fn one_s_own_definition_replaces_one_of_the_same_name() {
    let text = "[[accounts]]\ntoken_env = \"TOKEN\"\n[providers.bitgpt]\n\
                base_url = \"https://own.example\"\npath = \"/keys\"\nitems = \"\"\nid = \"/id\"";
    let config = load(text, &[]).unwrap();
    assert_eq!(config.accounts[0].base_url.as_str(), "https://own.example/");
}

#[test]
fn a_broken_definition_is_one_problem_and_its_accounts_are_none() {
    let text = with_account("", "path = \"keys\"");
    let found = problems(&text, &[]);
    let [problem] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(
        problem.starts_with("providers.acme.path = \"keys\""),
        "{problem}"
    );
    let found = problems(
        "[[accounts]]\ntoken_env = \"TOKEN\"\n[providers.\"a b\"]\n",
        &[],
    );
    assert!(
        found[0].starts_with("providers.a b: the name must be"),
        "{found:?}"
    );
    let found = problems(
        "[[accounts]]\ntoken_env = \"TOKEN\"\n[providers]\nacme = 1\n",
        &[],
    );
    assert!(found[0].starts_with("providers.acme = 1"), "{found:?}");
}

#[test]
fn basic_authentication_needs_a_user_and_a_password() {
    let definition = "base_url = \"https://a.example\"\npath = \"/keys\"\nauth = { basic = true }";
    let text = with_account("", definition);
    let found = problems(&text, &[]);
    assert!(found[0].contains("must hold user:password"), "{found:?}");
    assert!(load(&text, &[("TOKEN", "robot:hunter2hunter2")]).is_ok());
}

#[test]
fn privileged_scopes_are_those_of_the_provider_unless_the_policy_names_some() {
    let definition = "base_url = \"https://a.example\"\npath = \"/keys\"\n\
                      privileged_scopes = [\"admin\"]";
    let text = with_account("", definition);
    let rules = load(&text, &[]).unwrap().assessment_rules;
    let admin = Glob::parse("admin").unwrap();
    assert_eq!(rules.privileged_scopes.get("a"), Some(&[admin].into()));
    assert_eq!(rules.policy.privileged_scopes, None);
    let rules = load(&format!("policy.privileged_scopes = []\n{text}"), &[]).unwrap();
    let of_all = &rules.assessment_rules.policy.privileged_scopes;
    assert_eq!(*of_all, Some([].into()));
}
