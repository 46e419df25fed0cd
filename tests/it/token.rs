//! Every way in which the token gets in, and a search for it, in parts and encoded, in everything
//! that gets out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use api_key_exporter::config::{Config, Sources};
use api_key_exporter::fake_api::Reply;
use api_key_exporter::pages::Page;
use api_key_exporter::secret::{Token, TokenSource};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use base64::prelude::Engine as _;
use serde_json::json;

use crate::faults::limits::{for_anybody, nobody};
use crate::process::{Daemon, binary, wrapped};
use crate::support::{Api, Folder, TOKEN, client, key};
use crate::tools::ask;

/// Bytes of the token that nothing else contains by chance.
const PART_BYTES: usize = 8;

/// Every way in which a part of the token may be written.
pub(crate) fn forms() -> BTreeSet<String> {
    // All tokens start alike; that much is no secret.
    let body = TOKEN.strip_prefix("sk_live_").unwrap().as_bytes();
    let mut forms = BTreeSet::new();
    for part in body.windows(PART_BYTES) {
        let each = |write: fn(&mut String, u8)| {
            let mut text = String::new();
            for byte in part {
                write(&mut text, *byte);
            }
            text
        };
        forms.extend([
            String::from_utf8(part.to_vec()).unwrap(),
            each(|text, byte| write!(text, "{byte:02x}").unwrap()),
            each(|text, byte| write!(text, "{byte:02X}").unwrap()),
            each(|text, byte| write!(text, "%{byte:02x}").unwrap()),
            each(|text, byte| write!(text, "%{byte:02X}").unwrap()),
            each(|text, byte| write!(text, "\\x{byte:02x}").unwrap()),
            // In JSON and in HTML.
            each(|text, byte| write!(text, "\\u{byte:04x}").unwrap()),
            each(|text, byte| write!(text, "&#{byte};").unwrap()),
            each(|text, byte| write!(text, "&#x{byte:x};").unwrap()),
            // As a list of numbers, which is how bytes are debugged.
            each(|text, byte| write!(text, "{byte}, ").unwrap()),
        ]);
        // Of three alignments, the part's own characters: the outer ones depend on the neighbours.
        for before in 0..3 {
            let padded = [&vec![b'x'; before][..], part].concat();
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&padded);
                let start = (before * 8).div_ceil(6);
                forms.insert(encoded[start..padded.len() * 8 / 6].to_owned());
            }
        }
    }
    forms
}

/// Searches `text` for the token in all forms.
pub(crate) fn assert_hidden(forms: &BTreeSet<String>, what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for form in forms {
        assert!(!text.contains(form), "{what} shows {form:?}:\n{text}");
    }
}

#[test]
fn the_search_finds_every_form() {
    let forms = forms();
    let padded = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{TOKEN}"));
    let hex: String = TOKEN.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    for shown in [
        TOKEN.to_owned(),
        TOKEN[20..].to_owned(),
        padded(""),
        padded("u:"),
        padded("a"),
        hex,
        format!("{:?}", TOKEN.as_bytes()),
    ] {
        let found = std::panic::catch_unwind(|| assert_hidden(&forms, "it", shown.as_bytes()));
        assert!(found.is_err(), "{shown}");
    }
    assert_hidden(&forms, "nothing", b"sk_live_ and other words");
}

/// What a panic or a debug line could print of the values that hold the token.
#[test]
fn nothing_that_holds_the_token_shows_it() {
    let token = Token::parse(TOKEN.as_bytes(), "test").unwrap();
    let sources = Sources {
        environment: [("BITGPT_API_KEY".to_owned(), TOKEN.to_owned())].into(),
        ..Sources::default()
    };
    let config = Config::parse("", &sources).unwrap();
    let source = TokenSource::Env {
        variable: "V".to_owned(),
        token: token.clone(),
    };
    let shown = format!("{token:?} {source:#?} {sources:#?} {config:#?}");
    assert_hidden(&forms(), "Debug", shown.as_bytes());
}

/// An API that repeats what it was sent wherever a response has room for text.
async fn repeating_api() -> Api {
    let mut own = key(&format!("api_key_{}", &TOKEN[8..]));
    own["label"] = json!(TOKEN);
    own["organization_id"] = json!(format!("of {}", &TOKEN[12..]));
    own["scopes"] = json!([TOKEN, "api_keys.read"]);
    Api::start(Reply::listing(&[own, key("a")])).await
}

/// Polls once well and once badly, stops the daemon, and searches all that it wrote and served.
async fn search(api: &Api, folder: &Folder, daemon: Daemon) {
    let forms = forms();
    daemon.logs("listed keys for the first time").await;
    let well = api.requests().len();
    api.reply(Reply::error(
        503,
        &format!("cannot use {TOKEN}, {}", &TOKEN[15..]),
        &format!("support_{}", &TOKEN[10..]),
    ));
    daemon.logs("reason=server_error").await;
    assert!(well > 0 && api.requests().len() > well);
    let pages = Page::ALL.map(Page::path);
    for path in ["/metrics", "/-/healthy", "/-/ready", "/nothing"]
        .into_iter()
        .chain(pages)
    {
        assert_hidden(&forms, path, daemon.get(path).await.as_bytes());
    }
    let url = format!("http://{}/metrics", daemon.address().await);
    let open_metrics = client()
        .get(url)
        .header("Accept", "application/openmetrics-text");
    let open_metrics = open_metrics.send().await.unwrap().text().await.unwrap();
    // An exemplar, which only this format has.
    assert!(open_metrics.contains("# {support_id="), "{open_metrics}");
    assert_hidden(&forms, "OpenMetrics", open_metrics.as_bytes());
    // What any other user can read, the daemon's own arguments among it.
    let mut read = Command::new("sh");
    let process = format!("/proc/{}", daemon.pid());
    read.args(["-c", READ_ALL, "sh", &process]);
    let output = wrapped(&nobody(), &read).output().unwrap();
    let readable = String::from_utf8_lossy(&output.stdout);
    assert!(readable.contains("--log.level"), "{readable}");
    assert_hidden(&forms, &process, readable.as_bytes());
    daemon.signal("-TERM");
    let log = fs::read(folder.0.join("log")).unwrap();
    assert_eq!(daemon.ended().0, Some(0));
    assert_hidden(&forms, "the log", &log);
    assert!(String::from_utf8_lossy(&log).contains("level=INFO"));
    let state = folder.0.join("state");
    let saved: Vec<_> = fs::read_dir(&state).unwrap().collect();
    assert!(!saved.is_empty(), "nothing was saved");
    for file in saved {
        let path = file.unwrap().path();
        assert_hidden(&forms, "the saved state", &fs::read(&path).unwrap());
    }
}

/// Prints every file of a process and its threads that can be read, 64 KiB of each.
const READ_ALL: &str = "find $1 -maxdepth 3 -type f -readable 2>/dev/null | \
    while read -r file; do timeout 5 head -c 65536 \"$file\" 2>/dev/null; done";

/// Options for a daemon that logs and saves all that it can, without an account.
fn verbose(folder: &Folder) -> String {
    format!(
        "poll = {{ interval = \"5s\", timeout = \"4s\", attempts = 1 }}\nlog.format = \"text\"\n\
         web.listen_addresses = [\"127.0.0.1:0\"]\nstate.directory = \"{}\"\n",
        folder.0.join("state").display()
    )
}

async fn search_with(name: &str, account: impl FnOnce(&Path) -> String) {
    let folder = Folder::new(name);
    let api = repeating_api().await;
    let account = account(&folder.0);
    let url = api.url();
    let text = format!(
        "{}[[accounts]]\nname = \"main\"\nbase_url = \"{url}\"\n{account}\n",
        verbose(&folder)
    );
    let config = folder.file("config.toml", &text).display().to_string();
    let mut command = binary(&["--config.file", &config, "--log.level", "trace"]);
    command
        .env("RUST_BACKTRACE", "full")
        .env("RUST_LOG", "trace");
    command.env("MY_TOKEN", TOKEN);
    for subcommand in ["check", "show"] {
        let mut command = binary(&["config", subcommand, "--config.file", &config]);
        let said = ask(command.env("MY_TOKEN", TOKEN));
        assert!(said.is_content, "{}", said.words);
        assert_hidden(&forms(), subcommand, said.words.as_bytes());
    }
    search(&api, &folder, Daemon::start(command, &folder)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_a_file_gets_out_nowhere() {
    search_with("token-file", |folder| {
        fs::write(folder.join("token"), format!("{TOKEN}\n")).unwrap();
        format!("token_file = \"{}\"", folder.join("token").display())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_environment_gets_out_nowhere() {
    search_with("token-env", |_| "token_env = \"MY_TOKEN\"".to_owned()).await;
}

/// A volume is a link to a directory that is replaced as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_a_kubernetes_volume_gets_out_nowhere() {
    search_with("token-volume", |folder| {
        let version = folder.join("volume/..2026_01_01");
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("token"), TOKEN).unwrap();
        symlink("..2026_01_01", folder.join("volume/..data")).unwrap();
        symlink("..data/token", folder.join("volume/token")).unwrap();
        format!("token_file = \"{}\"", folder.join("volume/token").display())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_the_service_is_found_by_itself_and_gets_out_nowhere() {
    let folder = Folder::new("token-credential");
    fs::create_dir(folder.0.join("credentials")).unwrap();
    fs::write(folder.0.join("credentials/bitgpt"), TOKEN).unwrap();
    let config = folder.file("config.toml", &verbose(&folder));
    let mut command = binary(&["--log.level", "trace", "--config.file"]);
    command.arg(&config).env("RUST_BACKTRACE", "full");
    command.env("CREDENTIALS_DIRECTORY", folder.0.join("credentials"));
    let daemon = Daemon::start(command, &folder);
    let path = folder.0.join("credentials/bitgpt").display().to_string();
    // The API is not reachable here, and need not be.
    daemon.logs(&path).await;
    daemon.logs("level=WARN").await;
    let forms = forms();
    assert_hidden(&forms, "/metrics", daemon.get("/metrics").await.as_bytes());
    assert_hidden(&forms, "the log", daemon.log().as_bytes());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

/// Not even the environment of the process, where the token is, can be read by its own user.
#[tokio::test(flavor = "multi_thread")]
async fn other_processes_of_the_same_user_cannot_read_the_token() {
    let folder = Folder::new("token-same-user");
    let api = Api::start(Reply::listing(&[key("a")])).await;
    let user = nobody();
    let mut command = wrapped(&user, &for_anybody(&folder, &api.url()));
    command.env("UNUSED", TOKEN);
    let daemon = Daemon::start(command, &folder);
    daemon.logs("listed keys for the first time").await;
    let mut read = Command::new("sh");
    let process = format!("/proc/{}", daemon.pid());
    read.args(["-c", READ_ALL, "sh", &process]);
    let output = wrapped(&user, &read).output().unwrap();
    let readable = String::from_utf8_lossy(&output.stdout);
    assert!(readable.contains("--config.file"), "{readable}");
    assert_hidden(&forms(), &process, readable.as_bytes());
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}
