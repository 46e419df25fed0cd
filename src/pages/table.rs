//! The table of `check`: a line for each key, worst first, then what else there is to say. Pure.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthStr;

use crate::domain::key::{Expiry, LastUse};
use crate::domain::policy::Policy;
use crate::pages::check::{self, Check, Status};
use crate::pages::rows::KeyRow;
use crate::pages::words;

/// How the output looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The columns of the terminal; `None` cuts nothing.
    pub width: Option<usize>,
    /// Whether words are coloured.
    pub has_colours: bool,
}

/// Between two columns.
const GAP: &str = "  ";

/// A column is not cut below this: shorter parts of names say too little.
const LEAST_WIDTH: usize = 8;

const HEADINGS: [&str; COLUMNS] = [
    "STATE", "LEFT", "EXPIRES", "NAME", "TEAM", "ACCOUNT", "NOTES", "ID",
];
const COLUMNS: usize = 8;
const NAME: usize = 3;

/// The columns that hold free text and may be cut. The id is of use only as a whole.
const CUT: [usize; 4] = [3, 4, 5, 6];

/// The columns that are left out, in this order, where cutting is not enough. The state and the
/// name remain, which fit [`WIDTH_MIN`].
const LEFT_OUT: [usize; 6] = [7, 5, 4, 6, 2, 1];

/// Narrower terminals get this many columns: `superseded`, a gap and a name.
pub const WIDTH_MIN: usize = 20;

/// Letters that are written from right to left.
const RIGHT_TO_LEFT: [std::ops::RangeInclusive<char>; 5] = [
    '\u{590}'..='\u{8ff}',
    '\u{fb1d}'..='\u{fdff}',
    '\u{fe70}'..='\u{fefe}',
    '\u{10800}'..='\u{10fff}',
    '\u{1e800}'..='\u{1efff}',
];

/// The whole output.
pub(super) fn table(check: &Check<'_>, is_as_of: bool, look: Look) -> String {
    let mut out = String::new();
    let now = check.overview.now;
    if is_as_of {
        line(&mut out, format_args!("as of {}", words::minute(now)));
    }
    if !check.keys.is_empty() {
        write_keys(&mut out, check, look);
        out.push('\n');
    }
    for account in check.failed_accounts() {
        let failure = check::failure(&account);
        let name = account.name();
        let word = coloured("not listed", Status::Unknown, look);
        line(&mut out, format_args!("account {name}: {word}: {failure}"));
    }
    for state in &*check.overview.states {
        if let Some(rejects) = state.held.as_deref().and_then(words::rejects) {
            let name = &state.account.name;
            let help = "for details, run config check --live";
            line(&mut out, format_args!("account {name}: {rejects} ({help})"));
        }
    }
    let word = coloured(check.status.as_str(), check.status, look);
    line(&mut out, format_args!("{word}: {}", check.summary()));
    out
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(out, "{words}").expect("writing to a String cannot fail");
}

fn write_keys(out: &mut String, check: &Check<'_>, look: Look) {
    let keys = check.keys.iter();
    let mut rows: Vec<[String; COLUMNS]> = keys.map(|(row, it)| cells(row, *it)).collect();
    let mut widths = widths(&rows);
    let is_narrow = look.width.is_some_and(|most| excess(&widths, most) > 0);
    if is_narrow {
        // The time left says enough about the time of day.
        for [_, _, expires, ..] in &mut rows {
            expires.truncate(expires.find(' ').unwrap_or(expires.len()));
        }
        widths = self::widths(&rows);
    }
    if let Some(most) = look.width {
        fit(&mut widths, most);
    }
    for ([_, _, _, name, ..], (row, _)) in rows.iter_mut().zip(&check.keys) {
        if row.name().is_none() {
            *name = shortened_id(name, widths[NAME]);
        }
    }
    write_row(out, &HEADINGS.map(str::to_owned), &widths, None);
    for (cells, (_, status)) in rows.iter().zip(&check.keys) {
        write_row(out, cells, &widths, Some((*status, look)));
    }
}

/// The width of each column; 0 leaves it out, because it has no content.
fn widths(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    std::array::from_fn(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let heading = HEADINGS.get(column).copied().unwrap_or_default();
        match cells.map(|cell| cell.width()).max() {
            None | Some(0) => 0,
            Some(longest) => longest.max(heading.width()),
        }
    })
}

/// By how much a row is too long for `most` columns.
fn excess(widths: &[usize; COLUMNS], most: usize) -> usize {
    let shown = widths.iter().filter(|width| **width > 0);
    let total: usize = shown.map(|width| width + GAP.len()).sum();
    total.saturating_sub(GAP.len()).saturating_sub(most)
}

/// Leaves out columns until the others can be cut so that a row has at most `most` columns.
fn fit(widths: &mut [usize; COLUMNS], most: usize) {
    for column in LEFT_OUT.map(Some).into_iter().chain([None]) {
        let mut narrowed = *widths;
        cut(&mut narrowed, most);
        let Some(column) = column.filter(|_| excess(&narrowed, most) > 0) else {
            *widths = narrowed;
            return;
        };
        if let Some(width) = widths.get_mut(column) {
            *width = 0;
        }
    }
}

/// Narrows the widest columns of free text, as far as necessary and possible.
fn cut(widths: &mut [usize; COLUMNS], most: usize) {
    while excess(widths, most) > 0 {
        let wide = CUT.into_iter().filter_map(|column| {
            let width = *widths.get(column)?;
            (width > LEAST_WIDTH).then_some((width, column))
        });
        let Some((_, widest)) = wide.max() else {
            return;
        };
        if let Some(width) = widths.get_mut(widest) {
            *width -= 1;
        }
    }
}

fn write_row(
    out: &mut String,
    cells: &[String; COLUMNS],
    widths: &[usize; COLUMNS],
    look: Option<(Status, Look)>,
) {
    let mut row = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if *width == 0 {
            continue;
        }
        let cell = shortened(cell, *width);
        let padding = " ".repeat(width.saturating_sub(cell.width()));
        match look {
            Some((status, look)) if column == 0 => row.push_str(&coloured(&cell, status, look)),
            _ => row.push_str(&cell),
        }
        let is_mixed = cell.chars().any(is_right_to_left);
        if is_mixed && look.is_some_and(|(_, look)| look.width.is_some()) {
            // Keeps what follows on its right on terminals that reorder.
            row.push('\u{200e}');
        }
        row.push_str(&padding);
        row.push_str(GAP);
    }
    out.push_str(row.trim_end());
    out.push('\n');
}

fn is_right_to_left(c: char) -> bool {
    RIGHT_TO_LEFT.iter().any(|range| range.contains(&c))
}

/// The first columns of `text`, with an ellipsis where it is cut.
fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut head = text;
    while head.width() >= width {
        // A character has at most two columns, so that few characters are dropped one by one.
        let surplus = (head.width() + 1 - width).div_ceil(2).max(1);
        let last = head.char_indices().rev().nth(surplus - 1);
        head = last.map_or("", |(start, _)| head.get(..start).unwrap_or_default());
    }
    format!("{head}…")
}

/// An id, which is ASCII, without its middle: ids often differ at their end only.
fn shortened_id(id: &str, width: usize) -> String {
    let Some(surplus @ 1..) = id.len().checked_sub(width) else {
        return id.to_owned();
    };
    let start = width / 2;
    let (start, end) = (id.get(..start), id.get(start + surplus + 1..));
    [start.unwrap_or_default(), "…", end.unwrap_or_default()].concat()
}

/// `word` in the colour of `status`.
fn coloured(word: &str, status: Status, look: Look) -> String {
    let colour = match status {
        _ if !look.has_colours => return word.to_owned(),
        Status::Critical => "1;31",
        Status::Unknown => "1;35",
        Status::Warning => "33",
        Status::Ok => "32",
    };
    format!("\u{1b}[{colour}m{word}\u{1b}[0m")
}

fn cells(row: &KeyRow<'_>, status: Status) -> [String; COLUMNS] {
    let (left, expires) = match row.key.expiry {
        Expiry::At(end) => (
            row.time_left().map(words::from_now).unwrap_or_default(),
            words::minute(end),
        ),
        Expiry::Never => ("never".to_owned(), "never".to_owned()),
        Expiry::Unknown => ("unknown".to_owned(), "unreadable".to_owned()),
    };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    [
        check::word(row, status).to_owned(),
        left,
        expires,
        row.title().to_owned(),
        text(row.team()),
        row.account_name().to_owned(),
        notes(row, status).join(", "),
        // Already in the column of the name where there is no name.
        text(row.name().map(|_| row.key.id.as_str())),
    ]
}

/// What else there is to know about a key.
fn notes(row: &KeyRow<'_>, status: Status) -> Vec<String> {
    let mut notes = Vec::new();
    if row.key.is_own {
        notes.push("own key".to_owned());
    }
    if row.key.is_expiry_unknown() {
        notes.push("expiry unreadable".to_owned());
    }
    notes.extend(row.broken_policies().map(|it| it.as_str().to_owned()));
    // Otherwise the state says so.
    if row.is_superseded && status != Status::Ok {
        let used = match row.last_use() {
            LastUse::At(used) => format!(", last used {}", words::minute(used)),
            LastUse::Never | LastUse::Unknown => String::new(),
        };
        notes.push(format!("superseded{used}"));
    }
    if let Some(until) = row.muted_until() {
        let reason = row.reason().unwrap_or_default();
        notes.push(format!(
            "muted until {}: {reason}",
            until.format("%Y-%m-%d")
        ));
    }
    let exempt: Vec<&str> = row.exemptions().map(Policy::as_str).collect();
    if !exempt.is_empty() && row.muted_until().is_none() {
        notes.push(format!("exempt from {}", exempt.join(" and ")));
    }
    notes
}
