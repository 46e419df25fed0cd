//! Caches, formats that change, tokens that two accounts swap, names in the environment.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use api_key_exporter::fake_api::Reply;
use chrono::{TimeDelta, Utc};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::process::{Daemon, binary};
use crate::support::{Api, Exporter, Folder, Scrape, TOKEN, any_port, config, key, listing};

#[tokio::test]
async fn an_answer_from_a_cache_is_as_old_as_it_is() {
    let answer = |age: &str, date_ago: i64| {
        let date = Utc::now() - TimeDelta::seconds(date_ago);
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        listing(&["a"]).header("Age", age).header("Date", &date)
    };
    // The copy is as old as it says, and its date with it: the clocks agree.
    for (age, seconds) in [("3600", 3_600_i32), ("86400", 86_400), (" 77 ", 77)] {
        let api = Api::start(answer(age, i64::from(seconds))).await;
        let exporter = Exporter::start(&api).await;
        let scrape = exporter.up().await;
        let now = Utc::now().timestamp() as f64;
        let success = scrape.account("last_success_timestamp_seconds").unwrap();
        assert!(
            (now - success - f64::from(seconds)).abs() < 30.0,
            "{age}: {success}"
        );
        let skew = scrape.account("clock_skew_seconds").unwrap();
        assert!(skew.abs() < 30.0, "{age}: {skew}");
        let request = &api.requests()[0];
        assert_eq!(request.header("cache-control"), Some("no-cache"));
    }
    // What is not an age is none.
    for age in ["-5", "1e9", "yesterday", "", "99999999999999999999", "1, 2"] {
        let api = Api::start(answer(age, 0)).await;
        let exporter = Exporter::start(&api).await;
        let scrape = exporter.up().await;
        let now = Utc::now().timestamp() as f64;
        let success = scrape.account("last_success_timestamp_seconds").unwrap();
        assert!(success <= now + 1.0, "{age}: {success}");
        assert!(success >= 0.0, "{age}: {success}");
    }
}

#[tokio::test]
async fn another_form_of_the_same_time_is_no_change() {
    let with = |expires_at: &str| {
        let mut key = key("a");
        key["expires_at"] = json!(expires_at);
        Reply::listing(&[key])
    };
    let api = Api::start(with("2099-01-01 00:00:00")).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let end = "api_key_expiry_timestamp_seconds{account=\"default\",key_id=\"a\"}";
    let unknown = "api_key_expiry_unknown{account=\"default\",key_id=\"a\"}";
    let changes = "api_key_account_changes_total{account=\"default\",change=\"expiry\"}";
    for (text, is_unknown) in [
        ("2099-01-01T00:00:00Z", false),
        ("2099-01-01t00:00:00z", false),
        ("2099-01-01T00:00:00.000000Z", false),
        ("2099-01-01 00:00:00 UTC", false),
        ("2099-01-01T00:00:00+00", false),
        ("2099-01-01T02:00:00+0200", false),
        ("2098-12-31 18:30:00-05:30", false),
        ("2099-01-01", false),
        ("01.01.2099", true),
        ("4070908800", true),
        ("2099-001", true),
        ("2099-01-01T00:00:00", false),
    ] {
        let before = exporter.scrape().await.account("polls_total").unwrap();
        api.reply(with(text));
        let polled = |scrape: &Scrape| scrape.account("polls_total").unwrap() >= before + 2.0;
        let scrape = exporter.until(text, polled).await;
        assert_eq!(scrape.get(end), Some(4_070_908_800.0), "{text}");
        assert_eq!(scrape.get(unknown), Some(f64::from(is_unknown)), "{text}");
        assert_eq!(scrape.get(changes), Some(0.0), "{text}");
    }
}

#[tokio::test]
async fn an_incomplete_answer_replaces_nothing_whatever_came_before() {
    let partial = || listing(&["a", "x", "y"]).header("X-Has-More", "true");
    let api = Api::start(partial()).await;
    let exporter = Exporter::with(&config(&api.url(), "poll.attempts = 1", "")).await;
    let scrape = exporter.fails("incomplete").await;
    assert_eq!(scrape.key_ids().len(), 0);
    api.reply(listing(&["a", "b"]));
    exporter.up().await;
    api.reply(partial());
    let failing = "api_key_account_failing{account=\"default\",reason=\"incomplete\"}";
    let failed = |scrape: &Scrape| scrape.get(failing) == Some(1.0);
    let scrape = exporter.until("it fails", failed).await;
    assert_eq!(scrape.key_ids(), ["a", "b"]);
    assert_eq!(scrape.account("shrink_held"), Some(0.0));
}

/// An API that accepts two tokens, and lists four keys for ours and three for the `other` one.
async fn api_of_two(other: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            let head = String::from_utf8(head).unwrap();
            let ids: &[&str] = match () {
                () if head.contains(TOKEN) => &["a1", "a2", "a3", "a4"],
                () if head.contains(other) => &["b1", "b2", "b3"],
                () => &[],
            };
            let body = String::from_utf8(listing(ids).body).unwrap();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn two_accounts_that_swap_their_tokens_swap_their_keys_at_once() {
    const OTHER: &str = "sk_live_b3RoZXItb3JnYW5pemF0aW9u.aBcDe";
    let door = api_of_two(OTHER).await;
    let folder = Folder::new("swapped-tokens");
    let state = folder.0.join("state").display().to_string();
    let file = |name: &str, token: &str| {
        let path = folder.file(name, token);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let (ours, theirs) = (file("ours", TOKEN), file("theirs", OTHER));
    let configure = |tokens: [&str; 2]| {
        let accounts = ["x", "y"].into_iter().zip(tokens).map(|(name, token)| {
            format!(
                "[[accounts]]\nname = {name:?}\nbase_url = \"http://{door}\"\ntoken_file = {token:?}\n"
            )
        });
        let head = format!(
            "state.directory = {state:?}\npoll.interval = \"5s\"\npoll.timeout = \"4s\"\nlog.format = \"text\"\n\
             web.listen_addresses = [\"127.0.0.1:0\"]\n"
        );
        let text = head + &accounts.collect::<String>();
        folder.file("config.toml", &text).display().to_string()
    };
    let path = configure([&ours, &theirs]);
    let keys_of = |scrape: &Scrape, account: &str| {
        let prefix = format!("api_key_info{{account=\"{account}\",");
        scrape.of(&prefix).len()
    };
    let is = |x: usize, y: usize| {
        move |scrape: &Scrape| (keys_of(scrape, "x"), keys_of(scrape, "y")) == (x, y)
    };
    let check = |scrape: &Scrape| {
        for account in ["x", "y"] {
            let held = format!("api_key_account_shrink_held{{account=\"{account}\"}}");
            assert_eq!(scrape.get(&held), Some(0.0));
            for change in ["added", "removed"] {
                let changes = format!(
                    "api_key_account_changes_total{{account=\"{account}\",change=\"{change}\"}}"
                );
                assert_eq!(scrape.get(&changes), Some(0.0), "{account} {change}");
            }
        }
        assert_eq!(scrape.of("api_key_unlisted"), []);
    };
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    daemon.until("both are listed", is(4, 3)).await;
    // By a reload.
    configure([&theirs, &ours]);
    daemon.signal("-HUP");
    check(&daemon.until("the keys are swapped", is(3, 4)).await);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended().0, Some(0));
    // And back, by a restart.
    let path = configure([&ours, &theirs]);
    let daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
    check(&daemon.until("they are swapped back", is(4, 3)).await);
}

#[test]
fn no_name_in_the_environment_aborts() {
    let folder = Folder::new("absurd-names");
    let text = "[[accounts]]\nname = \"a\"\ntoken_env = \"TOKEN\"\n";
    let path = folder.file("config.toml", text).display().to_string();
    for name in [
        "ACCOUNTS__99999999999__NAME".to_owned(),
        "ACCOUNTS__0[99999999]__NAME".to_owned(),
        "POLL__INTERVAL[18446744073709551615]".to_owned(),
        "POLL[-9223372036854775808]".to_owned(),
        format!("POLL{}", "__A".repeat(10_000)),
        format!("ACCOUNTS{}", "[0]".repeat(5_000)),
        "__".repeat(5_000),
        "A".repeat(100_000),
        "[".to_owned(),
        "][".to_owned(),
        "POLL..INTERVAL".to_owned(),
        "\u{202e}".to_owned(),
        "POLL__\u{1}".to_owned(),
    ] {
        let mut command = binary(&["run", "--config.file", &path]);
        command.env("TOKEN", TOKEN);
        command.env(format!("API_KEY_EXPORTER__{name}"), "1");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let shown: String = name.chars().take(40).collect();
        assert_eq!(output.status.code(), Some(2), "{shown:?}: {said}");
        assert!(said.len() < 2_000, "{shown:?}: {} bytes", said.len());
    }
}
