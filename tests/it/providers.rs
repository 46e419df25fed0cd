//! The built-in definitions: each asks what its provider's documentation says and reads the facts
//! that are in its fixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use api_key_exporter::config::{Config, Sources};
use api_key_exporter::fake_api::shapes::{SampleExpiry, SampleKey, Shape};
use api_key_exporter::fake_api::{Authorization, FakeApi, Reply, Request};
use api_key_exporter::provider::Provider;
use api_key_exporter::secret::Token;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::{Exporter, Scrape, any_port, in_repository};

/// No fixture holds another secret, and nothing may ever show one.
const SECRETS: [&str; 4] = [
    "FAKE-SECRET",
    "fake-token",
    "fake-password",
    "c2FtcGxlOmZha2UtcGFzc3dvcmQ",
];

/// What a fixture says of the requests to a provider.
struct Exchange {
    token: String,
    authorization: (String, String),
    params: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    pages: Vec<Page>,
}

/// A request and its answer.
#[derive(Clone)]
struct Page {
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fields
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn folder(provider: &str) -> std::path::PathBuf {
    in_repository("tests/fixtures/providers").join(provider)
}

/// The names of the files in a folder, without what `suffix` is.
fn names(folder: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(in_repository(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .map(|name| name.strip_suffix(suffix).unwrap_or(&name).to_owned())
        .collect()
}

fn built_in() -> BTreeSet<String> {
    names("src/provider/definitions", ".toml")
}

fn exchange(provider: &str) -> Exchange {
    let file = json_file(&folder(provider).join("exchange.json"));
    let authorization = |at: usize| file["authorization"][at].as_str().unwrap().to_owned();
    let pages = (1..).zip(file["pages"].as_array().unwrap());
    let pages = pages.map(|(number, page)| Page {
        target: page["target"].as_str().unwrap().to_owned(),
        headers: texts(&page["headers"]),
        body: fs::read_to_string(folder(provider).join(format!("page-{number}.json"))).unwrap(),
    });
    Exchange {
        token: file["token"].as_str().unwrap().to_owned(),
        authorization: (authorization(0), authorization(1)),
        params: texts(&file["params"]),
        headers: texts(&file["headers"]),
        pages: pages.collect(),
    }
}

/// A target as its path and its parameters, whatever their order and their encoding.
fn parts(target: &str) -> (String, BTreeSet<(String, String)>) {
    let url = url::Url::parse("http://fake")
        .unwrap()
        .join(target)
        .unwrap();
    let (path, query) = (url.path().to_owned(), url.query_pairs());
    (path, query.into_owned().collect())
}

/// Serves the pages of a fixture, and 404 for every other request.
async fn serve(exchange: &Exchange) -> FakeApi {
    let (header, value) = exchange.authorization.clone();
    let authorization = Authorization {
        header,
        value,
        refusal: Reply::json(401, &json!({ "message": "refused" })),
    };
    let (pages, headers) = (exchange.pages.clone(), exchange.headers.clone());
    let answer = move |request: &Request| {
        let header = |name: &str| request.header(name).unwrap_or_default();
        let target = request.line.strip_prefix("GET ").unwrap();
        let page = pages
            .iter()
            .find(|page| parts(&page.target) == parts(target));
        let has_headers = headers.iter().all(|(name, value)| header(name) == value);
        let Some(page) = page.filter(|_| has_headers) else {
            return Reply::json(404, &json!({ "message": "another request" }));
        };
        let origin = format!("http://{}", header("host"));
        let filled = |text: &str| text.replace("{origin}", &origin);
        let reply = Reply::body(200, "application/json", filled(&page.body));
        page.headers.iter().fold(reply, |reply, (name, value)| {
            reply.header(name, &filled(value))
        })
    };
    FakeApi::start_with(any_port(), authorization, answer)
        .await
        .unwrap()
}

/// A configuration with an account for each of these, named like its provider.
fn config(fakes: &BTreeMap<String, (Exchange, FakeApi)>) -> Config {
    let mut text = "poll.attempts = 1\nmetrics.max_scopes_per_key = 100\n".to_owned();
    let mut environment = BTreeMap::new();
    for (number, (provider, (exchange, fake))) in fakes.iter().enumerate() {
        let variable = format!("TOKEN_{number}");
        environment.insert(variable.clone(), exchange.token.clone());
        writeln!(
            text,
            "[[accounts]]\nname = {provider:?}\nprovider = {provider:?}\ntoken_env = {variable:?}\n\
             base_url = \"http://{}\"",
            fake.address()
        )
        .unwrap();
        if !exchange.params.is_empty() {
            let params = exchange.params.iter();
            let params: Vec<_> = params
                .map(|(name, value)| format!("{name} = {value:?}"))
                .collect();
            writeln!(text, "params = {{ {} }}", params.join(", ")).unwrap();
        }
    }
    let sources = Sources {
        environment: environment.into_iter().collect(),
        ..Sources::default()
    };
    let mut config = Config::parse(&text, &sources).unwrap();
    for account in &mut config.accounts {
        // One poll is enough, and all of them start together.
        account.interval = Duration::from_secs(10);
    }
    config
}

fn seconds(time: &Value) -> Option<f64> {
    let time: DateTime<Utc> = time.as_str()?.parse().ok()?;
    Some(time.timestamp() as f64)
}

/// The label `name` of a series.
fn label<'a>(series: &'a str, name: &str) -> &'a str {
    let (_, rest) = series.split_once(&format!("{name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

/// Every fact that the metrics show of a key is the expected one, and no other is there.
fn assert_facts(scrape: &Scrape, provider: &str, key: &Value) {
    let id = key["id"].as_str().unwrap();
    let what = format!("{provider} {id}");
    let named = |family: &str| {
        scrape.get(&format!(
            "api_key_{family}{{account=\"{provider}\",key_id=\"{id}\"}}"
        ))
    };
    let flag = |is_set: bool| Some(f64::from(u8::from(is_set)));
    let expires = key["expires"].as_str().unwrap();
    let expiry = named("expiry_timestamp_seconds").map(f64::floor);
    assert_eq!(expiry, seconds(&key["expires"]), "{what}: expiry");
    assert_eq!(
        named("never_expires"),
        flag(expires == "never"),
        "{what}: never"
    );
    assert_eq!(
        named("expiry_unknown"),
        flag(expires == "unknown"),
        "{what}: unknown"
    );
    for (field, family) in [
        ("created", "created_timestamp_seconds"),
        ("updated", "updated_timestamp_seconds"),
        ("last_used", "last_used_timestamp_seconds"),
    ] {
        let shown = named(family).map(f64::floor);
        assert_eq!(shown, seconds(&key[field]), "{what}: {field}");
    }
    let is_disabled = key["disabled"] == json!(true);
    assert_eq!(
        named("disabled"),
        is_disabled.then_some(1.0),
        "{what}: disabled"
    );

    let series = |family: &str| {
        let of_key = format!("account=\"{provider}\",key_id=\"{id}\"");
        let all = scrape.of(&format!("api_key_{family}{{")).into_iter();
        let series = all.map(|(name, _)| name.to_owned());
        series
            .filter(move |name| name.contains(&of_key))
            .collect::<Vec<_>>()
    };
    let scopes = key["scopes"].as_array().map(|scopes| {
        let scopes = scopes.iter().map(|scope| scope.as_str().unwrap());
        scopes.collect::<BTreeSet<_>>()
    });
    let count = scopes.as_ref().map(|scopes| scopes.len() as f64);
    assert_eq!(named("scopes"), count, "{what}: scopes");
    let shown = series("scope_info");
    let shown: BTreeSet<_> = shown.iter().map(|series| label(series, "scope")).collect();
    assert_eq!(shown, scopes.unwrap_or_default(), "{what}: scopes");

    let entries = key["ip_allow_list"].as_array();
    let is_valid = |entry: &&Value| !entry.as_str().unwrap().contains(' ');
    let valid = entries.map(|entries| entries.iter().filter(is_valid).count() as f64);
    let invalid = entries.map(|it| it.len() as f64 - valid.unwrap_or_default());
    assert_eq!(named("ip_allow_list_entries"), valid, "{what}: allow list");
    assert_eq!(
        named("ip_allow_list_invalid_entries"),
        invalid,
        "{what}: allow list"
    );
    let all = ["0.0.0.0/0", "::/0"];
    let is_open = entries.map(|entries| {
        let is_all = |entry: &Value| all.contains(&entry.as_str().unwrap());
        entries.is_empty() || entries.iter().any(is_all)
    });
    assert_eq!(
        named("ip_unrestricted"),
        is_open.and_then(flag),
        "{what}: allow list"
    );

    let info = series("info");
    assert_eq!(info.len(), 1, "{what}: {info:?}");
    assert_eq!(label(&info[0], "provider"), provider, "{what}");
    assert_eq!(
        label(&info[0], "name"),
        key["label"].as_str().unwrap(),
        "{what}: label"
    );
    for absent in ["api_env", "mode", "organization_id"] {
        assert_eq!(label(&info[0], absent), "", "{what}: {absent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_built_in_definition_reads_the_facts_of_its_fixture() {
    assert_eq!(built_in(), names("tests/fixtures/providers", ""));
    let mut fakes = BTreeMap::new();
    for provider in built_in() {
        let exchange = exchange(&provider);
        let fake = serve(&exchange).await;
        fakes.insert(provider, (exchange, fake));
    }
    let exporter = Exporter::with(&config(&fakes)).await;
    let polled = |scrape: &Scrape| scrape.of("api_key_account_up{").len() == fakes.len();
    exporter.until("a poll of each provider", polled).await;
    let text = exporter.text().await;
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} is shown");
    }
    let scrape = Scrape::parse(&text);
    for (provider, (exchange, fake)) in &fakes {
        let up = scrape.get(&format!("api_key_account_up{{account=\"{provider}\"}}"));
        let requests = fake.requests();
        let failing = scrape.of(&format!("api_key_account_failing{{account=\"{provider}\""));
        let asked: Vec<_> = requests.iter().map(|it| &it.line["GET ".len()..]).collect();
        assert_eq!(up, Some(1.0), "{provider}: {failing:?} {asked:#?}");
        let asked: BTreeSet<_> = asked.into_iter().map(parts).collect();
        let expected = exchange
            .pages
            .iter()
            .map(|page| parts(&page.target))
            .collect();
        assert_eq!(asked, expected, "{provider}");
        let facts = json_file(&folder(provider).join("expected.json"));
        let facts = facts.as_array().unwrap();
        for key in facts {
            assert_facts(&scrape, provider, key);
        }
        let infos = scrape.of(&format!("api_key_info{{account=\"{provider}\""));
        assert_eq!(infos.len(), facts.len(), "{provider}: {infos:#?}");
    }
    exporter.stop().await;
}

/// A few keys of every kind, more than fit on a page of the fake API.
fn samples() -> Vec<SampleKey> {
    let start: DateTime<Utc> = "2026-11-25T00:00:00Z".parse().unwrap();
    let sample = |number: i64| SampleKey {
        id: (500 + number).to_string(),
        label: format!("key {number}"),
        expires_at: match number % 5 {
            3 => SampleExpiry::Never,
            4 => SampleExpiry::Unreadable,
            _ => SampleExpiry::At(start + TimeDelta::days(number * 20 - 40)),
        },
        created_at: start - TimeDelta::days(100 + number),
        last_used_at: (number % 2 == 0).then(|| start - TimeDelta::days(number)),
        scopes: ["read", "write", "admin"]
            .into_iter()
            .take(1 + usize::try_from(number % 3).unwrap())
            .map(str::to_owned)
            .collect(),
        ip_allow_list: vec![format!("192.0.2.{number}")],
        is_disabled: number == 7,
    };
    (0..20).map(sample).collect()
}

/// What the fake API says in any provider's form is what the exporter reads, over all pages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_api_serves_every_built_in_definition() {
    let mut fakes = BTreeMap::new();
    for provider in built_in() {
        let mut exchange = exchange(&provider);
        exchange.token = "sample:fake-token".to_owned();
        let fake = serve(&exchange).await;
        fakes.insert(provider, (exchange, fake));
    }
    // The first fakes only lend their addresses, so that the definitions can be read.
    let lists = config(&fakes).accounts;
    for account in &lists {
        let Provider::Json(list) = &account.provider else {
            panic!("{} is native", account.name);
        };
        let shape = Shape::new((**list).clone());
        let (exchange, fake) = fakes.get_mut(&account.name).unwrap();
        let token = Token::parse(exchange.token.as_bytes(), "test").unwrap();
        let authorization = shape.authorization(&token);
        let keys = samples();
        *fake = FakeApi::start_with(any_port(), authorization, move |request| {
            let origin = format!("http://{}", request.header("host").unwrap());
            shape.answer(request, &keys, &origin)
        })
        .await
        .unwrap();
    }
    let exporter = Exporter::with(&config(&fakes)).await;
    let polled = |scrape: &Scrape| scrape.of("api_key_account_up{").len() == fakes.len();
    let scrape = exporter.until("a poll of each provider", polled).await;
    for account in &lists {
        let provider = account.name.clone();
        let Provider::Json(list) = &account.provider else {
            unreachable!("seen above");
        };
        let facts = &list.definition().facts;
        let (_, fake) = &fakes[&provider];
        let failing = scrape.of(&format!("api_key_account_failing{{account=\"{provider}\""));
        let asked: Vec<_> = fake.requests().into_iter().map(|it| it.line).collect();
        assert!(failing.is_empty(), "{provider}: {failing:?} {asked:#?}");
        let listed = |key: &SampleKey| !key.is_disabled || !facts.disabled.is_empty();
        let keys: Vec<_> = samples().into_iter().filter(listed).collect();
        let infos = scrape.of(&format!("api_key_info{{account=\"{provider}\""));
        assert_eq!(infos.len(), keys.len(), "{provider}: {asked:#?}");
        for key in keys {
            let named = |family: &str| {
                scrape.get(&format!(
                    "api_key_{family}{{account=\"{provider}\",key_id=\"{}\"}}",
                    key.id
                ))
            };
            let what = format!("{provider} {}", key.id);
            let time = |time: DateTime<Utc>| Some(time.timestamp() as f64);
            let (expiry, never, unknown) = match key.expires_at {
                SampleExpiry::At(at) => (time(at), 0.0, 0.0),
                SampleExpiry::Never => (None, 1.0, 0.0),
                SampleExpiry::Unreadable => (None, 0.0, 1.0),
            };
            assert_eq!(named("expiry_timestamp_seconds"), expiry, "{what}");
            assert_eq!(named("never_expires"), Some(never), "{what}");
            assert_eq!(named("expiry_unknown"), Some(unknown), "{what}");
            let created = facts.created_at.as_ref().and(time(key.created_at));
            assert_eq!(named("created_timestamp_seconds"), created, "{what}");
            let last_used = facts
                .last_used_at
                .as_ref()
                .and(key.last_used_at.and_then(time));
            assert_eq!(named("last_used_timestamp_seconds"), last_used, "{what}");
            let scopes = facts.scopes.as_ref().map(|_| key.scopes.len() as f64);
            assert_eq!(named("scopes"), scopes, "{what}");
            let entries = facts.ip_allow_list.as_ref().map(|_| 1.0);
            assert_eq!(named("ip_allow_list_entries"), entries, "{what}");
            assert_eq!(named("disabled"), key.is_disabled.then_some(1.0), "{what}");
        }
    }
    exporter.stop().await;
}

/// A definition that could not be checked against anything has no place here.
#[test]
fn every_built_in_definition_names_its_source_and_is_documented() {
    let page = fs::read_to_string(in_repository("docs/providers.md")).unwrap();
    for provider in built_in() {
        let path = in_repository("src/provider/definitions").join(format!("{provider}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        let comment: Vec<_> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .collect();
        let comment = comment.join(" ");
        assert!(comment.contains("Source:"), "{provider} names no source");
        assert!(comment.contains("Checked on"), "{provider} has no date");
        let row = format!("| [`{provider}`](#");
        assert!(
            page.contains(&row),
            "docs/providers.md has no row for {provider}"
        );
    }
}

/// Reads an example, with a token of the environment for each file: those are not there.
pub(crate) fn example(text: &str) -> Config {
    let lines = text.lines().filter(|line| !line.starts_with("ca_file"));
    let lines = lines.map(|line| {
        if line.starts_with("token_file") {
            "token_env = \"TOKEN\""
        } else {
            line
        }
    });
    let variable = |name: &str| (name.to_owned(), "user:fake-token".to_owned());
    // The second one is for examples of other things than accounts.
    let environment = [variable("TOKEN"), variable("BITGPT_API_KEY")].into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    let config = Config::parse(&lines.collect::<Vec<_>>().join("\n"), &sources);
    config.unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The examples of the documentation are valid, and between them they name every provider.
#[test]
fn the_documented_accounts_are_valid() {
    let page = fs::read_to_string(in_repository("docs/providers.md")).unwrap();
    let (page, own) = page.split_once("## Your own provider").unwrap();
    let blocks = page.split("```toml\n").skip(1);
    let mut text = String::new();
    for (number, block) in blocks.enumerate() {
        let block = block.split_once("```").unwrap().0;
        // Names repeat from section to section.
        text += &block.replace("\nname = \"", &format!("\nname = \"{number}-"));
    }
    let config = example(&text);
    let named = |provider: &String| text.contains(&format!("provider = \"{provider}\"\n"));
    let missing: Vec<_> = built_in().into_iter().filter(|it| !named(it)).collect();
    assert!(missing.is_empty(), "no example for {missing:?}");
    assert!(config.accounts.len() > 20);

    // The steps of one's own provider make one configuration together.
    let steps = own.split("```toml partial\n").skip(1);
    let steps = steps.map(|step| step.split_once("```").unwrap().0.replace("\n   ", "\n"));
    let config = example(
        &steps
            .map(|step| step.trim_start().to_owned())
            .collect::<String>(),
    );
    assert_eq!(config.accounts[0].provider.profile().name, "acme");
}

/// The three providers of the example configuration, which are in a comment.
#[test]
fn the_example_of_three_providers_is_valid() {
    let example = fs::read_to_string(in_repository("config.example.toml")).unwrap();
    let lines = example
        .lines()
        .filter_map(|line| line.strip_prefix("#     "));
    let config = self::example(&lines.collect::<Vec<_>>().join("\n"));
    let names: Vec<_> = config
        .accounts
        .iter()
        .map(|it| it.provider.profile().name.clone())
        .collect();
    assert_eq!(names, ["bitgpt", "gitlab", "cloudflare"]);
}
