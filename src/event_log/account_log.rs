//! The log lines of one account's events.
//!
//! However its API behaves, an account gets at most ten lines a minute in the long run: five about
//! failing and recovering polls, one about details, two about its keys' expiry and one each about
//! changed keys and the rest. Bursts may exceed this, because a day's work comes in bursts.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::domain::event::{CHANGES_MAX, CROSSINGS_MAX, Event};
use crate::domain::failure::Reason;
use crate::domain::text::Line;
use crate::event_log::lines;
use crate::event_log::rate_limit::{LogDecision, RateLimit};

/// A poll that alternates between failure and recovery gets ten lines in any minute.
const FAILURES_BURST: u32 = 5;
const FAILURES_PERIOD: Duration = Duration::from_secs(12);

/// Facts that are rare unless an API flaps.
const RARE_BURST: u32 = 5;
const RARE_PERIOD: Duration = Duration::from_mins(1);

/// Capacity for the keys that one poll reports, and for the number of those that it omits.
const CHANGES_BURST: u32 = 1 + small(CHANGES_MAX);
const CHANGES_PERIOD: Duration = Duration::from_mins(1);
const CROSSINGS_BURST: u32 = 1 + small(CROSSINGS_MAX);
const CROSSINGS_PERIOD: Duration = Duration::from_secs(30);

#[expect(clippy::cast_possible_truncation, reason = "tens")]
const fn small(max: usize) -> u32 {
    max as u32
}

/// Writes one account's events to the log.
#[derive(Debug)]
pub struct AccountLog {
    start: Instant,
    failures: RateLimit<Reason>,
    /// Failed polls in a row for which no recovery was logged yet.
    recovered_from: u64,
    details: RateLimit<Reason>,
    changes: RateLimit,
    crossings: RateLimit,
    others: RateLimit,
}

/// Details in the log lines about a poll besides its events.
#[derive(Clone, Debug, Default)]
pub struct PollFacts {
    /// The number of attempts.
    pub attempts: u32,
    /// Time until the next poll, if there is one.
    pub retry_in: Option<Duration>,
    /// The support id of a success.
    pub support_id: Option<Line>,
}

impl Default for AccountLog {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            failures: RateLimit::new(FAILURES_BURST, FAILURES_PERIOD),
            recovered_from: 0,
            details: RateLimit::new(RARE_BURST, RARE_PERIOD),
            changes: RateLimit::new(CHANGES_BURST, CHANGES_PERIOD),
            crossings: RateLimit::new(CROSSINGS_BURST, CROSSINGS_PERIOD),
            others: RateLimit::new(RARE_BURST, RARE_PERIOD),
        }
    }
}

impl AccountLog {
    /// Logs the events of a finished poll.
    pub fn poll(&mut self, account: &str, events: &[Event], facts: &PollFacts) {
        self.poll_at(account, events, facts, self.start.elapsed());
    }

    fn poll_at(&mut self, account: &str, events: &[Event], facts: &PollFacts, uptime: Duration) {
        for event in events {
            self.event(account, event, facts, uptime);
        }
        self.summaries(account, uptime);
    }

    /// Logs an event of a request for details.
    pub fn details(&mut self, account: &str, event: &Event) {
        let uptime = self.start.elapsed();
        self.event(account, event, &PollFacts::default(), uptime);
    }

    fn event(&mut self, account: &str, event: &Event, facts: &PollFacts, uptime: Duration) {
        match event {
            Event::PollFailed(failure) => {
                self.recovered_from = 0;
                let decision = self.failures.problem(failure.reason, uptime);
                lines::failure(account, failure, facts, decision);
            }
            Event::PollSucceeded { keys, rejected } => {
                let support_id = lines::text(facts.support_id.as_ref());
                let attempts = facts.attempts;
                debug!(account, keys, rejected, support_id, attempts, "listed keys");
                self.recovered(account, *keys, uptime);
            }
            Event::PollRecovered { keys, failures } => {
                self.recovered_from = *failures;
                self.recovered(account, *keys, uptime);
            }
            Event::KeyChanged(changed) => {
                if let LogDecision::Log { suppressed } = self.changes.event(uptime) {
                    lines::change(account, changed, suppressed);
                }
            }
            Event::ChangesOmitted { count } => self.changes.suppress(*count as u64),
            Event::ThresholdCrossed(crossed) => {
                if let LogDecision::Log { suppressed } = self.crossings.event(uptime) {
                    lines::crossing(account, crossed, suppressed);
                }
            }
            Event::CrossingsOmitted { count } => self.crossings.suppress(*count as u64),
            // Once a day.
            Event::UrgentKeys(urgent) => lines::urgent_keys(account, urgent),
            Event::DetailsRead { key_id } => {
                let key_id = key_id.as_str();
                debug!(account, key_id, "read the details of a key");
                self.details.resolved(uptime);
            }
            Event::DetailsFailed {
                key_id,
                failure,
                paused_for,
            } => {
                let decision = self.details.problem(failure.reason, uptime);
                lines::details_failure(account, key_id, failure, *paused_for, decision);
            }
            Event::FirstListing { .. }
            | Event::EntriesRejected { .. }
            | Event::ListingHeldBack { .. }
            | Event::HeldListingResolved { .. }
            | Event::CachedAnswer { .. }
            | Event::OrganizationChanged { .. }
            | Event::KeysUnlisted { .. }
            | Event::ClockSetBack { .. }
            | Event::ClockSkewFound { .. }
            | Event::ClockSkewGone { .. }
            | Event::KeysFromTheFuture { .. }
            | Event::OwnKeyRecognized(_)
            | Event::OwnKeyAbsent
            | Event::OwnKeySurplusScopes { .. } => {
                if let LogDecision::Log { suppressed } = self.others.event(uptime) {
                    lines::other(account, event, suppressed);
                }
            }
        }
    }

    /// Logs a recovery, immediately or at a later success.
    fn recovered(&mut self, account: &str, keys: usize, uptime: Duration) {
        let failures = self.recovered_from;
        if failures > 0 && self.failures.resolved(uptime) {
            self.recovered_from = 0;
            info!(account, keys, failures, "listing keys succeeded again");
        }
    }

    /// Logs how many lines were suppressed, as soon as the rate limit allows another one.
    fn summaries(&mut self, account: &str, uptime: Duration) {
        if let Some(suppressed) = self.changes.summary(uptime) {
            info!(account, suppressed, "more keys changed than were logged");
        }
        if let Some(keys) = self.crossings.summary(uptime) {
            warn!(account, keys, "more keys crossed a threshold");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;
    use crate::config::LogFormat;
    use crate::domain::assessment::Severity;
    use crate::domain::event::{Difference, KeyChanged, NamedKey, ThresholdCrossed, UrgentKeys};
    use crate::domain::failure::Failure;
    use crate::domain::key::Expiry;
    use crate::domain::key::tests::{at, key};
    use crate::domain::listing::Rejects;
    use crate::logging::tests::logged;

    fn named(id: &str) -> NamedKey {
        NamedKey {
            id: key(id).id,
            name: Some("Build".into()),
            team: Some("platform".into()),
            expiry: Expiry::At(at(86_400)),
            time_left: Some(chrono::TimeDelta::seconds(3_661)),
        }
    }

    fn changed(difference: Difference) -> Event {
        Event::KeyChanged(Box::new(KeyChanged {
            key: named("k"),
            difference,
        }))
    }

    fn failed(reason: Reason) -> Event {
        Event::PollFailed(Box::new(Failure::new(reason, "no")))
    }

    fn crossed(severity: Severity) -> Event {
        Event::ThresholdCrossed(Box::new(ThresholdCrossed {
            key: named("k"),
            severity,
            rotate_url: None,
            runbook_url: None,
            muted_until: None,
            mute_reason: None,
        }))
    }

    /// The log lines of polls `(seconds after the start, events)`, without their time.
    fn written(level: Level, polls: &[(u64, Vec<Event>)]) -> Vec<String> {
        let text = logged(LogFormat::Text, level, || {
            let mut log = AccountLog::default();
            for (second, events) in polls {
                let uptime = Duration::from_secs(*second);
                log.poll_at("a", events, &PollFacts::default(), uptime);
            }
        });
        let rows = text.lines().filter_map(|line| line.split_once(' '));
        rows.map(|(_, line)| line.to_owned()).collect()
    }

    #[tokio::test]
    async fn each_change_has_a_line_with_the_key_and_its_values() {
        let line = |text: &str| Some(Line::own(text));
        let events = vec![
            changed(Difference::Added),
            changed(Difference::Scopes {
                added: line("b, c"),
                removed: line("a"),
            }),
            changed(Difference::Scopes {
                added: None,
                removed: line("a"),
            }),
            changed(Difference::IpAllowList {
                added: line("any address"),
                removed: line("10.0.0.1"),
                is_widened: true,
            }),
            changed(Difference::Expiry {
                from: Expiry::Never,
                to: Expiry::Unknown,
            }),
            changed(Difference::Name {
                from: Some("old".into()),
                to: None,
            }),
            changed(Difference::Disabled { is_disabled: true }),
            changed(Difference::Disabled { is_disabled: false }),
        ];
        let key = "account=a key_id=k name=Build team=platform expires_at=1970-01-02T00:00:00Z \
                   expires_in=\"1h 1m\" expires_in_seconds=3661";
        let expected = [
            format!("level=INFO msg=\"a key was added\" {key}"),
            format!(
                "level=WARN msg=\"the scopes of a key were widened\" {key} change=scopes added=\"b, c\" removed=a"
            ),
            format!("level=INFO msg=\"a key changed\" {key} change=scopes removed=a"),
            format!(
                "level=WARN msg=\"the IP allow list of a key was widened\" {key} change=ip_allow_list \
                 added=\"any address\" removed=10.0.0.1"
            ),
            format!(
                "level=INFO msg=\"a key changed\" {key} change=expiry from=never to=unreadable"
            ),
            format!("level=INFO msg=\"a key changed\" {key} change=name from=old"),
            format!("level=INFO msg=\"a key was disabled\" {key} change=disabled"),
            format!("level=WARN msg=\"a key was enabled again\" {key} change=disabled"),
        ];
        assert_eq!(written(Level::INFO, &[(0, events)]), expected);
    }

    #[tokio::test]
    async fn urgent_keys_are_one_line_the_soonest_first() {
        let key = |name: Option<&str>, team: Option<&str>, left: i64| NamedKey {
            name: name.map(Into::into),
            team: team.map(Into::into),
            time_left: Some(chrono::TimeDelta::seconds(left)),
            ..named("k")
        };
        let summary = |expired, soonest| {
            let urgent = UrgentKeys {
                expired,
                critical: 0,
                warning: 12,
                soonest,
            };
            vec![Event::UrgentKeys(Box::new(urgent))]
        };
        let several = vec![
            key(Some("Shop"), Some("payments"), -7_200),
            key(None, None, 3_661),
        ];
        let polls = [
            (0, summary(1, several)),
            (86_400, summary(0, vec![key(Some("Shop"), None, 86_400)])),
        ];
        let line = |level, expired, keys| {
            format!(
                "level={level} msg=\"keys need attention\" account=a expired={expired} critical=0 warning=12 \
                 keys=\"{keys}\""
            )
        };
        let expected = [
            line(
                "WARN",
                1,
                "Shop (payments) expired 2h ago; k expires in 1h 1m",
            ),
            line("INFO", 0, "Shop expires in 1d"),
        ];
        assert_eq!(written(Level::INFO, &polls), expected);
    }

    #[tokio::test]
    async fn failures_are_warnings_first_and_then_counted() {
        let polls = [0, 300, 600, 900].map(|second| (second, vec![failed(Reason::Dns)]));
        let shown = written(Level::DEBUG, &polls);
        let failure = "account=a reason=dns error=no attempts=0";
        let expected = [
            format!("level=WARN msg=\"listing keys failed\" {failure}"),
            format!("level=DEBUG msg=\"listing keys failed again\" {failure}"),
            format!("level=DEBUG msg=\"listing keys failed again\" {failure}"),
            format!("level=WARN msg=\"listing keys failed\" {failure} suppressed=2"),
        ];
        assert_eq!(shown, expected);
    }

    #[tokio::test]
    async fn a_recovery_without_room_for_its_line_is_logged_by_a_later_success() {
        let good = || Event::PollSucceeded {
            keys: 3,
            rejected: 0,
        };
        let recovered = || Event::PollRecovered {
            keys: 3,
            failures: 1,
        };
        let mut polls = Vec::new();
        for _ in 0..3 {
            polls.push((0, vec![failed(Reason::Dns)]));
            polls.push((0, vec![good(), recovered()]));
        }
        polls.extend([(5, vec![good()]), (60, vec![good()]), (120, vec![good()])]);
        let shown = written(Level::INFO, &polls);
        let works = "level=INFO msg=\"listing keys succeeded again\" account=a keys=3 failures=1";
        // Five lines at once; the sixth has to wait.
        assert_eq!(shown.len(), 6, "{shown:?}");
        assert!(shown[4].starts_with("level=WARN "), "{shown:?}");
        assert_eq!(shown[5], works);
    }

    #[tokio::test]
    async fn what_is_too_much_is_a_number() {
        let storm = || {
            let mut events = vec![changed(Difference::Added); CHANGES_MAX];
            events.push(Event::ChangesOmitted { count: 80 });
            events.extend(vec![crossed(Severity::Expired); CROSSINGS_MAX]);
            events.push(Event::CrossingsOmitted { count: 950 });
            events
        };
        let shown = written(Level::INFO, &[(0, storm()), (1, storm()), (60, vec![])]);
        assert_eq!(shown.len(), CHANGES_MAX + CROSSINGS_MAX + 2 + 2);
        assert_eq!(
            shown[CHANGES_MAX + CROSSINGS_MAX..],
            [
                "level=INFO msg=\"more keys changed than were logged\" account=a suppressed=80",
                "level=WARN msg=\"more keys crossed a threshold\" account=a keys=950",
                "level=INFO msg=\"more keys changed than were logged\" account=a suppressed=100",
                "level=WARN msg=\"more keys crossed a threshold\" account=a keys=1000",
            ]
        );
    }

    #[tokio::test]
    async fn an_api_gone_mad_gets_ten_lines_a_minute_in_the_long_run() {
        let mad = |second: u64| {
            let is_good = second.is_multiple_of(10);
            let mut events = if is_good {
                let keys = 3;
                vec![
                    Event::PollSucceeded { keys, rejected: 1 },
                    Event::PollRecovered { keys, failures: 1 },
                    Event::EntriesRejected {
                        rejects: Rejects::default(),
                        key_ids: None,
                    },
                    Event::OwnKeyAbsent,
                ]
            } else {
                vec![failed(Reason::Dns)]
            };
            events.extend(vec![changed(Difference::Removed); CHANGES_MAX]);
            events.extend(vec![crossed(Severity::Critical); CROSSINGS_MAX]);
            events.push(Event::DetailsFailed {
                key_id: key("k").id,
                failure: Box::new(Failure::new(
                    if is_good {
                        Reason::Dns
                    } else {
                        Reason::Timeout
                    },
                    "",
                )),
                paused_for: Duration::ZERO,
            });
            (second, events)
        };
        let polls: Vec<_> = (0..7_200).step_by(5).map(mad).collect();
        let minutes = 120;
        let bursts = FAILURES_BURST + 2 * RARE_BURST + CHANGES_BURST + CROSSINGS_BURST;
        let count = written(Level::INFO, &polls).len();
        let most = minutes * 10 + bursts as usize;
        assert!(count <= most, "{count} lines, {most} allowed");
        assert!(count > minutes * 5, "{count} lines");
    }
}
