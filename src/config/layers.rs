//! Merges file, environment and flags; each value keeps its origin, for the file with line and
//! column.

use std::path::Path;

use config::{Map, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use crate::config::problem::{Place, Problem, shown_name, shown_path};
use crate::config::value::{self, Places};
use crate::config::{ENV_PREFIX, Sources, accounts};

/// Maximum syntax errors listed per file. Errors after the first may be consequences of an earlier
/// one.
const SYNTAX_ERRORS_MAX: usize = 10;

/// Largest file that is searched for all syntax errors; each byte could be one.
const RECOVERY_BYTES_MAX: usize = 256 * 1024;

/// Maximum nesting of an option in the environment; `PROVIDERS__NAME__SECTION__OPTION` is the
/// deepest possible. The `config` crate makes a table for each level, and thousands of nested
/// tables would overflow the stack when they are dropped.
const ENV_DEPTH_MAX: usize = 8;

/// The merged values.
pub(super) struct Layers {
    pub(super) values: Map<String, Value>,
    /// Whether a file is given that sets no option.
    pub(super) is_file_empty: bool,
}

/// Parses `text`, the content of the file, and merges environment and flags over it.
pub(super) fn merge(text: &str, sources: &Sources) -> Result<Layers, Vec<Problem>> {
    let wanted = "the configuration must be TOML, such as poll.interval = \"5m\", with \
                  [[accounts]] above each account";
    let path = sources.file.as_deref().unwrap_or(Path::new(""));
    let file = parse(text, path, wanted);
    let mut problems = unusable_variables(sources);
    let file = match file {
        Ok(file) if problems.is_empty() => file,
        Ok(_) => return Err(problems),
        Err(mut of_file) => {
            of_file.append(&mut problems);
            return Err(of_file);
        }
    };
    let is_file_empty = sources.file.is_some() && file.is_empty();
    let environment = config::Environment::with_prefix(ENV_PREFIX)
        .prefix_separator("__")
        .separator("__")
        .source(Some(accounts::without(&sources.environment)));
    let built = config::Config::builder().add_source(environment).build();
    // The error would contain the variable's value.
    let environment = built.and_then(|built| built.cache.into_table());
    let environment = environment.map_err(|_redacted| {
        vec![Problem::general(format!(
            "the environment: a variable that starts with {ENV_PREFIX}__ does not name an option"
        ))]
    })?;
    let mut values = file;
    overlay(&mut values, environment);
    for flag in &sources.flags.0 {
        value::lay_flag(&mut values, flag);
    }
    Ok(Layers {
        values,
        is_file_empty,
    })
}

/// Our variables whose names the `config` crate treats as an index, for which it allocates memory,
/// or as tables with unlimited nesting.
fn unusable_variables(sources: &Sources) -> Vec<Problem> {
    let prefix = format!("{ENV_PREFIX}__");
    let unusable = sources.environment.keys().filter(|variable| {
        let upper = variable.to_ascii_uppercase();
        let Some(path) = upper.strip_prefix(&prefix) else {
            return false;
        };
        let levels = path.replace("__", ".").split('.').count();
        levels > ENV_DEPTH_MAX || path.contains(['[', ']'])
    });
    let problem = |variable: &String| {
        Problem::general(format!(
            "{}: this variable does not name an option",
            shown_name(variable)
        ))
    };
    unusable.map(problem).collect()
}

/// The values of one file, or all its syntax errors; `path` is for the errors, `wanted` for a file
/// in another format.
pub(super) fn parse(
    text: &str,
    path: &Path,
    wanted: &str,
) -> Result<Map<String, Value>, Vec<Problem>> {
    let lines = Lines::of(text);
    let (table, mut errors) = parse_toml(text);
    let problem = |place: Place, words: &str| {
        Problem::general(format!("{}:{place}: {words}", shown_path(path)))
    };
    if !errors.is_empty() {
        if let Some((place, format)) = other_format(text) {
            let words = format!("this looks like {format}; {wanted}");
            return Err(vec![problem(place, &words)]);
        }
        let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        errors.sort_by_key(start);
        errors.dedup_by_key(|error| start(error));
        let shown = errors.iter().take(SYNTAX_ERRORS_MAX).map(|error| {
            // The parser's message without the line itself, which may contain a secret.
            let message = shown_name(error.message());
            let key = duplicate_key(text, error).map(|key| format!(" {key:?}"));
            let words = format!("TOML syntax error: {message}{}", key.unwrap_or_default());
            problem(lines.place(start(error)), &words)
        });
        return Err(shown.collect());
    }
    let mut conversion = Conversion {
        lines: &lines,
        problems: Vec::new(),
    };
    let values = conversion.table(table.into_inner());
    if conversion.problems.is_empty() {
        return Ok(values);
    }
    let problems = conversion.problems.into_iter();
    Err(problems
        .map(|(place, words)| problem(place, words))
        .collect())
}

/// All problems in a file of usual size, otherwise the first one.
fn parse_toml(text: &str) -> (Spanned<DeTable<'_>>, Vec<toml::de::Error>) {
    if text.len() <= RECOVERY_BYTES_MAX {
        return DeTable::parse_recoverable(text);
    }
    match DeTable::parse(text) {
        Ok(table) => (table, Vec::new()),
        Err(error) => (Spanned::new(0..0, DeTable::new()), vec![error]),
    }
}

/// The key of an error about a duplicate key. Anything but a plain word may be a misplaced secret.
fn duplicate_key<'a>(text: &'a str, error: &toml::de::Error) -> Option<&'a str> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-');
    let key = text.get(error.span()?)?;
    (error.message() == "duplicate key" && key.bytes().all(is_word)).then_some(key)
}

/// The other common configuration format in which `text`, which is not TOML, is.
fn other_format(text: &str) -> Option<(Place, &'static str)> {
    let mut lines = (1..).zip(text.lines());
    let (line, first) = lines.find(|(_, line)| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with('#')
    })?;
    let place = Place { line, column: 1 };
    if first.trim_start().starts_with('{') {
        return Some((place, "JSON"));
    }
    let first = first.trim();
    let is_yaml_key = first.split_once(':').is_some_and(|(key, value)| {
        let is_key = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
        !key.is_empty() && key.chars().all(is_key) && (value.is_empty() || value.starts_with(' '))
    });
    let is_yaml = is_yaml_key || first == "---" || first.starts_with("- ");
    is_yaml.then_some((place, "YAML"))
}

/// Merges `above` over `below`, table by table. The `config` crate's own merge treats names in the
/// file as paths, `"a[9]"` as an index, and loses the origin of tables.
fn overlay(below: &mut Map<String, Value>, above: Map<String, Value>) {
    for (name, mut value) in above {
        let covered = below.get_mut(&name).map(|it| &mut it.kind);
        match (covered, &mut value.kind) {
            (Some(ValueKind::Table(below)), ValueKind::Table(above)) => {
                overlay(below, std::mem::take(above));
            }
            _ => {
                below.insert(name, value);
            }
        }
    }
}

/// Converts the parser's values to those of the `config` crate.
struct Conversion<'a> {
    lines: &'a Lines<'a>,
    problems: Vec<(Place, &'static str)>,
}

impl Conversion<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Map<String, Value> {
        let entries = table.into_iter().map(|(key, value)| {
            let start = key.span().start;
            (key.into_inner().into_owned(), self.value(start, value))
        });
        entries.collect()
    }

    /// Each element's location is that of its value.
    fn array(&mut self, array: DeArray<'_>) -> Vec<Value> {
        let values = array.into_iter();
        values
            .map(|value| self.value(value.span().start, value))
            .collect()
    }

    fn value(&mut self, key_start: usize, value: Spanned<DeValue<'_>>) -> Value {
        let is_table = value.get_ref().is_table();
        let places = Places {
            key: self.lines.place(key_start),
            // A table made of dotted keys has no location of its own.
            value: self.lines.place(if is_table {
                key_start
            } else {
                value.span().start
            }),
        };
        let mut unrepresentable = |words| {
            self.problems.push((places.value, words));
            ValueKind::Nil
        };
        let kind = match value.into_inner() {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Boolean(flag) => ValueKind::Boolean(flag),
            DeValue::Datetime(moment) => ValueKind::String(moment.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(
                    |_| unrepresentable("the number does not fit into 64 bits"),
                    ValueKind::I64,
                ),
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(float) => ValueKind::Float(float),
                Err(_) => unrepresentable("this is not a number"),
            },
            DeValue::Array(array) => ValueKind::Array(self.array(array)),
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&places.to_origin()), kind)
    }
}

/// The place after `text`, the beginning of a file.
pub(super) fn place_after(text: &str) -> Place {
    Lines::of(text).place(text.len())
}

/// Offsets of line starts, to convert a byte offset into a location.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    /// Line and column, both from 1; columns count characters.
    fn place(&self, at: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|line| self.starts.get(line));
        let before = self.text.get(start.copied().unwrap_or(0)..at);
        Place {
            line,
            column: before.unwrap_or_default().chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests;
