//! Text with `{name}` as a placeholder for an account's values. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Text with placeholders in braces that each account fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Param(String),
}

impl Template {
    /// Parses a text; `None` if a brace is unbalanced or a name is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            if before.contains('}') || !is_param_name(name) {
                return None;
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Param(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return None;
        }
        parts.push(Part::Text(rest.to_owned()));
        Some(Self(parts))
    }

    /// The names in braces.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Param(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with the values, each percent-encoded so that it stays one segment of a path;
    /// `None` where one is missing.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Option<String> {
        self.filled(values, str::to_owned, percent_encoded)
    }

    /// The same, with the text around the values encoded too, for the value of a query parameter.
    pub fn fill_query(&self, values: &BTreeMap<String, String>) -> Option<String> {
        self.filled(values, percent_encoded, percent_encoded)
    }

    /// The same, with nothing encoded.
    pub fn fill_plain(&self, values: &BTreeMap<String, String>) -> Option<String> {
        self.filled(values, str::to_owned, str::to_owned)
    }

    fn filled(
        &self,
        values: &BTreeMap<String, String>,
        encode_text: impl Fn(&str) -> String,
        encode_value: impl Fn(&str) -> String,
    ) -> Option<String> {
        self.0.iter().try_fold(String::new(), |filled, part| {
            Some(match part {
                Part::Text(text) => filled + &encode_text(text),
                Part::Param(name) => filled + &encode_value(values.get(name)?),
            })
        })
    }
}

/// Whether `name` is valid in braces.
pub fn is_param_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(is_plain)
}

/// `text` with all characters encoded except those that RFC 3986 calls unreserved.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_as_one_segment_each() {
        let values = [("a", "x/y z"), ("b", "é?#%&=")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let values = BTreeMap::from(values);
        for (text, expected) in [
            ("/plain", Some("/plain")),
            ("/v1/{a}/tokens", Some("/v1/x%2Fy%20z/tokens")),
            ("{a}{b}", Some("x%2Fy%20z%C3%A9%3F%23%25%26%3D")),
            ("{c}", None),
            ("", Some("")),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.fill(&values).as_deref(), expected, "{text}");
        }
        let query = Template::parse("a&b={a}").unwrap().fill_query(&values);
        assert_eq!(query.as_deref(), Some("a%26b%3Dx%2Fy%20z"));
        let template = Template::parse("{a}/{c}").unwrap();
        assert_eq!(template.params().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn braces_come_in_pairs_around_names() {
        for text in ["{", "}", "{}", "{a", "a}", "{a}}", "{{a}}", "{a b}", "}{a"] {
            assert_eq!(Template::parse(text), None, "{text}");
        }
    }
}
