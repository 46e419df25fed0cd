//! A network of a test's own, whose only device is loopback: what is cut, delayed or lost in it
//! hurts nobody else. The fake API and the scraper are outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, in_repository};

/// Where the fake API is, for whoever is inside.
pub(super) const API_URL: &str = "http://localhost:8080";

/// Names are looked up in the room's own files, then at its DNS server. They are put in place
/// before anything can read them.
const SETUP: &str = "set -e; PATH=$PATH:/usr/sbin:/sbin; ip link set lo up
for file in hosts resolv.conf nsswitch.conf; do mount --bind \"$1/$file\" \"/etc/$file\"; done
exec python3 \"$2\" \"$1/api\"";

/// Hands the exporter a listener from outside, as systemd would: descriptor 3, in its own process.
const START: &str = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";

/// The room; it ends with the process that keeps it.
pub(super) struct NetworkNamespace {
    keeper: Child,
    folder: Folder,
    carrying: JoinHandle<()>,
}

impl NetworkNamespace {
    pub(super) fn new(name: &str, api: &Api) -> Self {
        let folder = Folder::new(name);
        folder.file("hosts", "127.0.0.1 localhost\n");
        folder.file("resolv.conf", "nameserver 127.0.0.2\n");
        folder.file("nsswitch.conf", "hosts: files dns\n");
        let door = UnixListener::bind(folder.0.join("api")).unwrap();
        let address = api.address();
        let carrying = tokio::spawn(async move {
            loop {
                let (mut inside, _) = door.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut api = TcpStream::connect(address).await?;
                    tokio::io::copy_bidirectional(&mut inside, &mut api).await
                });
            }
        });
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]);
        if !is_root() {
            command.arg("--map-root-user");
        }
        let mut keeper = command
            .args(["sh", "-c", SETUP, "sh"])
            .arg(&folder.0)
            .arg(in_repository("tests/it/faults/netns.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut words = BufReader::new(keeper.stdout.take().unwrap());
        words.read_line(&mut line).unwrap();
        assert_eq!(
            line, "ready\n",
            "no network namespace: run as root, or where users may make namespaces"
        );
        Self {
            keeper,
            folder,
            carrying,
        }
    }

    /// A program inside.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.id().to_string()]);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(["--net", "--mount", program]);
        command
    }

    /// Runs a command inside, which must succeed.
    pub(super) fn run(&self, line: &str) {
        // Where Debian keeps the tools of administrators.
        let line = format!("PATH=$PATH:/usr/sbin:/sbin; {line}");
        let status = self.command("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    }

    /// Changes one of the room's files.
    pub(super) fn write(&self, name: &str, content: &str) {
        // In its place: another file would not be the one that was mounted.
        fs::write(self.folder.0.join(name), content).unwrap();
    }

    /// Starts an exporter inside that is scraped from outside.
    pub(super) fn exporter(&self, config: &str) -> Daemon {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = self.folder.file("config.toml", config);
        let daemon = binary(&["--web.systemd-socket", "--config.file"]);
        let mut command = self.command("sh");
        command
            .args(["-c", START, "sh"])
            .arg(daemon.get_program())
            .args(daemon.get_args())
            .arg(config)
            .env_clear()
            .env("TOKEN", crate::support::TOKEN)
            .stdin(OwnedFd::from(listener));
        Daemon::start(command, &self.folder)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        self.carrying.abort();
        drop(self.keeper.kill());
        drop(self.keeper.wait());
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
