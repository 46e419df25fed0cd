//! The report on one account as text. Pure.

use std::fmt::Write as _;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::Line;
use crate::pages::words;
use crate::provider::findings::{FieldFindings, Findings, listed};
use crate::provider::http::Traffic;
use crate::provider::json_list::definition::Pagination;
use crate::provider::response::is_success;
use crate::provider::{Answer, Listed, Provider};

/// Parts of the names of fields that may hold an expiry.
const EXPIRY_NAMES: [&str; 5] = ["expir", "valid_until", "valid_to", "not_after", "end_date"];

/// An account that was listed once.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) account: String,
    pub(super) provider: Provider,
    pub(super) answer: Answer,
    pub(super) findings: Findings,
}

/// The report.
pub(super) fn text(of: &Inspected) -> String {
    let mut out = String::new();
    let line = |out: &mut String, name: &str, value: &str| {
        writeln!(out, "  {name:<12} {value}").expect("a string takes everything");
    };
    let (answer, findings) = (&of.answer, &of.findings);
    let provider = &*of.provider.profile().name;
    let outcome = match &answer.result {
        Ok(listed) => words::count(listed.listing.keys().len(), "key"),
        Err(failure) => format!("FAILED, {}", failure.reason.as_str()),
    };
    let account = Line::own(&of.account);
    writeln!(
        out,
        "account {:?} ({provider}): {outcome}",
        account.as_str()
    )
    .expect("a string takes everything");
    line(&mut out, "request", &request(&answer.traffic, findings));
    match &answer.result {
        Ok(listed) => {
            line(
                &mut out,
                "answer",
                &success(listed, &answer.traffic, findings),
            );
            line(&mut out, "pages", &pages(&of.provider, findings));
        }
        Err(failure) => line(&mut out, "failure", &described(failure, &answer.traffic)),
    }
    if let Ok(listed) = &answer.result {
        line(&mut out, "entries", &entries(listed, findings));
    }
    if findings.entries > 0 {
        out.push_str(&table(findings));
    }
    // An answer without entries may hold an error message, for example.
    let beside = if findings.entries > 0 {
        "beside list"
    } else {
        "answer has"
    };
    for (name, names) in [("not read", &findings.unused), (beside, &findings.beside)] {
        if !names.is_empty() {
            line(&mut out, name, &listed(names));
        }
    }
    for hint in hints(of) {
        line(&mut out, "hint", &hint);
    }
    out
}

fn request(traffic: &Traffic, findings: &Findings) -> String {
    let Some(url) = &findings.request else {
        return "none was sent".to_owned();
    };
    let more = match traffic.requests {
        0 | 1 => String::new(),
        requests => format!("; {requests} requests in all"),
    };
    format!("GET {}{more}", url.as_str())
}

fn success(listed: &Listed, traffic: &Traffic, findings: &Findings) -> String {
    let status = traffic.status.unwrap_or_default();
    let mut words = format!("HTTP {status}, {} bytes", traffic.bytes);
    if findings.pages > 1 {
        write!(words, ", {} pages", findings.pages).expect("a string takes everything");
    }
    add_support_id(words, listed.support_id.as_ref())
}

fn described(failure: &Failure, traffic: &Traffic) -> String {
    let mut words = String::new();
    let error = failure.error.as_ref().map_or("no message", Line::as_str);
    if let Some(status) = traffic.status {
        write!(words, "HTTP {status}").expect("a string takes everything");
        // Only bodies that were read completely are counted.
        if let (1, bytes @ 1..) = (traffic.requests, traffic.bytes) {
            write!(words, ", {bytes} bytes").expect("a string takes everything");
        }
        words.push_str(": ");
    }
    words.push_str(error);
    // The line above names the URL.
    for (name, text) in failure.lines.iter().filter(|(name, _)| *name != "url") {
        write!(words, "; {name}: {}", text.as_str()).expect("a string takes everything");
    }
    add_support_id(words, failure.support_id.as_ref())
}

fn add_support_id(mut words: String, support_id: Option<&Line>) -> String {
    if let Some(id) = support_id {
        write!(words, ", support_id {}", id.as_str()).expect("a string takes everything");
    }
    words
}

/// How the end of the listing was found.
fn pages(provider: &Provider, findings: &Findings) -> String {
    let by = match provider.pagination() {
        Pagination::None => return "one; nothing in the answer indicates more".to_owned(),
        Pagination::Link => "link: a Link header with rel=\"next\"".to_owned(),
        Pagination::NextUrl { at } => format!("next_url: a link at {at}"),
        Pagination::Page { page_param, .. } => format!("page: numbers in {page_param}"),
        Pagination::Cursor { at, .. } => format!("cursor: a value at {at}"),
        Pagination::Offset { offset_param, .. } => format!("offset: numbers in {offset_param}"),
    };
    let (pages, with_next) = (findings.pages, findings.pages_with_next);
    format!("{by}; a next page after {with_next} of {pages}")
}

fn entries(listed: &Listed, findings: &Findings) -> String {
    let rejects = words::rejects(&listed.listing);
    let rejects = rejects.map_or_else(String::new, |rejects| format!("; {rejects}"));
    format!("{}{rejects}", findings.entries)
}

/// A row for each field.
fn table(findings: &Findings) -> String {
    let fields = &findings.fields;
    let width = |text: fn(&FieldFindings) -> &str, heading: &str| {
        let widths = fields.iter().map(|field| text(field).chars().count());
        widths.max().unwrap_or(0).max(heading.len())
    };
    let (names, places) = (width(|it| it.name, "field"), width(|it| &it.at, "pointer"));
    let mut out = String::new();
    writeln!(
        out,
        "  {:<names$}  {:<places$}  {:>7}  {:>7}  {:>7}",
        "field", "pointer", "found", "null", "read"
    )
    .expect("a string takes everything");
    for field in fields {
        let null = if findings.null_is_missing {
            "-".to_owned()
        } else {
            field.null.to_string()
        };
        let row = format!(
            "  {:<names$}  {:<places$}  {:>7}  {:>7}  {:>7}  {}",
            field.name,
            field.at,
            field.found,
            null,
            field.read,
            remark(field)
        );
        writeln!(out, "{}", row.trim_end()).expect("a string takes everything");
    }
    out
}

fn remark(field: &FieldFindings) -> String {
    let mut remarks = Vec::new();
    if let Some(latest) = field.latest {
        remarks.push(format!("latest {}", latest.format("%Y-%m-%d %H:%M UTC")));
    }
    if field.special > 0 {
        let is_disabled = field.name == "disabled";
        let what = if is_disabled {
            "disabled"
        } else {
            "never expires"
        };
        remarks.push(format!("{what}: {}", field.special));
    }
    if let Some(shape) = &field.unreadable {
        remarks.push(format!("unreadable: {shape}"));
    }
    if let Some(format) = field.fitting_formats.first() {
        remarks.push(format!("format = \"{format}\" would read it"));
    }
    remarks.join("; ")
}

/// What the author of the configuration may want to change.
fn hints(of: &Inspected) -> Vec<String> {
    let failure = of.answer.result.as_ref().err();
    let of_failure = failure.and_then(|failure| of_failure(failure, of));
    let has_entries = failure.is_none() || of.findings.entries > 0;
    let of_fields = has_entries.then(|| of_fields(of));
    let of_fields = of_fields.into_iter().flatten();
    of_failure.into_iter().chain(of_fields).collect()
}

fn of_fields(of: &Inspected) -> Vec<String> {
    let findings = &of.findings;
    if findings.entries == 0 {
        return vec!["the list is empty: is it the right account, and the right path?".to_owned()];
    }
    let other_types = findings
        .other_types
        .iter()
        .map(|(kind, count)| match count {
            1 => format!("1 entry is a {kind}, not an object"),
            count => format!("{count} entries are {kind}s, not objects"),
        });
    let mut hints: Vec<String> = other_types.collect();
    if findings.other_types.values().sum::<usize>() >= findings.entries {
        return hints;
    }
    let mut names = findings.unused.iter();
    let similar = names.find(|name| {
        let name = name.to_ascii_lowercase();
        EXPIRY_NAMES.iter().any(|part| name.contains(part))
    });
    let similar = similar.map_or_else(String::new, |name| format!("; is it {name}?"));
    match findings.field("expires_at") {
        None => hints.push(format!(
            "the definition has no expires_at, so no alert about expiry can fire{similar}"
        )),
        Some(field) if field.found == 0 && field.special == 0 => hints.push(format!(
            "no entry has a value at {}: check the pointer of expires_at{similar}",
            field.at
        )),
        Some(field) if field.read + field.skipped < field.found => hints.push(format!(
            "expires_at cannot be read in {} of {} entries: add what means \"never\" to never, or \
             correct the format",
            field.found - field.read - field.skipped,
            findings.entries
        )),
        Some(_) => {}
    }
    let others = findings.fields.iter();
    let others = others.filter(|field| field.name != "expires_at" && field.found + field.null == 0);
    // Optional fields of a built-in provider are often missing.
    if !is_built_in(&of.provider) {
        hints.extend(others.map(|field| {
            format!(
                "no entry has {}: check the pointer of {}",
                field.at, field.name
            )
        }));
    }
    hints
}

fn of_failure(failure: &Failure, of: &Inspected) -> Option<String> {
    let profile = of.provider.profile();
    let name = &profile.name;
    let scope = profile.listing_scope.as_ref();
    let (token, page) = match scope {
        Some(scope) => (
            format!("create a token with the scope {scope}"),
            format!("docs/providers.md, {name}"),
        ),
        None if is_built_in(&of.provider) => (
            "create a token with the permission to list keys".to_owned(),
            format!("docs/providers.md, {name}"),
        ),
        None => (
            "check the token, and auth in the definition".to_owned(),
            "docs/provider-definitions.md".to_owned(),
        ),
    };
    let (reason, status) = (failure.reason, failure.http_status);
    let is_without_list = matches!(reason, Reason::Schema | Reason::ApiError);
    Some(if reason == Reason::Unauthorized {
        format!("the API does not accept the token: {token}; see {page}")
    } else if reason == Reason::Forbidden {
        format!(
            "the API does not permit the listing: {token}, or add this host to the token's allow \
             list; see {page}"
        )
    } else if reason == Reason::ClientError && status == Some(404) {
        format!("nothing is there: check base_url, path and params; see {page}")
    } else if reason == Reason::Schema && !status.is_none_or(is_success) {
        format!("check path and query; see {page}")
    } else if reason == Reason::Redirect && status.is_none() {
        "the next page is on another host or port than base_url: correct base_url".to_owned()
    } else if is_without_list && !of.findings.lists.is_empty() {
        let lists = of.findings.lists.iter();
        let lists = lists.map(|(at, count)| format!("{at:?} ({})", words::entries(*count)));
        let lists = lists.collect::<Vec<_>>().join(", ");
        format!("items must point at the list of keys; the answer has lists at {lists}")
    } else {
        return remedy(reason).map(str::to_owned);
    })
}

/// What to do about a failure, where that depends on its reason only.
fn remedy(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Dns => "check the name in base_url, and the DNS of this host",
        Reason::Connect => {
            "check host and port in base_url, firewalls, and proxy_url if one is needed"
        }
        Reason::Timeout => {
            "raise poll.timeout if the API is slow; else check firewalls and proxies"
        }
        Reason::Redirect => {
            "redirects are not followed: set base_url and path to where the API is; a redirect to \
             a login page means that it does not accept the token"
        }
        Reason::RateLimited => {
            "wait, then list less often: a longer interval, or fewer users of the same token"
        }
        Reason::Gateway => {
            "something in front of the API answered, such as a firewall or a bot check: permit \
             this host there, and check base_url and proxy_url"
        }
        Reason::NotJson => {
            "the API answers with JSON: check base_url and path, and look for a proxy that cuts or \
             replaces answers"
        }
        Reason::BodyTruncated => "try again; if it recurs, look for a proxy that cuts answers",
        Reason::BodyTooLarge => "raise poll.max_body_bytes, or list fewer keys per page",
        Reason::TooManyKeys => "raise poll.max_keys",
        Reason::Incomplete => {
            "set or correct pagination: the way to the next page is beside the list, or in the \
             answer's headers"
        }
        Reason::EnvironmentMismatch => "correct expected_env, or use a token of that environment",
        Reason::ClientError => "check path, query and params",
        Reason::ServerError => "the API itself fails: try again later",
        // Their messages say what to do, or nothing is known.
        Reason::Tls
        | Reason::Unauthorized
        | Reason::Forbidden
        | Reason::Schema
        | Reason::ApiError
        | Reason::Credential
        | Reason::Internal => return None,
    })
}

fn is_built_in(provider: &Provider) -> bool {
    Provider::built_in_names().any(|name| *name == *provider.profile().name)
}
