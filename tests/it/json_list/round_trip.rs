//! Definitions and answers made by chance: what is written in the shape of a definition is read
//! back with it.

use api_key_exporter::domain::allow_list::AllowList;
use api_key_exporter::domain::key::{Expiry, Key, LastUse, Scopes};
use api_key_exporter::domain::text::{Label, Name};
use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::{answer, json_list};

/// Names of fields, of all kinds that JSON allows.
const NAMES: [&str; 8] = ["a", "b c", "d/e", "f~g", "é", "", "data", "0x"];

const FORMATS: [&str; 6] = [
    "format = \"rfc3339\"",
    "format = \"naive_utc\"",
    "format = \"date\"",
    "format = \"date\", ends = \"end_of_day\"",
    "format = \"unix\"",
    "format = \"unix_ms\"",
];

/// A pointer as its steps; those of different fields never meet.
#[derive(Clone)]
struct Steps(Vec<String>);

impl Steps {
    fn random(random: &mut Rng, first: &str) -> Self {
        let mut steps = vec![first.to_owned()];
        for _ in 0..random.usize(..3) {
            // A list's element now and then.
            let index = random.usize(..2).to_string();
            let name = (*random.choice(NAMES.iter()).unwrap()).to_owned();
            steps.push(if random.u8(..4) == 0 { index } else { name });
        }
        Self(steps)
    }

    fn pointer(&self) -> String {
        let steps = self.0.iter();
        let steps = steps.map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
        steps.collect()
    }

    /// Puts `leaf` where the steps lead.
    fn put(&self, into: &mut Value, leaf: Value) {
        let mut place = into;
        for step in &self.0 {
            if let (Ok(index), true) = (step.parse::<usize>(), !place.is_object()) {
                if !place.is_array() {
                    *place = Value::Array(vec![Value::Null; 3]);
                }
                place = &mut place[index];
                continue;
            }
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[step.as_str()];
        }
        *place = leaf;
    }
}

/// A field of a definition, and how its values are written.
struct TimeField {
    option: &'static str,
    steps: Steps,
    is_outer: bool,
    format: &'static str,
}

impl TimeField {
    fn random(random: &mut Rng, option: &'static str, is_nested: bool) -> Self {
        Self {
            option,
            steps: Steps::random(random, option),
            is_outer: is_nested && random.bool(),
            format: FORMATS[random.usize(..FORMATS.len())],
        }
    }

    fn definition(&self) -> String {
        let (option, format) = (self.option, self.format);
        let at = place(&self.steps, self.is_outer);
        format!("{option} = {{ at = {at}, {format} }}\n")
    }

    /// A moment that the format can write, and what it writes.
    fn random_moment(&self, random: &mut Rng) -> (DateTime<Utc>, Value) {
        let seconds = random.i64(946_684_800..4_102_444_800);
        let day = seconds - seconds.rem_euclid(86_400);
        let moment = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let at = moment(seconds);
        match self.format {
            "format = \"rfc3339\"" => {
                let zone = ["Z", "+00:00", ".5Z"][random.usize(..3)];
                let fraction = if zone == ".5Z" { 500 } else { 0 };
                let text = format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S"));
                (at + TimeDelta::milliseconds(fraction), json!(text))
            }
            "format = \"naive_utc\"" => (at, json!(at.format("%Y-%m-%d %H:%M:%S").to_string())),
            "format = \"unix\"" => (at, json!(seconds)),
            "format = \"unix_ms\"" => (at, json!(seconds * 1_000)),
            format => {
                let text = moment(day).format("%Y-%m-%d").to_string();
                let days = i64::from(format.contains("end_of_day"));
                (moment(day + days * 86_400), json!(text))
            }
        }
    }
}

fn place(steps: &Steps, is_outer: bool) -> String {
    let outer = if is_outer { "^" } else { "" };
    format!("{:?}", format!("{outer}{}", steps.pointer()))
}

/// A definition, and the ways to its fields.
struct Shape {
    items: Steps,
    nested: Option<Steps>,
    id: Steps,
    is_id_number: bool,
    label: Steps,
    times: [TimeField; 4],
    scopes: Steps,
    scopes_kind: usize,
    list: Steps,
    disabled: Steps,
}

impl Shape {
    fn random(random: &mut Rng) -> Self {
        let nested = random.bool().then(|| Steps::random(random, "inner"));
        let is_nested = nested.is_some();
        let mut items = Steps::random(random, "data");
        items.0.truncate(random.usize(..3));
        // A list around the list would have other elements.
        items.0.retain(|step| step.parse::<usize>().is_err());
        let options = ["expires_at", "created_at", "updated_at", "last_used_at"];
        Self {
            items,
            nested,
            id: Steps::random(random, "id"),
            is_id_number: random.bool(),
            label: Steps::random(random, "name"),
            times: options.map(|option| TimeField::random(random, option, is_nested)),
            scopes: Steps::random(random, "scopes"),
            scopes_kind: random.usize(..4),
            list: Steps::random(random, "allowed"),
            disabled: Steps::random(random, "revoked"),
        }
    }

    fn definition(&self) -> String {
        let is_nested = self.nested.is_some();
        let nested = self.nested.iter();
        let nested = nested.map(|steps| format!("nested = {:?}\n", steps.pointer()));
        let scopes = self.scopes.pointer();
        let scopes = match self.scopes_kind {
            0 => format!("scopes = {{ at = {scopes:?}, split = \",\" }}\n"),
            1 => format!("scopes = {:?}\n", format!("{scopes}/*/name")),
            _ => format!("scopes = {scopes:?}\n"),
        };
        let disabled = self.disabled.pointer();
        [
            format!("items = {:?}\n", self.items.pointer()),
            nested.collect(),
            format!("id = {:?}\n", self.id.pointer()),
            format!("label = {}\n", place(&self.label, is_nested)),
            self.times.each_ref().map(TimeField::definition).concat(),
            scopes,
            format!("ip_allow_list = {:?}\n", self.list.pointer()),
            format!("disabled = [{{ at = {disabled:?}, is = true }}]\n"),
        ]
        .concat()
    }

    fn write_scopes(&self, scopes: &[String]) -> Value {
        match self.scopes_kind {
            0 => json!(scopes.join(",")),
            1 => scopes
                .iter()
                .map(|scope| json!({ "id": 1, "name": scope }))
                .collect(),
            2 => Value::Object(scopes.iter().map(|it| (it.clone(), json!({}))).collect()),
            _ => json!(scopes),
        }
    }

    /// A key and its item; `outer` is what it has in common with others.
    fn random_key(&self, random: &mut Rng, number: usize, outer: &Outer, item: &mut Value) -> Key {
        // Fields that nobody asked for, secrets among them.
        for name in ["token", "hash", "other"] {
            item[name] = json!([{ "deep": [number, "Zm9ybXVsYQ"] }]);
        }
        let id = if self.is_id_number {
            json!(number)
        } else {
            json!(number.to_string())
        };
        self.id.put(item, id);
        let moments = self.times.each_ref().map(|field| {
            let written = outer
                .moments
                .iter()
                .find(|(option, _)| *option == field.option);
            if field.is_outer {
                return written.unwrap().1;
            }
            let moment = random.bool().then(|| field.random_moment(random));
            if let Some((_, value)) = &moment {
                field.steps.put(item, value.clone());
            }
            moment.map(|(moment, _)| moment)
        });
        let [expires_at, created_at, updated_at, last_used_at] = moments;
        let scopes: Vec<String> = (0..random.usize(..4))
            .map(|it| format!("s{it}:x"))
            .collect();
        self.scopes.put(item, self.write_scopes(&scopes));
        let list = [
            vec![],
            vec!["10.0.0.0/8"],
            vec!["192.0.2.1", "2001:db8::/32"],
        ];
        let list = random.choice(list).unwrap();
        self.list.put(item, json!(list));
        let is_disabled = random.bool();
        self.disabled.put(item, json!(is_disabled));
        let mut key = super::only("", &format!("{{\"id\":\"{number}\"}}"));
        key.label = outer.label.as_deref().and_then(|it| Label::saved(it, true));
        key.expiry = expires_at.map_or(Expiry::Never, Expiry::At);
        (key.created_at, key.updated_at) = (created_at, updated_at);
        key.scopes = Some(Scopes::new(
            scopes.iter().map(|it| Name::saved(it)).collect(),
        ));
        key.allow_list = Some(AllowList::parse(list.into_iter().map(Some)));
        key.is_disabled = is_disabled;
        let used = super::only(
            "last_used_at = { at = \"/x\", format = \"unix\" }",
            "{\"id\":1}",
        );
        key.details = used.details;
        key.details.as_mut().unwrap().last_use = last_used_at.map_or(LastUse::Never, LastUse::At);
        key
    }
}

/// What an outer item says of all of its keys.
struct Outer {
    label: Option<String>,
    moments: Vec<(&'static str, Option<DateTime<Utc>>)>,
}

impl Outer {
    fn random(shape: &Shape, random: &mut Rng, item: &mut Value) -> Self {
        let label = random.bool().then(|| format!("label {}", random.u8(..)));
        if let Some(label) = &label {
            shape.label.put(item, json!(label));
        }
        let moments = shape
            .times
            .iter()
            .filter(|field| field.is_outer)
            .map(|field| {
                let moment = random.bool().then(|| field.random_moment(random));
                if let Some((_, value)) = &moment {
                    field.steps.put(item, value.clone());
                }
                (field.option, moment.map(|(moment, _)| moment))
            });
        let moments = moments.collect();
        Self { label, moments }
    }
}

#[test]
fn what_is_written_in_the_shape_of_a_definition_is_read_back_with_it() {
    for seed in 0..400 {
        let random = &mut Rng::with_seed(seed);
        let shape = Shape::random(random);
        let (mut keys, mut items) = (Vec::new(), Vec::new());
        // More would exceed the limit of these tests.
        while keys.len() < random.usize(1..5) {
            let mut item = json!({ "unasked": null });
            let outer = Outer::random(&shape, random, &mut item);
            let Some(nested) = &shape.nested else {
                keys.push(shape.random_key(random, keys.len(), &outer, &mut item));
                items.push(item);
                continue;
            };
            let mut inner = Vec::new();
            for _ in 0..random.usize(1..3).min(5 - keys.len()) {
                let mut one = json!({});
                keys.push(shape.random_key(random, keys.len(), &outer, &mut one));
                inner.push(one);
            }
            nested.put(&mut item, json!(inner));
            items.push(item);
        }
        let mut body = json!(null);
        shape.items.put(&mut body, json!(items));
        let (definition, body) = (shape.definition(), body.to_string());
        let listed = answer(&json_list(&definition), 200, &[], &body);
        let listed = listed.unwrap_or_else(|failure| panic!("{definition}\n{body}\n{failure:?}"));
        let listing = listed.listing;
        assert_eq!(listing.rejects().total(), 0, "{seed}\n{definition}\n{body}");
        assert_eq!(listing.keys(), keys, "{seed}\n{definition}\n{body}");
        let shown = format!("{listing:?}");
        assert!(!shown.contains("Zm9ybXVsYQ"), "{shown}");
    }
}
