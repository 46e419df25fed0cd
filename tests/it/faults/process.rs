//! Process, logs and supervisor, with the real binary.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::Reply;

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Folder, Scrape, listing};

/// What the daemon tells its supervisor, message by message.
struct Supervisor(UnixDatagram);

impl Supervisor {
    fn new(folder: &Folder) -> (Self, String) {
        let path = folder.0.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        (Self(socket), path.display().to_string())
    }

    fn next(&self) -> String {
        let mut message = [0; 1024];
        let length = self.0.recv(&mut message).expect("a message in time");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    fn until(&self, start: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_every_step() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("notify");
    let (supervisor, socket) = Supervisor::new(&folder);
    let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
    command.env("NOTIFY_SOCKET", &socket);
    let daemon = Daemon::start(command, &folder);
    supervisor.until("READY=1");
    // Whoever is told that it is ready can connect.
    assert!(daemon.get("/-/healthy").await.contains("healthy"));
    let status = supervisor.until("STATUS=");
    assert!(
        status.contains("keys of 1 accounts; 0 accounts failing"),
        "{status}"
    );
    daemon.signal("-HUP");
    let reloading = supervisor.until("RELOADING=1");
    let (_, at) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_once(' ').unwrap().0.parse().unwrap();
    let at = at.parse::<f64>().unwrap() / 1e6;
    assert!(at > 0.0 && at <= uptime + 1.0, "{at} of {uptime}");
    supervisor.until("READY=1");
    daemon.signal("-TERM");
    supervisor.until("STOPPING=1");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_it_lives_and_not_while_it_is_stuck() {
    // The API does not matter to the watchdog.
    let api = Api::start(Reply::error(500, "no", "support_1")).await;
    let folder = Folder::new("watchdog");
    let (supervisor, socket) = Supervisor::new(&folder);
    let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "400000");
    let daemon = Daemon::start(command, &folder);
    let start = Instant::now();
    for _ in 0..10 {
        supervisor.until("WATCHDOG=1");
    }
    assert!(
        start.elapsed() > Duration::from_millis(1_500),
        "twice a period, no more"
    );
    daemon.signal("-STOP");
    let silence = Duration::from_secs(2);
    supervisor.0.set_read_timeout(Some(silence)).unwrap();
    // What was on its way may still come.
    while supervisor.0.recv(&mut [0; 1024]).is_ok() {}
    daemon.signal("-CONT");
    supervisor
        .0
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    supervisor.until("WATCHDOG=1");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_that_is_for_another_process_is_not_fed() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("others-watchdog");
    let (supervisor, socket) = Supervisor::new(&folder);
    let mut command = binary(&["--config.file", &config_file(&folder, &api.url())]);
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .env("WATCHDOG_PID", "1");
    let daemon = Daemon::start(command, &folder);
    supervisor.until("STATUS=");
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.signal("-TERM");
    let mut messages = vec![supervisor.next()];
    while !messages.last().unwrap().starts_with("STOPPING=1") {
        messages.push(supervisor.next());
    }
    assert!(
        !messages
            .iter()
            .any(|message| message.starts_with("WATCHDOG")),
        "{messages:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_reader_that_stalls_holds_nothing_up() {
    let api = Api::start(Reply::error(500, "no", "support_1")).await;
    let folder = Folder::new("stalled");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let mut child = binary(&["--config.file", &config_file(&folder, &api.url())])
        .args(["--web.listen-address", &address, "--log.level", "trace"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let dropped = "api_key_exporter_log_lines_dropped_total";
    let start = Instant::now();
    let mut lost = 0.0;
    // Nobody reads the pipe; every request that breaks off adds a line to the log.
    while lost == 0.0 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no line was dropped"
        );
        for _ in 0..200 {
            if let Ok(mut stream) = std::net::TcpStream::connect(&address) {
                drop(std::io::Write::write_all(&mut stream, b"nonsense\r\n\r\n"));
            }
        }
        let asked = Instant::now();
        let Ok(response) = crate::support::client()
            .get(format!("http://{address}/metrics"))
            .send()
            .await
        else {
            continue;
        };
        let scrape = Scrape::parse(&response.text().await.unwrap());
        assert!(
            asked.elapsed() < Duration::from_secs(2),
            "{:?}",
            asked.elapsed()
        );
        lost = scrape.get(dropped).unwrap();
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_log_level_exits_2_and_names_it() {
    let output = binary(&["--log.level", "loud"])
        .env("BITGPT_API_KEY", crate::support::TOKEN)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("log.level = \"loud\" (flag --log.level)"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_pause_there_is_one_poll_and_no_backlog() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("paused");
    let config = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &config]), &folder);
    daemon.logs("listed keys for the first time").await;
    daemon.signal("-STOP");
    // Three polls would have come.
    tokio::time::sleep(Duration::from_secs(16)).await;
    let asked = api.requests().len();
    daemon.signal("-CONT");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(api.requests().len(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_the_first_process_of_a_container_it_hears_signals() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("first");
    let daemon = binary(&["--config.file", &config_file(&folder, &api.url())]);
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-pf", "--mount-proc", "--kill-child"])
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .env_clear()
        .stdin(Stdio::null());
    let daemon = Daemon::start(command, &folder);
    daemon.logs("listed keys for the first time").await;
    daemon.signal_all("-HUP");
    daemon.logs("reloaded the configuration").await;
    daemon.signal_all("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}
