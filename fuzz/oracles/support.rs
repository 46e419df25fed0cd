//! What several oracles need: a token, the time, and what must never be shown.

use api_key_exporter::domain::failure::Failure;
use api_key_exporter::domain::text::{LINE_CHARS_MAX, is_hidden};
use api_key_exporter::provider::Rules;
use api_key_exporter::secret::Token;
use chrono::{DateTime, Utc};

/// The exporter's own token; the seeds contain it.
pub const TOKEN: &str = "sk_live_ZXhwb3J0ZXJzIG93biBrZXk.aaaa4";

/// Most keys of a listing: enough to meet the limit, and few enough for many runs a second.
pub const KEYS_MAX: usize = 100;

/// The token.
pub fn token() -> Token {
    Token::parse(TOKEN.as_bytes(), "fuzz").unwrap()
}

/// How answers are judged.
pub fn rules(token: &Token) -> Rules<'_> {
    Rules {
        token,
        keys_max: KEYS_MAX,
        pages_max: 10,
        expected_env: None,
        held: None,
    }
}

/// A moment in which some seeds have expired and others have not.
pub fn now() -> DateTime<Utc> {
    "2026-01-01T00:00:02Z".parse().unwrap()
}

/// Nothing of the token, but for what all tokens start with.
pub fn assert_no_token(what: &str, text: &str) {
    let body = TOKEN.trim_start_matches("sk_live_");
    assert!(!text.contains(body), "{what} shows the token: {text}");
}

/// One line of limited length without characters that a terminal or a reader could stumble over.
pub fn assert_clean_line(what: &str, line: &str) {
    let chars = line.chars().count();
    assert!(chars <= LINE_CHARS_MAX, "{what} has {chars} characters");
    assert!(!line.chars().any(is_hidden), "{what}: {line:?}");
}

/// Everything that a failure says is clean.
pub fn assert_clean_failure(failure: &Failure) {
    let Failure {
        error,
        support_id,
        lines,
        ..
    } = failure;
    let lines = lines.iter().map(|(name, line)| (*name, line));
    let own = [("error", error), ("support_id", support_id)];
    let own = own.map(|(name, line)| Some((name, line.as_ref()?)));
    for (name, line) in own.into_iter().flatten().chain(lines) {
        assert_clean_line(name, line.as_str());
        assert_no_token(name, line.as_str());
    }
}
