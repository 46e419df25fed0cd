//! A provider with an API that lists keys as JSON, as a definition describes it: data, not code.

mod answer;
pub mod definition;
mod entry;
mod key;
mod observe;
mod pages;
mod plan;
pub mod pointer;
pub mod template;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use url::Url;

use crate::domain::failure::{Failure, Reason};
use crate::domain::key::{Key, KeyId};
use crate::domain::listing::{Listing, Rejects};
use crate::domain::text::{Line, Secrets};
use crate::provider::http::Session;
use crate::provider::json_list::answer::Page;
use crate::provider::json_list::definition::{Definition, ParamProblem, Request};
use crate::provider::json_list::pages::{Pages, Step, Stop};
use crate::provider::json_list::plan::Plan;
use crate::provider::profile::Profile;
use crate::provider::response::Response;
use crate::provider::{Listed, Rules};
use crate::redaction::secret_words;
use crate::secret::Token;

/// How often a listing is read if it changes during the read. One that changes three times in a row
/// probably changes constantly.
const PASSES_MAX: usize = 3;

/// A definition with an account's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonList {
    definition: Arc<Definition>,
    profile: Profile,
    request: Request,
    plan: Plan,
}

impl JsonList {
    /// Fills in the account's parameters, or reports all that are wrong.
    pub fn new(
        definition: &Arc<Definition>,
        params: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<ParamProblem>> {
        let request = definition.request.fill(params)?;
        let path = request.path.split('?').next().unwrap_or_default();
        Ok(Self {
            profile: Profile {
                listing_path: Some(path.to_owned().into()),
                ..definition.profile.clone()
            },
            plan: Plan::new(definition),
            definition: definition.clone(),
            request,
        })
    }

    /// The definition.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The properties of the provider.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The first request.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The secrets to remove from an answer of this many bytes: the token, and those of the
    /// request.
    pub fn secrets(&self, token: &Token, answer_bytes: usize) -> Secrets {
        let mut secrets = token.secrets(answer_bytes);
        let of_request = self.request.secrets.iter().map(String::as_str);
        for secret in of_request.chain(secret_words(&self.profile.auth_prefix)) {
            secrets.add(secret);
        }
        secrets
    }

    fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Reads one answer as if it were the whole listing, regardless of the definition's pagination.
pub fn read_page(
    json_list: &JsonList,
    answer: &Response,
    rules: &Rules<'_>,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Listed, Failure> {
    let mut collected = Collected::default();
    let page = answer::read(json_list, answer, rules, rules.keys_max, now, None)?;
    collected.add(page.checked_as_first()?);
    Ok(collected.listed())
}

/// Reads all pages, on the session's single connection: all or nothing.
///
/// If a key is deleted during the read, the keys behind it move up, possibly to a page that was
/// read already. A listing of several pages that lacks keys of the previous listing is therefore
/// read again, and counts if both reads lack the same keys. Without a previous listing, and if the
/// pages show no total that would decrease, the read before takes its place; if none confirms
/// another, the last whole one counts.
pub(super) async fn list(
    session: &mut Session,
    json_list: &JsonList,
    rules: &Rules<'_>,
) -> Result<Listed, Failure> {
    // The last whole listing, if there is no previous one.
    let mut whole: Option<Listed> = None;
    let mut lacked: Option<Vec<KeyId>> = None;
    for _ in 0..PASSES_MAX {
        let before = session.time_left();
        let read = match pass(session, json_list, rules).await {
            // An unconfirmed listing is better than none.
            Err(_) if whole.is_some() => break,
            read => read?,
        };
        if let Some(collected) = read {
            let is_one_answer = collected.pages == 1;
            let may_have_lost_keys = collected.may_have_lost_keys;
            let listed = collected.listed();
            let reference = rules.held.or(whole.as_ref().map(|whole| &whole.listing));
            let lacking = reference.map(|reference| missing(&listed.listing, reference));
            let is_confirmed = lacking.as_ref().map_or(!may_have_lost_keys, |lacking| {
                let lacked = lacked.as_deref().unwrap_or_default();
                lacking.iter().all(|id| lacked.contains(id))
            });
            let took = before.saturating_sub(session.time_left());
            // An unconfirmed listing is better than a failure at every poll.
            let has_time = session.time_left() > took;
            if is_one_answer || is_confirmed || !has_time {
                return Ok(listed);
            }
            lacked = lacking;
            whole = rules.held.is_none().then_some(listed);
        }
        session.forget_bodies();
    }
    whole.ok_or_else(|| {
        let why = "the listing was another one each time that its pages were read";
        Failure::new(Reason::Incomplete, why)
    })
}

/// The keys that the previous listing had and this one lacks.
fn missing(listing: &Listing, previous: &Listing) -> Vec<KeyId> {
    let previous = previous.keys().iter();
    previous
        .filter(|key| key.unlisted_since.is_none() && !listing.has_entry(&key.id))
        .map(|key| key.id.clone())
        .collect()
}

/// Reads all pages once; `None` if the API reports that keys were deleted during the read.
async fn pass(
    session: &mut Session,
    json_list: &JsonList,
    rules: &Rules<'_>,
) -> Result<Option<Collected>, Failure> {
    let mut pages = Pages::new(&json_list.definition.pagination, rules.pages_max);
    let mut collected = Collected::default();
    let mut addresses: HashSet<Url> = HashSet::new();
    let mut step = Step::Get(pages.first());
    let findings = session.findings.clone();
    if let Some(findings) = &findings {
        findings.restart();
    }
    loop {
        let left = rules.keys_max - collected.entries;
        let now = session.now();
        let read = |answer: &Response| {
            let page = answer::read(json_list, answer, rules, left, now, findings.as_ref())?;
            let step = pages.after(&page, &answer.headers).map_err(|stop| {
                let support_id = page.support_id.clone();
                (stop, answer.status, support_id)
            });
            Ok((page, step))
        };
        let (page, next) = match &step {
            Step::Done => {
                collected.may_have_lost_keys = pages.may_have_lost_keys();
                return Ok(Some(collected));
            }
            Step::Get(query) => session.get(&json_list.request.with(query), read).await?,
            Step::Follow(link) => {
                let url = session.resolve(link)?;
                if addresses.contains(&url) {
                    let why = "the link to the next page leads to one that was read";
                    return Err(Failure::new(Reason::Incomplete, why));
                }
                session.request(url, read).await?
            }
        };
        addresses.insert(session.last_url().clone());
        let is_first = collected.pages == 0;
        collected.add(if is_first {
            page.checked_as_first()?
        } else {
            page
        });
        if let Some(findings) = &findings {
            findings.count_page(matches!(next, Ok(Step::Get(_) | Step::Follow(_))));
        }
        step = match next {
            Ok(next) => next,
            Err((Stop::Changed, ..)) => return Ok(None),
            Err((Stop::Incomplete(why), status, support_id)) => {
                return Err(Failure {
                    http_status: Some(status),
                    support_id,
                    ..Failure::because(Reason::Incomplete, Line::own(&why))
                });
            }
        };
    }
}

/// The pages read so far.
#[derive(Debug, Default)]
struct Collected {
    pages: usize,
    /// The keys, each with the number of its page.
    keys: Vec<(usize, Key)>,
    rejects: Rejects,
    rejected_ids: Vec<KeyId>,
    entries: usize,
    support_id: Option<Line>,
    may_have_lost_keys: bool,
}

impl Collected {
    fn add(&mut self, page: Page) {
        let number = self.pages;
        self.pages += 1;
        self.keys
            .extend(page.keys.into_iter().map(|key| (number, key)));
        self.rejects.id += page.rejects.id;
        self.rejects.shape += page.rejects.shape;
        self.rejected_ids.extend(page.rejected_ids);
        self.entries += page.entries;
        self.support_id = page.support_id.or(self.support_id.take());
    }

    /// The listing. A key on two pages, because another was created during the read, counts once,
    /// with the values of the later page.
    fn listed(self) -> Listed {
        let keys: Vec<Key> = if self.pages > 1 {
            let pages = self.keys.iter();
            let last: HashMap<KeyId, usize> =
                pages.map(|(page, key)| (key.id.clone(), *page)).collect();
            let keys = self.keys.into_iter();
            let keys = keys.filter(|(page, key)| last.get(&key.id) == Some(page));
            keys.map(|(_, key)| key).collect()
        } else {
            self.keys.into_iter().map(|(_, key)| key).collect()
        };
        let listing = Listing::new(keys, self.rejects, None);
        Listed {
            listing: listing.with_rejected_ids(self.rejected_ids),
            support_id: self.support_id,
        }
    }
}
