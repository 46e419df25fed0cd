//! Valid and invalid configurations, with exact messages.

use super::*;

const TOKEN: &str = "sk_live_c2VjcmV0IGluIHRoZSB0ZXN0cw";

/// The file's text, with an environment that holds a token in `TOKEN`.
pub(in crate::config) fn load(
    text: &str,
    environment: &[(&str, &str)],
) -> Result<Config, Vec<String>> {
    let variables = [("TOKEN", TOKEN)]
        .into_iter()
        .chain(environment.iter().copied());
    let environment = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let sources = Sources {
        // An empty content means that there is no file.
        file: (!text.is_empty()).then(|| "a.toml".into()),
        environment,
        ..Sources::default()
    };
    load_from(text, &sources)
}

fn load_from(text: &str, sources: &Sources) -> Result<Config, Vec<String>> {
    Config::parse(text, sources)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Like [`placed_problems`], without line and column.
pub(in crate::config) fn problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let problems = placed_problems(text, environment);
    problems.iter().map(|it| without_places(it)).collect()
}

/// Every problem, with its location in the file.
pub(in crate::config) fn placed_problems(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment).expect_err("the configuration should be refused")
}

/// Removes `:2:12` after each file name.
fn without_places(problem: &str) -> String {
    let mut parts = problem.split(".toml:");
    let mut words = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        words.push_str(".toml");
        words.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
    }
    words
}

#[test]
fn a_token_in_the_environment_is_a_whole_configuration() {
    let environment = [("BITGPT_API_KEY".to_owned(), TOKEN.to_owned())].into();
    let config = load_from(
        "",
        &Sources {
            environment,
            ..Sources::default()
        },
    )
    .unwrap();
    let [account] = config.accounts.as_slice() else {
        panic!("{:?}", config.accounts)
    };
    assert_eq!(
        (account.name.as_str(), &*account.provider.profile().name),
        ("default", "bitgpt")
    );
    assert_eq!(account.base_url.as_str(), "https://api.bitgpt.xyz/");
    assert_eq!(account.token.describe(), "environment BITGPT_API_KEY");
    assert_eq!(account.interval, Duration::from_secs(300));
    assert_eq!(
        config.web.listen_addresses,
        ["127.0.0.1:10120".parse().unwrap()]
    );
    assert_eq!(
        config.log,
        Log {
            level: tracing::Level::INFO,
            format: LogFormat::Json,
            has_priorities: false,
        }
    );
}

#[test]
fn several_accounts_come_from_a_file() {
    let config = load(
        r#"
        poll.interval = "1m"
        [[accounts]]
        name = "one"
        token_env = "TOKEN"
        [[accounts]]
        name = "two"
        base_url = "http://127.0.0.1:8080/"
        token_env = "TOKEN"
        expected_env = "production"
        interval = "10s"
        "#,
        &[],
    );
    let accounts = config.unwrap().accounts;
    let shown: Vec<(&str, Duration)> = accounts
        .iter()
        .map(|account| (account.name.as_str(), account.interval))
        .collect();
    assert_eq!(
        shown,
        [
            ("one", Duration::from_secs(60)),
            ("two", Duration::from_secs(10))
        ]
    );
    assert_eq!(accounts[1].expected_env.as_deref(), Some("production"));
}

#[test]
fn the_environment_goes_before_the_file_and_flags_before_both() {
    let text = "poll.interval = \"1m\"\nweb.telemetry_path = \"/file\"\n[[accounts]]\ntoken_env = \"TOKEN\"";
    let variables = [
        ("TOKEN", TOKEN),
        ("API_KEY_EXPORTER__POLL__INTERVAL", "2m"),
        ("API_KEY_EXPORTER__POLL__ATTEMPTS", "5"),
        ("API_KEY_EXPORTER__METRICS__RELATIVE", "false"),
        (
            "API_KEY_EXPORTER__WEB__LISTEN_ADDRESSES",
            "127.0.0.1:1, [::1]:2",
        ),
        ("API_KEY_EXPORTER__WEB__TELEMETRY_PATH", "/environment"),
        // Variables that Kubernetes sets for a service called api-key-exporter are ignored.
        ("API_KEY_EXPORTER_SERVICE_HOST", "10.0.0.1"),
        ("API_KEY_EXPORTER_PORT", "tcp://10.0.0.1:10120"),
    ];
    let environment = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let flag = Flag {
        path: "web.telemetry_path",
        spelling: "--web.telemetry-path",
        values: vec!["/flag".to_owned()],
        is_list: false,
    };
    let flags = Flags(vec![flag]);
    let config = load_from(
        text,
        &Sources {
            environment,
            flags,
            ..Sources::default()
        },
    )
    .unwrap();
    assert_eq!(config.poll.interval, Duration::from_secs(120));
    assert_eq!(config.poll.attempts, 5);
    assert!(!config.metrics.relative);
    assert_eq!(
        config.web.listen_addresses,
        ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]
    );
    assert_eq!(config.web.paths.telemetry, "/flag");
    let origin = |name: &str| {
        let option = config
            .effective
            .iter()
            .find(|option| option.name == name)
            .unwrap();
        option.origin.to_string()
    };
    assert_eq!(
        origin("interval"),
        "environment API_KEY_EXPORTER__POLL__INTERVAL"
    );
    assert_eq!(origin("telemetry_path"), "flag --web.telemetry-path");
    assert_eq!(origin("timeout"), "default");
}

#[test]
fn every_problem_is_named_at_once_with_what_would_be_right() {
    let text = r#"
        telemetry = 1
        [web]
        listen_addresses = ["nowhere"]
        telemetry_path = "metrics"
        max_connections = 0
        port = 80
        [poll]
        interval = "1s"
        timeout = 15
        attempts = "3"
        [metrics]
        relative = "yes"
        [log]
        level = "loud"
        [[accounts]]
        name = ""
        base_url = "http://api.bitgpt.xyz"
        provider = "other"
    "#;
    let expected = [
        "web.listen_addresses = \"nowhere\" (file a.toml): must be an address and a port such as \
         \"127.0.0.1:10120\", \":10120\" or \"[::1]:10120\", or a socket's path such as \
         \"unix:/run/exporter.sock\"",
        "web.telemetry_path = \"metrics\" (file a.toml): must be a separate path such as \"/metrics\"",
        "web.max_connections = 0 (file a.toml): must be a whole number from 1 to 100000",
        "web.port (file a.toml): unknown option; valid here: listen_addresses, \
         probe_listen_address, config_file, telemetry_path, external_url, route_prefix, \
         max_connections, \
         enable_lifecycle, shutdown_grace",
        "poll.interval = \"1s\" (file a.toml): must be a duration from 5s to 24h, such as \"90s\"",
        "poll.timeout = 15 (file a.toml): has no unit; write \"15s\"",
        "poll.attempts = \"3\" (file a.toml): must be a whole number from 1 to 10",
        "metrics.relative = \"yes\" (file a.toml): must be true or false",
        "log.level = \"loud\" (file a.toml): must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        "accounts[0].name = \"\" (file a.toml): must be a name of 1 to 64 characters, without control characters, that does not look like a key or a URL with a password",
        "accounts[0].provider = \"other\" (file a.toml): must be one of \"bitgpt\", \"cloudflare\", \"cloudflare-user\", \"databricks\", \"elasticsearch\", \"entra-id\", \"entra-id-certificates\", \"fastly\", \"fastly-automation\", \"fastly-customer\", \"github-org\", \"gitlab\", \"gitlab-group\", \"gitlab-project\", \"grafana\", \"harbor\", \"harbor-project\", \"hcp-terraform\", \"jfrog\", \"linode\", \"nomad\", \"okta\", \"pulumi\", \"scaleway\", \"tailscale\", \"upcloud\"",
        "accounts[0].base_url = \"http://api.bitgpt.xyz\" (file a.toml): must be an https:// URL without user, \
         query or fragment (http:// only to a loopback address)",
        "accounts[0].token_file (file a.toml): no token: set token_file (a path) or token_env (a variable's name)",
        "telemetry (file a.toml): unknown option; valid here: inventory_file, web, poll, \
         details, thresholds, policy, metrics, state, shard, log, providers, accounts, keys",
    ];
    assert_eq!(problems(text, &[]), expected);
}

#[test]
fn durations_out_of_range_or_without_a_unit_are_refused() {
    for given in [
        "0s",
        "1ns",
        "1000years",
        "5",
        "",
        "fast",
        "-1s",
        "99999999999999999999s",
    ] {
        let text = format!("poll.interval = \"{given}\"\n[[accounts]]\ntoken_env = \"TOKEN\"");
        let [problem] = problems(&text, &[]).try_into().unwrap();
        assert!(
            problem.starts_with(&format!("poll.interval = \"{given}\" (file a.toml): ")),
            "{problem}"
        );
        assert!(
            problem.contains("must be a duration from 5s to 24h"),
            "{problem}"
        );
    }
}

#[test]
fn what_stands_in_the_place_of_a_section_is_a_problem() {
    for (text, expected) in [
        ("web = 1", "web = 1 (file a.toml): must be a section, [web]"),
        (
            "accounts = \"a\"",
            "accounts = \"a\" (file a.toml): must be a list of sections, [[accounts]]",
        ),
        (
            "[accounts]\nname = \"a\"",
            "accounts (file a.toml): must be a list of sections, [[accounts]]",
        ),
        (
            "accounts = [1]",
            "accounts = 1 (file a.toml): must be a list of sections, [[accounts]]",
        ),
    ] {
        let problems = problems(text, &[("BITGPT_API_KEY", TOKEN)]);
        assert_eq!(problems, [expected], "{text}");
    }
}

#[test]
fn unknown_variables_of_ours_are_problems_too() {
    let account = "[[accounts]]\ntoken_env = \"TOKEN\"";
    let expected = "poll.intervall (environment API_KEY_EXPORTER__POLL__INTERVALL): unknown option; did you mean interval? valid here: \
                    interval, timeout, attempts, max_body_bytes, max_keys, max_pages, shrink_confirmations, shrink_ratio, expired_retention";
    assert_eq!(
        problems(account, &[("API_KEY_EXPORTER__POLL__INTERVALL", "1m")]),
        [expected]
    );
    let expected = "poll.interval = \"soon\" (environment API_KEY_EXPORTER__POLL__INTERVAL): must be a duration \
                    from 5s to 24h, such as \"90s\"";
    assert_eq!(
        problems(account, &[("API_KEY_EXPORTER__POLL__INTERVAL", "soon")]),
        [expected]
    );
}

#[test]
fn a_variable_that_makes_a_section_is_named_whole() {
    let account = "[[accounts]]\ntoken_env = \"TOKEN\"";
    let meant = "did you mean poll?";
    let known = "valid here: inventory_file, web, poll, details, thresholds, policy, metrics, \
                 state, shard, log, providers, accounts, keys";
    for (variable, expected) in [
        (
            "API_KEY_EXPORTER__KEYS__0__MATCH",
            "keys (environment API_KEY_EXPORTER__KEYS__0__MATCH): must be a list of sections, \
             [[keys]]",
        ),
        (
            "API_KEY_EXPORTER__POL__INTERVAL",
            &format!(
                "pol (environment API_KEY_EXPORTER__POL__INTERVAL): unknown option; {meant} {known}"
            ),
        ),
        (
            "API_KEY_EXPORTER__",
            &format!("\"\" (environment API_KEY_EXPORTER__): unknown option; {known}"),
        ),
    ] {
        assert_eq!(problems(account, &[(variable, "x")]), [expected]);
    }
    // Both set it: people look into the file first.
    let both = problems(
        &format!("pol.timeout = 1\n{account}"),
        &[("API_KEY_EXPORTER__POL__INTERVAL", "x")],
    );
    let expected = format!("pol (file a.toml): unknown option; {meant} {known}");
    assert_eq!(both, [expected]);
}

#[test]
fn a_folder_is_asked_for_where_one_is_wanted() {
    let text = "state.directory = \"\"\n[[accounts]]\ntoken_env = \"TOKEN\"";
    let expected = "state.directory = \"\" (file a.toml): must be the path of a folder";
    assert_eq!(problems(text, &[]), [expected]);
}

#[test]
fn a_syntax_error_is_told_by_its_place_without_the_line() {
    let problems = placed_problems(&format!("[[accounts]]\ntoken_env = {TOKEN}\n"), &[]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("a.toml:2:13: TOML syntax error: "),
        "{problems:?}"
    );
}

#[test]
fn tokens_that_cannot_be_read_are_problems() {
    for (lines, expected) in [
        (
            "token_env = \"NONE\"",
            "accounts[0].token_env (file a.toml): the environment has no variable NONE",
        ),
        (
            "token_env = \"EMPTY\"",
            "accounts[0].token_env (file a.toml): the token in environment EMPTY is empty",
        ),
        (
            "token_file = \"/nonexistent/token\"",
            "accounts[0].token_file (file a.toml): cannot read token file /nonexistent/token: No such file or \
             directory (os error 2)",
        ),
        (
            "token_file = \"/\"",
            "accounts[0].token_file (file a.toml): token file / is not a regular file but a directory",
        ),
        (
            "token_file = \"x\"\ntoken_env = \"TOKEN\"",
            "accounts[0].token_env (file a.toml): token_file is set too; set one of them",
        ),
    ] {
        assert_eq!(
            problems(&format!("[[accounts]]\n{lines}"), &[("EMPTY", " ")]),
            [expected],
            "{lines}"
        );
    }
    let expected = "no account: set BITGPT_API_KEY_FILE or BITGPT_API_KEY in the environment, or write [[accounts]] \
                    into the file named by --config.file";
    assert_eq!(problems("", &[]), [expected]);
    assert_eq!(
        problems("", &[("BITGPT_API_KEY_FILE", "")]),
        ["BITGPT_API_KEY_FILE: is empty; it must be the path of a file"]
    );
    assert_eq!(
        problems("", &[("BITGPT_API_KEY", "")]),
        ["BITGPT_API_KEY: the token in environment BITGPT_API_KEY is empty"]
    );
}

#[test]
fn a_file_named_by_the_environment_goes_before_a_token_in_it() {
    let variables = [
        ("BITGPT_API_KEY", TOKEN),
        ("BITGPT_API_KEY_FILE", "/nonexistent/token"),
    ];
    let [problem] = problems("", &variables).try_into().unwrap();
    assert!(
        problem.starts_with("BITGPT_API_KEY_FILE: cannot read token file /nonexistent/token"),
        "{problem}"
    );
}

#[test]
fn a_credential_of_the_service_is_found_without_configuration() {
    let name = format!("exporter-credentials-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let credentials = ("CREDENTIALS_DIRECTORY", directory.to_str().unwrap());
    // Directories of other services hold other credentials.
    let nothing = "no account: set BITGPT_API_KEY_FILE or BITGPT_API_KEY";
    assert!(problems("", &[credentials])[0].starts_with(nothing));
    let path = directory.join("bitgpt");
    std::fs::write(&path, "").unwrap();
    let [empty] = problems("", &[credentials]).try_into().unwrap();
    let token = ("BITGPT_API_KEY", TOKEN);
    std::fs::write(&path, TOKEN).unwrap();
    let alone = load("", &[credentials]).unwrap();
    let before_variable = load("", &[credentials, token]).unwrap();
    let other = directory.join("other");
    std::fs::write(&other, TOKEN).unwrap();
    let file = ("BITGPT_API_KEY_FILE", other.to_str().unwrap());
    let after_file = load("", &[credentials, file]).unwrap();
    let text = "[[accounts]]\nname = \"shop\"\ntoken_env = \"BITGPT_API_KEY\"";
    let of_file = load(text, &[credentials, token]).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let expected = format!("file {}", path.display());
    assert_eq!(
        empty,
        format!("CREDENTIALS_DIRECTORY: the token in {expected} is empty")
    );
    assert_eq!(alone.accounts[0].token.describe(), expected);
    let shown = alone.effective.iter().find(|it| it.name == "token_file");
    let origin = shown.unwrap().origin.to_string();
    assert_eq!(origin, "environment CREDENTIALS_DIRECTORY");
    assert_eq!(before_variable.accounts[0].token.describe(), expected);
    let ignored = "BITGPT_API_KEY in the environment is ignored: the service's credential takes \
                   precedence";
    assert!(before_variable.warnings.iter().any(|it| it == ignored));
    assert!(after_file.accounts[0].token.describe().ends_with("other"));
    let [account] = &of_file.accounts[..] else {
        panic!("the credential makes no account beside those of the file");
    };
    assert_eq!(account.name, "shop");
}

#[test]
fn accounts_need_names_of_their_own() {
    let account = "[[accounts]]\ntoken_env = \"TOKEN\"\n";
    let expected =
        "accounts \"default\" (file a.toml): this name is used twice; names must be unique";
    assert_eq!(problems(&account.repeat(2), &[]), [expected]);
}

#[test]
fn accounts_cannot_come_from_the_environment() {
    let expected = "API_KEY_EXPORTER__ACCOUNTS__NAME: accounts cannot be set in the environment; write [[accounts]] \
                    into the file, or set BITGPT_API_KEY_FILE or BITGPT_API_KEY";
    let variables = [
        ("BITGPT_API_KEY", TOKEN),
        ("API_KEY_EXPORTER__ACCOUNTS__NAME", "x"),
    ];
    assert_eq!(problems("", &variables), [expected]);
}

#[test]
fn names_that_are_not_valid_are_not_compared() {
    let account = "[[accounts]]\nname = \"\"\ntoken_env = \"TOKEN\"\n";
    let found = problems(&account.repeat(2), &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    let is_name = |it: &String| it.contains("name = \"\" (file a.toml): must be a name of ");
    assert!(found.iter().all(is_name), "{found:?}");
}

#[test]
fn one_wrong_token_option_is_one_problem_and_names_are_compared_all_the_same() {
    let account = "[[accounts]]\nname = \"a\"\ntoken_file = 12\n";
    let wrong = "accounts \"a\": token_file = 12 (file a.toml): must be the path of a file";
    let twice = "accounts \"a\" (file a.toml): this name is used twice; names must be unique";
    assert_eq!(problems(&account.repeat(2), &[]), [wrong, wrong, twice]);
}

#[test]
fn an_address_may_stand_there_once() {
    let text = "web.listen_addresses = [\"127.0.0.1:1\", \"127.0.0.1:1\"]\n[[accounts]]\ntoken_env = \"TOKEN\"";
    let expected = "web.listen_addresses (file a.toml): an entry occurs twice";
    assert_eq!(problems(text, &[]), [expected]);
}

#[test]
fn a_token_that_does_not_look_like_one_is_warned_of() {
    let config = load(
        "[[accounts]]\ntoken_env = \"ODD\"\nbase_url = \"http://localhost\"",
        &[("ODD", "hello-world")],
    )
    .unwrap();
    let expected = "the token of account \"default\" does not start with sk_live_… or sk_test_…, as API keys do";
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn a_token_that_others_may_find_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("api-key-exporter-g8-{}", std::process::id()));
    std::fs::write(&path, TOKEN).unwrap();
    let shown = path.display();
    let text = format!("[[accounts]]\ntoken_file = \"{shown}\"");
    let open = format!(
        "every user of this machine can read the token of account \"default\": chmod o= {shown}"
    );
    for (mode, expected) in [
        (0o644, &[open.as_str()][..]),
        (0o444, &[&open]),
        (0o640, &[]),
        (0o400, &[]),
    ] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&text, &[]).unwrap().warnings, expected, "{mode:o}");
    }
    std::fs::remove_file(&path).unwrap();
    let config = load("[[accounts]]\ntoken_env = \"TOKEN\"", &[]).unwrap();
    let expected = "the token of account \"default\" is in the environment (TOKEN), where crash reports \
                    and child processes find it, and changes only with a restart; put it into a file";
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn base_urls_are_https_or_loopback() {
    for (url, is_good) in [
        ("https://api.bitgpt.xyz", true),
        ("https://api.bitgpt.xyz/base/", true),
        ("http://127.0.0.1:1", true),
        ("http://127.9.9.9:1", true),
        ("http://[::1]:1", true),
        ("http://localhost:1", true),
        ("http://localhost.evil.com", false),
        ("http://10.0.0.1", false),
        ("http://0.0.0.0", false),
        ("ftp://127.0.0.1", false),
        ("https://user:pass@api.bitgpt.xyz", false),
        ("https://api.bitgpt.xyz?a=b", false),
        ("api.bitgpt.xyz", false),
        ("", false),
    ] {
        let loaded = load(
            &format!("[[accounts]]\ntoken_env = \"TOKEN\"\nbase_url = \"{url}\""),
            &[],
        );
        assert_eq!(loaded.is_ok(), is_good, "{url}: {loaded:?}");
    }
}

#[test]
fn no_problem_and_no_value_in_force_shows_a_secret() {
    let text = format!(
        "token = \"{TOKEN}\"\n\"{TOKEN}\" = 1\npoll.interval = \"{TOKEN}\"\nlog.level = [\"{TOKEN}\"]\n\
         [[accounts]]\nname = \"{TOKEN}\"\ntoken = \"{TOKEN}\"\ntoken_env = \"{TOKEN}\"\n\
         base_url = \"http://user:hunter2@evil\"\nproxy_url = \"socks5://user:hunter2@proxy\"\n"
    );
    let problems = problems(&text, &[("API_KEY_EXPORTER__X", TOKEN)]).join("\n");
    assert!(
        !problems.contains("c2VjcmV0") && !problems.contains("hunter2"),
        "{problems}"
    );
    let text =
        "[[accounts]]\ntoken_env = \"TOKEN\"\nproxy_url = \"http://user:hunter2@proxy:3128\"";
    let config = format!("{:?}", load(text, &[]).unwrap());
    assert!(config.contains("http://[redacted]@proxy:3128"), "{config}");
    assert!(
        !config.contains("c2VjcmV0") && !config.contains("hunter2"),
        "{config}"
    );
}

#[test]
fn a_proxy_never_sees_a_token_in_the_clear() {
    let text = "[[accounts]]\ntoken_env = \"TOKEN\"\nbase_url = \"http://localhost\"\nproxy_url = \"http://proxy\"";
    let expected = "accounts[0].proxy_url (file a.toml): needs an https:// base_url: over http:// the proxy would see \
                    the token";
    assert_eq!(problems(text, &[]), [expected]);
}

#[test]
fn a_timeout_as_long_as_the_interval_is_warned_of() {
    let config = load(
        "poll.interval = \"5s\"\n[[accounts]]\ntoken_env = \"TOKEN\"\nbase_url = \"http://[::1]\"",
        &[],
    )
    .unwrap();
    let expected = "poll.timeout (15s) is not shorter than the poll interval (5s); polls are cut at nine tenths of the \
                    interval";
    assert_eq!(config.warnings, [expected]);
}

#[test]
fn the_prefix_is_that_of_the_external_url_unless_a_proxy_removes_it() {
    for (external, prefix, expected) in [
        (None, None, ("", "")),
        (None, Some("/"), ("", "")),
        (None, Some("keys/"), ("/keys", "/keys")),
        (Some("https://example.com"), None, ("", "")),
        (Some("https://example.com/"), None, ("", "")),
        (Some("https://example.com/keys/"), None, ("/keys", "/keys")),
        (Some("https://example.com/keys"), Some("/"), ("", "/keys")),
        (Some("/a/b/"), None, ("/a/b", "/a/b")),
        (Some("/a"), Some("/b"), ("/b", "/a")),
    ] {
        let option = |name, value: Option<&str>| {
            value.map_or(String::new(), |value| format!("web.{name} = \"{value}\"\n"))
        };
        let text = option("external_url", external) + &option("route_prefix", prefix);
        let config = load(&format!("{text}[[accounts]]\ntoken_env = \"TOKEN\""), &[]).unwrap();
        let paths = &config.web.paths;
        assert_eq!((&*paths.prefix, &*paths.links), expected, "{text}");
    }
    for bad in [
        "ftp://example.com/",
        "https://user:word@example.com/",
        "https://example.com/?query",
        "https://example.com/a b",
        "example.com",
        "/a//b",
        "/<script>",
    ] {
        assert!(parse_external_url(bad).is_none(), "{bad}");
    }
    for bad in ["/a b", "/../a", "/a//b", "/a?b", "/\"a"] {
        assert!(parse_prefix(bad).is_none(), "{bad}");
    }
}

#[test]
fn telemetry_paths_are_plain_and_free() {
    for (text, is_good) in [
        ("/metrics", true),
        ("/my/metrics.txt", true),
        ("/", false),
        ("metrics", false),
        ("//metrics", false),
        ("/-/healthy", false),
        ("/api/v1/keys", false),
        ("/a b", false),
        ("/a?b", false),
        ("/<script>", false),
    ] {
        assert_eq!(parse_telemetry_path(text).is_some(), is_good, "{text}");
    }
}

#[test]
fn relative_paths_start_at_the_file_that_has_them_or_at_the_working_directory() {
    let sources = |flags: Vec<Flag>, environment: &[(&str, &str)]| Sources {
        file: Some("/nowhere/a.toml".into()),
        environment: [("TOKEN", TOKEN)]
            .iter()
            .chain(environment)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: Flags(flags),
        ..Sources::default()
    };
    let flag = Flag {
        path: "web.config_file",
        spelling: "--web.config.file",
        values: vec!["web.yml".to_owned()],
        is_list: false,
    };
    let variable = [("API_KEY_EXPORTER__WEB__CONFIG_FILE", "web.yml")];
    let account = "[[accounts]]\ntoken_env = \"TOKEN\"\n";
    let in_file = format!("web.config_file = \"web.yml\"\n{account}");
    for (text, sources, expected) in [
        (
            in_file.as_str(),
            sources(vec![], &[]),
            "/nowhere/web.yml: cannot read it",
        ),
        (
            account,
            sources(vec![flag], &[]),
            " web.yml: cannot read it",
        ),
        (
            account,
            sources(vec![], &variable),
            " web.yml: cannot read it",
        ),
    ] {
        let problems = load_from(text, &sources).unwrap_err().join("\n");
        assert!(problems.contains(expected), "{problems}");
    }
}
