//! The answers for a fixed state at a fixed time, compared with files; and for hostile names.

use std::sync::Arc;

use api_key_exporter::pages::{Check, Choice, Look, Origins, Overview, Status, WIDTH_MIN, explain};
use chrono::TimeDelta;
use serde_json::Value;

use crate::golden::{assert_golden, at, settings, states};
use crate::pages::hostile;

fn golden() -> Overview {
    Overview {
        states: states().map(Arc::new).into(),
        rules: Arc::new(settings()),
        now: at("2026-01-01T00:00:02Z"),
    }
}

fn narrow(width: usize) -> Look {
    Look {
        width: Some(width),
        has_colours: false,
    }
}

#[test]
fn answers_are_as_they_were() {
    let overview = golden();
    let check = Check::new(&overview, &Choice::default());
    assert_golden("check.txt", &check.table(false, Look::default()));
    let colours = Look {
        width: Some(80),
        has_colours: true,
    };
    assert_golden("check_80.txt", &check.table(true, colours));
    assert_golden("check.nagios", &check.nagios());
    assert_golden("check.json", &check.json(overview.now, None));
    let origins = Origins {
        options: [(
            "thresholds.critical".to_owned(),
            "= \"7d\" (default)".to_owned(),
        )]
        .into(),
        entries: vec!["keys[0] (file a.toml:3:9)".to_owned()],
    };
    let (row, _) = &check.keys[0];
    let (text, status) = explain(&overview, row, &origins);
    assert_eq!(status, Status::Critical);
    assert_golden("explain.txt", &text);
}

#[test]
fn a_choice_leaves_out_keys_and_what_they_mean_for_the_status() {
    let mut overview = golden();
    overview.states = overview.states[..1].into();
    let status = |teams: &[&str], within: Option<i64>| {
        let choice = Choice {
            teams: teams.iter().map(ToString::to_string).collect(),
            within: within.map(TimeDelta::days),
        };
        let check = Check::new(&overview, &choice);
        (check.keys.len(), check.counts.expired)
    };
    let (all, expired) = status(&[], None);
    assert!(all > 4 && expired > 0);
    let (soon, expired_soon) = status(&[], Some(1));
    assert!(soon < all && expired_soon == expired);
    assert_eq!(status(&["payments"], None).0, 2);
    assert_eq!(status(&["payments", "nobody"], None).0, 2);
    assert_eq!(status(&["nobody"], None).0, 0);
}

/// The columns that a line takes on a terminal.
fn columns(line: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(line)
}

#[test]
fn the_table_of_any_names_fits_any_terminal_and_cuts_nothing_elsewhere() {
    for overview in [golden(), hostile()] {
        let check = Check::new(&overview, &Choice::default());
        let keys = check.keys.len();
        for width in [WIDTH_MIN, 25, 30, 40, 60, 80, 100, 120, 160, 200, 500] {
            let table = check.table(false, narrow(width));
            let rows = table.lines().take(keys + 1);
            for row in rows {
                assert!(columns(row) <= width, "{width}: {row:?}");
            }
        }
        let whole = check.table(false, Look::default());
        assert!(!whole.contains('…') && !whole.contains('\u{1b}'));
        for (row, _) in &check.keys {
            assert!(whole.contains(row.title()) && whole.contains(row.key.id.as_str()));
        }
        // Each column starts at the same place in each line.
        let expected = whole.find("ACCOUNT").unwrap();
        for (line, (row, _)) in whole.lines().skip(1).zip(&check.keys) {
            let starts = line.match_indices(row.account_name());
            let mut starts = starts.map(|(start, _)| columns(&line[..start]));
            assert!(starts.any(|start| start == expected), "{line}");
        }
    }
}

#[test]
fn hostile_names_stay_in_their_places() {
    let overview = hostile();
    let check = Check::new(&overview, &Choice::default());
    let table = check.table(false, Look::default());
    // Heading, two keys, a blank line, the account and the summary.
    assert_eq!(table.lines().count(), 6, "{table}");
    let nagios = check.nagios();
    assert_eq!(
        (nagios.lines().count(), nagios.matches('|').count()),
        (1, 1),
        "{nagios}"
    );
    let (_, perfdata) = nagios.split_once(" | ").unwrap();
    for word in perfdata.split_whitespace() {
        let (label, value) = word.split_once('=').unwrap();
        assert!(
            label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{word}"
        );
        let value = value.trim_end_matches(";;;0").trim_end_matches('s');
        assert!(value.parse::<i64>().is_ok(), "{word}");
    }
    let json: Value = serde_json::from_str(&check.json(overview.now, None)).unwrap();
    assert_eq!(json["keys"].as_array().unwrap().len(), 2);
    let (row, _) = &check.keys[0];
    let (text, _) = explain(&overview, row, &Origins::default());
    for line in [&table, &nagios, &text]
        .into_iter()
        .flat_map(|it| it.lines())
    {
        let has_control = line
            .chars()
            .any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        assert!(!has_control, "{line:?}");
    }
}
