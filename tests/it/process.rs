//! The real binary as a process: words, exit codes, signals, the environment.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;

use crate::support::{Api, Folder, Scrape, TOKEN, client, listing};

/// The binary, with an environment that holds nothing but what a test puts there.
pub(crate) fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api-key-exporter"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// The same program, started by `wrapper`, which runs what stands behind its own arguments. What
/// `daemon` adds to its environment is not taken over.
pub(crate) fn wrapped(wrapper: &[impl AsRef<OsStr>], daemon: &Command) -> Command {
    let mut command = Command::new(&wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .env_clear()
        .stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    binary(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A daemon under test; killed if the test fails before it stops.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with its log in a file.
    pub(crate) fn start(mut command: Command, folder: &Folder) -> Self {
        let log = folder.file("log", "");
        let child = command
            .stderr(fs::File::create(&log).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Whether it has ended already.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `what` in the log.
    pub(crate) async fn logs(&self, what: &str) {
        self.logs_within(what, Duration::from_secs(20)).await;
    }

    pub(crate) async fn logs_within(&self, what: &str, patience: Duration) {
        let start = Instant::now();
        while !self.log().contains(what) {
            assert!(
                start.elapsed() < patience,
                "no {what:?} in the log:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where it listens, from the line that says so.
    pub(crate) async fn address(&self) -> SocketAddr {
        self.logs("metrics=http://").await;
        let log = self.log();
        let (_, rest) = log.split_once("metrics=http://").unwrap();
        rest.split_once('/').unwrap().0.parse().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address().await);
        client()
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    }

    /// Scrapes until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Scrape) -> bool) -> Scrape {
        let start = Instant::now();
        loop {
            let scrape = Scrape::parse(&self.get("/metrics").await);
            if condition(&scrape) {
                return scrape;
            }
            assert!(
                start.elapsed() < Duration::from_secs(40),
                "not in time: {what}\n{:#?}\n{}",
                scrape.of("api_key_account_"),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Signals whatever the process started, as a tracer does, and else itself.
    pub(crate) fn signal_all(&self, signal: &str) {
        let mut pids = self.children();
        if pids.is_empty() {
            pids.push(self.pid().to_string());
        }
        let status = Command::new("kill")
            .arg(signal)
            .args(pids)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// What the process started; nothing once it has ended.
    fn children(&self) -> Vec<String> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits for the end: exit code, and how long it took.
    pub(crate) fn ended(self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        (self.status().code(), start.elapsed())
    }

    /// Waits for the end, however it comes.
    pub(crate) fn status(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A tracer that is killed lets go of what it traced.
        let children = self.children();
        if !children.is_empty() {
            drop(Command::new("kill").arg("-KILL").args(children).status());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A configuration file for one account at `api`, polled as often as allowed.
pub(crate) fn config_file(folder: &Folder, api: &str) -> String {
    let token_file = folder.file("token", TOKEN);
    fs::set_permissions(&token_file, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "poll.interval = \"5s\"\npoll.timeout = \"4s\"\nweb.listen_addresses = [\"127.0.0.1:0\"]\nlog.format = \"text\"\n\
         [[accounts]]\nname = \"default\"\nbase_url = \"{api}\"\ntoken_file = \"{}\"\n",
        token_file.display()
    );
    folder.file("config.toml", &text).display().to_string()
}

#[test]
fn a_bad_configuration_is_told_word_for_word_and_exits_2() {
    let folder = Folder::new("bad-config");
    let path = folder
        .file(
            "bad.toml",
            "[poll]\ninterval = \"1s\"\nintervall = \"1m\"\n",
        )
        .display()
        .to_string();
    let expected = format!(
        "api-key-exporter: invalid configuration:\n\
         \x20 poll.interval = \"1s\" (file {path}:2:12): must be a duration from 5s to 24h, such as \"90s\"\n\
         \x20 poll.intervall (file {path}:3:1): unknown option; did you mean interval? valid here: \
         interval, timeout, attempts, max_body_bytes, max_keys, max_pages, shrink_confirmations, \
         shrink_ratio, expired_retention\n\
         \x20 no account: set BITGPT_API_KEY_FILE or BITGPT_API_KEY in the environment, or write \
         [[accounts]] into the file named by --config.file\n"
    );
    let commands: [&[&str]; 4] = [&["run"], &[], &["config", "check"], &["config", "show"]];
    for command in commands {
        let output = run(&[command, &["--config.file", &path]].concat(), &[]);
        assert_eq!(text(&output.stderr), expected, "{command:?}");
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert_eq!(text(&output.stdout), "", "{command:?}");
    }
}

#[test]
fn a_missing_file_is_told() {
    let output = run(&["--config.file", "/nonexistent/c.toml"], &[]);
    let expected = "api-key-exporter: invalid configuration:\n  /nonexistent/c.toml: cannot open the file: No \
                    such file or directory (os error 2)\n";
    assert_eq!(
        (text(&output.stderr).as_str(), output.status.code()),
        (expected, Some(2))
    );
}

#[test]
fn a_bad_command_line_exits_2_and_never_repeats_a_key() {
    for arguments in [
        &["--nonsense"][..],
        &["sk_live_abcdefgh"],
        &["--token=sk_live_abcdefgh"],
        &["run", "sk_live_abcdefgh"],
    ] {
        let output = run(arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{arguments:?}");
        assert!(
            !text(&output.stderr).contains("abcdefgh"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_bad_configuration_is_logged_as_json_where_the_log_is_json() {
    let folder = Folder::new("bad-config-json");
    let bad = "[poll]\ninterval = \"1s\"\nattempts = 0\n";
    let in_file = |format: &str| format!("log.format = \"{format}\"\n{bad}");
    let of_file = |text: &str| folder.file("bad.toml", text).display().to_string();
    let problems = |output: &Output, level: &str, field: &str| {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let words = text(&output.stderr);
        let lines: Vec<serde_json::Value> = words
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{words}")))
            .collect();
        for line in &lines {
            assert_eq!(line[level], "ERROR", "{words}");
            assert_eq!(line[field], "invalid configuration", "{words}");
        }
        let problems = lines
            .iter()
            .map(|line| line["problem"].as_str().unwrap().to_owned());
        problems.collect::<Vec<String>>()
    };
    let path = of_file(bad);
    let flags = ["--config.file", &path, "--log.format", "json"];
    let flagged = problems(&run(&flags, &[]), "level", "msg");
    assert_eq!(flagged.len(), 3, "{flagged:?}");
    let variable = ("API_KEY_EXPORTER__LOG__FORMAT", "gcp");
    let output = run(&["run", "--config.file", &path], &[variable]);
    assert_eq!(problems(&output, "severity", "message"), flagged);
    let path = of_file(&in_file("json"));
    let filed = problems(&run(&["--config.file", &path], &[]), "level", "msg");
    let start = format!("poll.interval = \"1s\" (file {path}:3:12): must be");
    assert!(filed[0].starts_with(&start), "{filed:?}");
    assert!(filed[2].starts_with("no account: "), "{filed:?}");
    // A file that cannot be parsed leaves the flags.
    let path = of_file("poll = [\n");
    let flags = ["--config.file", &path, "--log.format=JSON"];
    let broken = problems(&run(&flags, &[]), "level", "msg");
    assert!(broken[0].contains("TOML syntax error"), "{broken:?}");
    // Everybody else gets the list.
    for (file, command) in [
        (in_file("text"), &["run"][..]),
        (in_file("json"), &["config", "check"]),
        (in_file("json"), &["config", "show"]),
    ] {
        let path = of_file(&file);
        let output = run(&[command, &["--config.file", &path]].concat(), &[]);
        let words = text(&output.stderr);
        let title = "api-key-exporter: invalid configuration:\n  poll.interval";
        assert!(words.starts_with(title), "{words}");
        assert_eq!(words.lines().count(), 4, "{words}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_check_without_tokens_needs_none() {
    let folder = Folder::new("skip-tokens");
    let text_of_file = "[[accounts]]\nname = \"shop\"\ntoken_file = \"/nonexistent/token\"\n\
                        [[accounts]]\nname = \"office\"\ntoken_env = \"NOWHERE\"\n\
                        [[keys]]\nmatch = \"*\"\naccount = \"office\"\n";
    let path = folder
        .file("config.toml", text_of_file)
        .display()
        .to_string();
    let check = ["config", "check", "--config.file", &path];
    let output = run(&check, &[]);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    for problem in [
        "accounts \"shop\": token_file (",
        "accounts \"office\": token_env (",
    ] {
        assert!(words.contains(problem), "{words}");
    }
    let output = run(&[&check[..], &["--skip-tokens"]].concat(), &[]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "configuration is good: 2 accounts, tokens not checked\n"
    );
    assert_eq!(output.status.code(), Some(0));
    let output = run(&["config", "check", "--skip-tokens"], &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Everything else is checked all the same.
    folder.file("config.toml", &format!("{text_of_file}teem = \"a\"\n"));
    let output = run(&[&check[..], &["--skip-tokens"]].concat(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("did you mean team?"),
        "{output:?}"
    );
}

#[test]
fn the_reason_of_a_failed_start_is_never_lost() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in [&["demo"][..], &["run"]] {
        for format in ["text", "json", "gcp"] {
            for _ in 0..10 {
                let options = ["--web.listen-address", &address, "--log.format", format];
                let output = run(&[command, &options].concat(), &[("BITGPT_API_KEY", TOKEN)]);
                let words = text(&output.stderr);
                assert!(
                    words.contains("Address already in use"),
                    "{command:?}: {words}"
                );
                assert_eq!(output.status.code(), Some(1));
            }
        }
    }
}

#[test]
fn lines_to_the_journal_start_with_their_priority() {
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixStream;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for is_journal in [true, false] {
        let (mut journal, stderr) = UnixStream::pair().unwrap();
        let stderr = fs::File::from(OwnedFd::from(stderr));
        let metadata = stderr.metadata().unwrap();
        let (device, inode) = (metadata.dev(), metadata.ino());
        let stream = format!("{device}:{}", inode + u64::from(!is_journal));
        let mut command = binary(&["demo", "--web.listen-address", &address]);
        command.env("JOURNAL_STREAM", stream).stderr(stderr);
        let status = command.status().unwrap();
        drop(command);
        assert_eq!(status.code(), Some(1));
        let mut log = String::new();
        journal.read_to_string(&mut log).unwrap();
        let line = log.lines().find(|line| line.contains("exiting")).unwrap();
        assert_eq!(line.starts_with("<3>"), is_journal, "{log}");
    }
}

#[test]
fn help_and_version_exit_0() {
    let output = run(&["--version"], &[("BITGPT_API_KEY", TOKEN)]);
    let expected = concat!(
        "api-key-exporter ",
        env!("CARGO_PKG_VERSION"),
        " (revision "
    );
    assert!(
        text(&output.stdout).starts_with(expected),
        "{}",
        text(&output.stdout)
    );
    let output = run(&["--help"], &[("BITGPT_API_KEY", TOKEN)]);
    let help = text(&output.stdout);
    for flag in [
        "--config.file",
        "--web.listen-address",
        "--web.systemd-socket",
        "--web.telemetry-path",
        "--log.level",
        "--log.format",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    assert!(!help.contains(TOKEN));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn one_variable_is_a_whole_configuration_and_is_warned_of() {
    let output = run(&["config", "check"], &[("BITGPT_API_KEY", TOKEN)]);
    assert_eq!(
        text(&output.stdout),
        "warning: the token of account \"default\" is in the environment (BITGPT_API_KEY), where \
         crash reports and child processes find it, and changes only with a restart; put it into a \
         file\nconfiguration is good: 1 account\n"
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_is_ignored_in_the_environment_is_warned_of() {
    let folder = Folder::new("ignored");
    let path = config_file(&folder, "http://localhost");
    let variables = [
        ("BITGPT_API_KEY", TOKEN),
        ("API_KEY_EXPORTER_POLL_INTERVAL", "1m"),
    ];
    let output = run(&["config", "check", "--config.file", &path], &variables);
    assert_eq!(
        text(&output.stdout),
        "warning: BITGPT_API_KEY in the environment is ignored: the accounts are those of the \
         file\nwarning: ignored in the environment, where two underscores replace each dot of an \
         option: API_KEY_EXPORTER_POLL_INTERVAL (write API_KEY_EXPORTER__POLL__INTERVAL)\n\
         configuration is good: 1 account\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_configuration_in_force_is_shown_with_origins_and_without_secrets() {
    let variables = [
        ("BITGPT_API_KEY", TOKEN),
        ("API_KEY_EXPORTER__POLL__INTERVAL", "1m"),
    ];
    let output = run(&["config", "show", "--log.level", "debug"], &variables);
    let shown = text(&output.stdout);
    for line in [
        "[web]",
        "listen_addresses = [\"127.0.0.1:10120\"]  # default",
        "interval = \"1m\"  # environment API_KEY_EXPORTER__POLL__INTERVAL",
        "level = \"debug\"  # flag --log.level",
        "[[accounts]]",
        "token_env = \"BITGPT_API_KEY\"  # environment BITGPT_API_KEY",
    ] {
        assert!(
            shown.lines().any(|shown| shown == line),
            "no {line:?} in:\n{shown}"
        );
    }
    assert!(!shown.contains("sk_live_"), "{shown}");
    // It is a configuration itself: what it prints can be used as a file.
    let folder = Folder::new("show");
    let path = folder.file("shown.toml", &shown).display().to_string();
    let again = run(
        &["config", "check", "--config.file", &path],
        &[("BITGPT_API_KEY", TOKEN)],
    );
    assert_eq!(text(&again.stderr), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_stop_it_with_0_in_time() {
    // Idle and in the middle of a poll, each with two hundred slow clients.
    let quick = Api::start(listing(&["a"])).await;
    let stuck = Api::start(Reply {
        delay: Duration::from_secs(3600),
        ..listing(&["a"])
    })
    .await;
    for (name, api, signal) in [
        ("idle", &quick, "-TERM"),
        ("idle-int", &quick, "-INT"),
        ("polling", &stuck, "-TERM"),
    ] {
        let folder = Folder::new(&format!("signal-{name}"));
        let config = config_file(&folder, &api.url());
        let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
        let address = daemon.address().await;
        // Clients that say nothing, do not finish asking, or do not read what they asked for.
        let begun = [
            "",
            "GET /metrics HTTP/1.1\r\nX: ",
            "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        ];
        let open: Vec<TcpStream> = (0..200)
            .map(|number| {
                let mut stream = TcpStream::connect(address).unwrap();
                let begun: &str = begun[number % begun.len()];
                stream.write_all(begun.as_bytes()).unwrap();
                stream
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(700)).await;
        daemon.signal(signal);
        let (code, took) = daemon.ended();
        assert_eq!(code, Some(0), "{name}");
        // Three seconds for the clients, and what a machine under load adds.
        assert!(took < Duration::from_millis(4_500), "{name}: {took:?}");
        drop(open);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_from_just_before_a_stop_gets_its_answer() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("late-request");
    let daemon = binary(&["--config.file", &config_file(&folder, &api.url())]);
    let daemon = Daemon::start(daemon, &folder);
    daemon.logs("listed keys for the first time").await;
    let address = daemon.address().await;
    let connect = || TcpStream::connect(address).unwrap();
    let (mut late, mut silent) = (connect(), connect());
    // Until both are accepted.
    daemon
        .until("the connections are counted", |scrape| {
            scrape.get("api_key_exporter_http_connections") >= Some(3.0)
        })
        .await;
    daemon.signal("-TERM");
    tokio::time::sleep(Duration::from_millis(100)).await;
    late.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("\napi_key_info{"), "{answer}");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let (code, took) = daemon.ended();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_it_at_once() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("second-signal");
    let config = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    let address = daemon.address().await;
    // A request whose end never comes keeps its connection open for the whole grace period.
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    daemon.signal("-TERM");
    daemon.logs("stopping").await;
    daemon.signal("-TERM");
    let (code, took) = daemon.ended();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_of_the_environment_are_not_used() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let proxy_url = format!("http://{}", proxy.local_addr().unwrap());
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("proxy");
    let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
    for variable in [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env(variable, &proxy_url);
    }
    let daemon = Daemon::start(command, &folder);
    daemon.logs("listed keys for the first time").await;
    assert_eq!(api.requests().len(), 1);
    assert!(proxy.accept().is_err(), "the proxy was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_the_api_said() {
    let reply = Reply::json(
        400,
        &serde_json::json!({
            "status": 400, "data": null, "error": "Validation failed", "log": { "request_id": "req_1" },
            "validator": { "page": "must be positive" }, "support_id": "support_0197c0ec", "message": "malformed",
            "env": "production"
        }),
    );
    let api = Api::start(reply).await;
    let folder = Folder::new("told");
    let daemon = Daemon::start(
        binary(&["--config.file", &config_file(&folder, &api.url())]),
        &folder,
    );
    daemon.logs("listing keys failed").await;
    let log = daemon.log();
    let line = log
        .lines()
        .find(|line| line.contains("listing keys failed"))
        .unwrap();
    let (_, told) = line.split_once(' ').unwrap();
    let (told, url) = told.rsplit_once(" url=").unwrap();
    assert_eq!(url, format!("{}/developers/api_keys", api.url()));
    let (told, retry_in) = told.rsplit_once(" retry_in=").unwrap();
    assert_eq!(
        told,
        "level=WARN msg=\"listing keys failed\" account=default reason=client_error http_status=400 \
         api_status=400 error=\"Validation failed\" support_id=support_0197c0ec validator=\"{\\\"page\\\":\\\"must be positive\\\"}\" \
         api_log=\"{\\\"request_id\\\":\\\"req_1\\\"}\" message=malformed attempts=1"
    );
    assert!(["4s", "5s"].contains(&retry_in), "{retry_in}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_behind_stderr_hurts_nothing() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("full");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let full = || {
        fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let mut child = binary(&[
        "--config.file",
        &config_file(&folder, &api.url()),
        "--log.level",
        "trace",
    ])
    .args(["--web.listen-address", &address])
    .stdout(full())
    .stderr(full())
    .spawn()
    .unwrap();
    let scrape = until_up(&address).await;
    let dropped = scrape.get("api_key_exporter_log_lines_dropped_total");
    assert!(dropped > Some(0.0), "{dropped:?}");
    assert_eq!(scrape.key_ids(), ["a"]);
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a command was asked for is lost then.
#[test]
fn output_that_cannot_be_written_is_reported_by_every_command() {
    let folder = Folder::new("full-stdout");
    let config = config_file(&folder, "http://127.0.0.1:1");
    for (arguments, code) in [
        (&["man"][..], 1),
        (&["completions", "bash"], 1),
        (&["--help"], 1),
        (&["--version"], 1),
        (&["config", "show", "--config.file", &config], 1),
        (&["config", "check", "--config.file", &config], 1),
        (&["check", "--config.file", &config], 3),
        (&["check", "--output", "nagios", "--bogus"], 3),
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let output = binary(arguments).stdout(full.unwrap()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let words = "api-key-exporter: cannot write the output: No space left on device";
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_behind_stderr_hurts_nothing() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("epipe");
    let mut child = binary(&[
        "--config.file",
        &config_file(&folder, &api.url()),
        "--log.level",
        "trace",
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut start = vec![0; 4096];
    let mut log = String::new();
    while !log.contains("metrics=http://") {
        let count = stderr.read(&mut start).unwrap();
        log.push_str(&String::from_utf8_lossy(&start[..count]));
    }
    drop(stderr);
    let (_, rest) = log.split_once("metrics=http://").unwrap();
    let address = rest.split_once('/').unwrap().0.to_owned();
    let scrape = until_up(&address).await;
    assert_eq!(scrape.key_ids(), ["a"]);
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Scrapes `address` until its one account is up.
async fn until_up(address: &str) -> Scrape {
    let start = Instant::now();
    loop {
        if let Ok(response) = client()
            .get(format!("http://{address}/metrics"))
            .send()
            .await
        {
            let scrape = Scrape::parse(&response.text().await.unwrap());
            if scrape.account("up") == Some(1.0) {
                return scrape;
            }
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{address} does not come up"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
