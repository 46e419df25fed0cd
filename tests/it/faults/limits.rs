//! What the system grants too little of: files, threads, processor time, a
//! file system, with the real binary.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;
use serde_json::json;

use crate::process::{Daemon, binary, config_file, wrapped};
use crate::support::{Api, Folder, Scrape, TOKEN, client, in_repository, listing};

/// Runs a program as a user that owns nothing, not even a process.
pub(crate) fn nobody() -> Vec<String> {
    // Other tests, and other runs of this one, count as other users.
    static USERS: AtomicU32 = AtomicU32::new(0);
    let user = 1_000_000 + std::process::id() * 16 + USERS.fetch_add(1, Ordering::Relaxed) % 16;
    let ids = [format!("--reuid={user}"), format!("--regid={user}")];
    let rest = ["--clear-groups", "--inh-caps=-all"].map(str::to_owned);
    [vec!["setpriv".to_owned()], ids.into(), rest.into()].concat()
}

/// The program and its configuration where [`nobody`] may read them.
pub(crate) fn for_anybody(folder: &Folder, api: &str) -> Command {
    let program = folder.0.join("api-key-exporter");
    let original = binary(&["--config.file", &config_file(folder, api)]);
    fs::copy(original.get_program(), &program).unwrap();
    fs::set_permissions(folder.0.join("token"), Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(program);
    command.args(original.get_args());
    command
}

/// A listing of so many keys, each with scopes of its own, as large as the default limits admit.
/// `variant` changes every key.
fn largest_listing(variant: usize) -> Reply {
    let year = 2030 + variant % 60;
    let entry = |id: usize| {
        let scopes =
            (0..44).map(|scope| format!("\"{:x}\"", (id * 31 + scope * 7 + variant) % 65_536));
        format!(
            "{{\"id\":\"k{id:05}\",\"ip_allow_list\":[\"10.0.{}.{}\"],\"expires_at\":\"{year}-01-01\",\"scopes\":[{}]}}",
            id / 256,
            id % 256,
            scopes.collect::<Vec<_>>().join(",")
        )
    };
    let entries: Vec<String> = (0..20_000).map(entry).collect();
    let body = format!(
        "{{\"status\":200,\"error\":null,\"data\":[{}]}}",
        entries.join(",")
    );
    assert!((7 << 20..=8 << 20).contains(&body.len()), "{}", body.len());
    Reply::body(200, "application/json", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_listing_fits_the_memory_limit_of_the_unit_and_the_chart() {
    let api = Api::start(largest_listing(0)).await;
    let folder = Folder::new("largest");
    let text = format!(
        "poll.interval = \"10s\"\npoll.attempts = 1\nlog.format = \"text\"\nweb.listen_addresses = [\"127.0.0.1:0\"]\n\
         [[accounts]]\nname = \"default\"\nbase_url = {:?}\ntoken_env = \"TOKEN\"\n",
        api.url()
    );
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    let daemon = Daemon::start(command, &folder);
    let start = Instant::now();
    for variant in 1..4 {
        let polls = format!("api_key_account_polls_total{{account=\"default\"}} {variant}\n");
        let dropped =
            "api_key_account_families_dropped{account=\"default\",family=\"api_key_scope_info\"} 1";
        loop {
            let text = daemon.get("/metrics").await;
            if text.contains(&polls) && text.contains(dropped) {
                assert!(!text.contains("\napi_key_scope_info{"));
                assert_eq!(text.matches("\napi_key_info{").count(), 20_000);
                break;
            }
            let log = daemon.log();
            assert!(start.elapsed() < Duration::from_secs(300), "{log}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        api.reply(largest_listing(variant));
    }
    let told = "leaving out metric families";
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    let peak = peak_kib(&daemon);
    assert!(peak < 256 * 1024, "{peak} KiB");
    assert!(peak < limit_kib(), "{peak} KiB");
}

fn peak_kib(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    peak.parse().unwrap()
}

/// The memory limit of the unit; a test about the manifests and the chart compares theirs with it.
fn limit_kib() -> u64 {
    let unit = fs::read_to_string(in_repository("deploy/systemd/api-key-exporter.service"));
    let unit = unit.unwrap();
    let limit = unit
        .lines()
        .find_map(|line| line.strip_prefix("MemoryMax="));
    let mebibytes: u64 = limit.unwrap().trim_end_matches('M').parse().unwrap();
    mebibytes * 1024
}

/// 2,500 keys with 5 scopes each; `variant` changes every key.
fn large_listing(variant: usize) -> Reply {
    let entry = |id: usize| {
        let scopes =
            (0..5).map(|scope| format!("scope{}.update", (id * 7 + scope + variant) % 500));
        json!({
            "id": format!("api_key_0197c0ec-0000-7000-8000-{id:012}"), "label": format!("label of key {id}"),
            "organization_id": "org_0197c0ec-0000-7000-8000-000000000001",
            "scopes": scopes.collect::<Vec<_>>(),
            "ip_allow_list": [format!("10.{}.{}.0/24", id % 250, (id + variant) % 250)],
            "created_at": "2020-01-01 00:00:00", "updated_at": "2021-01-01 00:00:00",
            "expires_at": format!("{}-01-01 00:00:00", 2030 + (id + variant) % 60)
        })
    };
    Reply::listing(&(0..2_500).map(entry).collect::<Vec<_>>())
}

/// The budget is one account's; operations.md says how much all accounts may have.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_keys_in_twenty_accounts_fit_the_shipped_memory_limit() {
    const ACCOUNTS: usize = 20;
    let api = Api::start(large_listing(0)).await;
    let folder = Folder::new("many-large");
    let mut text = String::from(
        "poll.interval = \"30s\"\npoll.timeout = \"27s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
         web.listen_addresses = [\"127.0.0.1:0\"]\n",
    );
    for account in 0..ACCOUNTS {
        let url = api.url();
        writeln!(
            text,
            "[[accounts]]\nname = \"account-{account}\"\nbase_url = {url:?}\ntoken_env = \"TOKEN\""
        )
        .unwrap();
    }
    let path = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &path]);
    command.env("TOKEN", TOKEN);
    let daemon = Daemon::start(command, &folder);
    let start = Instant::now();
    let mut text = String::new();
    for round in 1..3 {
        let is_polled = |line: &&str| {
            let polls = line.strip_prefix("api_key_account_polls_total{");
            let polls = polls.and_then(|rest| rest.rsplit_once(' '));
            polls.is_some_and(|(_, polls)| polls.parse::<usize>().unwrap() >= round)
        };
        while text.lines().filter(is_polled).count() < ACCOUNTS {
            let log = daemon.log();
            assert!(start.elapsed() < Duration::from_secs(300), "{log}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            text = daemon.get("/metrics").await;
        }
        api.reply(large_listing(round));
    }
    assert_eq!(text.matches("\napi_key_info{").count(), 50_000);
    assert_eq!(
        text.matches("\napi_key_account_families_dropped{").count(),
        0
    );
    let peak = peak_kib(&daemon);
    // As much room as the page of a browser needs.
    assert!(peak < limit_kib() * 9 / 10, "{peak} KiB");
}

/// The daemon with one account at `api`, started by `wrapper`.
fn daemon_under(wrapper: &[&str], folder: &Folder, api: &Api) -> Daemon {
    let daemon = binary(&["--config.file", &config_file(folder, &api.url())]);
    Daemon::start(wrapped(wrapper, &daemon), folder)
}

/// A scrape, tried again while there is no place for it.
async fn scrape(address: SocketAddr) -> Scrape {
    let start = Instant::now();
    loop {
        let url = format!("http://{address}/metrics");
        if let Ok(response) = client().get(url).send().await
            && let Ok(text) = response.text().await
        {
            return Scrape::parse(&text);
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not answer"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "not in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn rejected(scrape: &Scrape, reason: &str) -> f64 {
    let series = format!("api_key_exporter_http_rejected_total{{reason=\"{reason}\"}}");
    scrape.get(&series).unwrap()
}

fn cpu(scrape: &Scrape) -> f64 {
    scrape.get("process_cpu_seconds_total").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_take_no_file_that_a_poll_needs() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("64-files");
    let daemon = daemon_under(&["prlimit", "--nofile=64"], &folder, &api);
    let address = daemon.address().await;
    daemon.logs("listed keys for the first time").await;
    let polled = api.requests().len();
    let start = Instant::now();
    let before = scrape(address).await;
    // The exporter closes those that ask for nothing after five seconds; new ones come.
    let mut open = Vec::new();
    while api.requests().len() < polled + 2 {
        open.extend((0..200).map(|_| TcpStream::connect(address).unwrap()));
        open.drain(..open.len() - 200);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it polls no more"
        );
    }
    drop(open);
    let after = scrape(address).await;
    let took = start.elapsed().as_secs_f64();
    assert_eq!(after.account("up"), Some(1.0));
    assert_eq!(after.account("consecutive_failures"), Some(0.0));
    assert_eq!(rejected(&after, "accept_failed"), 0.0);
    assert!(rejected(&after, "conn_limit") > 100.0);
    let share = (cpu(&after) - cpu(&before)) / took;
    assert!(share < 0.2, "{share} of a core, unoptimised");
    let log = daemon.log();
    let told = "level=WARN msg=\"open-file limit too low (ulimit -n, LimitNOFILE=): reducing max \
                connections\" open_files_max=64 needed=283 connections_max=37";
    assert_eq!(log.matches(told).count(), 1, "{log}");
    assert_eq!(log.matches(" level=WARN ").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_limit_is_raised_as_far_as_needed() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("soft-limit");
    let daemon = daemon_under(&["prlimit", "--nofile=64:"], &folder, &api);
    let scrape = scrape(daemon.address().await).await;
    assert_eq!(scrape.get("process_max_fds"), Some(283.0));
    assert!(!daemon.log().contains(" level=WARN "), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_file_left_it_waits_and_recovers() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("no-files");
    let daemon = daemon_under(&["prlimit", "--nofile=16"], &folder, &api);
    let address = daemon.address().await;
    // Sixteen are enough to poll and to serve one at a time.
    daemon.logs("listed keys for the first time").await;
    daemon
        .logs("level=WARN msg=\"open-file limit too low")
        .await;
    let before = scrape(address).await;
    assert_eq!(before.account("up"), Some(1.0));
    let limit = |soft: &str| {
        let status = Command::new("prlimit")
            .args(["--pid", &daemon.pid().to_string()])
            .arg(format!("--nofile={soft}:"))
            .status();
        assert!(status.unwrap().success());
    };
    // Fewer than are open already.
    limit("5");
    let start = Instant::now();
    let waiting: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    daemon.logs("cannot accept connections").await;
    daemon.logs("listing keys failed").await;
    let log = daemon.log();
    let told = "reason=internal error=\"the limit of open files is reached (ulimit -n, \
                LimitNOFILE=): cannot read token file ";
    assert!(log.contains(told), "{log}");
    limit("16");
    drop(waiting);
    let took = start.elapsed().as_secs_f64();
    let after = scrape(address).await;
    assert_eq!(after.key_ids(), ["a"]);
    assert_eq!(after.failures("credential"), 0.0);
    let failed = rejected(&after, "accept_failed");
    // 50 ms, 100 ms and so on to a second: four in the first second, then one each.
    assert!(failed <= took + 5.0, "{failed} in {took} s");
    let used = cpu(&after) - cpu(&before);
    assert!(used < 0.1 * took + 0.1, "{used} s in {took} s, unoptimised");
    let polled = api.requests().len();
    until(|| api.requests().len() > polled).await;
    daemon.logs("listing keys succeeded again").await;
    let warnings = daemon.log().matches("cannot accept connections").count();
    assert_eq!(warnings, 1, "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn five_tasks_are_enough_and_fewer_are_told() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("tasks");
    // Longer than tokio keeps an idle thread unless it is told to: the next poll needs one too.
    let slow = ("API_KEY_EXPORTER__POLL__INTERVAL", "12s");
    let daemon = for_anybody(&folder, &api.url());
    let user = nobody();
    let limited = |tasks: &str| {
        let limit = ["prlimit".to_owned(), format!("--nproc={tasks}")];
        let mut command = wrapped(&[limit.into(), user.clone()].concat(), &daemon);
        command.env(slow.0, slow.1);
        // What a machine with many cores would come to.
        command.env("TOKIO_WORKER_THREADS", "64");
        command
    };
    let output = limited("4").output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    let expected = "api-key-exporter: cannot start 4 threads; allow more (TasksMax=, ulimit -u): \
                    Resource temporarily unavailable (os error 11)\n";
    assert_eq!((words.as_str(), output.status.code()), (expected, Some(1)));
    let daemon = Daemon::start(limited("5"), &folder);
    let address = daemon.address().await;
    until(|| api.requests().len() == 1).await;
    // From now on it gets no thread that it does not have.
    let pid = daemon.pid().to_string();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid, "--nproc=4"]);
    let status = wrapped(&user, &prlimit).status();
    assert!(status.unwrap().success());
    until(|| api.requests().len() == 2).await;
    let scrape = scrape(address).await;
    assert_eq!(scrape.get("process_threads"), Some(5.0));
    assert_eq!(scrape.account("up"), Some(1.0));
    let panics = "api_key_exporter_task_panics_total{task=\"poller\"}";
    assert_eq!(scrape.get(panics), Some(0.0));
    // Everybody can read its token file, which is reported once and not at each poll.
    let told = "every user of this machine can read the token of account";
    assert_eq!(daemon.log().matches(told).count(), 1, "{}", daemon.log());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_twentieth_of_a_core_it_answers_and_feeds_the_watchdog() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("starved");
    let socket = folder.0.join("notify");
    let supervisor = UnixDatagram::bind(&socket).unwrap();
    supervisor.set_nonblocking(true).unwrap();
    let daemon = binary(&["--config.file", &config_file(&folder, &api.url())]);
    // Against two that never rest, the weight of this one is a twentieth of the whole.
    let starved = ["taskset", "--cpu-list", "0", "nice", "-n", "10"];
    let mut command = wrapped(&starved, &daemon);
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "2000000");
    let daemon = Daemon::start(command, &folder);
    let address = daemon.address().await;
    let busy = ["--cpu-list", "0", "sh", "-c", "while :; do :; done"];
    let hogs: Vec<Hog> = (0..2)
        .map(|_| Hog(Command::new("taskset").args(busy).spawn().unwrap()))
        .collect();
    let start = Instant::now();
    let mut took = Vec::new();
    while start.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        scrape(address).await;
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(hogs);
    let mut pings = 0;
    let mut message = [0; 1024];
    while let Ok(length) = supervisor.recv(&mut message) {
        pings += usize::from(message[..length].starts_with(b"WATCHDOG=1"));
    }
    took.sort_unstable();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
    // The worst of them waited for the tests beside it too.
    assert!(middle < Duration::from_secs(1), "{took:?}");
    assert!(most < Duration::from_secs(5), "{took:?}");
    assert!(pings >= 3, "{pings} pings in {:?}", start.elapsed());
}

/// Something that keeps a processor busy until it is dropped.
struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Runs its arguments as nobody in a root that holds nothing but libraries and the test's folder:
/// read-only, no `/tmp`, no home, no `/proc`, no `/etc`, no `/dev`.
const BARE_ROOT: &str = r#"
set -e
root=$1; shift
mount -t tmpfs none "$root"
for folder in /lib /lib64 /usr/lib "$(dirname "$1")" "$root-shared"; do
  [ -e "$folder" ] || continue
  mkdir -p "$root$folder"
  mount --rbind "$folder" "$root$folder"
done
mount -o remount,ro "$root"
exec chroot --userspec=65534:65534 --groups= "$root" "$@"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_neither_proc_nor_tmp_nor_a_home_nor_etc() {
    let api = Api::start(listing(&["a"])).await;
    let root = Folder::new("bare");
    let shared = Folder::new("bare-shared");
    let config = config_file(&shared, &api.url());
    let own = shared.0.join("token");
    std::os::unix::fs::chown(own, Some(65534), Some(65534)).unwrap();
    let daemon = binary(&["--config.file", &config]);
    let place = root.0.display().to_string();
    let bare = ["unshare", "-m", "sh", "-c", BARE_ROOT, "sh", &place];
    let daemon = Daemon::start(wrapped(&bare, &daemon), &shared);
    let address = daemon.address().await;
    daemon.logs("listed keys for the first time").await;
    let scrape = scrape(address).await;
    assert_eq!(scrape.key_ids(), ["a"]);
    assert_eq!(scrape.of("process_").len(), 0, "there is no /proc");
    assert!(scrape.get("api_key_exporter_http_connections") >= Some(1.0));
    assert!(!daemon.log().contains(" level=WARN "), "{}", daemon.log());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_memory_is_nobodys_and_never_dumped() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("private");
    let user = nobody();
    let dumping = ["prlimit", "--core=unlimited"].map(str::to_owned);
    let dumping = [dumping.into(), user.clone()].concat();
    let mut command = wrapped(&dumping, &for_anybody(&folder, &api.url()));
    command.current_dir(&folder.0);
    let daemon = Daemon::start(command, &folder);
    let scrape = scrape(daemon.address().await).await;
    // It can still tell of itself.
    assert_eq!(scrape.of("process_").len(), 7);
    for file in ["environ", "maps", "auxv"] {
        let mut read = Command::new("head");
        read.args(["-c1", &format!("/proc/{}/{file}", daemon.pid())]);
        let output = wrapped(&user, &read).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(words.contains("Permission denied"), "{file}: {words}");
    }
    daemon.signal("-ABRT");
    let status = daemon.status();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
    let unit = in_repository("deploy/systemd/api-key-exporter.service");
    let unit = fs::read_to_string(unit).unwrap();
    assert!(unit.lines().any(|line| line == "LimitCORE=0"));
}
