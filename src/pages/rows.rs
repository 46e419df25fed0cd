//! The data source of the pages: every key and account with all facts and assessments at one
//! moment. A new fact about keys or accounts is added here, and then shown by each page. Pure.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::account_state::{AccountState, LastFailure};
use crate::domain::assessment::{Assessment, AssessmentRules, Severity};
use crate::domain::key::{Expiry, Key, KeyState, LastUse, Scopes};
use crate::domain::listing::Rejects;
use crate::domain::policy::Policy;
use crate::domain::successors;
use crate::pages::query::{Filter, StateFilter};

/// The states of all accounts, shown as of `now`. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Overview {
    /// In the order of the configuration.
    pub states: Arc<[Arc<AccountState>]>,
    /// How keys are assessed.
    pub rules: Arc<AssessmentRules>,
    /// The moment.
    pub now: DateTime<Utc>,
}

/// Identifies the key of a row. Valid only for the overview that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowId {
    account: usize,
    key: usize,
    is_superseded: bool,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct KeyRow<'a> {
    /// Identifies the row.
    pub id: RowId,
    /// The facts about the key.
    pub key: &'a Key,
    /// The assessment of the key.
    pub assessment: Assessment<'a>,
    /// Its account.
    pub account: &'a AccountState,
    /// Its state.
    pub state: KeyState,
    /// Whether a newer key of the same name expires later.
    pub is_superseded: bool,
    now: DateTime<Utc>,
}

/// How much attention a key needs, in descending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It expired.
    Expired,
    /// It is inside its critical threshold.
    Critical,
    /// It is inside its warning threshold.
    Warning,
    /// Its expiry cannot be parsed.
    Unknown,
    /// It needs no attention: far from its expiry, muted, superseded or disabled.
    None,
}

/// One account.
#[derive(Clone, Copy, Debug)]
pub struct AccountRow<'a> {
    /// The facts about the account.
    pub state: &'a AccountState,
    now: DateTime<Utc>,
}

impl Overview {
    /// The keys that match `filter`, most urgent first.
    pub fn select(&self, filter: &Filter) -> Vec<KeyRow<'_>> {
        let mut rows: Vec<KeyRow<'_>> = self.keys().filter(|row| filter.matches(row)).collect();
        // The ids make the order stable.
        rows.sort_by_cached_key(|row| {
            let end = row.expires_at();
            (
                row.urgency(),
                end.is_none(),
                end,
                row.id.account,
                row.id.key,
            )
        });
        rows
    }

    /// All keys, account by account, in the order of their ids.
    pub fn keys(&self) -> impl Iterator<Item = KeyRow<'_>> {
        (0..).zip(&*self.states).flat_map(move |(account, state)| {
            let superseded = self.superseded(state);
            (0..).zip(superseded).filter_map(move |(key, it)| {
                self.row(RowId {
                    account,
                    key,
                    is_superseded: it,
                })
            })
        })
    }

    /// The row with this id; `None` for an id of another overview.
    pub fn row(&self, id: RowId) -> Option<KeyRow<'_>> {
        let account = self.states.get(id.account)?;
        let key = account.held.as_ref()?.keys().get(id.key)?;
        let assessment = self.rules.assess(&account.account.name, key, self.now);
        Some(KeyRow {
            id,
            key,
            assessment,
            account,
            state: key.state(self.now, assessment.notice.warning),
            is_superseded: id.is_superseded,
            now: self.now,
        })
    }

    /// All accounts, in the order of the configuration.
    pub fn accounts(&self) -> impl Iterator<Item = AccountRow<'_>> {
        let now = self.now;
        self.states
            .iter()
            .map(move |state| AccountRow { state, now })
    }

    /// The account at this position in the configuration.
    pub fn account(&self, position: usize) -> Option<AccountRow<'_>> {
        let (state, now) = (self.states.get(position)?, self.now);
        Some(AccountRow { state, now })
    }

    /// The number of keys of an account in each state.
    pub fn state_counts(&self, row: &AccountRow<'_>) -> [(KeyState, usize); KeyState::ALL.len()] {
        let keys = row.state.held.iter().flat_map(|held| held.keys());
        let states = keys.map(|key| {
            let assessment = self.rules.assess(row.name(), key, self.now);
            key.state(self.now, assessment.notice.warning)
        });
        let states: Vec<KeyState> = states.collect();
        KeyState::ALL.map(|state| {
            let count = states.iter().filter(|it| **it == state).count();
            (state, count)
        })
    }

    /// The keys because of which `row` is superseded.
    pub fn successors(&self, row: &KeyRow<'_>) -> Vec<KeyRow<'_>> {
        let RowId { account, key, .. } = row.id;
        let Some(state) = self.states.get(account) else {
            return Vec::new();
        };
        let (keys, assessments) = self.assessed(state);
        let positions = successors::successors(keys, &assessments, key);
        let is_superseded = successors::superseded(keys, &assessments);
        let rows = positions.into_iter().filter_map(|key| {
            self.row(RowId {
                account,
                key,
                is_superseded: is_superseded.get(key).copied()?,
            })
        });
        rows.collect()
    }

    fn superseded(&self, state: &AccountState) -> Vec<bool> {
        let (keys, assessments) = self.assessed(state);
        successors::superseded(keys, &assessments)
    }

    fn assessed<'a>(&'a self, state: &'a AccountState) -> (&'a [Key], Vec<Assessment<'a>>) {
        let keys = state.held.as_ref().map_or(&[][..], |held| held.keys());
        let account = &*state.account.name;
        let assess = |key| self.rules.assess(account, key, self.now);
        (keys, keys.iter().map(assess).collect())
    }
}

impl<'a> KeyRow<'a> {
    /// Its display name: the inventory's name, else its label.
    pub fn name(&self) -> Option<&'a str> {
        self.assessment.name(self.key)
    }

    /// Its name, else its id.
    pub fn title(&self) -> &'a str {
        self.name().unwrap_or(self.key.id.as_str())
    }

    /// Its account's name.
    pub fn account_name(&self) -> &'a str {
        &self.account.account.name
    }

    /// Its provider.
    pub fn provider(&self) -> &'a str {
        &self.account.account.provider
    }

    /// The environment that the API reports.
    pub fn api_env(&self) -> Option<&'a str> {
        self.account.held.as_ref()?.api_env()
    }

    /// The team that owns it.
    pub fn team(&self) -> Option<&'a str> {
        self.assessment.team()
    }

    /// When it expires, if known.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        match self.key.expiry {
            Expiry::At(end) => Some(end),
            Expiry::Never | Expiry::Unknown => None,
        }
    }

    /// Time to its expiry; negative afterwards.
    pub fn time_left(&self) -> Option<TimeDelta> {
        self.key.time_left(self.now)
    }

    /// How much attention it needs.
    pub fn urgency(&self) -> Urgency {
        if self.is_quiet() {
            return Urgency::None;
        }
        match self.assessment.severity {
            Severity::Expired => Urgency::Expired,
            Severity::Critical => Urgency::Critical,
            Severity::Warning => Urgency::Warning,
            Severity::None if self.key.is_expiry_unknown() => Urgency::Unknown,
            Severity::None => Urgency::None,
        }
    }

    /// Whether its listed expiry cannot be read, which needs attention even if an earlier expiry is
    /// known: the listed one may be sooner.
    pub fn is_expiry_unreadable(&self) -> bool {
        self.key.is_expiry_unknown() && !self.is_quiet()
    }

    /// Whether it needs attention today.
    pub fn needs_attention(&self) -> bool {
        matches!(self.urgency(), Urgency::Expired | Urgency::Critical)
            || self.is_expiry_unreadable()
    }

    /// Whether it is inside its critical threshold.
    pub fn is_critical(&self) -> bool {
        self.assessment.severity == Severity::Critical
    }

    /// Whether it needs no attention, whatever its expiry: it is muted, superseded or disabled.
    pub fn is_quiet(&self) -> bool {
        self.assessment.is_muted || self.is_superseded || self.key.is_disabled
    }

    /// Its scopes; empty if unknown.
    pub fn scopes(&self) -> impl Iterator<Item = &'a str> {
        self.key.scopes.iter().flat_map(Scopes::iter)
    }

    /// The policies that it violates, without exemptions.
    pub fn broken_policies(&self) -> impl Iterator<Item = Policy> + use<> {
        self.assessment.broken.iter()
    }

    /// The policies that it is exempt from according to the inventory.
    pub fn exemptions(&self) -> impl Iterator<Item = Policy> + use<> {
        let entry = self.assessment.entry;
        let exempt = entry.map(|entry| entry.exempt).unwrap_or_default();
        exempt.iter()
    }

    /// Until when it is muted, if it is.
    pub fn muted_until(&self) -> Option<DateTime<Utc>> {
        let entry = self.assessment.entry?;
        entry.muted_until.filter(|_| self.assessment.is_muted)
    }

    /// Why it is muted or exempt.
    pub fn reason(&self) -> Option<&'a str> {
        self.assessment.entry?.reason.as_deref()
    }

    /// The URL for rotating it.
    pub fn rotate_url(&self) -> Option<&'a str> {
        self.assessment.entry?.rotate_url.as_deref()
    }

    /// The URL of its runbook.
    pub fn runbook_url(&self) -> Option<&'a str> {
        self.assessment.entry?.runbook_url.as_deref()
    }

    /// When it was last used, according to its details.
    pub fn last_use(&self) -> LastUse {
        let details = self.key.details.as_ref();
        details.map_or(LastUse::Unknown, |details| details.last_use)
    }

    /// The texts that a search looks at.
    fn searchable(&self) -> impl Iterator<Item = &'a str> {
        [
            Some(self.key.id.as_str()),
            self.name(),
            self.key.label.as_deref(),
            self.key.organization_id.as_deref(),
            self.team(),
            Some(self.account_name()),
            Some(self.provider()),
        ]
        .into_iter()
        .flatten()
        .chain(self.scopes())
    }
}

impl<'a> AccountRow<'a> {
    /// Its name in the configuration.
    pub fn name(&self) -> &'a str {
        &self.state.account.name
    }

    /// Its provider.
    pub fn provider(&self) -> &'a str {
        &self.state.account.provider
    }

    /// The environment that the API reports.
    pub fn api_env(&self) -> Option<&'a str> {
        self.state.held.as_ref()?.api_env()
    }

    /// Whether its last completed poll succeeded; `None` before the first one.
    pub fn is_up(&self) -> Option<bool> {
        Some(self.state.last_attempt?.is_success)
    }

    /// Whether it was ever listed. Otherwise, its keys are unknown.
    pub fn is_listed(&self) -> bool {
        self.state.held.is_some()
    }

    /// The entries of its listing that could not be used.
    pub fn rejects(&self) -> Rejects {
        let held = self.state.held.as_ref();
        held.map(|held| held.rejects()).unwrap_or_default()
    }

    /// The number of its keys, as far as they are known.
    pub fn keys_len(&self) -> usize {
        self.state.held.as_ref().map_or(0, |held| held.keys().len())
    }

    /// The age of the key data.
    pub fn age(&self) -> Option<TimeDelta> {
        Some(self.now - self.state.last_success_at?)
    }

    /// The last failed poll.
    pub fn last_failure(&self) -> Option<&'a LastFailure> {
        self.state.last_failure.as_deref()
    }

    /// Failed polls since the start.
    pub fn failures(&self) -> u64 {
        self.state.failures().map(|(_, failed)| failed.count).sum()
    }
}

impl Filter {
    /// Whether `row` matches.
    pub fn matches(&self, row: &KeyRow<'_>) -> bool {
        let is_of = |wanted: &Option<String>, text: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| text == Some(wanted))
        };
        is_of(&self.account, Some(row.account_name()))
            && is_of(&self.team, row.team())
            && self.state.is_none_or(|state| state.matches(row))
            && self.text.as_deref().is_none_or(|text| {
                let mut searchable = row.searchable();
                searchable.any(|it| it.to_lowercase().contains(text))
            })
    }
}

impl StateFilter {
    fn matches(self, row: &KeyRow<'_>) -> bool {
        match self {
            Self::State(state) => row.state == state,
            Self::Critical => row.is_critical(),
            Self::Attention => row.needs_attention(),
        }
    }
}
