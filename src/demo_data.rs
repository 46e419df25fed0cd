//! The demo's data: a varied set of keys and the API's answers, which include occasional errors.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::fake_api::shapes::{SampleExpiry, SampleKey, Shape};
use crate::fake_api::{Framing, Reply, Request};

/// The demo's token. It is not a secret: only the fake API accepts it.
pub(crate) const TOKEN: &str = "sk_test_ZGVtby1rZXktb2YtdGhlLWV4cG9ydGVyLWl0c2VsZg";

/// The token for other providers; some expect a user and a password.
pub(crate) const SHAPED_TOKEN: &str = "demo:the-token-of-the-demo";

/// The lifetime of a deployment key, after which the next one replaces it: short enough to watch.
const DEPLOY_KEY_LIFE: TimeDelta = TimeDelta::minutes(10);

/// The answer to request number `asked`, counting from 1: every third is an error, each time a
/// different one.
pub(crate) fn answer(
    request: &Request,
    asked: usize,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Reply {
    if !request.line.starts_with("GET /developers/api_keys") {
        return Reply::error(404, "Resource not found", &support_id(asked));
    }
    let reply = if asked.is_multiple_of(3) {
        trouble(asked / 3 - 1, asked)
    } else {
        Reply::listing(&keys(start, now))
    };
    reply.header("Date", &http_date(now))
}

/// What answers a request for an origin in another provider's format; the number is that of the
/// poll, counting from 1.
pub(crate) type ShapedAnswer =
    fn(&Shape, &Request, &str, usize, DateTime<Utc>, DateTime<Utc>) -> Reply;

/// The answer to a request for `origin`, in another provider's format. `polls` is the number of
/// this poll, counting from 1: every third fails.
pub(crate) fn shaped_answer(
    shape: &Shape,
    request: &Request,
    origin: &str,
    polls: usize,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Reply {
    if polls.is_multiple_of(3) {
        return shaped_trouble(shape, polls / 3 - 1);
    }
    let keys = sample_keys(
        &shape.privileged_scopes(),
        shape.has_dates_only(),
        start,
        now,
    );
    shape
        .answer(request, &keys, origin)
        .header("Date", &http_date(now))
}

/// The answer for the account of another provider: three keys, one of which was revoked.
pub(crate) fn code_answer(
    shape: &Shape,
    request: &Request,
    origin: &str,
    _polls: usize,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Reply {
    let rows: &[Row] = &[
        ("ci: deploy", Some(25 * DAY), -60 * DAY, CI, &[]),
        ("backup of the code", Some(200 * DAY), -100 * DAY, CI, &[]),
        REVOKED,
    ];
    let samples = (1..).zip(rows);
    let mut keys: Vec<_> = samples
        .map(|(number, row)| sample_key(number, row, &[], start, now))
        .collect();
    if let Some(revoked) = keys.last_mut() {
        revoked.is_disabled = true;
    }
    shape
        .answer(request, &keys, origin)
        .header("Date", &http_date(now))
}

/// Cycles through the errors.
fn shaped_trouble(shape: &Shape, number: usize) -> Reply {
    match number % 6 {
        0 => shape.failure(500, "An unexpected error occurred"),
        1 => shape
            .failure(429, "Too many requests")
            .header("Retry-After", "20"),
        2 => bad_gateway(),
        3 => shape.failure(403, "The token must not list tokens"),
        4 => Reply {
            framing: Framing::FalseLength(1_000_000),
            ..Reply::body(200, "application/json", "[{\"id\": 1, \"na")
        },
        _ => shape.failure(503, "Down for maintenance"),
    }
}

fn bad_gateway() -> Reply {
    let page = "<html><body><h1>502 Bad Gateway</h1></body></html>\n";
    Reply::body(502, "text/html", page)
}

fn http_date(now: DateTime<Utc>) -> String {
    now.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The page of one key: the fields of the listing plus its usage, with the full secret, as the real
/// API sends it. Every third key was last used months ago, and one never.
pub(crate) fn page(id: &str, start: DateTime<Utc>, now: DateTime<Utc>) -> Reply {
    let keys = keys(start, now);
    let found = (1_i64..)
        .zip(keys)
        .find(|(_, key)| key.get("id") == Some(&json!(id)));
    let Some((number, mut key)) = found else {
        return Reply::error(404, "Resource not found", &support_id(0));
    };
    let last_used_at = last_used_at(number, now).map(plain);
    set(
        &mut key,
        "secret",
        json!(format!("sk_live_ZGVtbyBrZXkgaW4gZnVsbA{number:06}")),
    );
    set(&mut key, "description", Value::Null);
    let metrics = json!({
        "api_key_id": id,
        "total_requests": last_used_at.as_ref().map_or(0, |_| number * 1_250),
        "last_used_at": last_used_at
    });
    set(&mut key, "metrics", metrics);
    Reply::page(&key)
}

/// Cycles through the errors.
fn trouble(number: usize, asked: usize) -> Reply {
    let id = support_id(asked);
    match number % 8 {
        0 => Reply::error(500, "An unexpected error occurred", &id),
        1 => Reply::error(429, "Too many requests", &id).header("Retry-After", "20"),
        2 => Reply::json(
            400,
            &json!({
                "status": 400, "data": null, "error": "Validation failed", "log": { "request_id": "req_1234567890" },
                "validator": { "page": "The page field must be a positive integer." }, "support_id": id,
                "message": "The request was malformed", "env": "development"
            }),
        ),
        3 => Reply::json(
            200,
            &json!({
                "status": 200, "data": [], "error": "Listing is temporarily unavailable",
                "log": "Some pertinent log message", "validator": null, "support_id": id, "message": null,
                "env": "development"
            }),
        ),
        4 => bad_gateway(),
        5 => Reply::error(403, "Missing scope api_keys.read", &id),
        6 => Reply {
            framing: Framing::FalseLength(1_000_000),
            ..Reply::body(200, "application/json", "{\"status\": 200, \"da")
        },
        _ => Reply::error(503, "Down for maintenance", &id),
    }
}

/// A support id in the documented format, different for each request.
fn support_id(asked: usize) -> String {
    format!("support_0197c0ec-a197-719f-84a9-{asked:012x}")
}

/// One of the demo's keys: its label; when it expires and when it was created, in hours from the
/// start; its scopes; its allow list.
type Row = (
    &'static str,
    Option<i64>,
    i64,
    &'static [&'static str],
    &'static [&'static str],
);

const DAY: i64 = 24;
const OFFICE: &[&str] = &["203.0.113.0/24", "2001:db8:1::17"];
const READ: &[&str] = &["payments.read", "invoices.read"];
const ADMIN: &[&str] = &[
    "api_keys.create",
    "api_keys.delete",
    "users.deactivate",
    "organizations.update",
];
const CI: &[&str] = &["read_repository"];
const DATA_CENTRE: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "172.16.0.0/12"];

const ROWS: &[Row] = &[
    (
        "expired: nightly export",
        Some(-20),
        -90 * DAY,
        READ,
        OFFICE,
    ),
    (
        "expired long ago",
        Some(-200 * DAY),
        -565 * DAY,
        &["products.read"],
        &["198.51.100.7"],
    ),
    (
        "hours left: checkout",
        Some(9),
        -364 * DAY,
        &["payments.create", "payments.read"],
        OFFICE,
    ),
    (
        "days left: webhooks",
        Some(5 * DAY),
        -85 * DAY,
        &["webhooks.create", "webhooks.read"],
        OFFICE,
    ),
    (
        "weeks left: invoicing",
        Some(21 * DAY),
        -160 * DAY,
        &["invoices.update"],
        &["192.0.2.10", "192.0.2.11"],
    ),
    (
        "months left: reporting",
        Some(150 * DAY),
        -30 * DAY,
        READ,
        &["198.51.100.0/28"],
    ),
    (
        "never expires: legacy cron",
        None,
        -900 * DAY,
        &["products.read"],
        &["192.0.2.99"],
    ),
    (
        "no allow list: laptop",
        Some(60 * DAY),
        -30 * DAY,
        &["products.read"],
        &[],
    ),
    (
        "wide allow list: data centre",
        Some(300 * DAY),
        -65 * DAY,
        &["payments.create"],
        DATA_CENTRE,
    ),
    (
        "privileged: admin",
        Some(45 * DAY),
        -320 * DAY,
        ADMIN,
        OFFICE,
    ),
    (
        "odd: \"quotes\", back\\slash, <b>, ü, 鍵",
        Some(120 * DAY),
        -3 * DAY,
        READ,
        &["not-an-address", "::1"],
    ),
    // Two keys with the same name: the newer one supersedes the older one.
    (
        "rotated: shop",
        Some(12 * DAY),
        -353 * DAY,
        &["products.update"],
        OFFICE,
    ),
    (
        "rotated: shop",
        Some(365 * DAY),
        -DAY,
        &["products.update"],
        OFFICE,
    ),
    (
        OWN,
        Some(80 * DAY),
        -10 * DAY,
        &["api_keys.read"],
        &["127.0.0.1"],
    ),
    (UNREADABLE, None, -40 * DAY, &["products.read"], OFFICE),
];

/// A key that its provider reports as revoked.
const REVOKED: Row = (
    "revoked: lost laptop",
    Some(3 * DAY),
    -80 * DAY,
    READ,
    OFFICE,
);

/// The key that the demo's exporter uses itself.
const OWN: &str = "api-key-exporter itself";

/// A key with an expiry that cannot be parsed.
const UNREADABLE: &str = "expiry that nobody can read";

/// Time from the start to the expiry of a key that the API then hides: at least one poll lists the
/// key before.
const HIDDEN_AFTER: TimeDelta = TimeDelta::seconds(15);

/// A varied set of keys, as of `now`.
fn keys(start: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Value> {
    let rows = (1..).zip(ROWS);
    let mut keys: Vec<Value> = rows.map(|(number, row)| key(number, row, start)).collect();
    let hidden_at = start + HIDDEN_AFTER;
    // The listing has whole seconds.
    if now.timestamp() < hidden_at.timestamp() {
        let row = (
            "hidden once expired: partner",
            None,
            -30 * DAY,
            READ,
            OFFICE,
        );
        let mut hidden = key(98, &row, start);
        set(&mut hidden, "expires_at", json!(plain(hidden_at)));
        keys.push(hidden);
    }
    keys.push(deploy_key(now));
    keys
}

/// The same set of keys for providers other than BitGPT, plus a revoked one. `privileged` are
/// scopes that count as privileged; `has_dates_only` is set where the provider cannot write a time
/// of day.
fn sample_keys(
    privileged: &[String],
    has_dates_only: bool,
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Vec<SampleKey> {
    let sample = |number, row| sample_key(number, row, privileged, start, now);
    let rows = ROWS.iter().filter(|(label, ..)| *label != OWN);
    let mut keys: Vec<_> = (1..)
        .zip(rows)
        .map(|(number, row)| sample(number, row))
        .collect();
    keys.push(SampleKey {
        is_disabled: true,
        ..sample(99, &REVOKED)
    });
    let (number, deployed_at) = deployment(now);
    // A date cannot express ten minutes.
    if has_dates_only {
        return keys;
    }
    keys.push(SampleKey {
        id: number.to_string(),
        expires_at: SampleExpiry::At(deployed_at + DEPLOY_KEY_LIFE),
        created_at: deployed_at,
        ..sample(0, &("minutes left: deployment", None, 0, READ, OFFICE))
    });
    keys
}

/// A key as a fake provider lists it; see [`sample_keys`].
fn sample_key(
    number: i64,
    row: &Row,
    privileged: &[String],
    start: DateTime<Utc>,
    now: DateTime<Utc>,
) -> SampleKey {
    let owned = |texts: &[&str]| texts.iter().copied().map(str::to_owned).collect();
    let (label, expires_in, created_in, scopes, ip_allow_list) = *row;
    let at = |hours: i64| start + TimeDelta::hours(hours);
    SampleKey {
        id: (1_000 + number).to_string(),
        label: label.to_owned(),
        expires_at: match expires_in {
            _ if label == UNREADABLE => SampleExpiry::Unreadable,
            Some(hours) => SampleExpiry::At(at(hours)),
            None => SampleExpiry::Never,
        },
        created_at: at(created_in),
        last_used_at: last_used_at(number, now),
        scopes: if scopes == ADMIN && !privileged.is_empty() {
            privileged.to_vec()
        } else {
            owned(scopes)
        },
        ip_allow_list: owned(ip_allow_list),
        is_disabled: false,
    }
}

/// When a key was last used: one never, and every third one months ago.
fn last_used_at(number: i64, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match number {
        7 => None,
        _ if number % 3 == 0 => Some(now - TimeDelta::days(100 + number)),
        _ => Some(now - TimeDelta::minutes(number * 7)),
    }
}

/// The number and the start of the deployment that `now` is in.
fn deployment(now: DateTime<Utc>) -> (i64, DateTime<Utc>) {
    let life = DEPLOY_KEY_LIFE.num_seconds();
    let number = now.timestamp().div_euclid(life);
    let start = DateTime::from_timestamp(number * life, 0).unwrap_or(now);
    (number, start)
}

/// A key that lives for ten minutes and is then replaced, so that a user can watch its whole
/// lifetime.
fn deploy_key(now: DateTime<Utc>) -> Value {
    let (number, start) = deployment(now);
    let mut key = key(
        0,
        &(
            "minutes left: deployment",
            None,
            0,
            &["products.update"],
            &["192.0.2.20"],
        ),
        now,
    );
    set(
        &mut key,
        "id",
        json!(format!("api_key_0197c0ec-dddd-719f-84a9-{number:012x}")),
    );
    set(&mut key, "created_at", json!(plain(start)));
    set(
        &mut key,
        "expires_at",
        json!(plain(start + DEPLOY_KEY_LIFE)),
    );
    key
}

fn key(number: u32, row: &Row, start: DateTime<Utc>) -> Value {
    let (label, expires_in, created_in, scopes, ip_allow_list) = *row;
    let at = |hours: i64| start + TimeDelta::hours(hours);
    // The documentation shows both time formats, so the demo uses both.
    let form = if number % 4 == 2 { rfc3339 } else { plain };
    let mut key = json!({
        "id": format!("api_key_0197c0ec-a197-719f-84a9-{number:012x}"),
        "label": label,
        "organization_id": "org_0197c0ec-a197-719f-84a9-0000000000aa",
        "secret": format!("sk_{}_ZGVtbyBrZXkg{number:02}...{number:05}", if number == 8 { "test" } else { "live" }),
        "scopes": scopes,
        "ip_allow_list": ip_allow_list,
        "expires_at": expires_in.map(|hours| form(at(hours))),
        "created_at": plain(at(created_in)),
        "updated_at": null
    });
    match label {
        OWN => set(&mut key, "secret", json!(masked(TOKEN))),
        UNREADABLE => set(&mut key, "expires_at", json!("0000-00-00 00:00:00")),
        _ => {}
    }
    key
}

fn plain(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn set(key: &mut Value, field: &str, value: Value) {
    if let Some(fields) = key.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// A secret as the API shows it: its start, three dots, and its last five characters.
fn masked(secret: &str) -> String {
    let start = secret.get(..20).unwrap_or(secret);
    let end = secret
        .get(secret.len().saturating_sub(5)..)
        .unwrap_or_default();
    format!("{start}...{end}")
}
