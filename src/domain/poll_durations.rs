//! How long the polls of an account took: a histogram. Pure.

use std::time::Duration;

/// The upper bounds of the buckets, as their label and in milliseconds: from a fast response to the
/// longest poll, 60 s.
const BOUNDS: [(&str, u64); 11] = [
    ("0.05", 50),
    ("0.1", 100),
    ("0.25", 250),
    ("0.5", 500),
    // OpenMetrics requires the fraction.
    ("1.0", 1_000),
    ("2.5", 2_500),
    ("5.0", 5_000),
    ("10.0", 10_000),
    ("20.0", 20_000),
    ("40.0", 40_000),
    ("60.0", 60_000),
];

/// Durations of polls, counted in buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PollDurations {
    /// Durations up to each bound and above the one before; longer ones are only in `count`.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

impl PollDurations {
    /// Adds the duration of a poll.
    pub fn observe(&mut self, took: Duration) {
        let bucket = BOUNDS
            .iter()
            .position(|(_, bound)| took <= Duration::from_millis(*bound));
        if let Some(bucket) = bucket.and_then(|bucket| self.buckets.get_mut(bucket)) {
            *bucket += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// The label of each bucket's bound, in seconds, and how many polls took at most as long.
    pub fn buckets(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.buckets.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        let bounds = BOUNDS.iter().map(|(label, _)| *label);
        bounds.zip(counts).chain([("+Inf", self.count)])
    }

    /// The number of polls.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration of all polls together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() {
        let mut durations = PollDurations::default();
        for milliseconds in [0, 50, 51, 1_000, 60_000, 60_001] {
            durations.observe(Duration::from_millis(milliseconds));
        }
        let buckets: Vec<_> = durations.buckets().collect();
        assert_eq!(
            buckets,
            [
                ("0.05", 2),
                ("0.1", 3),
                ("0.25", 3),
                ("0.5", 3),
                ("1.0", 4),
                ("2.5", 4),
                ("5.0", 4),
                ("10.0", 4),
                ("20.0", 4),
                ("40.0", 4),
                ("60.0", 5),
                ("+Inf", 6),
            ]
        );
        assert_eq!(durations.count(), 6);
        assert_eq!(durations.sum(), Duration::from_millis(121_102));
    }

    #[test]
    fn labels_are_the_bounds_in_seconds() {
        for (label, milliseconds) in BOUNDS {
            assert_eq!(label.parse::<f64>(), Ok(milliseconds as f64 / 1_000.0));
        }
    }
}
