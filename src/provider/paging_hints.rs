//! Whether an answer that should contain the whole list indicates that there is more. Pure.
//!
//! Mistaking one page for the whole list would report the keys of all other pages as removed. Every
//! usual way of indicating "there is more" therefore counts, documented or not.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::CONTENT_RANGE;
use serde_json::value::RawValue;

use crate::provider::link_header;

/// Maximum depth of objects about paging: `{"meta":{"pagination":{"next":…}}}`.
const DEPTH_MAX: u8 = 2;

/// The indications of further pages in an answer.
#[derive(Debug, Default)]
pub struct PagingHints {
    has_next: bool,
    /// Whether there are several pages, of which this may be the last one.
    has_several: bool,
    /// The largest number of entries that it reports.
    total: u64,
}

/// The meaning of a field next to the list.
enum Meaning {
    /// True if there is more.
    More,
    /// False if there is more, or the number of the last page.
    Last,
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
        let number = || whole(unquoted(value));
        match meaning(name) {
            Some(Meaning::More) => {
                let is_more = unquoted(value) == "true" || number().is_some_and(|more| more > 0);
                self.has_next |= is_more;
            }
            Some(Meaning::Last) => {
                self.has_next |= unquoted(value) == "false";
                self.has_several |= number().is_some_and(|last| last > 1);
            }
            Some(Meaning::Next) => {
                let nothing = ["null", "false", "\"\"", "{}", "[]"];
                // Pages may be counted from 0; a cursor or an offset of 0 leads nowhere.
                let is_start = number() == Some(0) && !name.to_ascii_lowercase().contains("page");
                self.has_next |= !nothing.contains(&value.get()) && !is_start;
            }
            Some(Meaning::Total) => self.total = self.total.max(number().unwrap_or(0)),
            Some(Meaning::Pages) => self.has_several |= number().is_some_and(|pages| pages > 1),
            Some(Meaning::Group) if depth > 0 => self.group_at(value, depth - 1),
            Some(Meaning::Group) | None => {}
        }
    }

    /// Evaluates the fields of an object that is next to the list, or a list of links there.
    pub fn group(&mut self, value: &RawValue) {
        self.group_at(value, DEPTH_MAX);
    }

    fn group_at(&mut self, value: &RawValue, depth: u8) {
        let fields: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(value.get()).unwrap_or_default();
        for (name, value) in fields {
            self.field_at(&name, value, depth);
        }
        // Links as a list: `[{"rel":"next","href":…}]`.
        let links: Vec<Link> = serde_json::from_str(value.get()).unwrap_or_default();
        self.has_next |= links.iter().any(|link| link.rel == "next");
    }

    /// Evaluates the headers: `Link`, `Content-Range`, and those that are named like fields.
    pub fn headers(&mut self, headers: &HeaderMap) {
        self.has_next |= link_header::next(headers) != Ok(None);
        for (name, value) in headers {
            let Ok(text) = value.to_str() else { continue };
            let text = text.trim();
            if name == CONTENT_RANGE {
                // `items 0-49/243`
                let total = text
                    .rsplit_once('/')
                    .and_then(|(_, total)| total.parse().ok());
                self.total = self.total.max(total.unwrap_or(0));
            } else if let Some(name) = name.as_str().strip_prefix("x-") {
                let field = name.strip_prefix("pagination-").unwrap_or(name);
                // JSON, or text that becomes a JSON string.
                let json = serde_json::from_str::<Box<RawValue>>(text)
                    .or_else(|_error| serde_json::value::to_raw_value(text));
                if let Ok(json) = json {
                    self.field(field, &json);
                }
            }
        }
    }

    /// Why a list of this many entries on one page is incomplete; `None` if nothing indicates that.
    pub fn missing(&self, entries: usize) -> Option<String> {
        let why = "the answer says that there are several pages";
        self.missing_after_all(entries)
            .or_else(|| self.has_several.then(|| why.to_owned()))
    }

    /// The same for the last page of a list of this many entries.
    pub fn missing_after_all(&self, entries: usize) -> Option<String> {
        if self.total > entries as u64 {
            let total = self.total;
            return Some(format!("the answer lists {entries} entries of {total}"));
        }
        let why = "the answer says that there are more pages";
        self.has_next.then(|| why.to_owned())
    }
}

/// A link in a list of links.
#[derive(serde::Deserialize)]
struct Link {
    #[serde(default)]
    rel: String,
}

/// A value without the quotation marks of a string.
fn unquoted(value: &RawValue) -> &str {
    value.get().trim_matches('"')
}

/// A whole number, which some APIs write with a fraction: `2.0`.
fn whole(number: &str) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_whole = fraction.bytes().all(|digit| digit == b'0');
    is_whole.then(|| whole.parse().ok())?
}

/// Ignores case and separators: `hasMore`, `has_more`, `has-more`.
fn meaning(name: &str) -> Option<Meaning> {
    // The longest name below has 21 letters.
    if name.len() > 24 {
        return None;
    }
    let letters = name.bytes().filter(u8::is_ascii_alphanumeric);
    let letters: String = letters
        .map(|letter| char::from(letter.to_ascii_lowercase()))
        .collect();
    match letters.as_str() {
        "hasmore" | "hasmoreitems" | "hasmorepages" | "hasmoreresults" | "hasnext"
        | "hasnextpage" | "more" | "moreavailable" | "moreitems" | "moreresults" | "truncated"
        | "istruncated" | "incomplete" | "incompleteresults" | "partial" | "ispartial" => {
            Some(Meaning::More)
        }
        "last" | "islast" | "islastpage" | "lastpage" => Some(Meaning::Last),
        "next"
        | "nextpage"
        | "nextcursor"
        | "nexturl"
        | "nexturi"
        | "nexthref"
        | "nextlink"
        | "nexttoken"
        | "nextkey"
        | "nextmarker"
        | "nextoffset"
        | "nextpagetoken"
        | "nextpageurl"
        | "nextpagelink"
        | "nextpagecursor"
        | "odatanextlink"
        | "continue"
        | "continuationtoken"
        | "nextcontinuationtoken" => Some(Meaning::Next),
        "total" | "count" | "totalcount" | "totalitems" | "totalresults" | "totalentries"
        | "totalrecords" | "totalelements" | "totalsize" | "totalhits" | "totalrows"
        | "totalkeys" | "recordstotal" => Some(Meaning::Total),
        "pages" | "totalpages" | "pagecount" | "numpages" | "numberofpages" | "pagestotal" => {
            Some(Meaning::Pages)
        }
        "pagination" | "pager" | "meta" | "metadata" | "responsemetadata" | "resultinfo"
        | "page" | "pageinfo" | "paging" | "cursor" | "cursors" | "links" => Some(Meaning::Group),
        _ => None,
    }
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
            ("next_page", "0", true),
            ("has_more", "1", true),
            ("has_more", "\"1\"", true),
            ("has_more", "0", false),
            ("total", "3.0", true),
            ("total", "2.0", false),
            ("total", "2.5", false),
            ("total_pages", "2.0", true),
            ("next_cursor", "\"\"", false),
            ("next_cursor", "0", false),
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
            ("@odata.nextLink", "\"https://a/b\"", true),
            (
                "metadata",
                r#"{"continue":"abc","remainingItemCount":7}"#,
                true,
            ),
            ("metadata", r#"{"continue":""}"#, false),
            ("response_metadata", r#"{"next_cursor":"abc"}"#, true),
            (
                "result_info",
                r#"{"page":1,"per_page":2,"total_pages":4,"count":2}"#,
                true,
            ),
            (
                "result_info",
                r#"{"page":1,"count":2,"total_count":2}"#,
                false,
            ),
            ("page", r#"{"number":0,"totalElements":3}"#, true),
            ("pagination", r#"{"page":1,"pages":3}"#, true),
            ("pagination", r#"{"current":1,"last":5}"#, true),
            ("pagination", r#"{"current":1,"last":1}"#, false),
            ("last", "false", true),
            ("isLastPage", "true", false),
            ("count", "3", true),
            ("incomplete_results", "true", true),
            ("has_more", "\"true\"", true),
            (
                "_links",
                r#"[{"rel":"self"},{"rel":"next","href":"/b"}]"#,
                true,
            ),
            ("links", r#"[{"rel":"self"},{"href":"/b"}]"#, false),
            ("links", r#"{"last":"/a?page=1"}"#, false),
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
            ("link", "</a>; title=\"; rel=next\"; rel=prev", false),
            ("link", "/keys?page=2; rel=next", true),
            ("link", "</next>; rel=self", false),
            ("x-next-page", "2", true),
            ("x-next-page", "", false),
            ("x-total-count", "3", true),
            ("x-total-count", "2", false),
            ("x-page", "1", false),
            ("x-total", "3", true),
            ("x-total-pages", "2", true),
            ("x-has-more", "true", true),
            ("x-has-more", "false", false),
            ("x-next-cursor", "abc", true),
            ("x-pagination", r#"{"totalCount":3}"#, true),
            ("x-pagination-page-count", "4", true),
            ("content-range", "items 0-1/3", true),
            ("content-range", "items 0-1/2", false),
            ("content-range", "items 0-1/*", false),
            ("x-request-id", "next", false),
        ] {
            let name = HeaderName::from_static(name);
            let headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            let mut hints = PagingHints::default();
            hints.headers(&headers);
            assert_eq!(hints.missing(2).is_some(), expected, "{name}: {value}");
            // The number of pages says nothing about the last one.
            let is_count = name.as_str().contains("pages") || value.as_bytes() == b"4";
            let after_all = hints.missing_after_all(2).is_some();
            assert_eq!(after_all, expected && !is_count, "{name}: {value:?}");
        }
    }
}
