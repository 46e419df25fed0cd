//! Tests from the field: kinds of bugs that users reported of comparable exporters, tried on this
//! one. `tests/field/README.md` has the table.

mod facts;
mod process;
mod secrets;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::in_repository;

/// The names of the test functions in the Rust files of a folder, by `prefix` of the file's path.
fn tests_below(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2) {
                let is_test =
                    pair[0].starts_with("#[test]") || pair[0].starts_with("#[tokio::test");
                let name = pair[1].trim_start_matches("async ").strip_prefix("fn ");
                let name = name.and_then(|name| name.split_once('('));
                if let Some((name, _)) = name.filter(|_| is_test) {
                    names.insert(name.to_owned());
                }
            }
        }
    }
}

#[test]
fn the_table_names_every_test_and_every_source() {
    let table = fs::read_to_string(in_repository("tests/field/README.md")).unwrap();
    let (mut own, mut all) = (BTreeSet::new(), BTreeSet::new());
    tests_below(&in_repository("tests/it/field"), &mut own);
    tests_below(&in_repository("tests/it"), &mut all);
    tests_below(&in_repository("src"), &mut all);
    let mut named = BTreeSet::new();
    let rows = table.lines().filter(|line| line.starts_with("| ["));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [sources, reported, tried, right, test] = cells[..] else {
            panic!("{row}")
        };
        for source in sources.split(", ") {
            // `[owner/name#1](https://github.com/owner/name/issues/1)`
            let (name, url) = source.trim_start_matches('[').split_once("](").unwrap();
            let (repository, number) = name.split_once('#').unwrap();
            let expected = |kind| format!("https://github.com/{repository}/{kind}/{number})");
            assert!(
                [expected("issues"), expected("pull")].contains(&url.to_owned()),
                "{source}"
            );
        }
        assert!(
            [reported, tried, right].iter().all(|cell| !cell.is_empty()),
            "{row}"
        );
        let test = test.trim_matches('`');
        assert!(all.contains(test), "{test} does not exist");
        named.insert(test.to_owned());
    }
    assert!(named.len() >= 25, "{}", named.len());
    let missing: Vec<_> = own.difference(&named).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
}
