//! An own, strict reader of both exposition formats, written from their specifications and not from
//! the exporter's writer.

use std::collections::{BTreeMap, BTreeSet};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Values by series; a value is kept as it is written, so that no digit is lost.
#[derive(Debug, Default, PartialEq)]
pub struct Series(pub BTreeMap<(String, Labels), String>);

impl Series {
    /// All series of this name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = (&Labels, &str)> {
        let all = self.0.iter().filter(move |((it, _), _)| it == name);
        all.map(|((_, labels), value)| (labels, value.as_str()))
    }

    /// The value of the series of this name that has the label.
    pub fn get(&self, name: &str, label: (&str, &str)) -> Option<&str> {
        let has = |labels: &Labels| labels.get(label.0).is_some_and(|text| text == label.1);
        let mut found = self.named(name).filter(|(labels, _)| has(labels));
        let (_, value) = found.next()?;
        assert!(found.next().is_none(), "{name} {label:?} is there twice");
        Some(value)
    }
}

/// Reads an exposition; panics where a strict reader would refuse it.
pub fn read(text: &str, is_open_metrics: bool) -> Series {
    let mut lines: Vec<&str> = text.split('\n').collect();
    assert_eq!(lines.pop(), Some(""), "the last line does not end");
    if is_open_metrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    let mut series = Series::default();
    let (mut families, mut said) = (BTreeSet::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    for line in lines {
        let Some(comment) = line.strip_prefix("# ") else {
            let (name, labels, value) = sample(line, is_open_metrics);
            let mut suffixes = match (kind.as_str(), is_open_metrics) {
                ("histogram", _) => ["_bucket", "_sum", "_count"].iter(),
                ("counter", true) => ["_total"].iter(),
                ("info", true) => ["_info"].iter(),
                _ => [""].iter(),
            };
            let is_of_family = suffixes.any(|suffix| format!("{family}{suffix}") == name);
            assert!(is_of_family, "{name} stands below {family}");
            let twice = series.0.insert((name, labels), value);
            assert!(twice.is_none(), "a series is there twice: {line:?}");
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (what, name) = (words.next().unwrap(), words.next().unwrap());
        let rest = words.next().unwrap();
        assert!(is_name(name), "{line:?}");
        if name != family {
            assert!(families.insert(name.to_owned()), "{name} comes back");
            name.clone_into(&mut family);
            kind.clear();
            said.clear();
        }
        assert!(said.insert(what.to_owned()), "twice: {line:?}");
        match what {
            "TYPE" => rest.clone_into(&mut kind),
            "UNIT" => assert!(is_open_metrics && name.ends_with(&format!("_{rest}"))),
            "HELP" => assert!(!rest.is_empty() && !rest.contains('\\')),
            _ => panic!("an unknown comment: {line:?}"),
        }
    }
    series
}

/// `name{label="text",...} value`, with an exemplar in OpenMetrics.
fn sample(line: &str, is_open_metrics: bool) -> (String, Labels, String) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line:?}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line:?}");
    let mut labels = Labels::new();
    if rest.starts_with('{') {
        (labels, rest) = read_labels(rest);
        assert!(!labels.is_empty(), "{line:?}");
    }
    let rest = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line:?}"));
    let (value, exemplar) = rest.split_once(" # ").unwrap_or((rest, ""));
    assert!(value.parse::<f64>().is_ok(), "no number: {line:?}");
    if !exemplar.is_empty() {
        assert!(is_open_metrics, "{line:?}");
        let (labels, rest) = read_labels(exemplar);
        let lengths = labels.iter().flat_map(|(name, text)| [name, text]);
        assert!(lengths.map(|text| text.chars().count()).sum::<usize>() <= 128);
        assert!(
            rest.starts_with(' ') && rest.split(' ').skip(1).all(|it| it.parse::<f64>().is_ok())
        );
    }
    (name.to_owned(), labels, value.to_owned())
}

fn read_labels(text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    let mut rest = text.strip_prefix('{').unwrap();
    loop {
        if let Some(end) = rest.strip_prefix('}') {
            return (labels, end);
        }
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(is_name(name) && !name.contains(':'), "{text:?}");
        let mut value = String::new();
        let mut chars = after.chars();
        loop {
            match chars.next().expect("a label ends") {
                '"' => break,
                '\\' => value.push(match chars.next() {
                    Some('n') => '\n',
                    Some(c @ ('\\' | '"')) => c,
                    other => panic!("an unknown escape {other:?}: {text:?}"),
                }),
                c => value.push(c),
            }
        }
        assert!(labels.insert(name.to_owned(), value).is_none(), "{text:?}");
        rest = chars.as_str();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':');
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}
