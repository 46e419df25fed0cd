//! The families with clock-dependent values, written as plain text at the first scrape of a second.
//! Pure.

use std::sync::Arc;

use bytes::BytesMut;
use chrono::DateTime;

use crate::exposition::account_text::AccountText;
use crate::exposition::chunk::StoredChunk;
use crate::exposition::families::{self, FAMILIES, Family, Source};
use crate::exposition::format::Format;

/// The samples as of one second. Identical in both formats: only the lines before them differ.
#[derive(Debug)]
pub(super) struct ClockText {
    pub(super) expires_in: StoredChunk,
    pub(super) key_states: StoredChunk,
}

impl ClockText {
    /// The text for `accounts`, in their order. Reuses the memory of `previous` if it has no
    /// readers left.
    pub(super) fn new(accounts: &[Arc<AccountText>], second: i64, previous: Option<Self>) -> Self {
        let previous = previous.and_then(|previous| {
            let text = previous.expires_in.into_text();
            text.try_into_mut().ok()
        });
        Self {
            expires_in: StoredChunk::new(expires_in(accounts, second, previous)),
            key_states: StoredChunk::new(key_states(accounts, second)),
        }
    }
}

/// Values are whole seconds, rounded down, so that a negative value means expired.
fn expires_in(accounts: &[Arc<AccountText>], second: i64, out: Option<BytesMut>) -> BytesMut {
    let mut out = out.unwrap_or_default();
    out.clear();
    let is_countdown = |family: &&Family| matches!(family.source, Source::ExpiresIn);
    let Some(family) = FAMILIES.iter().find(is_countdown) else {
        return out;
    };
    let mut digits = itoa::Buffer::new();
    for (labels, expires) in accounts.iter().flat_map(|account| account.keys()) {
        let Some(expires) = expires else { continue };
        let value = digits.format(expires.saturating_sub(second));
        for part in [family.name, labels, "} ", value, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out
}

fn key_states(accounts: &[Arc<AccountText>], second: i64) -> String {
    let mut out = String::new();
    let now = DateTime::from_timestamp(second, 0).unwrap_or_default();
    let families = FAMILIES.iter();
    for family in families.filter(|family| matches!(family.source, Source::KeyStates)) {
        for account in accounts {
            let samples = family.samples(&mut out, account.labels(), Format::Text);
            families::key_states(&account.state_counts.at(now), samples);
        }
    }
    out
}
