//! The text about one listing's keys: written once for each listing, and again where what the
//! operator says of keys changes. It outlives failed polls. Pure.

use chrono::{DateTime, Utc};

use crate::domain::account_state::AccountState;
use crate::domain::assessment::{Assessment, AssessmentRules};
use crate::domain::key::{Expiry, Key, KeyId};
use crate::domain::listing::Listing;
use crate::domain::state_counts::StateCounts;
use crate::exposition::Metrics;
use crate::exposition::families::{FAMILIES, Family, KeyFacts, ListingFacts, Source};
use crate::exposition::format::Format;
use crate::exposition::piece::Piece;
use crate::exposition::samples::push_label;
use crate::exposition::time_left::TimeLeft;

/// Most keys of a part. A family's text of so many is some 100 KiB, what a processor's nearer
/// caches hold, and nothing larger is ever allocated to write a listing of any size.
const PART_KEYS_MAX: usize = 1024;

/// One key in so many starts a part. Which ones depends on their ids alone, so that a key that
/// comes or goes changes one part and not all that follow.
const PART_KEYS: u32 = 512;

/// What is written once for all keys. The same in both formats.
#[derive(Debug, Default)]
pub(super) struct KeysText {
    /// While this text holds: from the one moment on, and before the other.
    pub(super) holds: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    pub(super) state_counts: StateCounts,
    /// For each entry of the inventory, whether a key matches it.
    pub(super) matched: Box<[bool]>,
    /// In the order of the keys.
    parts: Vec<Part>,
    /// For each of [`FAMILIES`], what is said of the listing as a whole.
    listing: Vec<Option<Piece>>,
    pub(super) time_left: TimeLeft,
}

/// The text about some keys that follow each other.
#[derive(Debug)]
struct Part {
    first: KeyId,
    /// For each of [`FAMILIES`].
    pieces: Vec<Option<Piece>>,
}

impl KeysText {
    /// Pieces that are in `previous` already are shared with it: of a listing in which little
    /// changed, little is compressed and held twice.
    pub(super) fn new(
        state: &AccountState,
        account_labels: &str,
        metrics: Metrics,
        settings: &AssessmentRules,
        now: DateTime<Utc>,
        previous: Option<&Self>,
    ) -> Self {
        let mut text = Self::default();
        let Some(listing) = &state.held else {
            return text;
        };
        let judge = |key| settings.assess(&state.account.name, key, now);
        let assessments: Vec<Assessment<'_>> = listing.keys().iter().map(judge).collect();
        let judged = || listing.keys().iter().zip(&assessments);
        let facts = key_facts(state, listing, &assessments, metrics);
        for facts in parts(&facts) {
            text.write_part(facts, account_labels, previous);
        }
        let unmatched = assessments.iter().filter(|it| it.entry.is_none()).count();
        let facts = ListingFacts {
            unmatched: (!settings.inventory.is_empty()).then_some(unmatched),
        };
        text.listing = write_listing(&facts, account_labels);
        text.matched = matched(&assessments, settings);
        text.state_counts = StateCounts::new(judged().map(|(key, it)| (key, it.notice.warning)));
        let points =
            judged().flat_map(|(key, assessment)| settings.turning_points(key, assessment));
        text.holds = holds(points, now);
        text.time_left.shrink_to_fit();
        text
    }

    /// The samples about keys, and about the listing, of the family with this index in
    /// [`FAMILIES`].
    pub(super) fn pieces(&self, index: usize) -> impl Iterator<Item = &Piece> {
        let parts = self.parts.iter().map(|part| &part.pieces);
        let all = parts.chain([&self.listing]);
        all.filter_map(move |pieces| pieces.get(index)?.as_ref())
    }

    fn write_part(
        &mut self,
        facts: &[KeyFacts<'_>],
        account_labels: &str,
        previous: Option<&Self>,
    ) {
        let Some(first) = facts.first().map(|facts| facts.key.id.clone()) else {
            return;
        };
        let labels = facts
            .iter()
            .map(|facts| key_labels(account_labels, facts.key));
        let labels: Vec<String> = labels.collect();
        let known = previous.and_then(|previous| previous.part(&first));
        let mut out = String::new();
        let mut pieces = Vec::new();
        for (index, family) in FAMILIES.iter().enumerate() {
            out.clear();
            match family.source {
                Source::Key(write) => {
                    for (facts, labels) in facts.iter().zip(&labels) {
                        write(facts, &mut family.samples(&mut out, labels, Format::Text));
                    }
                }
                Source::TimeLeft => push_time_left(&mut self.time_left, family, facts, &labels),
                Source::Listing(_) | Source::Account(_) | Source::KeyStates => {}
            }
            let known = known.and_then(|known| known.pieces.get(index)?.as_ref());
            let shared = known.filter(|piece| piece.text() == out.as_bytes());
            pieces.push(shared.cloned().or_else(|| Piece::some(&out)));
        }
        self.parts.push(Part { first, pieces });
    }

    fn part(&self, first: &KeyId) -> Option<&Part> {
        let at = self
            .parts
            .binary_search_by(|part| part.first.cmp(first))
            .ok()?;
        self.parts.get(at)
    }
}

fn parts<'a, 'b>(facts: &'a [KeyFacts<'b>]) -> impl Iterator<Item = &'a [KeyFacts<'b>]> {
    let starts_part = |facts: &KeyFacts<'_>| {
        crc32fast::hash(facts.key.id.as_str().as_bytes()).is_multiple_of(PART_KEYS)
    };
    facts
        .chunk_by(move |_, next| !starts_part(next))
        .flat_map(|part| part.chunks(PART_KEYS_MAX))
}

fn write_listing(facts: &ListingFacts, account_labels: &str) -> Vec<Option<Piece>> {
    let write = |family: &Family| {
        let Source::Listing(write) = family.source else {
            return None;
        };
        let mut out = String::new();
        write(
            facts,
            family.samples(&mut out, account_labels, Format::Text),
        );
        Piece::some(&out)
    };
    FAMILIES.iter().map(write).collect()
}

fn key_facts<'a>(
    state: &'a AccountState,
    listing: &'a Listing,
    assessments: &'a [Assessment<'_>],
    metrics: Metrics,
) -> Vec<KeyFacts<'a>> {
    let judged = || listing.keys().iter().zip(assessments);
    let names: Vec<Option<&str>> = judged()
        .map(|(key, assessment)| assessment.name(key))
        .collect();
    let superseded = listing.superseded(&names);
    judged()
        .zip(superseded)
        .map(|((key, assessment), is_superseded)| KeyFacts {
            key,
            assessment,
            provider: &state.account.provider,
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

fn matched(assessments: &[Assessment<'_>], settings: &AssessmentRules) -> Box<[bool]> {
    let mut matched = vec![false; settings.inventory.entries().len()];
    for index in assessments
        .iter()
        .filter_map(|assessment| assessment.entry_index)
    {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::key::tests::{at, key};

    const METRICS: Metrics = Metrics {
        relative: true,
        scope_info: true,
        max_scopes_per_key: 64,
    };

    fn text(ids: impl Iterator<Item = u32>, label: &str, previous: Option<&KeysText>) -> KeysText {
        let keys = ids.map(|id| Key {
            // One key has the label, the others have none.
            label: (id == 4_000).then(|| label.into()),
            ..key(&format!("key_{id:05}"))
        });
        let state = polled_every(Duration::from_secs(60), "a");
        let state = state.polled(listed(keys.collect()), at(0));
        let settings = AssessmentRules::default();
        KeysText::new(
            &state,
            "{account=\"a\"",
            METRICS,
            &settings,
            at(0),
            previous,
        )
    }

    /// The whole text, and how many of its pieces are not those of `other`.
    fn differing(text: &KeysText, other: &KeysText) -> (Vec<u8>, usize) {
        let all = |text: &KeysText| -> Vec<Piece> {
            let families = 0..FAMILIES.len();
            families
                .flat_map(|index| text.pieces(index).cloned().collect::<Vec<_>>())
                .collect()
        };
        let (pieces, others) = (all(text), all(other));
        let is_shared = |piece: &&Piece| {
            let at = piece.text().as_ptr();
            others.iter().any(|other| other.text().as_ptr() == at)
        };
        let new = pieces.len() - pieces.iter().filter(is_shared).count();
        (
            pieces.iter().map(Piece::text).collect::<Vec<_>>().concat(),
            new,
        )
    }

    #[test]
    fn what_did_not_change_is_shared_with_what_was_written_before() {
        let before = text(0..8_000, "old", None);
        let parts = before.parts.len();
        assert!((8..40).contains(&parts), "{parts}");
        let same = text(0..8_000, "old", Some(&before));
        // The moving lines and the listing's own are none of these.
        assert_eq!(differing(&same, &before).1, 0);
        // `api_key_info` tells of the name, and `api_key_superseded` only of keys with one.
        let renamed = text(0..8_000, "new", Some(&before));
        let (written, new) = differing(&renamed, &before);
        assert_eq!(new, 1);
        assert!(written == differing(&text(0..8_000, "new", None), &before).0);
        // Every family of the one part, at most, that lost a key.
        let fewer = text((0..8_000).filter(|id| *id != 2_000), "old", Some(&before));
        let (written, new) = differing(&fewer, &before);
        assert!((1..=2 * FAMILIES.len()).contains(&new), "{new}");
        let afresh = text((0..8_000).filter(|id| *id != 2_000), "old", None);
        assert!(written == differing(&afresh, &before).0);
    }
}
