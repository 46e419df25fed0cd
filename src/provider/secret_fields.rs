//! Finds the values of secret fields in JSON before it is parsed, so that a secret can also be
//! removed from text that precedes it. Pure.

use memchr::{memchr, memchr2};
use secrecy::zeroize::Zeroizing;

/// Longest text that is treated as a secret, in bytes: the length of the longest token.
const SECRET_BYTES_MAX: usize = 4096;

/// A number with fewer digits is not a secret: it is a count, a time or an id.
const NUMBER_BYTES_MIN: usize = 12;

/// Passes each secret in `json` to `found`: the texts and long numbers in fields whose name
/// `is_secret` accepts, and in lists there. An object there has fields of its own. This is not a
/// JSON parser: in invalid JSON, it may find other secrets or none.
pub fn find(json: &str, is_secret: impl Fn(&str) -> bool, found: &mut dyn FnMut(&str)) {
    let mut scanner = Scanner { rest: json };
    while let Some(text) = scanner.next_string() {
        if scanner.is_after_name() && decoded(text, &is_secret) {
            scanner.secrets(found);
        }
    }
}

/// Reads `rest` from its start.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// Continues behind the first `len` bytes.
    fn skip(&mut self, len: usize) {
        self.rest = self.rest.get(len..).unwrap_or_default();
    }

    /// The content of the next string, escaped.
    fn next_string(&mut self) -> Option<&'a str> {
        self.skip(memchr(b'"', self.rest.as_bytes())?);
        self.string()
    }

    /// The content of the string at the start, escaped.
    fn string(&mut self) -> Option<&'a str> {
        let text = self.rest.strip_prefix('"')?;
        let mut len = 0;
        loop {
            let bytes = text.as_bytes().get(len..)?;
            let at = memchr2(b'"', b'\\', bytes)?;
            if bytes.get(at) == Some(&b'"') {
                let content = text.get(..len + at)?;
                self.skip(content.len() + 2);
                return Some(content);
            }
            len += at + 2;
        }
    }

    /// Whether the string before was the name of a field; its value follows then.
    fn is_after_name(&mut self) -> bool {
        let rest = self.rest.trim_ascii_start();
        let Some(value) = rest.strip_prefix(':') else {
            return false;
        };
        self.rest = value.trim_ascii_start();
        true
    }

    /// The secrets in the value at the start.
    fn secrets(&mut self, found: &mut dyn FnMut(&str)) {
        let mut depth = 0_usize;
        loop {
            match self.rest.as_bytes().first() {
                Some(b'"') => {
                    let Some(text) = self.string() else { return };
                    if text.len() <= SECRET_BYTES_MAX {
                        decoded(text, &mut *found);
                    }
                }
                Some(b'-' | b'0'..=b'9') => {
                    let is_number = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                    let rest = self.rest.trim_start_matches(is_number);
                    let number = self.rest.strip_suffix(rest).unwrap_or_default();
                    if (NUMBER_BYTES_MIN..=SECRET_BYTES_MAX).contains(&number.len()) {
                        found(number);
                    }
                    self.rest = rest;
                }
                Some(b'[') => {
                    depth += 1;
                    self.skip(1);
                }
                Some(b']') => {
                    depth = depth.saturating_sub(1);
                    self.skip(1);
                }
                Some(byte) if depth > 0 && (*byte == b',' || byte.is_ascii_whitespace()) => {
                    self.skip(1);
                }
                Some(_) | None => return,
            }
            if depth == 0 {
                return;
            }
        }
    }
}

/// Applies `then` to the content of a string without its escapes.
fn decoded<T>(escaped: &str, then: impl FnOnce(&str) -> T) -> T {
    if !escaped.contains('\\') {
        return then(escaped);
    }
    let quoted = Zeroizing::new(format!("\"{escaped}\""));
    match serde_json::from_str(&quoted).map(Zeroizing::<String>::new) {
        Ok(text) => then(&text),
        Err(_invalid) => then(escaped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Vec<String> {
        let mut all = Vec::new();
        let is_secret = |name: &str| name == "secret";
        find(json, is_secret, &mut |secret| all.push(secret.to_owned()));
        all
    }

    #[test]
    fn secrets_are_found_at_any_depth_and_in_any_spelling() {
        for (json, expected) in [
            (
                r#"{"secret":"one","a":[{"secret" : "two"}]}"#,
                &["one", "two"][..],
            ),
            (
                r#"{"x":"secret","y":["secret",":"],"z":"\"secret\":\"no\""}"#,
                &[],
            ),
            (
                r#"{"secret":"with blanks","secr\u0065t":"a\/b\u0063\"d"}"#,
                &["with blanks", "a/bc\"d"],
            ),
            (
                r#"{"secret":123456789012345678,"secret":-1.5e3,"secret":null}"#,
                &["123456789012345678"],
            ),
            (
                r#"{"secret":["b",[["d"],"e" , 123456789012],{"secret":"f","x":"y"}],"g":"h"}"#,
                &["b", "d", "e", "123456789012", "f"],
            ),
            (
                r#"[{"secret":["one"]},{"secret":[]},{"secret":"two"}]"#,
                &["one", "two"],
            ),
            (
                r#"{"secret":"one","secret":{"id":"x","secret":"two"}}"#,
                &["one", "two"],
            ),
            // Not JSON.
            (r#"{"secret":"never ends"#, &[]),
            (r#"{"secret":["é ✓","#, &["é ✓"]),
            (r#"{"secret":"#, &[]),
            (r#"{"secret":]"x"}"#, &[]),
            (r#"{"secret":"\ud800","#, &["\\ud800"]),
            ("\"\\", &[]),
        ] {
            assert_eq!(found(json), expected, "{json}");
        }
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert_eq!(found(&format!(r#"{{"secret":["{long}","y"]}}"#)), ["y"]);
    }
}
