//! Reads options one by one from the merged layers, checks each, and records problems and effective
//! values.
//!
//! Deserializing into structs would stop at the first problem; this reader continues with the
//! default and reports all problems.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value};

use crate::config::problem::{Origin, Place, Problem, is_path, shown, shown_name, shown_path};
use crate::config::value::Layer;
use crate::config::{ENV_PREFIX, suggestion, value};

/// The lower bound of a fraction.
#[derive(Clone, Copy)]
pub(super) enum Least {
    Zero,
    AboveZero,
}

/// The effective value of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The section's TOML header: empty, `[web]` or `[[accounts]]`.
    pub section: String,
    /// The index of a repeated section, otherwise 0.
    pub index: usize,
    /// The option's name.
    pub name: String,
    /// Its value as TOML; `None` if it is unset and has no default.
    pub value: Option<String>,
    /// The origin of the value.
    pub origin: Origin,
}

/// One table of the configuration while it is read.
pub(super) struct Section<'a> {
    values: Map<String, Value>,
    /// Its path, empty for the root.
    path: String,
    /// As [`Effective::section`] and [`Effective::index`].
    header: (String, usize),
    file: Option<&'a Path>,
    /// Its location in the file.
    place: Option<Place>,
    /// The origins of the entries of an option that is a table, by path such as `params.group`.
    entries: BTreeMap<String, Origin>,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
    effective: &'a mut Vec<Effective>,
}

impl<'a> Section<'a> {
    pub(super) fn root(
        values: Map<String, Value>,
        file: Option<&'a Path>,
        problems: &'a mut Vec<Problem>,
        effective: &'a mut Vec<Effective>,
    ) -> Self {
        let (path, header) = (String::new(), (String::new(), 0));
        Self {
            values,
            path,
            header,
            file,
            place: None,
            entries: BTreeMap::new(),
            known: Vec::new(),
            problems,
            effective,
        }
    }

    /// Reads a nested table; `None` if the value is not a table.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let given = self.take(name);
        let place = given.as_ref().and_then(value::place);
        let values = match given.map(value::table) {
            None => Map::new(),
            Some(Ok(values)) => values,
            Some(Err(other)) => {
                self.wrong(name, &other, &format!("must be a section, [{name}]"));
                return None;
            }
        };
        let header = (format!("[{name}]"), 0);
        Some(self.child(values, place, self.path_of(name), header, read))
    }

    /// Reads each table in a list of tables.
    pub(super) fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let wanted = format!("must be a list of sections, [[{name}]]");
        let tables = match self.take(name).map(value::list) {
            None => return Vec::new(),
            Some(Ok(tables)) => tables,
            Some(Err(other)) => {
                self.wrong(name, &other, &wanted);
                return Vec::new();
            }
        };
        let mut read_ones = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let place = value::place(&table);
            match value::table(table) {
                Ok(values) => {
                    let path = path_of_element(name, index, &values);
                    let header = (format!("[[{name}]]"), index);
                    read_ones.push(self.child(values, place, path, header, &read));
                }
                Err(other) => self.wrong(name, &other, &wanted),
            }
        }
        read_ones
    }

    /// Reads each of the named tables `[name.NAME]`, ordered by name.
    pub(super) fn named_sections<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str, &mut Section<'_>) -> T,
    ) -> Vec<(String, T)> {
        let wanted = format!("must be sections, [{name}.NAME]");
        let tables = match self.take(name).map(value::table) {
            None => return Vec::new(),
            Some(Ok(tables)) => tables,
            Some(Err(other)) => {
                self.wrong(name, &other, &wanted);
                return Vec::new();
            }
        };
        let mut tables: Vec<(String, Value)> = tables.into_iter().collect();
        tables.sort_by(|a, b| a.0.cmp(&b.0));
        let mut read_ones = Vec::new();
        for (key, table) in tables {
            let path = format!("{name}.{}", shown_name(&key));
            let place = value::place(&table);
            match value::table(table) {
                Ok(values) => {
                    let header = (format!("[{path}]"), 0);
                    let read = |section: &mut Section<'_>| read(&key, section);
                    let read = self.child(values, place, path, header, read);
                    read_ones.push((key, read));
                }
                Err(other) => self.wrong(&path, &other, &wanted),
            }
        }
        read_ones
    }

    /// Reads a table that is an option's value; `None` if it is missing or not a table.
    pub(super) fn inline<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        self.inline_hiding(name, wanted, &|_, _| false, read)
    }

    /// Like [`Section::inline`], for a table that may contain secrets: `is_hidden` gets the name
    /// and the text of each value, with an empty name if the value is not a table.
    pub(super) fn inline_hiding<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        is_hidden: &dyn Fn(&str, &str) -> bool,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> Option<T> {
        let given = self.take_shown_as(name, |given| value::as_toml_hiding(given, is_hidden))?;
        let (path, place) = (self.path_of(name), value::place(&given));
        match value::table(given) {
            Ok(values) => Some(self.unshown(values, place, path, read)),
            Err(other) => {
                let wanted = format!("must be {wanted}");
                let text = value::scalar_text(&other);
                if text.is_some_and(|text| is_hidden("", &text)) {
                    self.wrong_secret(name, &other, &wanted);
                } else {
                    self.wrong(name, &other, &wanted);
                }
                None
            }
        }
    }

    /// Like [`Section::inline`], for a list of such tables.
    pub(super) fn inline_list<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl Fn(&mut Section<'_>) -> T,
    ) -> Vec<T> {
        let Some(given) = self.take_inline(name) else {
            return Vec::new();
        };
        let tables = match value::list(given) {
            Ok(tables) => tables,
            Err(other) => {
                self.wrong(name, &other, &format!("must be {wanted}"));
                return Vec::new();
            }
        };
        let mut read_ones = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let path = format!("{}[{index}]", self.path_of(name));
            let place = value::place(&table);
            match value::table(table) {
                Ok(values) => read_ones.push(self.unshown(values, place, path, &read)),
                Err(other) => self.wrong(name, &other, &format!("must be {wanted}")),
            }
        }
        read_ones
    }

    /// Reads a table of strings with arbitrary names, ordered by name. Numbers and booleans count
    /// as the text they are written as. The values may be secrets: an invalid one is never shown, a
    /// valid one unless `is_hidden`.
    pub(super) fn inline_texts<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        is_hidden: &dyn Fn(&str, &str) -> bool,
        parse: impl Fn(&str, &str) -> Option<T>,
    ) -> Vec<T> {
        let mut entries = BTreeMap::new();
        let read = |section: &mut Section<'_>| {
            let mut values: Vec<(String, Value)> = section.values.drain().collect();
            values.sort_by(|a, b| a.0.cmp(&b.0));
            let mut parsed = Vec::new();
            for (key, value) in values {
                entries.insert(format!("{name}.{key}"), section.origin(&key, &value));
                let text = value::scalar_text(&value);
                if let Some(read) = text.and_then(|text| parse(&key, &text)) {
                    parsed.push(read);
                } else {
                    let wanted = format!("must be {wanted}");
                    section.wrong_secret(&shown_name(&key), &value, &wanted);
                }
            }
            parsed
        };
        let is_hidden = |key: &str, value: &str| key.is_empty() || is_hidden(key, value);
        let read = self.inline_hiding(name, &format!("a table of {wanted}"), &is_hidden, read);
        self.entries.append(&mut entries);
        read.unwrap_or_default()
    }

    /// Reads a list of mixed values; `None` if the option is unset or invalid.
    pub(super) fn values<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<Vec<T>> {
        let given = self.take_inline(name)?;
        let list = given.clone().into_array().ok();
        let parsed = list.and_then(|list| list.iter().map(parse).collect());
        if parsed.is_none() {
            self.wrong(name, &given, &format!("must be {wanted}"));
        }
        parsed
    }

    /// Reads a value of any type that `parse` accepts.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let given = self.take_inline(name)?;
        let parsed = parse(&given);
        if parsed.is_none() {
            self.wrong(name, &given, &format!("must be {wanted}"));
        }
        parsed
    }

    /// Whether the option is a string, where other types are allowed too.
    pub(super) fn is_text(&self, name: &str) -> bool {
        self.values.get(name).and_then(value::text).is_some()
    }

    /// Stops reading, so that no option is reported as unknown.
    pub(super) fn forget_rest(&mut self) {
        self.values.clear();
    }

    /// Reports a missing required option, unless another problem explains it.
    pub(super) fn missing(&mut self, name: &str, problems_before: usize, wanted: &str) {
        if self.problem_count() == problems_before {
            self.problem(name, None, &format!("is missing: must be {wanted}"));
        }
    }

    /// Text that may be a secret: an invalid one is not shown. Only for tables read by
    /// [`Section::inline_hiding`].
    pub(super) fn secret_text<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = self.take(name)?;
        let parsed = value::text(&given).and_then(parse);
        if parsed.is_none() {
            self.wrong_secret(name, &given, &format!("must be {wanted}"));
        }
        parsed
    }

    /// Takes an option that is shown as written.
    fn take_inline(&mut self, name: &'static str) -> Option<Value> {
        self.take_shown_as(name, value::as_toml)
    }

    fn take_shown_as(
        &mut self,
        name: &'static str,
        show: impl FnOnce(&Value) -> String,
    ) -> Option<Value> {
        let given = self.take(name);
        let origin = given.as_ref().map(|given| self.origin(name, given));
        let (section, index) = self.header.clone();
        self.effective.push(Effective {
            section,
            index,
            name: name.to_owned(),
            value: given.as_ref().map(show),
            origin: origin.unwrap_or(Origin::Default),
        });
        given
    }

    /// Reads a table whose options are shown as part of the enclosing option.
    fn unshown<T>(
        &mut self,
        values: Map<String, Value>,
        place: Option<Place>,
        path: String,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut effective = Vec::new();
        let mut section = Section {
            values,
            path,
            header: (String::new(), 0),
            file: self.file,
            place,
            entries: BTreeMap::new(),
            known: Vec::new(),
            problems: &mut *self.problems,
            effective: &mut effective,
        };
        let read = read(&mut section);
        section.finish();
        read
    }

    /// Reports every option that was not read.
    pub(super) fn finish(&mut self) {
        let mut unknown: Vec<(String, Value)> = self.values.drain().collect();
        unknown.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, value) in unknown {
            // Name and value may be a misplaced secret: the name is redacted, the value is not
            // shown.
            let shown = match shown_name(&name) {
                empty if empty.is_empty() => "\"\"".to_owned(),
                label => label,
            };
            let (path, origin) = (self.path_of(&shown), self.origin_of_name(&name, &value));
            let meant = self
                .meant_by(&name)
                .map_or_else(String::new, |meant| format!(" did you mean {meant}?"));
            let known = self.known.join(", ");
            let wanted = format!("unknown option;{meant} valid here: {known}");
            self.problems
                .push(Problem::value(&path, None, &origin, &wanted));
        }
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.optional_duration(name, Some(default), range)
            .unwrap_or(default)
    }

    /// An optional duration with the given default.
    pub(super) fn optional_duration(
        &mut self,
        name: &'static str,
        default: Option<Duration>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (from, to) = (short(*range.start()), short(*range.end()));
        let such = example(&range);
        let wanted = format!("must be a duration from {from} to {to}, such as \"{such}\"");
        let show = |duration: &Duration| format!("\"{}\"", short(*duration));
        self.read(name, default, show, |value| {
            let Some(text) = value::text(value) else {
                let number = value::number(value).ok_or(wanted)?;
                return Err(format!("has no unit; write \"{number}s\""));
            };
            match humantime::parse_duration(text) {
                Ok(duration) if range.contains(&duration) => Ok(duration),
                Err(_) if text.parse::<f64>().is_ok() => Err(format!("has no unit; {wanted}")),
                Ok(_) | Err(_) => Err(wanted),
            }
        })
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> T {
        let wanted = whole_number(&range);
        let number = self.read(name, Some(default), u64::to_string, |value| {
            value::number(value)
                .filter(|number| range.contains(number))
                .ok_or(wanted)
        });
        T::try_from(number.unwrap_or(default))
            .unwrap_or_else(|_| unreachable!("the range of {name} fits its type"))
    }

    /// A fraction: 0 to 1, or above 0.
    pub(super) fn fraction(&mut self, name: &'static str, default: f64, least: Least) -> f64 {
        let (is_in, wanted): (fn(f64) -> bool, _) = match least {
            Least::Zero => (
                |part| (0.0..=1.0).contains(&part),
                "must be a number from 0 to 1, such as 0.5",
            ),
            Least::AboveZero => (
                |part| part > 0.0 && part <= 1.0,
                "must be a number above 0, at most 1, such as 0.25",
            ),
        };
        let fraction = self.read(name, Some(default), f64::to_string, |value| {
            value::fraction(value)
                .filter(|part| is_in(*part))
                .ok_or_else(|| wanted.to_owned())
        });
        fraction.unwrap_or(default)
    }

    /// An optional number.
    pub(super) fn optional_number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let wanted = whole_number(&range);
        self.read(name, None, u64::to_string, |value| {
            value::number(value)
                .filter(|number| range.contains(number))
                .ok_or(wanted)
        })
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let flag = self.read(name, Some(default), bool::to_string, |value| {
            value::flag(value).ok_or_else(|| "must be true or false".to_owned())
        });
        flag.unwrap_or(default)
    }

    /// One of a set of words, `default` among them.
    pub(super) fn choice<T: Clone>(
        &mut self,
        name: &'static str,
        default: &str,
        choices: &[(&str, T)],
    ) -> T {
        self.choice_or_alias(name, default, choices, &[])
    }

    /// Like [`Section::choice`], with aliases for some of the choices.
    pub(super) fn choice_or_alias<T: Clone>(
        &mut self,
        name: &'static str,
        default: &str,
        choices: &[(&str, T)],
        aliases: &[(&str, &str)],
    ) -> T {
        let find = |given: &str| {
            let mut aliases = aliases.iter();
            let alias = aliases.find(|(alias, _)| alias.eq_ignore_ascii_case(given));
            let word = alias.map_or(given, |(_, word)| word);
            let mut choices = choices.iter();
            choices
                .find(|(choice, _)| choice.eq_ignore_ascii_case(word))
                .cloned()
        };
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("{word:?}"))
            .collect();
        let wanted = format!("must be one of {}", words.join(", "));
        let show = |(word, _): &(&str, T)| format!("{word:?}");
        let chosen = self.read(name, find(default), show, |value| {
            let given = value::text(value);
            given.and_then(find).ok_or_else(|| {
                let words = choices.iter().map(|(word, _)| *word);
                match given.and_then(|given| suggestion::closest(given, words)) {
                    Some(meant) => format!("{wanted}; did you mean {meant:?}?"),
                    None => wanted,
                }
            })
        });
        let (_, chosen) = chosen
            .or_else(|| find(default))
            .unwrap_or_else(|| unreachable!("the default of {name} is one of its choices"));
        chosen
    }

    /// Text that `parse` accepts; `wanted` describes it.
    pub(super) fn text<T>(
        &mut self,
        name: &'static str,
        default: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        self.optional_text(name, Some(default), wanted, &parse)
            .or_else(|| parse(default))
            .unwrap_or_else(|| unreachable!("the default of {name} can be parsed"))
    }

    /// Like [`Section::text`], for an optional option.
    pub(super) fn optional_text<T>(
        &mut self,
        name: &'static str,
        default: Option<&str>,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let both = |text: &str| Some((text.to_owned(), parse(text)?));
        let read = self.read(
            name,
            default.and_then(both),
            |(text, _)| shown(text),
            |value| {
                value::text(value)
                    .and_then(both)
                    .ok_or_else(|| format!("must be {wanted}"))
            },
        );
        read.map(|(_, parsed)| parsed)
    }

    /// A file path; in the configuration file, it is relative to that file's directory.
    pub(super) fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.path_of_a(name, "the path of a file")
    }

    /// Like [`Section::path`], for a directory.
    pub(super) fn folder(&mut self, name: &'static str) -> Option<PathBuf> {
        self.path_of_a(name, "the path of a folder")
    }

    fn path_of_a(&mut self, name: &'static str, wanted: &str) -> Option<PathBuf> {
        // Paths in variables and flags are relative to the working directory, as usual.
        let folder = self
            .file
            .filter(|_| self.values.get(name).is_some_and(value::is_in_file))
            .and_then(Path::parent)
            .map(Path::to_owned)
            .unwrap_or_default();
        self.optional_text(name, None, wanted, |text| {
            is_path(text).then(|| folder.join(text))
        })
    }

    /// A non-empty list of unique texts that `parse` accepts. In the environment, items are
    /// separated by commas.
    pub(super) fn distinct_list<T: PartialEq>(
        &mut self,
        name: &'static str,
        default: &[&'static str],
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let values = self.texts(name, default, wanted, 1, parse);
        let mut later = values.iter().enumerate();
        if later.any(|(at, value)| values.iter().take(at).any(|known| known == value)) {
            self.problem(name, None, "an entry occurs twice");
        }
        values
    }

    /// Like [`Section::distinct_list`], but it may be empty and contain duplicates.
    pub(super) fn any_list<T>(
        &mut self,
        name: &'static str,
        default: &[&'static str],
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        self.texts(name, default, wanted, 0, parse)
    }

    /// Like [`Section::any_list`], for an optional option.
    pub(super) fn optional_list<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.optional_texts(name, None, wanted, 0, parse)
    }

    fn texts<T>(
        &mut self,
        name: &'static str,
        default: &[&'static str],
        wanted: &str,
        least: usize,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let default = default.iter().map(|text| Value::new(None, *text)).collect();
        self.optional_texts(name, Some(default), wanted, least, parse)
            .unwrap_or_default()
    }

    fn optional_texts<T>(
        &mut self,
        name: &'static str,
        default: Option<Vec<Value>>,
        wanted: &str,
        least: usize,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let show = |entries: &Vec<Value>| {
            let entries: Vec<String> = entries.iter().map(value::as_toml).collect();
            format!("[{}]", entries.join(", "))
        };
        let entries = self.read(name, default, show, |value| {
            let entries = value::entries(value).filter(|entries| entries.len() >= least);
            entries.ok_or_else(|| format!("must be a list of {wanted}"))
        });
        let mut parsed = Vec::new();
        for entry in entries? {
            match value::text(&entry).and_then(&parse) {
                Some(one) => parsed.push(one),
                None => self.wrong(name, &entry, &format!("must be {wanted}")),
            }
        }
        Some(parsed)
    }

    /// Reports a problem with an option of this section that was read earlier. `given` is its value
    /// as TOML, redacted.
    pub(super) fn problem(&mut self, name: &str, given: Option<&str>, words: &str) {
        let origin = self.origin_in_force(name);
        let problem = Problem::value(&self.path_of(name), given, &origin, words);
        self.problems.push(problem);
    }

    /// The origin of the effective value of an option that was read earlier, or of an entry of it.
    pub(super) fn origin_in_force(&self, name: &str) -> Origin {
        if let Some(origin) = self.entries.get(name) {
            return origin.clone();
        }
        // A missing entry belongs to its option.
        let name = name.split('.').next().unwrap_or(name);
        let of_this = |option: &&Effective| {
            option.name == name
                && (&option.section, option.index) == (&self.header.0, self.header.1)
        };
        let option = self.effective.iter().rev().find(of_this);
        let origin = option.map_or(Origin::Default, |option| option.origin.clone());
        // A missing option belongs below the section's header.
        match (origin, self.place) {
            (Origin::Default, Some(place)) => self.of_file(place),
            (origin, _) => origin,
        }
    }

    /// Records that `name`, which no layer set, takes its value from a variable of the system.
    pub(super) fn note_environment(&mut self, name: &str, variable: &str, path: Option<&Path>) {
        let (section, index) = self.header.clone();
        self.effective.retain(|option| {
            (&option.section, option.index, &*option.name) != (&section, index, name)
        });
        self.effective.push(Effective {
            section,
            index,
            name: name.to_owned(),
            value: path.map(|path| shown(&path.display().to_string())),
            origin: Origin::Environment(variable.to_owned()),
        });
    }

    /// The number of problems so far, in this section and all others.
    pub(super) fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// Records the effective value of an option that no layer set.
    pub(super) fn note(&mut self, effective: Effective) {
        self.effective.push(effective);
    }

    /// Reports a problem that does not belong to a single option.
    pub(super) fn general_problem(&mut self, words: String) {
        self.problems.push(Problem::general(words));
    }

    /// Reports a problem with a value from `origin`.
    pub(super) fn problem_at(&mut self, path: &str, origin: &Origin, words: &str) {
        let problem = Problem::value(path, None, origin, words);
        self.problems.push(problem);
    }

    /// The only way in which an option is read: taken, parsed, and recorded as effective or
    /// invalid.
    fn read<T>(
        &mut self,
        name: &'static str,
        default: Option<T>,
        show: impl Fn(&T) -> String,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let (value, origin) = match self.take(name) {
            None => (default, Origin::Default),
            Some(given) => match parse(&given) {
                Ok(parsed) => (Some(parsed), self.origin(name, &given)),
                Err(wanted) => {
                    self.wrong(name, &given, &wanted);
                    return None;
                }
            },
        };
        let (section, index) = self.header.clone();
        let shown = value.as_ref().map(show);
        self.effective.push(Effective {
            section,
            index,
            name: name.to_owned(),
            value: shown,
            origin,
        });
        value
    }

    fn child<T>(
        &mut self,
        values: Map<String, Value>,
        place: Option<Place>,
        path: String,
        header: (String, usize),
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let (problems, effective) = (&mut *self.problems, &mut *self.effective);
        let known = Vec::new();
        let mut child = Section {
            values,
            path,
            header,
            file: self.file,
            place,
            entries: BTreeMap::new(),
            known,
            problems,
            effective,
        };
        let read = read(&mut child);
        child.finish();
        read
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name).filter(value::is_set)
    }

    fn wrong(&mut self, name: &str, given: &Value, wanted: &str) {
        let (path, origin) = (self.path_of(name), self.origin(name, given));
        self.problems.push(Problem::value(
            &path,
            value::as_shown(given).as_deref(),
            &origin,
            wanted,
        ));
    }

    /// Like [`Section::wrong`], for a value that must not be shown.
    fn wrong_secret(&mut self, name: &str, given: &Value, wanted: &str) {
        let (path, origin) = (self.path_of(name), self.origin(name, given));
        self.problems
            .push(Problem::value(&path, None, &origin, wanted));
    }

    /// The location of the value.
    fn origin(&self, name: &str, value: &Value) -> Origin {
        self.origin_at(name, value, |places| places.value)
    }

    /// The location of the name.
    fn origin_of_name(&self, name: &str, value: &Value) -> Origin {
        self.origin_at(name, value, |places| places.key)
    }

    fn origin_at(
        &self,
        name: &str,
        value: &Value,
        place: impl FnOnce(value::Places) -> Place,
    ) -> Origin {
        let (below, layer) = value::origin(value);
        match layer {
            Some(Layer::Environment) => {
                let path = [self.path_of(name), below].concat();
                let path = shown_name(&path).replace('.', "__").to_uppercase();
                Origin::Environment(format!("{ENV_PREFIX}__{path}"))
            }
            Some(Layer::Flag(flag)) => Origin::Flag(flag.to_owned()),
            Some(Layer::File(places)) => self.of_file(place(places)),
            None => Origin::Default,
        }
    }

    fn of_file(&self, place: Place) -> Origin {
        let path = self.file.unwrap_or(Path::new(""));
        Origin::File(shown_path(path), place)
    }

    /// The likely intended option for an unknown one: from this section, or from another one if a
    /// header is misplaced.
    fn meant_by(&self, name: &str) -> Option<String> {
        let in_other_section = || {
            let mut others = self.effective.iter();
            let other =
                others.find(|option| option.name == name && !option.section.starts_with("[["))?;
            let section = other.section.trim_matches(['[', ']']);
            let dot = if section.is_empty() { "" } else { "." };
            Some(format!("{section}{dot}{name}"))
        };
        let close = suggestion::closest(name, self.known.iter().copied());
        let close = close.map(str::to_owned);
        close.or_else(in_other_section)
    }

    fn path_of(&self, name: &str) -> String {
        match self.path.as_str() {
            "" => name.to_owned(),
            path if path.ends_with('"') => format!("{path}: {name}"),
            path => format!("{path}.{name}"),
        }
    }
}

/// The path of one of several sections: by account name if it has one, otherwise by index.
fn path_of_element(section: &str, index: usize, values: &Map<String, Value>) -> String {
    let name = values.get("name").and_then(value::text);
    let name = name.filter(|name| {
        section == "accounts" && !name.trim().is_empty() && shown_name(name) == **name
    });
    match name {
        Some(name) => format!("{section} {name:?}"),
        None => format!("{section}[{index}]"),
    }
}

fn whole_number(range: &RangeInclusive<u64>) -> String {
    let (from, to) = (range.start(), range.end());
    format!("must be a whole number from {from} to {to}")
}

/// A duration within `range`, in human-readable form.
fn example(range: &RangeInclusive<Duration>) -> String {
    let usual = [Duration::from_secs(90), Duration::from_hours(24 * 90)];
    let within = usual.into_iter().find(|it| range.contains(it));
    match within.unwrap_or(*range.start()) {
        seconds if seconds == Duration::from_secs(90) => "90s".to_owned(),
        other => short(other),
    }
}

/// A human-readable duration: `24h`, not `1day`, and `365d`, not months of 30.44 days.
fn short(duration: Duration) -> String {
    if duration == Duration::from_hours(24) {
        return "24h".to_owned();
    }
    let day = Duration::from_hours(24).as_secs();
    if duration.subsec_nanos() == 0
        && duration.as_secs() >= day
        && duration.as_secs().is_multiple_of(day)
    {
        return format!("{}d", duration.as_secs() / day);
    }
    humantime::format_duration(duration).to_string()
}
