//! Summarises the keys of an account that need attention.

use chrono::{DateTime, Utc};

use crate::domain::assessment::{Assessment, AssessmentRules, Severity};
use crate::domain::event::{NamedKey, URGENT_MAX, UrgentKeys};
use crate::domain::key::Key;
use crate::domain::listing::Listing;
use crate::domain::successors::superseded;

impl UrgentKeys {
    /// The keys of `account` in `listing` that are within their thresholds at `now`. Muted keys and
    /// those with a successor are left out. `None` if there are none.
    pub fn of(
        account: &str,
        listing: &Listing,
        rules: &AssessmentRules,
        now: DateTime<Utc>,
    ) -> Option<Self> {
        let keys = listing.keys();
        let assess = |key: &'_ Key| rules.assess(account, key, now);
        let assessments: Vec<Assessment<'_>> = keys.iter().map(assess).collect();
        let all = keys.iter().zip(&assessments);
        let mut urgent: Vec<_> = all
            .zip(superseded(keys, &assessments))
            .filter(|((_, assessment), is_superseded)| {
                !is_superseded && !assessment.is_muted && assessment.severity > Severity::None
            })
            .map(|((key, assessment), _)| (key, assessment))
            .collect();
        urgent.sort_by_key(|(key, _)| key.time_left(now));
        let count = |severity| {
            urgent
                .iter()
                .filter(|(_, it)| it.severity == severity)
                .count()
        };
        let soonest = urgent.iter().take(URGENT_MAX);
        let soonest = soonest.map(|(key, assessment)| NamedKey::assessed(key, assessment, now));
        (!urgent.is_empty()).then(|| Self {
            expired: count(Severity::Expired),
            critical: count(Severity::Critical),
            warning: count(Severity::Warning),
            soonest: soonest.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::Inventory;
    use crate::domain::inventory::tests::entry;
    use crate::domain::key::Expiry;
    use crate::domain::key::tests::{at, key};
    use crate::domain::listing::Rejects;

    const DAY: i64 = 86_400;

    fn ends(id: &str, day: i64) -> Key {
        Key {
            expiry: Expiry::At(at(day * DAY)),
            ..key(id)
        }
    }

    fn urgent(keys: Vec<Key>) -> Option<UrgentKeys> {
        let mut muted = entry("muted");
        muted.muted_until = Some(at(DAY));
        let rules = AssessmentRules {
            inventory: Inventory::new(vec![muted]),
            ..AssessmentRules::default()
        };
        let listing = Listing::new(keys, Rejects::default(), None);
        UrgentKeys::of("a", &listing, &rules, at(0))
    }

    #[test]
    fn urgent_keys_are_counted_and_the_soonest_are_named() {
        let labelled = |id: &str, created, day| Key {
            label: Some("ci".into()),
            created_at: Some(at(created * DAY)),
            ..ends(id, day)
        };
        let summary = urgent(vec![
            ends("c-critical", 5),
            ends("warning", 20),
            ends("far", 100),
            ends("expired", -1),
            ends("muted", 1),
            key("never"),
            Key {
                is_disabled: true,
                ..ends("disabled", 1)
            },
            labelled("superseded", -300, 2),
            labelled("successor", -100, 400),
        ]);
        let summary = summary.unwrap();
        let counts = (summary.expired, summary.critical, summary.warning);
        assert_eq!(counts, (1, 1, 1));
        let soonest = summary.soonest.iter().map(|key| key.id.as_str());
        assert_eq!(
            soonest.collect::<Vec<_>>(),
            ["expired", "c-critical", "warning"]
        );
        let many = (0..300).map(|id| ends(&format!("k{id}"), 1)).collect();
        let many = urgent(many).unwrap();
        assert_eq!((many.critical, many.soonest.len()), (300, URGENT_MAX));
        assert_eq!(urgent(vec![ends("far", 100)]), None);
    }
}
