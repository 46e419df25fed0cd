//! Suggests the intended word for a misspelled one. Pure.

/// Options and choices are shorter; a longer word is not a misspelling.
const CHARS_MAX: usize = 64;

/// The closest match for `given` in `known`, if at most a third of the letters differ.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > CHARS_MAX {
        return None;
    }
    // Case, and dashes for underscores, are ignored.
    let given = given.to_lowercase().replace('-', "_");
    let letters = given.chars().count();
    let distances = known
        .into_iter()
        .map(|word| (strsim::osa_distance(&given, word), word));
    let (distance, word) = distances.min()?;
    (distance <= (letters / 3).max(1) && letters > 1).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_close_word_is_suggested() {
        let known = ["interval", "timeout", "token_file", "token_env"];
        for (given, expected) in [
            ("intervall", Some("interval")),
            ("Interval", Some("interval")),
            ("tiemout", Some("timeout")),
            ("token-file", Some("token_file")),
            ("tokenfile", Some("token_file")),
            ("token", None),
            ("x", None),
            ("", None),
            ("something_else", None),
        ] {
            assert_eq!(closest(given, known), expected, "{given}");
        }
        assert_eq!(closest(&"a".repeat(10_000), known), None);
    }
}
