//! The standard `process_*` family, from `/proc`: unreadable values are omitted, never 0.
//!
//! The `prometheus` crate's own collector counts processor time in whole seconds, too coarse for a
//! rate, and writes 0 for unreadable values.

use procfs::process::{LimitValue, Process};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// One family: name, help, type, value.
type Row = (&'static str, &'static str, MetricType, Option<f64>);

/// All families that can be read now.
pub(crate) fn families() -> Vec<MetricFamily> {
    let Ok(process) = Process::myself() else {
        return Vec::new();
    };
    let stat = process.stat().ok();
    let stat = stat.as_ref();
    let ticks = procfs::ticks_per_second() as f64;
    let max_fds = process
        .limits()
        .ok()
        .and_then(|limits| match limits.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit as f64),
            LimitValue::Unlimited => None,
        });
    let started = || Some(procfs::boot_time_secs().ok()? as f64 + stat?.starttime as f64 / ticks);
    let rows: [Row; 7] = [
        (
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            MetricType::COUNTER,
            stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks),
        ),
        (
            "process_open_fds",
            "Number of open file descriptors.",
            MetricType::GAUGE,
            process.fd_count().ok().map(|count| count as f64),
        ),
        (
            "process_max_fds",
            "Maximum number of open file descriptors.",
            MetricType::GAUGE,
            max_fds,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            MetricType::GAUGE,
            stat.map(|stat| stat.vsize as f64),
        ),
        (
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            MetricType::GAUGE,
            stat.map(|stat| (stat.rss * procfs::page_size()) as f64),
        ),
        (
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            MetricType::GAUGE,
            started(),
        ),
        (
            "process_threads",
            "Number of OS threads in the process.",
            MetricType::GAUGE,
            stat.map(|stat| stat.num_threads as f64),
        ),
    ];
    rows.into_iter().filter_map(family).collect()
}

fn family((name, help, kind, value): Row) -> Option<MetricFamily> {
    let value = value?;
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    Some(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_tells_of_itself() {
        let families = families();
        let value = |name: &str| {
            let family = families
                .iter()
                .find(|family| family.name() == name)
                .unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert_eq!(families.len(), 7);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        // After 2020, whatever the machine's clock shows.
        assert!(value("process_start_time_seconds") > 1.577e9);
    }
}
