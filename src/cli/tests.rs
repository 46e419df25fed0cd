//! Valid and invalid command lines.

use super::*;

fn parse(line: &str) -> Result<Invocation, String> {
    let arguments = std::iter::once(PROGRAM).chain(line.split_whitespace());
    Invocation::parse(arguments).map_err(|refused| words(&refused.error))
}

#[test]
fn options_may_precede_or_follow_the_command() {
    for line in [
        "--config.file a.toml --log.level debug config check --skip-tokens",
        "config --config.file a.toml --log.level debug check --skip-tokens",
        "config check --skip-tokens --config.file a.toml --log.level debug",
        "--config.file b.toml --log.level info config check --skip-tokens --log.level=debug \
         --config.file=a.toml",
    ] {
        let Invocation { task, options } = parse(line).unwrap();
        assert_eq!(
            task,
            Task::ConfigCheck {
                skip_tokens: true,
                live: false
            },
            "{line}"
        );
        let file = options.file.config_file;
        assert_eq!(file, Some(PathBuf::from("a.toml")), "{line}");
        assert_eq!(
            options.settings.log.level.as_deref(),
            Some("debug"),
            "{line}"
        );
    }
    let both = "--web.listen-address :1 --shard 1 --total-shards 2 --web.enable-lifecycle run \
                --web.listen-address :2 --web.systemd-socket --shard 0";
    let Invocation { task, options } = parse(both).unwrap();
    assert_eq!(task, Task::Run);
    assert_eq!(options.settings.listen_addresses, [":1", ":2"]);
    assert!(options.socket.systemd_socket);
    let flags = options.flags().0;
    let flag = |spelling| flags.iter().find(|flag| flag.spelling == spelling);
    for (path, spelling, value) in [
        ("shard.index", "--shard", "0"),
        ("shard.total", "--total-shards", "2"),
        ("web.enable_lifecycle", "--web.enable-lifecycle", "true"),
    ] {
        let flag = flag(spelling).unwrap();
        assert_eq!(
            (flag.path, flag.values.as_slice()),
            (path, &[value.to_owned()][..])
        );
    }
    let flags = parse("config check").unwrap().options.flags();
    assert!(flags.0.is_empty(), "{flags:?}");
}

#[test]
fn a_command_refuses_the_options_that_it_does_not_take() {
    for (option, command) in [
        ("--config.file=a.toml", "demo"),
        ("--shard=0", "demo"),
        ("--total-shards=2", "demo"),
        ("--web.systemd-socket", "demo"),
        ("--web.systemd-socket", "config show"),
        ("--web.systemd-socket", "config check"),
        ("--log.level=debug", "man"),
        ("--config.file=a.toml", "completions bash"),
        ("--skip-tokens", "config show"),
        ("--skip-tokens", "run"),
    ] {
        let after = parse(&format!("{command} {option}")).unwrap_err();
        assert!(after.starts_with("error: unexpected argument"), "{after}");
        let before = parse(&format!("{option} {command}")).unwrap_err();
        let (option, _) = option.split_once('=').unwrap_or((option, ""));
        assert!(before.contains(option), "{before}");
    }
    let words = parse("--web.systemd-socket config show").unwrap_err();
    let expected = "error: the option '--web.systemd-socket' cannot be used with 'show'";
    assert!(words.starts_with(expected), "{words}");
}

#[test]
fn an_error_repeats_a_misspelled_command_but_nothing_that_could_be_secret() {
    let words = parse("chekc").unwrap_err();
    assert!(words.contains("'chekc'"), "{words}");
    let words = parse("config chekc").unwrap_err();
    assert!(
        words.contains("'chekc'") && words.contains("'check'"),
        "{words}"
    );
    let words = parse("--log.levle debug").unwrap_err();
    assert!(words.contains("--log.level"), "{words}");
    for (line, shown) in [
        ("explain k_1 k_2", "'k_2'"),
        ("demo --provider bitgpt2", "'bitgpt2'"),
        ("--web_listen_address :1", "'--web_listen_address'"),
        ("completions bash5", "'bash5'"),
        ("run --live -1d", "'--live'"),
    ] {
        let words = parse(line).unwrap_err();
        assert!(words.contains(shown), "{line}: {words}");
    }
    for line in [
        "Zx9qWmK2vLp7",
        "hunter2hunter2",
        "http://user:hunter2@proxy:3128",
        "run https://host/?token=hunter2",
        "--token hunter2",
        "--token=hunter2",
        "--hunter2hunter2",
        "--web.systemd-socket=hunter2hunter2",
        "completions hunter2hunter2",
        "config hunter2hunter2",
        "config check hunter2hunter2",
        "sk_live_hunter2",
    ] {
        let words = parse(line).unwrap_err();
        assert!(words.starts_with("error: "), "{words}");
        let is_shown = words.contains("hunter2") || words.contains("Zx9");
        assert!(!is_shown, "{line}: {words}");
    }
    // A negative number is the value of the option before it, not an option.
    for line in ["check --within -1d", "check --within=-1d"] {
        let Task::Check(asked) = parse(line).unwrap().task else {
            panic!("{line}");
        };
        assert_eq!(asked.within.as_deref(), Some("-1d"));
    }
    let options = parse("run --shard -1").unwrap().options;
    assert_eq!(options.shard.shard.as_deref(), Some("-1"));
}

#[test]
fn a_command_line_of_check_or_explain_that_cannot_be_run_ends_with_3() {
    for (line, code) in [
        ("check --bogus", 3),
        ("--log.level debug check --output yaml", 3),
        ("--web.systemd-socket check", 3),
        ("explain", 3),
        ("explain a b", 3),
        ("config check --bogus", 2),
        ("run --bogus", 2),
        ("chekc", 2),
        ("check --help", 0),
        ("explain --help", 0),
        ("--version", 0),
    ] {
        let arguments = std::iter::once(PROGRAM).chain(line.split_whitespace());
        assert_eq!(
            Invocation::parse(arguments).unwrap_err().code,
            code,
            "{line}"
        );
    }
    let Invocation { task, options } =
        parse("--log.level debug check --account a --account b --within 14d --output json")
            .unwrap();
    let expected = CheckOptions {
        output: Output::Json,
        accounts: vec!["a".to_owned(), "b".to_owned()],
        within: Some("14d".to_owned()),
        ..CheckOptions::default()
    };
    assert_eq!(task, Task::Check(expected));
    assert_eq!(options.settings.log.level.as_deref(), Some("debug"));
}

#[test]
fn help_teaches_and_shows_only_the_options_of_the_command() {
    let help = |line: &str| parse(&format!("{line} --help")).unwrap_err();
    let root = help("");
    for taught in [
        "Environment variables:",
        "BITGPT_API_KEY_FILE",
        "API_KEY_EXPORTER__POLL__INTERVAL=1m",
        "Exit codes:",
        "Examples:",
        "--config.file",
        "--web.systemd-socket",
        "[default: 127.0.0.1:10120]",
        "completions",
    ] {
        assert!(root.contains(taught), "{taught}:\n{root}");
    }
    let web = crate::config::Web::default();
    let shown = format!("[default: {}]", web.listen_addresses[0]);
    assert!(root.contains(&shown), "{root}");
    assert!(root.contains(&format!("[default: {}]", web.paths.telemetry)));
    let show = help("config show");
    assert!(
        show.contains("--config.file") && show.contains("Exit codes:"),
        "{show}"
    );
    assert!(
        !show.contains("systemd-socket") && !show.contains("skip-tokens"),
        "{show}"
    );
    let demo = help("demo");
    assert!(demo.contains("--web.listen-address"), "{demo}");
    assert!(!demo.contains("--config.file"), "{demo}");
    for words in [
        root,
        show,
        demo,
        help("check"),
        help("explain"),
        help("config check"),
        help("man"),
    ] {
        let longest = words.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(120), "{longest:?}:\n{words}");
    }
}

#[test]
fn completions_and_the_manual_know_every_command() {
    use clap::ValueEnum;
    for shell in Shell::value_variants() {
        let script = completions(*shell);
        for word in ["completions", "log.format", "skip-tokens"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let page = man();
    for line in [".SH COMMANDS", ".SH \"EXIT CODES\"", ".SH EXAMPLES"] {
        assert!(page.lines().any(|it| it == line), "{line}:\n{page}");
    }
    assert!(
        page.contains("skip\\-tokens") && page.contains("BITGPT_API_KEY_FILE"),
        "{page}"
    );
}
