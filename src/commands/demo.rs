//! `demo`: the daemon against an embedded fake API with a varied set of keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::app::{self, Exit, RunError};
use crate::cli::Options;
use crate::config::{Config, Sources, definition_of};
use crate::demo_data::{self, SHAPED_TOKEN, TOKEN};
use crate::fake_api::FakeApi;
use crate::fake_api::shapes::Shape;
use crate::os::clock;
use crate::os::systemd::Unit;
use crate::provider::Provider;
use crate::provider::definitions::BUILT_IN;
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

/// Runs the demo for a provider. `print` receives the introduction.
pub(super) fn demo(options: &Options, provider: &'static str, print: &dyn Fn(&str)) -> Exit {
    let token = if is_native(provider) {
        TOKEN
    } else {
        SHAPED_TOKEN
    };
    let sources = sources(&app::sources(options), token);
    let of_problems = sources.clone();
    // The shape of the API depends on everything except the address, which is not known yet.
    let provider_of_account = match Config::parse(&config_text(provider, API_ADDRESS), &sources) {
        Ok(config) => config.accounts.first().map(|it| it.provider.clone()),
        Err(problems) => return app::misconfigured_daemon(&sources, &problems),
    };
    let prepare = async || {
        let api = match provider_of_account.unwrap_or_default() {
            Provider::BitGpt => start_api().await,
            Provider::Json(list) => start_shaped_api(Shape::new((*list).clone())).await,
        };
        let api = api.map_err(RunError::Demo)?;
        // The API runs as long as the function that provides its address exists.
        let load: Load =
            Arc::new(move || Config::parse(&config_text(provider, api.address()), &sources));
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
async fn start_shaped_api(shape: Shape) -> std::io::Result<FakeApi> {
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
        demo_data::shaped_answer(&shape, request, &origin, polls, start, clock::now())
    })
    .await
}

/// The demo's configuration: defaults, except for a poll every ten seconds so that changes are
/// visible, and with all policies, details and an inventory enabled. Polls have one attempt each:
/// the fake API injects errors per request, and a retry would hide them.
fn config_text(provider: &str, api: SocketAddr) -> String {
    let muted_until = clock::now() + TimeDelta::days(14);
    let muted_until = muted_until.format("%Y-%m-%d");
    let params = params(provider);
    let own_key = if is_native(provider) { OWN_KEY } else { "" };
    let revoked = if is_native(provider) {
        format!(
            "[[accounts]]\nname = \"warehouse\"\nprovider = \"{provider}\"\n\
             base_url = \"http://{api}\"\ntoken_env = \"{REVOKED_TOKEN_VARIABLE}\"\n\
             interval = \"30s\"\n"
        )
    } else {
        String::new()
    };
    format!(
        "poll.interval = \"10s\"\npoll.timeout = \"5s\"\npoll.attempts = 1\n\
         details.enabled = true\ndetails.requests_per_minute = 120\ndetails.interval = \"10m\"\n\
         policy.max_allowed_addresses = 65536\npolicy.max_age = \"540d\"\n\
         policy.max_lifetime = \"365d\"\npolicy.max_unused = \"90d\"\n\
         [[accounts]]\nname = \"demo\"\nprovider = \"{provider}\"\nbase_url = \"http://{api}\"\n\
         token_env = \"{TOKEN_VARIABLE}\"\nparams = {{ {params} }}\n\
         {revoked}{INVENTORY}{own_key}\
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
match = "months left: *"
team = "analytics"
"#;

/// The command-line flags without the environment: a demo does not depend on the machine.
fn sources(given: &Sources, token: &str) -> Sources {
    let tokens = [
        (TOKEN_VARIABLE, token),
        (REVOKED_TOKEN_VARIABLE, REVOKED_TOKEN),
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
