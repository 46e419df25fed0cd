//! What one listing showed about each field that is read, and about fields that are not: for
//! `config check --live`. Pure.
//!
//! The reader of an answer reports what it found while it reads; nothing is read a second time by
//! other rules. Values are never kept: only their types and shapes are.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use url::Url;

use crate::domain::key::{Expiry, Key, LastUse};
use crate::domain::text::{Cleaner, Line};
use crate::provider::json_list::pointer::{Pointer, Segment, find, index};
use crate::provider::time_format::{DateEnds, TimeFormat};

/// Most names of fields that are kept. Answers with more are rare, and nobody reads more.
const NAMES_MAX: usize = 40;

/// Longest name that is kept, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Deepest object that is searched for names.
const DEPTH_MAX: usize = 3;

/// Most entries that are searched for names: all entries of a list usually have the same fields.
const ENTRIES_MAX: usize = 200;

/// Longest text that is described by its shape, and longest run of letters and digits in it. Times
/// are shorter; a secret is longer.
const SHAPE_CHARS_MAX: usize = 40;
const RUN_CHARS_MAX: usize = 14;

/// The type of a list that cannot be read as a whole.
pub const UNUSABLE_ENTRY: &str = "a list with an entry that is no text, or no address";

/// Most digits of a query parameter's value that is shown: a page number or size. Others may be
/// secrets.
const NUMBER_DIGITS_MAX: usize = 6;

/// What was found in the answers of one listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The URL of the first request, without secrets.
    pub request: Option<Line>,
    /// Pages read.
    pub pages: usize,
    /// Pages after which there was another one.
    pub pages_with_next: usize,
    /// Entries, usable or not.
    pub entries: usize,
    /// Whether the reader treats null as a missing field, and so cannot count it.
    pub null_is_missing: bool,
    /// Entries of the list that are no objects, by their type.
    pub other_types: BTreeMap<&'static str, usize>,
    /// The fields that are read, in their usual order.
    pub fields: Vec<FieldFindings>,
    /// Fields of entries that are not read.
    pub unused: BTreeSet<String>,
    /// Fields beside the list, or of an answer without a list, that are not read.
    pub beside: BTreeSet<String>,
    /// Lists in an answer that has none where one is expected, with their lengths.
    pub lists: BTreeMap<String, usize>,
}

/// What was found of one field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldFindings {
    /// The name of the option.
    pub name: &'static str,
    /// The pointer to it.
    pub at: String,
    /// Entries that have it, with a value other than null.
    pub found: usize,
    /// Entries in which it is null.
    pub null: usize,
    /// Entries with a value that was not tried, because the entry cannot be used for other reasons.
    pub skipped: usize,
    /// Usable entries in which the value could be read.
    pub read: usize,
    /// Entries in which it has the meaning that matters most: a key never expires, or is disabled.
    pub special: usize,
    /// The latest time that was read: one far from the present shows a wrong format.
    pub latest: Option<DateTime<Utc>>,
    /// The shape of the first value that could not be read.
    pub unreadable: Option<String>,
    /// The formats that would read that value as a time.
    pub fitting_formats: Vec<&'static str>,
}

/// One field of one entry. Not printable: the value may be a secret.
pub(super) enum Seen<'a> {
    /// Missing.
    Absent,
    /// Null.
    Null,
    /// A value that could be read.
    Read,
    /// A value of an entry that is not used for other reasons.
    Skipped,
    /// A text or number that could not be read, in its original spelling.
    Unreadable(Cow<'a, str>),
    /// Any other value that could not be read: its type.
    OtherType(&'static str),
    /// Missing, because a value on the path to it is neither a list nor an object.
    Unreachable,
}

impl Findings {
    /// Nothing was found yet of these fields: their names and pointers.
    pub fn of(fields: impl Iterator<Item = (&'static str, String)>) -> Self {
        let fields = fields.map(|(name, at)| FieldFindings {
            name,
            at,
            ..FieldFindings::default()
        });
        Self {
            fields: fields.collect(),
            ..Self::default()
        }
    }

    /// The findings of a field.
    pub fn field(&self, name: &str) -> Option<&FieldFindings> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Searches the entries of the list, and the fields beside it, for names that none of `places`
    /// points at. Without a list, names the lists that exist.
    pub fn add_structure(&mut self, body: &str, places: &Places<'_>, cleaner: &Cleaner) {
        let Ok(root) = serde_json::from_str::<&RawValue>(body) else {
            return;
        };
        let list = places.items.and_then(|items| find(root, items.segments()));
        let elements: Option<Vec<&RawValue>> =
            list.and_then(|list| serde_json::from_str(list.get()).ok());
        let mut names = Names {
            cleaner,
            names: &mut self.beside,
        };
        let mut around: Vec<&Pointer> = places.beside.clone();
        around.extend(places.items);
        names.collect(root, "", &mut Vec::new(), &around);
        let Some(elements) = elements else {
            find_lists(root, &mut Vec::new(), &mut self.lists, cleaner);
            return;
        };
        let of_list = places.nested.map_or(&*places.entry, |_| &[]);
        count_types(&mut self.other_types, &elements, of_list);
        let mut names = Names {
            cleaner,
            names: &mut self.unused,
        };
        let Some(nested) = places.nested else {
            for item in elements.into_iter().take(ENTRIES_MAX) {
                names.collect(item, "", &mut Vec::new(), &places.entry);
            }
            return;
        };
        let mut outer: Vec<&Pointer> = places.outer.clone();
        outer.push(nested);
        for (at, item) in elements.into_iter().enumerate() {
            let inner = find(item, nested.segments());
            let inner: Option<Vec<&RawValue>> =
                inner.and_then(|inner| serde_json::from_str(inner.get()).ok());
            let inner = inner.unwrap_or_default();
            count_types(&mut self.other_types, &inner, &places.entry);
            if at < ENTRIES_MAX {
                names.collect(item, "^", &mut Vec::new(), &outer);
                for item in inner.into_iter().take(ENTRIES_MAX) {
                    names.collect(item, "", &mut Vec::new(), &places.entry);
                }
            }
        }
    }

    fn add(&mut self, page: Self) {
        self.entries += page.entries;
        self.null_is_missing = page.null_is_missing;
        self.lists = page.lists;
        for (kind, count) in page.other_types {
            *self.other_types.entry(kind).or_default() += count;
        }
        extend(&mut self.unused, page.unused);
        extend(&mut self.beside, page.beside);
        if self.fields.is_empty() {
            self.fields = page.fields;
            return;
        }
        for (field, of_page) in self.fields.iter_mut().zip(page.fields) {
            field.found += of_page.found;
            field.null += of_page.null;
            field.skipped += of_page.skipped;
            field.read += of_page.read;
            field.special += of_page.special;
            field.latest = field.latest.max(of_page.latest);
            if field.unreadable.is_none() {
                field.unreadable = of_page.unreadable;
                field.fitting_formats = of_page.fitting_formats;
            }
        }
    }
}

/// Where values are that are read.
#[derive(Debug, Default)]
pub struct Places<'p> {
    /// The list; `None` in an answer that should have none.
    pub items: Option<&'p Pointer>,
    /// The list inside each item.
    pub nested: Option<&'p Pointer>,
    /// In an entry.
    pub entry: Vec<&'p Pointer>,
    /// In the outer item of a nested list.
    pub outer: Vec<&'p Pointer>,
    /// Beside the list.
    pub beside: Vec<&'p Pointer>,
}

impl FieldFindings {
    /// Counts the field of one more entry.
    pub(super) fn count(&mut self, seen: Seen<'_>) {
        let shape = match seen {
            Seen::Absent => return,
            Seen::Null => {
                self.null += 1;
                return;
            }
            Seen::Read => {
                self.found += 1;
                self.read += 1;
                return;
            }
            Seen::Skipped => {
                self.found += 1;
                self.skipped += 1;
                return;
            }
            Seen::Unreadable(text) => {
                self.found += 1;
                if self.unreadable.is_none() && self.name.ends_with("_at") {
                    let formats = FORMATS.into_iter();
                    let fitting = formats.filter(|(_, format)| format.parse(&text).is_some());
                    self.fitting_formats = fitting.map(|(name, _)| name).collect();
                }
                shape(&text)
            }
            Seen::OtherType(kind) => {
                self.found += 1;
                kind.to_owned()
            }
            Seen::Unreachable => "a value on the path to it is not an object".to_owned(),
        };
        self.unreadable.get_or_insert(shape);
    }
}

/// The time that a reader found for the field of this name.
pub fn time_of(name: &str, key: &Key) -> Option<DateTime<Utc>> {
    match name {
        "expires_at" => match key.expiry {
            Expiry::At(at) => Some(at),
            Expiry::Never | Expiry::Unknown => None,
        },
        "created_at" => key.created_at,
        "updated_at" => key.updated_at,
        "last_used_at" => match key.details.as_ref()?.last_use {
            LastUse::At(at) => Some(at),
            LastUse::Never | LastUse::Unknown => None,
        },
        _ => None,
    }
}

/// The formats of times, by their names in a definition.
const FORMATS: [(&str, TimeFormat); 5] = [
    ("rfc3339", TimeFormat::Rfc3339),
    ("naive_utc", TimeFormat::NaiveUtc),
    (
        "date",
        TimeFormat::Date {
            ends: DateEnds::StartOfDay,
        },
    ),
    ("unix_ms", TimeFormat::UnixMs),
    ("unix", TimeFormat::Unix),
];

/// A text without its content: `0` for each digit, `a` for each letter, so that the format of a
/// time is visible. Of a text that may be a secret, only the length.
fn shape(text: &str) -> String {
    let chars = text.chars().count();
    let longest = text
        .split(|c: char| !c.is_alphanumeric())
        .map(str::len)
        .max();
    let is_short = chars <= SHAPE_CHARS_MAX && longest.unwrap_or(0) <= RUN_CHARS_MAX;
    let has_digit = text.contains(|c: char| c.is_ascii_digit());
    let is_visible = text.chars().all(|c| matches!(c, ' '..='~'));
    if !(is_short && has_digit && is_visible) {
        return format!("a text of {chars} characters");
    }
    let shown = text.chars().map(|c| match c {
        '0'..='9' => '0',
        'a'..='z' | 'A'..='Z' => 'a',
        other => other,
    });
    format!("like \"{}\"", shown.collect::<String>())
}

/// Names of fields that are not read.
struct Names<'n> {
    cleaner: &'n Cleaner,
    names: &'n mut BTreeSet<String>,
}

impl Names<'_> {
    /// Collects the fields of `object`, which is at `path`, that none of `read` points at.
    fn collect<'a>(
        &mut self,
        object: &'a RawValue,
        prefix: &str,
        path: &mut Vec<Cow<'a, str>>,
        read: &[&Pointer],
    ) {
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_str(object.get()).unwrap_or_default();
        for (name, value) in fields {
            path.push(name);
            let meets = |pointer: &&&Pointer| is_on_path(pointer.segments(), path);
            let deeper = read.iter().filter(meets).map(|it| it.segments().len());
            let is_read = deeper.clone().any(|length| length <= path.len());
            let leads_to_read = deeper.max().is_some();
            let is_object = value.get().starts_with('{') && path.len() < DEPTH_MAX;
            if is_object && !is_read {
                self.collect(value, prefix, path, read);
            } else if !is_read && !leads_to_read && self.names.len() <= NAMES_MAX {
                let shown = shown(prefix, path, self.cleaner);
                self.names.insert(shown);
            }
            path.pop();
        }
    }
}

/// Counts the entries that are no objects, by type. A list can be an entry if a pointer leads into
/// one.
fn count_types(
    counts: &mut BTreeMap<&'static str, usize>,
    entries: &[&RawValue],
    pointers: &[&Pointer],
) {
    let leads_into_list = |pointer: &&Pointer| match pointer.segments().first() {
        Some(Segment::Name(name)) => index(name).is_some(),
        Some(Segment::Every) => true,
        None => false,
    };
    let are_lists = pointers.iter().any(leads_into_list);
    for entry in entries {
        let kind = match entry.get().as_bytes().first() {
            Some(b'{') => continue,
            Some(b'[') if are_lists => continue,
            Some(b'[') => "list",
            Some(b'"') => "text",
            Some(b't' | b'f') => "boolean",
            Some(b'n') => "null",
            Some(_) | None => "number",
        };
        *counts.entry(kind).or_default() += 1;
    }
}

/// Whether `path` and the pointer agree as far as both go.
fn is_on_path(pointer: &[Segment], path: &[Cow<'_, str>]) -> bool {
    pointer
        .iter()
        .zip(path)
        .all(|(segment, name)| match segment {
            Segment::Name(wanted) => **wanted == **name,
            Segment::Every => true,
        })
}

/// The pointer to a field, cleaned: an API may use secrets as names.
fn shown(prefix: &str, path: &[Cow<'_, str>], cleaner: &Cleaner) -> String {
    let path = path.iter().fold(prefix.to_owned(), |path, name| {
        path + "/" + &name.replace('~', "~0").replace('/', "~1")
    });
    let clean = cleaner.line(&path);
    if clean.as_str().chars().count() <= NAME_CHARS_MAX {
        return clean.as_str().to_owned();
    }
    let cut: String = clean.as_str().chars().take(NAME_CHARS_MAX).collect();
    cut + "…"
}

/// The lists in `value`, which is at `path`.
fn find_lists<'a>(
    value: &'a RawValue,
    path: &mut Vec<Cow<'a, str>>,
    lists: &mut BTreeMap<String, usize>,
    cleaner: &Cleaner,
) {
    if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        if lists.len() < NAMES_MAX {
            lists.insert(shown("", path, cleaner), elements.len());
        }
    } else if path.len() < DEPTH_MAX {
        let fields: BTreeMap<Cow<'a, str>, &'a RawValue> =
            serde_json::from_str(value.get()).unwrap_or_default();
        for (name, value) in fields {
            path.push(name);
            find_lists(value, path, lists, cleaner);
            path.pop();
        }
    }
}

fn extend(names: &mut BTreeSet<String>, more: BTreeSet<String>) {
    for name in more {
        if names.len() > NAMES_MAX {
            break;
        }
        names.insert(name);
    }
}

/// The names as text, at most `NAMES_MAX`.
pub fn listed(names: &BTreeSet<String>) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    let more = if names.len() > NAMES_MAX { ", …" } else { "" };
    shown.join(", ") + more
}

/// The URL without user and query.
pub(super) fn without_query(url: &Url) -> String {
    let authority = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    format!("{}://{authority}{port}{}", url.scheme(), url.path())
}

/// The URL without user, and without values in its query that may be secrets.
fn without_secrets(url: &Url) -> String {
    let mut text = without_query(url);
    for (at, (name, value)) in url.query_pairs().enumerate() {
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = is_number && value.len() <= NUMBER_DIGITS_MAX;
        let is_plain = is_plain || matches!(&*value, "true" | "false");
        let value = if is_plain { &*value } else { "…" };
        text = text + if at == 0 { "?" } else { "&" } + &name + "=" + value;
    }
    text
}

/// Findings that a reader adds to while the caller waits for the listing.
#[derive(Clone, Debug, Default)]
pub struct SharedFindings(Arc<Mutex<Findings>>);

impl SharedFindings {
    /// Notes the URL of a request, if it is the first one.
    pub fn requested(&self, url: &Url, cleaner: &Cleaner) {
        let shown = || cleaner.line(&without_secrets(url));
        self.lock().request.get_or_insert_with(shown);
    }

    /// Forgets the findings so far: the pages are read again.
    pub fn restart(&self) {
        let mut findings = self.lock();
        let request = findings.request.take();
        *findings = Findings {
            request,
            ..Findings::default()
        };
    }

    /// Adds the findings of one page.
    pub fn add(&self, page: Findings) {
        self.lock().add(page);
    }

    /// Counts one page, and whether there is another one.
    pub fn count_page(&self, has_next: bool) {
        let mut findings = self.lock();
        findings.pages += 1;
        findings.pages_with_next += usize::from(has_next);
    }

    /// The findings; nothing remains.
    pub fn take(&self) -> Findings {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Findings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Token;

    fn cleaner() -> Cleaner {
        let token = Token::parse(b"sk_live_0123456789abcdefghij", "test").unwrap();
        Cleaner::new(token.secrets(0))
    }

    #[test]
    fn a_value_is_described_by_its_shape_unless_it_may_be_a_secret() {
        for (text, expected) in [
            ("2026-05-30T20:23:16Z", "like \"0000-00-00a00:00:00a\""),
            ("05/30/2026", "like \"00/00/0000\""),
            ("1767225602000", "like \"0000000000000\""),
            ("Sat, 30 May 2026", "like \"aaa, 00 aaa 0000\""),
            ("", "a text of 0 characters"),
            ("never", "a text of 5 characters"),
            ("Zx9qWmK2vLp7RtYb", "a text of 16 characters"),
            ("2026-05-30\u{1b}[31m", "a text of 15 characters"),
            (
                "2026-05-30 2026-05-30 2026-05-30 2026-05-30",
                "a text of 43 characters",
            ),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn a_url_is_shown_without_user_and_values() {
        let url =
            "https://u:p@api.example:8443/v1/keys?page=1&per_page=100&all=true&q=abc&n=1234567";
        let shown = "https://api.example:8443/v1/keys?page=1&per_page=100&all=true&q=…&n=…";
        assert_eq!(without_secrets(&url.parse().unwrap()), shown);
    }

    fn of(body: &str, nested: Option<&str>, entry: &[&str]) -> Findings {
        let pointer = |text: &str| Pointer::parse_many(text).unwrap();
        let (items, nested) = (pointer("/data"), nested.map(pointer));
        let entry: Vec<Pointer> = entry.iter().map(|text| pointer(text)).collect();
        let outer = pointer("/name");
        let places = Places {
            items: Some(&items),
            nested: nested.as_ref(),
            entry: entry.iter().collect(),
            outer: vec![&outer],
            ..Places::default()
        };
        let mut findings = Findings::default();
        findings.add_structure(body, &places, &cleaner());
        findings
    }

    #[test]
    fn fields_that_no_pointer_leads_to_are_named() {
        let body = r#"{"data":[{"id":1,"a/b":{"c":{"d":{"e":1}},"f":2},"l":[{"x":1,"y":2}]},
            {"g":null,"sk_live_0123456789abcdefghij":1}],"meta":{"next":1}}"#;
        let findings = of(body, None, &["/id", "/a~1b/f", "/l/*/x"]);
        let unused: Vec<&str> = findings.unused.iter().map(String::as_str).collect();
        assert_eq!(unused, ["/[redacted]", "/a~1b/c/d", "/g"]);
        let beside: Vec<&str> = findings.beside.iter().map(String::as_str).collect();
        assert_eq!(beside, ["/meta/next"]);

        let body = r#"{"data":[{"name":"n","team":1,"keys":[{"id":1,"at":2}]}]}"#;
        let findings = of(body, Some("/keys"), &["/id"]);
        let unused: Vec<&str> = findings.unused.iter().map(String::as_str).collect();
        assert_eq!(unused, ["/at", "^/team"]);
    }

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let fields: Vec<String> = (0..500)
            .map(|n| format!("\"{n}{}\":1", "x".repeat(300)))
            .collect();
        let body = format!("{{\"data\":[{{{}}}]}}", fields.join(","));
        let findings = of(&body, None, &["/id"]);
        assert_eq!(findings.unused.len(), NAMES_MAX + 1);
        let longest = findings
            .unused
            .iter()
            .map(|name| name.chars().count())
            .max();
        assert_eq!(longest, Some(NAME_CHARS_MAX + 1));
        let shown = listed(&findings.unused);
        assert!(
            shown.ends_with(", …") && shown.matches(", ").count() == NAMES_MAX,
            "{shown}"
        );
    }

    #[test]
    fn without_a_list_those_that_exist_are_named() {
        let body = r#"{"result":{"keys":[1,2],"other":{"more":[]}},"none":1}"#;
        let findings = of(body, None, &["/id"]);
        let lists: Vec<(&str, usize)> = findings
            .lists
            .iter()
            .map(|(at, entries)| (at.as_str(), *entries))
            .collect();
        assert_eq!(lists, [("/result/keys", 2), ("/result/other/more", 0)]);
        // A body that is no JSON has none.
        assert_eq!(of("<html>", None, &["/id"]), Findings::default());
    }
}
