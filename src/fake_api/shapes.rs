//! Answers in the format of any provider that a definition describes: for the demo and for tests.
//!
//! It writes what `provider::json_list` reads. The two share only the definition.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::{Authorization, Reply, Request};
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::{
    Condition, Definition, Never, PageEnd, Pagination, Place, Scalar, Test, TextsPlace, TimePlace,
};
use crate::provider::json_list::pointer::Segment;
use crate::provider::time_format::{DateEnds, TimeFormat};
use crate::secret::Token;

/// Most entries of a page, whatever size is requested: servers cap sizes, and the demo shows pages.
const ENTRIES_MAX: usize = 8;

/// The parameter with the page number in links, where the definition does not name one.
const LINK_PARAM: &str = "fake_page";

/// Providers that write scopes as the names of objects.
const SCOPES_AS_NAMES: [&str; 1] = ["elasticsearch"];

/// A key, with the facts that any provider may have about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleKey {
    /// Its id.
    pub id: String,
    /// The label that its owner gave it.
    pub label: String,
    /// When it expires.
    pub expires_at: SampleExpiry,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last used, if ever.
    pub last_used_at: Option<DateTime<Utc>>,
    /// What it is allowed to do.
    pub scopes: Vec<String>,
    /// Where it may be used from.
    pub ip_allow_list: Vec<String>,
    /// Whether it was revoked.
    pub is_disabled: bool,
}

/// When a key expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleExpiry {
    /// At this time, or, where the provider has dates only, at the midnight before.
    At(DateTime<Utc>),
    /// Never.
    Never,
    /// The field holds a value that is not a time.
    Unreadable,
}

/// The format of one provider's answers, for an account's parameters.
#[derive(Clone, Debug)]
pub struct Shape(JsonList);

/// Which entries an answer contains.
struct Page {
    /// The number of the first one.
    start: usize,
    /// The number after the last one.
    end: usize,
    /// The number of the next page, counted from 0, if there is one.
    next: Option<usize>,
}

impl Shape {
    /// The format that a client with the definition `list` expects.
    pub fn new(list: JsonList) -> Self {
        Self(list)
    }

    /// What a client with this token must send.
    pub fn authorization(&self, token: &Token) -> Authorization {
        let profile = self.0.profile();
        let value = token.header(&profile.auth_prefix, profile.token_form);
        Authorization {
            header: profile.auth_header.to_ascii_lowercase(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            refusal: self.failure(401, "the token is not known"),
        }
    }

    /// Whether a request is for the first page.
    pub fn is_first(&self, request: &Request) -> bool {
        let query = request.line.split_once('?').map_or("", |(_, query)| query);
        self.page(query, usize::MAX).start == 0
    }

    /// Scopes that count as privileged with this provider, if it has any.
    pub fn privileged_scopes(&self) -> Vec<String> {
        let patterns = self.0.profile().privileged_scopes.iter();
        // A lone "?" matches the only scope of one character.
        let texts = patterns.map(|pattern| pattern.replace('*', "").replace('?', "*"));
        texts.collect()
    }

    /// Whether the provider writes the expiry as a date.
    pub fn has_dates_only(&self) -> bool {
        let expiry = self.definition().facts.expires_at.as_ref();
        expiry.is_some_and(|place| matches!(place.format, TimeFormat::Date { .. }))
    }

    fn definition(&self) -> &Definition {
        self.0.definition()
    }

    /// The answer to a request at `origin` if these keys exist; 404 if the request is not the
    /// definition's.
    pub fn answer(&self, request: &Request, keys: &[SampleKey], origin: &str) -> Reply {
        let target = request.line.strip_prefix("GET ").unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (asked_path, _) = self.asked_path_and_query();
        if path != asked_path || !self.has_headers(request) || !self.has_query(query) {
            return self.failure(404, "not the request of this provider's definition");
        }
        // A provider that does not mark revoked keys does not list them.
        let marks = !self.definition().facts.disabled.is_empty();
        let keys: Vec<_> = keys
            .iter()
            .filter(|key| marks || !key.is_disabled)
            .collect();
        let page = self.page(query, keys.len());
        let entries = keys.get(page.start..page.end).unwrap_or_default();
        let entries = entries.iter().map(|key| self.entry(key)).collect();
        let mut body = Value::Null;
        set(
            &mut body,
            self.definition().items.segments(),
            Value::Array(entries),
        );
        self.set_paging(&mut body, &page, keys.len(), origin);
        let mut reply = Reply::json(200, &body);
        if let Pagination::Link = self.definition().pagination
            && let Some(next) = page.next
        {
            let link = format!("<{}>; rel=\"next\"", self.link(next, origin));
            reply = reply.header("Link", &link);
        }
        if let Pagination::Page {
            end: PageEnd::TotalHeader(name),
            ..
        } = &self.definition().pagination
        {
            reply = reply.header(name.as_str(), &keys.len().to_string());
        }
        reply
    }

    /// An error answer, with the message where the definition expects it.
    pub fn failure(&self, status: u16, why: &str) -> Reply {
        let mut body = json!({});
        if let Some(error) = &self.definition().error {
            set(&mut body, error.segments(), json!(why));
        }
        Reply::json(status, &body)
    }

    fn asked_path_and_query(&self) -> (&str, &str) {
        self.0
            .request()
            .path
            .split_once('?')
            .unwrap_or((&self.0.request().path, ""))
    }

    fn has_headers(&self, request: &Request) -> bool {
        self.0.request().headers.iter().all(|(name, value)| {
            let sent = request
                .headers
                .iter()
                .find(|(sent, _)| sent == name.as_str());
            sent.is_some_and(|(_, sent)| sent.as_bytes() == value.as_bytes())
        })
    }

    /// Whether a query has everything that the definition adds to every request. The links that
    /// this API returns keep it.
    fn has_query(&self, query: &str) -> bool {
        let (_, asked) = self.asked_path_and_query();
        let pairs = asked.split('&').filter(|pair| !pair.is_empty());
        pairs
            .into_iter()
            .all(|pair| query.split('&').any(|sent| sent == pair))
    }

    /// The page that a query requests from this number of entries.
    fn page(&self, query: &str, total: usize) -> Page {
        let number = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(sent, _)| *sent == name || *sent == encoded(name))?;
            value.parse::<usize>().ok()
        };
        let size = |size: &Option<(String, u64)>| {
            let asked = size.as_ref().and_then(|(name, _)| number(name));
            asked.unwrap_or(ENTRIES_MAX).clamp(1, ENTRIES_MAX)
        };
        let (start, size) = match &self.definition().pagination {
            Pagination::None => (0, total.max(1)),
            Pagination::Link | Pagination::NextUrl { .. } => (
                number(LINK_PARAM).unwrap_or(0).saturating_mul(ENTRIES_MAX),
                ENTRIES_MAX,
            ),
            Pagination::Cursor { param, .. } => (
                number(param).unwrap_or(0).saturating_mul(ENTRIES_MAX),
                ENTRIES_MAX,
            ),
            Pagination::Page {
                page_param,
                first,
                size: asked,
                ..
            } => {
                let first = usize::try_from(*first).unwrap_or(0);
                let page = number(page_param).unwrap_or(first).saturating_sub(first);
                (page.saturating_mul(size(asked)), size(asked))
            }
            Pagination::Offset {
                offset_param,
                size: asked,
                ..
            } => (number(offset_param).unwrap_or(0), size(asked)),
        };
        let (start, end) = (start.min(total), (start.saturating_add(size)).min(total));
        Page {
            start,
            end,
            next: (end < total).then_some(end / size),
        }
    }

    fn set_paging(&self, body: &mut Value, page: &Page, total: usize, origin: &str) {
        match &self.definition().pagination {
            Pagination::None | Pagination::Link => {}
            Pagination::NextUrl { at } => {
                let next = page.next.map(|next| self.link(next, origin));
                set(body, at.segments(), json!(next));
            }
            Pagination::Cursor { at, has_more, .. } => {
                set(
                    body,
                    at.segments(),
                    json!(page.next.map(|it| it.to_string())),
                );
                if let Some(has_more) = has_more {
                    set(body, has_more.segments(), json!(page.next.is_some()));
                }
            }
            Pagination::Page { end, size, .. } => match end {
                PageEnd::EmptyPage | PageEnd::TotalHeader(_) => {}
                PageEnd::Total(at) => set(body, at.segments(), json!(total)),
                PageEnd::Pages(at) => {
                    let asked = size.as_ref().map(|(_, size)| *size);
                    let asked = asked.and_then(|size| usize::try_from(size).ok());
                    let size = asked.unwrap_or(ENTRIES_MAX).clamp(1, ENTRIES_MAX);
                    set(body, at.segments(), json!(total.div_ceil(size)));
                }
            },
            Pagination::Offset { total: at, .. } => {
                if let Some(at) = at {
                    set(body, at.segments(), json!(total));
                }
            }
        }
    }

    /// The address of a page, counted from 0.
    fn link(&self, number: usize, origin: &str) -> String {
        let separator = if self.0.request().path.contains('?') {
            '&'
        } else {
            '?'
        };
        format!(
            "{origin}{}{separator}{LINK_PARAM}={number}",
            self.0.request().path
        )
    }

    /// One entry of the list. If the definition is nested, the entry has an inner list of one.
    fn entry(&self, key: &SampleKey) -> Value {
        let facts = &self.definition().facts;
        let (mut outer, mut inner) = (json!({}), json!({}));
        let mut put = |place: &Place, value: Value| {
            let entry = if place.is_outer {
                &mut outer
            } else {
                &mut inner
            };
            set(entry, place.pointer.segments(), value);
        };
        let id = key.id.parse::<i64>();
        put(&facts.id, id.map_or_else(|_| json!(key.id), |id| json!(id)));
        if let Some(place) = &facts.label {
            put(place, json!(key.label));
        }
        if let Some(place) = &facts.expires_at {
            let value = match key.expires_at {
                SampleExpiry::At(time) => Some(written(place.format, time)),
                SampleExpiry::Never => never(place),
                SampleExpiry::Unreadable => Some(json!("no time")),
            };
            if let Some(value) = value {
                put(&place.place, value);
            }
        }
        if let Some(place) = &facts.created_at {
            put(&place.place, written(place.format, key.created_at));
        }
        if let Some(place) = &facts.last_used_at
            && let Some(time) = key.last_used_at
        {
            put(&place.place, written(place.format, time));
        }
        for condition in &facts.disabled {
            put(&condition.place, tested(condition, key.is_disabled));
        }
        let names = SCOPES_AS_NAMES.contains(&&*self.definition().profile.name);
        for (place, texts, as_names) in [
            (&facts.scopes, &key.scopes, names),
            (&facts.ip_allow_list, &key.ip_allow_list, false),
        ] {
            if let Some(place) = place {
                let entry = if place.place.is_outer {
                    &mut outer
                } else {
                    &mut inner
                };
                set_texts(entry, place, texts, as_names);
            }
        }
        match &self.definition().nested {
            None => inner,
            Some(nested) => {
                set(&mut outer, nested.segments(), json!([inner]));
                outer
            }
        }
    }
}

/// Puts texts where a definition expects them.
fn set_texts(entry: &mut Value, place: &TextsPlace, texts: &[String], as_names: bool) {
    let segments = place.place.pointer.segments();
    let named = || {
        let fields = texts.iter().map(|text| (text.clone(), json!({})));
        Value::Object(fields.collect::<Map<_, _>>())
    };
    let Some(every) = segments.iter().rposition(|it| *it == Segment::Every) else {
        let value = match &place.split {
            Some(split) => json!(texts.join(split)),
            None if as_names => named(),
            None => json!(texts),
        };
        return set(entry, segments, value);
    };
    let (around, rest) = segments.split_at(every);
    match rest.get(1..).unwrap_or_default() {
        // Every value of an object, each with texts of its own.
        [] => set(entry, around, json!({ "repository": named() })),
        inside => {
            let elements = texts.iter().map(|text| {
                let mut element = json!({});
                set(&mut element, inside, json!(text));
                element
            });
            set(entry, around, Value::Array(elements.collect()));
        }
    }
}

/// Puts a value at the end of these steps, through objects and lists of one.
fn set(value: &mut Value, segments: &[Segment], leaf: Value) {
    let Some((segment, rest)) = segments.split_first() else {
        *value = leaf;
        return;
    };
    match segment {
        Segment::Name(name) if &**name == "0" => {
            let mut element = Value::Null;
            set(&mut element, rest, leaf);
            *value = json!([element]);
        }
        Segment::Name(name) => {
            if !value.is_object() {
                *value = json!({});
            }
            if let Some(fields) = value.as_object_mut() {
                set(fields.entry(&**name).or_insert(Value::Null), rest, leaf);
            }
        }
        Segment::Every => {
            let mut element = json!({});
            set(&mut element, rest, leaf);
            *value = json!([element]);
        }
    }
}

/// A time as a provider writes it.
fn written(format: TimeFormat, time: DateTime<Utc>) -> Value {
    match format {
        TimeFormat::Rfc3339 => json!(time.to_rfc3339_opts(SecondsFormat::Secs, true)),
        TimeFormat::NaiveUtc => json!(time.format("%Y-%m-%dT%H:%M:%S").to_string()),
        TimeFormat::Date { ends } => {
            let day = match ends {
                DateEnds::StartOfDay => time,
                DateEnds::EndOfDay => time - TimeDelta::days(1),
            };
            json!(day.format("%Y-%m-%d").to_string())
        }
        TimeFormat::Unix => json!(time.timestamp()),
        TimeFormat::UnixMs => json!(time.timestamp_millis()),
    }
}

/// "Never" as a provider writes it; `None` where it writes nothing.
fn never(place: &TimePlace) -> Option<Value> {
    let texts = place.never.iter().find_map(|never| match never {
        Never::Text(text) => Some(text),
        Never::Absent | Never::Null => None,
    });
    if place.never.contains(&Never::Null) {
        return Some(Value::Null);
    }
    let text = texts?;
    let number = text.parse::<i64>().map(|number| json!(number));
    Some(number.unwrap_or_else(|_| json!(text)))
}

/// A value for which a condition is true or false.
fn tested(condition: &Condition, holds: bool) -> Value {
    match &condition.test {
        Test::Is(scalar) => scalar_that_is(scalar, holds),
        Test::IsNot(scalar) => scalar_that_is(scalar, !holds),
        Test::IsSet(expected) if *expected == holds => json!("2020-01-01T00:00:00Z"),
        Test::IsSet(_) => Value::Null,
    }
}

/// A value that is equal to this scalar, or a different one of the same type.
fn scalar_that_is(scalar: &Scalar, is_equal: bool) -> Value {
    match scalar {
        Scalar::Bool(value) => json!(*value == is_equal),
        Scalar::Integer(value) if is_equal => json!(value),
        Scalar::Integer(value) => json!(value.wrapping_add(1)),
        Scalar::Text(text) if is_equal => json!(text),
        Scalar::Text(_) => json!("other"),
    }
}

/// A parameter's name as a query contains it.
fn encoded(name: &str) -> String {
    crate::provider::json_list::template::percent_encoded(name)
}
