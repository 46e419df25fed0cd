//! Finds the values of secret fields in JSON before it is parsed, so that a secret can also be
//! removed from text that precedes it. Pure.

use memchr::{memchr2, memmem};

/// Longest value that is treated as a secret, in bytes: the length of the longest token.
const SECRET_BYTES_MAX: usize = 4096;

/// The string values of all fields of this name, at any depth. This is not a JSON parser: values
/// with escapes or blanks, and names with escapes, are left to the real one.
pub fn values<'a>(json: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let quoted = format!("\"{name}\"");
    let finder = memmem::Finder::new(quoted.as_bytes()).into_owned();
    let mut rest = json;
    std::iter::from_fn(move || {
        loop {
            let at = finder.find(rest.as_bytes())?;
            rest = rest.get(at + quoted.len()..)?;
            if let Some(value) = string_after_colon(rest) {
                return Some(value);
            }
        }
    })
}

fn string_after_colon(text: &str) -> Option<&str> {
    let value = text.trim_ascii_start().strip_prefix(':')?;
    let value = value.trim_ascii_start().strip_prefix('"')?;
    let end = memchr2(b'"', b'\\', value.as_bytes())?;
    let (value, after) = value.split_at_checked(end)?;
    let is_whole = after.starts_with('"') && end <= SECRET_BYTES_MAX;
    let is_secret = is_whole && !value.contains(|c: char| c.is_ascii_whitespace());
    is_secret.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_values_are_found_at_any_depth() {
        let json = r#"{"secret":"one","a":[{"secret" : "two"}],"secret":7,"x":"secret",
            "secret":"has blanks","Secret":"no","secret":"esc\u0061ped","secret":"three"#;
        assert_eq!(values(json, "secret").collect::<Vec<_>>(), ["one", "two"]);
    }
}
