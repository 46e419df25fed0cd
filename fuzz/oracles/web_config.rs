//! A web configuration file's text: usable, or problems in short lines, the same each time.

use std::path::PathBuf;
use std::sync::LazyLock;

use api_key_exporter::server::web_config;

use super::support;

/// Longest problem: a field's name, a few words and a cut value.
const PROBLEM_CHARS_MAX: usize = 1_000;

/// The file, one for each process.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = format!("api-key-exporter-fuzz-{}.yml", std::process::id());
    std::env::temp_dir().join(name)
});

/// Checks one text.
pub fn check(bytes: &[u8]) {
    // A fuzzer that writes paths would read this machine's devices and network mounts.
    if bytes.windows(5).any(|word| word == b"_file") {
        return;
    }
    std::fs::write(&*FILE, bytes).unwrap();
    let checked = web_config::check(&FILE, support::now);
    let again = web_config::check(&FILE, support::now);
    std::fs::remove_file(&*FILE).unwrap();
    assert_eq!(checked, again, "the same text again");
    let Err(problems) = checked else { return };
    assert!(!problems.is_empty());
    for problem in problems {
        assert!(!problem.is_empty() && problem.chars().count() <= PROBLEM_CHARS_MAX);
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
    }
}
