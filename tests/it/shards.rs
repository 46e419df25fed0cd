//! Several exporters that share the accounts of one configuration, with the real binary.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Output;

use crate::process::{Daemon, binary};
use crate::support::{Api, Folder, Scrape, TOKEN, client, listing};

/// With as many, each of two and of three shards has one.
const ACCOUNTS: usize = 11;

/// A configuration of [`ACCOUNTS`] accounts at `url`, below `head`. Each account has a token of its
/// own, in the folder.
fn config(folder: &Folder, url: &str, head: &str) -> String {
    let mut text = format!(
        "{head}\npoll.attempts = 1\nlog.format = \"text\"\nweb.listen_addresses = [\"127.0.0.1:0\"]\n"
    );
    for number in 1..=ACCOUNTS {
        let token = folder.file(&format!("token-{number}"), TOKEN);
        writeln!(
            text,
            "[[accounts]]\nname = \"account-{number}\"\nbase_url = {url:?}\ntoken_file = \"{}\"",
            token.display()
        )
        .unwrap();
    }
    text
}

fn accounts(scrape: &Scrape, family: &str) -> BTreeSet<String> {
    let series = scrape.of(&format!("{family}{{"));
    let account = |name: &str| name.split('"').nth(1).unwrap().to_owned();
    series.into_iter().map(|(name, _)| account(name)).collect()
}

fn shard_info(index: u16, total: u16) -> String {
    format!("api_key_exporter_shard_info{{index=\"{index}\",total=\"{total}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_poll_every_account_once_and_need_only_their_own_tokens() {
    let api = Api::start(listing(&["a"])).await;
    let mut polled = BTreeSet::new();
    for index in 0..3 {
        let folder = Folder::new(&format!("shard-{index}"));
        let path = folder.file("config.toml", &config(&folder, &api.url(), ""));
        let path = path.display().to_string();
        let index_text = index.to_string();
        let shard = [
            "--config.file",
            &path,
            "--shard",
            &index_text,
            "--total-shards=3",
        ];
        let own = own_accounts(
            &binary(&[&["config", "check"], &shard[..]].concat())
                .output()
                .unwrap(),
        );
        for number in 1..=ACCOUNTS {
            if !own.contains(&format!("account-{number}")) {
                std::fs::remove_file(folder.0.join(format!("token-{number}"))).unwrap();
            }
        }
        let daemon = Daemon::start(binary(&shard), &folder);
        let is_up = |scrape: &Scrape| {
            let up = scrape.of("api_key_account_up{");
            up.len() == own.len() && up.iter().all(|(_, value)| *value == 1.0)
        };
        let scrape = daemon.until("its accounts are up", is_up).await;
        assert_eq!(accounts(&scrape, "api_key_account_info"), own);
        assert_eq!(
            scrape.of("api_key_exporter_shard_info"),
            [(&*shard_info(index, 3), 1.0)]
        );
        assert!(
            daemon.log().contains(&format!("shard=\"{index} of 3\"")),
            "{}",
            daemon.log()
        );
        for account in own {
            assert!(polled.insert(account.clone()), "{account} twice");
        }
    }
    assert_eq!(polled.len(), ACCOUNTS);
}

/// The accounts that `config check` names.
fn own_accounts(output: &Output) -> BTreeSet<String> {
    let words = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (_, names) = words.lines().last().unwrap().rsplit_once(": ").unwrap();
    names
        .trim_end()
        .split(", ")
        .map(|name| name.trim_matches('"').to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_shards_changes_by_a_reload() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("shard-reload");
    let text = |total: u16| {
        config(
            &folder,
            &api.url(),
            &format!("shard.index = 1\nshard.total = {total}"),
        )
    };
    let path = folder.file("config.toml", &text(2));
    let path = path.display().to_string();
    let lifecycle = ["--config.file", &path, "--web.enable-lifecycle"];
    let daemon = Daemon::start(binary(&lifecycle), &folder);
    let before = daemon
        .until("it is up", |scrape| {
            !scrape.of("api_key_account_up{").is_empty()
        })
        .await;
    let before = accounts(&before, "api_key_account_info");
    assert!((1..ACCOUNTS).contains(&before.len()), "{before:?}");

    // --web.enable-lifecycle allows the reload.
    let url = format!("http://{}/-/reload", daemon.address().await);
    folder.file("config.toml", &text(3));
    let reload = async || client().post(&url).send().await.unwrap().status().as_u16();
    assert_eq!(reload().await, 200);
    let after = Scrape::parse(&daemon.get("/metrics").await);
    assert_eq!(
        after.of("api_key_exporter_shard_info"),
        [(&*shard_info(1, 3), 1.0)]
    );
    let after = accounts(&after, "api_key_account_info");
    assert!(
        after.is_subset(&before) && after.len() < before.len(),
        "{after:?}"
    );

    let one = config(&folder, &api.url(), "");
    folder.file("config.toml", &one);
    assert_eq!(reload().await, 200);
    let after = Scrape::parse(&daemon.get("/metrics").await);
    assert_eq!(after.of("api_key_exporter_shard_info"), []);
    assert_eq!(accounts(&after, "api_key_account_info").len(), ACCOUNTS);

    // A shard that cannot be leaves everything as it is.
    folder.file("config.toml", &text(1));
    assert_eq!(reload().await, 500);
    daemon.logs("shard.index = 1 (file").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_without_accounts_runs_and_says_so() {
    let folder = Folder::new("empty-shard");
    let token = folder.file("token", TOKEN);
    // "account-1" belongs to the first of any number of shards up to eight.
    let text = format!(
        "log.format = \"text\"\nweb.listen_addresses = [\"127.0.0.1:0\"]\n[[accounts]]\n\
         name = \"account-1\"\ntoken_file = \"{}\"\n",
        token.display()
    );
    let path = folder.file("config.toml", &text).display().to_string();
    let shard = ["--config.file", &path, "--shard=2", "--total-shards=4"];
    let daemon = Daemon::start(binary(&shard), &folder);
    daemon
        .logs("shard 2 of 4 polls nothing: it has none of the configured accounts")
        .await;
    assert_eq!(daemon.get("/-/ready").await, "api-key-exporter is ready.\n");
    assert_eq!(
        daemon.get("/-/healthy").await,
        "api-key-exporter is healthy.\n"
    );
    let scrape = Scrape::parse(&daemon.get("/metrics").await);
    assert_eq!(scrape.get(&shard_info(2, 4)), Some(1.0));
    assert_eq!(scrape.of("api_key_account_"), []);
    for path in ["/", "/api/v1/keys", "/api/v1/accounts", "/calendar.ics"] {
        assert!(!daemon.get(path).await.is_empty(), "{path}");
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
}

#[test]
fn config_show_names_the_shard_of_each_account() {
    let folder = Folder::new("shard-show");
    let path = folder.file("config.toml", &config(&folder, "http://localhost", ""));
    let path = path.display().to_string();
    let show = ["config", "show", "--config.file", &path];
    let shown = |more: &[&str]| {
        let output = binary(&[&show[..], more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let headers = |words: &str| -> Vec<String> {
        let headers = words
            .lines()
            .filter(|line| line.starts_with("[[accounts]]"));
        headers.map(str::to_owned).collect()
    };
    assert_eq!(headers(&shown(&[])), vec!["[[accounts]]"; ACCOUNTS]);
    let words = shown(&["--shard=0", "--total-shards=2"]);
    // As the golden assignment of account-1 and account-2 in domain/shard.rs.
    let expected = [
        "[[accounts]]  # shard 0, this one",
        "[[accounts]]  # shard 1",
    ];
    assert_eq!(headers(&words)[..2], expected);
    assert!(
        words.contains("[shard]\nindex = 0  # flag --shard\ntotal = 2  # flag --total-shards\n"),
        "{words}"
    );
}
