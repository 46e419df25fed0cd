//! A GitLab account beside a BitGPT one: the same rules and the same Alertmanager serve both.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api_key_exporter::fake_api::{Authorization, FakeApi, Reply, Request};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::pager::{Alert, Pager};
use super::{NEW, OLD, alertmanager, of_time, until, with_others};
use crate::process::{Daemon, binary};
use crate::prometheus::{self, free};
use crate::support::{Api, Folder, TOKEN, any_port};

/// A token as GitLab lists it; `days` from today it stops working.
fn token(id: u32, name: &str, days: Option<i64>, is_revoked: bool) -> Value {
    let expires_at = days.map(|days| {
        let day = Utc::now() + TimeDelta::days(days);
        day.format("%Y-%m-%d").to_string()
    });
    json!({
        "id": id, "name": name, "revoked": is_revoked, "active": !is_revoked,
        "created_at": "2020-01-01T00:00:00.000Z", "last_used_at": "2026-01-01T00:00:00.000Z",
        "scopes": ["read_repository"], "user_id": 7, "expires_at": expires_at
    })
}

/// GitLab's listing, with the token that expired two days ago revoked or not.
fn tokens(is_revoked: bool) -> Reply {
    Reply::json(
        200,
        &json!([
            token(101, "deploy", Some(-2), is_revoked),
            token(102, "backup", Some(3), false),
            token(103, "renovate", Some(20), false),
            token(104, "old", Some(-5), true),
            token(105, "forever", None, false),
            token(106, "fine", Some(200), false),
        ]),
    )
}

struct GitLab {
    fake: FakeApi,
    reply: Arc<Mutex<Reply>>,
}

impl GitLab {
    async fn start() -> Self {
        let authorization = Authorization {
            header: "private-token".to_owned(),
            value: TOKEN.to_owned(),
            refusal: Reply::json(401, &json!({ "message": "401 Unauthorized" })),
        };
        let reply = Arc::new(Mutex::new(tokens(false)));
        let script = reply.clone();
        let answer = move |_: &Request| script.lock().unwrap().clone();
        let fake = FakeApi::start_with(any_port(), authorization, answer).await;
        Self {
            fake: fake.unwrap(),
            reply,
        }
    }

    fn reply(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }
}

/// What notifies: alert, account and key. An inhibited alert does not.
fn held(alerts: &[Alert]) -> BTreeSet<[String; 3]> {
    let labels = ["alertname", "account", "key_id"];
    let of = |alert: &Alert| labels.map(|name| alert.label(name).to_owned());
    let alerts = alerts.iter().filter(|alert| !alert.is_inhibited());
    alerts.map(of).collect()
}

/// Waits until exactly these alerts notify.
async fn holds(pager: &Pager, what: &str, alerts: &[[&str; 3]]) {
    let expected = alerts.iter().map(|alert| alert.map(str::to_owned));
    let expected: BTreeSet<[String; 3]> = expected.collect();
    let start = Instant::now();
    loop {
        let held = held(&pager.now().await);
        if held == expected {
            return;
        }
        let limit = Duration::from_secs(90);
        assert!(
            start.elapsed() < limit,
            "{what}: {held:#?}, not {expected:#?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one story in its order")]
async fn one_set_of_rules_serves_a_gitlab_account_beside_a_bitgpt_one() {
    let folders = ["exporter", "prometheus", "alertmanager"]
        .map(|name| Folder::new(&format!("two-providers-{name}")));
    let [exporter_address, prometheus_address, pager_address] = [free(), free(), free()];
    let now = Utc::now();
    let soon = of_time(OLD, now - TimeDelta::days(700), now + TimeDelta::days(20));
    let fine = of_time(NEW, now - TimeDelta::days(1), now + TimeDelta::days(364));
    let (bitgpt, gitlab) = (
        Api::start(with_others(&[soon, fine])).await,
        GitLab::start().await,
    );
    let path = folders[0].file("token", TOKEN);
    let config = format!(
        "poll.interval = \"5s\"\npoll.timeout = \"4s\"\npoll.attempts = 1\nlog.format = \"text\"\n\
         web.listen_addresses = [\"{exporter_address}\"]\n\
         [[accounts]]\nname = \"shop\"\nbase_url = \"{}\"\ntoken_file = {path:?}\n\
         [[accounts]]\nname = \"git\"\nprovider = \"gitlab\"\nbase_url = \"http://{}\"\n\
         token_file = {path:?}\n\
         [[keys]]\nmatch = \"{OLD}\"\nname = \"checkout\"\nteam = \"payments\"\n\
         [[keys]]\nmatch = \"*\"\naccount = \"git\"\nteam = \"platform\"\n\
         [[keys]]\nmatch = \"*\"\nteam = \"web\"\n",
        bitgpt.url(),
        gitlab.fake.address(),
    );
    let config = folders[0]
        .file("config.toml", &config)
        .display()
        .to_string();
    let running = Daemon::start(binary(&["--config.file", &config]), &folders[0]);
    let alertmanager = alertmanager(&folders[2], pager_address);
    let scraping = prometheus::start(
        &folders[1],
        prometheus_address,
        exporter_address,
        Some(pager_address),
    );
    let pager = Pager::watch(pager_address);
    let programs = [&running, &scraping, &alertmanager];
    until("Alertmanager answers", &programs, async || {
        prometheus::get(pager_address, "/api/v2/alerts")
            .await
            .is_some()
    })
    .await;

    let mut all = vec![
        ["ApiKeyExpired", "git", "101"],
        ["ApiKeyAboutToExpire", "git", "102"],
        ["ApiKeyExpiringSoon", "git", "103"],
        ["ApiKeyNeverExpires", "git", "105"],
        ["ApiKeyExpiringSoon", "shop", OLD],
    ];
    holds(&pager, "each key has its alert", &all).await;
    let alerts = pager.now().await;
    for (account, key_id, provider, title) in [
        (
            "git",
            "101",
            "gitlab",
            "API key \"deploy\" of team platform (account git) expired 2d ",
        ),
        (
            "git",
            "102",
            "gitlab",
            "API key \"backup\" of team platform (account git) expires in 2d ",
        ),
        (
            "git",
            "103",
            "gitlab",
            "API key \"renovate\" of team platform (account git) expires in 19d ",
        ),
        (
            "git",
            "105",
            "gitlab",
            "API key \"forever\" of team platform (account git) never expires",
        ),
        (
            "shop",
            OLD,
            "bitgpt",
            "API key \"checkout\" of team payments (account shop) expires in 19d ",
        ),
    ] {
        let of_key =
            |alert: &&Alert| (alert.label("account"), alert.label("key_id")) == (account, key_id);
        let alert = alerts.iter().find(of_key).unwrap();
        assert_eq!(alert.label("provider"), provider, "{alert:?}");
        let summary = alert.annotation("summary");
        assert!(
            summary.starts_with(title),
            "{summary:?} does not start with {title:?}"
        );
    }
    // A date is the midnight that starts it.
    let expired = alerts
        .iter()
        .find(|alert| alert.label("key_id") == "101")
        .unwrap();
    let day = (now - TimeDelta::days(2)).format("Key 101 expired on %Y-%m-%d 00:00:00 UTC");
    let description = expired.annotation("description");
    assert!(description.starts_with(&day.to_string()), "{description:?}");

    // A revoked token needs no attention, whenever it expired.
    gitlab.reply(tokens(true));
    all.remove(0);
    holds(&pager, "the revoked token is quiet", &all).await;

    // One provider refuses: what is known of both stays.
    gitlab.reply(Reply::json(401, &json!({ "message": "401 Unauthorized" })));
    all.push(["ApiKeyAccountUnauthorized", "git", ""]);
    holds(&pager, "the refusal pages", &all).await;
    running.signal("-TERM");
    assert_eq!(running.ended().0, Some(0));
}
