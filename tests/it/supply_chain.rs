//! What the package says of its dependencies and its compiler. tests/supply-chain checks the rest.

use std::fs;

use crate::support::in_repository;

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap()
}

/// The value of `name = "value"`.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    let start = format!("{name} = \"");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {name}"))
        .split('"')
        .next()
        .unwrap()
}

#[test]
fn the_oldest_compiler_that_is_stated_is_the_one_that_runs_all_checks() {
    let (manifest, toolchain) = (read("Cargo.toml"), read("rust-toolchain.toml"));
    let (stated, used) = (
        value(&manifest, "rust-version"),
        value(&toolchain, "channel"),
    );
    assert_eq!(used, format!("{stated}.0"));
}

#[test]
fn every_direct_dependency_has_a_reason_and_no_feature_by_accident() {
    let manifest = read("Cargo.toml");
    let sections = manifest.split("\n[").filter(|section| {
        section.starts_with("dependencies]") || section.starts_with("dev-dependencies]")
    });
    let mut count = 0;
    for section in sections {
        let lines: Vec<&str> = section.lines().skip(1).collect();
        for (before, line) in lines.iter().zip(&lines[1..]).filter(|it| !it.1.is_empty()) {
            if line.starts_with('#') {
                continue;
            }
            count += 1;
            // Two dependencies may share a reason, one below the other.
            let has_reason = before.starts_with('#') || line.starts_with("tower-service");
            assert!(has_reason, "no reason above: {line}");
            assert!(!line.contains('*'), "any version: {line}");
            assert!(!line.contains("\"full\""), "all features: {line}");
        }
    }
    assert!(count > 40, "{count} dependencies were found");
}

#[test]
fn the_release_builds_the_targets_that_dependencies_are_checked_for() {
    let (build, deny) = (read("deploy/release/build"), read("deny.toml"));
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        assert!(build.contains(target) && deny.contains(target), "{target}");
    }
}
