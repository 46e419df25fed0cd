//! `config check --live`: what was asked, what came back, what was understood.

use std::fs;
use std::process::Output;

use api_key_exporter::fake_api::{Authorization, FakeApi, Reply, Request};
use serde_json::{Value, json};

use crate::process::binary;
use crate::support::{Api, Folder, TOKEN, any_port, in_repository, key};

/// Runs the command with this configuration.
async fn check(name: &str, config: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = Folder::new(&format!("live-{name}"));
    let path = folder.file("config.toml", config).display().to_string();
    let mut command = binary(&["config", "check", "--config.file", &path]);
    command
        .args(arguments)
        .env("TOKEN", TOKEN)
        .current_dir(&folder.0);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap().unwrap();
    // Nothing but the configuration was written.
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn account(name: &str, url: &str, lines: &str) -> String {
    format!("[[accounts]]\nname = {name:?}\nbase_url = {url:?}\ntoken_env = \"TOKEN\"\n{lines}\n")
}

/// An API of the documented provider, which takes the token of all tests.
async fn acme(answer: impl FnMut(&Request) -> Reply + Send + 'static) -> FakeApi {
    let authorization = Authorization {
        header: "x-api-key".to_owned(),
        value: TOKEN.to_owned(),
        refusal: Reply::json(401, &json!({ "message": "unknown key" })),
    };
    let api = FakeApi::start_with(any_port(), authorization, answer).await;
    api.unwrap()
}

/// The code blocks of a language in the section about one's own provider.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string(in_repository("docs/providers.md")).unwrap();
    let (_, own) = page.split_once("## Your own provider").unwrap();
    let start = format!("```{language}\n");
    let blocks = own.split(&start).skip(1);
    let blocks = blocks.map(|block| block.split_once("```").unwrap().0.replace("\n   ", "\n"));
    blocks.map(|block| block.trim_start().to_owned()).collect()
}

/// The documentation shows what the program prints for the documented steps. To renew it, copy the
/// blocks from the failure message.
#[tokio::test]
async fn the_documented_steps_to_an_own_provider_give_the_documented_reports() {
    let first: Value = serde_json::from_str(&blocks("json")[0]).unwrap();
    let last = json!({ "result": { "keys": [{
        "key_id": "k4", "title": "job 4", "valid_until": "2027-01-15 00:00:00",
        "made": 1_767_225_604, "rights": "read", "state": "off", "token": "hidden"
    }] }, "next": null });
    let api = acme(move |request| {
        let page = if request.line.ends_with("?after=3") {
            &last
        } else {
            &first
        };
        Reply::json(200, page).header("X-Request-Id", "req-7")
    })
    .await;
    let url = format!("http://{}", api.address());
    let steps = blocks("toml partial");
    let (tried, all) = (steps[..2].concat(), steps.concat());
    let documented = blocks("console live");
    for ((config, code), documented) in [(tried, 2), (all, 0)].into_iter().zip(&documented) {
        let config = config
            .replace(
                "token_file = \"/run/secrets/acme\"",
                "token_env = \"TOKEN\"",
            )
            .replace("https://api.acme.example", &url);
        let (status, report, errors) = check("docs", &config, &["--live"]).await;
        let report = report.replace(&url, "https://api.acme.example");
        let command = "$ api-key-exporter config check --live --config.file config.toml";
        let shown = format!("{command}\n{report}");
        assert_eq!((status, errors.as_str()), (Some(code), ""), "{report}");
        assert_eq!(
            *documented, shown,
            "docs/providers.md should show:\n{shown}"
        );
    }
    assert_eq!(documented.len(), 2);
}

#[tokio::test]
async fn each_account_is_listed_once_and_a_failing_one_hides_no_other() {
    let mut odd = key("api_key_2");
    odd["expires_at"] = json!("tomorrow at 12:30");
    odd["scopes"] = json!("payments.read");
    odd["colour"] = json!("red");
    let mut never = key("api_key_3");
    never["expires_at"] = Value::Null;
    let good = Api::start(Reply::listing(&[key("api_key_1"), odd, never])).await;
    let busy = Api::start(Reply::error(500, "An unexpected error", "support_7")).await;
    let strict = Api::start(Reply::json(401, &json!({ "message": "401 Unauthorized" }))).await;
    let down = crate::prometheus::free();
    let gitlab = "provider = \"gitlab\"";
    let config = account("good", &good.url(), "")
        + &account("busy", &busy.url(), "")
        + &account("strict", &strict.url(), gitlab)
        + &account("down", &format!("http://{down}"), "");
    let (status, report, errors) = check("several", &config, &["--live"]).await;
    assert_eq!((status, errors.as_str()), (Some(2), ""), "{report}");
    let parts: Vec<&str> = report.split("\naccount ").skip(1).collect();
    let [of_good, of_busy, of_strict, of_down] = parts[..] else {
        panic!("{report}")
    };
    for (part, expected) in [
        (of_good, "\"good\" (bitgpt): 3 keys"),
        (of_good, "/developers/api_keys\n"),
        (of_good, "answer       HTTP 200, "),
        (of_good, "entries      3; 1 key with an unreadable field\n"),
        (of_good, "not read     /colour\n"),
        (
            of_good,
            "hint         expires_at cannot be read in 1 of 3 entries",
        ),
        (of_busy, "\"busy\" (bitgpt): FAILED, server_error"),
        (of_busy, "An unexpected error"),
        (of_busy, "support_id support_7"),
        (of_strict, "\"strict\" (gitlab): FAILED, unauthorized"),
        (of_strict, "/api/v4/personal_access_tokens?"),
        (of_strict, "failure      HTTP 401, "),
        (of_strict, "hint         the API does not accept the token"),
        (of_strict, "docs/providers.md, gitlab"),
        (of_down, "\"down\" (bitgpt): FAILED, connect"),
        (of_down, "hint         check host and port in base_url"),
    ] {
        assert!(part.contains(expected), "{expected:?} is not in\n{part}");
    }
    let row = |name: &str| {
        let line = of_good
            .lines()
            .find(|line| line.starts_with(&format!("  {name} ")));
        let words: Vec<&str> = line.unwrap().split_whitespace().skip(1).collect();
        words.join(" ")
    };
    assert_eq!(row("id"), "/id 3 - 3");
    // BitGPT's null and a missing field mean the same.
    let expiry = "/expires_at 2 - 1 latest 2099-01-01 00:00 UTC; never expires: 1; \
                  unreadable: like \"aaaaaaaa aa 00:00\"";
    assert_eq!(row("expires_at"), expiry);
    assert_eq!(row("scopes"), "/scopes 3 - 2 unreadable: no list");
    assert_eq!(row("created_at"), "/created_at 0 - 0");
    for api in [&good, &busy, &strict] {
        assert_eq!(api.requests().len(), 1);
    }
}

/// A field is found only where it is present, an entry that is not an object has no field, and a
/// body that was not read has no size.
#[tokio::test]
async fn entries_are_counted_by_what_they_are_and_failures_have_a_remedy() {
    let mixed = json!({ "items": [
        { "id": "a", "in": { "name": "A" } }, { "id": "b", "in": "B" }, { "id": "a" },
        { "in": { "name": "C" } }, 5, 6, "text", [1], null
    ] });
    let api = acme(move |request| match request.line.split(' ').nth(1) {
        Some("/mixed") => Reply::json(200, &mixed),
        Some("/numbers") => Reply::json(200, &json!({ "items": [1, true] })),
        Some("/nested/") => Reply::json(200, &json!({ "items": [7, { "id": "n" }] })),
        Some("/page") => Reply::body(403, "text/html", "<html>Just a moment</html>"),
        Some("/slow") => Reply::json(429, &json!({})),
        Some("/moved") => Reply::body(302, "text/plain", "moved"),
        _ => Reply::body(200, "application/json", r#"{"items":[{"id":"#),
    })
    .await;
    let url = format!("http://{}", api.address());
    let definition = "auth = { header = \"X-Api-Key\", prefix = \"\" }\n\
        path = \"/{tenant}\"\nitems = \"/items\"\nid = \"/id\"\nlabel = \"/in/name\"\n\
        expires_at = { at = \"/end\", format = \"unix\", never = [\"absent\"] }\n";
    let mut config = String::new();
    for name in ["mixed", "numbers", "page", "slow", "moved", "cut"] {
        let lines = format!("provider = \"acme\"\nparams = {{ tenant = {name:?} }}");
        config += &account(name, &url, &lines);
    }
    let nested = definition.replace("/{tenant}", "/");
    config += &account("nested", &format!("{url}/nested"), "provider = \"nested\"");
    config += &[
        "[providers.acme]\n",
        definition,
        "[providers.nested]\n",
        &nested,
        "nested = \"/keys\"\n",
    ]
    .concat();
    let (status, report, errors) = check("types", &config, &["--live"]).await;
    assert_eq!((status, errors.as_str()), (Some(2), ""), "{report}");
    let parts: Vec<&str> = report.split("\naccount ").skip(1).collect();
    let [mixed, numbers, page, slow, moved, cut, nested] = parts[..] else {
        panic!("{report}")
    };
    for (part, expected) in [
        (
            mixed,
            "entries      9; 7 entries left out: 1 without a usable id, 1 with the id of another \
             entry, 5 not an object or with a field twice; 1 key with an unreadable field\n",
        ),
        (mixed, "  id          /id             3        0        3\n"),
        (
            mixed,
            "  label       /in/name        2        0        1  \
             unreadable: a value on the path to it is not an object\n",
        ),
        (mixed, "hint         2 entries are numbers, not objects\n"),
        (mixed, "hint         1 entry is a text, not an object\n"),
        (mixed, "hint         1 entry is a list, not an object\n"),
        (mixed, "hint         1 entry is a null, not an object\n"),
        (
            numbers,
            "  id          /id             0        0        0\n",
        ),
        (
            numbers,
            "hint         1 entry is a boolean, not an object\n",
        ),
        (
            page,
            "failure      HTTP 403: Forbidden, and not from the API: ",
        ),
        (page, "hint         something in front of the API answered"),
        (slow, "failure      HTTP 429, 2 bytes: Too Many Requests\n"),
        (slow, "hint         wait, then list less often"),
        (moved, "hint         redirects are not followed"),
        (cut, "hint         the API answers with JSON"),
        (nested, "hint         1 entry is a number, not an object\n"),
    ] {
        assert!(part.contains(expected), "{expected:?} is not in\n{part}");
    }
    assert!(!numbers.contains("check the pointer"), "{numbers}");
}

#[tokio::test]
async fn an_invalid_configuration_is_not_tried_and_live_needs_the_tokens() {
    let api = Api::start(Reply::listing(&[key("a")])).await;
    let config = account("a", &api.url(), "") + "[poll]\ninterval = \"1s\"\n";
    let (status, _, errors) = check("invalid", &config, &["--live"]).await;
    assert_eq!(status, Some(2), "{errors}");
    assert!(errors.contains("poll.interval"), "{errors}");
    let config = account("a", &api.url(), "");
    let (status, _, errors) = check("tokens", &config, &["--live", "--skip-tokens"]).await;
    assert_eq!(status, Some(2), "{errors}");
    let (status, report, _) = check("offline", &config, &[]).await;
    assert_eq!(status, Some(0), "{report}");
    assert_eq!(api.requests().len(), 0);
}

/// Secrets in fields that the definition points at by mistake, in names, in the path and in
/// messages.
#[tokio::test]
async fn no_report_shows_a_secret() {
    let secret = "Zx9-qWmK2vLp7RtYb4NcD8sFgH3jJ6";
    let entries = json!([
        { "id": "a", "token": secret, "name": ["x", secret], "expiry": format!("{secret} 1"),
          "made": secret, TOKEN: 1, "rights": [7, secret], "deep": { (secret): { "x": 1 } } },
        { "id": secret, "token": secret },
        { "id": TOKEN },
    ]);
    let api = acme(move |_| {
        Reply::json(
            200,
            &json!({ "items": entries, "note": secret, TOKEN: secret }),
        )
        .header("X-Request-Id", TOKEN)
    })
    .await;
    let url = format!("http://{}", api.address());
    let definition = "[providers.acme]\npath = \"/{tenant}\"\nquery = { q = \"{tenant}\" }\n\
        auth = { header = \"X-Api-Key\", prefix = \"\" }\n\
        items = \"/items\"\nid = \"/id\"\nlabel = \"/name\"\nscopes = \"/rights\"\n\
        expires_at = { at = \"/expiry\", format = \"date\" }\n\
        created_at = { at = \"/made\", format = \"unix\" }\n\
        support_id = { header = \"x-request-id\" }\n";
    let params = format!("provider = \"acme\"\nparams = {{ tenant = \"{TOKEN}\" }}");
    for definition in [
        definition.to_owned(),
        definition.replace("\"/items\"", "\"/others\""),
    ] {
        let config = account("a", &url, &params) + &definition;
        let (status, report, errors) = check("secrets", &config, &["--live"]).await;
        assert!(matches!(status, Some(0 | 2)), "{errors}");
        assert!(report.contains("account \"a\" (acme)"), "{report}");
        for hidden in [secret, TOKEN] {
            for part in hidden.as_bytes().windows(12) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!report.contains(part), "{part}:\n{report}");
            }
        }
    }
}
