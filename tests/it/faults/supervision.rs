//! What supervises the poll loops, and what restarts cost the API.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api_key_exporter::app::{self, Exit};
use api_key_exporter::config::{Config, Flags, Sources};
use api_key_exporter::domain::account_state::{Account, AccountState};
use api_key_exporter::domain::view::ViewSettings;
use api_key_exporter::exposition::cache::ExpositionCache;
use api_key_exporter::liveness::Liveness;
use api_key_exporter::os::clock;
use api_key_exporter::os::systemd::{self, Notifier, Unit};
use api_key_exporter::poller::Poller;
use api_key_exporter::reload::Load;
use api_key_exporter::server::Server;
use api_key_exporter::server::listen::{self, ListenAddress};
use api_key_exporter::server::routes::Paths;
use api_key_exporter::state_store::{AccountUpdate, StateStore};
use api_key_exporter::telemetry::Telemetry;
use tokio::net::UnixDatagram;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Folder, Scrape, any_port, client, config, listing};
use crate::token::{assert_hidden, forms};

/// Where the test runs itself as a daemon: its configuration file.
const DYING: &str = "CONFIG_OF_A_DAEMON_WHOSE_POLLS_PANIC";

/// The daemon with an interval that no configuration may have: after each poll, the time of the
/// next one is out of all range, and the loop panics.
fn dying_daemon(file: &Path) -> i32 {
    let sources = Sources::of_process(Some(file.to_owned()), Flags::default());
    let load: Load = Arc::new(move || {
        let mut config = Config::load(&sources)?;
        config.accounts[0].interval = Duration::MAX;
        Ok(config)
    });
    match app::serve(
        async || Ok(load),
        Unit::default(),
        false,
        &app::misconfigured,
        &|_, _| {},
    ) {
        Exit::Failed(_) => 1,
        other @ (Exit::Done(_) | Exit::Misconfigured(_) | Exit::Answered { .. }) => {
            panic!("{other:?}")
        }
    }
}

#[test]
#[expect(clippy::exit, reason = "the code is what the test is about")]
fn a_poll_loop_that_keeps_dying_ends_the_process_with_1() {
    if let Some(file) = std::env::var_os(DYING) {
        std::process::exit(dying_daemon(Path::new(&file)));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let api = Api::start(listing(&["a"])).await;
        let folder = Folder::new("dying");
        let name = "faults::supervision::a_poll_loop_that_keeps_dying_ends_the_process_with_1";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--nocapture"])
            .env_clear()
            .env("RUST_BACKTRACE", "full")
            .env(DYING, config_file(&folder, &api.url()))
            .stdin(Stdio::null());
        let daemon = Daemon::start(command, &folder);
        daemon.logs("task panicked, restarting").await;
        // Meanwhile it serves, and tells.
        let scrape = Scrape::parse(&daemon.get("/metrics").await);
        let panics = scrape.get("api_key_exporter_task_panics_total{task=\"poller\"}");
        assert!((1.0..5.0).contains(&panics.unwrap()), "{panics:?}");
        assert!(daemon.get("/-/healthy").await.contains("is healthy"));
        // Fifteen seconds of pauses, and up to five before each of five polls.
        let end = "level=ERROR msg=\"crash-looping, giving up\" task=poller deaths=5";
        daemon.logs_within(end, Duration::from_secs(60)).await;
        daemon
            .logs("level=ERROR msg=exiting error=\"the poller task ended unexpectedly\"")
            .await;
        let log = daemon.log();
        assert_eq!(daemon.ended().0, Some(1), "{log}");
        assert_eq!(
            log.matches("level=ERROR msg=\"a task panicked\"").count(),
            5,
            "{log}"
        );
        // Neither the panics nor their backtraces show what the loop held.
        assert_hidden(&forms(), "the log of panics", log.as_bytes());
        // A death costs the API no more than a start does.
        assert_eq!(api.requests().len(), 5);
    });
}

#[tokio::test]
async fn a_stuck_poll_loop_is_unhealthy_and_starves_the_watchdog() {
    let folder = Folder::new("stuck");
    let path = folder.0.join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    let settings = config("http://localhost", "", "");
    let state = AccountState::new(Arc::new(Account {
        name: "default".into(),
        provider: "bitgpt".into(),
        base_url: "http://localhost".into(),
        interval: Duration::from_secs(1),
        shrink: settings.poll.shrink,
        expired_retention: chrono::TimeDelta::days(7),
        listing_scope: None,
    }));
    let view = ViewSettings {
        rules: settings.assessment_rules.clone(),
        metrics: settings.metrics,
    };
    let store = Arc::new(StateStore::new(view.clone()));
    let id = store.new_id();
    store.replace_accounts(vec![AccountUpdate::Set(id, Arc::new(state.clone()))], view);
    let liveness = Liveness::new();
    let telemetry = Telemetry::new().unwrap();
    let is_stuck = Arc::new(AtomicBool::new(false));
    let begun = is_stuck.clone();
    let poller = Poller {
        // Every attempt keeps its deadline; one that does not is what this is about.
        attempt: async move |_| {
            begun.store(true, Ordering::Relaxed);
            std::future::pending().await
        },
        state,
        attempts_max: 1,
        store: store.clone(),
        id,
        first_wait_max: Duration::from_millis(100),
        details: None,
        origin: Arc::default(),
        carryover: Arc::default(),
        heartbeat: liveness.heartbeat(),
        now: clock::now,
        random: || 0.5,
    };
    let listener = listen::bind_one(any_port()).unwrap();
    let own = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        store: store.clone(),
        exposition: ExpositionCache::new(store.clone()),
        telemetry,
        liveness: liveness.clone(),
        paths: Paths {
            telemetry: "/metrics".to_owned(),
            ..Paths::of_probes()
        },
        probes_only: false,
        web_file: None,
        reloads: None,
        places: Arc::new(Semaphore::new(10)),
        page_places: Arc::new(Semaphore::new(1)),
        now: clock::now,
    });
    let unit = Unit {
        notifier: Notifier::new(path.to_str()),
        watchdog: Some(Duration::from_millis(200)),
    };
    let stop = CancellationToken::new();
    let _ending = stop.clone().drop_guard();
    tokio::spawn(poller.run(stop.clone()));
    tokio::spawn(server.run(listener.into(), stop.clone()));
    let address = ListenAddress::Tcp(own);
    tokio::spawn(systemd::report(unit, store, liveness, Some(address), stop));
    let healthy = async || {
        let url = format!("http://{own}/-/healthy");
        let response = client().get(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let pinged = async |within: Duration| {
        let mut message = [0; 1024];
        let ping = async {
            loop {
                let length = supervisor.recv(&mut message).await.unwrap();
                if message.starts_with(b"WATCHDOG=1") {
                    break length;
                }
            }
        };
        tokio::time::timeout(within, ping).await.is_ok()
    };
    let start = Instant::now();
    while !is_stuck.load(Ordering::Relaxed) {
        assert!(start.elapsed() < Duration::from_secs(20), "it never polls");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(healthy().await.0, 200, "it may yet come back");
    assert!(pinged(Duration::from_secs(20)).await);
    // Its promise, and the thirty seconds of grace after it.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(40)).await;
    tokio::time::resume();
    let (status, words) = healthy().await;
    assert_eq!((status, words.as_str()), (503, "A poll loop is stuck.\n"));
    // What was on its way may still come.
    while pinged(Duration::from_millis(1)).await {}
    assert!(!pinged(Duration::from_secs(2)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_restarts_costs_the_api_next_to_nothing() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("storm");
    let config = config_file(&folder, &api.url());
    // What cannot work ends before it asks: an address that is taken, an option that is wrong.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flag, value, code) in [
        ("--web.listen-address", &*taken, 1),
        ("--log.level", "loud", 2),
    ] {
        for _ in 0..5 {
            let output = binary(&["--config.file", &config, flag, value]).output();
            assert_eq!(output.unwrap().status.code(), Some(code));
        }
    }
    assert_eq!(api.requests().len(), 0);
    // What dies later asks once a life at most, and a life that is shorter than the first wait,
    // up to 5 s, most often not at all: one request in 5 s whatever the supervisor does.
    let start = Instant::now();
    for _ in 0..20 {
        let mut command = binary(&["--config.file", &config]);
        command.env("API_KEY_EXPORTER__POLL__INTERVAL", "5m");
        let daemon = Daemon::start(command, &folder);
        daemon.address().await;
        drop(daemon);
    }
    let lived = start.elapsed().as_secs_f64();
    // Twenty lives of some 50 ms expect 0.2 requests in all.
    assert!(
        api.requests().len() <= 3,
        "{} in {lived} s",
        api.requests().len()
    );
    let unit = crate::support::in_repository("deploy/systemd/api-key-exporter.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    for line in [
        "RestartSec=5s",
        "StartLimitIntervalSec=5min",
        "StartLimitBurst=5",
    ] {
        assert!(unit.lines().any(|known| known == line), "{line}");
    }
}
