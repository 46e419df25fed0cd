//! Parses the bytes of one answer into a page of keys or a failure. Pure.
//!
//! The answer is read in one pass: the list item by item, and around it only the fields that the
//! definition points at.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};
use http::HeaderMap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Key, KeyId};
use crate::domain::listing::{Reject, Rejects};
use crate::domain::text::{Cleaner, Line, Secrets};
use crate::provider::findings::{Findings, SharedFindings};
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::{Pagination, SupportId};
use crate::provider::json_list::entry::{Values, Walk};
use crate::provider::json_list::key::Item;
use crate::provider::json_list::observe;
use crate::provider::json_list::pointer::{self, Pointer, Segment};
use crate::provider::paging_hints::PagingHints;
use crate::provider::response::{Response, foreign, is_success, status_words};
use crate::provider::{Rules, json_body, secret_fields};
use crate::secret::Token;

/// Longest value at `error` that is shown if it is not text.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// Values at `error` that mean "none", as null and an empty text do.
const NO_ERROR: [&str; 4] = ["false", "0", "[]", "{}"];

/// Fields with these names are secrets unless the definition points at them.
const SECRET_NAMES: [&str; 6] = ["token", "secret", "key", "password", "value", "hash"];

/// One answer with a part of the list.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) keys: Vec<Key>,
    pub(super) rejects: Rejects,
    /// Ids of entries that have an id but were rejected.
    pub(super) rejected_ids: Vec<KeyId>,
    /// The number of items of the list; of a nested listing, the outer ones.
    pub(super) items: usize,
    /// The number of possible keys: the items, or the inner ones of a nested listing.
    pub(super) entries: usize,
    /// A hash of the ids in their order; `None` if there are none.
    pub(super) ids_hash: Option<u64>,
    /// The values that the pagination points at, in the order of its pointers.
    pub(super) paging: Vec<Said>,
    pub(super) support_id: Option<Line>,
    /// The failure if this is the first page: it has an error message and no entry. A later one may
    /// say that there are no more.
    pub(super) error: Option<Box<Failure>>,
}

impl Page {
    /// This page as the first one of a listing.
    pub(super) fn checked_as_first(mut self) -> Result<Self, Failure> {
        match self.error.take() {
            Some(error) => Err(*error),
            None => Ok(self),
        }
    }
}

/// A value that the pagination points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Missing, null, or an empty text.
    Nothing,
    Bool(bool),
    /// A text, or a whole number in its original spelling.
    Text(String),
    Other,
}

/// Evaluates one whole answer at `now`, of which at most `keys_max` keys are read. Success requires
/// HTTP 200, 201 or 202 and a list where the definition expects it. If `findings` are wanted, adds
/// what was found in the answer.
pub(super) fn read(
    json_list: &JsonList,
    answer: &Response,
    rules: &Rules<'_>,
    keys_max: usize,
    now: DateTime<Utc>,
    findings: Option<&SharedFindings>,
) -> Result<Page, Failure> {
    let body = json_body::text(&answer.body);
    let cleaner = Cleaner::new(secrets(json_list, &body, rules.token));
    let mut reading = Reading::new(json_list, answer, &cleaner, keys_max, now);
    reading.findings = findings.map(|_| observe::start(json_list));
    let mut reader = serde_json::Deserializer::from_str(&body);
    let around = Around {
        reading: &mut reading,
        depth: 0,
    };
    let read = around.deserialize(&mut reader).and_then(|()| reader.end());
    if let Some((shared, mut found)) = findings.zip(reading.findings.take()) {
        let is_success = is_success(answer.status);
        observe::structure(json_list, &body, is_success, &cleaner, &mut found);
        shared.add(found);
    }
    match read {
        Ok(()) => reading.judge(answer, rules),
        Err(_) if !is_success(answer.status) => {
            let nothing = Failure::new(Reason::Internal, "");
            Err(foreign(answer.status, "the body is not JSON", nothing))
        }
        Err(error) => Err(Failure {
            http_status: Some(answer.status),
            ..json_body::unreadable(&error)
        }),
    }
}

/// The token, and the secrets of the request and of an answer: fields with the names of secrets
/// that the definition does not point at.
fn secrets(json_list: &JsonList, body: &str, token: &Token) -> Secrets {
    let mut secrets = json_list.secrets(token, body.len());
    let facts = &json_list.definition().facts;
    let is_wanted = |name: &&str| {
        let mut places = facts.all();
        places.any(|(_, place)| {
            let last = place.pointer.segments().last();
            matches!(last, Some(Segment::Name(last)) if last.eq_ignore_ascii_case(name))
        })
    };
    let unwanted = SECRET_NAMES.into_iter().filter(|name| !is_wanted(name));
    let unwanted: Vec<&str> = unwanted.collect();
    let is_secret = |name: &str| unwanted.iter().any(|it| it.eq_ignore_ascii_case(name));
    secret_fields::find(body, is_secret, &mut |secret| secrets.add(secret));
    secrets
}

/// The value at the place of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum List {
    #[default]
    Absent,
    Found,
    /// It has more keys than allowed; the surplus was skipped.
    TooLong,
    Other,
}

/// The state of reading an answer.
struct Reading<'d, 'a> {
    json_list: &'d JsonList,
    cleaner: &'d Cleaner,
    now: DateTime<Utc>,
    keys_max: usize,
    /// The path to the list; `None` for an error answer, which has none.
    path: Option<&'d [Segment]>,
    /// The pointers to values next to the list, and the values found.
    wanted: Vec<(&'d Pointer, Option<&'a RawValue>)>,
    /// If the answer should contain the whole list: indications to the contrary.
    hints: Option<PagingHints>,
    list: List,
    /// A relevant field occurs twice.
    has_duplicate: bool,
    page: Page,
    /// The number of items of a nested listing that have an inner list.
    inner_lists: usize,
    ids: DefaultHasher,
    inner: Values<'a>,
    outer: Values<'a>,
    /// Collects what is found in the items, if that is wanted.
    findings: Option<Findings>,
}

impl<'d, 'a> Reading<'d, 'a> {
    fn new(
        json_list: &'d JsonList,
        answer: &Response,
        cleaner: &'d Cleaner,
        keys_max: usize,
        now: DateTime<Utc>,
    ) -> Self {
        let definition = json_list.definition();
        let is_success = is_success(answer.status);
        // In the order in which `judge` consumes them.
        let support_id = match &definition.support_id {
            Some(SupportId::At(at)) => Some(at),
            Some(SupportId::Header(_)) | None => None,
        };
        let paging = definition.pagination.pointers().into_iter();
        let wanted = [support_id, definition.error.as_ref()]
            .into_iter()
            .flatten();
        let wanted = wanted.chain(paging.map(|(_, at)| at));
        let is_whole = is_success && definition.pagination == Pagination::None;
        Self {
            json_list,
            cleaner,
            now,
            keys_max,
            path: is_success.then(|| definition.items.segments()),
            wanted: wanted.map(|at| (at, None)).collect(),
            hints: is_whole.then(PagingHints::default),
            list: List::Absent,
            has_duplicate: false,
            page: Page::default(),
            inner_lists: 0,
            ids: DefaultHasher::new(),
            inner: Values::default(),
            outer: Values::default(),
            findings: None,
        }
    }

    /// Handles a field next to the path to the list, `depth` steps from the root.
    fn field(&mut self, name: &str, value: &'a RawValue, depth: usize) {
        let path = self.path.unwrap_or_default();
        if let Some(hints) = &mut self.hints {
            hints.field(name, value);
        }
        for (pointer, found) in &mut self.wanted {
            if let Some(rest) = rest_of(pointer, path, depth, name) {
                self.has_duplicate |= found.is_some();
                *found = pointer::find(value, rest);
            }
        }
    }

    /// Handles an element of a list on the path, next to the one that leads on.
    fn element(&mut self, at: usize, value: &'a RawValue, depth: usize) {
        if let Some(hints) = &mut self.hints {
            hints.group(value);
        }
        let name = at.to_string();
        if self.is_wanted(&name, depth) {
            self.field(&name, value, depth);
        }
    }

    fn is_wanted(&self, name: &str, depth: usize) -> bool {
        let path = self.path.unwrap_or_default();
        let mut wanted = self.wanted.iter();
        self.hints.is_some() && PagingHints::is_about_paging(name)
            || wanted.any(|(pointer, _)| rest_of(pointer, path, depth, name).is_some())
    }

    /// Reads one item, of the list or of an inner one.
    fn item<D: Deserializer<'a>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        let tree = &self.json_list.plan().inner;
        self.inner.reset(tree.slots);
        Walk::item(&tree.root, &mut self.inner).deserialize(deserializer)?;
        self.page.entries += 1;
        self.page.items += usize::from(self.json_list.definition().nested.is_none());
        let item = Item {
            json_list: self.json_list,
            inner: &self.inner,
            outer: &self.outer,
            cleaner: self.cleaner,
        };
        let key = item.key(self.now);
        if let Some(findings) = &mut self.findings {
            item.observe(&key, findings);
        }
        match key {
            Ok(key) => {
                key.id.hash(&mut self.ids);
                self.page.keys.push(key);
            }
            Err(reject) => {
                self.page.rejects.add(reject);
                self.page.rejected_ids.extend(item.id());
            }
        }
        Ok(())
    }

    /// Reads an item that contains an inner list.
    fn outer_item(&mut self, item: &'a RawValue, nested: &'d [Segment]) {
        let tree = &self.json_list.plan().outer;
        self.outer.reset(tree.slots);
        let mut reader = serde_json::Deserializer::from_str(item.get());
        let walked = Walk::item(&tree.root, &mut self.outer).deserialize(&mut reader);
        let is_object = item.get().starts_with('{');
        if walked.is_err() || !is_object || self.outer.is_misshapen {
            self.reject_outer();
            return;
        }
        match pointer::find(item, nested) {
            Some(list) if list.get().starts_with('[') => {
                self.inner_lists += 1;
                let mut reader = serde_json::Deserializer::from_str(list.get());
                // It was parsed before, so it is valid JSON.
                let read = reader.deserialize_seq(Items { reading: self });
                debug_assert!(read.is_ok(), "{read:?}");
            }
            Some(null) if null.get() == "null" => self.inner_lists += 1,
            // Some APIs omit an empty list.
            None => {}
            Some(_) => self.reject_outer(),
        }
    }

    fn reject_outer(&mut self) {
        self.page.entries += 1;
        self.page.rejects.add(Reject::Shape);
        if let Some(findings) = &mut self.findings {
            findings.entries += 1;
        }
    }

    fn judge(mut self, answer: &Response, rules: &Rules<'_>) -> Result<Page, Failure> {
        let definition = self.json_list.definition();
        let mut found = std::mem::take(&mut self.wanted).into_iter().map(|it| it.1);
        let support_id = match &definition.support_id {
            Some(SupportId::Header(name)) => {
                let value = answer.headers.get(name);
                value
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned)
            }
            Some(SupportId::At(_)) => found.next().flatten().and_then(words),
            None => None,
        };
        let support_id = support_id.and_then(|id| self.cleaner.support_id(&id));
        let error = definition
            .error
            .as_ref()
            .and_then(|_| found.next().flatten());
        let error = error.filter(|error| !NO_ERROR.contains(&error.get()));
        let error = error.and_then(words).map(|text| self.cleaner.line(&text));
        let error = error.filter(|error| !error.as_str().is_empty());
        let failure = |reason, why: &str| Failure {
            http_status: Some(answer.status),
            support_id: support_id.clone(),
            error: error.clone().or_else(|| Some(Line::own(why))),
            ..Failure::because(reason, Line::own(why))
        };
        if !is_success(answer.status) {
            let why = status_words(answer.status);
            return Err(failure(Reason::of_status(answer.status), &why));
        }
        if self.has_duplicate {
            return Err(failure(
                Reason::NotJson,
                "a field beside the list occurs twice",
            ));
        }
        let at = &definition.items;
        let no_list = |what: &str| {
            // An answer with an error message is an error, not a new format.
            let reason = error.as_ref().map_or(Reason::Schema, |_| Reason::ApiError);
            Err(failure(reason, &format!("{what} at {:?}", at.to_string())))
        };
        match self.list {
            List::Found => {}
            List::Absent => return no_list("the answer has no list"),
            List::Other => return no_list("the value is not a list"),
            List::TooLong => {
                let why = format!("more than poll.max_keys ({}) keys", rules.keys_max);
                return Err(failure(Reason::TooManyKeys, &why));
            }
        }
        if self.page.entries == 0 && error.is_some() {
            let why = "the answer has an error message and an empty list";
            self.page.error = Some(Box::new(failure(Reason::ApiError, why)));
        }
        if definition.nested.is_some() && self.page.items > 0 && self.inner_lists == 0 {
            let why = "no item has a list where the definition's nested points at";
            if self.page.rejects.total() == 0 {
                return Err(failure(Reason::Schema, why));
            }
        }
        if let Some(why) = self.missing(&answer.headers) {
            return Err(failure(Reason::Incomplete, &why));
        }
        self.page.ids_hash = (!self.page.keys.is_empty()).then(|| self.ids.finish());
        self.page.paging = found.map(Said::of).collect();
        self.page.support_id = support_id;
        Ok(self.page)
    }

    fn missing(&mut self, headers: &HeaderMap) -> Option<String> {
        let hints = self.hints.as_mut()?;
        hints.headers(headers);
        hints.missing(self.page.items)
    }
}

/// The remaining steps of `pointer` from the value of the field `name`, which is next to the path
/// `path`, `depth` steps from the root; `None` if the pointer leads elsewhere.
fn rest_of<'p>(
    pointer: &'p Pointer,
    path: &[Segment],
    depth: usize,
    name: &str,
) -> Option<&'p [Segment]> {
    let (above, rest) = pointer.segments().split_at_checked(depth)?;
    let (step, rest) = rest.split_first()?;
    let is_there = path.get(..depth) == Some(above);
    (is_there && matches!(step, Segment::Name(step) if **step == *name)).then_some(rest)
}

impl Said {
    fn of(found: Option<&RawValue>) -> Self {
        let Some(found) = found.map(RawValue::get) else {
            return Self::Nothing;
        };
        match serde_json::from_str::<Value>(found) {
            Ok(Value::Null) => Self::Nothing,
            Ok(Value::Bool(flag)) => Self::Bool(flag),
            Ok(Value::String(text)) if text.is_empty() => Self::Nothing,
            Ok(Value::String(text)) => Self::Text(text),
            Ok(Value::Number(number)) if number.is_u64() => Self::Text(number.to_string()),
            Ok(Value::Number(_) | Value::Array(_) | Value::Object(_)) | Err(_) => Self::Other,
        }
    }
}

/// A text, or any other value as JSON without fields that may be secrets.
fn words(found: &RawValue) -> Option<String> {
    let json = found.get();
    if json == "null" {
        return None;
    }
    if let Ok(text) = serde_json::from_str::<String>(json) {
        return Some(text);
    }
    if json.len() > ERROR_BYTES_MAX {
        return Some("an error that is not text and is too long to show".to_owned());
    }
    let mut value: Value = serde_json::from_str(json).ok()?;
    drop_secrets(&mut value);
    Some(value.to_string())
}

/// Removes fields with the names of secrets.
fn drop_secrets(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !SECRET_NAMES.contains(&name.to_ascii_lowercase().as_str()));
            fields.values_mut().for_each(drop_secrets);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads the list and the fields around it. The recursion is as deep as `items` has segments.
struct Around<'s, 'd, 'a> {
    reading: &'s mut Reading<'d, 'a>,
    depth: usize,
}

impl<'d> Around<'_, 'd, '_> {
    /// Whether the list is at this position.
    fn is_at_list(&self) -> bool {
        self.reading
            .path
            .is_some_and(|path| path.len() == self.depth)
    }

    /// The next step to the list.
    fn step(&self) -> Option<&'d str> {
        match self.reading.path?.get(self.depth)? {
            Segment::Name(name) => Some(name),
            Segment::Every => None,
        }
    }

    fn other(&mut self) {
        if self.is_at_list() {
            self.reading.list = List::Other;
        }
    }
}

impl<'a> DeserializeSeed<'a> for Around<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Around<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(mut self, _: bool) -> Result<(), E> {
        self.other();
        Ok(())
    }

    fn visit_i64<E>(mut self, _: i64) -> Result<(), E> {
        self.other();
        Ok(())
    }

    fn visit_u64<E>(mut self, _: u64) -> Result<(), E> {
        self.other();
        Ok(())
    }

    fn visit_f64<E>(mut self, _: f64) -> Result<(), E> {
        self.other();
        Ok(())
    }

    fn visit_str<E>(mut self, _: &str) -> Result<(), E> {
        self.other();
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.is_at_list() {
            let reading = self.reading;
            reading.list = List::Found;
            let Some(nested) = &reading.json_list.definition().nested else {
                return Items { reading }.visit_seq(seq);
            };
            while let Some(item) = seq.next_element::<&'a RawValue>()? {
                reading.page.items += 1;
                reading.outer_item(item, nested.segments());
            }
            return Ok(());
        }
        let on_path = self.step().and_then(pointer::index);
        for at in 0.. {
            let is_read = if Some(at) == on_path {
                let depth = self.depth + 1;
                let around = Around {
                    reading: &mut *self.reading,
                    depth,
                };
                seq.next_element_seed(around)?.is_some()
            } else if let Some(value) = seq.next_element::<&'a RawValue>()? {
                self.reading.element(at, value, self.depth);
                true
            } else {
                false
            };
            if !is_read {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.other();
        let depth = self.depth;
        let mut was_there = false;
        while let Some(name) = map.next_key::<Name<'a>>()? {
            let name = name.0;
            if self.step() == Some(&*name) {
                self.reading.has_duplicate |= was_there;
                was_there = true;
                map.next_value_seed(Around {
                    reading: &mut *self.reading,
                    depth: depth + 1,
                })?;
            } else if self.reading.is_wanted(&name, depth) {
                let value = map.next_value::<&'a RawValue>()?;
                self.reading.field(&name, value, depth);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// A name that is copied only if it contains escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

/// Reads the items of the list, or of an inner list.
struct Items<'s, 'd, 'a> {
    reading: &'s mut Reading<'d, 'a>,
}

impl<'a> Visitor<'a> for Items<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        let reading = self.reading;
        while reading.page.entries < reading.keys_max {
            if seq.next_element_seed(One { reading })?.is_none() {
                return Ok(());
            }
        }
        if seq.next_element::<IgnoredAny>()?.is_some() {
            reading.list = List::TooLong;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }
}

/// Reads one item.
struct One<'s, 'd, 'a> {
    reading: &'s mut Reading<'d, 'a>,
}

impl<'a> DeserializeSeed<'a> for One<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        self.reading.item(deserializer)
    }
}
