//! The timeline of expiries: positions for the template to draw. Pure.
//!
//! The axis is logarithmic, so that the next hours and the coming months are both legible. Expired
//! keys are in a separate column, left of now.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::assessment::Thresholds;
use crate::pages::rows::{KeyRow, Urgency};
use crate::pages::words;

/// The end of the axis.
const END_HOURS: f64 = 365.0 * 24.0;

/// Maximum keys stacked on each other; a number replaces the rest.
const STACK_MAX: usize = 7;

/// Pixels between two keys, and from a key's centre to its edge.
const STEP: f64 = 11.0;

/// Height of a line of names, in pixels.
const LANE: f64 = 15.0;

/// Maximum characters of a name; longer names are truncated.
const NAME_CHARS_MAX: usize = 24;

/// Estimated width of a character in an 11-pixel font, on the safe side: widths vary.
const CHAR: f64 = 6.4;

/// Ticks in hours from now, with their labels, and short labels for narrow screens; an empty label
/// omits the tick there.
const TICKS: [(f64, &str, &str); 10] = [
    (1.0, "1 h", ""),
    (6.0, "6 h", "6 h"),
    (24.0, "1 day", "1 d"),
    (3.0 * 24.0, "3 days", ""),
    (7.0 * 24.0, "7 days", "7 d"),
    (14.0 * 24.0, "14 days", ""),
    (30.0 * 24.0, "30 days", "30 d"),
    (90.0 * 24.0, "90 days", ""),
    (180.0 * 24.0, "180 days", ""),
    (END_HOURS, "1 year", "1 y"),
];

/// The dimensions of a timeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// In pixels.
    width: f64,
    /// Lines of names above the keys.
    lanes: usize,
    /// Whether there is room for every tick.
    is_wide: bool,
    /// Its name in the style sheet, and the prefix of its ids.
    pub(super) name: &'static str,
}

impl Size {
    /// For a desktop screen.
    pub(super) const WIDE: Self = Self {
        width: 1160.0,
        lanes: 5,
        is_wide: true,
        name: "wide",
    };
    /// For a phone in portrait orientation.
    pub(super) const NARROW: Self = Self {
        width: 360.0,
        lanes: 4,
        is_wide: false,
        name: "narrow",
    };
}

/// A laid-out timeline. All positions are whole pixels.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) size: Size,
    pub(super) width: i32,
    pub(super) height: i32,
    /// The position of now.
    pub(super) now: i32,
    /// The position of the axis, and its end.
    pub(super) axis: i32,
    pub(super) end: i32,
    /// The positions of the warning and the critical threshold.
    pub(super) bands: Vec<Band>,
    pub(super) ticks: Vec<Tick>,
    pub(super) dots: Vec<Dot>,
    pub(super) labels: Vec<Label>,
}

/// The period within a threshold, starting now.
#[derive(Debug)]
pub(super) struct Band {
    pub(super) class: &'static str,
    pub(super) end: i32,
    pub(super) width: i32,
    pub(super) words: String,
}

/// A mark on the axis.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) x: i32,
    pub(super) words: &'static str,
}

/// A key, or the number of keys that do not fit.
#[derive(Debug)]
pub(super) struct Dot {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) class: &'static str,
    pub(super) words: String,
    /// Additional keys that this mark represents.
    pub(super) more: usize,
}

/// A key's name, with a line to the key.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) to: i32,
    pub(super) is_left: bool,
    pub(super) words: String,
}

/// A description of how many keys expire when.
#[derive(Debug)]
pub(super) struct Sums(pub(super) Vec<String>);

impl Timeline {
    /// The timeline of the keys in `rows`, by their expiry.
    pub(super) fn new(
        rows: &[KeyRow<'_>],
        thresholds: &Thresholds,
        now: DateTime<Utc>,
        size: Size,
    ) -> Self {
        let scale = Scale::new(size);
        let mut columns: BTreeMap<i32, Vec<&KeyRow<'_>>> = BTreeMap::new();
        for row in rows {
            if let Some(end) = row.expires_at()
                && let Some(x) = scale.column(end - now)
            {
                columns.entry(x).or_default().push(row);
            }
        }
        let mut names = Names::new(size, scale.start);
        for (x, column) in &mut columns {
            column.sort_by_key(|row| (row.urgency(), row.expires_at()));
            if let [first, others @ ..] = &**column
                && *x > scale.now()
            {
                names.add(*x, first.title(), others.len());
            }
        }
        let tallest = columns.values().map(Vec::len).max().unwrap_or(0);
        let stack = STEP * (tallest.min(STACK_MAX) + 2) as f64;
        let axis = pixels(LANE * names.lanes() as f64 + stack);
        let dots = columns.iter().flat_map(|(x, column)| {
            let shown = (0_u8..).zip(column).take(STACK_MAX);
            shown.map(|(place, row)| {
                let is_last = usize::from(place) + 1 == STACK_MAX;
                Dot {
                    x: *x,
                    y: axis - pixels(STEP * (f64::from(place) + 0.8)),
                    class: class(row),
                    words: words_of(row, now),
                    more: if is_last { column.len() - STACK_MAX } else { 0 },
                }
            })
        });
        let stack_top = |x| {
            let len = columns.get(&x).map_or(0, Vec::len).min(STACK_MAX);
            axis - pixels(STEP * (len as f64 + 0.4))
        };
        let labels = names.done.iter().map(|name| Label {
            to: stack_top(name.x),
            ..name.clone()
        });
        let ticks = TICKS.iter().map(|(hours, words, short)| Tick {
            x: scale.x(*hours),
            words: if size.is_wide { words } else { short },
        });
        let band = |class, span: TimeDelta| {
            let end = scale.x(hours(span).min(END_HOURS));
            Band {
                class,
                end,
                width: (end - scale.now()).max(0),
                words: format!("{class}: {}", words::rough(span)),
            }
        };
        Self {
            size,
            width: pixels(size.width),
            height: axis + if size.is_wide { 42 } else { 24 },
            now: scale.now(),
            axis,
            end: scale.x(END_HOURS),
            bands: vec![
                band("warning", thresholds.warning),
                band("critical", thresholds.critical),
            ],
            ticks: ticks.filter(|tick| !tick.words.is_empty()).collect(),
            dots: dots.collect(),
            labels: labels.collect(),
        }
    }
}

impl Sums {
    /// The description of the keys in `rows`.
    pub(super) fn new(rows: &[KeyRow<'_>]) -> Self {
        let limits = [
            (TimeDelta::zero(), "expired"),
            (TimeDelta::days(1), "expiring within a day"),
            (TimeDelta::days(7), "within 7 days"),
            (TimeDelta::days(30), "within 30 days"),
            (TimeDelta::days(365), "within a year"),
            (TimeDelta::MAX, "later"),
        ];
        let mut counts = [0; 6];
        let mut without = 0;
        for row in rows {
            match row.time_left() {
                Some(left) => {
                    let place = limits.iter().position(|(limit, _)| left <= *limit);
                    if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                        *count += 1;
                    }
                }
                None => without += 1,
            }
        }
        let known = counts.into_iter().zip(limits.map(|(_, words)| words));
        let sums = known.chain([(without, "without a known expiry")]);
        let sums = sums.filter(|(count, _)| *count > 0);
        Self(
            sums.map(|(count, words)| format!("{count} {words}"))
                .collect(),
        )
    }
}

/// Converts time to pixels.
struct Scale {
    /// Where the axis starts, one step right of the expired keys.
    start: f64,
    width: f64,
}

impl Scale {
    fn new(size: Size) -> Self {
        let start = if size.is_wide { 84.0 } else { 80.0 };
        Self {
            start,
            // Half of the last tick's label is right of the end.
            width: size.width - start - if size.is_wide { 34.0 } else { 12.0 },
        }
    }

    fn now(&self) -> i32 {
        pixels(self.start)
    }

    fn x(&self, hours: f64) -> i32 {
        let part = (1.0 + hours).ln() / (1.0 + END_HOURS).ln();
        pixels(self.start + self.width * part)
    }

    /// The column for a key with this much time left; `None` if it is off the axis.
    fn column(&self, left: TimeDelta) -> Option<i32> {
        let hours = hours(left);
        if left <= TimeDelta::zero() {
            return Some(pixels(self.start / 2.0));
        }
        let x = f64::from(self.x(hours)).max(self.start + STEP / 2.0);
        let column = ((x - self.start) / STEP).round().mul_add(STEP, self.start);
        (hours <= END_HOURS).then(|| pixels(column))
    }
}

/// Names, on separate lines where they would overlap. The lines to the keys do not cross names: a
/// name further right is on a lower line than the overlapping names before it.
struct Names {
    size: Size,
    start: f64,
    /// How far each line of names is occupied.
    taken: Vec<f64>,
    done: Vec<Label>,
}

impl Names {
    fn new(size: Size, start: f64) -> Self {
        Self {
            size,
            start,
            taken: vec![start; size.lanes],
            done: Vec::new(),
        }
    }

    /// The number of lines in use.
    fn lanes(&self) -> usize {
        let start = self.start;
        self.taken
            .iter()
            .rposition(|taken| *taken > start)
            .map_or(0, |lane| lane + 1)
    }

    fn add(&mut self, x: i32, name: &str, others: usize) {
        let mut words: String = name.chars().take(NAME_CHARS_MAX).collect();
        if words.len() < name.len() {
            words.push('…');
        }
        if others > 0 {
            words = format!("{words} +{others}");
        }
        let left = f64::from(x);
        let len = words.chars().count() as f64 * CHAR + 6.0;
        let is_left = left + len > self.size.width;
        let start = if is_left { left - len } else { left };
        let blocked = self.taken.iter().rposition(|taken| *taken > start);
        let lane = blocked.map_or(0, |lane| lane + 1);
        if let Some(taken) = self.taken.get_mut(lane) {
            *taken = start + len;
            self.done.push(Label {
                x,
                y: pixels(LANE * (lane as f64 + 0.8)),
                to: 0,
                is_left,
                words,
            });
        }
    }
}

fn class(row: &KeyRow<'_>) -> &'static str {
    match row.urgency() {
        Urgency::Expired => "expired",
        Urgency::Critical => "critical",
        Urgency::Warning => "warning",
        Urgency::Unknown => "unknown",
        Urgency::None if row.is_quiet() => "quiet",
        Urgency::None => "valid",
    }
}

fn words_of(row: &KeyRow<'_>, now: DateTime<Utc>) -> String {
    let left = row.expires_at().map(|end| words::from_now(end - now));
    format!("{}: {}", row.title(), left.unwrap_or_default())
}

fn hours(span: TimeDelta) -> f64 {
    span.num_seconds() as f64 / 3_600.0
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a picture is some thousand pixels wide; `as` saturates"
)]
fn pixels(length: f64) -> i32 {
    length.round() as i32
}
