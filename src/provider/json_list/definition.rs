//! The checked definition of a provider with an API that lists keys as JSON. Pure.
//!
//! The configuration module parses the text of a definition; this one decides which values are
//! valid.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};

use crate::provider::json_list::pointer::Pointer;
use crate::provider::json_list::template::Template;
use crate::provider::profile::Profile;
use crate::provider::time_format::TimeFormat;
use crate::redaction::secret_words;

/// A provider as its definition describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, address and authentication. The headers are in `request`.
    pub profile: Profile,
    /// The request.
    pub request: RequestTemplate,
    /// The list.
    pub items: Pointer,
    /// The list inside each item, if the keys are the items of inner lists.
    pub nested: Option<Pointer>,
    /// Where the facts about a key are.
    pub facts: FactPlaces,
    /// The location of the id that the provider's support needs.
    pub support_id: Option<SupportId>,
    /// The location of the message in an error answer.
    pub error: Option<Pointer>,
    /// How to request further pages.
    pub pagination: Pagination,
}

/// A shorter word in a URL is not a secret of ours.
const URL_SECRET_CHARS_MIN: usize = 16;

/// A request with parameters that each account supplies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTemplate {
    /// The path below the base URL.
    pub path: Template,
    /// The query, in order of its names.
    pub query: Vec<(String, Template)>,
    /// Further headers.
    pub headers: Vec<(HeaderName, Template)>,
    /// The default values of parameters.
    pub defaults: BTreeMap<String, String>,
}

/// A request of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The path and its query, below the base URL.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The values of the query and of the headers that may be secrets. Those of the path are ids.
    pub secrets: Vec<String>,
}

/// The location of a fact about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is in the outer item of a nested listing.
    pub is_outer: bool,
    /// The path from the item.
    pub pointer: Pointer,
}

/// Where the facts about a key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactPlaces {
    /// The id.
    pub id: Place,
    /// The label that its owner gave it.
    pub label: Option<Place>,
    /// When it expires.
    pub expires_at: Option<TimePlace>,
    /// When it was created.
    pub created_at: Option<TimePlace>,
    /// When it was last changed.
    pub updated_at: Option<TimePlace>,
    /// When it was last used.
    pub last_used_at: Option<TimePlace>,
    /// What it is allowed to do.
    pub scopes: Option<TextsPlace>,
    /// Where it may be used from.
    pub ip_allow_list: Option<TextsPlace>,
    /// Conditions for a revoked key: any one of them suffices.
    pub disabled: Vec<Condition>,
}

/// The location and the format of a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePlace {
    /// The location.
    pub place: Place,
    /// The format.
    pub format: TimeFormat,
    /// The values that mean "never".
    pub never: Vec<Never>,
}

/// How a provider writes "never".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Never {
    /// The field is missing.
    Absent,
    /// It is null.
    Null,
    /// It is this text, or a number in this spelling.
    Text(String),
}

/// The location of texts: in a list, in a string, or as the keys of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextsPlace {
    /// The location.
    pub place: Place,
    /// The separator, if the texts are in one string.
    pub split: Option<String>,
}

/// A condition under which a key is disabled. Never true if the field is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The location of the field.
    pub place: Place,
    /// The test of its value.
    pub test: Test,
}

/// The test of a value.
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

/// The location of the id that the provider's support needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupportId {
    /// In a header.
    Header(HeaderName),
    /// In the answer.
    At(Pointer),
}

/// How to request the pages after the first answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pagination {
    /// There are none.
    #[default]
    None,
    /// With the `Link` header's `rel="next"`.
    Link,
    /// With a link in the answer.
    NextUrl {
        /// Its location.
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
        /// How to detect the last page.
        end: PageEnd,
    },
    /// With a cursor from the answer.
    Cursor {
        /// Its location.
        at: Pointer,
        /// The parameter that takes it.
        param: String,
        /// The location of the flag that there are more.
        has_more: Option<Pointer>,
    },
    /// With the number of entries to skip.
    Offset {
        /// The parameter for that number.
        offset_param: String,
        /// The parameter for the size, and the size.
        size: Option<(String, u64)>,
        /// The location of the total number of entries.
        total: Option<Pointer>,
    },
}

/// How to detect the last numbered page. If the value is missing, the first empty page is the last
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PageEnd {
    /// An empty page: a short one proves nothing, because servers cap sizes.
    #[default]
    EmptyPage,
    /// This many entries were read.
    Total(Pointer),
    /// The same, in a header.
    TotalHeader(HeaderName),
    /// This many pages were read.
    Pages(Pointer),
}

/// An error in an account's parameters: the name of the parameter, and the reason.
pub type ParamProblem = (String, &'static str);

/// Headers that a definition must not set, because the exporter's own limits or HTTP depend on
/// them.
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
    /// Parses a pointer into the item; with `^` in front, into the outer one.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(text, Pointer::parse)
    }

    /// As [`Place::parse`], for a pointer that may have segments `*`.
    pub fn parse_many(text: &str) -> Option<Self> {
        Self::read(text, Pointer::parse_many)
    }

    fn read(text: &str, pointer: fn(&str) -> Option<Pointer>) -> Option<Self> {
        let inner = text.strip_prefix('^');
        let pointer = pointer(inner.unwrap_or(text))?;
        // The item itself is not a fact.
        let is_outer = inner.is_some();
        (!pointer.segments().is_empty()).then_some(Self { is_outer, pointer })
    }
}

impl FactPlaces {
    /// All locations, each with the name of its option.
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
    /// The pointers into the answer around the list, each with the name of its option.
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
    /// The names of the parameters that an account may or must set.
    pub fn params(&self) -> BTreeSet<&str> {
        let query = self.query.iter().flat_map(|(_, value)| value.params());
        let headers = self.headers.iter().flat_map(|(_, value)| value.params());
        self.path.params().chain(query).chain(headers).collect()
    }

    /// The request of an account with these parameters, or all errors in them.
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
        // In a URL, these mean the current and the parent directory.
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
            // The definition was checked, and encoding adds nothing that is invalid in a header.
            let mut value = HeaderValue::from_str(&fill(value)).ok()?;
            value.set_sensitive(true);
            Some((name.clone(), value))
        });
        let query = self.query.iter().map(|(_, value)| value);
        let query = query.filter_map(|value| value.fill_plain(&values));
        // Names with a year and hexadecimal ids are common in URLs.
        let is_usual = |word: &str| {
            word.len() < URL_SECRET_CHARS_MIN || word.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let of_url = query.map(|value| (value, false));
        let headers_sent = self.headers.iter();
        let of_headers = headers_sent.filter_map(|(_, value)| value.fill_plain(&values));
        let sent = of_url.chain(of_headers.map(|value| (value, true)));
        let secrets = sent.flat_map(|(value, is_header)| {
            let words = secret_words(&value).filter(|word| is_header || !is_usual(word));
            words.map(str::to_owned).collect::<Vec<_>>()
        });
        Ok(Request {
            headers: headers.collect(),
            path,
            secrets: secrets.collect(),
        })
    }
}

/// The names of the parameters in a query and headers, where APIs also take secrets.
pub fn secret_params<'a>(
    query: &'a [(String, Template)],
    headers: &'a [(HeaderName, Template)],
) -> BTreeSet<&'a str> {
    let query = query.iter().map(|(_, value)| value);
    let headers = headers.iter().map(|(_, value)| value);
    query.chain(headers).flat_map(Template::params).collect()
}

/// Parses the name of a header that a definition may set.
pub fn header_name(text: &str) -> Option<HeaderName> {
    let name = HeaderName::try_from(text).ok()?;
    (!RESERVED_HEADERS.contains(&name.as_str())).then_some(name)
}

/// Parses the value of a header: printable ASCII.
pub fn header_value(text: &str) -> Option<Template> {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let is_trimmed = text.trim() == text && !text.is_empty();
    (is_plain && is_trimmed && text.len() <= TEXT_BYTES_MAX).then(|| Template::parse(text))?
}

/// Longest path, header or parameter of a definition.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Parses the path of a request, without its query.
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

/// Parses the name of a query parameter; it is sent percent-encoded.
pub fn param(text: &str) -> Option<String> {
    let is_short = (1..=64).contains(&text.len());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_plain = is_plain && !text.contains(['&', '=', '#', '?', '{', '}', '%', '+']);
    (is_short && is_plain).then(|| text.to_owned())
}
