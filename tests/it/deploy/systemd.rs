//! The systemd units, judged by systemd's own tools, and sockets handed over as systemd does.

mod container;
mod lifecycle;

use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use api_key_exporter::fake_api::Reply;

use super::{defaults, read};
use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Folder, any_port, client, in_repository};
use crate::tools::{Said, ask, debian};

const PROGRAM: &str = "/usr/local/bin/api-key-exporter";
const SERVICE: &str = "deploy/systemd/api-key-exporter.service";
const SOCKET: &str = "deploy/systemd/api-key-exporter.socket";

/// The value of a unit's option that is there once.
fn option(unit: &str, name: &str) -> String {
    let text = read(unit);
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{unit}: no {name}"));
    assert_eq!(values.next(), None, "{unit}: {name} twice");
    value.to_owned()
}

/// `systemd-analyze verify` of both units, with the program where it was built.
fn verify(folder: &Folder, service: &str) -> Said {
    let service = service.replace(PROGRAM, env!("CARGO_BIN_EXE_api-key-exporter"));
    let mut command = debian("systemd-analyze");
    command
        .arg("verify")
        .arg(folder.file("api-key-exporter.service", &service))
        .arg(folder.file("api-key-exporter.socket", &read(SOCKET)));
    ask(&mut command)
}

#[test]
fn systemd_verifies_the_units_in_silence() {
    let folder = Folder::new("units");
    let said = verify(&folder, &read(SERVICE));
    assert!(said.is_content && said.words.is_empty(), "{}", said.words);
    // It exits 0 for a misspelled option, so that silence is the test.
    let misspelled = read(SERVICE).replace("WatchdogSec=", "WatchdogSeconds=");
    assert!(
        verify(&folder, &misspelled)
            .words
            .contains("WatchdogSeconds")
    );
}

#[test]
fn the_service_is_exposed_no_more_than_1_1() {
    let score = |threshold: &str| {
        let mut command = debian("systemd-analyze");
        command
            .args(["security", "--offline=true", "--no-pager", threshold])
            .arg(in_repository(SERVICE));
        ask(&mut command)
    };
    // In tenths.
    let said = score("--threshold=11");
    assert!(said.is_content, "{}", said.words);
    assert!(
        !score("--threshold=1").is_content,
        "the check cannot say no"
    );
}

#[test]
fn the_units_say_what_the_program_does() {
    let config = defaults();
    let listen = config.web.listen_addresses[0].to_string();
    assert_eq!(option(SOCKET, "ListenStream"), listen);
    assert_eq!(option(SERVICE, "ExecStart"), format!("{PROGRAM} $ARGS"));
    assert_eq!(option(SERVICE, "RestartPreventExitStatus"), "2");
    let stop = option(SERVICE, "TimeoutStopSec");
    let stop = humantime::parse_duration(&stop).unwrap();
    assert!(stop > config.web.shutdown_grace, "{stop:?}");
    let files: usize = option(SERVICE, "LimitNOFILE").parse().unwrap();
    assert!(files > 2 * config.web.max_connections, "{files}");
    let readme = read("deploy/systemd/README.md");
    let address = format!("http://{listen}{}", config.web.paths.telemetry);
    assert!(readme.contains(&address), "{address}");
    for path in [PROGRAM, "/etc/api-key-exporter/bitgpt", SERVICE, SOCKET] {
        assert!(readme.contains(path), "{path}");
    }
    assert!(read(SERVICE).contains(":/etc/api-key-exporter/bitgpt\n"));
    // "Five commands."
    let commands = readme.lines().skip_while(|line| !line.starts_with("    "));
    assert_eq!(
        commands.take_while(|line| line.starts_with("    ")).count(),
        5
    );
}

/// The exporter, started by `systemd-socket-activate` with these arguments.
async fn activated(folder: &Folder, api: &Api, arguments: &[&str]) -> Daemon {
    let config = config_file(folder, &api.url());
    let mut command = debian("systemd-socket-activate");
    command
        .args(arguments)
        .arg(env!("CARGO_BIN_EXE_api-key-exporter"))
        .args(["--web.systemd-socket", "--config.file", &config]);
    let daemon = Daemon::start(command, folder);
    daemon.logs("Listening on").await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_on_the_sockets_that_systemd_hands_over() {
    let folder = Folder::new("socket-activation");
    let api = Api::start(Reply::listing(&[])).await;
    // A port that was free a moment ago; systemd-socket-activate does not say which it took.
    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let daemon = activated(&folder, &api, &["--listen", &free.to_string()]).await;
    // The first connection starts the program, and waits for it in the socket's queue.
    let url = format!("http://{free}/metrics");
    let response = client().get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(daemon.address().await, free);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_adopts_unix_sockets_beside_tcp_sockets_and_leaves_their_files() {
    let folder = Folder::new("unix-activation");
    let api = Api::start(Reply::listing(&[])).await;
    let path = folder.0.join("web.sock").display().to_string();
    let name = format!("@{path}");
    let free = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let listen = ["-l", &path, "-l", &free.to_string(), "-l", &name];
    let daemon = activated(&folder, &api, &listen).await;
    for socket in [
        ["--unix-socket", &path],
        ["--abstract-unix-socket", &path],
        ["--max-time", "20"],
    ] {
        let mut curl = debian("curl");
        curl.args(["--silent", "--show-error", "--fail"])
            .args(socket)
            .arg(format!("http://{free}/-/healthy"));
        let said = ask(&mut curl);
        assert_eq!(said.words, "api-key-exporter is healthy.\n", "{socket:?}");
    }
    for url in [
        format!("unix:{path}/metrics"),
        format!("http://{free}/metrics"),
        format!("unix:{name}/metrics"),
    ] {
        assert!(daemon.log().contains(&url), "{url}:\n{}", daemon.log());
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
    // The file belongs to systemd, which keeps the socket open for the next start.
    assert!(Path::new(&path).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_does_not_listen_is_refused() {
    let api = Api::start(Reply::listing(&[])).await;
    for (name, mode) in [("connection", "--accept"), ("datagrams", "--datagram")] {
        let folder = Folder::new(name);
        let path = folder.0.join("web.sock");
        let daemon = activated(&folder, &api, &[mode, "-l", path.to_str().unwrap()]).await;
        if mode == "--accept" {
            drop(UnixStream::connect(&path).unwrap());
        } else {
            let client = UnixDatagram::unbound().unwrap();
            client.send_to(b"hello", &path).unwrap();
        }
        let words = "socket number 0 is not a listening TCP or Unix stream socket";
        daemon.logs(words).await;
        if mode == "--datagram" {
            assert_eq!(daemon.ended().0, Some(1));
        }
    }
}

#[test]
fn without_a_socket_from_systemd_it_says_so_and_exits_1() {
    let mut command: Command = binary(&["--web.systemd-socket"]);
    let said = ask(command.env("BITGPT_API_KEY", crate::support::TOKEN));
    assert!(!said.is_content);
    let expected = "--web.systemd-socket: systemd handed over no socket";
    assert!(said.words.contains(expected), "{}", said.words);
}
