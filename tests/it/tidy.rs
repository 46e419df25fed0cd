//! The source code itself: invariants as code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::in_repository;

/// Every file below `folder` that ends in `.rs`.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// A file's text without its tests.
fn product(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

#[test]
fn pure_modules_do_no_io() {
    let mut files = rust_files(&in_repository("src/domain"));
    files.extend(rust_files(&in_repository("src/exposition")));
    files.extend(rust_files(&in_repository("src/pages")));
    let others = [
        "provider/bitgpt/wire.rs",
        "provider/bitgpt/parse.rs",
        "provider/bitgpt/details.rs",
        "provider/time_format.rs",
        "provider/link_header.rs",
        "provider/paging_hints.rs",
        "provider/profile.rs",
        "provider/secret_fields.rs",
        "provider/response.rs",
        "redaction.rs",
        "poller/retry.rs",
        "event_log/rate_limit.rs",
        "snapshot/format.rs",
        "server/routes.rs",
        "server/negotiate.rs",
        "server/request.rs",
        "server/web_config/format.rs",
        "server/web_config/rate_limit.rs",
        "server/accept_backoff.rs",
        "config/problem.rs",
        "config/value.rs",
        "domain.rs",
        "exposition.rs",
        "pages.rs",
    ];
    files.extend(others.map(|path| in_repository("src").join(path)));
    let banned = [
        "tokio::",
        "reqwest::",
        "hyper::",
        "tracing::",
        "std::env",
        "std::fs",
        "std::net::Tcp",
        "crate::os::clock",
        "Utc::now",
        "Instant",
        "SystemTime",
        "println!",
        "async ",
    ];
    // It waits for what is rendered on another thread.
    let cache = in_repository("src/exposition/cache.rs");
    assert!(files.contains(&cache));
    files.retain(|file| *file != cache);
    for file in files {
        let text = product(&file);
        for word in banned {
            assert!(
                !text.contains(word),
                "{} uses {word}; keep I/O in the shell",
                file.display()
            );
        }
    }
}

#[test]
fn the_domain_names_nobody_above_it_and_providers_and_rendering_do_not_know_each_other() {
    for (folder, banned) in [
        (
            "src/domain",
            &[
                "crate::provider",
                "crate::exposition",
                "crate::config",
                "crate::server",
                "crate::secret",
            ][..],
        ),
        (
            "src/exposition",
            &[
                "crate::provider",
                "crate::config",
                "crate::server",
                "crate::poller",
                "crate::secret",
            ],
        ),
        (
            "src/provider",
            &[
                "crate::exposition",
                "crate::config",
                "crate::server",
                "crate::poller",
            ],
        ),
    ] {
        for file in rust_files(&in_repository(folder)) {
            for word in banned {
                assert!(
                    !product(&file).contains(word),
                    "{} names {word}",
                    file.display()
                );
            }
        }
    }
}

/// A new provider is a module beside the others and a line in `provider.rs`.
#[test]
fn one_provider_is_named_in_its_own_module_only() {
    let source = in_repository("src");
    let may_name_it = |file: &str| {
        file == "provider.rs"
            || file.starts_with("provider/bitgpt")
            || file.starts_with("demo")
            || file.starts_with("commands/demo")
            || file.starts_with("fake_api")
    };
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let text = if path.starts_with("domain") {
            fs::read_to_string(&file).unwrap()
        } else if path.ends_with("tests.rs") {
            // Outside of the domain, tests may take the one provider that there is as an example.
            continue;
        } else {
            product(&file)
        };
        let is_named = text.to_lowercase().contains("bitgpt");
        assert!(!is_named || may_name_it(path), "{path} names one provider");
    }
}

#[test]
fn every_source_file_is_reachable_from_a_mod_line_and_says_its_job_first() {
    for (root, folder) in [("src/lib.rs", "src"), ("tests/it/main.rs", "tests/it")] {
        let mut reachable = BTreeSet::from([in_repository(root), in_repository("src/main.rs")]);
        let mut todo = vec![(in_repository(root), in_repository(folder))];
        while let Some((file, below)) = todo.pop() {
            let text = fs::read_to_string(&file).unwrap();
            // The oracles of the fuzz targets are outside of the folder.
            let has_path = text.contains("#[path = ");
            for line in text
                .lines()
                .filter(|line| !(has_path && *line == "mod oracles;"))
            {
                let line = line
                    .trim_start_matches("pub(crate) ")
                    .trim_start_matches("pub ");
                if let Some(name) = line
                    .strip_prefix("mod ")
                    .and_then(|rest| rest.strip_suffix(';'))
                {
                    let path = below.join(format!("{name}.rs"));
                    todo.push((path.clone(), below.join(name)));
                    reachable.insert(path);
                }
            }
        }
        for file in rust_files(&in_repository(folder)) {
            assert!(
                reachable.contains(&file),
                "{} is in no module",
                file.display()
            );
            let text = fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("//! "),
                "{} does not say its job in its first line",
                file.display()
            );
        }
    }
}

#[test]
fn no_line_is_too_long_and_nothing_is_left_lying_about() {
    let files = [
        rust_files(&in_repository("src")),
        rust_files(&in_repository("tests")),
    ]
    .concat();
    for file in files {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let place = format!("{}:{}", file.display(), number + 1);
            // Text in quotes cannot always be broken.
            assert!(
                line.chars().count() <= 100 || line.contains('"'),
                "{place} is longer than 100 columns"
            );
            for word in ["TO", "FIX", "XX"].map(|start| {
                format!(
                    "{start}{}",
                    if start == "TO" {
                        "DO"
                    } else if start == "FIX" {
                        "ME"
                    } else {
                        "X"
                    }
                )
            }) {
                assert!(!line.contains(&word), "{place} has a {word}");
            }
        }
    }
}
