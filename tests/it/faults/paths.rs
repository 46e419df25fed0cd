//! Paths in the configuration that are not regular files: at the start, at a reload, and while the
//! exporter runs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, Scrape, TOKEN, listing};

const KINDS: [&str; 8] = [
    "a pipe",
    "a folder",
    "a device",
    "an endless device",
    "a huge file",
    "a link to itself",
    "a socket",
    "nothing",
];

/// Puts something of this kind where a file should be.
fn put(kind: &str, path: &Path) {
    if path.symlink_metadata().is_ok_and(|file| file.is_dir()) {
        fs::remove_dir_all(path).unwrap();
    } else {
        drop(fs::remove_file(path));
    }
    match kind {
        "a pipe" => {
            let status = Command::new("mkfifo").arg(path).status();
            assert!(status.unwrap().success());
        }
        "a folder" => fs::create_dir(path).unwrap(),
        "a device" => symlink("/dev/null", path).unwrap(),
        "an endless device" => symlink("/dev/zero", path).unwrap(),
        // Without blocks on the disk.
        "a huge file" => File::create(path).unwrap().set_len(1 << 36).unwrap(),
        "a link to itself" => symlink(path, path).unwrap(),
        "a socket" => drop(UnixListener::bind(path).unwrap()),
        _ => {}
    }
}

/// A configuration of which all paths are regular files.
struct Paths {
    folder: Folder,
}

impl Paths {
    fn new(name: &str, api: &Api) -> Self {
        let folder = Folder::new(name);
        let path = |name: &str| folder.0.join(name).display().to_string();
        for name in ["cert", "key", "ca"] {
            fs::write(folder.0.join(name), "").unwrap();
        }
        let (cert, key) = (path("cert"), path("key"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-keyout",
                &key,
                "-out",
                &cert,
                "-days",
                "3",
                "-subj",
                "/CN=localhost",
            ])
            .output()
            .unwrap();
        assert!(made.status.success());
        fs::copy(&cert, path("ca")).unwrap();
        let this = Self { folder };
        for name in ["token", "inventory.toml", "web.yml"] {
            this.heal(name);
        }
        let mut text = format!(
            "inventory_file = {:?}\nweb.config_file = {:?}\nweb.listen_addresses = [\"127.0.0.1:0\"]\n\
             poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\n",
            path_in(&this, "inventory.toml"),
            path_in(&this, "web.yml"),
        );
        for (account, lines) in [
            (
                "by-file",
                format!("token_file = {:?}\n", path_in(&this, "token")),
            ),
            (
                "by-ca",
                format!(
                    "token_env = \"TOKEN\"\nca_file = {:?}\n",
                    path_in(&this, "ca")
                ),
            ),
            ("other", "token_env = \"TOKEN\"\n".to_owned()),
        ] {
            let url = api.url();
            write!(
                text,
                "[[accounts]]\nname = {account:?}\nbase_url = {url:?}\n{lines}"
            )
            .unwrap();
        }
        this.folder.file("config.toml", &text);
        this
    }

    /// Makes one of the files regular again.
    fn heal(&self, name: &str) {
        put("nothing", &self.folder.0.join(name));
        let text = match name {
            "token" => TOKEN,
            "web.yml" => "http_server_config:\n  headers: {}\n",
            _ => "",
        };
        let path = self.folder.file(name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = binary(&["--config.file", &path_in(self, "config.toml")]);
        command.env("TOKEN", TOKEN);
        command
    }
}

fn path_in(paths: &Paths, name: &str) -> String {
    paths.folder.0.join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_is_anything_but_a_regular_file_at_the_start() {
    let api = Api::start(listing(&["a"])).await;
    let paths = Paths::new("paths-start", &api);
    let tls = format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n  client_ca_file: {}\n  \
         client_auth_type: RequireAndVerifyClientCert\n",
        path_in(&paths, "cert"),
        path_in(&paths, "key"),
        path_in(&paths, "ca"),
    );
    for name in [
        "config.toml",
        "token",
        "inventory.toml",
        "ca",
        "web.yml",
        "cert",
        "key",
    ] {
        if ["cert", "key"].contains(&name) {
            paths.folder.file("web.yml", &tls);
        }
        let path = paths.folder.0.join(name);
        let good = fs::read(&path).unwrap();
        for kind in KINDS {
            put(kind, &path);
            let start = Instant::now();
            let mut check = paths.command();
            check.args(["config", "check"]);
            let output = check.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{name} is {kind}: {said}");
            assert!(
                said.contains(&*path.to_string_lossy()),
                "{name} is {kind}: {said}"
            );
            let took = start.elapsed();
            assert!(took < Duration::from_secs(4), "{name} is {kind}: {took:?}");
        }
        put("nothing", &path);
        fs::write(&path, good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let output = paths.command().args(["config", "check"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_becomes_something_else_harms_nothing_else_and_heals() {
    let api = Api::start(listing(&["a"])).await;
    let paths = Paths::new("paths-running", &api);
    let daemon = Daemon::start(paths.command(), &paths.folder);
    let up = |account: &str| format!("api_key_account_up{{account=\"{account}\"}}");
    let failing = "api_key_account_failing{account=\"by-file\",reason=\"credential\"}";
    let all_up = |scrape: &Scrape| {
        let accounts = ["by-file", "by-ca", "other"];
        accounts
            .iter()
            .all(|account| scrape.get(&up(account)) == Some(1.0))
    };
    daemon.until("all are up", all_up).await;
    let successful = "api_key_exporter_config_last_reload_successful";
    let config = fs::read_to_string(paths.folder.0.join("config.toml")).unwrap();
    for kind in ["a pipe", "an endless device", "a huge file", "a folder"] {
        put(kind, &paths.folder.0.join("token"));
        let is_failing = |scrape: &Scrape| scrape.get(failing) == Some(1.0);
        let scrape = daemon.until("the account fails", is_failing).await;
        assert_eq!(scrape.get(&up("other")), Some(1.0), "{kind}");
        assert_eq!(scrape.of("api_key_info{").len(), 3, "{kind}");
        paths.heal("token");
        daemon.until("all are up again", all_up).await;
        for name in ["inventory.toml", "config.toml"] {
            put(kind, &paths.folder.0.join(name));
            daemon.signal("-HUP");
            let failed = |scrape: &Scrape| scrape.get(successful) == Some(0.0);
            let scrape = daemon.until("the reload fails", failed).await;
            assert!(all_up(&scrape), "{name} is {kind}");
            paths.heal(name);
            if name == "config.toml" {
                paths.folder.file(name, &config);
            }
            daemon.signal("-HUP");
            let reloaded = |scrape: &Scrape| scrape.get(successful) == Some(1.0);
            daemon.until("the reload succeeds", reloaded).await;
        }
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_of_odd_files_costs_no_poll() {
    let api = Api::start(listing(&["a"])).await;
    for kind in KINDS.into_iter().filter(|kind| *kind != "nothing") {
        for (name, is_whole) in [("state", true), ("state/lock", false), ("snapshot", false)] {
            let paths = Paths::new("paths-state", &api);
            let state = path_in(&paths, "state");
            let text = fs::read_to_string(paths.folder.0.join("config.toml")).unwrap();
            let text = format!("state.directory = {state:?}\n{text}");
            paths.folder.file("config.toml", &text);
            if !is_whole {
                fs::create_dir(&state).unwrap();
            }
            if name == "snapshot" {
                // One good run tells the names of the files.
                let daemon = Daemon::start(paths.command(), &paths.folder);
                let saved = || {
                    let files = fs::read_dir(&state).unwrap();
                    let files = files.map(|file| file.unwrap().path());
                    let mut snapshots = files.filter(|file| {
                        file.extension()
                            .is_some_and(|extension| extension == "snapshot")
                    });
                    snapshots.next()
                };
                let start = Instant::now();
                while saved().is_none() {
                    assert!(
                        start.elapsed() < Duration::from_secs(20),
                        "{}",
                        daemon.log()
                    );
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                daemon.signal("-TERM");
                assert_eq!(daemon.ended().0, Some(0));
                put(kind, &saved().unwrap());
            } else {
                put(kind, &paths.folder.0.join(name));
            }
            let daemon = Daemon::start(paths.command(), &paths.folder);
            let up = |scrape: &Scrape| scrape.of("api_key_info{").len() == 3;
            daemon
                .until(&format!("polls while {name} is {kind}"), up)
                .await;
            daemon.signal("-TERM");
            let (code, took) = daemon.ended();
            assert_eq!(code, Some(0), "{name} is {kind}");
            assert!(took < Duration::from_secs(5), "{name} is {kind}: {took:?}");
        }
    }
}
