//! Where other exporters have shown secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{Authorization, FakeApi, Reply, Request};
use serde_json::json;

use crate::process::{Daemon, binary, config_file};
use crate::support::{Api, Folder, TOKEN, any_port, listing};

/// The part of the token that nothing may show.
fn secret() -> &'static str {
    TOKEN.strip_prefix("sk_live_").unwrap()
}

/// All that a daemon says until it ends or a poll fails.
async fn all_said(daemon: &mut Daemon) -> String {
    let start = Instant::now();
    while !daemon.has_ended() && !daemon.log().contains("listing keys failed") {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{}",
            daemon.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut said = daemon.log();
    if !daemon.has_ended() {
        for path in ["/metrics", "/", "/api/v1/accounts"] {
            said += &daemon.get(path).await;
        }
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_logs_the_configuration_without_the_token() {
    let api = Api::start(listing(&["a"])).await;
    let folder = Folder::new("field-start");
    let path = config_file(&folder, &api.url());
    for level in ["debug", "trace"] {
        let arguments = ["--config.file", &path, "--log.level", level];
        let mut command = binary(&arguments);
        command.env("RUST_LOG", "trace").env("GITHUB_TOKEN", TOKEN);
        let daemon = Daemon::start(command, &folder);
        daemon.logs("listed keys for the first time").await;
        let log = daemon.log();
        assert!(log.contains(&api.url()), "{log}");
        assert!(!log.contains(&secret()[..12]), "{log}");
    }
}

/// A secret in a wrapping of its own: JSON, a shell assignment, a header, quotes.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_token_is_shown_nowhere_even_if_the_api_repeats_it() {
    for wrapped in [
        format!("{{\"token\":\"{TOKEN}\"}}"),
        format!("export TOKEN={TOKEN}"),
        format!("Bearer {TOKEN}"),
        format!("Authorization: Bearer {TOKEN}"),
        format!("'{TOKEN}'"),
        format!("{TOKEN}\\n"),
    ] {
        let folder = Folder::new("field-malformed");
        let repeated = format!("scheme or token does not match: Bearer {wrapped}");
        let error = json!({ "status": 401, "error": repeated, "message": repeated, "data": null });
        // It repeats the whole header, as a server that explains its refusal does.
        let authorization = Authorization {
            refusal: Reply::json(401, &error),
            ..Authorization::bearer("another")
        };
        let answer = |_: &Request| Reply::listing(&[]);
        let api = FakeApi::start_with(any_port(), authorization, answer);
        let api = api.await.unwrap();
        let path = config_file(&folder, &format!("http://{}", api.address()));
        let token = folder.file("token", &wrapped);
        fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
        let mut daemon = Daemon::start(
            binary(&["--config.file", &path, "--log.level", "trace"]),
            &folder,
        );
        // Either it refuses such a token at the start, or it tries it.
        let said = all_said(&mut daemon).await;
        for part in [&secret()[..12], &secret()[secret().len() - 12..]] {
            assert!(!said.contains(part), "{said}");
        }
        // What is sent is repeated.
        let is_sent = !daemon.has_ended();
        assert_eq!(
            is_sent,
            said.contains("scheme or token does not match"),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_a_url_reach_neither_labels_nor_errors() {
    let folder = Folder::new("field-urls");
    let token = folder.file("token", TOKEN);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let password = "t5%2AzdjfO3e%3C3&c88p%5DUO1M04%2FvNl";
    for url in [
        format!("http://admin:{password}@127.0.0.1:9"),
        format!("http://admin:{password}@127.0.0.1:9/path?token={password}"),
        format!("http://{password}@127.0.0.1:9"),
        format!("http://127.0.0.1:9/?api-token={password}"),
        format!("http://admin:{password}@[::1:9"),
        format!("http//admin:{password}@127.0.0.1:9"),
    ] {
        for option in ["base_url", "proxy_url"] {
            let other = match option {
                "proxy_url" => "base_url = \"https://api.example.com\"\n",
                _ => "",
            };
            let text = format!(
                "poll.interval = \"5s\"\npoll.timeout = \"2s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
                 log.level = \"trace\"\nweb.listen_addresses = [\"127.0.0.1:0\"]\n[[accounts]]\n\
                 name = \"default\"\n{other}{option} = {url:?}\ntoken_file = {token:?}\n"
            );
            let path = folder.file("config.toml", &text).display().to_string();
            let mut daemon = Daemon::start(binary(&["--config.file", &path]), &folder);
            let said = all_said(&mut daemon).await;
            assert!(!said.is_empty());
            let decoded = "t5*zdjfO3e<3&c88p]UO1M04/vNl";
            for part in [
                &password[..12],
                &password[20..],
                &decoded[..12],
                &decoded[16..],
            ] {
                assert!(!said.contains(part), "{option} = {url}: {said}");
            }
        }
    }
}
