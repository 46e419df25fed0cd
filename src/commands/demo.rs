//! `demo`: the daemon against an embedded fake API with a varied set of keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::app::{self, Exit, RunError};
use crate::cli::Options;
use crate::config::{Config, Sources, definition_of};
use crate::demo_data::{self, SHAPED_TOKEN, ShapedAnswer, TOKEN};
use crate::fake_api::FakeApi;
use crate::fake_api::shapes::Shape;
use crate::os::clock;
use crate::os::systemd::Unit;
use crate::provider::Provider;
use crate::provider::definitions::BUILT_IN;
use crate::provider::json_list::JsonList;
use crate::reload::Load;
use crate::secret::Token;
use crate::server::routes::Paths;

/// The fake API's address: a free port, reachable from this machine only.
const API_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The variable that the demo's configuration reads the token from; set only in the demo's own copy
/// of the environment.
const TOKEN_VARIABLE: &str = "API_KEY_EXPORTER_DEMO_TOKEN";

/// As above, for an account whose token the API rejects, so that one account fails.
const REVOKED_TOKEN_VARIABLE: &str = "API_KEY_EXPORTER_DEMO_REVOKED_TOKEN";
const REVOKED_TOKEN: &str = "sk_test_ZGVtby10b2tlbi10aGF0LXdhcy1yZXZva2VkLWxvbmctYWdv";

/// As above, for the account of another provider.
const CODE_TOKEN_VARIABLE: &str = "API_KEY_EXPORTER_DEMO_CODE_TOKEN";

/// The account of the demo's provider.
const MAIN_ACCOUNT: &str = "demo";

/// An account of a provider that reports revoked keys.
const CODE_ACCOUNT: &str = "code";
const CODE_PROVIDER: &str = "gitlab";

/// Runs the demo for a provider. `print` receives the introduction.
pub(super) fn demo(options: &Options, provider: &'static str, print: &dyn Fn(&str)) -> Exit {
    let token = if is_native(provider) {
        TOKEN
    } else {
        SHAPED_TOKEN
    };
    let sources = sources(&app::sources(options), token);
    let of_problems = sources.clone();
    // The shapes of the APIs depend on everything except the addresses, which are not known yet.
    let text = config_text(provider, API_ADDRESS, API_ADDRESS);
    let accounts = match Config::parse(&text, &sources) {
        Ok(config) => config.accounts,
        Err(problems) => return app::misconfigured_daemon(&sources, &problems),
    };
    let prepare = async || {
        let provider_of = |name| {
            let account = accounts.iter().find(|account| account.name == name);
            account.map(|account| account.provider.clone())
        };
        let main = match provider_of(MAIN_ACCOUNT).unwrap_or_default() {
            Provider::BitGpt => start_api().await,
            Provider::Json(list) => start_shaped_api(&list, demo_data::shaped_answer).await,
        };
        let main = main.map_err(RunError::Demo)?;
        let code = match provider_of(CODE_ACCOUNT) {
            Some(Provider::Json(list)) => {
                let api = start_shaped_api(&list, demo_data::code_answer).await;
                Some(api.map_err(RunError::Demo)?)
            }
            _ => None,
        };
        // The APIs run as long as the function that provides their addresses exists.
        let load: Load = Arc::new(move || {
            let code = code.as_ref().map_or(API_ADDRESS, FakeApi::address);
            Config::parse(&config_text(provider, main.address(), code), &sources)
        });
        Ok(load)
    };
    app::serve(
        prepare,
        Unit::default(),
        false,
        &|problems| app::misconfigured_daemon(&of_problems, problems),
        &|urls, config| print(&welcome(provider, urls, &config.web.paths)),
    )
}

fn is_native(provider: &str) -> bool {
    BUILT_IN.iter().all(|(name, _)| *name != provider)
}

/// Starts the fake API.
async fn start_api() -> std::io::Result<FakeApi> {
    let mut asked = 0;
    // The key set has fixed expiry times; the demo counts them from its start.
    let start = clock::now();
    FakeApi::start(API_ADDRESS, TOKEN, move |request| {
        let now = clock::now();
        if let Some(id) = request.key_id() {
            return demo_data::page(id, start, now);
        }
        asked += 1;
        demo_data::answer(request, asked, start, now)
    })
    .await
}

/// Starts the fake API for another provider.
async fn start_shaped_api(list: &JsonList, answer: ShapedAnswer) -> std::io::Result<FakeApi> {
    let shape = Shape::new(list.clone());
    let mut polls = 0;
    let start = clock::now();
    let token = Token::parse(SHAPED_TOKEN.as_bytes(), TOKEN_VARIABLE);
    let token = token.map_err(|error| std::io::Error::other(error.to_string()))?;
    let authorization = shape.authorization(&token);
    FakeApi::start_with(API_ADDRESS, authorization, move |request| {
        if shape.is_first(request) {
            polls += 1;
        }
        let host = request.header("host").unwrap_or_default();
        let origin = format!("http://{host}");
        answer(&shape, request, &origin, polls, start, clock::now())
    })
    .await
}

/// The demo's configuration: defaults, except for a poll every ten seconds so that changes are
/// visible, and with all policies, details and an inventory enabled. Polls have one attempt each:
/// the fake API injects errors per request, and a retry would hide them.
fn config_text(provider: &str, api: SocketAddr, code_api: SocketAddr) -> String {
    let muted_until = clock::now() + TimeDelta::days(14);
    let muted_until = muted_until.format("%Y-%m-%d");
    let params = params(provider);
    let own_key = if is_native(provider) { OWN_KEY } else { "" };
    let more_accounts = if is_native(provider) {
        format!(
            "[[accounts]]\nname = \"warehouse\"\nprovider = \"{provider}\"\n\
             base_url = \"http://{api}\"\ntoken_env = \"{REVOKED_TOKEN_VARIABLE}\"\n\
             interval = \"30s\"\n\
             [[accounts]]\nname = \"{CODE_ACCOUNT}\"\nprovider = \"{CODE_PROVIDER}\"\n\
             base_url = \"http://{code_api}\"\ntoken_env = \"{CODE_TOKEN_VARIABLE}\"\n"
        )
    } else {
        String::new()
    };
    format!(
        "poll.interval = \"10s\"\npoll.timeout = \"5s\"\npoll.attempts = 1\n\
         details.enabled = true\ndetails.requests_per_minute = 120\ndetails.interval = \"10m\"\n\
         policy.max_allowed_addresses = 65536\npolicy.max_age = \"540d\"\n\
         policy.max_lifetime = \"365d\"\npolicy.max_unused = \"90d\"\n\
         [[accounts]]\nname = \"{MAIN_ACCOUNT}\"\nprovider = \"{provider}\"\nbase_url = \"http://{api}\"\n\
         token_env = \"{TOKEN_VARIABLE}\"\nparams = {{ {params} }}\n\
         {more_accounts}{INVENTORY}{own_key}\
         [[keys]]\nmatch = \"expired long ago\"\nname = \"Old shop\"\nteam = \"shop\"\n\
         muted_until = {muted_until}\nreason = \"is removed with the old shop\"\n"
    )
}

/// The inventory entry for the exporter's own key, which is known for BitGPT only.
const OWN_KEY: &str = r#"
[[keys]]
match = "api-key-exporter itself"
name = "Key exporter"
team = "platform"
"#;

/// A value for each parameter that the provider needs.
fn params(provider: &str) -> String {
    let built_in = BUILT_IN.iter().find(|(name, _)| *name == provider);
    let definition = built_in.and_then(|(name, text)| definition_of(name, text).ok());
    let params = definition.iter().flat_map(|it| {
        let needed = it.request.params().into_iter();
        needed.filter(|name| !it.request.defaults.contains_key(*name))
    });
    let params: Vec<_> = params.map(|name| format!("{name} = \"demo\"")).collect();
    params.join(", ")
}

/// The owners of the demo's keys; some keys have none.
const INVENTORY: &str = r#"
[[keys]]
match = "hours left: checkout"
name = "Checkout"
team = "payments"
rotate_url = "https://wiki.example.com/rotate/checkout"
runbook_url = "https://wiki.example.com/runbooks/checkout"
[[keys]]
match = "weeks left: invoicing"
name = "Invoicing"
team = "payments"
warning = "45d"
[[keys]]
match = "rotated: *"
name = "Shop"
team = "shop"
[[keys]]
match = "never expires: *"
name = "Legacy cron"
team = "platform"
exempt = ["too_old", "unused"]
reason = "the old cron host cannot change its key"
[[keys]]
match = "minutes left: deployment"
name = "Deployment"
team = "platform"
[[keys]]
match = "privileged: *"
team = "security"
[[keys]]
match = "ci: *"
name = "Pipelines"
team = "platform"
[[keys]]
match = "months left: *"
team = "analytics"
"#;

/// The command-line flags without the environment: a demo does not depend on the machine.
fn sources(given: &Sources, token: &str) -> Sources {
    let tokens = [
        (TOKEN_VARIABLE, token),
        (REVOKED_TOKEN_VARIABLE, REVOKED_TOKEN),
        (CODE_TOKEN_VARIABLE, SHAPED_TOKEN),
    ];
    let environment = tokens.map(|(name, token)| (name.to_owned(), token.to_owned()));
    let environment = environment.into();
    Sources {
        file: None,
        environment,
        flags: given.flags.clone(),
        is_terminal: true,
        is_journal: given.is_journal,
        skip_tokens: false,
    }
}

/// The introduction.
fn welcome(provider: &str, urls: &[String], paths: &Paths) -> String {
    let (prefix, telemetry) = (&paths.prefix, &paths.telemetry);
    let pages = |url: &String| {
        format!(
            "  status page  {url}{prefix}/\n  metrics      {url}{prefix}{telemetry}\n  \
             keys (JSON)  {url}{prefix}/api/v1/keys\n  calendar     {url}{prefix}/calendar.ics\n"
        )
    };
    let pages: String = urls.iter().map(pages).collect();
    format!(
        "api-key-exporter demo: an embedded fake API of {provider}, polled every 10 s. About every\n\
         third poll fails, each time in a different way; see the log below. Nothing leaves this\n\
         machine.\n\n\
         {pages}\nStop it with Ctrl-C.\n\n"
    )
}
