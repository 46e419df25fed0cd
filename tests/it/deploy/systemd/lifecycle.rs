//! The shipped units under a real systemd manager: start, state, reload, watchdog, sockets, stop.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use api_key_exporter::fake_api::Reply;
use serde_json::Value;

use super::container::{CREDENTIAL, Container};
use super::option;
use crate::support::{Api, TOKEN, listing};

/// Times that a test can wait for. `RestartSec` is below the waiting time after a bad start.
const QUICK: &str = "WatchdogSec=3s\nRestartSec=100ms";

/// Restarts during scrapes through the socket unit. With the first start, fewer than
/// `StartLimitBurst=`.
const RESTARTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_systemd_manager_runs_the_service() {
    let api = Api::start(listing(&["a", "b", "c"])).await;
    let container = Container::boot("systemd-service", &api).await;
    as_installed(&container);
    let configured = "poll.interval = \"5s\"\npoll.attempts = 1";
    container.configure("", configured);
    container.drop_in(QUICK);
    starts_sandboxed(&container).await;
    keeps_its_state(&container, &api).await;
    reloads(&container, configured).await;
    watchdog_ends_a_stopped_process(&container).await;
    stops(&container);
    stays_down_with_a_bad_configuration(&container).await;
    container.configure("", configured);
    container.demand("systemctl reset-failed api-key-exporter; systemctl start api-key-exporter");
    no_secret_in_the_journal(&container);
}

/// The commands of the README, and nothing else: the credential alone makes an account. There is no
/// network, so its polls fail; the exporter is ready all the same.
fn as_installed(container: &Container) {
    container.demand("systemctl start api-key-exporter");
    assert_eq!(container.show("ActiveState"), "active");
    assert!(!container.get("/-/healthy").is_empty());
    let info = "api_key_account_info{account=\"default\",provider=\"bitgpt\"}";
    assert_eq!(container.scrape().get(info), Some(1.0));
    let lines = container.journal_text();
    assert!(lines.contains(CREDENTIAL), "{lines}");
    // The manager complains about options that it does not know and variables that are not set.
    for complaint in ["Unknown", "Failed to resolve", "Referenced but unset"] {
        let of_unit = |line: &&str| line.contains(complaint) && line.contains("api-key-exporter");
        assert_eq!(lines.lines().find(of_unit), None);
    }
    container.demand("systemctl stop api-key-exporter");
}

async fn starts_sandboxed(container: &Container) {
    // Type=notify: the command returns once the exporter is ready.
    container.demand("systemctl start api-key-exporter");
    assert_eq!(container.show("SubState"), "running");
    container
        .until("a good poll", || {
            container.scrape().account("up") == Some(1.0)
        })
        .await;
    container
        .until("the number of keys in the status", || {
            container.show("StatusText").starts_with("3 keys")
        })
        .await;
    let pid = container.show("MainPID");
    let user: u32 = container
        .demand(&format!("ps -o uid= -p {pid}"))
        .trim()
        .parse()
        .unwrap();
    // The range of DynamicUser=.
    assert!((61184..=65519).contains(&user), "{user}");
    let status = container.demand(&format!("cat /proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    // Root's file is not the exporter's to read, and a write to the system is refused.
    let inside = format!("nsenter --target {pid} --mount --setuid {user} --setgid {user}");
    assert!(
        !container
            .run(&format!("{inside} cat /etc/api-key-exporter/bitgpt"))
            .is_content
    );
    assert!(
        !container
            .run(&format!("{inside} touch /etc/x /usr/x"))
            .is_content
    );
    assert_eq!(
        container.demand(&format!("{inside} cat {CREDENTIAL}")),
        TOKEN
    );
}

async fn keeps_its_state(container: &Container, api: &Api) {
    let files =
        "stat --format='%a %U' /var/lib/private /var/lib/private/api-key-exporter/*.snapshot";
    let modes = container.demand(files);
    assert!(modes.starts_with("700 root\n600 "), "{modes}");
    api.reply(Reply::error(503, "server_error", "support_1"));
    container.demand("systemctl restart api-key-exporter");
    container
        .until("a failed poll", || {
            container.scrape().account("up") == Some(0.0)
        })
        .await;
    assert_eq!(container.scrape().key_ids(), ["a", "b", "c"]);
    api.reply(listing(&["a", "b", "c"]));
    container
        .until("a good poll", || {
            container.scrape().account("up") == Some(1.0)
        })
        .await;
}

async fn reloads(container: &Container, configured: &str) {
    let pid = container.show("MainPID");
    let with_team = format!("{configured}\n[[keys]]\nmatch = \"*\"\nteam = \"payments\"");
    container.configure("", &with_team);
    container.demand("systemctl reload api-key-exporter");
    container
        .until("the team of the new configuration", || {
            container.get("/metrics").contains("team=\"payments\"")
        })
        .await;
    container.configure("", "poll.interval = \"never\"");
    container.demand("systemctl reload api-key-exporter");
    container
        .until("the failed reload", || {
            let scrape = container.scrape();
            scrape.get("api_key_exporter_config_last_reload_successful") == Some(0.0)
        })
        .await;
    assert!(container.get("/metrics").contains("team=\"payments\""));
    assert_eq!(container.show("ActiveState"), "active");
    assert_eq!(container.show("MainPID"), pid);
    container.configure("", configured);
}

async fn watchdog_ends_a_stopped_process(container: &Container) {
    let pid = container.show("MainPID");
    let restarts = container.show("NRestarts");
    container.demand(&format!("kill -STOP {pid}"));
    container
        .until("a new process after the watchdog", || {
            container.show("NRestarts") != restarts && container.show("SubState") == "running"
        })
        .await;
    assert_ne!(container.show("MainPID"), pid);
    let journal = container.journal_text();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    // With keep-alives it lives on, for longer than the period.
    let pid = container.show("MainPID");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(container.show("MainPID"), pid);
}

fn stops(container: &Container) {
    // SD_MESSAGE_UNIT_SUCCESS: the process exited with 0, as asked.
    let is_success = |entry: &Value| entry["MESSAGE_ID"] == "7ad2d189f7e94e70a38c781354912448";
    let successes = || {
        container
            .journal()
            .iter()
            .filter(|entry| is_success(entry))
            .count()
    };
    let before = successes();
    container.demand("systemctl stop api-key-exporter");
    assert_eq!(container.show("ActiveState"), "inactive");
    assert_eq!(successes(), before + 1, "{}", container.journal_text());
}

async fn stays_down_with_a_bad_configuration(container: &Container) {
    container.configure("", "poll.interval = \"never\"");
    assert!(!container.run("systemctl start api-key-exporter").is_content);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (property, value) in [
        ("ActiveState", "failed"),
        ("ExecMainStatus", "2"),
        ("NRestarts", "0"),
    ] {
        assert_eq!(container.show(property), value, "{property}");
    }
    let journal = container.journal_text();
    assert!(journal.contains("poll.interval"), "{journal}");
}

fn no_secret_in_the_journal(container: &Container) {
    let (_, secret) = TOKEN.split_once('.').unwrap();
    let journal = container.journal();
    assert!(journal.len() > 20, "{journal:?}");
    for entry in &journal {
        let text = entry.to_string();
        assert!(!text.contains(TOKEN) && !text.contains(secret), "{text}");
        assert!(entry["PRIORITY"].is_string(), "{text}");
    }
    // The exporter's own lines have the priorities of their levels, which journald takes off them.
    let own = |priority: &str| {
        let unit = "api-key-exporter.service";
        journal.iter().any(|entry| {
            let message = entry["MESSAGE"].as_str().unwrap();
            assert!(!message.starts_with('<'), "{message}");
            entry["_SYSTEMD_UNIT"] == unit && entry["PRIORITY"] == priority
        })
    };
    // err: the broken reload; warning: the failed poll; info: the start.
    for priority in ["3", "4", "6"] {
        assert!(own(priority), "no line of priority {priority}");
    }
    let pid = container.show("MainPID");
    let process = container.demand(&format!(
        "tr '\\0' '\\n' </proc/{pid}/environ; tr '\\0' '\\n' </proc/{pid}/cmdline"
    ));
    assert!(process.contains("--config.file"), "{process}");
    assert!(!process.contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_unit_refuses_no_connection_while_the_service_restarts() {
    let api = Api::start(listing(&["a"])).await;
    let container = Container::boot("systemd-socket", &api).await;
    container.configure("--web.systemd-socket", "");
    container.demand("systemctl start api-key-exporter.socket");
    assert_eq!(container.show("ActiveState"), "inactive");
    // The first scrape starts the service.
    assert!(container.get("/metrics").contains("api_key_account_info"));
    assert_eq!(container.show("ActiveState"), "active");
    let url = format!("http://127.0.0.1:{}/metrics", super::super::port());
    let scrapes = container
        .command(&format!(
            "while [ ! -e /run/enough ]; do
               curl --silent --show-error --fail --max-time 20 --output /dev/null {url} && echo good
             done 2>&1"
        ))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for _ in 0..RESTARTS {
        let pid = container.show("MainPID");
        container.demand("systemctl restart api-key-exporter.service");
        assert_ne!(container.show("MainPID"), pid);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    container.demand("touch /run/enough");
    let output = scrapes.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let bad: Vec<&str> = lines.lines().filter(|line| *line != "good").collect();
    assert_eq!(bad, [""; 0]);
    assert!(lines.lines().count() > 20, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_unit_can_pass_a_unix_socket_that_the_service_may_not_connect_to() {
    let api = Api::start(listing(&["a"])).await;
    let container = Container::boot("systemd-unix", &api).await;
    let socket = "/run/api-key-exporter.sock";
    let options = format!("[Socket]\nListenStream=\nListenStream={socket}\nSocketMode=0600\n");
    let path = "/run/systemd/system/api-key-exporter.socket.d/test.conf";
    container.write(path, 0o644, &options);
    container.configure("--web.systemd-socket", "");
    container.drop_in("WatchdogSec=2s");
    container.demand("systemctl start api-key-exporter.socket");
    let scrape = || {
        let curl = "curl --silent --show-error --fail --max-time 20 --unix-socket";
        let text = container.demand(&format!("{curl} {socket} http://localhost/metrics"));
        assert!(text.contains("api_key_account_info"), "{text}");
    };
    scrape();
    // The watchdog's own check cannot connect, which is no reason for a restart.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(container.show("NRestarts"), "0");
    container.demand("systemctl stop api-key-exporter.service");
    // systemd still owns the socket, and starts the service again.
    scrape();
}

/// The largest body that the default `poll.max_body_bytes` lets through, all keys with many scopes.
/// Bodies of different seeds have the same keys with other scopes.
fn worst_listing(seed: usize) -> (Reply, usize) {
    const BODY_BYTES: usize = 8 * 1024 * 1024 - 1024;
    let mut keys = String::new();
    let mut count = 0;
    while keys.len() < BODY_BYTES - 1024 && count < 20_000 {
        let scopes: Vec<String> = (0..64).map(|scope| format!("\"{seed}{scope}\"")).collect();
        let separator = if count == 0 { "" } else { "," };
        write!(
            keys,
            "{separator}{{\"id\":\"{count}\",\"scopes\":[{}],\"ip_allow_list\":[],\
             \"expires_at\":\"2099-01-01 00:00:00\"}}",
            scopes.join(",")
        )
        .unwrap();
        count += 1;
    }
    let body = format!("{{\"status\":200,\"data\":[{keys}],\"env\":\"development\"}}");
    (Reply::body(200, "application/json", body), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_max_is_in_force_and_holds_the_worst_listing() {
    let (reply, count) = worst_listing(1);
    let api = Api::start(reply).await;
    let container = Container::boot("systemd-memory", &api).await;
    container.configure("", "poll.interval = \"5s\"\npoll.timeout = \"60s\"");
    container.demand("systemctl start api-key-exporter");
    let group = container.show("ControlGroup");
    // Version 1 of control groups, or version 2.
    let limit = container.run(&format!(
        "cat /sys/fs/cgroup/memory{group}/memory.limit_in_bytes || cat /sys/fs/cgroup{group}/memory.max"
    ));
    let expected = option(super::SERVICE, "MemoryMax");
    let megabytes: u64 = expected.strip_suffix('M').unwrap().parse().unwrap();
    assert_eq!(
        limit.stdout.trim(),
        (megabytes * 1024 * 1024).to_string(),
        "the container has no memory controller that limits the service: {}",
        limit.words
    );
    let valid = "api_key_account_keys{account=\"default\",state=\"valid\"}";
    let keys = || container.scrape().get(valid);
    container
        .until("all keys", || keys() == Some(count as f64))
        .await;
    let pid = container.show("MainPID");
    // The scopes themselves are left out of a text as large as this.
    let series = "api_key_account_changes_total{account=\"default\",change=\"scopes\"}";
    let changes = || container.scrape().get(series);
    for round in 1..3 {
        api.reply(worst_listing(round + 1).0);
        let expected = Some((round * count) as f64);
        container
            .until("the changed scopes", || changes() == expected)
            .await;
    }
    assert_eq!(
        container.show("MainPID"),
        pid,
        "{}",
        container.journal_text()
    );
    assert_eq!(container.show("NRestarts"), "0");
    let line = container.demand(&format!("grep VmHWM /proc/{pid}/status"));
    let peak: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap();
    assert!(peak < megabytes * 1024, "{peak} KiB");
}
