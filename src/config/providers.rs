//! `[providers.NAME]`: definitions, built-in or by the user, of providers that list keys as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;

use crate::config::accounts::parse_base_url;
use crate::config::layers;
use crate::config::problem::{Problem, shown, shown_name};
use crate::config::reader::Section;
use crate::config::value;
use crate::domain::glob::Glob;
use crate::provider::Provider;
use crate::provider::definitions::BUILT_IN;
use crate::provider::json_list::definition::{
    Condition, Definition, FactPlaces, Never, PageEnd, Pagination, Place, RequestTemplate, Scalar,
    SupportId, Test, TextsPlace, TimePlace, header_name, header_value, param, path, secret_params,
};
use crate::provider::json_list::pointer::{self, Pointer};
use crate::provider::json_list::template::{Template, is_param_name};
use crate::provider::profile::Profile;
use crate::provider::time_format::{DateEnds, TimeFormat};
use crate::redaction::{is_id, may_be_secret};
use crate::secret::TokenForm;

/// Longest name of a provider; it is a label value.
const NAME_CHARS_MAX: usize = 64;

/// Maximum conditions of `disabled`; one or two are usual.
const CONDITIONS_MAX: usize = 16;

/// Largest page size to request.
const SIZE_MAX: u64 = 100_000;

const PLACE: &str = "a JSON pointer into the item such as \"/id\" (RFC 6901), or with ^ in front \
                     one into the outer item of a nested list";
const PLACES: &str = "a JSON pointer into the item such as \"/scopes\" or \"/policies/*/name\" \
                      (RFC 6901; * is every element)";
const TIME: &str = "a table such as { at = \"/expires_at\", format = \"rfc3339\" }";
const HEADER: &str = "the name of a header that the exporter does not set itself";
const PARAM: &str = "the name of a query parameter";

/// The values that an account may name as its provider.
#[derive(Clone, Debug)]
pub(super) enum Candidate {
    /// A provider with its own code.
    Native(Provider),
    /// One with a definition.
    Defined(Arc<Definition>),
    /// A provider with an invalid definition; the problem is recorded.
    Broken,
}

/// All providers by name.
pub(super) type Candidates = BTreeMap<String, Candidate>;

/// Reads `[providers.NAME]`. The user's definitions replace built-in ones of the same name.
pub(super) fn read(root: &mut Section<'_>) -> Candidates {
    let native = Provider::NATIVE.into_iter().map(|provider| {
        let name = provider.profile().name.to_string();
        (name, Candidate::Native(provider))
    });
    let built_in = BUILT_IN.iter().map(|(name, text)| {
        let read = definition_of(name, text);
        // A test reads each of them, so that all are valid.
        let candidate = read.map_or(Candidate::Broken, |it| Candidate::Defined(it.into()));
        ((*name).to_owned(), candidate)
    });
    let own = root.named_sections("providers", definition);
    let own = own.into_iter().map(|(name, read)| {
        let candidate = read.map_or(Candidate::Broken, |it| Candidate::Defined(it.into()));
        (name, candidate)
    });
    native.chain(built_in).chain(own).collect()
}

/// Reads the text of one definition, in the form used under `[providers.NAME]`.
pub fn definition_of(name: &str, text: &str) -> Result<Definition, Vec<Problem>> {
    let values = layers::parse(text, Path::new(name), "a definition must be TOML")?;
    let (mut problems, mut effective) = (Vec::new(), Vec::new());
    let mut section = Section::root(values, Some(Path::new(name)), &mut problems, &mut effective);
    let read = definition(name, &mut section);
    section.finish();
    match read {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ => Err(problems),
    }
}

/// One definition; `None` if it is invalid, which is recorded.
fn definition(name: &str, section: &mut Section<'_>) -> Option<Definition> {
    let before = section.problem_count();
    if !is_name(name) {
        section.general_problem(format!(
            "providers.{}: the name must be 1 to {NAME_CHARS_MAX} letters, digits, - or _",
            shown_name(name)
        ));
    }
    let base_url = section.optional_text(
        "base_url",
        None,
        "an https:// URL without user, query or fragment (http:// only to a loopback address)",
        |text| parse_base_url(text).map(|_| text.to_owned()),
    );
    let request = request(section);
    let auth = section
        .inline_hiding(
            "auth",
            "{ header = \"…\", prefix = \"…\" } or { basic = true }",
            &|name, value| match name {
                "header" | "basic" => false,
                _ => !is_scheme(value),
            },
            auth,
        )
        .unwrap_or_default();
    let items = required(section, "items", pointer::WANTED, Pointer::parse);
    let nested = section.optional_text(
        "nested",
        None,
        "a JSON pointer into the item such as \"/credentials\" (RFC 6901)",
        |text| Pointer::parse(text).filter(|pointer| !pointer.segments().is_empty()),
    );
    let facts = facts(section);
    let support_id = section
        .inline(
            "support_id",
            "{ header = \"…\" } or { at = \"/…\" }",
            support_id,
        )
        .flatten();
    let error = section.optional_text("error", None, pointer::WANTED, Pointer::parse);
    let privileged_scopes = section.any_list(
        "privileged_scopes",
        &[],
        "a pattern for scopes such as \"*:write\", 1 to 255 characters",
        |text| Glob::parse(text).map(|_| text.to_owned()),
    );
    let pagination = section
        .inline("pagination", PAGINATION, pagination)
        .flatten()
        .unwrap_or_default();
    if section.problem_count() > before {
        return None;
    }
    let definition = Definition {
        profile: Profile {
            name: name.to_owned().into(),
            base_url: base_url.map(Into::into),
            listing_path: None,
            auth_header: auth.header.as_str().to_owned().into(),
            auth_prefix: auth.prefix.into(),
            token_form: auth.form,
            environment: None,
            token_prefixes: Vec::new().into(),
            mask: None,
            listing_scope: None,
            privileged_scopes: privileged_scopes.into_iter().map(Into::into).collect(),
            has_details: false,
            has_environments: false,
        },
        request: request?,
        items: items?,
        nested,
        facts: facts?,
        support_id,
        error,
        pagination,
    };
    check(section, &definition);
    (section.problem_count() == before).then_some(definition)
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=NAME_CHARS_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Problems of option combinations.
fn check(section: &mut Section<'_>, definition: &Definition) {
    for (name, place) in definition.facts.all() {
        if place.is_outer && definition.nested.is_none() {
            let why = "^ is for the outer item of a nested list; set nested, or leave ^ out";
            section.problem(name, None, why);
        }
    }
    let around = definition.pagination.pointers().into_iter();
    let around = around.map(|(name, pointer)| (format!("pagination.{name}"), pointer));
    let support_id = match &definition.support_id {
        Some(SupportId::At(pointer)) => Some(("support_id.at".to_owned(), pointer)),
        Some(SupportId::Header(_)) | None => None,
    };
    // If the list is the whole body, error responses differ in shape: the pointer is for those.
    let has_other_answers = definition.items.segments().is_empty();
    let support_id = support_id.filter(|_| !has_other_answers);
    for (name, pointer) in around.chain(support_id) {
        if pointer.is_within(&definition.items) || definition.items.is_within(pointer) {
            let why = "must point beside the list: not at it, into it, or at what is around it";
            section.problem(&name, Some(&shown(&pointer.to_string())), why);
        }
    }
    let params = definition.pagination.params();
    if let [number, size] = params.as_slice()
        && number == size
    {
        let why = "must differ from the parameter of the page or the offset";
        section.problem("pagination.size_param", Some(&shown(size)), why);
    }
    for param in params {
        if definition
            .request
            .query
            .iter()
            .any(|(name, _)| name == param)
        {
            let why = "pagination sets this parameter; take it out of one of them";
            section.problem(&format!("query.{param}"), None, why);
        }
    }
    let used = definition.request.params();
    let unused = definition.request.defaults.keys();
    for name in unused.filter(|name| !used.contains(name.as_str())) {
        let why = "path, query and headers have no such name in braces";
        section.problem(&format!("params.{name}"), None, why);
    }
}

fn request(section: &mut Section<'_>) -> Option<RequestTemplate> {
    let path = required(
        section,
        "path",
        "a path such as \"/v1/{tenant}/tokens\", without query and fragment",
        path,
    );
    let query = section.inline_texts(
        "query",
        "query parameters, name = \"value\", such as { state = \"active\" }",
        &|_, _| true,
        |name, value| Some((param(name)?, Template::parse(value)?)),
    );
    let headers = section.inline_texts(
        "headers",
        "headers, name = \"value\", that the exporter does not set itself",
        &|_, _| true,
        |name, value| Some((header_name(name)?, header_value(value)?)),
    );
    let defaults = params(section, &secret_params(&query, &headers));
    Some(RequestTemplate {
        path: path?,
        query,
        headers,
        defaults,
    })
}

/// `params`, of a definition or an account. Those of `secret_params` are not shown.
pub(super) fn params(
    section: &mut Section<'_>,
    secret_params: &BTreeSet<&str>,
) -> BTreeMap<String, String> {
    let params = section.inline_texts(
        "params",
        "parameters, name = \"value\", of letters, digits, - and _, without control characters",
        // The id of a group or a tenant is not a secret, and users need to see it.
        &|name, value| may_be_secret(value) || (secret_params.contains(name) && !is_id(value)),
        |name, value| {
            let is_clean = value.len() <= 255 && !value.chars().any(char::is_control);
            (is_param_name(name) && is_clean).then(|| (name.to_owned(), value.to_owned()))
        },
    );
    params.into_iter().collect()
}

struct Auth {
    header: HeaderName,
    prefix: String,
    form: TokenForm,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            header: http::header::AUTHORIZATION,
            prefix: "Bearer ".to_owned(),
            form: TokenForm::Plain,
        }
    }
}

fn auth(section: &mut Section<'_>) -> Auth {
    let default = Auth::default();
    let header = section.optional_text("header", None, HEADER, |text| {
        let is_default = text.eq_ignore_ascii_case(default.header.as_str());
        header_name(text).or_else(|| is_default.then(|| default.header.clone()))
    });
    let prefix = section.secret_text(
        "prefix",
        "printable ASCII, such as \"Bearer \" or \"\"",
        |text| {
            let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            (is_plain && text.len() <= 64).then(|| text.to_owned())
        },
    );
    let is_basic = section.flag("basic", false);
    if is_basic && (header.is_some() || prefix.is_some()) {
        let why = "basic authentication sets its own header; remove header and prefix";
        section.problem("basic", None, why);
    }
    if is_basic {
        return Auth {
            prefix: "Basic ".to_owned(),
            form: TokenForm::Base64,
            ..default
        };
    }
    Auth {
        header: header.unwrap_or(default.header),
        prefix: prefix.unwrap_or(default.prefix),
        form: default.form,
    }
}

/// Whether a prefix of the token is empty or a known scheme, which is not a secret.
fn is_scheme(prefix: &str) -> bool {
    const SCHEMES: [&str; 10] = [
        "", "api-key", "apikey", "basic", "bearer", "geniekey", "key", "oauth", "ssws", "token",
    ];
    let word = prefix.trim_end_matches([' ', '=', ':']);
    SCHEMES
        .iter()
        .any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn facts(section: &mut Section<'_>) -> Option<FactPlaces> {
    let id = required(section, "id", PLACE, Place::parse);
    let label = section.optional_text("label", None, PLACE, Place::parse);
    let mut time = |name| section.inline(name, TIME, time).flatten();
    let [expires_at, created_at, updated_at, last_used_at] =
        ["expires_at", "created_at", "updated_at", "last_used_at"].map(&mut time);
    let [scopes, ip_allow_list] =
        ["scopes", "ip_allow_list"].map(|name| texts_place(section, name));
    let wanted = "a list of conditions such as { at = \"/revoked\", is = true }";
    let disabled = section.inline_list("disabled", wanted, condition);
    if disabled.len() > CONDITIONS_MAX {
        let why = format!("has more than {CONDITIONS_MAX} conditions");
        section.problem("disabled", None, &why);
    }
    Some(FactPlaces {
        id: id?,
        label,
        expires_at,
        created_at,
        updated_at,
        last_used_at,
        scopes,
        ip_allow_list,
        disabled: disabled.into_iter().flatten().collect(),
    })
}

fn time(section: &mut Section<'_>) -> Option<TimePlace> {
    let place = required(section, "at", PLACE, Place::parse);
    let before = section.problem_count();
    let wanted = "one of \"rfc3339\", \"naive_utc\", \"date\", \"unix\", \"unix_ms\"";
    let format = section.optional_text("format", None, wanted, |text| match text {
        "rfc3339" => Some(TimeFormat::Rfc3339),
        "naive_utc" => Some(TimeFormat::NaiveUtc),
        "date" => Some(TimeFormat::Date {
            ends: DateEnds::StartOfDay,
        }),
        "unix" => Some(TimeFormat::Unix),
        "unix_ms" => Some(TimeFormat::UnixMs),
        _ => None,
    });
    if format.is_none() {
        section.missing("format", before, wanted);
    }
    let ends =
        section.optional_text(
            "ends",
            None,
            "\"start_of_day\" or \"end_of_day\"",
            |text| match text {
                "start_of_day" => Some(DateEnds::StartOfDay),
                "end_of_day" => Some(DateEnds::EndOfDay),
                _ => None,
            },
        );
    let format = match (format, ends) {
        (Some(TimeFormat::Date { .. }), Some(ends)) => Some(TimeFormat::Date { ends }),
        (Some(_), Some(_)) => {
            section.problem("ends", None, "is for format = \"date\" only");
            None
        }
        (format, None) | (format @ None, Some(_)) => format,
    };
    let never = section.values(
        "never",
        "a list of the values that mean \"never\": \"absent\", \"null\", other texts and whole numbers",
        |given| match value::text(given) {
            Some("absent") => Some(Never::Absent),
            Some("null") => Some(Never::Null),
            Some(text) => Some(Never::Text(text.to_owned())),
            None => value::integer(given).map(|number| Never::Text(number.to_string())),
        },
    );
    Some(TimePlace {
        place: place?,
        format: format?,
        never: never.unwrap_or_else(|| vec![Never::Absent, Never::Null]),
    })
}

/// A pointer, or a table that contains one.
fn texts_place(section: &mut Section<'_>, name: &'static str) -> Option<TextsPlace> {
    if section.is_text(name) {
        let place = section.optional_text(name, None, PLACES, Place::parse_many)?;
        return Some(TextsPlace { place, split: None });
    }
    let wanted = format!("{PLACES}, or a table such as {{ at = \"/{name}\", split = \" \" }}");
    let read = |section: &mut Section<'_>| {
        let place = required(section, "at", PLACES, Place::parse_many);
        let split = section.optional_text(
            "split",
            None,
            "1 to 8 characters that separate the entries of a string, such as \" \"",
            |text| {
                (1..=8)
                    .contains(&text.chars().count())
                    .then(|| text.to_owned())
            },
        );
        Some(TextsPlace {
            place: place?,
            split,
        })
    };
    section.inline(name, &wanted, read).flatten()
}

fn condition(section: &mut Section<'_>) -> Option<Condition> {
    let place = required(section, "at", PLACE, Place::parse);
    let before = section.problem_count();
    let wanted = "true, false, a text or a whole number";
    let scalar = |given: &config::Value| {
        let flag = || value::boolean(given).map(Scalar::Bool);
        let number = || value::integer(given).map(Scalar::Integer);
        let text = || value::text(given).map(|text| Scalar::Text(text.to_owned()));
        flag().or_else(number).or_else(text)
    };
    let is = section.value("is", wanted, scalar).map(Test::Is);
    let is_not = section.value("is_not", wanted, scalar).map(Test::IsNot);
    let is_set = section
        .value("is_set", "true or false", value::boolean)
        .map(Test::IsSet);
    let mut tests: Vec<Test> = [is, is_not, is_set].into_iter().flatten().collect();
    if tests.len() != 1 && section.problem_count() == before {
        section.problem(
            "at",
            None,
            "must be combined with one of is, is_not and is_set",
        );
    }
    Some(Condition {
        place: place?,
        test: tests.pop()?,
    })
}

fn support_id(section: &mut Section<'_>) -> Option<SupportId> {
    let before = section.problem_count();
    let header = section.optional_text("header", None, "the name of a header", |text| {
        HeaderName::try_from(text).ok()
    });
    let at = section.optional_text("at", None, pointer::WANTED, Pointer::parse);
    match (header, at) {
        (Some(header), None) => Some(SupportId::Header(header)),
        (None, Some(at)) => Some(SupportId::At(at)),
        (None, None) => {
            section.missing("at", before, "set, or header");
            None
        }
        (Some(_), Some(_)) => {
            section.problem("at", None, "header is set too; set one of them");
            None
        }
    }
}

const PAGINATION: &str = "a table such as { kind = \"link\" }, with a kind of \"none\", \"link\", \
                          \"page\", \"next_url\", \"cursor\" or \"offset\"";

fn pagination(section: &mut Section<'_>) -> Option<Pagination> {
    let before = section.problem_count();
    let wanted = "one of \"none\", \"link\", \"page\", \"next_url\", \"cursor\", \"offset\"";
    let kinds = ["none", "link", "page", "next_url", "cursor", "offset"];
    let kind = section.optional_text("kind", None, wanted, |text| {
        kinds.into_iter().find(|kind| *kind == text)
    });
    let Some(kind) = kind else {
        section.missing("kind", before, wanted);
        // The other options depend on the kind.
        section.forget_rest();
        return None;
    };
    let pagination = match kind {
        "link" => Pagination::Link,
        "next_url" => Pagination::NextUrl {
            at: required(section, "at", pointer::WANTED, Pointer::parse).unwrap_or_default(),
        },
        "page" => Pagination::Page {
            page_param: section.text("page_param", "page", PARAM, param),
            first: section.number("first_page", 1, 0..=1),
            size: size(section, "per_page"),
            end: page_end(section),
        },
        "cursor" => Pagination::Cursor {
            at: required(section, "at", pointer::WANTED, Pointer::parse).unwrap_or_default(),
            param: required(section, "param", PARAM, param).unwrap_or_default(),
            has_more: section.optional_text("has_more", None, pointer::WANTED, Pointer::parse),
        },
        "offset" => Pagination::Offset {
            offset_param: section.text("offset_param", "offset", PARAM, param),
            size: size(section, "limit"),
            total: section.optional_text("total", None, pointer::WANTED, Pointer::parse),
        },
        _ => Pagination::None,
    };
    (section.problem_count() == before).then_some(pagination)
}

fn size(section: &mut Section<'_>, default_param: &'static str) -> Option<(String, u64)> {
    let param = section.optional_text("size_param", None, PARAM, param);
    let size = section.optional_number("size", 1..=SIZE_MAX);
    if param.is_some() && size.is_none() {
        let why = "size is missing: the number of entries to ask for";
        section.problem("size_param", None, why);
    }
    Some((param.unwrap_or_else(|| default_param.to_owned()), size?))
}

fn page_end(section: &mut Section<'_>) -> PageEnd {
    let total = section.optional_text("total", None, pointer::WANTED, Pointer::parse);
    let header = section.optional_text("total_header", None, "the name of a header", |text| {
        HeaderName::try_from(text).ok()
    });
    let pages = section.optional_text("pages", None, pointer::WANTED, Pointer::parse);
    let ends = [
        total.map(|at| ("total", PageEnd::Total(at))),
        header.map(|name| ("total_header", PageEnd::TotalHeader(name))),
        pages.map(|at| ("pages", PageEnd::Pages(at))),
    ];
    let mut ends = ends.into_iter().flatten();
    let first = ends.next();
    if let Some((name, _)) = ends.next() {
        let why = "set one of total, total_header and pages: one is enough to know the end";
        section.problem(name, None, why);
    }
    first.map_or(PageEnd::EmptyPage, |(_, end)| end)
}

/// A required option.
fn required<T>(
    section: &mut Section<'_>,
    name: &'static str,
    wanted: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let before = section.problem_count();
    let read = section.optional_text(name, None, wanted, parse);
    if read.is_none() {
        section.missing(name, before, wanted);
    }
    read
}

#[cfg(test)]
mod tests;
