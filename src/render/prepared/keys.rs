//! The text about one listing's keys: written once for each listing, and again where what the
//! operator says of keys changes. It outlives failed polls. Pure.

use chrono::{DateTime, Utc};

use crate::domain::census::Census;
use crate::domain::judge::{Settings, Verdict};
use crate::domain::key::{Expiry, Key};
use crate::domain::listing::Listing;
use crate::domain::state::AccountState;
use crate::render::Metrics;
use crate::render::families::{FAMILIES, Family, KeyFacts, ListingFacts, Source};
use crate::render::format::Format;
use crate::render::piece::Piece;
use crate::render::samples::push_label;
use crate::render::time_left::TimeLeft;

/// Keys written at once. A family's text of so many is some 64 KiB, what a processor's nearer
/// caches hold, and nothing larger is ever allocated to write a listing of any size.
const KEYS_AT_ONCE: usize = 512;

/// What is written once for all keys. The same in both formats.
#[derive(Debug, Default)]
pub(super) struct KeysText {
    /// While this text holds: from the one moment on, and before the other.
    pub(super) holds: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    pub(super) census: Census,
    /// For each entry of the inventory, whether a key matches it.
    pub(super) matched: Box<[bool]>,
    /// Pieces for each of [`FAMILIES`], none where they come from elsewhere.
    pub(super) fixed: Vec<Vec<Piece>>,
    pub(super) time_left: TimeLeft,
}

impl KeysText {
    pub(super) fn new(
        state: &AccountState,
        account_labels: &str,
        metrics: Metrics,
        settings: &Settings,
        now: DateTime<Utc>,
    ) -> Self {
        let mut text = Self {
            fixed: FAMILIES.iter().map(|_| Vec::new()).collect(),
            ..Self::default()
        };
        let Some(listing) = &state.held else {
            return text;
        };
        let judge = |key| settings.judge(&state.account.name, key, now);
        let verdicts: Vec<Verdict<'_>> = listing.keys().iter().map(judge).collect();
        let judged = || listing.keys().iter().zip(&verdicts);
        let facts = key_facts(state, listing, &verdicts, metrics);
        for facts in facts.chunks(KEYS_AT_ONCE) {
            text.write_keys(facts, account_labels);
        }
        let unmatched = verdicts.iter().filter(|it| it.entry.is_none()).count();
        let facts = ListingFacts {
            unmatched: (!settings.inventory.is_empty()).then_some(unmatched),
        };
        text.write_listing(&facts, account_labels);
        text.matched = matched(&verdicts, settings);
        text.census = Census::new(judged().map(|(key, it)| (key, it.notice.warning)));
        let points = judged().flat_map(|(key, verdict)| settings.turning_points(key, verdict));
        text.holds = holds(points, now);
        text.time_left.shrink_to_fit();
        text
    }

    fn write_keys(&mut self, facts: &[KeyFacts<'_>], account_labels: &str) {
        let labels = facts
            .iter()
            .map(|facts| key_labels(account_labels, facts.key));
        let labels: Vec<String> = labels.collect();
        let mut out = String::new();
        for (family, pieces) in FAMILIES.iter().zip(&mut self.fixed) {
            match family.source {
                Source::Key(write) => {
                    out.clear();
                    for (facts, labels) in facts.iter().zip(&labels) {
                        write(facts, &mut family.samples(&mut out, labels, Format::Text));
                    }
                    pieces.extend(Piece::some(&out));
                }
                Source::TimeLeft => push_time_left(&mut self.time_left, family, facts, &labels),
                Source::Listing(_) | Source::Account(_) | Source::KeyStates => {}
            }
        }
    }

    fn write_listing(&mut self, facts: &ListingFacts, account_labels: &str) {
        for (family, pieces) in FAMILIES.iter().zip(&mut self.fixed) {
            if let Source::Listing(write) = family.source {
                let mut out = String::new();
                write(
                    facts,
                    family.samples(&mut out, account_labels, Format::Text),
                );
                pieces.extend(Piece::some(&out));
            }
        }
    }
}

fn key_facts<'a>(
    state: &'a AccountState,
    listing: &'a Listing,
    verdicts: &'a [Verdict<'_>],
    metrics: Metrics,
) -> Vec<KeyFacts<'a>> {
    let judged = || listing.keys().iter().zip(verdicts);
    let names: Vec<Option<&str>> = judged().map(|(key, verdict)| verdict.name(key)).collect();
    let superseded = listing.superseded(&names);
    judged()
        .zip(superseded)
        .map(|((key, verdict), is_superseded)| KeyFacts {
            key,
            verdict,
            provider: state.account.provider,
            api_env: listing.api_env().unwrap_or_default(),
            is_superseded,
            metrics,
        })
        .collect()
}

fn push_time_left(
    lines: &mut TimeLeft,
    family: &Family,
    facts: &[KeyFacts<'_>],
    labels: &[String],
) {
    for (facts, labels) in facts.iter().zip(labels) {
        if let (true, Expiry::At(end)) = (facts.metrics.relative, facts.key.expiry) {
            lines.push([family.name, labels, "} "], end.timestamp());
        }
    }
}

fn matched(verdicts: &[Verdict<'_>], settings: &Settings) -> Box<[bool]> {
    let mut matched = vec![false; settings.inventory.entries().len()];
    for index in verdicts.iter().filter_map(|verdict| verdict.entry_index) {
        if let Some(is_matched) = matched.get_mut(index) {
            *is_matched = true;
        }
    }
    matched.into()
}

/// The span around `now` in which none of `turning_points` lies: from the one, until the other.
fn holds(
    turning_points: impl Iterator<Item = DateTime<Utc>>,
    now: DateTime<Utc>,
) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
    let (mut from, mut until) = (None, None);
    for point in turning_points {
        if point <= now {
            from = from.max(Some(point));
        } else if until.is_none_or(|until| point < until) {
            until = Some(point);
        }
    }
    (from, until)
}

fn key_labels(account_labels: &str, key: &Key) -> String {
    let mut labels = format!("{account_labels},");
    push_label(&mut labels, "key_id", key.id.as_str());
    labels
}
