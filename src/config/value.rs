//! What a value of the merged layers holds, whatever layer it came from. Pure.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind of value is just not the wished one"
)]

use config::{Map, Value, ValueKind};

use crate::config::Flag;
use crate::config::problem::shown;

/// What the config crate calls the origin of an environment value; a value from the file has no
/// origin.
pub(super) const ENVIRONMENT: &str = "the environment";

pub(super) fn is_set(value: &Value) -> bool {
    !matches!(value.kind, ValueKind::Nil)
}

pub(super) fn table(value: Value) -> Result<Map<String, Value>, Value> {
    match value.kind {
        ValueKind::Table(table) => Ok(table),
        _ => Err(value),
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, Value> {
    match value.kind {
        ValueKind::Array(values) => Ok(values),
        _ => Err(value),
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) => Some(text),
        _ => None,
    }
}

/// A whole number; as text only where everything is text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// A number with or without a fraction; as text only where everything is text.
pub(super) fn fraction(value: &Value) -> Option<f64> {
    match &value.kind {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => number.to_string().parse().ok(),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// True or false; as text only where everything is text.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match &value.kind {
        ValueKind::Boolean(flag) => Some(*flag),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// A list of texts; from the environment, one text with commas.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match &value.kind {
        ValueKind::String(text) if value.origin() == Some(ENVIRONMENT) => Some(
            text.split(',')
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .collect(),
        ),
        ValueKind::Array(values) => values
            .iter()
            .map(|value| text(value).map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// Where the value comes from, and the dotted path below it that says so: empty, but for a table
/// that no file wrote, which comes from where its first entry does.
pub(super) fn origin(value: &Value) -> (String, Option<&str>) {
    let ValueKind::Table(table) = &value.kind else {
        return (String::new(), value.origin());
    };
    let entries = table.iter().map(|(name, value)| {
        let (below, origin) = origin(value);
        (format!(".{name}{below}"), origin)
    });
    let entries: Vec<(String, Option<&str>)> = entries.collect();
    let first = entries.iter().min();
    match first.filter(|_| entries.iter().all(|(_, origin)| origin.is_some())) {
        Some(first) => first.clone(),
        None => (String::new(), None),
    }
}

/// The value as people may see it; lists and tables may hold anything and are not shown.
pub(super) fn as_shown(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(shown(text)),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Lays one flag over the values, as a list where it may be repeated.
pub(super) fn lay_flag(values: &mut Map<String, Value>, flag: &Flag) {
    let Some((section, name)) = flag.path.split_once('.') else {
        return;
    };
    let origin = flag.spelling.to_owned();
    let text = |text: &String| Value::new(Some(&origin), text.clone());
    let value = match flag.values.as_slice() {
        [one] if !flag.is_list => text(one),
        several => Value::new(
            Some(&origin),
            several.iter().map(text).collect::<Vec<Value>>(),
        ),
    };
    let table = values
        .entry(section.to_owned())
        .or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
    // Something else than a table is a problem of its own, named when the section is read.
    if let ValueKind::Table(table) = &mut table.kind {
        table.insert(name.to_owned(), value);
    }
}

/// Whether the value comes from where everything is text, so that a number in text is meant as one.
fn is_text_only(value: &Value) -> bool {
    value.origin().is_some()
}
