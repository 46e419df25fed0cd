//! What the metrics say about keys.

use api_key_exporter::fake_api::Reply;
use serde_json::{Value, json};

use crate::support::{Api, Exporter, Scrape, any_port, client, config, config_of, key, listing};

fn of_key(scrape: &Scrape, family: &str, id: &str) -> Option<f64> {
    scrape.get(&format!("{family}{{account=\"default\",key_id=\"{id}\"}}"))
}

fn labelled(id: &str, label: &str) -> Value {
    let mut key = key(id);
    key["label"] = json!(label);
    key
}

async fn open_metrics(exporter: &Exporter) -> String {
    let request = client().get(format!("http://{}/metrics", exporter.address));
    let request = request.header("Accept", "application/openmetrics-text; version=1.0.0");
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn an_expired_key_keeps_its_series() {
    let mut expired = key("expired");
    expired["expires_at"] = json!("2020-02-29 12:00:00");
    let api = Api::start(Reply::listing(&[expired, key("valid")])).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    let end = of_key(&scrape, "api_key_expiry_timestamp_seconds", "expired");
    assert_eq!(end, Some(1_582_977_600.0));
    assert!(of_key(&scrape, "api_key_expires_in_seconds", "expired") < Some(0.0));
    let states = |state: &str| {
        let series = format!("api_key_account_keys{{account=\"default\",state=\"{state}\"}}");
        scrape.get(&series)
    };
    assert_eq!([states("expired"), states("valid")], [Some(1.0); 2]);
}

#[tokio::test]
async fn a_deleted_key_is_gone_from_everything_at_the_next_poll() {
    let api = Api::start(listing(&["stays", "k-deleted", "other"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let paths = ["/metrics", "/", "/api/v1/keys", "/calendar.ics"];
    for path in paths {
        assert!(exporter.get(path).await.1.contains("k-deleted"), "{path}");
    }
    api.reply(listing(&["stays", "other"]));
    let gone = |scrape: &Scrape| scrape.key_ids() == ["other", "stays"];
    exporter.until("it is gone", gone).await;
    for path in paths {
        let (_, text) = exporter.get(path).await;
        assert!(!text.contains("k-deleted"), "{path}: {text}");
    }
    assert!(!open_metrics(&exporter).await.contains("k-deleted"));
}

#[tokio::test]
async fn a_key_whose_labels_change_has_one_info_series() {
    let with = |label: &str, organization: &str| {
        let mut key = labelled("a", label);
        key["organization_id"] = json!(organization);
        Reply::listing(&[key])
    };
    let api = Api::start(with("first", "org-1")).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    api.reply(with("second", "org-2"));
    let changed = |scrape: &Scrape| {
        let info = scrape.of("api_key_info{");
        assert_eq!(info.len(), 1, "{info:?}");
        info[0].0.contains("name=\"second\"") && info[0].0.contains("\"org-2\"")
    };
    exporter.until("the new labels", changed).await;
    let text = exporter.text().await + &open_metrics(&exporter).await;
    assert!(!text.contains("first") && !text.contains("org-1"), "{text}");
}

#[tokio::test]
async fn a_failed_poll_puts_no_number_in_the_place_of_an_expiry() {
    let api = Api::start(Reply::body(429, "text/plain", "quota exceeded")).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.fails("rate_limited").await;
    for family in ["api_key_expir", "api_key_never", "api_key_info"] {
        assert_eq!(scrape.of(family), [], "{family}");
    }
    drop(exporter);
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    let known = exporter.up().await;
    api.reply(Reply::body(429, "text/plain", "quota exceeded"));
    let scrape = exporter.fails("rate_limited").await;
    let end = |scrape: &Scrape| of_key(scrape, "api_key_expiry_timestamp_seconds", "a");
    assert!(end(&scrape).is_some());
    assert_eq!(end(&scrape), end(&known));
}

#[tokio::test]
async fn a_time_that_is_written_in_an_odd_way_is_unknown_and_not_another_time() {
    let odd = [
        "20161210",
        "2016-12",
        "10/12/2016",
        "Dec 10 2016",
        "1481328000",
        "2016.12.10",
    ];
    let keys = odd.iter().map(|text| {
        let mut key = key(&format!("k{}", text.len()));
        key["id"] = json!(text.replace(['/', ' '], "."));
        key["expires_at"] = json!(text);
        key
    });
    let api = Api::start(Reply::listing(&keys.collect::<Vec<_>>())).await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.key_ids().len(), odd.len());
    assert_eq!(scrape.of("api_key_expiry_timestamp_seconds"), []);
    assert_eq!(scrape.of("api_key_expires_in_seconds"), []);
    let unknown = scrape.of("api_key_expiry_unknown");
    assert!(
        unknown.iter().all(|(_, value)| *value == 1.0),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_key_without_an_expiry_harms_nothing() {
    let api = Api::start(Reply::listing(&[
        json!({ "id": "null", "expires_at": null }),
        json!({ "id": "absent" }),
        key("ends"),
    ]))
    .await;
    let exporter = Exporter::start(&api).await;
    let scrape = exporter.up().await;
    assert_eq!(scrape.key_ids(), ["absent", "ends", "null"]);
    let never = |id| of_key(&scrape, "api_key_never_expires", id);
    assert_eq!([never("null"), never("ends")], [Some(1.0), Some(0.0)]);
    for id in ["null", "absent"] {
        assert_eq!(
            of_key(&scrape, "api_key_expiry_timestamp_seconds", id),
            None,
            "{id}"
        );
        assert_eq!(
            of_key(&scrape, "api_key_expires_in_seconds", id),
            None,
            "{id}"
        );
    }
    assert_eq!(exporter.get("/").await.0, 200);
}

#[tokio::test]
async fn the_first_page_is_not_taken_for_all_keys() {
    let keys = [key("a"), key("b")];
    let body = |name: &str, value: Value| {
        let mut body = json!({ "status": 200, "data": keys, "error": null });
        body[name] = value;
        Reply::json(200, &body)
    };
    for first_page in [
        body(
            "pagination",
            json!({ "offset": 0, "limit": 2, "total": 243 }),
        ),
        body("pagination", json!({ "page": 1, "pages": 3 })),
        body("meta", json!({ "pagination": { "next_page": 2 } })),
        body(
            "@odata.nextLink",
            json!("https://api.example/keys?$skiptoken=x"),
        ),
        body(
            "links",
            json!([{ "rel": "self" }, { "rel": "next", "href": "/b" }]),
        ),
        body("count", json!(25)),
        body("last", json!(false)),
        Reply::listing(&keys).header("Content-Range", "items 0-1/25"),
        Reply::listing(&keys).header("X-Total-Pages", "13"),
    ] {
        let shown = String::from_utf8_lossy(&first_page.body).into_owned();
        let api = Api::start(first_page).await;
        let exporter = Exporter::start(&api).await;
        let scrape = exporter.fails("incomplete").await;
        assert_eq!(
            scrape.account("last_success_timestamp_seconds"),
            None,
            "{shown}"
        );
        assert_eq!(scrape.key_ids().len(), 0, "{shown}");
        // The whole list is not held back because of it.
        api.reply(body(
            "pagination",
            json!({ "offset": 0, "limit": 50, "total": 2 }),
        ));
        assert_eq!(exporter.up().await.key_ids(), ["a", "b"]);
    }
}

#[tokio::test]
async fn a_field_of_an_unexpected_type_costs_nothing_else() {
    let types = [
        json!("WARNING"),
        json!(7),
        json!(true),
        json!({ "a": 1 }),
        json!([1]),
        json!(null),
    ];
    for odd in types {
        for field in [
            "label",
            "secret",
            "organization_id",
            "scopes",
            "ip_allow_list",
            "created_at",
            "new",
        ] {
            let mut entry = key("odd");
            entry[field] = odd.clone();
            let api = Api::start(Reply::listing(&[entry, key("other")])).await;
            let exporter = Exporter::start(&api).await;
            let scrape = exporter.up().await;
            assert_eq!(scrape.key_ids(), ["odd", "other"], "{field}: {odd}");
            for id in ["odd", "other"] {
                let end = of_key(&scrape, "api_key_expiry_timestamp_seconds", id);
                assert!(end.is_some(), "{field}: {odd}");
            }
        }
    }
}

#[tokio::test]
async fn equal_entries_break_no_scrape() {
    let twins = Reply::listing(&[key("a"), key("a"), labelled("a", "x"), key("b")]);
    let api = Api::start(twins).await;
    let config = config_of(
        "poll.attempts = 1",
        &[("default", &api.url(), ""), ("other", &api.url(), "")],
    );
    let exporter = Exporter::with(&config).await;
    // Reading the scrape fails where a series appears twice.
    let scrape = exporter.up().await;
    let other = |scrape: &Scrape| scrape.get("api_key_account_up{account=\"other\"}") == Some(1.0);
    exporter.until("the other account is up", other).await;
    assert_eq!(scrape.of("api_key_info{account=\"default\"").len(), 2);
    let duplicate = "api_key_account_keys_rejected{account=\"default\",reason=\"duplicate\"}";
    assert_eq!(scrape.get(duplicate), Some(2.0));
}

#[tokio::test]
async fn a_label_is_never_cut_inside_a_character() {
    let keys = (0..8).map(|offset| {
        let label = "x".repeat(250 + offset) + &"同步日志".repeat(4);
        labelled(&format!("k{offset}"), &label)
    });
    let mut body = serde_json::to_string(&json!({
        "status": 200, "error": null, "data": keys.collect::<Vec<_>>()
    }))
    .unwrap()
    .into_bytes();
    // A label that the API itself cut inside a character, and bytes that are no text at all.
    let bad = b"{\"id\":\"cut\",\"label\":\"ODS - \xe8\xa1\"},{\"id\":\"bytes\",\"label\":\"\xff\xfe\xc3\"},";
    let at = body.iter().position(|byte| *byte == b'[').unwrap() + 1;
    body.splice(at..at, bad.iter().copied());
    let api = Api::start(Reply::body(200, "application/json", body)).await;
    let exporter = Exporter::start(&api).await;
    assert_eq!(exporter.up().await.key_ids().len(), 10);
    let url = format!("http://{}/metrics", exporter.address);
    let bytes = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let text = std::str::from_utf8(&bytes).expect("the whole scrape is UTF-8");
    assert!(text.contains("name=\"ODS - \u{fffd}\""), "{text}");
}

#[tokio::test]
async fn labels_have_the_three_escapes_of_the_format_only() {
    let label = "g</w> & \"q\" \\u003c c:\\new é 100%";
    let api = Api::start(Reply::listing(&[labelled("a", label)])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let written = "name=\"g</w> & \\\"q\\\" \\\\u003c c:\\\\new é 100%\"";
    for text in [exporter.text().await, open_metrics(&exporter).await] {
        assert!(text.contains(written), "{text}");
        let mut rest = text.as_str();
        while let Some((_, after)) = rest.split_once('\\') {
            assert!(after.starts_with(['\\', '"', 'n']), "{after:.40}");
            rest = &after[1..];
        }
    }
}

#[tokio::test]
async fn times_are_whole_unix_seconds_without_an_exponent() {
    let api = Api::start(listing(&["a"])).await;
    let exporter = Exporter::start(&api).await;
    exporter.up().await;
    let text = exporter.text().await;
    let line = "api_key_expiry_timestamp_seconds{account=\"default\",key_id=\"a\"} 4070908800\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn every_known_value_of_a_label_is_there_before_the_first_poll() {
    // Accepts connections and never answers.
    let api = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let url = format!("http://{}", api.local_addr().unwrap());
    let exporter = Exporter::with(&config(&url, "poll.attempts = 1", "")).await;
    let scrape = exporter.scrape().await;
    assert_eq!(scrape.account("polls_total"), Some(0.0));
    for (family, values) in [
        ("api_key_account_poll_failures_total", 21),
        ("api_key_account_changes_total", 7),
        ("api_key_account_keys_rejected", 3),
        ("api_key_account_keys{", 6),
    ] {
        let series = scrape.of(family);
        assert_eq!(series.len(), values, "{family}: {series:?}");
        assert!(series.iter().all(|(_, value)| *value == 0.0), "{series:?}");
    }
}
