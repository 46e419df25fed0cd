//! Access to a value of the merged layers, whatever its layer. Pure.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other kind of value is just not the wished one"
)]

use config::{Map, Value, ValueKind};

use crate::config::Flag;
use crate::config::problem::{Place, shown};
use crate::domain::text::REDACTED;

/// The config crate's origin text for environment values.
const ENVIRONMENT: &str = "the environment";

/// The prefix of the origin of file values; flags start with a dash.
const FILE: &str = "file ";

/// The location of an option in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Places {
    /// The location of its name.
    pub(super) key: Place,
    /// The location of its value.
    pub(super) value: Place,
}

impl Places {
    /// As text, which the config crate stores beside the value.
    pub(super) fn to_origin(self) -> String {
        format!("{FILE}{}:{}", self.key, self.value)
    }

    fn parse(origin: &str) -> Option<Self> {
        let numbers = origin.strip_prefix(FILE)?.split(':');
        let numbers: Result<Vec<usize>, _> = numbers.map(str::parse).collect();
        match numbers.ok()?.as_slice() {
            &[line, column, value_line, value_column] => Some(Self {
                key: Place { line, column },
                value: Place {
                    line: value_line,
                    column: value_column,
                },
            }),
            _ => None,
        }
    }
}

/// The layer that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer<'a> {
    /// The file comes first: people look there first.
    File(Places),
    Environment,
    /// A flag, as it is spelled.
    Flag(&'a str),
}

/// The layer of `value` itself; `None` for a table that several layers contribute to.
fn layer(value: &Value) -> Option<Layer<'_>> {
    let origin = value.origin()?;
    let of_file = || Places::parse(origin).map(Layer::File);
    match origin {
        ENVIRONMENT => Some(Layer::Environment),
        flag if flag.starts_with('-') => Some(Layer::Flag(flag)),
        _ => of_file(),
    }
}

/// Whether it comes from the file, not from the environment or a flag.
pub(super) fn is_in_file(value: &Value) -> bool {
    matches!(layer(value), Some(Layer::File(_)))
}

/// The location of a table in the file.
pub(super) fn place(value: &Value) -> Option<Place> {
    match layer(value)? {
        Layer::File(places) => Some(places.key),
        Layer::Environment | Layer::Flag(_) => None,
    }
}

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

/// An integer; text is accepted only from layers where all values are text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match &value.kind {
        ValueKind::I64(number) => u64::try_from(*number).ok(),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// An integer or a float; text is accepted only from layers where all values are text.
pub(super) fn fraction(value: &Value) -> Option<f64> {
    match &value.kind {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => number.to_string().parse().ok(),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// A boolean; text is accepted only from layers where all values are text.
pub(super) fn flag(value: &Value) -> Option<bool> {
    match &value.kind {
        ValueKind::Boolean(flag) => Some(*flag),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// A boolean; text is not accepted.
pub(super) fn boolean(value: &Value) -> Option<bool> {
    match &value.kind {
        ValueKind::Boolean(flag) => Some(*flag),
        _ => None,
    }
}

/// The entries of a list; in the environment, it is one string with commas.
pub(super) fn entries(value: &Value) -> Option<Vec<Value>> {
    match &value.kind {
        ValueKind::String(text) if layer(value) == Some(Layer::Environment) => Some(
            text.split(',')
                .map(str::trim)
                .filter(|text| !text.is_empty())
                .map(|text| Value::new(value.origin().map(str::to_owned).as_ref(), text))
                .collect(),
        ),
        ValueKind::Array(values) => Some(values.clone()),
        _ => None,
    }
}

/// The layer of the value, and the dotted path below it that sets it: empty, except for a table
/// that is not in the file, whose origin is that of its first entry.
pub(super) fn origin(value: &Value) -> (String, Option<Layer<'_>>) {
    if let Some(layer) = layer(value) {
        return (String::new(), Some(layer));
    }
    let ValueKind::Table(table) = &value.kind else {
        return (String::new(), None);
    };
    let entries = table.iter().map(|(name, value)| {
        let (below, layer) = origin(value);
        (format!(".{name}{below}"), layer)
    });
    entries.min().unwrap_or_default()
}

/// The value, redacted for output; lists and tables may contain anything and are not shown.
pub(super) fn as_shown(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(shown(text)),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        ValueKind::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The text of a string, and of a number or boolean as written.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(number) => Some(number.to_string()),
        _ => None,
    }
}

/// An integer that may be negative; text is accepted only from layers where all values are text.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match &value.kind {
        ValueKind::I64(number) => Some(*number),
        ValueKind::String(text) if is_text_only(value) => text.parse().ok(),
        _ => None,
    }
}

/// The value in TOML, on one line.
pub(super) fn as_toml(value: &Value) -> String {
    as_toml_hiding(value, &|_, _| false)
}

/// The value in TOML, on one line. `is_hidden` gets the name and the text of each value of a table
/// that may be a secret.
pub(super) fn as_toml_hiding(value: &Value, is_hidden: &dyn Fn(&str, &str) -> bool) -> String {
    let field = |name: &str, value: &Value| {
        let text = scalar_text(value);
        if text.is_some_and(|text| is_hidden(name, &text)) {
            format!("{REDACTED:?}")
        } else {
            as_toml_hiding(value, is_hidden)
        }
    };
    match &value.kind {
        ValueKind::Array(values) => {
            let values = values.iter().map(|value| as_toml_hiding(value, is_hidden));
            let values: Vec<String> = values.collect();
            format!("[{}]", values.join(", "))
        }
        ValueKind::Table(table) => {
            let mut fields: Vec<String> = table
                .iter()
                .map(|(name, value)| format!("{} = {}", toml_key(name), field(name, value)))
                .collect();
            fields.sort_unstable();
            format!("{{ {} }}", fields.join(", "))
        }
        _ => as_shown(value).unwrap_or_else(|| "\"\"".to_owned()),
    }
}

fn toml_key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !name.is_empty() && name.bytes().all(is_bare) {
        name.to_owned()
    } else {
        shown(name)
    }
}

/// Merges one flag over the values, as a list if it is repeatable.
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
    // A value that is not a table is reported when the section is read.
    if let ValueKind::Table(table) = &mut table.kind {
        table.insert(name.to_owned(), value);
    }
}

/// Whether all values of the layer are text, so that a number in text form is accepted.
fn is_text_only(value: &Value) -> bool {
    matches!(layer(value), Some(Layer::Environment | Layer::Flag(_)))
}
