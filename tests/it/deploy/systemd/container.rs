//! A container with a systemd manager of its own, which runs the shipped units and the real binary.
//!
//! Its network has only loopback. Port 8080 in it leads to the test's fake API.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;

use crate::support::{Api, Folder, Scrape, TOKEN, in_repository};
use crate::tools::{Said, ask};

/// The fake API, as the exporter in the container reaches it.
pub(super) const API_URL: &str = "http://127.0.0.1:8080";

/// The credential of the unit, as it is mounted on every version of systemd.
pub(super) const CREDENTIAL: &str = "/run/credentials/api-key-exporter.service/bitgpt";

/// Longer than anything in the container should take, because machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// From this version on, systemd does not start with version 1 of control groups.
const FIRST_WITHOUT_CGROUP_V1: u32 = 256;

/// A host with version 1 of control groups has the memory controller here.
const MEMORY_V1: &str = "/sys/fs/cgroup/memory";

/// Starts the container, on a host with version 1 of control groups in a memory group of its own.
const BOOT: &str = r#"group=$1; shift
if [ -n "$group" ]; then
  mkdir "$group" && echo $$ >"$group/cgroup.procs" || exit
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=0
fi
exec systemd-nspawn "$@""#;

/// Version 1 of control groups is mounted read-only in a container. Its memory group is its own, so
/// make that writable, and let the manager find out.
const USE_MEMORY_V1: &str =
    "mount -o remount,bind,rw /sys/fs/cgroup/memory && systemctl daemon-reexec";

/// Carries port 8080 to the Unix socket of the fake API.
const API_SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:8080\n";
const API_SERVICE: &str = "[Service]\nExecStart=/lib/systemd/systemd-socket-proxyd /run/test/api\n";

/// A running container. It is powered off and leaves nothing behind when dropped.
pub(super) struct Container {
    nspawn: Child,
    /// The manager, process 1 of the container.
    leader: u32,
    /// The memory group on a host with version 1 of control groups.
    memory_v1: Option<PathBuf>,
    folder: Folder,
    carrying: JoinHandle<()>,
}

impl Container {
    /// Boots it with the shipped units and the token installed, and nothing started.
    pub(super) async fn boot(name: &str, api: &Api) -> Self {
        let root = root();
        assert!(
            root.join("bin/systemctl").exists(),
            "no system with systemd in {}: tests/run makes it with mmdebstrap, as root or with sudo",
            root.display()
        );
        let folder = Folder::new(name);
        let carrying = carry(&folder.0.join("api"), api);
        let machine = format!("api-key-exporter-{}-{name}", std::process::id());
        let has_memory_v1 =
            Path::new(MEMORY_V1).exists() && version(&root) < FIRST_WITHOUT_CGROUP_V1;
        let memory_v1 = has_memory_v1.then(|| Path::new(MEMORY_V1).join(&machine));
        let log = fs::File::create(folder.0.join("boot.log")).unwrap();
        let bind = |from: &Path, to: &str| format!("--bind-ro={}:{to}", from.display());
        let unit = |name: &str| {
            bind(
                &in_repository("deploy/systemd").join(name),
                &format!("/etc/systemd/system/{name}"),
            )
        };
        let nspawn = as_root("sh")
            .args(["-c", BOOT, "sh"])
            .arg(memory_v1.as_deref().unwrap_or(Path::new("")))
            .args(["--boot", "--register=no", "--private-network"])
            // No file of the system changes, so that several containers can share it.
            .args(["--volatile=overlay", "--read-only", "--console=read-only"])
            // A manager of the host owns the control groups; without one, stay in the present.
            .args((!Path::new("/run/systemd/system").exists()).then_some("--keep-unit"))
            .arg(format!("--machine={machine}"))
            .arg(format!("--directory={}", root.display()))
            .arg(bind(&program(), "/usr/local/bin/api-key-exporter"))
            .arg(unit("api-key-exporter.service"))
            .arg(unit("api-key-exporter.socket"))
            .arg(bind(&folder.0, "/run/test"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut container = Self {
            nspawn,
            leader: 0,
            memory_v1,
            folder,
            carrying,
        };
        container.wait_for_boot().await;
        if container.memory_v1.is_some() {
            container.demand(USE_MEMORY_V1);
        }
        container.write("/etc/systemd/system/api.socket", 0o644, API_SOCKET);
        container.write("/etc/systemd/system/api.service", 0o644, API_SERVICE);
        container.write("/etc/api-key-exporter/bitgpt", 0o600, &format!("{TOKEN}\n"));
        container.demand("systemctl daemon-reload && systemctl start api.socket");
        container
    }

    async fn wait_for_boot(&mut self) {
        let start = Instant::now();
        let mut state = String::new();
        while !["running", "degraded"].contains(&state.trim()) {
            let log = fs::read_to_string(self.folder.0.join("boot.log")).unwrap();
            let ended = self.nspawn.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "systemd-nspawn cannot boot a container here ({ended:?}): it needs root, and a kernel \
                 that allows namespaces, overlayfs and control groups\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(leader) = manager_below(self.nspawn.id()) {
                self.leader = leader;
                state = self.run("systemctl is-system-running").stdout;
            }
        }
    }

    /// Runs a shell command in the container, as root.
    pub(super) fn command(&self, line: &str) -> Command {
        let mut command = as_root("nsenter");
        command
            .args(["--target", &self.leader.to_string(), "--all"])
            .args(["sh", "-c", line])
            .stdin(Stdio::null());
        command
    }

    pub(super) fn run(&self, line: &str) -> Said {
        ask(&mut self.command(line))
    }

    /// Runs a shell command that must succeed, and returns its output without the last line break.
    pub(super) fn demand(&self, line: &str) -> String {
        let said = self.run(line);
        assert!(
            said.is_content,
            "{line}:\n{}\n{}",
            said.words,
            self.journal_text()
        );
        said.stdout.trim_end().to_owned()
    }

    pub(super) fn write(&self, path: &str, mode: u32, content: &str) {
        let line = format!(
            "umask 077; mkdir -p $(dirname {path}) && cat >{path} && chmod {mode:o} {path}"
        );
        let mut child = self.command(&line).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(content.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "{path}");
    }

    /// Writes the configuration file and the flags of the service. The account's lines come last.
    pub(super) fn configure(&self, flags: &str, config: &str) {
        let account = format!(
            "{config}\n[[accounts]]\nbase_url = \"{API_URL}\"\ntoken_file = \"{CREDENTIAL}\"\n"
        );
        // Readable by every user, as the README demands.
        self.demand("chmod 755 /etc/api-key-exporter");
        self.write("/etc/api-key-exporter/config.toml", 0o644, &account);
        let flags = format!("ARGS=--config.file /etc/api-key-exporter/config.toml {flags}\n");
        self.write("/etc/default/api-key-exporter", 0o644, &flags);
    }

    /// Changes options of the service, such as its timeouts, by a drop-in.
    pub(super) fn drop_in(&self, options: &str) {
        let path = "/run/systemd/system/api-key-exporter.service.d/test.conf";
        self.write(path, 0o644, &format!("[Service]\n{options}\n"));
        self.demand("systemctl daemon-reload");
    }

    /// A property of the service, as `systemctl show` prints it.
    pub(super) fn show(&self, property: &str) -> String {
        self.demand(&format!(
            "systemctl show --property={property} --value api-key-exporter.service"
        ))
    }

    /// The page of a path, from inside; empty if there is none.
    pub(super) fn get(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:{}{path}", super::super::port());
        self.run(&format!("curl --silent --fail --max-time 20 {url}"))
            .stdout
    }

    pub(super) fn scrape(&self) -> Scrape {
        Scrape::parse(&self.get("/metrics"))
    }

    /// Waits until `condition` holds.
    pub(super) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(
                start.elapsed() < PATIENCE,
                "not in {PATIENCE:?}: {what}\n{}",
                self.journal_text()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the journal has of the service: its own lines, and the manager's about it.
    pub(super) fn journal(&self) -> Vec<Value> {
        let line = "journalctl --sync; journalctl --unit=api-key-exporter --output=json --no-pager";
        self.run(line)
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(super) fn journal_text(&self) -> String {
        self.run("journalctl --sync; journalctl --no-pager --lines=100")
            .stdout
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.carrying.abort();
        // Not waited for: the manager stops all processes before it kills them, this one included.
        let poweroff = (self.leader != 0).then(|| {
            let mut command = self.command("systemctl poweroff --force");
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        let start = Instant::now();
        while matches!(self.nspawn.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(20) {
                drop(self.nspawn.kill());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        if let Some(Ok(mut poweroff)) = poweroff {
            drop(poweroff.kill());
            drop(poweroff.wait());
        }
        if let Some(group) = &self.memory_v1 {
            let mut command = as_root("find");
            command
                .arg(group)
                .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", ";"]);
            drop(command.output());
        }
    }
}

/// The system that containers boot: the host's own Debian release, or the one that `tests/systemd`
/// was asked for.
fn root() -> PathBuf {
    let suite = std::env::var("API_KEY_EXPORTER_TEST_SUITE").unwrap_or_else(|_| {
        let release = fs::read_to_string("/etc/os-release").unwrap();
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        name.unwrap_or("unknown").to_owned()
    });
    in_repository("target/systemd").join(suite)
}

/// The binary, or a static one where the system's C library is older than the host's.
fn program() -> PathBuf {
    std::env::var_os("API_KEY_EXPORTER_TEST_BINARY").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_api-key-exporter")),
        PathBuf::from,
    )
}

/// The major version of systemd in the system.
fn version(root: &Path) -> u32 {
    let status = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
    let (_, package) = status.split_once("Package: systemd\n").unwrap();
    let (_, version) = package.split_once("\nVersion: ").unwrap();
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    major.parse().unwrap()
}

/// Accepts connections on a Unix socket and carries them to the fake API.
fn carry(socket: &Path, api: &Api) -> JoinHandle<()> {
    let door = UnixListener::bind(socket).unwrap();
    let address = api.address();
    tokio::spawn(async move {
        loop {
            let (mut inside, _) = door.accept().await.unwrap();
            tokio::spawn(async move {
                let mut api = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut api).await
            });
        }
    })
}

/// The container's process 1: the first descendant that runs systemd.
fn manager_below(mut pid: u32) -> Option<u32> {
    loop {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        pid = children.split_whitespace().next()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if name == "systemd\n" {
            return Some(pid);
        }
    }
}

/// A command that needs root.
fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}
