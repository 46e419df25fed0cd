//! The exposition as a file that is written once and read for a while, by the textfile collector of
//! Prometheus' node exporter. Pure.

/// Families that make sense only where a process answers scrapes: those that depend on the moment
/// of the scrape, counters that start with each run, and facts about the next poll.
const LEFT_OUT: [&str; 10] = [
    "api_key_expires_in_seconds",
    "api_key_account_polls_total",
    "api_key_account_poll_failures_total",
    "api_key_account_next_poll_timestamp_seconds",
    "api_key_account_poll_interval_seconds",
    "api_key_account_consecutive_failures",
    "api_key_account_shrink_held",
    "api_key_account_changes_total",
    "api_key_account_details_failures_total",
    "api_key_exporter_poll_duration_seconds",
];

/// `text`, in the text format, without the families that make no sense in a file.
pub fn textfile(text: &str) -> String {
    let mut is_kept = true;
    let lines = text.split_inclusive('\n').filter(|line| {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            is_kept = !LEFT_OUT
                .iter()
                .any(|name| rest.split(' ').next() == Some(name));
        }
        is_kept
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::families::FAMILIES;

    #[test]
    fn every_family_that_is_left_out_exists_and_no_counter_of_polls_is_kept() {
        for name in LEFT_OUT {
            assert!(FAMILIES.iter().any(|family| family.name == name), "{name}");
        }
        let kept = FAMILIES.iter().map(|family| family.name);
        let kept = kept.filter(|name| !LEFT_OUT.contains(name));
        let counters: Vec<&str> = kept.filter(|name| name.ends_with("_total")).collect();
        assert_eq!(counters, ["api_key_requests_total"]);
        let mut families = FAMILIES.iter().filter(|it| !LEFT_OUT.contains(&it.name));
        assert!(families.all(|family| !family.name.starts_with("api_key_exporter_")));
    }

    #[test]
    fn whole_families_are_left_out() {
        let text = "# HELP a A.\n# TYPE a gauge\na 1\n\
            # HELP api_key_account_polls_total B.\n# TYPE api_key_account_polls_total counter\n\
            api_key_account_polls_total{account=\"# HELP c\"} 1\n\
            # HELP api_key_account_up C.\n# TYPE api_key_account_up gauge\napi_key_account_up 1\n";
        let kept = "# HELP a A.\n# TYPE a gauge\na 1\n\
            # HELP api_key_account_up C.\n# TYPE api_key_account_up gauge\napi_key_account_up 1\n";
        assert_eq!(textfile(text), kept);
    }
}
