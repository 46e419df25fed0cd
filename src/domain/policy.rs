//! The policies for keys, and which of them a key violates.

use chrono::{DateTime, TimeDelta, Utc};

use crate::domain::allow_list::{AllowList, Ipv6Count};
use crate::domain::glob::Glob;
use crate::domain::key::{Expiry, Key, LastUse, Scopes};

/// A policy that a key may violate. The words are label values and part of the metrics contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Policy {
    /// It never expires.
    NeverExpires,
    /// Its allow list is empty or allows all of an address family.
    NoIpAllowList,
    /// Its allow list allows more addresses than the limit.
    WideIpAllowList,
    /// It has a scope that can do lasting harm.
    PrivilegedScope,
    /// It is too old.
    TooOld,
    /// Its lifetime is too long.
    LifetimeTooLong,
    /// It has not been used for too long.
    Unused,
}

impl Policy {
    /// Every policy, in the order of the metric.
    pub const ALL: [Self; 7] = [
        Self::NeverExpires,
        Self::NoIpAllowList,
        Self::WideIpAllowList,
        Self::PrivilegedScope,
        Self::TooOld,
        Self::LifetimeTooLong,
        Self::Unused,
    ];

    /// The label value, and the word in an inventory's `exempt`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverExpires => "never_expires",
            Self::NoIpAllowList => "no_ip_allow_list",
            Self::WideIpAllowList => "wide_ip_allow_list",
            Self::PrivilegedScope => "privileged_scope",
            Self::TooOld => "too_old",
            Self::LifetimeTooLong => "lifetime_too_long",
            Self::Unused => "unused",
        }
    }
}

/// A set of policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies(u8);

impl Policies {
    /// The policies in the set, in the order of the metric.
    pub fn iter(self) -> impl Iterator<Item = Policy> {
        Policy::ALL
            .into_iter()
            .filter(move |policy| self.contains(*policy))
    }

    /// Whether `policy` is in the set.
    pub fn contains(self, policy: Policy) -> bool {
        self.0 & (1 << policy as u8) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The policies that are not in `others`.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }
}

impl FromIterator<Policy> for Policies {
    fn from_iter<T: IntoIterator<Item = Policy>>(policies: T) -> Self {
        let bits = policies.into_iter().map(|policy| 1 << policy as u8);
        Self(bits.fold(0, |all, bit: u8| all | bit))
    }
}

/// `[policy]` of the configuration: which policies apply, and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Whether a key must have an expiry.
    pub never_expires: bool,
    /// Whether a key must have an allow list that restricts it.
    pub no_ip_allow_list: bool,
    /// Scopes that a key must not have; empty disables the policy. `None` uses the provider's
    /// defaults.
    pub privileged_scopes: Option<Box<[Glob]>>,
    /// Most addresses, of both families together, that may use a key.
    pub max_allowed_addresses: Option<u64>,
    /// Age from which a key is too old.
    pub max_age: Option<TimeDelta>,
    /// Longest time from creation to expiry.
    pub max_lifetime: Option<TimeDelta>,
    /// A key that has not been used for this long is unused.
    pub max_unused: Option<TimeDelta>,
}

impl Limits {
    /// The policies that `key` violates at `now`, before any exemption. A key with unknown times,
    /// scopes or allow list violates no policy about them, and a disabled key violates none.
    ///
    /// `usual_scopes` are those that count as privileged unless the configuration overrides them.
    pub fn broken(&self, key: &Key, now: DateTime<Utc>, usual_scopes: &[Glob]) -> Policies {
        if key.is_disabled {
            return Policies::default();
        }
        let is_past = |moment: Option<DateTime<Utc>>| moment.is_some_and(|moment| moment <= now);
        let is_broken = |policy: &Policy| match policy {
            Policy::NeverExpires => self.never_expires && key.expiry == Expiry::Never,
            Policy::NoIpAllowList => {
                let is_unrestricted = key
                    .allow_list
                    .as_ref()
                    .is_some_and(AllowList::is_unrestricted);
                self.no_ip_allow_list && is_unrestricted
            }
            Policy::WideIpAllowList => self
                .max_allowed_addresses
                .zip(key.allow_list.as_ref())
                .is_some_and(|(max, list)| is_wider(list, max)),
            Policy::PrivilegedScope => self.is_privileged(key, usual_scopes),
            Policy::TooOld => is_past(self.too_old_at(key)),
            Policy::LifetimeTooLong => match (self.max_lifetime, key.lifetime()) {
                (Some(max), Some(lifetime)) => lifetime > max,
                _ => false,
            },
            Policy::Unused => is_past(self.unused_at(key)),
        };
        Policy::ALL.into_iter().filter(is_broken).collect()
    }

    /// The times at which the result of [`Limits::broken`] changes without a poll.
    pub fn turning_points(&self, key: &Key) -> impl Iterator<Item = DateTime<Utc>> {
        [self.too_old_at(key), self.unused_at(key)]
            .into_iter()
            .flatten()
    }

    fn is_privileged(&self, key: &Key, usual_scopes: &[Glob]) -> bool {
        self.privileged_scopes_of(key, usual_scopes)
            .next()
            .is_some()
    }

    /// The scopes of `key` that count as privileged. `usual_scopes` are those that do unless the
    /// configuration overrides them.
    pub fn privileged_scopes_of<'a>(
        &'a self,
        key: &'a Key,
        usual_scopes: &'a [Glob],
    ) -> impl Iterator<Item = &'a str> {
        let privileged_scopes = self.privileged_scopes.as_deref().unwrap_or(usual_scopes);
        let scopes = key.scopes.iter().flat_map(Scopes::iter);
        // A scope that is itself a pattern covers all scopes, existing and future.
        let is_wildcard = |scope: &str| !privileged_scopes.is_empty() && scope.contains('*');
        scopes.filter(move |scope| {
            let mut privileged = privileged_scopes.iter();
            is_wildcard(scope) || privileged.any(|privileged| privileged.matches(scope))
        })
    }

    fn too_old_at(&self, key: &Key) -> Option<DateTime<Utc>> {
        key.created_at?.checked_add_signed(self.max_age?)
    }

    /// For a key that was never used, the time counts from its creation.
    fn unused_at(&self, key: &Key) -> Option<DateTime<Utc>> {
        let max_unused = self.max_unused?;
        let last_used = match key.details.as_ref()?.last_use {
            LastUse::At(moment) => moment,
            LastUse::Never => key.created_at?,
            LastUse::Unknown => return None,
        };
        last_used.checked_add_signed(max_unused)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            never_expires: true,
            no_ip_allow_list: true,
            privileged_scopes: None,
            max_allowed_addresses: None,
            max_age: None,
            max_lifetime: None,
            max_unused: None,
        }
    }
}

fn is_wider(list: &AllowList, max: u64) -> bool {
    match list.ipv6_addresses() {
        Ipv6Count::All => true,
        Ipv6Count::Some(ipv6) => {
            ipv6.saturating_add(list.ipv4_addresses().into()) > u128::from(max)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::Details;
    use crate::domain::key::tests::{at, key};

    /// All policies disabled.
    fn nothing() -> Limits {
        Limits {
            never_expires: false,
            no_ip_allow_list: false,
            ..Limits::default()
        }
    }

    fn globs(texts: &[&str]) -> Box<[Glob]> {
        texts.iter().filter_map(|text| Glob::parse(text)).collect()
    }

    fn words(policies: Policies) -> Vec<&'static str> {
        policies.iter().map(Policy::as_str).collect()
    }

    fn used(last_use: LastUse) -> Key {
        Key {
            details: Some(Box::new(Details {
                label: None,
                last_use,
                requests: None,
                read_at: at(0),
            })),
            created_at: Some(at(1_000)),
            ..key("a")
        }
    }

    #[test]
    fn by_default_a_key_must_end_be_restricted_and_harmless() {
        let harmful = Key {
            scopes: Some(Scopes::new(vec!["payments.read", "webhooks.delete"])),
            ..key("a")
        };
        let limits = Limits {
            privileged_scopes: Some(globs(&["users.*", "webhooks.delete"])),
            ..Limits::default()
        };
        let expected = ["never_expires", "no_ip_allow_list", "privileged_scope"];
        assert_eq!(words(limits.broken(&harmful, at(0), &[])), expected);
        let fine = Key {
            expiry: Expiry::At(at(1)),
            allow_list: Some(AllowList::parse([Some("10.0.0.1")].into_iter())),
            scopes: Some(Scopes::new(vec!["payments.create"])),
            ..key("a")
        };
        assert!(limits.broken(&fine, at(0), &[]).is_empty());
        assert!(nothing().broken(&harmful, at(0), &[]).is_empty());
    }

    #[test]
    fn a_scope_with_a_wildcard_is_privileged_unless_the_policy_is_off() {
        for (scope, expected) in [
            ("*", true),
            ("payments.*", true),
            ("*:read", true),
            ("a.*.read", true),
            ("payments.read", false),
        ] {
            let key = Key {
                scopes: Some(Scopes::new(vec![scope])),
                ..key("a")
            };
            let limits = Limits {
                privileged_scopes: Some(globs(&["users.delete"])),
                ..Limits::default()
            };
            assert_eq!(limits.is_privileged(&key, &[]), expected, "{scope}");
            assert!(!nothing().is_privileged(&key, &[]), "{scope}");
        }
    }

    #[test]
    fn what_is_not_known_and_a_disabled_key_break_nothing() {
        let limits = Limits {
            max_allowed_addresses: Some(1),
            ..Limits::default()
        };
        let unknown = Key {
            expiry: Expiry::Unknown,
            scopes: None,
            allow_list: None,
            ..key("a")
        };
        assert_eq!(limits.broken(&unknown, at(0), &[]), Policies::default());
        let disabled = Key {
            is_disabled: true,
            scopes: Some(Scopes::new(vec!["*"])),
            ..key("a")
        };
        assert_eq!(limits.broken(&disabled, at(0), &[]), Policies::default());
    }

    #[test]
    fn an_allow_list_is_wide_from_one_address_over_the_limit_on() {
        let limits = Limits {
            max_allowed_addresses: Some(257),
            ..nothing()
        };
        for (entries, expected) in [
            (&["10.0.0.0/24", "::1"][..], false),
            (&["10.0.0.0/24", "::1", "::2"], true),
            (&["2001:db8::/64"], true),
            (&[], true),
            (&["::/0"], true),
            (&["nonsense"], false),
        ] {
            let key = Key {
                allow_list: Some(AllowList::parse(entries.iter().map(|entry| Some(*entry)))),
                ..key("a")
            };
            let broken = limits.broken(&key, at(0), &[]);
            let is_wide = broken.contains(Policy::WideIpAllowList);
            assert_eq!(is_wide, expected, "{entries:?}");
        }
    }

    #[test]
    fn a_key_is_too_old_from_the_very_second() {
        let limits = Limits {
            max_age: Some(TimeDelta::days(365)),
            ..nothing()
        };
        let old = Key {
            created_at: Some(at(1_000)),
            ..key("a")
        };
        let birthday = 1_000 + 365 * 86_400;
        for (now, expected) in [
            (0, false),
            (birthday - 1, false),
            (birthday, true),
            (birthday + 1, true),
            (birthday + 100 * 365 * 86_400, true),
        ] {
            let is_old = limits.broken(&old, at(now), &[]).contains(Policy::TooOld);
            assert_eq!(is_old, expected, "at {now}");
        }
        assert_eq!(
            limits.turning_points(&old).collect::<Vec<_>>(),
            [at(birthday)]
        );
        assert!(limits.broken(&key("undated"), at(1 << 40), &[]).is_empty());
    }

    #[test]
    fn a_lifetime_is_too_long_from_one_second_over_the_limit_on() {
        let limits = Limits {
            max_lifetime: Some(TimeDelta::seconds(100)),
            ..nothing()
        };
        for (expiry, expected) in [
            (Expiry::At(at(1_099)), false),
            (Expiry::At(at(1_100)), false),
            (Expiry::At(at(1_101)), true),
            (Expiry::At(at(900)), false),
            // That is a different policy.
            (Expiry::Never, false),
            (Expiry::Unknown, false),
        ] {
            let key = Key {
                created_at: Some(at(1_000)),
                expiry,
                ..key("a")
            };
            let broken = limits.broken(&key, at(0), &[]);
            let is_long = broken.contains(Policy::LifetimeTooLong);
            assert_eq!(is_long, expected, "{expiry:?}");
        }
    }

    #[test]
    fn a_key_is_unused_where_details_say_so() {
        let limits = Limits {
            max_unused: Some(TimeDelta::seconds(100)),
            ..nothing()
        };
        for (key, now, expected) in [
            (used(LastUse::At(at(2_000))), 2_099, false),
            (used(LastUse::At(at(2_000))), 2_100, true),
            (used(LastUse::At(at(2_000))), 2_101, true),
            (used(LastUse::Never), 1_099, false),
            (used(LastUse::Never), 1_100, true),
            (used(LastUse::Unknown), 1 << 40, false),
            (key("without-details"), 1 << 40, false),
        ] {
            let is_unused = limits.broken(&key, at(now), &[]).contains(Policy::Unused);
            assert_eq!(is_unused, expected, "{key:?} at {now}");
        }
    }

    #[test]
    fn an_exemption_takes_a_policy_away() {
        let broken: Policies = [Policy::NeverExpires, Policy::TooOld].into_iter().collect();
        let exempt = [Policy::NeverExpires].into_iter().collect();
        assert_eq!(words(broken.without(exempt)), ["too_old"]);
        assert!(broken.without(broken).is_empty());
    }
}
