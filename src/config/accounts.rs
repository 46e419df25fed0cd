//! `[[accounts]]`: the accounts to list keys of, and their tokens.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use crate::config::problem::{Origin, Problem, is_path, shown, shown_name};
use crate::config::providers::{self, Candidate, Candidates};
use crate::config::reader::{Effective, Section};
use crate::config::{ENV_PREFIX, Poll, Sources};
use crate::domain::glob::Glob;
use crate::domain::shard::Shard;
use crate::domain::text;
use crate::provider::Provider;
use crate::provider::json_list::JsonList;
use crate::provider::json_list::definition::secret_params;
use crate::provider::profile::{EnvironmentAccount, Profile};
use crate::secret::{Token, TokenError, TokenForm, TokenSource};

/// Maximum number of accounts of this shard. Each has a task, some KiB of memory, at most two open
/// files while it is polled, and some 70 lines in each scrape: 40 MiB in total.
const ACCOUNTS_MAX: usize = 10_000;

/// Longest account name; it is a label of every series.
const NAME_CHARS_MAX: usize = 64;

const NAME: &str = "default";

/// The variable that systemd sets to the directory of the service's credentials.
pub(super) const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// One account.
#[derive(Clone, Debug)]
pub struct Account {
    /// The account's name, chosen by the operator; in every series and log line.
    pub name: String,
    /// The provider of the API.
    pub provider: Provider,
    /// The base URL of the API.
    pub base_url: Url,
    /// The source of the token.
    pub token: TokenSource,
    /// The environment that the API must report.
    pub expected_env: Option<String>,
    /// Certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A proxy for the requests; its URL may contain a password.
    pub proxy_url: Option<SecretString>,
    /// The poll interval.
    pub interval: Duration,
}

impl Account {
    /// The account's name, and the scopes that its provider classifies as privileged.
    pub(super) fn privileged_scopes(&self) -> (Box<str>, Box<[Glob]>) {
        let scopes = self.provider.profile().privileged_scopes.iter();
        let globs = scopes.filter_map(|scope| Glob::parse(scope));
        (self.name.as_str().into(), globs.collect())
    }

    /// Whether this account is polled like `other`: at the same URL, with a token from the same
    /// source.
    pub fn is_polled_like(&self, other: &Self) -> bool {
        // Destructured, so that a new field cannot be forgotten here.
        let Self {
            name,
            provider,
            base_url,
            token,
            expected_env,
            ca_file,
            proxy_url,
            interval,
        } = self;
        let exposed =
            |url: &Option<SecretString>| url.as_ref().map(|url| url.expose_secret().to_owned());
        (name, provider, base_url) == (&other.name, &other.provider, &other.base_url)
            && token.describe() == other.token.describe()
            && (expected_env, ca_file) == (&other.expected_env, &other.ca_file)
            && exposed(proxy_url) == exposed(&other.proxy_url)
            && *interval == other.interval
    }
}

/// Accounts are a list, which environment variables cannot set: reports variables that try to.
pub(super) fn in_environment(sources: &Sources) -> Vec<Problem> {
    let variables = sources
        .environment
        .keys()
        .filter(|variable| is_about_accounts(variable));
    let problem = |variable: &String| {
        Problem::general(format!(
            "{}: accounts cannot be set in the environment; write [[accounts]] into the file, or set \
             {}",
            shown_name(variable),
            Provider::environment_variables()
        ))
    };
    variables.map(problem).collect()
}

/// The environment without the variables that [`in_environment`] reports.
pub(super) fn without(environment: &BTreeMap<String, String>) -> config::Map<String, String> {
    let others = environment
        .iter()
        .filter(|(variable, _)| !is_about_accounts(variable));
    others
        .map(|(variable, value)| (variable.clone(), value.clone()))
        .collect()
}

fn is_about_accounts(variable: &str) -> bool {
    variable
        .to_ascii_uppercase()
        .starts_with(&format!("{ENV_PREFIX}__ACCOUNTS"))
}

/// Reads all accounts; if there are none, creates one named `default` from the environment. The
/// secrets and files of accounts that another shard takes are not read: this exporter needs no
/// access to them. Without a valid shard, no account's are.
pub(super) fn read(
    root: &mut Section<'_>,
    candidates: &Candidates,
    poll: &Poll,
    sources: &Sources,
    shard: Option<Shard>,
) -> Vec<Account> {
    let read = root.sections("accounts", |section| {
        let (name, account) = account(section, candidates, poll, sources, shard);
        ((name, section.origin_in_force("name")), account)
    });
    let (names, accounts): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    let mut accounts: Vec<Account> = accounts.into_iter().flatten().collect();
    if names.is_empty() {
        accounts.extend(from_environment(root, poll, sources));
    }
    let is_ours = |name: &str| shard.is_some_and(|shard| shard.takes(name));
    let valid = || {
        let valid = names.iter();
        valid.filter_map(|(name, origin)| Some((name.as_deref()?, origin)))
    };
    let count = valid().filter(|(name, _)| is_ours(name)).count();
    if count > ACCOUNTS_MAX {
        root.general_problem(format!(
            "accounts: {count} are configured; the maximum is {ACCOUNTS_MAX} in each shard"
        ));
    }
    let mut known = HashSet::new();
    for (name, origin) in valid() {
        if !known.insert(name) {
            let words = "this name is used twice; names must be unique";
            root.problem_at(&format!("accounts {name:?}"), origin, words);
        }
    }
    accounts
}

/// The account's name if it is valid, for the duplicate check, and the account if all of it is.
fn account(
    section: &mut Section<'_>,
    candidates: &Candidates,
    poll: &Poll,
    sources: &Sources,
    shard: Option<Shard>,
) -> (Option<String>, Option<Account>) {
    let before = section.problem_count();
    let name = section.text(
        "name",
        NAME,
        "a name of 1 to 64 characters, without control characters, that does not look like a key \
         or a URL with a password",
        parse_name,
    );
    let is_name_valid = section.problem_count() == before;
    let is_ours = shard.is_some_and(|shard| shard.takes(&name));
    let elsewhere = Sources {
        skip_tokens: true,
        ..Sources::default()
    };
    let sources = if is_ours { sources } else { &elsewhere };
    let provider = provider(section, candidates);
    let profile = provider.as_ref().map(Provider::profile);
    let before = section.problem_count();
    let base_url = section.optional_text(
        "base_url",
        profile.and_then(|profile| profile.base_url.as_deref()),
        BASE_URL,
        parse_base_url,
    );
    if base_url.is_none() && profile.is_some() {
        section.missing("base_url", before, BASE_URL);
    }
    let token = token(section, sources);
    if let (Some(profile), Some(token)) = (profile, &token)
        && !sources.skip_tokens
    {
        check_user_and_password(section, profile, token);
    }
    let expected_env = section.optional_text(
        "expected_env",
        None,
        "\"production\" or \"development\"",
        |text| matches!(text, "production" | "development").then(|| text.to_owned()),
    );
    if expected_env.is_some() && profile.is_some_and(|profile| !profile.has_environments) {
        let why = "this provider does not say which environment it is";
        section.problem("expected_env", None, why);
    }
    let ca_file = section.path("ca_file");
    if let Some(Err(error)) = ca_file
        .as_deref()
        .filter(|_| is_ours)
        .map(crate::provider::tls::check_ca_file)
        // The other accounts do not wait for a network mount; this account's polls report the
        // problem.
        && !error.is_no_answer()
    {
        section.problem("ca_file", None, &text::chain(&error));
    }
    let proxy_url = section.optional_text(
        "proxy_url",
        None,
        "an http:// or https:// URL",
        parse_proxy_url,
    );
    if proxy_url.is_some() && base_url.as_ref().is_some_and(|url| url.scheme() == "http") {
        section.problem(
            "proxy_url",
            None,
            "needs an https:// base_url: over http:// the proxy would see the token",
        );
    }
    let interval = section
        .optional_duration("interval", None, Poll::INTERVAL_RANGE)
        .unwrap_or(poll.interval);
    let complete = provider.zip(base_url).zip(token);
    let account = complete.map(|((provider, base_url), token)| Account {
        name: name.clone(),
        provider,
        base_url,
        token,
        expected_env,
        ca_file,
        proxy_url,
        interval,
    });
    (is_name_valid.then_some(name), account)
}

const BASE_URL: &str =
    "an https:// URL without user, query or fragment (http:// only to a loopback address)";

/// The account's provider with the account's parameters; `None` if either is invalid, which is
/// recorded.
fn provider(section: &mut Section<'_>, candidates: &Candidates) -> Option<Provider> {
    let choices: Vec<(&str, &Candidate)> = candidates
        .iter()
        .map(|(name, candidate)| (name.as_str(), candidate))
        .collect();
    let default = Provider::default();
    let candidate = section.choice("provider", &default.profile().name, &choices);
    let secret_params = match &candidate {
        Candidate::Defined(definition) => {
            secret_params(&definition.request.query, &definition.request.headers)
        }
        Candidate::Native(_) | Candidate::Broken => BTreeSet::new(),
    };
    let params = providers::params(section, &secret_params);
    let problems = match candidate {
        Candidate::Native(provider) => {
            if params.is_empty() {
                return Some(provider.clone());
            }
            let unknown = |name| (name, "this provider has no such parameter");
            params.into_keys().map(unknown).collect()
        }
        Candidate::Defined(definition) => match JsonList::new(definition, &params) {
            Ok(json_list) => return Some(Provider::Json(json_list.into())),
            Err(problems) => problems,
        },
        Candidate::Broken => return None,
    };
    for (name, why) in problems {
        section.problem(&format!("params.{}", shown_name(&name)), None, why);
    }
    None
}

/// Basic authentication needs both values in the token file.
fn check_user_and_password(section: &mut Section<'_>, profile: &Profile, source: &TokenSource) {
    if profile.token_form != TokenForm::Base64 {
        return;
    }
    if let Ok(token) = source.read()
        && !token.is_user_and_password()
    {
        let name = match source {
            TokenSource::File(_) => "token_file",
            TokenSource::Env { .. } => "token_env",
        };
        let why = "must hold user:password: the provider uses basic authentication";
        section.problem(name, None, why);
    }
}

/// Exactly one of `token_file` and `token_env`, readable now: without its token, a daemon would run
/// but watch nothing.
fn token(section: &mut Section<'_>, sources: &Sources) -> Option<TokenSource> {
    let problems = section.problem_count();
    let file = section.path("token_file");
    let variable = section.optional_text(
        "token_env",
        None,
        "the name of an environment variable",
        |text| (!text.is_empty() && !text.contains(['=', '\0'])).then(|| text.to_owned()),
    );
    let (name, source) = match (file, variable) {
        (Some(path), None) => ("token_file", Ok(TokenSource::File(path))),
        (None, Some(variable)) => ("token_env", from_variable(&variable, sources)),
        (Some(_), Some(_)) => {
            section.problem("token_env", None, "token_file is set too; set one of them");
            return None;
        }
        // One of them is set, and its problem is reported.
        (None, None) if section.problem_count() > problems => return None,
        (None, None) => {
            section.problem(
                "token_file",
                None,
                "no token: set token_file (a path) or token_env (a variable's name)",
            );
            return None;
        }
    };
    checked(source, sources)
        .map_err(|why| section.problem(name, None, &why))
        .ok()
}

/// The source, if its token is readable or may become readable soon: the other accounts do not wait
/// for a network mount.
fn checked(source: Result<TokenSource, String>, sources: &Sources) -> Result<TokenSource, String> {
    let source = source?;
    if sources.skip_tokens {
        return Ok(source);
    }
    match source.read() {
        Err(error) if !error.is_no_answer() => Err(text::chain(&error)),
        Ok(_) | Err(_) => Ok(source),
    }
}

fn from_variable(variable: &str, sources: &Sources) -> Result<TokenSource, String> {
    let text = match sources.environment.get(variable) {
        // A check never uses the token.
        _ if sources.skip_tokens => "skipped",
        Some(text) => text,
        // A value that is not a plausible variable name may be a misplaced token.
        None if !is_conventional(variable) => {
            return Err("the environment has no such variable".to_owned());
        }
        None => return Err(format!("the environment has no variable {variable}")),
    };
    let token = Token::parse(text.as_bytes(), &format!("environment {variable}"))
        .map_err(|error| error.to_string())?;
    Ok(TokenSource::Env {
        variable: variable.to_owned(),
        token,
    })
}

/// Whether a name follows the naming convention of environment variables.
fn is_conventional(variable: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    variable.len() <= NAME_CHARS_MAX && variable.chars().all(is_usual)
}

/// The set-up without a configuration file. A token file named by the environment takes precedence
/// over a systemd credential, and that over a token in the environment, which every child process
/// would inherit.
fn from_environment(root: &mut Section<'_>, poll: &Poll, sources: &Sources) -> Option<Account> {
    let is_set = |variables: &EnvironmentAccount| {
        let set = |variable: &str| sources.environment.contains_key(variable);
        sources.skip_tokens || set(variables.token_file) || set(variables.token)
    };
    let with_token = Provider::NATIVE.into_iter().find_map(|it| {
        let profile = it.profile();
        let variables = profile.environment?;
        let credential = credential(&profile.name, sources);
        let is_there = credential.is_some() || is_set(&variables);
        is_there.then(|| (it.clone(), variables, credential))
    });
    let Some((provider, variables, credential)) = with_token else {
        root.general_problem(format!(
            "no account: set {} in the environment, or write [[accounts]] into the file named by \
             --config.file",
            Provider::environment_variables()
        ));
        return None;
    };
    let (variable, source) = match sources.environment.get(variables.token_file) {
        Some(path) if path.is_empty() => (
            variables.token_file,
            Err("is empty; it must be the path of a file".to_owned()),
        ),
        Some(path) if !is_path(path) => (
            variables.token_file,
            Err(format!("= {}: must be the path of a file", shown(path))),
        ),
        Some(path) => (variables.token_file, Ok(TokenSource::File(path.into()))),
        None => match credential {
            Some(credential) => (CREDENTIALS, Ok(credential)),
            None => (variables.token, from_variable(variables.token, sources)),
        },
    };
    let profile = provider.profile();
    let base_url = profile.base_url.as_deref().unwrap_or_default();
    let token = checked(source, sources)
        .map_err(|why| root.general_problem(format!("{variable}: {why}")))
        .ok()?;
    let (name, value) = match &token {
        TokenSource::File(path) => ("token_file", path.display().to_string()),
        TokenSource::Env { variable, .. } => ("token_env", variable.clone()),
    };
    let set = [
        ("name", NAME.to_owned()),
        ("provider", profile.name.to_string()),
        ("base_url", base_url.to_owned()),
    ];
    let origin = Origin::Environment(variable.to_owned());
    let in_force = set
        .into_iter()
        .map(|(name, value)| (name, value, Origin::Default));
    for (name, value, origin) in in_force.chain([(name, value, origin)]) {
        let (section, name, value) = (
            "[[accounts]]".to_owned(),
            name.to_owned(),
            Some(format!("{value:?}")),
        );
        root.note(Effective {
            section,
            index: 0,
            name,
            value,
            origin,
        });
    }
    Some(Account {
        name: NAME.to_owned(),
        base_url: parse_base_url(base_url)?,
        provider,
        token,
        expected_env: None,
        ca_file: None,
        proxy_url: None,
        interval: poll.interval,
    })
}

/// The service's credential `name`, if systemd passes one: `LoadCredential=` exists since version
/// 247, the specifier for its path only since 250.
fn credential(name: &str, sources: &Sources) -> Option<TokenSource> {
    let directory = sources.variable(CREDENTIALS).filter(|it| is_path(it))?;
    let source = TokenSource::File(Path::new(directory).join(name));
    match source.read() {
        Err(TokenError::Unreadable(_, error)) if error.kind() == ErrorKind::NotFound => None,
        // Other problems must be reported to the operator.
        _ => Some(source),
    }
}

fn parse_name(text: &str) -> Option<String> {
    let is_short = (1..=NAME_CHARS_MAX).contains(&text.chars().count());
    let is_clean = shown_name(text) == text && !text.trim().is_empty();
    (is_short && is_clean).then(|| text.to_owned())
}

pub(super) fn parse_base_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_loopback = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && !url.path().contains(';');
    (is_secure && is_bare).then_some(url)
}

fn parse_proxy_url(text: &str) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then(|| SecretString::from(text))
}
