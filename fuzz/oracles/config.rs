//! A configuration file's text: a checked configuration or problems that show no secret.

use std::borrow::Cow;

use api_key_exporter::config::{Config, Sources};
use api_key_exporter::domain::text::redact;

/// Checks one text. No file is read but those that the text names; reading has its own limits.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // A fuzzer that writes paths would read this machine's devices and network mounts.
    if ["_file", "\\"].iter().any(|word| text.contains(word)) {
        return;
    }
    assert_judged(text);
}

/// The configuration of `text`, if it is one. It is judged alike each time.
pub fn assert_judged(text: &str) -> Option<Config> {
    let sources = Sources {
        environment: [("TOKEN".to_owned(), "not-a-key".to_owned())].into(),
        skip_tokens: true,
        ..Sources::default()
    };
    match Config::parse(text, &sources) {
        Ok(config) => {
            assert!(!config.accounts.is_empty());
            let poll = &config.poll;
            assert!((1..=10).contains(&poll.attempts), "{}", poll.attempts);
            assert!((5..=86_400).contains(&poll.interval.as_secs()));
            let mut names: Vec<&str> = config.accounts.iter().map(|it| &*it.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), config.accounts.len(), "a name twice");
            let shown = format!("{:?}{:?}", config.warnings, config.effective);
            assert_no_key("what is shown of it", &shown);
            Some(config)
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let again = Config::parse(text, &sources).expect_err("the same text again");
            assert_eq!(problems, again);
            for problem in problems {
                assert_no_key("a problem", &problem.to_string());
            }
            None
        }
    }
}

/// Nothing that looks like a key, and no control characters.
pub fn assert_no_key(what: &str, text: &str) {
    let is_clean = matches!(redact(text), Cow::Borrowed(_));
    assert!(is_clean, "{what} shows a key: {text}");
    let is_visible = text.chars().all(|c| c == '\n' || !c.is_control());
    assert!(is_visible, "{what} has control characters: {text:?}");
}
