//! The Dockerfile, judged by hadolint, and held against the program. No engine builds it here.

use std::fs;
use std::path::PathBuf;

use super::{port, read};
use crate::support::{Folder, in_repository};
use crate::tidy::rust_files;
use crate::tools::{ask, python};

const DOCKERFILE: &str = "deploy/docker/Dockerfile";

#[test]
fn hadolint_finds_nothing_and_can_say_no() {
    let said = ask(python("hadolint").arg(in_repository(DOCKERFILE)));
    assert!(said.is_content && said.words.is_empty(), "{}", said.words);
    let folder = Folder::new("dockerfile");
    let bad = folder.file("Dockerfile", "FROM debian\nRUN cd /tmp\n");
    assert!(!ask(python("hadolint").arg(bad)).is_content);
}

#[test]
fn the_image_says_what_the_program_does() {
    let text = read(DOCKERFILE);
    let toolchain = read("rust-toolchain.toml");
    let (_, channel) = toolchain.split_once("channel = \"").unwrap();
    let channel = channel.split_once('"').unwrap().0;
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        format!("FROM --platform=$BUILDPLATFORM rust:{channel}-bookworm AS build"),
        "FROM scratch".to_owned(),
        format!("ARG VERSION={version}"),
        "USER 65532:65532".to_owned(),
        format!("EXPOSE {}", port()),
        "ENTRYPOINT [\"/api-key-exporter\"]".to_owned(),
        format!("CMD [\"--web.listen-address=:{}\"]", port()),
    ] {
        assert!(text.lines().any(|known| known == line), "no {line:?}");
    }
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(
            text.contains(&format!("org.opencontainers.image.{label}=")),
            "{label}"
        );
    }
    for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
        assert!(text.contains(target), "{target}");
    }
}

/// The files that the code of the program includes, besides the code itself.
fn included() -> Vec<PathBuf> {
    let mut included = Vec::new();
    for file in rust_files(&in_repository("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let folder = file.parent().unwrap();
        for (start, folder) in [
            ("include_str!(\"", folder),
            ("template(path = \"", &in_repository("templates")),
        ] {
            let paths = text.split(start).skip(1);
            let paths = paths.map(|rest| folder.join(rest.split_once('"').unwrap().0));
            included.extend(paths.map(|path| fs::canonicalize(path).unwrap()));
        }
    }
    included
}

#[test]
fn the_image_is_built_from_all_files_that_the_program_needs() {
    let root = fs::canonicalize(in_repository("")).unwrap();
    let ignore = read("deploy/docker/Dockerfile.dockerignore");
    let kept = ignore.lines().filter_map(|line| line.strip_prefix('!'));
    let kept: Vec<PathBuf> = kept.map(|path| root.join(path)).collect();
    let included = included();
    assert!(included.len() >= 3, "{included:?}");
    for file in included {
        let is_kept = kept.iter().any(|kept| file.starts_with(kept));
        assert!(
            is_kept,
            "Dockerfile.dockerignore leaves {} out",
            file.display()
        );
    }
}
