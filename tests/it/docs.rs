//! What users read: README.md, docs/ and the example configuration agree with the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use api_key_exporter::cli::Cli;
use api_key_exporter::config::{Config, Effective, Origin, Sources};
use api_key_exporter::domain::shard::Shard;
use api_key_exporter::exposition::Metrics;
use api_key_exporter::telemetry::Telemetry;
use clap::CommandFactory;

use crate::golden::{EVERYTHING, exposition};
use crate::support::{TOKEN, in_repository};

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text below a heading, up to the next one of the same level or above.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let level = heading.split(' ').next().unwrap().len();
    let mut is_code = false;
    let mut start = None;
    let mut at = 0;
    for line in page.split_inclusive('\n') {
        is_code ^= line.starts_with("```");
        let marks = line.bytes().take_while(|byte| *byte == b'#').count();
        if let Some(start) = start
            && !is_code
            && (1..=level).contains(&marks)
        {
            return &page[start..at];
        }
        at += line.len();
        if line.trim_end() == heading {
            start = Some(at);
        }
    }
    &page[start.unwrap_or_else(|| panic!("no {heading}"))..]
}

/// The rows of the tables in a text whose first cell is code: that code, and the whole row.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some((name, line))
    })
}

/// The names in the first column of the tables in a text, as far as they start with `prefix`.
pub(crate) fn first_column(text: &str, prefix: &str) -> BTreeSet<String> {
    let names = rows(text).map(|(name, _)| name.to_owned());
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn the_documentation_lists_exactly_the_metrics_that_exist_with_their_types() {
    let telemetry = Telemetry::new().unwrap();
    telemetry.count_request("/metrics", 200);
    telemetry.set_shard(Shard::new(1, 2).unwrap());
    // One is there only where others are left out.
    let golden = read("tests/golden/metrics.prom")
        + &exposition(Metrics {
            max_bytes_per_account: 0,
            ..EVERYTHING
        });
    let exposed: BTreeMap<String, String> = golden
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .chain(telemetry.gather(chrono::Utc::now()).iter().map(|family| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            (family.name().to_owned(), kind)
        }))
        // The documentation mentions the standard family as a whole.
        .filter(|(name, _)| !name.starts_with("process_"))
        .collect();
    let page = read("docs/metrics.md");
    assert_eq!(
        first_column(&page, "api_key_"),
        exposed.keys().cloned().collect()
    );
    for (name, row) in rows(&page).filter(|(name, _)| name.starts_with("api_key_")) {
        let kind = row.split(" | ").nth(1);
        assert_eq!(kind, Some(exposed[name].as_str()), "{row}");
    }
}

#[test]
fn the_documentation_lists_exactly_the_failure_reasons_that_exist() {
    let golden = read("tests/golden/metrics.prom");
    let counted: BTreeSet<String> = golden
        .lines()
        .filter_map(|line| line.strip_prefix("api_key_account_poll_failures_total{"))
        .map(|line| line.split_once("reason=\"").unwrap().1)
        .map(|rest| rest.split_once('"').unwrap().0.to_owned())
        .collect();
    assert!(counted.len() > 10, "{counted:?}");
    let page = read("docs/metrics.md");
    let listed = first_column(section(&page, "## Failure reasons"), "");
    assert_eq!(listed, counted);
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
    .unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"))
}

/// The example with everything that is commented out enabled.
fn whole_example() -> String {
    let example = read("config.example.toml");
    let lines = example.lines().map(|line| match line.strip_prefix('#') {
        // Prose starts with a space after the sign, an option does not.
        Some(option) if !option.is_empty() && !option.starts_with(' ') => option,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Options that name a file that has to exist.
const FILES: [&str; 4] = ["token_file", "ca_file", "inventory_file", "config_file"];

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
fn the_documentation_lists_exactly_the_options_that_exist_with_their_defaults() {
    let text = "[[accounts]]\ntoken_env = \"BITGPT_API_KEY\"\n[[keys]]\nmatch = \"*\"";
    let config = load(text);
    let path = |option: &Effective| {
        let section = option.section.trim_matches(['[', ']']);
        let path = format!("{section}.{}", option.name);
        path.trim_start_matches('.').to_owned()
    };
    let options: BTreeSet<String> = config.effective.iter().map(path).collect();
    let page = read("docs/configuration.md");
    let section = section(&page, "## Options");
    assert_eq!(first_column(section, ""), options);
    for option in config
        .effective
        .iter()
        .filter(|option| option.origin == Origin::Default)
    {
        let path = path(option);
        let (_, row) = rows(section).find(|(name, _)| *name == path).unwrap();
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
fn the_documentation_lists_exactly_the_flags_that_exist() {
    let command = Cli::command();
    let flags: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .collect();
    let page = read("docs/configuration.md");
    let listed: BTreeSet<String> = rows(section(&page, "### Flags"))
        .map(|(flag, _)| flag.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(listed, flags);
}

#[test]
fn the_documentation_lists_exactly_the_options_of_check() {
    let root = Cli::command();
    let check = root.find_subcommand("check").unwrap();
    let options = check
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    let options: BTreeSet<String> = options.map(|long| format!("--{long}")).collect();
    let page = read("docs/command-line.md");
    let listed = rows(section(&page, "### Options"));
    let listed = listed.map(|(option, _)| option.split(' ').next().unwrap().to_owned());
    assert_eq!(listed.collect::<BTreeSet<_>>(), options);
}

/// Every Markdown page that users read.
fn pages() -> Vec<PathBuf> {
    fn below(folder: &Path, pages: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    let mut pages = ["README.md", "CHANGELOG.md"].map(in_repository).to_vec();
    below(&in_repository("docs"), &mut pages);
    below(&in_repository("deploy"), &mut pages);
    pages
}

/// A page without its code blocks, and each block's language and code.
pub(crate) fn prose_and_code(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::<(String, String)>::new());
    let mut is_code = false;
    for line in text.split_inclusive('\n') {
        if let Some(language) = line.trim().strip_prefix("```") {
            is_code = !is_code;
            if is_code {
                blocks.push((language.to_owned(), String::new()));
            }
        } else if is_code {
            blocks.last_mut().unwrap().1.push_str(line.trim_start());
        } else {
            prose.push_str(line);
        }
    }
    assert!(!is_code, "a code block does not end");
    (prose, blocks)
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (prose, _) = prose_and_code(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|heading| {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            words
                .chars()
                .filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter))
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .collect()
        })
        .collect()
}

/// The targets of the inline links in a text.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    let ends = prose.split("](").skip(1);
    ends.map(|rest| rest.split_once(')').expect("a link ends").0)
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_that_exist() {
    let root = in_repository("").canonicalize().unwrap();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let (prose, _) = prose_and_code(&text);
        for link in links(&prose).filter(|link| !link.contains("://")) {
            let place = format!("{}: {link}", page.display());
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap().join(path),
            };
            let target = target.canonicalize();
            let target = target.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(target.starts_with(&root), "{place}: outside");
            if !anchor.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.contains(anchor), "{place}: none of {anchors:?}");
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn the_readme_links_to_every_page_of_the_documentation() {
    let (prose, _) = prose_and_code(&read("README.md"));
    let linked: BTreeSet<&str> = links(&prose).collect();
    for entry in fs::read_dir(in_repository("docs")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let link = format!("docs/{name}");
        let is_page = entry.file_type().unwrap().is_file();
        assert!(!is_page || linked.contains(link.as_str()), "{link}");
    }
}

#[test]
fn every_toml_example_is_a_valid_configuration() {
    let mut checked = 0;
    for page in pages() {
        let (_, blocks) = prose_and_code(&fs::read_to_string(&page).unwrap());
        for (_, code) in blocks.iter().filter(|(language, _)| language == "toml") {
            let config = crate::providers::example(code);
            assert!(!config.accounts.is_empty());
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked}");
}

#[test]
fn ci_runs_what_the_readme_says_and_nothing_else() {
    let ci: Vec<String> = read(".ci/run")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(str::to_owned)
        .collect();
    assert_eq!(ci, ["cd \"$(dirname \"$0\")/..\"", "exec tests/run"]);
    let (_, blocks) = prose_and_code(&read("README.md"));
    for command in ["cargo run --release -- demo", "tests/run"] {
        let block = ("sh".to_owned(), format!("{command}\n"));
        assert!(blocks.contains(&block), "no block {command:?}");
    }
}
