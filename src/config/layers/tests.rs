//! Locations, syntax errors, other formats, malformed names.

use super::*;
use crate::config::Config;
use crate::config::tests::{load, placed_problems};

const ACCOUNT: &str = "[[accounts]]\nname = \"shop\"\ntoken_env = \"TOKEN\"\n";

fn problems(text: &str) -> Vec<String> {
    placed_problems(text, &[])
}

#[test]
fn every_problem_has_file_line_and_column() {
    let text = "telemetry = 1\n[web]\nport = 80\n  max_connections =   0\n[pol]\n\
                [[accounts]]\nname = \"shop\"\ntoken_file = 12\n\
                [[accounts]]\n   \"ümläut\" = { x = 1 }\ntoken_env = \"TOKEN\"\n\
                [[keys]]\nteam = \"a\"\n[log]\nlevel = [\n  1]\n";
    let at = |place: &str| format!("(file a.toml:{place})");
    let given = problems(text);
    for (path, place) in [
        ("telemetry ", "1:1"),
        ("web.port ", "3:1"),
        ("web.max_connections = 0 ", "4:23"),
        ("pol ", "5:2"),
        ("accounts \"shop\": token_file = 12 ", "8:14"),
        ("accounts[1].ümläut ", "10:4"),
        ("keys[0].match ", "12:1"),
        ("log.level ", "15:9"),
    ] {
        let start = format!("{path}{}: ", at(place));
        assert!(
            given.iter().any(|it| it.starts_with(&start)),
            "{start}\n{given:#?}"
        );
    }
    assert_eq!(given.len(), 8, "{given:#?}");
}

#[test]
fn entries_of_lists_and_tables_have_their_own_place() {
    let text = "[web]\nlisten_addresses = [\n  \":1\",\n  \":x\",\n  3,\n]\n\
                [[accounts]]\nname = \"one\"\ntoken_env = \"TOKEN\"\nprovider = \"github-org\"\n\
                params = { x = 1 }\n\
                [[accounts]]\nname = \"two\"\ntoken_env = \"TOKEN\"\nprovider = \"github-org\"\n\
                [[accounts]]\nname = \"three\"\ntoken_env = \"TOKEN\"\n\
                [accounts.params]\nok = \"\"\n";
    let given = problems(text);
    let starts = [
        "web.listen_addresses = \":x\" (file a.toml:4:3): must be ",
        "web.listen_addresses = 3 (file a.toml:5:3): must be ",
        "accounts \"one\": params.org (file a.toml:11:1): ",
        "accounts \"one\": params.x (file a.toml:11:16): ",
        "accounts \"two\": params.org (file a.toml:12:1): ",
        "accounts \"three\": params.ok (file a.toml:20:6): ",
    ];
    for start in starts {
        assert!(
            given.iter().any(|it| it.starts_with(start)),
            "{start}\n{given:#?}"
        );
    }
    assert_eq!(given.len(), starts.len(), "{given:#?}");
}

#[test]
fn flags_and_variables_have_no_place_in_the_file() {
    let text = format!("poll.interval = \"1m\"\n{ACCOUNT}");
    let given = placed_problems(&text, &[("API_KEY_EXPORTER__POLL__INTERVAL", "1s")]);
    let start = "poll.interval = \"1s\" (environment API_KEY_EXPORTER__POLL__INTERVAL): ";
    assert!(given[0].starts_with(start), "{given:?}");
}

#[test]
fn a_misspelled_option_is_recognized() {
    let text = format!(
        "intervall = \"1m\"\n[web]\nlisten_address = []\n[poll]\nmax_connections = 1\n\
         inventory_file = \"a\"\n{ACCOUNT}tokenfile = \"a\"\n"
    );
    let given = problems(&text).join("\n");
    for meant in [
        "web.listen_address (file a.toml:3:1): unknown option; did you mean listen_addresses? valid here: ",
        "poll.max_connections (file a.toml:5:1): unknown option; did you mean web.max_connections?",
        "poll.inventory_file (file a.toml:6:1): unknown option; did you mean inventory_file?",
        "accounts \"shop\": tokenfile (file a.toml:10:1): unknown option; did you mean token_file?",
        "intervall (file a.toml:1:1): unknown option; valid here: ",
    ] {
        assert!(given.contains(meant), "{meant}\n{given}");
    }
}

#[test]
fn all_syntax_errors_are_listed_without_the_text() {
    let given = problems("a = hunter2\n[web\nb = \"hunter2\nport = 1\n");
    assert!(given.len() > 1, "{given:#?}");
    assert!(
        given[0].starts_with("a.toml:1:5: TOML syntax error: "),
        "{given:#?}"
    );
    assert!(
        given.iter().any(|it| it.starts_with("a.toml:2:")),
        "{given:#?}"
    );
    assert!(!given.join("").contains("hunter2"), "{given:#?}");
    let many = problems(&"=\n".repeat(100_000));
    assert_eq!(many.len(), SYNTAX_ERRORS_MAX);
    let long = problems(&"=\n".repeat(1_000_000));
    assert_eq!(long.len(), 1);
    let twice = problems("hunter2 = 1\nhunter2 = 2");
    assert!(twice[0].starts_with("a.toml:2:1: "), "{twice:?}");
    assert!(!twice[0].contains("hunter2"), "{twice:?}");
    let twice = problems("[poll]\ninterval = \"1m\"\ninterval = \"2m\"");
    assert_eq!(
        twice,
        ["a.toml:3:1: TOML syntax error: duplicate key \"interval\""]
    );
}

#[test]
fn another_format_is_called_by_its_name() {
    for (text, start) in [
        (
            "# x\n\npoll:\n  interval: 1m\n",
            "a.toml:3:1: this looks like YAML; ",
        ),
        ("---\nweb: {}\n", "a.toml:1:1: this looks like YAML; "),
        ("- a\n", "a.toml:1:1: this looks like YAML; "),
        ("poll: hunter2\n", "a.toml:1:1: this looks like YAML; "),
        ("\n{ \"poll\": {} }", "a.toml:2:1: this looks like JSON; "),
    ] {
        let [problem] = problems(text).try_into().unwrap();
        assert!(problem.starts_with(start), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn an_empty_file_is_named() {
    for (text, expected) in [
        ("", "a.toml: the file is empty"),
        (" \n\n", "a.toml: the file is empty"),
        (
            "# poll\n",
            "a.toml: the file sets no option; every line is blank or a comment",
        ),
    ] {
        let of_file = |environment: &[(&str, &str)]| {
            let variables = environment.iter();
            let sources = Sources {
                file: Some("a.toml".into()),
                environment: variables
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                ..Sources::default()
            };
            Config::parse(text, &sources)
        };
        let given = of_file(&[]).unwrap_err();
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        assert_eq!(given.len(), 2, "{given:?}");
        assert_eq!(given[0], expected);
        assert!(given[1].starts_with("no account: "), "{given:?}");
        let token = "sk_live_c2VjcmV0IGluIHRoZSB0ZXN0cw";
        let config = of_file(&[("BITGPT_API_KEY", token)]).unwrap();
        assert_eq!(config.warnings[0], expected);
    }
}

#[test]
fn absurd_names_are_problems() {
    let deep = "API_KEY_EXPORTER__".to_owned() + &"A__".repeat(20_000) + "B";
    let dotted = "API_KEY_EXPORTER__".to_owned() + &"a.".repeat(20_000) + "b";
    for variable in [
        "API_KEY_EXPORTER__KEYS[99999999999]__MATCH",
        "API_KEY_EXPORTER__KEYS[-99999999999]__MATCH",
        "api_key_exporter__poll[18446744073709551616]",
        "API_KEY_EXPORTER__POLL[",
        &deep,
        &dotted,
    ] {
        let [problem] = placed_problems(ACCOUNT, &[(variable, "1")])
            .try_into()
            .unwrap();
        assert!(problem.contains("does not name an option"), "{problem}");
        assert!(problem.chars().count() < 400, "{problem}");
    }
    for variable in [
        "API_KEY_EXPORTER__KEYS__99999999999__MATCH",
        "API_KEY_EXPORTER__POLL__INTERVAL__X",
        "API_KEY_EXPORTER__POLL__",
        "API_KEY_EXPORTER____",
        "API_KEY_EXPORTER__.",
        "API_KEY_EXPORTER__é",
        "API_KEY_EXPORTER__POLL",
    ] {
        assert!(load(ACCOUNT, &[(variable, "1")]).is_err(), "{variable}");
    }
}

#[test]
fn absurd_names_in_the_file_are_problems_too() {
    for text in [
        "\"keys[99999999999]\" = 1",
        "\"keys[99999999999].match\" = 1",
        "\"poll.interval\" = \"1m\"",
        "\"\" = 1",
        "poll.attempts = 99999999999999999999",
        "poll.attempts = 0xffffffffffffffffff",
        "thresholds.lifetime_fraction = 1e999",
    ] {
        let [problem] = problems(&format!("{text}\n{ACCOUNT}")).try_into().unwrap();
        assert!(problem.contains("a.toml:1:"), "{problem}");
    }
    let deep = format!("{}b = 1\n", "a.".repeat(100_000));
    assert!(problems(&deep)[0].contains("recursion limit"));
    let nested = format!("a = {}", "[".repeat(100_000));
    let given = problems(&nested).join("\n");
    assert!(given.contains("max recursion depth"), "{given}");
}
