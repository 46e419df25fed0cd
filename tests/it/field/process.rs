//! What the process survives: an absent API, other tokens, clients that never leave, reloads.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use api_key_exporter::fake_api::Reply;

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Folder, Scrape, TOKEN, any_port, listing};

fn failing(reason: &str) -> String {
    format!("api_key_account_failing{{account=\"default\",reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_and_waits_while_the_api_is_down() {
    let folder = Folder::new("field-down");
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let path = config_file(&folder, &format!("http://{address}"));
    let mut daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let is_failing = |scrape: &Scrape| scrape.get(&failing("connect")) == Some(1.0);
    daemon.until("a failed poll", is_failing).await;
    assert!(daemon.get("/-/ready").await.contains("eady"));
    assert!(!daemon.has_ended());
    let _api = Api::start_at(address, listing(&["a"])).await;
    let is_up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    assert_eq!(daemon.until("a good poll", is_up).await.key_ids(), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_ends_nothing_and_its_replacement_is_used() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-refused");
    let path = config_file(&folder, &api.url());
    folder.file("token", "sk_live_bm90LXRoaXMtb25l.wRoNg");
    let mut daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let refused_twice = |scrape: &Scrape| scrape.failures("unauthorized") >= 2.0;
    let scrape = daemon.until("two refused polls", refused_twice).await;
    assert_eq!(scrape.get(&failing("unauthorized")), Some(1.0));
    assert!(!daemon.has_ended());
    folder.file("token", TOKEN);
    let is_up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    daemon.until("a good poll", is_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_kubernetes_replaces_is_used_without_a_restart() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-kubernetes");
    let path = config_file(&folder, &api.url());
    // A volume of a Secret: `token` -> `..data/token`, `..data` -> a folder that is replaced.
    let version = |name: &str, token: &str| {
        let directory = folder.0.join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("token"), token).unwrap();
        fs::set_permissions(directory.join("token"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink(name, folder.0.join("..data_tmp")).unwrap();
        fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    };
    fs::remove_file(folder.0.join("token")).unwrap();
    version("..1", "sk_live_b2xk.oLdOl");
    symlink("..data/token", folder.0.join("token")).unwrap();
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let refused = |scrape: &Scrape| scrape.get(&failing("unauthorized")) == Some(1.0);
    daemon.until("the old token is refused", refused).await;
    version("..2", TOKEN);
    fs::remove_dir_all(folder.0.join("..1")).unwrap();
    let is_up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    daemon.until("the new token is used", is_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_that_disappears_is_a_metric_and_heals() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-no-file");
    let path = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let is_up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    daemon.until("a good poll", is_up).await;
    fs::remove_file(folder.0.join("token")).unwrap();
    let is_failing = |scrape: &Scrape| scrape.get(&failing("credential")) == Some(1.0);
    let scrape = daemon.until("the failure", is_failing).await;
    assert_eq!(scrape.key_ids(), ["a"]);
    folder.file("token", TOKEN);
    daemon.until("a good poll", is_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_close_use_up_no_file_descriptors() {
    let api = Api::start(Reply::error(500, "no", "support_1")).await;
    let folder = Folder::new("field-descriptors");
    let path = config_file(&folder, &api.url());
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let files = |scrape: &Scrape| scrape.get("process_open_fds").unwrap();
    let failed = |scrape: &Scrape| scrape.failures("server_error") > 0.0;
    let before = files(&daemon.until("a failed poll", failed).await);
    let address = daemon.address().await;
    let mut open = Vec::new();
    for number in 0..200 {
        let mut client = TcpStream::connect(address).unwrap();
        match number % 3 {
            // Gives up in the middle of the answer, and keeps its own end open.
            0 => {
                client
                    .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    .unwrap();
                client.read_exact(&mut [0; 10]).unwrap();
            }
            // Closes its half only.
            1 => client.shutdown(std::net::Shutdown::Write).unwrap(),
            // Says nothing.
            _ => {}
        }
        open.push(client);
    }
    let back = |scrape: &Scrape| {
        files(scrape) <= before + 5.0
            && scrape.get("api_key_exporter_http_connections") <= Some(2.0)
    };
    daemon.until("the descriptors are closed", back).await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_removes_what_the_file_no_longer_has() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-reload");
    let path = config_file(&folder, &api.url());
    let one = fs::read_to_string(&path).unwrap();
    let (_, account) = one.split_once("[[accounts]]").unwrap();
    let second = account.replace("\"default\"", "\"leaving\"");
    folder.file("config.toml", &format!("{one}[[accounts]]{second}"));
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let both = |scrape: &Scrape| scrape.of("api_key_info{").len() == 2;
    daemon.until("both accounts", both).await;
    folder.file("config.toml", &one);
    daemon.signal("-HUP");
    let one_left = |scrape: &Scrape| scrape.of("api_key_info{").len() == 1;
    daemon.until("one account", one_left).await;
    let text = daemon.get("/metrics").await;
    assert!(!text.contains("leaving"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_the_earlier_file_is_a_success_again() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-reload-back");
    let path = config_file(&folder, &api.url());
    let good = fs::read_to_string(&path).unwrap();
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    let is_up = |scrape: &Scrape| scrape.account("up") == Some(1.0);
    daemon.until("a good poll", is_up).await;
    for (content, expected) in [("bad = [\n", 0.0), (good.as_str(), 1.0)] {
        folder.file("config.toml", content);
        daemon.signal("-HUP");
        let successful = "api_key_exporter_config_last_reload_successful";
        let seen = |scrape: &Scrape| scrape.get(successful) == Some(expected);
        daemon.until(&format!("success is {expected}"), seen).await;
    }
    // Nothing changed, so no account started anew.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let started = daemon.log().matches("monitoring an account").count();
    assert_eq!(started, 1, "{}", daemon.log());
}
