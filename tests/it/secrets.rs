//! Searches everything that the exporter says for everything that is secret.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use serde_json::{Value, json};

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, TOKEN, client};

/// A secret that the API should never send whole, and does.
const FULL: &str = "sk_live_RlVMTC1TRUNSRVQtb2YtYS1rZXktdGhhdC1pcy1ub3Qtb3Vycw.qWeRt";

/// One that is masked, as documented.
const MASKED: &str = "sk_test_TUFTS0VEc2Vj...mAsKd";

/// What may stand nowhere: any telling part of any of them.
fn telling_parts() -> [&'static str; 7] {
    [
        &TOKEN[8..20],
        &TOKEN[TOKEN.len() - 5..],
        "RlVMTC1TRUNS",
        "qWeRt",
        "TUFTS0VEc2Vj",
        "mAsKd",
        "sk_live_",
    ]
}

fn assert_clean(what: &str, text: &str) {
    for part in telling_parts() {
        assert!(!text.contains(part), "{what} shows {part:?}:\n{text}");
    }
}

/// Every place of an envelope holds a secret.
fn envelope(status: u16, data: &Value) -> Value {
    json!({
        "status": status, "data": data, "error": if status == 200 { Value::Null } else { json!(FULL) },
        "log": { FULL: FULL, "token": TOKEN }, "validator": { "secret": FULL },
        "support_id": format!("support_{TOKEN}"), "message": format!("Your key {FULL} and {MASKED}"),
        "env": FULL
    })
}

#[test]
fn a_key_that_is_put_where_a_path_belongs_is_not_repeated() {
    let folder = Folder::new("pasted");
    let config = folder.0.join("config.toml");
    fs::write(&config, format!("[[accounts]]\ntoken_file = \"{FULL}\"\n")).unwrap();
    let file = format!("--config.file={}", config.display());
    let flag = format!("--config.file={FULL}");
    let cases: [(&[&str], Option<&str>); 4] = [
        (&["config", "check"], Some(FULL)),
        (&[&file, "config", "check"], None),
        (&[&file, "run"], None),
        (&[&flag, "run"], None),
    ];
    for (arguments, token_file) in cases {
        let mut command = binary(arguments);
        command.envs(token_file.map(|path| ("BITGPT_API_KEY_FILE", path)));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("[redacted]"), "{said}");
        assert_clean("an error", &said);
    }
}

#[test]
fn no_value_of_an_option_shows_a_password() {
    let folder = Folder::new("passwords");
    let account = "[[accounts]]\nname = \"shop\"\ntoken_env = \"MY_TOKEN\"\n";
    let urls = [
        "https://user:hunter2@proxy:3128",
        "https://user:hun ter2hunter2@proxy",
        "socks5://user:hunter2@proxy",
        "user:hunter2@proxy",
        "http:user:hunter2@proxy",
        "https://user:hunter2",
        "https://proxy/?password=hunter2",
        "https://proxy:none/?password=hunter2",
        "http://user:p@hunter2@proxy/a?b#hunter2",
        "https://proxy/path;token=hunter2",
        "https://proxy;hunter2",
    ];
    for url in urls {
        for option in [
            "poll.interval = \"URL\"",
            "web.listen_addresses = [\"URL\"]",
            "web.telemetry_path = \"URL\"",
            "log.level = \"URL\"",
            "inventory_file = \"URL\"",
            "proxy = \"URL\"",
            "proxy = URL",
            "proxy_url = \"URL",
            "ACCOUNTproxy_url = \"URL\"",
            "ACCOUNTbase_url = \"URL\"",
            "ACCOUNTexpected_env = \"URL\"",
            "[[accounts]]\ntoken_env = \"MY_TOKEN\"\nname = \"URL\"",
            "web.external_url = \"URL\"",
            "state.directory = \"URL\"",
            "ACCOUNTtoken_file = \"URL\"",
            "ACCOUNT[[keys]]\nmatch = \"a\"\nrunbook_url = \"URL\"",
        ] {
            let text = option.replace("ACCOUNT", account).replace("URL", url);
            let path = folder.file("config.toml", &text).display().to_string();
            for command in ["check", "show"] {
                let mut command = binary(&["config", command, "--config.file", &path]);
                let output = command.env("MY_TOKEN", TOKEN).output().unwrap();
                let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
                assert!(!said.is_empty());
                assert!(!said.contains("hunter2"), "{text}: {said}");
            }
        }
        for variable in [
            "API_KEY_EXPORTER__POLL__INTERVAL",
            "API_KEY_EXPORTER__ACCOUNTS__0__PROXY_URL",
            "API_KEY_EXPORTER__WEB__EXTERNAL_URL",
            "API_KEY_EXPORTER__NONSENSE",
            "HTTPS_PROXY",
        ] {
            let path = folder.file("config.toml", account).display().to_string();
            for command in ["check", "show"] {
                let mut command = binary(&["config", command, "--config.file", &path]);
                let output = command.env("MY_TOKEN", TOKEN).env(variable, url);
                let output = output.output().unwrap();
                let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
                assert!(!said.is_empty());
                assert!(!said.contains("hunter2"), "{variable}={url}: {said}");
            }
        }
        for arguments in [
            &[url][..],
            &["config", url],
            &["config", "show", "--proxy", url],
            &["run", "--log.level", url],
            &["demo", "--web.listen-address", url],
            &["--config.file", "/nonexistent", "--log.format", url],
        ] {
            let output = binary(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}");
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!said.contains("hunter2"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn no_value_of_a_definition_that_may_be_a_secret_is_shown() {
    let folder = Folder::new("definition");
    let definition = "[[accounts]]\nname = \"shop\"\nprovider = \"acme\"\ntoken_env = \"MY_TOKEN\"\nACCOUNT\n\
        [providers.acme]\nbase_url = \"https://api.acme.example\"\npath = \"/keys\"\nitems = \"\"\nid = \"/id\"\n";
    for (option, shown) in [
        (
            "query = { api_key = \"hunter2\", page = 7 }",
            "query = { api_key = \"[redacted]\", page = \"[redacted]\" }",
        ),
        (
            "headers = { X-Secret = \"hunter2\" }",
            "headers = { X-Secret = \"[redacted]\" }",
        ),
        (
            "auth = { header = \"X-Key\", prefix = \"hunter2 \" }",
            "auth = { header = \"X-Key\", prefix = \"[redacted]\" }",
        ),
        (
            "auth = { header = \"X-Key\", prefix = \"Token token=\" }",
            "prefix = \"[redacted]\"",
        ),
        ("auth = { prefix = \"Token \" }", "prefix = \"Token \""),
        (
            "headers = { X-Key = \"{key}\" }\nparams = { key = \"hunter2\" }",
            "params = { key = \"[redacted]\" }",
        ),
        (
            "headers = { X-Key = \"{key}\" }\nACCOUNTparams = { key = \"hunter2\" }",
            "params = { key = \"[redacted]\" }",
        ),
        (
            "query = { key = \"{key}\" }\nACCOUNTparams = { key = \"4711\" }",
            "params = { key = \"4711\" }",
        ),
        // Invalid ones.
        ("query = \"hunter2\"", "query (file"),
        ("query = { \"a b\" = \"hunter2\" }", "query.a b (file"),
        ("query = { a = \"{hunter2\" }", "query.a (file"),
        ("query = { a = [\"hunter2\"] }", "query.a (file"),
        ("headers = { Host = \"hunter2\" }", "headers.Host (file"),
        ("headers = { A = \"hunter2\\n\" }", "headers.A (file"),
        ("headers = [\"hunter2\"]", "headers (file"),
        ("auth = \"hunter2\"", "auth (file"),
        ("auth = { prefix = \"hunter2\\n\" }", "auth.prefix (file"),
        ("auth = { password = \"hunter2\" }", "auth.password (file"),
        ("params = { a = \"hunter2\" }", "params.a"),
        ("params = { a = \"hunter2\\n\" }", "params.a (file"),
        ("params = \"hunter2\"", "params (file"),
        ("ACCOUNTparams = { a = \"hunter2\" }", "params.a"),
    ] {
        let (option, of_account) = option.split_once("ACCOUNT").unwrap_or((option, ""));
        let text = definition.replace("ACCOUNT", of_account) + option;
        let path = folder.file("config.toml", &text).display().to_string();
        let said = ["check", "show"].map(|command| {
            let mut command = binary(&["config", command, "--config.file", &path]);
            let output = command.env("MY_TOKEN", TOKEN).output().unwrap();
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
        });
        assert!(said[1].contains(shown), "{option}: {}", said[1]);
        assert!(!said.concat().contains("hunter2"), "{option}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_shown() {
    let body = TOKEN.strip_prefix("sk_live_").unwrap();
    let entry = json!({
        "id": "key", "secret": FULL, "label": FULL, "organization_id": FULL, "scopes": [FULL, MASKED],
        "ip_allow_list": [FULL], "expires_at": FULL, "created_at": FULL, "updated_at": FULL
    });
    let entries = json!([entry, { "id": "masked", "secret": MASKED }, { "id": FULL }, { "id": "own", "secret": TOKEN },
        { "id": format!("api_key_{body}"), "label": "x" },
        { "id": "bodies", "label": body, "organization_id": body, "scopes": [body, format!("{body}.read")] }]);
    let not_json = format!("{{\"status\": 200, \"error\": {FULL}");
    let replies = [
        Reply::json(200, &envelope(200, &entries)),
        Reply::json(200, &envelope(500, &entries)),
        Reply::json(401, &envelope(401, &entries)),
        Reply::json(503, &envelope(503, &entries)),
        Reply::json(200, &envelope(200, &json!({ "secret": FULL }))),
        Reply::json(
            200,
            &json!({ "status": FULL, "data": FULL, "support_id": FULL }),
        ),
        Reply::body(200, "application/json", not_json),
        Reply::body(502, "text/html", format!("<html>{FULL}</html>")),
        Reply::body(302, "text/plain", FULL)
            .header("Location", &format!("http://127.0.0.1:1/{FULL}")),
        Reply::body(429, "text/plain", FULL)
            .header("Retry-After", FULL)
            .header(FULL, FULL),
    ];
    let folder = Folder::new("secrets");
    let mut config =
        String::from("poll.interval = \"5s\"\npoll.timeout = \"4s\"\nlog.format = \"text\"\n");
    let mut apis = Vec::new();
    for (index, reply) in replies.into_iter().enumerate() {
        let api = Api::start(reply).await;
        let url = api.url();
        writeln!(
            config,
            "[[accounts]]\nname = \"a{index}\"\nbase_url = \"{url}\"\ntoken_env = \"MY_TOKEN\""
        )
        .unwrap();
        apis.push(api);
    }
    let path = folder.file("config.toml", &config).display().to_string();
    for level in ["info", "trace"] {
        let arguments = [
            "--config.file",
            &path,
            "--log.level",
            level,
            "--web.listen-address",
            "127.0.0.1:0",
        ];
        let mut command = binary(&arguments);
        command
            .env("MY_TOKEN", TOKEN)
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full");
        let daemon = Daemon::start(command, &folder);
        for index in 1..apis.len() {
            daemon.logs(&format!("account=a{index} reason=")).await;
        }
        daemon.logs("account=a0").await;
        // One more round, so that what is only said the second time is said.
        if level == "trace" {
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        for path in ["/metrics", "/", "/-/healthy", "/-/ready", "/nothing"] {
            assert_clean(path, &daemon.get(path).await);
        }
        assert!(
            daemon.get("/metrics").await.contains("key_id=\"own\""),
            "the listing was not read"
        );
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
        assert_clean("the command line", &arguments);
        assert_clean(&format!("the log at {level}"), &daemon.log());
        daemon.signal("-TERM");
        assert_eq!(daemon.ended().0, Some(0));
    }
    let shown = binary(&["config", "show", "--config.file", &path])
        .env("MY_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_clean("config show", &String::from_utf8(shown.stdout).unwrap());
}

/// A secret without a telling prefix; only the answer that repeats it says that it is one.
const UNKNOWN: &str = "Xk29vQpL7-mTz_41RwYd.BnH8sGcE0";

fn base64(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let groups = text.as_bytes().chunks(3).flat_map(|group| {
        let bits = group.iter().enumerate();
        let bits = bits.fold(0, |bits, (at, byte)| {
            bits | usize::from(*byte) << (16 - 8 * at)
        });
        (0..=group.len()).map(move |digit| char::from(alphabet[bits >> (18 - 6 * digit) & 63]))
    });
    groups.collect()
}

fn escaped(text: &str, before: &str) -> String {
    let escapes = text.bytes().map(|byte| format!("{before}{byte:02x}"));
    escapes.collect::<Vec<_>>().concat()
}

/// A secret in every form in which it may be repeated.
fn forms(secret: &str) -> Vec<String> {
    let between = |separator: &str| {
        let characters: Vec<String> = secret.chars().map(String::from).collect();
        let threes = characters.chunks(3).map(<[String]>::concat);
        threes.collect::<Vec<_>>().join(separator)
    };
    vec![
        secret.to_owned(),
        secret[3..17].to_owned(),
        secret.to_uppercase(),
        between("\u{200b}"),
        between("\u{ad}"),
        between("\u{e0041}"),
        between("\u{2060}"),
        between("\u{fe0f}"),
        between("\u{1b}[1m"),
        between("\u{1b}]0;title\u{7}"),
        between("\u{1b}"),
        between("\n"),
        base64(secret),
        base64(&format!("x{secret}")),
        base64(&format!("xy:{secret}"))
            .replace('+', "-")
            .replace('/', "_"),
        escaped(secret, ""),
        escaped(secret, "").to_uppercase(),
        escaped(secret, ":"),
        escaped(secret, ", 0x"),
        escaped(secret, "\\x"),
        escaped(secret, "%"),
        secret
            .replace('7', "%37")
            .replace('-', "%2d")
            .replace('.', "%2E"),
        escaped(&base64(secret), "%"),
    ]
}

/// Neither the secret nor a telling part of any of its forms is in `text`.
fn assert_without(what: &str, text: &str, secret: &str) {
    let visible = |text: &str| -> String {
        let visible = text.chars().filter(char::is_ascii_graphic);
        visible.collect::<String>().to_lowercase()
    };
    let text = visible(text);
    let parts = |form: &str, len: usize| -> Vec<String> {
        let form = visible(form);
        let starts = 0..=form.len().saturating_sub(len);
        starts
            .map(|at| form[at..(at + len).min(form.len())].to_owned())
            .collect()
    };
    let telling = parts(secret, 12);
    let encoded = forms(secret).into_iter().flat_map(|form| parts(&form, 17));
    for part in telling.into_iter().chain(encoded) {
        assert!(!text.contains(&part), "{what} shows {part:?}");
    }
}

/// A listing, errors and redirects that repeat a secret of the answer, or the token's `body`, in
/// every form and place.
fn repeating(body: &str) -> Vec<Reply> {
    let all: Vec<String> = forms(UNKNOWN).into_iter().chain(forms(body)).collect();
    // The secret comes last, and what repeats it comes first.
    let entries = all.iter().enumerate().map(|(number, form)| {
        json!({ "id": format!("key-{number}"), "label": format!("ci {form}"), "organization_id": form,
            "scopes": [form, format!("a {form}.read"), "payments.read"], "ip_allow_list": [form], "expires_at": form })
    });
    let ids = all.iter().map(|form| json!({ "id": form, "label": "id" }));
    let last = json!({ "id": "last", "secret": UNKNOWN, "label": "ordinary label" });
    let entries: Vec<Value> = entries.chain(ids).chain([last]).collect();
    let mut replies = vec![Reply::json(
        200,
        &json!({ "status": 200, "data": entries, "error": null, "env": body }),
    )];
    let escaped_json = |text: &str| {
        text.encode_utf16()
            .map(|unit| format!("\\u{unit:04x}"))
            .collect::<Vec<_>>()
            .concat()
    };
    for form in &all {
        let nested = json!({ "a": [{ "b": form }], form: 1 });
        replies.push(Reply::json(
            500,
            &json!({ "status": 500, "error": format!("no {form}, sorry"), "message": form, "support_id": form,
                "validator": { "token": form }, "log": nested, "data": { "secret": UNKNOWN }, "env": form }),
        ));
        let raw = format!(
            "{{\"status\":500,\"error\":\"{0}\",\"log\":{{\"a\":[\"{0}\"],\"{0}\":1}},\"message\":[\"{0}\"],\"data\":[{{\"\\u0073ecret\":\"{1}\"}}]}}",
            escaped_json(form),
            escaped_json(UNKNOWN)
        );
        replies.push(Reply::body(500, "application/json", raw));
    }
    for host in [body, &escaped(body, "")] {
        let location = format!("http://{host}.example/{body}");
        replies.push(Reply::body(302, "text/plain", "").header("Location", &location));
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_redacted_in_every_form_and_place() {
    let body = TOKEN.strip_prefix("sk_live_").unwrap();
    let folder = Folder::new("forms");
    let state = folder.0.join("state");
    fs::create_dir(&state).unwrap();
    let mut config = format!(
        "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\nstate.directory = {:?}\n",
        state.display().to_string()
    );
    let mut apis = Vec::new();
    for (index, reply) in repeating(body).into_iter().enumerate() {
        let api = Api::start(reply).await;
        let url = api.url();
        writeln!(
            config,
            "[[accounts]]\nname = \"a{index}\"\nbase_url = \"{url}\"\ntoken_env = \"MY_TOKEN\""
        )
        .unwrap();
        apis.push(api);
    }
    let path = folder.file("config.toml", &config).display().to_string();
    let mut command = binary(&[
        "--config.file",
        &path,
        "--log.level",
        "trace",
        "--web.listen-address",
        "127.0.0.1:0",
    ]);
    command.env("MY_TOKEN", TOKEN).env("RUST_LOG", "trace");
    let daemon = Daemon::start(command, &folder);
    for index in 1..apis.len() {
        daemon.logs(&format!("account=a{index} reason=")).await;
    }
    daemon.logs("account=a0").await;
    let metrics = daemon.get("/metrics").await;
    for expected in [
        "key_id=\"key-0\"",
        "name=\"ordinary label\"",
        "scope=\"payments.read\"",
        "[redacted]",
    ] {
        assert!(
            metrics.contains(expected),
            "{expected} is missing: {metrics}"
        );
    }
    let mut shown = vec![("/metrics", metrics)];
    let open_metrics = client()
        .get(format!("http://{}/metrics", daemon.address().await))
        .header("Accept", "application/openmetrics-text; version=1.0.0");
    let open_metrics = open_metrics.send().await.unwrap().text().await.unwrap();
    assert!(
        open_metrics.contains("# {support_id=\"[redacted]\"}"),
        "{open_metrics}"
    );
    shown.push(("OpenMetrics", open_metrics));
    for path in ["/", "/api/v1/keys", "/api/v1/accounts", "/calendar.ics"] {
        shown.push((path, daemon.get(path).await));
    }
    daemon.signal("-TERM");
    shown.push(("the log", daemon.log()));
    assert_eq!(daemon.ended().0, Some(0));
    let mut files = 0;
    for file in fs::read_dir(&state).unwrap() {
        let file = file.unwrap().path();
        files += 1;
        let bytes = if file.is_file() {
            fs::read(&file).unwrap()
        } else {
            Vec::new()
        };
        shown.push(("the snapshot", String::from_utf8_lossy(&bytes).into_owned()));
    }
    assert!(files > 0, "nothing was saved");
    for (what, text) in shown {
        for secret in [UNKNOWN, body] {
            assert_without(what, &text, secret);
        }
    }
}
