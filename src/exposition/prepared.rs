//! One account's text, written and compressed once a poll: what holds until the next one. Pure.

mod keys;

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::domain::account_state::AccountState;
use crate::domain::assessment::AssessmentRules;
use crate::domain::state_counts::StateCounts;
use crate::exposition::Metrics;
use crate::exposition::families::{FAMILIES, Family, Source};
use crate::exposition::format::Format;
use crate::exposition::piece::Piece;
use crate::exposition::prepared::keys::KeysText;
use crate::exposition::samples::push_label;
use crate::exposition::time_left::TimeLeft;

/// One account's state with all of its text that holds until the next poll.
#[derive(Clone, Debug)]
pub struct Prepared {
    state: AccountState,
    settings: Arc<AssessmentRules>,
    /// The account's own samples in each of [`Format::ALL`], for each of [`FAMILIES`].
    account: [Vec<Option<Piece>>; Format::ALL.len()],
    keys: Arc<KeysText>,
}

impl Prepared {
    /// Writes the text for `state` as of `now`. That of the keys is taken over from `previous`
    /// where the listing and the settings are the same and it holds now.
    pub fn new(
        state: AccountState,
        previous: Option<&Self>,
        metrics: Metrics,
        settings: &Arc<AssessmentRules>,
        now: DateTime<Utc>,
    ) -> Self {
        let labels = account_labels(&state);
        let account = Format::ALL.map(|format| {
            let pieces = FAMILIES
                .iter()
                .map(|family| account_piece(family, &state, &labels, format));
            pieces.collect()
        });
        let same_listing = previous.filter(|previous| match (&previous.state.held, &state.held) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        });
        let same_keys = same_listing
            .filter(|previous| Arc::ptr_eq(&previous.settings, settings) && previous.holds_at(now));
        let keys = same_keys.map_or_else(
            || {
                let known = previous.map(|previous| &*previous.keys);
                let text = KeysText::new(&state, &labels, metrics, settings, now, known);
                Arc::new(text)
            },
            |previous| previous.keys.clone(),
        );
        Self {
            state,
            settings: settings.clone(),
            account,
            keys,
        }
    }

    /// The state that the text tells of.
    pub fn state(&self) -> &AccountState {
        &self.state
    }

    /// Whether the text about keys is true at `now`: a mute that ends, or a key that becomes too
    /// old, changes it between two polls.
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        let (from, until) = self.keys.holds;
        from.is_none_or(|from| from <= now) && until.is_none_or(|until| now < until)
    }

    /// For each entry of the inventory that the text was written with, whether it matches a key.
    /// Empty until there is a listing.
    pub fn matched_entries(&self) -> &[bool] {
        &self.keys.matched
    }

    /// The settings that the text was written with.
    pub fn settings(&self) -> &AssessmentRules {
        &self.settings
    }

    /// The lines of keys whose values move with the clock.
    pub(super) fn time_left(&self) -> &TimeLeft {
        &self.keys.time_left
    }

    /// When keys change their state.
    pub(super) fn state_counts(&self) -> &StateCounts {
        &self.keys.state_counts
    }

    /// The account's samples of the family with this index in [`FAMILIES`].
    pub(super) fn fixed(&self, index: usize, format: Format) -> impl Iterator<Item = &Piece> {
        let account = self.account.get(format as usize);
        let account = account.and_then(|pieces| pieces.get(index)?.as_ref());
        self.keys.pieces(index).chain(account)
    }
}

fn account_piece(
    family: &Family,
    state: &AccountState,
    labels: &str,
    format: Format,
) -> Option<Piece> {
    let Source::Account(write) = family.source else {
        return None;
    };
    let mut out = String::new();
    write(state, &mut family.samples(&mut out, labels, format));
    Piece::some(&out)
}

/// The labels that every sample of the account carries, opened and not closed.
pub(super) fn account_labels(state: &AccountState) -> String {
    let mut labels = "{".to_owned();
    push_label(&mut labels, "account", &state.account.name);
    labels
}
