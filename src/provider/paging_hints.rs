//! Whether an answer that should contain the whole list indicates that there is more. Pure.
//!
//! Mistaking one page for the whole list would report the keys of all other pages as removed. Every
//! usual way of indicating "there is more" therefore counts, documented or not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::LINK;
use serde_json::value::RawValue;

/// Maximum depth of objects about paging: `{"meta":{"pagination":{"next":…}}}`.
const DEPTH_MAX: u8 = 2;

/// The indications of further pages in an answer.
#[derive(Debug, Default)]
pub struct PagingHints {
    has_next: bool,
    /// The largest number of entries that it reports.
    total: u64,
}

/// The meaning of a field next to the list.
enum Meaning {
    /// True if there is more.
    More,
    /// The location of the next page, if any.
    Next,
    /// The number of entries.
    Total,
    /// The number of pages.
    Pages,
    /// An object of such fields.
    Group,
}

impl PagingHints {
    /// Whether a field of this name may be about paging, so that its value must be read.
    pub fn is_about_paging(name: &str) -> bool {
        meaning(name).is_some()
    }

    /// Evaluates a field next to the list.
    pub fn field(&mut self, name: &str, value: &RawValue) {
        self.field_at(name, value, DEPTH_MAX);
    }

    fn field_at(&mut self, name: &str, value: &RawValue, depth: u8) {
        let number = || value.get().trim_matches('"').parse::<u64>().ok();
        match meaning(name) {
            Some(Meaning::More) => self.has_next |= value.get() == "true",
            Some(Meaning::Next) => {
                let nothing = ["null", "false", "\"\"", "0", "{}", "[]"];
                self.has_next |= !nothing.contains(&value.get());
            }
            Some(Meaning::Total) => self.total = self.total.max(number().unwrap_or(0)),
            Some(Meaning::Pages) => self.has_next |= number().is_some_and(|pages| pages > 1),
            Some(Meaning::Group) if depth > 0 => {
                let fields: BTreeMap<Cow<'_, str>, &RawValue> =
                    serde_json::from_str(value.get()).unwrap_or_default();
                for (name, value) in fields {
                    self.field_at(&name, value, depth - 1);
                }
            }
            Some(Meaning::Group) | None => {}
        }
    }

    /// Evaluates the headers.
    pub fn headers(&mut self, headers: &HeaderMap) {
        let texts = |name: &str| {
            let values = headers.get_all(name).iter();
            let texts = values.filter_map(|value| value.to_str().ok());
            texts.map(str::trim).collect::<Vec<_>>()
        };
        self.has_next |= texts(LINK.as_str()).iter().any(|link| has_next(link));
        self.has_next |= texts("x-next-page").iter().any(|page| !page.is_empty());
        let totals = ["x-total-count", "x-total"].into_iter().flat_map(texts);
        let total = totals.filter_map(|total| total.parse().ok()).max();
        self.total = self.total.max(total.unwrap_or(0));
    }

    /// Why a list of this many entries is incomplete; `None` if nothing indicates that.
    pub fn missing(&self, entries: usize) -> Option<String> {
        if self.total > entries as u64 {
            let total = self.total;
            return Some(format!("the answer lists {entries} entries of {total}"));
        }
        let why = "the answer says that there are more pages";
        self.has_next.then(|| why.to_owned())
    }
}

/// Ignores case and separators: `hasMore`, `has_more`, `has-more`.
fn meaning(name: &str) -> Option<Meaning> {
    // The longest name below has 15 letters.
    if name.len() > 24 {
        return None;
    }
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    let letters: String = letters
        .map(|letter| char::from(letter.to_ascii_lowercase()))
        .collect();
    match letters.as_str() {
        "hasmore" | "hasnext" | "hasnextpage" | "more" | "moreavailable" | "istruncated" => {
            Some(Meaning::More)
        }
        "next" | "nextpage" | "nextcursor" | "nexturl" | "nextlink" | "nexttoken"
        | "nextpagetoken" | "nextpageurl" | "nextoffset" => Some(Meaning::Next),
        "total" | "totalcount" | "totalitems" | "totalresults" | "totalentries"
        | "totalrecords" => Some(Meaning::Total),
        "totalpages" | "pagecount" | "lastpage" => Some(Meaning::Pages),
        "pagination" | "meta" | "page" | "pageinfo" | "paging" | "links" => Some(Meaning::Group),
        _ => None,
    }
}

/// Whether a `Link` header has a link with `rel="next"` (RFC 8288).
fn has_next(links: &str) -> bool {
    links.split([';', ',']).any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel")
            && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn every_usual_way_of_saying_that_there_is_more_counts() {
        for (name, value, expected) in [
            ("has_more", "true", true),
            ("hasMore", "true", true),
            ("has_more", "false", false),
            ("has_more", "null", false),
            ("next", "\"/keys?page=2\"", true),
            ("next", "null", false),
            ("next_page", "2", true),
            ("next_cursor", "\"\"", false),
            ("nextPageToken", "\"abc\"", true),
            ("total", "3", true),
            ("total", "2", false),
            ("total_count", "\"3\"", true),
            ("total", "\"many\"", false),
            ("total_pages", "2", true),
            ("total_pages", "1", false),
            ("meta", r#"{"total":3}"#, true),
            ("meta", r#"{"pagination":{"next_page":2}}"#, true),
            ("meta", r#"{"page":{"page":{"next":2}}}"#, false),
            ("links", r#"{"self":"/a","next":{"href":"/b"}}"#, true),
            ("links", r#"{"self":"/a","next":null}"#, false),
            ("page", "1", false),
            ("page_info", r#"{"hasNextPage":true}"#, true),
            ("pagination", "[1]", false),
            ("message", "\"next\"", false),
        ] {
            let mut hints = PagingHints::default();
            hints.field(name, serde_json::from_str(value).unwrap());
            assert_eq!(hints.missing(2).is_some(), expected, "{name}: {value}");
        }
    }

    #[test]
    fn headers_say_so_too() {
        for (name, value, expected) in [
            ("link", "</keys?page=2>; rel=\"next\"", true),
            (
                "link",
                "</a>; rel=first, </keys?page=2>; REL=\"last next\"",
                true,
            ),
            ("link", "</keys>; rel=\"prev\"", false),
            ("link", "</next>; rel=self", false),
            ("x-next-page", "2", true),
            ("x-next-page", "", false),
            ("x-total-count", "3", true),
            ("x-total-count", "2", false),
            ("x-page", "1", false),
        ] {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            let mut hints = PagingHints::default();
            hints.headers(&headers);
            assert_eq!(hints.missing(2).is_some(), expected, "{name}: {value}");
        }
    }
}
