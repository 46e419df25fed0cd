//! The exposition of all accounts: derived from the previous one and the changed states, and listed
//! into a body at each scrape. Pure.

use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use prometheus::proto::MetricFamily;

use crate::domain::account_state::AccountState;
use crate::domain::assessment::Assessment;
use crate::domain::successors::superseded;
use crate::domain::view::ViewSettings;
use crate::exposition::account_text::{self, AccountText, Validity};
use crate::exposition::budget::families_to_drop;
use crate::exposition::chunk::{Chunk, ChunkList, StoredChunk};
use crate::exposition::clock_text::ClockText;
use crate::exposition::column::{Column, ColumnWriter};
use crate::exposition::compression::{Compressor, Encoding};
use crate::exposition::families::{FAMILIES, Family, KeyFacts, ListingFacts, Source};
use crate::exposition::format::Format;
use crate::exposition::registry;

/// The text of all accounts; an immutable value, replaced as a whole.
#[derive(Debug, Default)]
pub struct Exposition {
    accounts: Vec<Arc<AccountText>>,
    /// One per entry of [`FAMILIES`]. Empty for clock-dependent families.
    families: Vec<FamilyText>,
    holds: Validity,
    /// For each of [`Format::ALL`], the text before each clock-dependent family, and the text after
    /// the last one. Listed when a scraper requests the format for the first time.
    fixed: [OnceLock<Vec<ChunkList>>; Format::ALL.len()],
    /// The clock-dependent text of the last second that was requested: concurrent scrapers share
    /// it, and a slow reader holds no copy of its own.
    clock: Mutex<Option<(i64, Arc<ClockText>)>>,
}

/// The lines before each family, in each of [`Format::ALL`].
static HEADERS: LazyLock<[Vec<Chunk>; Format::ALL.len()]> = LazyLock::new(|| {
    let mut compressor = Compressor::new();
    Format::ALL.map(|format| {
        let headers = FAMILIES.iter();
        let headers = headers.map(|it| format.header(it.name, it.kind, it.help));
        headers
            .map(|header| Chunk::new(header.as_bytes(), &mut compressor))
            .collect()
    })
});

/// One family's samples.
#[derive(Clone, Debug, Default)]
struct FamilyText {
    samples: Column,
    /// The samples for OpenMetrics, if they differ.
    open_metrics: Option<Column>,
}

/// The input for an exposition, besides the previous one.
#[derive(Debug)]
pub struct Update<'a> {
    /// The previous position of each account; `None` if accounts and order are unchanged.
    pub kept: Option<&'a [Option<usize>]>,
    /// Accounts with a new state, and those with text to be rewritten, by position in the new
    /// order, sorted. An account that is not here must have been there before.
    pub states: &'a [(usize, Arc<AccountState>)],
    /// The settings for showing accounts. If they changed, `states` contains all accounts.
    pub settings: &'a ViewSettings,
}

/// One account with changed text.
struct Job<'a> {
    position: usize,
    state: &'a AccountState,
    text: &'a AccountText,
    /// Set if the text about the keys has to be written.
    keys: Option<(Vec<(KeyFacts<'a>, &'a str)>, ListingFacts)>,
}

/// The omitted families, by the position of the account, for the accounts with rewritten text about
/// keys.
pub(super) type Dropped = Vec<(usize, Box<[&'static str]>)>;

impl Exposition {
    /// The exposition of `states`, built from scratch.
    pub fn new(
        states: impl IntoIterator<Item = AccountState>,
        settings: &ViewSettings,
        now: DateTime<Utc>,
    ) -> Self {
        let states = states.into_iter().map(Arc::new).enumerate();
        let states: Vec<(usize, Arc<AccountState>)> = states.collect();
        let update = Update {
            kept: Some(&vec![None; states.len()]),
            states: &states,
            settings,
        };
        let (exposition, _) = Self::default().updated(&update, now, &mut Compressor::new());
        exposition
    }

    /// The exposition after `update`, with text that is valid at `now`. Unchanged parts are shared
    /// with this one.
    pub(super) fn updated(
        &self,
        update: &Update<'_>,
        now: DateTime<Utc>,
        compressor: &mut Compressor,
    ) -> (Self, Dropped) {
        let Update {
            kept,
            states,
            settings,
        } = *update;
        let before = |position: usize| -> Option<&Arc<AccountText>> {
            let position = match kept {
                Some(kept) => *kept.get(position)?,
                None => Some(position),
            };
            self.accounts.get(position?)
        };
        let mut assessed = Vec::with_capacity(states.len());
        for (position, state) in states {
            let same = before(*position).filter(|text| text.is_of(state, settings, now));
            assessed.push(if let Some(text) = same {
                (text.clone(), None)
            } else {
                let assessments = assess(state, settings, now);
                let text = AccountText::new(state, &assessments, settings, now);
                (Arc::new(text), Some(assessments))
            });
        }
        let jobs = states.iter().zip(&assessed);
        let jobs = jobs.map(|((position, state), (text, assessments))| Job {
            position: *position,
            state,
            text,
            keys: assessments
                .as_ref()
                .map(|assessments| key_facts(state, text, assessments, settings)),
        });
        let jobs: Vec<Job<'_>> = jobs.collect();
        let families = FAMILIES.iter().enumerate();
        let families = families.map(|(index, family)| {
            let known = self.families.get(index).cloned().unwrap_or_default();
            known.updated(family, kept, &jobs, compressor)
        });
        let families = families.collect();
        let mut accounts: Vec<Option<Arc<AccountText>>> = match kept {
            Some(kept) => (0..kept.len()).map(|it| before(it).cloned()).collect(),
            None => self.accounts.iter().cloned().map(Some).collect(),
        };
        for ((position, _), (text, _)) in states.iter().zip(&assessed) {
            if let Some(account) = accounts.get_mut(*position) {
                *account = Some(text.clone());
            }
        }
        let accounts: Vec<Arc<AccountText>> = accounts.into_iter().flatten().collect();
        let holds = accounts.iter().map(|account| account.holds);
        let holds = holds.fold(Validity::default(), Validity::and);
        let written = jobs
            .into_iter()
            .filter_map(|job| Some((job.position, job.keys?)));
        let dropped = written.map(|(position, (_, facts))| (position, facts.dropped));
        let dropped = dropped.collect();
        let exposition = Self {
            holds,
            accounts,
            families,
            fixed: Default::default(),
            clock: Mutex::new(None),
        };
        (exposition, dropped)
    }

    /// Whether the text is valid at `now`: a mute that ends, or a key that becomes too old, changes
    /// it between two polls.
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        self.holds.contains(now)
    }

    /// The positions of the accounts with text that is not valid at `now`.
    pub(super) fn outdated(&self, now: DateTime<Utc>) -> impl Iterator<Item = usize> {
        let accounts = self.accounts.iter().enumerate();
        accounts.filter_map(move |(position, account)| {
            (!account.holds.contains(now)).then_some(position)
        })
    }

    /// How many keys of the account at `position` have to be rendered for `state` at `now`.
    pub(super) fn keys_to_render(
        &self,
        position: Option<usize>,
        state: &AccountState,
        settings: &ViewSettings,
        now: DateTime<Utc>,
    ) -> usize {
        let text = position.and_then(|position| self.accounts.get(position));
        match text {
            Some(text) if text.is_of(state, settings, now) => 0,
            _ => state.held.as_ref().map_or(0, |held| held.keys().len()),
        }
    }

    /// A complete body as of the second that contains `now`. `process` contains the metrics of the
    /// process itself.
    pub fn body(
        &self,
        now: DateTime<Utc>,
        process: &[MetricFamily],
        format: Format,
        encoding: Encoding,
    ) -> Vec<Bytes> {
        let clock = self.clock(now);
        let mut body = ChunkList::default();
        let mut sources = FAMILIES.iter().filter(|family| family.depends_on_clock());
        for fixed in self.fixed(format) {
            body.append(fixed);
            match sources.next().map(|family| family.source) {
                Some(Source::ExpiresIn) => body.push_stored(&clock.expires_in),
                Some(Source::KeyStates) => body.push_stored(&clock.key_states),
                Some(
                    Source::Key(_) | Source::Listing(_) | Source::Account(_) | Source::Failures(_),
                )
                | None => {}
            }
        }
        let process = registry::text(process, format) + format.end();
        body.push_stored(&StoredChunk::new(process));
        body.into_body(encoding)
    }

    /// The first scraper of a second writes it for all; the others wait for it, which is faster
    /// than writing it themselves.
    fn clock(&self, now: DateTime<Utc>) -> Arc<ClockText> {
        let second = now.timestamp();
        let mut last = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, clock)) if *known == second => clock.clone(),
            _ => {
                let previous = last.take().and_then(|(_, clock)| Arc::into_inner(clock));
                let clock = Arc::new(ClockText::new(&self.accounts, second, previous));
                *last = Some((second, clock.clone()));
                clock
            }
        }
    }

    fn fixed(&self, format: Format) -> &[ChunkList] {
        let fixed = self.fixed.get(format as usize);
        fixed.map_or(&[], |fixed| fixed.get_or_init(|| self.list_fixed(format)))
    }

    /// The text before each clock-dependent family, including its header lines, and the text after
    /// the last one. A family without samples is omitted.
    fn list_fixed(&self, format: Format) -> Vec<ChunkList> {
        // Required for short lists only.
        let mut compressor = None;
        let mut lists = Vec::new();
        let mut list = ChunkList::default();
        let headers = HEADERS.get(format as usize).into_iter().flatten();
        for ((family, text), header) in FAMILIES.iter().zip(&self.families).zip(headers) {
            let column = text.column(format);
            let has_samples = match family.source {
                Source::ExpiresIn => self.accounts.iter().any(|it| it.has_expiries()),
                Source::KeyStates => !self.accounts.is_empty(),
                Source::Key(_) | Source::Listing(_) | Source::Account(_) | Source::Failures(_) => {
                    !column.is_empty()
                }
            };
            if has_samples {
                list.push(header);
            }
            column.chunks().for_each(|chunk| list.push(chunk));
            if family.depends_on_clock() {
                lists.push(list.take(&mut compressor));
            }
        }
        lists.push(list.take(&mut compressor));
        lists
    }
}

impl FamilyText {
    fn column(&self, format: Format) -> &Column {
        match (format, &self.open_metrics) {
            (Format::OpenMetrics, Some(column)) => column,
            _ => &self.samples,
        }
    }

    fn updated(
        self,
        family: &Family,
        kept: Option<&[Option<usize>]>,
        jobs: &[Job<'_>],
        compressor: &mut Compressor,
    ) -> Self {
        let open_metrics = matches!(family.source, Source::Failures(_)).then(|| {
            let known = self.open_metrics.unwrap_or_default();
            column(&known, family, Format::OpenMetrics, kept, jobs, compressor)
        });
        Self {
            samples: column(&self.samples, family, Format::Text, kept, jobs, compressor),
            open_metrics,
        }
    }
}

/// The samples of one family after `jobs`.
fn column(
    known: &Column,
    family: &Family,
    format: Format,
    kept: Option<&[Option<usize>]>,
    jobs: &[Job<'_>],
    compressor: &mut Compressor,
) -> Column {
    if family.depends_on_clock() {
        return Column::default();
    }
    let is_about_keys = matches!(family.source, Source::Key(_) | Source::Listing(_));
    let jobs: Vec<&Job<'_>> = jobs
        .iter()
        .filter(|job| job.keys.is_some() || !is_about_keys)
        .collect();
    let positions: Vec<usize> = jobs.iter().map(|job| job.position).collect();
    let write = |index: usize, writer: &mut ColumnWriter<'_>| {
        if let Some(job) = jobs.get(index) {
            job.write(family, format, writer);
        }
    };
    let Some(kept) = kept else {
        return known.updated(&positions, compressor, write);
    };
    // Rewritten accounts are not kept, whether they existed before or not.
    let mut kept = kept.to_vec();
    for position in &positions {
        if let Some(kept) = kept.get_mut(*position) {
            *kept = None;
        }
    }
    known.rearranged(&kept, compressor, |position, writer| {
        match positions.binary_search(&position) {
            Ok(index) => write(index, writer),
            Err(_) => writer.segment(position, |_| {}),
        }
    })
}

impl Job<'_> {
    fn write(&self, family: &Family, format: Format, writer: &mut ColumnWriter<'_>) {
        let labels = self.text.labels();
        match (family.source, &self.keys) {
            (Source::Key(_), Some((_, facts))) if facts.dropped.contains(&family.name) => {
                writer.segment(self.position, |_| {});
            }
            (Source::Key(write), Some((keys, _))) => {
                for part in account_text::parts(keys) {
                    writer.segment(self.position, |out| {
                        for (facts, labels) in part {
                            write(facts, &mut family.samples(out, labels, format));
                        }
                    });
                }
                // An account without keys has its position too.
                if keys.is_empty() {
                    writer.segment(self.position, |_| {});
                }
            }
            (Source::Listing(write), Some((_, facts))) => {
                writer.segment(self.position, |out| {
                    write(facts, family.samples(out, labels, format));
                });
            }
            (Source::Account(write) | Source::Failures(write), _) => {
                writer.segment(self.position, |out| {
                    write(self.state, &mut family.samples(out, labels, format));
                });
            }
            (Source::Key(_) | Source::Listing(_), None)
            | (Source::ExpiresIn | Source::KeyStates, _) => {}
        }
    }
}

fn assess<'a>(
    state: &'a AccountState,
    settings: &'a ViewSettings,
    now: DateTime<Utc>,
) -> Vec<Assessment<'a>> {
    let keys = state.held.iter().flat_map(|listing| listing.keys());
    let assess = |key| settings.rules.assess(&state.account.name, key, now);
    keys.map(assess).collect()
}

fn key_facts<'a>(
    state: &'a AccountState,
    text: &'a AccountText,
    assessments: &'a [Assessment<'a>],
    settings: &ViewSettings,
) -> (Vec<(KeyFacts<'a>, &'a str)>, ListingFacts) {
    let Some(listing) = &state.held else {
        return (Vec::new(), ListingFacts::default());
    };
    let assessed = || listing.keys().iter().zip(assessments);
    let superseded = superseded(listing.keys(), assessments);
    let facts = assessed()
        .zip(superseded)
        .map(|((key, assessment), is_superseded)| KeyFacts {
            key,
            assessment,
            provider: &state.account.provider,
            api_env: listing.api_env().unwrap_or_default(),
            is_superseded,
            metrics: settings.metrics,
        });
    let labels = text.keys().map(|(labels, _)| labels);
    let unmatched = assessments.iter().filter(|it| it.entry.is_none()).count();
    let unmatched = (!settings.rules.inventory.is_empty()).then_some(unmatched);
    let keys: Vec<_> = facts.zip(labels).collect();
    let dropped = families_to_drop(&keys, settings.metrics.max_bytes_per_account);
    (keys, ListingFacts { unmatched, dropped })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::account_state::tests::{listed, polled_every};
    use crate::domain::assessment::AssessmentRules;
    use crate::domain::key::tests::{at, key};
    use crate::domain::key::{Key, Scopes};
    use crate::domain::text::Name;
    use crate::domain::view::Metrics;

    /// The exposition of an account with a hundred keys of ten scopes, and of one with one key.
    fn text(bytes_max: usize) -> String {
        let metrics = Metrics {
            relative: true,
            scope_info: true,
            max_scopes_per_key: 64,
            max_bytes_per_account: bytes_max,
        };
        let settings = ViewSettings {
            rules: Arc::new(AssessmentRules::default()),
            metrics,
        };
        let names: Vec<String> = (0..10).map(|it| format!("scope.{it}")).collect();
        let keys = (0..100).map(|id| Key {
            scopes: Some(Scopes::new(
                names.iter().map(|name| Name::saved(name)).collect(),
            )),
            ..key(&format!("key_{id:03}"))
        });
        let state = |name: &str, keys| {
            polled_every(Duration::from_secs(60), name).polled(listed(keys), at(0))
        };
        let states = [
            state("large", keys.collect()),
            state("small", vec![key("a")]),
        ];
        let exposition = Exposition::new(states, &settings, at(0));
        let body = exposition.body(at(0), &[], Format::Text, Encoding::Identity);
        String::from_utf8(body.concat()).unwrap()
    }

    #[test]
    fn families_are_left_out_one_by_one_until_the_account_keeps_to_its_budget() {
        let about_keys = |text: &str| -> usize {
            let lines = text
                .lines()
                .filter(|line| line.contains("\"large\",key_id="));
            lines.map(|line| line.len() + 1).sum()
        };
        let dropped = |text: &str| -> Vec<String> {
            let lines = text
                .lines()
                .filter(|line| line.starts_with("api_key_account_families_dropped{"));
            lines
                .map(|line| line.split('"').nth(3).unwrap().to_owned())
                .collect()
        };
        let whole = text(usize::MAX);
        assert_eq!(dropped(&whole), Vec::<String>::new());
        let all = about_keys(&whole);
        // The count is exact to a few bytes per key: the remaining time has fewer digits.
        assert!(text(all + 2_000) == whole);
        let (mut bytes_max, mut last) = (all - 1, 0);
        while bytes_max > all / 4 {
            let less = text(bytes_max);
            let families = dropped(&less);
            assert_eq!(families[0], "api_key_scope_info");
            assert!(families.len() >= last, "{families:?}");
            last = families.len();
            for family in &families {
                assert!(
                    !less.contains(&format!("{family}{{account=\"large\"")),
                    "{family}"
                );
                // The other account is unaffected.
                assert_eq!(
                    less.contains(&format!("{family}{{account=\"small\"")),
                    whole.contains(&format!("{family}{{account=\"small\"")),
                    "{family}"
                );
            }
            let is_least = families.last().unwrap() == "api_key_ip_unrestricted";
            assert!(about_keys(&less) <= bytes_max || is_least, "{bytes_max}");
            bytes_max -= all / 40;
        }
        assert!(last > 3, "{last}");
        let smallest = text(0);
        for family in [
            "info",
            "never_expires",
            "alert_threshold_seconds",
            "policy_violation",
        ] {
            assert!(
                smallest.contains(&format!("api_key_{family}{{account=\"large\"")),
                "{family}"
            );
        }
    }
}
