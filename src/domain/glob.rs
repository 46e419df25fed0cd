//! Glob patterns as for file names: `*` matches any run of characters, `?` any single one.

use std::fmt;

/// Longest pattern, in characters: as long as the longest label that it could match.
pub const CHARS_MAX: usize = 255;

/// A pattern for a whole text; all characters except `*` and `?` match themselves,
/// case-sensitively.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob {
    text: Box<str>,
    /// How many bytes precede the first wildcard. Most texts already differ there.
    plain_len: usize,
}

impl Glob {
    /// Parses `text` as a pattern, or returns `None` if it is empty or longer than [`CHARS_MAX`].
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=CHARS_MAX).contains(&text.chars().count());
        fits.then(|| Self {
            text: text.into(),
            plain_len: text.find(['*', '?']).unwrap_or(text.len()),
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcards, and so matches only itself.
    pub fn is_exact(&self) -> bool {
        self.plain_len == self.text.len()
    }

    /// The longest literal that every matching text contains; empty if there is none.
    pub fn literal(&self) -> &str {
        let literals = self.text.split(['*', '?']);
        literals.max_by_key(|literal| literal.len()).unwrap_or("")
    }

    /// Whether it matches the whole of `text`, in at most pattern length times text length steps.
    pub fn matches(&self, text: &str) -> bool {
        let (plain, pattern) = self.text.split_at(self.plain_len);
        let Some(rest) = text.strip_prefix(plain) else {
            return false;
        };
        let (mut pattern, mut rest) = (pattern.chars(), rest.chars());
        // After the last `*`: the rest of the pattern, and the position in the text at which it was
        // last tried. An earlier `*` never needs another try: the last one reaches all that it can
        // reach.
        let mut retry = None;
        loop {
            match (pattern.next(), rest.clone().next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    retry = Some((pattern.clone(), rest.clone()));
                    continue;
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    rest.next();
                    continue;
                }
                (Some(_), _) | (None, Some(_)) => {}
            }
            let Some((after_star, from)) = &mut retry else {
                return false;
            };
            if from.next().is_none() {
                return false;
            }
            (pattern, rest) = (after_star.clone(), from.clone());
        }
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_the_whole_text() {
        let cases = [
            ("checkout", "checkout", true),
            ("checkout", "checkout2", false),
            ("checkout", "Checkout", false),
            ("*", "", true),
            ("*", "anything", true),
            ("?", "", false),
            ("?", "é", true),
            ("?", "ab", false),
            ("ci-*", "ci-", true),
            ("ci-*", "ci-build", true),
            ("ci-*", "a ci-build", false),
            ("*.read", "users.sessions.read", true),
            ("users.*deactivate", "users.deactivate", true),
            ("users.*deactivate", "users.sessions.deactivate", true),
            ("users.*deactivate", "users.deactivated", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*a?", "aaa", true),
            ("*a?", "a", false),
            ("**", "x", true),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
        ];
        for (pattern, text, expected) in cases {
            let glob = Glob::parse(pattern).unwrap();
            assert_eq!(glob.matches(text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_pattern_times_text() {
        let glob = Glob::parse(&"*a".repeat(127)).unwrap();
        assert!(!glob.matches(&format!("{}b", "a".repeat(254))));
    }

    #[test]
    fn whatever_it_matches_has_its_literal_in_it() {
        for (pattern, literal) in [
            ("checkout", "checkout"),
            ("ci-*", "ci-"),
            ("*-ci-*-x", "-ci-"),
            ("*?", ""),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().literal(), literal);
        }
    }

    #[test]
    fn patterns_are_neither_empty_nor_endless() {
        assert_eq!(Glob::parse(""), None);
        assert_eq!(Glob::parse(&"x".repeat(256)), None);
        assert!(Glob::parse("a-b").unwrap().is_exact());
        assert!(!Glob::parse("a?b").unwrap().is_exact());
    }
}
