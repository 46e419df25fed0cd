//! `[thresholds]`, `[policy]` and `[details]`: the rules for assessing keys, and optional details.

use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::TimeDelta;

use crate::config::reader::{Least, Section};
use crate::domain::assessment::Thresholds;
use crate::domain::glob::Glob;
use crate::domain::policy::Limits;
use crate::os::clock::delta;

/// From the shortest useful notice for an alert to ten years, which exceeds the lifetime of keys.
pub(super) const NOTICE_RANGE: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(24 * 3650);

/// Age limits below an hour are mistakes; the upper end is a hundred years.
const AGE_RANGE: RangeInclusive<Duration> =
    Duration::from_hours(1)..=Duration::from_hours(24 * 36500);

/// `[details]`: whether to read the detail page of each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Details {
    /// Whether details are read. The responses contain full secrets.
    pub enabled: bool,
    /// How old details may become before they are read again.
    pub interval: Duration,
    /// Maximum requests per minute and account.
    pub requests_per_minute: u32,
}

impl Details {
    /// Labels rarely change, and the last use needs no more than daily resolution.
    const INTERVAL: Duration = Duration::from_hours(6);
    /// One every two seconds, well below common API rate limits: a thousand keys in half an hour.
    const REQUESTS_PER_MINUTE: u64 = 30;

    pub(super) fn read(section: &mut Section<'_>) -> Self {
        Self {
            enabled: section.flag("enabled", false),
            interval: section.duration(
                "interval",
                Self::INTERVAL,
                Duration::from_mins(1)..=Duration::from_hours(24 * 30),
            ),
            requests_per_minute: section.number(
                "requests_per_minute",
                Self::REQUESTS_PER_MINUTE,
                1..=600,
            ),
        }
    }
}

pub(super) fn read_thresholds(section: &mut Section<'_>) -> Thresholds {
    let default = Thresholds::default();
    let mut read = |name, default: TimeDelta| {
        let default = default.to_std().unwrap_or_default();
        delta(section.duration(name, default, NOTICE_RANGE))
    };
    let thresholds = Thresholds {
        warning: read("warning", default.warning),
        critical: read("critical", default.critical),
        own_warning: read("own_warning", default.own_warning),
        own_critical: read("own_critical", default.own_critical),
        lifetime_fraction: section.fraction(
            "lifetime_fraction",
            default.lifetime_fraction,
            Least::AboveZero,
        ),
        ..default
    };
    if thresholds.critical > thresholds.warning {
        section.problem("critical", None, "must not be longer than warning");
    }
    if thresholds.own_critical > thresholds.own_warning {
        section.problem("own_critical", None, "must not be longer than own_warning");
    }
    thresholds
}

pub(super) fn read_limits(section: &mut Section<'_>) -> Limits {
    let age = |section: &mut Section<'_>, name| {
        section.optional_duration(name, None, AGE_RANGE).map(delta)
    };
    Limits {
        never_expires: section.flag("never_expires", true),
        no_ip_allow_list: section.flag("no_ip_allow_list", true),
        privileged_scopes: section
            .optional_list(
                "privileged_scopes",
                "a pattern for scopes such as \"users.*\", 1 to 255 characters",
                Glob::parse,
            )
            .map(Into::into),
        // 2^62 exceeds any useful number of addresses.
        max_allowed_addresses: section.optional_number("max_allowed_addresses", 1..=1 << 62),
        max_age: age(section, "max_age"),
        max_lifetime: age(section, "max_lifetime"),
        max_unused: age(section, "max_unused"),
    }
}
