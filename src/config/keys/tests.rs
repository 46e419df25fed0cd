//! Valid and invalid inventories, thresholds and policies, with exact messages.

use std::fmt::Write as _;

use chrono::TimeDelta;

use crate::config::tests::{load, placed_problems, problems};
use crate::config::{Config, Sources};
use crate::domain::glob::Glob;
use crate::domain::key::Key;
use crate::domain::key::tests::key;
use crate::domain::policy::Policy;

const ACCOUNT: &str = "[[accounts]]\nname = \"shop\"\ntoken_env = \"TOKEN\"\n";

fn config(text: &str) -> Config {
    load(&format!("{text}\n{ACCOUNT}"), &[]).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn refused(text: &str) -> Vec<String> {
    problems(&format!("{ACCOUNT}{text}"), &[])
}

/// A file in its own directory, removed on drop.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("api-key-exporter-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[test]
fn an_entry_says_everything_that_can_be_said() {
    let config = config(
        r#"
        [[keys]]
        match = "check*"
        account = "shop"
        name = "Checkout"
        team = "payments"
        rotate_url = "https://wiki.example.com/rotate"
        runbook_url = "http://wiki/run?a=b"
        warning = "45d"
        critical = "2h"
        muted_until = 2026-12-31
        exempt = ["never_expires", "unused"]
        reason = "moves"
        [[keys]]
        match = "b"
        muted_until = "2026-12-31T08:00:00+01:00"
        reason = "moves"
        "#,
    );
    let [first, second] = config.assessment_rules.inventory.entries() else {
        panic!("{:?}", config.assessment_rules.inventory)
    };
    assert_eq!(first.pattern.as_str(), "check*");
    assert_eq!(first.account.as_deref(), Some("shop"));
    assert_eq!(first.name.as_deref(), Some("Checkout"));
    assert_eq!(first.team.as_deref(), Some("payments"));
    assert_eq!(
        first.rotate_url.as_deref(),
        Some("https://wiki.example.com/rotate")
    );
    assert_eq!(first.runbook_url.as_deref(), Some("http://wiki/run?a=b"));
    assert_eq!(first.warning, Some(TimeDelta::days(45)));
    assert_eq!(first.critical, Some(TimeDelta::hours(2)));
    let until = "2026-12-31T00:00:00Z".parse().unwrap();
    assert_eq!(first.muted_until, Some(until));
    let exempt: Vec<Policy> = first.exempt.iter().collect();
    assert_eq!(exempt, [Policy::NeverExpires, Policy::Unused]);
    assert_eq!(first.reason.as_deref(), Some("moves"));
    let until = "2026-12-31T07:00:00Z".parse().unwrap();
    assert_eq!(second.muted_until, Some(until));
}

#[test]
fn every_problem_of_an_inventory_is_named() {
    let text = r#"
        [[keys]]
        name = ""
        [[keys]]
        match = ""
        account = "office"
        team = "a\nb"
        rotate_url = "javascript:alert(1)"
        runbook_url = "https://me:secret@wiki"
        warning = "1d"
        critical = "2d"
        muted_until = "soon"
        exempt = ["everything"]
        owner = "me"
        [[keys]]
        match = "a"
        muted_until = 2026-12-31
        [[keys]]
        match = "b"
        exempt = ["too_old"]
        reason = " "
        "#;
    let label = "must be 1 to 255 characters without control characters, not a key";
    let pattern = "an id or a label of 1 to 255 characters, * for any run of them, ? for any one";
    let why = "is missing: say why the key is muted or exempt";
    let expected = [
        format!("keys[0].match (file a.toml): is missing: {pattern}"),
        format!("keys[0].name = \"\" (file a.toml): {label}"),
        format!("keys[1].match = \"\" (file a.toml): must be {pattern}"),
        "keys[1].account = \"office\" (file a.toml): must be one of the accounts: shop".to_owned(),
        format!("keys[1].team = \"a\\nb\" (file a.toml): {label}"),
        "keys[1].rotate_url = \"javascript:alert(1)\" (file a.toml): must be an http:// or \
         https:// URL without a user"
            .to_owned(),
        "keys[1].runbook_url = \"https://[redacted]@wiki\" (file a.toml): must be an http:// or \
         https:// URL without a user"
            .to_owned(),
        "keys[1].critical (file a.toml): must not be longer than warning".to_owned(),
        "keys[1].muted_until = \"soon\" (file a.toml): must be a day such as 2026-12-31 (its \
         first second, UTC) or a time such as 2026-12-31T08:00:00Z"
            .to_owned(),
        "keys[1].exempt = \"everything\" (file a.toml): must be policies out of never_expires, \
         no_ip_allow_list, wide_ip_allow_list, privileged_scope, too_old, lifetime_too_long, unused"
            .to_owned(),
        "keys[1].owner (file a.toml): unknown option; valid here: match, account, name, team, \
         rotate_url, runbook_url, warning, critical, muted_until, exempt, reason"
            .to_owned(),
        format!("keys[2].reason (file a.toml): {why}"),
        format!("keys[3].reason = \" \" (file a.toml): {label}"),
        format!("keys[3].reason (file a.toml): {why}"),
    ];
    assert_eq!(refused(text), expected);
}

#[test]
fn an_account_that_is_wrong_itself_is_no_second_problem_of_an_entry() {
    let entry = "[[keys]]\nmatch = \"a\"\naccount = \"shop\"\n";
    let wrong = "[[accounts]]\nname = \"shop\"\ntoken_env = \"NONE\"\n";
    let expected =
        "accounts \"shop\": token_env (file a.toml): the environment has no variable NONE";
    assert_eq!(problems(&format!("{entry}{wrong}"), &[]), [expected]);
    let second = "accounts \"shop\": token_env (file a.toml): the environment has no variable NONE";
    let office = "[[accounts]]\nname = \"office\"\ntoken_env = \"TOKEN\"\n";
    assert_eq!(problems(&format!("{entry}{office}{wrong}"), &[]), [second]);
    let tried = problems(entry, &[("API_KEY_EXPORTER__ACCOUNTS__NAME", "shop")]);
    assert!(!tried.join("\n").contains("keys["), "{tried:?}");
}

#[test]
fn the_inventory_file_comes_after_the_main_one() {
    let file = File::new(
        "inventory",
        "[[keys]]\nmatch = \"*\"\nname = \"rest\"\n[[keys]]\nmatch = \"b\"\nname = \"late\"\n",
    );
    let path = file.0.display();
    let text = format!("inventory_file = \"{path}\"\n[[keys]]\nmatch = \"a\"\nname = \"first\"\n");
    let config = config(&text);
    let name = |key: &Key| {
        let assessment = config
            .assessment_rules
            .assess("shop", key, chrono::DateTime::UNIX_EPOCH);
        assessment.entry.unwrap().name.clone().unwrap()
    };
    assert_eq!(&*name(&key("a")), "first");
    assert_eq!(&*name(&key("b")), "rest");
}

#[test]
fn a_bad_inventory_file_is_told_with_its_own_name() {
    let file = File::new("bad", "[[keys]]\nmatch = 7\n[poll]\ninterval = \"1m\"\n");
    let path = file.0.display();
    let given = format!("inventory_file = \"{path}\"\n{ACCOUNT}");
    let pattern = "an id or a label of 1 to 255 characters, * for any run of them, ? for any one";
    let expected = [
        format!("keys[0].match = 7 (file {path}): must be {pattern}"),
        format!("poll (file {path}): unknown option; valid here: keys"),
    ];
    assert_eq!(problems(&given, &[]), expected);
    let given = format!("inventory_file = \"/nonexistent/inventory\"\n{ACCOUNT}");
    let expected = "/nonexistent/inventory: cannot open the file: No such file or directory (os \
                    error 2)";
    assert_eq!(problems(&given, &[]), [expected]);
}

#[test]
fn an_inventory_file_that_is_empty_or_in_another_format_is_named() {
    let file = File::new("format", "# later\n");
    let path = file.0.display();
    let text = format!("inventory_file = \"{path}\"\n{ACCOUNT}");
    let warning = format!("{path}: the file sets no option; every line is blank or a comment");
    assert_eq!(load(&text, &[]).unwrap().warnings[0], warning);
    let utf16: Vec<u8> = "keys = []\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let with_mark = [&b"\xff\xfe"[..], &utf16].concat();
    for (content, expected) in [
        (
            &b"keys:\n  - match: a\n"[..],
            ":1:1: this looks like YAML; the inventory must be TOML, with [[keys]] above each entry",
        ),
        (&utf16, ": the file is UTF-16; save it as UTF-8"),
        (&with_mark, ": the file is UTF-16; save it as UTF-8"),
        (
            b"[[keys]]\nmatch = \"\xc3\xa9t\xe9\"\n",
            ":2:12: invalid utf-8 sequence of 1 bytes from index 21; save the file as UTF-8",
        ),
    ] {
        std::fs::write(&file.0, content).unwrap();
        assert_eq!(placed_problems(&text, &[]), [format!("{path}{expected}")]);
    }
}

#[test]
fn an_inventory_has_a_size_that_a_poll_can_bear() {
    let many = |count: usize, pattern: &str| {
        (0..count).fold(String::new(), |mut text, number| {
            writeln!(text, "[[keys]]\nmatch = \"{number}{pattern}\"").unwrap();
            text
        })
    };
    assert_eq!(
        refused(&many(1_001, "*")),
        ["keys: 1001 entries with * or ? in match; the maximum is 1000"]
    );
    assert_eq!(
        refused(&many(10_001, "")),
        ["keys: 10001 entries; the maximum is 10000"]
    );
    config(&many(1_000, "?"));
}

#[test]
fn thresholds_and_policies_have_their_ranges() {
    let text = r#"
        [thresholds]
        warning = "1d"
        critical = "2d"
        own_warning = "5s"
        lifetime_fraction = 0
        [policy]
        max_age = "1m"
        max_allowed_addresses = 0
        privileged_scopes = [""]
        never_expires = "yes"
        [details]
        requests_per_minute = 601
        interval = "1s"
        "#;
    let expected = [
        "details.interval = \"1s\" (file a.toml): must be a duration from 1m to 30d, such as \"90s\"",
        "details.requests_per_minute = 601 (file a.toml): must be a whole number from 1 to 600",
        "thresholds.own_warning = \"5s\" (file a.toml): must be a duration from 1m to 3650d, such as \"90s\"",
        "thresholds.lifetime_fraction = 0 (file a.toml): must be a number above 0, at most 1, such as 0.25",
        "thresholds.critical (file a.toml): must not be longer than warning",
        "policy.never_expires = \"yes\" (file a.toml): must be true or false",
        "policy.privileged_scopes = \"\" (file a.toml): must be a pattern for scopes such as \"users.*\", 1 to 255 characters",
        "policy.max_allowed_addresses = 0 (file a.toml): must be a whole number from 1 to 4611686018427387904",
        "policy.max_age = \"1m\" (file a.toml): must be a duration from 1h to 36500d, such as \"90d\"",
    ];
    assert_eq!(refused(text), expected);
}

#[test]
fn policies_can_be_turned_off_and_on() {
    let config = config(
        "policy.never_expires = false\npolicy.privileged_scopes = []\npolicy.max_age = \"365d\"\n\
         policy.max_unused = \"90d\"\nthresholds.lifetime_fraction = 1",
    );
    let limits = &config.assessment_rules.policy;
    assert!(!limits.never_expires && limits.no_ip_allow_list);
    assert_eq!(limits.privileged_scopes, Some([].into()));
    assert_eq!(limits.max_age, Some(TimeDelta::days(365)));
    assert!((config.assessment_rules.thresholds.lifetime_fraction - 1.0).abs() < 1e-9);
    let expected = "policy.max_unused does nothing without details.enabled: only details contain the \
                    last use";
    assert_eq!(config.warnings.first().map(String::as_str), Some(expected));
}

#[test]
fn what_nobody_says_is_as_the_domain_has_it() {
    let environment = [("BITGPT_API_KEY".to_owned(), "abc".to_owned())].into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let config = Config::parse("", &sources).unwrap();
    let mut expected = crate::domain::assessment::AssessmentRules::default();
    // Except for the settings that are specific to each provider.
    let privileged = &config.accounts[0].provider.profile().privileged_scopes;
    let globs: Box<[Glob]> = privileged
        .iter()
        .map(|text| Glob::parse(text).unwrap())
        .collect();
    assert!(!globs.is_empty());
    expected.privileged_scopes.insert("default".into(), globs);
    assert_eq!(*config.assessment_rules, expected);
}
