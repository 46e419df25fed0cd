//! Writes the families of a `prometheus` registry in either format. Pure.
//!
//! The crate's own encoder supports only text 0.0.4; a single path for both formats keeps them
//! consistent.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::exposition::format::{Format, Kind};
use crate::exposition::samples::push_label;

/// The families as text, in the given order. None of the exporter's own is a histogram, a summary
/// or untyped.
pub(super) fn text(families: &[MetricFamily], format: Format) -> String {
    let mut out = String::new();
    for family in families {
        let (kind, value): (Kind, fn(&Metric) -> f64) = match family.get_field_type() {
            MetricType::COUNTER => (Kind::Counter, |metric| metric.get_counter().get_value()),
            MetricType::GAUGE => (Kind::Gauge, |metric| metric.get_gauge().get_value()),
            MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => continue,
        };
        out.push_str(&format.header(family.name(), kind, family.help()));
        for metric in family.get_metric() {
            sample(&mut out, family.name(), metric, value(metric));
        }
    }
    out
}

fn sample(out: &mut String, name: &str, metric: &Metric, value: f64) {
    out.push_str(name);
    let mut separator = '{';
    for label in metric.get_label() {
        out.push(separator);
        push_label(out, label.name(), label.value());
        separator = ',';
    }
    if separator == ',' {
        out.push('}');
    }
    out.push(' ');
    // Display writes whole numbers without a fraction or an exponent.
    out.push_str(&value.to_string());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn a_registry_is_written_in_both_formats() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("c_total", "Counts."), &["l"]).unwrap();
        counter.with_label_values(&["a\"b"]).inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        let gauge = Gauge::new("g_seconds", "Takes.").unwrap();
        gauge.set(0.75);
        registry.register(Box::new(gauge)).unwrap();
        let samples = "c_total{l=\"a\\\"b\"} 3\n";
        assert_eq!(
            text(&registry.gather(), Format::Text),
            format!(
                "# HELP c_total Counts.\n# TYPE c_total counter\n{samples}\
                 # HELP g_seconds Takes.\n# TYPE g_seconds gauge\ng_seconds 0.75\n"
            )
        );
        assert_eq!(
            text(&registry.gather(), Format::OpenMetrics),
            format!(
                "# TYPE c counter\n# HELP c Counts.\n{samples}\
                 # TYPE g_seconds gauge\n# UNIT g_seconds seconds\n# HELP g_seconds Takes.\n\
                 g_seconds 0.75\n"
            )
        );
    }
}
