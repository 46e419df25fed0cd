//! Searches everything that the exporter says for everything that is secret.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use serde_json::{Value, json};

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, TOKEN};

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
fn fault_g3_a_key_that_is_put_where_a_path_belongs_is_not_repeated() {
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
fn fault_j14_no_value_of_an_option_shows_a_password() {
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

#[tokio::test(flavor = "multi_thread")]
async fn fault_c14_f6_no_secret_is_ever_shown() {
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
