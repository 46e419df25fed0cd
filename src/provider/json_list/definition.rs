//! What a definition says of a provider whose API lists keys as JSON, checked. Pure.
//!
//! The configuration reads the text of a definition; what the values may be is decided here.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};

use crate::provider::json_list::pointer::Pointer;
use crate::provider::json_list::template::Template;
use crate::provider::profile::Profile;
use crate::provider::time_format::TimeFormat;

/// A provider as its definition describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, address and authentication. The headers are in `request`.
    pub profile: Profile,
    /// What is asked.
    pub request: RequestTemplate,
    /// The list.
    pub items: Pointer,
    /// The list inside of each item, where the keys are those of the inner lists.
    pub nested: Option<Pointer>,
    /// Where the facts about a key are.
    pub facts: FactPlaces,
    /// Where the id is that the provider's support asks for.
    pub support_id: Option<SupportId>,
    /// Where a failed answer says why.
    pub error: Option<Pointer>,
    /// How a listing goes on.
    pub pagination: Pagination,
}

/// A request with parameters that each account fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTemplate {
    /// The path below the base URL.
    pub path: Template,
    /// The query, in order of its names.
    pub query: Vec<(String, Template)>,
    /// Further headers.
    pub headers: Vec<(HeaderName, Template)>,
    /// What parameters are where the account does not say.
    pub defaults: BTreeMap<String, String>,
}

/// A request of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The path and its query, below the base URL.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Where a fact about a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is in the outer item of a nested listing.
    pub is_outer: bool,
    /// The way from the item.
    pub pointer: Pointer,
}

/// Where the facts about a key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactPlaces {
    /// The id.
    pub id: Place,
    /// What its owner calls it.
    pub label: Option<Place>,
    /// When it ends.
    pub expires_at: Option<TimePlace>,
    /// When it was made.
    pub created_at: Option<TimePlace>,
    /// When it was last changed.
    pub updated_at: Option<TimePlace>,
    /// When it was last used.
    pub last_used_at: Option<TimePlace>,
    /// What it may do.
    pub scopes: Option<TextsPlace>,
    /// From where it may be used.
    pub ip_allow_list: Option<TextsPlace>,
    /// What says that somebody has revoked it: each of these alone.
    pub disabled: Vec<Condition>,
}

/// Where and how a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePlace {
    /// Where.
    pub place: Place,
    /// How.
    pub format: TimeFormat,
    /// What stands there for "never".
    pub never: Vec<Never>,
}

/// How a provider writes "never".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Never {
    /// The field is not there.
    Absent,
    /// It is null.
    Null,
    /// It is this text, or the number that is written so.
    Text(String),
}

/// Where texts are: in a list, in a string, or as the keys of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextsPlace {
    /// Where.
    pub place: Place,
    /// What separates them in a string.
    pub split: Option<String>,
}

/// When a field says that a key is disabled. Never where the field is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where the field is.
    pub place: Place,
    /// What it must be.
    pub test: Test,
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// This value.
    Is(Scalar),
    /// Any other value.
    IsNot(Scalar),
    /// Not null, or null.
    IsSet(bool),
}

/// A value that a condition compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
}

/// Where the id is that the provider's support asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupportId {
    /// In a header.
    Header(HeaderName),
    /// In the answer.
    At(Pointer),
}

/// How a listing goes on after its first answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pagination {
    /// Not at all.
    #[default]
    None,
    /// With the `Link` header's `rel="next"`.
    Link,
    /// With a link in the answer.
    NextUrl {
        /// Where it is.
        at: Pointer,
    },
    /// With numbered pages.
    Page {
        /// The parameter for the number.
        page_param: String,
        /// The first number.
        first: u64,
        /// The parameter for the size, and the size.
        size: Option<(String, u64)>,
        /// What says that a page is the last one.
        end: PageEnd,
    },
    /// With a word that the answer gives.
    Cursor {
        /// Where it is.
        at: Pointer,
        /// The parameter that takes it.
        param: String,
        /// Where the answer says whether there is more.
        has_more: Option<Pointer>,
    },
    /// With the number of entries to leave out.
    Offset {
        /// The parameter for that.
        offset_param: String,
        /// The parameter for the size, and the size.
        size: Option<(String, u64)>,
        /// Where the answer says how many there are.
        total: Option<Pointer>,
    },
}

/// What says that a numbered page is the last one. Where it is not there, or not said, the first
/// empty page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PageEnd {
    /// An empty page: a short one proves nothing, because servers cap sizes.
    #[default]
    EmptyPage,
    /// As many entries as this says were read.
    Total(Pointer),
    /// The same in a header.
    TotalHeader(HeaderName),
    /// As many pages as this says were read.
    Pages(Pointer),
}

/// What is wrong with an account's parameters: the name of one, and why.
pub type ParamProblem = (String, &'static str);

/// Headers that a definition must not set: the exporter's own limits depend on them, or HTTP does.
const RESERVED_HEADERS: [&str; 14] = [
    "accept-encoding",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
    "range",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl Request {
    /// The path with further query parameters.
    pub(super) fn with(&self, query: &str) -> String {
        let separator = match (query, self.path.contains('?')) {
            ("", _) => "",
            (_, true) => "&",
            (_, false) => "?",
        };
        [&self.path, separator, query].concat()
    }
}

impl Place {
    /// Reads a pointer into the item; with `^` in front, into the outer one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text, Pointer::parse)
    }

    /// As [`Place::parse`], with a pointer that may have segments `*`.
    pub fn parse_many(text: &str) -> Option<Self> {
        Self::read(text, Pointer::parse_many)
    }

    fn read(text: &str, pointer: fn(&str) -> Option<Pointer>) -> Option<Self> {
        let inner = text.strip_prefix('^');
        let pointer = pointer(inner.unwrap_or(text))?;
        // The item itself is no fact.
        let is_outer = inner.is_some();
        (!pointer.segments().is_empty()).then_some(Self { is_outer, pointer })
    }
}

impl FactPlaces {
    /// All places, each with the option that names it.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let times = [
            ("expires_at", &self.expires_at),
            ("created_at", &self.created_at),
            ("updated_at", &self.updated_at),
            ("last_used_at", &self.last_used_at),
        ];
        let times = times
            .into_iter()
            .filter_map(|(name, time)| Some((name, &time.as_ref()?.place)));
        let texts = [
            ("scopes", &self.scopes),
            ("ip_allow_list", &self.ip_allow_list),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, texts)| Some((name, &texts.as_ref()?.place)));
        let conditions = self.disabled.iter();
        [("id", &self.id)]
            .into_iter()
            .chain(self.label.iter().map(|place| ("label", place)))
            .chain(times)
            .chain(texts)
            .chain(conditions.map(|condition| ("disabled", &condition.place)))
    }
}

impl Pagination {
    /// The pointers into the answer around the list, each with the option that names it.
    pub fn pointers(&self) -> Vec<(&'static str, &Pointer)> {
        match self {
            Self::None | Self::Link => Vec::new(),
            Self::NextUrl { at } => vec![("at", at)],
            Self::Page { end, .. } => match end {
                PageEnd::EmptyPage | PageEnd::TotalHeader(_) => Vec::new(),
                PageEnd::Total(at) => vec![("total", at)],
                PageEnd::Pages(at) => vec![("pages", at)],
            },
            Self::Cursor { at, has_more, .. } => {
                let has_more = has_more.iter().map(|at| ("has_more", at));
                [("at", at)].into_iter().chain(has_more).collect()
            }
            Self::Offset { total, .. } => total.iter().map(|at| ("total", at)).collect(),
        }
    }

    /// The query parameters that it sets.
    pub fn params(&self) -> Vec<&str> {
        match self {
            Self::None | Self::Link | Self::NextUrl { .. } => Vec::new(),
            Self::Page {
                page_param: param,
                size,
                ..
            }
            | Self::Offset {
                offset_param: param,
                size,
                ..
            } => {
                let size = size.iter().map(|(param, _)| param.as_str());
                [param.as_str()].into_iter().chain(size).collect()
            }
            Self::Cursor { param, .. } => vec![param],
        }
    }
}

impl RequestTemplate {
    /// The names that an account may or must fill.
    pub fn params(&self) -> BTreeSet<&str> {
        let query = self.query.iter().flat_map(|(_, value)| value.params());
        let headers = self.headers.iter().flat_map(|(_, value)| value.params());
        self.path.params().chain(query).chain(headers).collect()
    }

    /// The request of an account with these parameters, or all that is wrong with them.
    pub fn fill(&self, given: &BTreeMap<String, String>) -> Result<Request, Vec<ParamProblem>> {
        let known = self.params();
        let mut values = self.defaults.clone();
        values.extend(
            given
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        let unknown = given.keys().filter(|name| !known.contains(name.as_str()));
        let unknown = unknown.map(|name| (name.clone(), "this provider has no such parameter"));
        let missing = known
            .iter()
            .filter(|name| !values.contains_key(**name))
            .map(|name| ((*name).to_owned(), "is missing: the provider needs it"));
        let empty = known
            .iter()
            .filter(|name| values.get(**name).is_some_and(String::is_empty))
            .map(|name| ((*name).to_owned(), "must not be empty"));
        let problems: Vec<ParamProblem> = unknown.chain(missing).chain(empty).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let fill = |template: &Template| template.fill(&values).unwrap_or_default();
        let mut path = fill(&self.path);
        // Whatever resolves a URL would take these for the folder and the one above it.
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            let first = self.path.params().next().unwrap_or_default();
            return Err(vec![(first.to_owned(), "must not be \".\" or \"..\"")]);
        }
        for (at, (name, value)) in self.query.iter().enumerate() {
            let separator = if at == 0 { '?' } else { '&' };
            path.push(separator);
            path.push_str(name);
            path.push('=');
            path.push_str(&value.fill_query(&values).unwrap_or_default());
        }
        let headers = self.headers.iter().filter_map(|(name, value)| {
            // The definition was checked, and encoding adds nothing that a header cannot hold.
            Some((name.clone(), HeaderValue::from_str(&fill(value)).ok()?))
        });
        Ok(Request {
            headers: headers.collect(),
            path,
        })
    }
}

/// Reads the name of a header that a definition may set.
pub fn header_name(text: &str) -> Option<HeaderName> {
    let name = HeaderName::try_from(text).ok()?;
    (!RESERVED_HEADERS.contains(&name.as_str())).then_some(name)
}

/// Reads the value of a header: printable ASCII.
pub fn header_value(text: &str) -> Option<Template> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_trimmed = text.trim() == text && !text.is_empty();
    (is_plain && is_trimmed && text.len() <= TEXT_BYTES_MAX).then(|| Template::parse(text))?
}

/// Longest path, header or parameter of a definition.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Reads the path of a request, without its query.
pub fn path(text: &str) -> Option<Template> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$'()*+,;=:@%&{}".contains(&byte);
    let is_relative = |segment: &str| {
        let segment = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(segment.as_str(), "." | "..")
    };
    let is_path = text.starts_with('/')
        && text.len() <= TEXT_BYTES_MAX
        && text.bytes().all(is_plain)
        && !text.split('/').any(is_relative);
    is_path.then(|| Template::parse(text))?
}

/// Reads the name of a query parameter; it is sent percent-encoded.
pub fn param(text: &str) -> Option<String> {
    let is_short = (1..=64).contains(&text.len());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_plain = is_plain && !text.contains(['&', '=', '#', '?', '{', '}', '%', '+']);
    (is_short && is_plain).then(|| text.to_owned())
}
