//! Which of the shipped alerts about keys (`deploy/prometheus/rules.yml`) fire, and when. A test
//! compares this with what Prometheus makes of the rules.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::assessment::{Assessment, AssessmentRules, Severity};
use crate::domain::key::{Expiry, Key, LastUse};
use crate::domain::policy::Policy;

/// How severe an alert is, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertSeverity {
    /// Worth knowing.
    Info,
    /// For working hours.
    Warning,
    /// For on-call.
    Critical,
}

/// An alert about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name in the rules.
    pub name: &'static str,
    /// Its severity.
    pub severity: AlertSeverity,
    /// The violated policy, for alerts that name one.
    pub policy: Option<Policy>,
    /// How long its condition has to hold before it fires.
    pub wait: TimeDelta,
}

/// A key with everything that its alerts depend on.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The rules that assess it.
    pub rules: &'a AssessmentRules,
    /// Its account.
    pub account: &'a str,
    /// The key.
    pub key: &'a Key,
    /// Whether it has a successor.
    pub is_superseded: bool,
}

const fn alert(name: &'static str, severity: AlertSeverity, wait: TimeDelta) -> Alert {
    Alert {
        name,
        severity,
        policy: None,
        wait,
    }
}

impl AlertSeverity {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Alert {
    const EXPIRING_SOON: Self = alert(
        "ApiKeyExpiringSoon",
        AlertSeverity::Warning,
        TimeDelta::minutes(5),
    );
    const ABOUT_TO_EXPIRE: Self = alert(
        "ApiKeyAboutToExpire",
        AlertSeverity::Critical,
        TimeDelta::minutes(1),
    );
    const EXPIRED: Self = alert(
        "ApiKeyExpired",
        AlertSeverity::Critical,
        TimeDelta::minutes(1),
    );
    const STILL_USED: Self = alert(
        "ApiKeySupersededStillUsed",
        AlertSeverity::Warning,
        TimeDelta::minutes(5),
    );
    const EXPIRED_IN_USE: Self = alert(
        "ApiKeySupersededStillUsed",
        AlertSeverity::Critical,
        TimeDelta::minutes(1),
    );
    const NOT_REMOVED: Self = alert(
        "ApiKeySupersededNotRemoved",
        AlertSeverity::Info,
        TimeDelta::days(1),
    );
    const NEVER_EXPIRES: Self = alert(
        "ApiKeyNeverExpires",
        AlertSeverity::Warning,
        TimeDelta::minutes(15),
    );
    const POLICY_BROKEN: Self = alert(
        "ApiKeyPolicyBroken",
        AlertSeverity::Warning,
        TimeDelta::minutes(15),
    );
    const EXPIRY_UNREADABLE: Self = alert(
        "ApiKeyExpiryUnreadable",
        AlertSeverity::Warning,
        TimeDelta::minutes(15),
    );
    const EXPORTER_KEY_EXPIRING: Self = alert(
        "ApiKeyExporterKeyExpiring",
        AlertSeverity::Critical,
        TimeDelta::minutes(5),
    );

    /// Every alert about a key; the one about policies represents each policy but
    /// `never_expires`.
    pub const ALL: [Self; 10] = [
        Self::EXPIRING_SOON,
        Self::ABOUT_TO_EXPIRE,
        Self::EXPIRED,
        Self::STILL_USED,
        Self::EXPIRED_IN_USE,
        Self::NOT_REMOVED,
        Self::NEVER_EXPIRES,
        Self::POLICY_BROKEN,
        Self::EXPIRY_UNREADABLE,
        Self::EXPORTER_KEY_EXPIRING,
    ];

    /// Whether it is about the use of a key that has a successor.
    pub fn is_about_use(self) -> bool {
        self.name == Self::STILL_USED.name
    }

    /// Whether it is about the expiry of the key that the exporter itself uses, which alerts at the
    /// warning threshold although it is critical.
    pub fn is_about_own_key(self) -> bool {
        self == Self::EXPORTER_KEY_EXPIRING
    }
}

impl<'a> Subject<'a> {
    /// The alerts with a condition that holds at `now`.
    pub fn alerts(&self, now: DateTime<Utc>) -> Vec<Alert> {
        let assessment = self.rules.assess(self.account, self.key, now);
        alerts(self.key, &assessment, self.is_superseded)
    }

    /// The next time at which the condition of an alert becomes true, and these alerts, if nothing
    /// about the key and its account changes before.
    pub fn next(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, Vec<Alert>)> {
        let mut points: Vec<_> = self.turning_points().filter(|at| *at > now).collect();
        points.sort_unstable();
        let mut before = self.alerts(now);
        points.into_iter().find_map(|at| {
            let then = self.alerts(at);
            let new = then.iter().filter(|alert| !before.contains(alert));
            let new: Vec<Alert> = new.copied().collect();
            before = then;
            (!new.is_empty()).then_some((at, new))
        })
    }

    /// Since when the condition of `alert`, which holds at `now`, has been true, if the passing of
    /// time made it true.
    pub fn since(&self, alert: Alert, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let began = |at: &DateTime<Utc>| {
            let before = at.checked_sub_signed(TimeDelta::nanoseconds(1));
            before.is_some_and(|before| !self.alerts(before).contains(&alert))
        };
        let past = self.turning_points().filter(|at| *at <= now);
        past.filter(began).max()
    }

    /// The times at which any alert of the key may begin or end.
    fn turning_points(&self) -> impl Iterator<Item = DateTime<Utc>> + use<'a> {
        let Self { rules, key, .. } = *self;
        // The thresholds do not depend on the time.
        let assessment = rules.assess(self.account, key, DateTime::UNIX_EPOCH);
        let notice = assessment.notice;
        let end = match key.expiry {
            Expiry::At(end) => Some(end),
            Expiry::Never | Expiry::Unknown => None,
        };
        let before = [notice.warning, notice.critical, TimeDelta::zero()].into_iter();
        let of_expiry = before.filter_map(move |before| end?.checked_sub_signed(before));
        let others: Vec<_> = rules.turning_points(key, &assessment).collect();
        of_expiry.chain(others)
    }
}

/// The alerts about `key` with a condition that holds at the time of `assessment`.
pub fn alerts(key: &Key, assessment: &Assessment<'_>, is_superseded: bool) -> Vec<Alert> {
    let severity = assessment.severity;
    let is_loud = !assessment.is_muted && !key.is_disabled;
    let is_alone = is_loud && !is_superseded;
    let is_replaced = is_loud && is_superseded;
    let is_expired = severity == Severity::Expired;
    let notice = assessment.notice;
    let used_within = |window: TimeDelta| {
        let last_use = key.details.as_ref().map(|details| details.last_use);
        match (last_use, key.expiry) {
            (Some(LastUse::At(used)), Expiry::At(end)) => end
                .checked_sub_signed(window)
                .is_none_or(|from| used >= from),
            _ => false,
        }
    };
    let is_ending = (Severity::Warning..Severity::Expired).contains(&severity);
    let mut alerts = Vec::new();
    for (alert, holds) in [
        (Alert::EXPIRING_SOON, is_alone && is_ending),
        (
            Alert::ABOUT_TO_EXPIRE,
            is_alone && severity == Severity::Critical,
        ),
        (Alert::EXPIRED, is_alone && is_expired),
        (
            Alert::STILL_USED,
            is_replaced && !is_expired && used_within(notice.warning),
        ),
        (
            Alert::EXPIRED_IN_USE,
            is_replaced && is_expired && used_within(notice.critical),
        ),
        (Alert::NOT_REMOVED, is_replaced),
        (
            Alert::NEVER_EXPIRES,
            is_loud && assessment.broken.contains(Policy::NeverExpires),
        ),
        (Alert::EXPIRY_UNREADABLE, is_loud && key.is_expiry_unknown()),
        // Neither a mute nor a successor changes that the exporter uses this very key.
        (
            Alert::EXPORTER_KEY_EXPIRING,
            key.is_own && !key.is_disabled && severity >= Severity::Warning,
        ),
    ] {
        if holds {
            alerts.push(alert);
        }
    }
    let others = assessment.broken.iter();
    let others = others.filter(|policy| is_loud && *policy != Policy::NeverExpires);
    alerts.extend(others.map(|policy| Alert {
        policy: Some(policy),
        ..Alert::POLICY_BROKEN
    }));
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::tests::entry;
    use crate::domain::inventory::{Entry, Inventory};
    use crate::domain::key::tests::{at, key};
    use crate::domain::policy::Limits;

    const DAY: i64 = 86_400;

    fn names(alerts: &[Alert]) -> Vec<&'static str> {
        alerts.iter().map(|alert| alert.name).collect()
    }

    #[test]
    fn the_next_alert_is_the_first_that_time_brings_whatever_lies_between() {
        let rules = AssessmentRules {
            inventory: Inventory::new(vec![Entry {
                muted_until: Some(at(95 * DAY)),
                ..entry("muted")
            }]),
            policy: Limits {
                never_expires: false,
                no_ip_allow_list: false,
                max_age: Some(TimeDelta::days(50)),
                ..Limits::default()
            },
            ..AssessmentRules::default()
        };
        let ends = |id: &str| Key {
            expiry: Expiry::At(at(100 * DAY)),
            ..key(id)
        };
        let old = Key {
            created_at: Some(at(0)),
            ..key("old")
        };
        let own = Key {
            is_own: true,
            ..ends("own")
        };
        for (key, is_superseded, now, next) in [
            (ends("a"), false, 0, Some((70 * DAY, "ApiKeyExpiringSoon"))),
            (
                ends("a"),
                false,
                70 * DAY,
                Some((93 * DAY, "ApiKeyAboutToExpire")),
            ),
            (
                ends("a"),
                false,
                99 * DAY,
                Some((100 * DAY, "ApiKeyExpired")),
            ),
            (ends("a"), false, 100 * DAY, None),
            (ends("a"), true, 0, None),
            (
                ends("muted"),
                false,
                0,
                Some((95 * DAY, "ApiKeyExpiringSoon")),
            ),
            (old, false, 0, Some((50 * DAY, "ApiKeyPolicyBroken"))),
            (own, true, 0, Some((40 * DAY, "ApiKeyExporterKeyExpiring"))),
            (key("endless"), false, 0, None),
        ] {
            let subject = Subject {
                rules: &rules,
                account: "a",
                key: &key,
                is_superseded,
            };
            let found = subject.next(at(now));
            let found = found.map(|(at, alerts)| (at, names(&alerts)[0]));
            let expected = next.map(|(then, name)| (at(then), name));
            assert_eq!(found, expected, "{key:?} at {now}");
            if let Some((then, alerts)) = subject.next(at(now)) {
                let before = subject.alerts(then - TimeDelta::seconds(1));
                for alert in alerts {
                    assert!(!before.contains(&alert), "{alert:?}");
                    assert_eq!(subject.since(alert, then), Some(then));
                    assert_eq!(subject.since(alert, then + TimeDelta::hours(1)), Some(then));
                }
            }
        }
    }

    #[test]
    fn an_alert_that_no_time_began_has_no_beginning() {
        let rules = AssessmentRules::default();
        let key = key("endless");
        let subject = Subject {
            rules: &rules,
            account: "a",
            key: &key,
            is_superseded: false,
        };
        let alerts = subject.alerts(at(0));
        assert_eq!(names(&alerts)[0], "ApiKeyNeverExpires");
        assert_eq!(subject.since(alerts[0], at(0)), None);
    }
}
