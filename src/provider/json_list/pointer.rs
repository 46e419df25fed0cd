//! The location of a value in an answer: JSON pointers (RFC 6901), with `*` for every element.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::value::RawValue;

/// Longest pointer, in bytes, and most segments: far more than the nesting of any API.
const BYTES_MAX: usize = 255;
const SEGMENTS_MAX: usize = 16;

/// The expected format of a pointer, for messages.
pub const WANTED: &str = "a JSON pointer such as \"/data/id\" (RFC 6901)";

/// As [`WANTED`], if `*` is allowed.
pub const WANTED_MANY: &str =
    "a JSON pointer such as \"/scopes\" or \"/policies/*/name\" (RFC 6901; * is every element)";

/// The path to a value, from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(Box<[Segment]>);

/// One step of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Into the field of this name, or the element of this number.
    Name(Box<str>),
    /// Into every element of a list, or every value of an object.
    Every,
}

impl Pointer {
    /// Parses a pointer to one value; `None` if the text is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_many(text).filter(|pointer| !pointer.0.contains(&Segment::Every))
    }

    /// Parses a pointer that may have segments `*`.
    pub fn parse_many(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX || text.chars().any(char::is_control) {
            return None;
        }
        if text.is_empty() {
            return Some(Self::default());
        }
        let segments = text.strip_prefix('/')?.split('/');
        let segments: Option<Box<[Segment]>> = segments.map(segment).collect();
        segments
            .filter(|segments| segments.len() <= SEGMENTS_MAX)
            .map(Self)
    }

    /// The steps.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether its value is the one that `other` points to, or is inside it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Name(name) => write!(f, "/{}", name.replace('~', "~0").replace('/', "~1")),
            Segment::Every => f.write_str("/*"),
        })
    }
}

fn segment(text: &str) -> Option<Segment> {
    if text == "*" {
        return Some(Segment::Every);
    }
    let escapes = text.split('~').skip(1);
    let is_valid = escapes
        .into_iter()
        .all(|after| after.starts_with(['0', '1']));
    let name = text.replace("~1", "/").replace("~0", "~");
    is_valid.then(|| Segment::Name(name.into()))
}

/// The list index that a segment means: digits without a leading zero.
pub(in crate::provider) fn index(segment: &str) -> Option<usize> {
    let is_number = segment.bytes().all(|byte| byte.is_ascii_digit());
    let has_zeros = segment.len() > 1 && segment.starts_with('0');
    (is_number && !has_zeros).then(|| segment.parse().ok())?
}

/// The value at the end of these steps from `json`. Each step scans the value that it enters, so
/// this is for small values.
pub(in crate::provider) fn find<'a>(
    json: &'a RawValue,
    segments: &[Segment],
) -> Option<&'a RawValue> {
    let Some((segment, rest)) = segments.split_first() else {
        return Some(json);
    };
    let Segment::Name(name) = segment else {
        return None;
    };
    let inner = if json.get().starts_with('{') {
        let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(json.get()).ok()?;
        *fields.get(&**name)?
    } else if json.get().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(json.get()).ok()?;
        *elements.get(index(name)?)?
    } else {
        return None;
    };
    find(inner, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read_as_in_rfc_6901() {
        let json: &RawValue = serde_json::from_str(
            r#"{"a":{"b":1},"":{"":2},"a/b":3,"m~n":4,"~1":5,"l":[6,{"x":7}],"01":8," ":9}"#,
        )
        .unwrap();
        for (text, expected) in [
            ("/a/b", "1"),
            ("//", "2"),
            ("/a~1b", "3"),
            ("/m~0n", "4"),
            ("/~01", "5"),
            ("/l/0", "6"),
            ("/l/1/x", "7"),
            ("/01", "8"),
            ("/ ", "9"),
        ] {
            let pointer = Pointer::parse(text).unwrap_or_else(|| panic!("{text}"));
            let found = find(json, pointer.segments()).map(RawValue::get);
            assert_eq!((found, pointer.to_string()), (Some(expected), text.into()));
        }
        let whole = Pointer::parse("").unwrap();
        assert_eq!(
            find(json, whole.segments()).map(RawValue::get),
            Some(json.get())
        );
        for text in ["/l/00", "/l/2", "/l/-", "/l/x", "/a/b/c", "/A", "/a/"] {
            let pointer = Pointer::parse(text).unwrap();
            assert!(find(json, pointer.segments()).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        let long = format!("/{}", "x".repeat(255));
        let deep = "/x".repeat(17);
        for text in [
            "data", "a/b", "#/a", "$.a", "/~", "/~2", "/a~", "/a\n", "/*", "/a/*/b", &long, &deep,
        ] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        let many = Pointer::parse_many("/a/*/b").unwrap();
        assert_eq!(many.segments().get(1), Some(&Segment::Every));
        assert_eq!(many.to_string(), "/a/*/b");
    }

    #[test]
    fn a_pointer_is_within_what_is_around_it() {
        let parse = |text| Pointer::parse(text).unwrap();
        assert!(parse("/a/b").is_within(&parse("/a")));
        assert!(parse("/a").is_within(&parse("")));
        assert!(parse("/a").is_within(&parse("/a")));
        assert!(!parse("/ab").is_within(&parse("/a")));
        assert!(!parse("").is_within(&parse("/a")));
    }
}
