//! Replays the seeds of the fuzz targets through their oracles, and the seeds with a few bytes
//! changed: what a fuzzer does, without one.

use std::fs;

use oracles::{ORACLES, check, markup, reader};

use crate::support::in_repository;

#[path = "../../fuzz/oracles.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets are another crate")]
mod oracles;

/// Changed inputs made from each seed. All seeds together take some seconds.
const CHANGES: usize = 20;

/// The seeds of a target, by file name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = in_repository("fuzz/seeds").join(target);
    let seeds = fs::read_dir(&folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // A finding must be small enough to read.
        assert!(bytes.len() <= 4 * 1024, "{} is large", path.display());
        (path.display().to_string(), bytes)
    });
    seeds.collect()
}

/// Cuts, doubles, overwrites or flips something; the same each time for the same `random`.
fn change(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let at = random.usize(..=bytes.len());
    match random.u8(..4) {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_within(at..),
        2 => bytes.splice(at..at, [random.u8(..)]).for_each(drop),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.u8(..8);
            }
        }
    }
}

/// Names the input that breaks a promise; the oracle's panic says which.
fn assert_kept(target: &str, seed: &str, bytes: &[u8]) {
    let checked = std::panic::catch_unwind(|| check(target, bytes));
    assert!(
        checked.is_ok(),
        "{seed}, changed to \"{}\"",
        bytes.escape_ascii()
    );
}

#[test]
fn every_seed_keeps_its_targets_promises_and_so_do_its_neighbours() {
    for (target, _) in ORACLES {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{target} has few seeds");
        let mut random = fastrand::Rng::with_seed(1);
        for (name, seed) in seeds {
            assert_kept(target, &name, &seed);
            let mut bytes = seed.clone();
            for _ in 0..CHANGES {
                change(&mut bytes, &mut random);
                assert_kept(target, &name, &bytes);
                if bytes.is_empty() || bytes.len() > 2 * seed.len() + 64 {
                    bytes.clone_from(&seed);
                }
            }
        }
    }
}

#[test]
fn every_oracle_is_a_fuzz_target_and_has_a_seed_folder() {
    let manifest = fs::read_to_string(in_repository("fuzz/Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]\nname = \"").skip(1);
    let mut targets: Vec<&str> = bins.map(|bin| bin.split('"').next().unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ORACLES.map(|(name, _)| name));
    let mut folders: Vec<String> = fs::read_dir(in_repository("fuzz/seeds"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort_unstable();
    assert_eq!(folders, targets);
}

#[test]
fn the_own_reader_refuses_what_a_strict_reader_refuses() {
    let head = "# HELP a_total H.\n# TYPE a_total counter\n";
    let read = |text: &str| std::panic::catch_unwind(|| reader::read(text, false));
    let good = read(&format!("{head}a_total{{l=\"q\\\"b\\\\ \\n\"}} 1\n")).unwrap();
    let (labels, value) = good.named("a_total").next().unwrap();
    assert_eq!((labels["l"].as_str(), value), ("q\"b\\ \n", "1"));
    for bad in [
        "a_total 1\na_total 1\n",
        "a_total{l=\"x\"} 1\na_total{l=\"x\"} 2\n",
        "a_total{l=\"x\",l=\"y\"} 1\n",
        "a_total{l=\"\\t\"} 1\n",
        "a_total{l=\"x} 1\n",
        "a_total 1",
        "a_total one\n",
        "b_total 1\n",
        "a_total 1 # {x=\"y\"} 1\n",
        "# TYPE b gauge\n# TYPE a_total counter\n",
    ] {
        assert!(read(&format!("{head}{bad}")).is_err(), "{bad:?}");
    }
    assert!(
        reader::read("# TYPE a info\na_info 1\n# EOF\n", true)
            .0
            .len()
            == 1
    );
    assert!(std::panic::catch_unwind(|| reader::read("a 1\n", true)).is_err());
}

#[test]
fn the_own_reader_of_html_refuses_what_could_leave_its_place() {
    let read = |body: &str| std::panic::catch_unwind(|| markup::read(&format!("<p>{body}</p>")));
    let good =
        read("<a href=\"?q=&#34;&amp;\" class=\"x\">a &lt;b&gt;</a><input disabled>").unwrap();
    assert_eq!(good.links, ["?q=\"&"]);
    assert!(good.texts.contains(&("p/a".to_owned(), "a <b>".to_owned())));
    for bad in [
        "<b>",
        "</b>",
        "<script>x</script>",
        "<a href=x>a</a>",
        "<a href=\"x\" href=\"y\">a</a>",
        "<a onclick=\"x\">a</a>",
        "<a href=\"<\">a</a>",
        "a > b",
        "a & b;",
        "<!-- x -->",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
