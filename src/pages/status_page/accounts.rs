//! The accounts on the status page. Pure.

use chrono::{DateTime, Utc};

use crate::domain::listing::{Listing, Reject};
use crate::domain::text::Line;
use crate::pages::query::Query;
use crate::pages::rows::AccountRow;
use crate::pages::status_page::{Moment, link};
use crate::pages::words;

/// Maximum accounts on the page, failing ones first; the JSON has all.
pub(super) const ACCOUNTS_MAX: usize = 100;

/// One account.
pub(super) struct AccountView<'a> {
    pub(super) name: &'a str,
    pub(super) provider: &'a str,
    pub(super) env: Option<&'a str>,
    pub(super) class: &'static str,
    pub(super) state: &'static str,
    /// `None` if it was never listed.
    pub(super) keys: Option<usize>,
    pub(super) rejected: Vec<String>,
    pub(super) link: String,
    pub(super) is_shrink_held: bool,
    pub(super) last_success: Option<Moment>,
    pub(super) next_poll: Option<Moment>,
    pub(super) failures: u64,
    pub(super) failure: Option<FailureView<'a>>,
}

/// The last failed poll of an account.
pub(super) struct FailureView<'a> {
    pub(super) is_current: bool,
    pub(super) at: Moment,
    pub(super) reason: &'static str,
    pub(super) http_status: Option<u16>,
    pub(super) lines: Vec<&'a str>,
    pub(super) support_id: Option<&'a str>,
}

/// The accounts without a known key, because they were never listed. `None` if there are none.
pub(super) fn unlisted(accounts: &[AccountRow<'_>]) -> Option<String> {
    let mut unlisted = accounts.iter().filter(|row| !row.is_listed());
    let first = unlisted.next()?.name();
    Some(match unlisted.count() {
        0 => format!("Account “{first}” was never listed: its keys are unknown"),
        others => format!(
            "{} accounts were never listed: their keys are unknown",
            others + 1
        ),
    })
}

/// The accounts to show, failing ones first.
pub(super) fn account_views<'a>(
    mut accounts: Vec<AccountRow<'a>>,
    query: &Query,
    now: DateTime<Utc>,
) -> Vec<AccountView<'a>> {
    // Otherwise in configuration order.
    accounts.sort_by_key(AccountRow::is_up);
    accounts.sort_by_key(|row| row.is_up() != Some(false));
    let shown = accounts.iter().take(ACCOUNTS_MAX);
    shown.map(|row| AccountView::new(row, query, now)).collect()
}

/// What follows from the entries of `listing` that could not be used, or not as a whole.
fn rejected_words(listing: &Listing) -> Vec<String> {
    let left_out = Reject::ALL.into_iter().map(|reason| {
        let consequence = match reason {
            Reject::Id => "not monitored",
            Reject::Duplicate => "the earliest expiry of an id counts",
            Reject::Shape => "monitored only if listed before",
        };
        let count = listing.left_out(reason);
        let what = words::left_out(reason);
        (count > 0).then(|| format!("{} {what}: {consequence}", words::entries(count)))
    });
    let in_part = listing.used_in_part().count();
    let in_part = (in_part > 0).then(|| {
        let keys = words::count(in_part, "key");
        format!("{keys} with an unreadable field: its earlier value stays, if there is one")
    });
    left_out.chain([in_part]).flatten().collect()
}

impl<'a> AccountView<'a> {
    fn new(row: &AccountRow<'a>, query: &Query, now: DateTime<Utc>) -> Self {
        let (class, state) = match row.is_up() {
            Some(true) => ("valid", "up"),
            Some(false) => ("expired", "failing"),
            None => ("never", "not polled yet"),
        };
        let mut only = Query {
            refresh: query.refresh,
            ..Query::default()
        };
        only.filter.account = Some(row.name().to_owned());
        let held = row.state.held.as_deref();
        Self {
            name: row.name(),
            provider: row.provider(),
            env: row.api_env(),
            class,
            state,
            keys: held.map(|held| held.keys().len()),
            rejected: held.map(rejected_words).unwrap_or_default(),
            link: format!("{}#keys", link(&only)),
            is_shrink_held: row.state.shrunk_listings > 0,
            last_success: row.state.last_success_at.map(|at| Moment::new(at, now)),
            next_poll: row
                .state
                .next_poll_at
                .map(|at| Moment::new(at.max(now), now)),
            failures: row.failures(),
            failure: row.last_failure().map(|last| {
                let failure = &last.failure;
                let known = failure.error.iter().map(Line::as_str);
                let others = failure
                    .lines
                    .iter()
                    .filter(|(name, _)| *name != "api_status");
                let mut lines: Vec<&str> =
                    known.chain(others.map(|(_, line)| line.as_str())).collect();
                lines.dedup();
                FailureView {
                    is_current: row.is_up() == Some(false),
                    at: Moment::new(last.at, now),
                    reason: failure.reason.as_str(),
                    http_status: failure.http_status,
                    lines,
                    support_id: failure.support_id.as_ref().map(Line::as_str),
                }
            }),
        }
    }
}
