//! Durations in human-readable form.

use chrono::TimeDelta;

const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// The two largest units of `span`, truncated: `29d 23h`, `4m 10s`, `-3h`; `0s` for zero.
pub fn words(span: TimeDelta) -> String {
    let sign = if span < TimeDelta::zero() { "-" } else { "" };
    let mut rest = span.num_seconds().unsigned_abs();
    let largest = UNITS
        .iter()
        .position(|(_, size)| rest >= *size)
        .unwrap_or(UNITS.len() - 1);
    let mut words = Vec::new();
    for (unit, size) in UNITS.iter().skip(largest).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 || (words.is_empty() && *size == 1) {
            words.push(format!("{count}{unit}"));
        }
    }
    format!("{sign}{}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_are_enough() {
        for (seconds, expected) in [
            (0, "0s"),
            (1, "1s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3_600, "1h"),
            (3_601, "1h"),
            (86_399, "23h 59m"),
            (86_400 * 30, "30d"),
            (86_400 * 730 + 3_600, "730d 1h"),
            (-10_800, "-3h"),
            (-1, "-1s"),
        ] {
            assert_eq!(words(TimeDelta::seconds(seconds)), expected, "{seconds}");
        }
        assert_eq!(words(TimeDelta::MAX), "106751991167d 7h");
    }
}
