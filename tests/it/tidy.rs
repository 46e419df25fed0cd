//! The repository itself: invariants as code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api_key_exporter::config::{Config, Effective, Origin, Sources};
use api_key_exporter::telemetry::Telemetry;

use crate::support::{TOKEN, in_repository};

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below `folder` that ends in `.rs`.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
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
        "provider/bitgpt/timestamp.rs",
        "poller/clocks.rs",
        "poller/retry.rs",
        "poller/lines.rs",
        "snapshot/format.rs",
        "poller/report.rs",
        "server/routes.rs",
        "server/negotiate.rs",
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
                "crate::provider::bitgpt",
                "crate::exposition",
                "crate::config",
                "crate::server",
                "crate::secret",
            ][..],
        ),
        (
            "src/exposition",
            &[
                "crate::provider::bitgpt",
                "crate::config",
                "crate::server",
                "crate::poller",
                "crate::secret",
            ],
        ),
        (
            "src/provider/bitgpt",
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

#[test]
fn every_source_file_is_reachable_from_a_mod_line_and_says_its_job_first() {
    for (root, folder) in [("src/lib.rs", "src"), ("tests/it/main.rs", "tests/it")] {
        let mut reachable = BTreeSet::from([in_repository(root), in_repository("src/main.rs")]);
        let mut todo = vec![(in_repository(root), in_repository(folder))];
        while let Some((file, below)) = todo.pop() {
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines() {
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

/// The names in the first column of a README table.
fn readme_names(heading: &str, prefix: &str) -> BTreeSet<String> {
    let readme = read("README.md");
    let (_, rest) = readme
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no ## {heading}"));
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.map(|row| row.split_once('`').unwrap().0.to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn the_readme_lists_exactly_the_metrics_that_there_are() {
    let telemetry = Telemetry::new().unwrap();
    telemetry.count_request("/metrics", 200);
    telemetry.poll_duration("a");
    let golden = read("tests/golden/metrics.prom");
    let families = golden
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let exposed: BTreeSet<String> = families
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .chain(
            telemetry
                .gather(chrono::Utc::now())
                .iter()
                .map(|family| family.name().to_owned()),
        )
        // The standard family is one row in the README.
        .filter(|name| !name.starts_with("process_"))
        .collect();
    assert_eq!(readme_names("Metrics", "api_key_"), exposed);
}

#[test]
fn the_readme_shows_a_real_excerpt_of_the_exposition() {
    let readme = read("README.md");
    let golden = read("tests/golden/metrics.prom");
    let (_, rest) = readme.split_once("```prometheus\n").expect("an excerpt");
    let excerpt = rest.split_once("```").unwrap().0;
    assert!(excerpt.lines().count() >= 5);
    for line in excerpt.lines() {
        assert!(
            golden.lines().any(|known| known == line),
            "the golden exposition has no line {line:?}"
        );
    }
}

fn load(text: &str) -> Config {
    let environment = [("BITGPT_API_KEY".to_owned(), TOKEN.to_owned())].into();
    Config::parse(
        text,
        &Sources {
            environment,
            is_terminal: false,
            ..Sources::default()
        },
    )
    .unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// The example with everything that is commented out brought to life.
fn whole_example() -> String {
    let example = read("config.example.toml");
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        // Prose starts with a space after the sign, an option does not.
        Some(option) if !option.is_empty() && !option.starts_with(' ') => option,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Options that name a file that has to be there.
const FILES: [&str; 3] = ["token_file", "ca_file", "inventory_file"];

#[test]
fn the_example_shows_every_option_at_its_default() {
    let defaults = load("");
    let example = load(&read("config.example.toml"));
    // The example's account is commented out, so that its account is the environment's too.
    for (default, shown) in defaults.effective.iter().zip(&example.effective) {
        assert_eq!(
            (&default.section, &default.name, &default.value),
            (&shown.section, &shown.name, &shown.value)
        );
    }
    let whole = load(
        &whole_example()
            .replace("/etc/api-key-exporter/", "/nonexistent/")
            .lines()
            .filter(|line| !FILES.iter().any(|name| line.starts_with(name)))
            .collect::<Vec<_>>()
            .join("\n"),
    );
    let text = whole_example();
    for option in &whole.effective {
        let is_there = text
            .lines()
            .any(|line| line.starts_with(&format!("{} = ", option.name)));
        assert!(
            is_there,
            "config.example.toml does not show {}.{}",
            option.section, option.name
        );
        let origin = option.origin != Origin::Default;
        assert!(
            origin || FILES.contains(&option.name.as_str()),
            "{} is not read from the example",
            option.name
        );
    }
}

#[test]
fn the_readme_lists_exactly_the_options_that_there_are() {
    let text = "[[accounts]]\ntoken_env = \"BITGPT_API_KEY\"\n[[keys]]\nmatch = \"*\"";
    let config = load(text);
    let path = |option: &Effective| {
        let section = option.section.trim_matches(['[', ']']);
        let path = format!("{section}.{}", option.name);
        path.trim_start_matches('.').to_owned()
    };
    let options: BTreeSet<String> = config.effective.iter().map(path).collect();
    assert_eq!(readme_names("Configuration", ""), options);
    let readme = read("README.md");
    for option in config
        .effective
        .iter()
        .filter(|option| option.origin == Origin::Default)
    {
        let path = path(option);
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| `{path}` |")))
            .unwrap();
        let default = option
            .value
            .clone()
            .map_or("| – |".to_owned(), |value| format!("| `{value}` |"));
        // The format depends on the terminal.
        assert!(
            row.contains(&default) || path == "log.format",
            "{row} does not show {default}"
        );
    }
}

#[test]
fn ci_runs_what_the_readme_says_and_nothing_else() {
    let ci: Vec<String> = read(".ci/run")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(ci, ["cd \"$(dirname \"$0\")/..\"", "exec tests/run"]);
    assert!(read("README.md").contains("\n    tests/run\n"));
}
