//! What stands under deploy/: units, manifests, chart, image and dashboard, each judged by the tool
//! that will read it, and held against the program's own defaults.

mod docker;
mod grafana;
mod kubernetes;
mod systemd;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api_key_exporter::config::{Config, Sources};
use api_key_exporter::server::listen::ListenAddress;

use crate::support::{TOKEN, in_repository};

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The program's defaults, from the program.
fn defaults() -> Config {
    let environment = [("BITGPT_API_KEY".to_owned(), TOKEN.to_owned())].into();
    let sources = Sources {
        environment,
        ..Sources::default()
    };
    Config::parse("", &sources).unwrap()
}

/// The port that the program listens on unless told otherwise.
fn port() -> u16 {
    let listen = defaults().web.listen_addresses[0].clone();
    let ListenAddress::Tcp(address) = listen else {
        panic!("{listen}")
    };
    address.port()
}

/// Every text file below `folder`, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none_or(|it| it != "png") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The port of the probes, where they have one of their own.
const PROBE_PORT: &str = "10121";

#[test]
fn no_text_about_deployment_names_another_port() {
    let port = port().to_string();
    let folders = ["deploy", "docs"].map(in_repository);
    let mut named = 0;
    for file in folders.iter().flat_map(|folder| files(folder)) {
        let text = fs::read_to_string(&file).unwrap();
        // Only numbers that look like ours: 10120 and its neighbours.
        for word in text.split(|letter: char| !letter.is_ascii_digit()) {
            if word.len() == port.len() && word.starts_with("101") {
                let is_ours = word == port || word == PROBE_PORT;
                assert!(is_ours, "{word} in {}", file.display());
                named += 1;
            }
        }
    }
    assert!(named >= 3, "{named}");
}

/// Every word of `text` that is a metric of ours by its form.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    let is_outside =
        |letter: char| !(letter.is_ascii_lowercase() || "_0123456789".contains(letter));
    text.split(is_outside)
        .filter(|word| word.starts_with("api_key_") && !word.ends_with('_'))
        .filter(|word| !word.starts_with("api_key_0"))
}

#[test]
fn every_metric_that_deploy_and_docs_name_is_documented() {
    // A test holds these tables against the program.
    let known = crate::docs::first_column(&read("docs/metrics.md"), "api_key_");
    let mut named = BTreeSet::new();
    let folders = ["deploy", "docs"].iter();
    for file in folders
        .flat_map(|folder| files(&in_repository(folder)))
        .chain(["README.md", "CHANGELOG.md"].map(in_repository))
    {
        let text = fs::read_to_string(&file).unwrap();
        for metric in metrics(&text) {
            let family = metric.strip_suffix("_bucket").unwrap_or(metric);
            assert!(
                known.contains(family),
                "{}: no metric {metric}",
                file.display()
            );
            if !file.ends_with("docs/metrics.md") {
                named.insert(family.to_owned());
            }
        }
    }
    assert!(named.len() > 25, "{named:?}");
}
