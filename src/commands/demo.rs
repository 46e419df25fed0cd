//! `demo`: the daemon against an embedded fake API with a lively set of keys.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use chrono::TimeDelta;

use crate::app::{self, Exit, RunError};
use crate::cli::Options;
use crate::config::{Config, Sources};
use crate::demo_data::{self, TOKEN};
use crate::fake_api::FakeApi;
use crate::os::clock;
use crate::os::systemd::Unit;
use crate::reload::Load;
use crate::server::routes::Paths;

/// Where the fake API listens: on a free port that only this machine reaches.
const API_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The variable that the demo's configuration reads the token from; set in the demo's own copy of
/// the environment.
const TOKEN_VARIABLE: &str = "API_KEY_EXPORTER_DEMO_TOKEN";

/// Runs the demo. `print` gets what people should read first.
pub(super) fn demo(options: &Options, print: &dyn Fn(&str)) -> Exit {
    let sources = sources(&app::sources(options));
    let of_problems = sources.clone();
    let prepare = async || {
        let api = start_api().await.map_err(RunError::Demo)?;
        // The API lives as long as the function that names its address.
        let load: Load = Arc::new(move || Config::parse(&config_text(api.address()), &sources));
        Ok(load)
    };
    app::serve(
        prepare,
        Unit::default(),
        false,
        &|problems| app::misconfigured_daemon(&of_problems, problems),
        &|urls, config| print(&welcome(urls, &config.web.paths)),
    )
}

/// Starts the fake API.
async fn start_api() -> std::io::Result<FakeApi> {
    let mut asked = 0;
    // Keys end at fixed moments: those of the demo are counted from its start.
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

/// What the daemon runs on: everything at its default but for a poll every ten seconds, so that
/// there is something to see, every policy on, details, and an inventory. One attempt a poll,
/// because the fake's errors come one request at a time and a retry would hide them.
fn config_text(api: SocketAddr) -> String {
    let muted_until = clock::now() + TimeDelta::days(14);
    let muted_until = muted_until.format("%Y-%m-%d");
    format!(
        "poll.interval = \"10s\"\npoll.timeout = \"5s\"\npoll.attempts = 1\n\
         details.enabled = true\ndetails.requests_per_minute = 120\ndetails.interval = \"10m\"\n\
         policy.max_allowed_addresses = 65536\npolicy.max_age = \"540d\"\n\
         policy.max_lifetime = \"365d\"\npolicy.max_unused = \"90d\"\n\
         [[accounts]]\nname = \"demo\"\nbase_url = \"http://{api}\"\ntoken_env = \"{TOKEN_VARIABLE}\"\n\
         {INVENTORY}\
         [[keys]]\nmatch = \"expired long ago\"\nname = \"Old shop\"\nteam = \"shop\"\n\
         muted_until = {muted_until}\nreason = \"is removed with the old shop\"\n"
    )
}

/// Whose the demo's keys are; a few are nobody's.
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
match = "api-key-exporter itself"
name = "Key exporter"
team = "platform"
[[keys]]
match = "privileged: *"
team = "security"
[[keys]]
match = "months left: *"
team = "analytics"
"#;

/// The flags of the command line and nothing of the environment: a demo does not depend on the
/// machine.
fn sources(given: &Sources) -> Sources {
    let environment = [(TOKEN_VARIABLE.to_owned(), TOKEN.to_owned())].into();
    Sources {
        file: None,
        environment,
        flags: given.flags.clone(),
        is_terminal: true,
        is_journal: given.is_journal,
        skip_tokens: false,
    }
}

/// What people read first.
fn welcome(urls: &[String], paths: &Paths) -> String {
    let (prefix, telemetry) = (&paths.prefix, &paths.telemetry);
    let pages = |url: &String| {
        format!("  start page  {url}{prefix}/\n  metrics     {url}{prefix}{telemetry}\n")
    };
    let pages: String = urls.iter().map(pages).collect();
    format!(
        "api-key-exporter demo: an embedded fake BitGPT API, polled every 10 s. About every third poll\n\
         fails in another way, and the log below says how. Nothing leaves this machine.\n\n\
         {pages}\nStop it with Ctrl-C.\n\n"
    )
}
