//! Writes the families of a `prometheus` registry in either format. Pure.
//!
//! The crate's own encoder supports only text 0.0.4; a single path for both formats keeps them
//! consistent.

use prometheus::proto::{Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::exposition::format::{Format, Kind};
use crate::exposition::samples::push_label;

/// The families as text, in the given order.
pub(super) fn text(families: &[MetricFamily], format: Format) -> String {
    let mut out = String::new();
    for family in families {
        let Some(kind) = kind(family.get_field_type()) else {
            continue;
        };
        out.push_str(&format.header(family.name(), kind, family.help()));
        for metric in family.get_metric() {
            match kind {
                Kind::Histogram => histogram(&mut out, family.name(), metric),
                Kind::Counter => {
                    let value = metric.get_counter().get_value();
                    sample(&mut out, family.name(), metric.get_label(), None, value);
                }
                Kind::Gauge | Kind::Info => {
                    let value = metric.get_gauge().get_value();
                    sample(&mut out, family.name(), metric.get_label(), None, value);
                }
            }
        }
    }
    out
}

/// None of the exporter's metrics is a summary or untyped.
fn kind(of: MetricType) -> Option<Kind> {
    match of {
        MetricType::COUNTER => Some(Kind::Counter),
        MetricType::GAUGE => Some(Kind::Gauge),
        MetricType::HISTOGRAM => Some(Kind::Histogram),
        MetricType::SUMMARY | MetricType::UNTYPED => None,
    }
}

fn histogram(out: &mut String, name: &str, metric: &Metric) {
    let (labels, histogram): (&[LabelPair], &Histogram) =
        (metric.get_label(), metric.get_histogram());
    for bucket in histogram
        .get_bucket()
        .iter()
        .filter(|bucket| bucket.upper_bound().is_finite())
    {
        // Debug writes 1 as 1.0, which OpenMetrics requires here and all other parsers accept.
        let bound = format!("{:?}", bucket.upper_bound());
        let count = bucket.cumulative_count() as f64;
        sample(out, &format!("{name}_bucket"), labels, Some(&bound), count);
    }
    let count = histogram.get_sample_count() as f64;
    sample(out, &format!("{name}_bucket"), labels, Some("+Inf"), count);
    sample(
        out,
        &format!("{name}_sum"),
        labels,
        None,
        histogram.get_sample_sum(),
    );
    sample(out, &format!("{name}_count"), labels, None, count);
}

fn sample(out: &mut String, name: &str, labels: &[LabelPair], bound: Option<&str>, value: f64) {
    out.push_str(name);
    let labels = labels.iter().map(|label| (label.name(), label.value()));
    let mut separator = '{';
    for (label, text) in labels.chain(bound.map(|bound| ("le", bound))) {
        out.push(separator);
        push_label(out, label, text);
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
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    #[test]
    fn a_registry_is_written_in_both_formats() {
        let registry = Registry::new();
        let counter = IntCounterVec::new(Opts::new("c_total", "Counts."), &["l"]).unwrap();
        counter.with_label_values(&["a\"b"]).inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        let histogram = HistogramOpts::new("h_seconds", "Takes.").buckets(vec![0.5, 1.0]);
        let histogram = HistogramVec::new(histogram, &["l"]).unwrap();
        histogram.with_label_values(&["x"]).observe(0.75);
        registry.register(Box::new(histogram)).unwrap();
        let samples = "c_total{l=\"a\\\"b\"} 3\n";
        let buckets = "h_seconds_bucket{l=\"x\",le=\"0.5\"} 0\nh_seconds_bucket{l=\"x\",le=\"1.0\"} 1\n\
                       h_seconds_bucket{l=\"x\",le=\"+Inf\"} 1\nh_seconds_sum{l=\"x\"} 0.75\n\
                       h_seconds_count{l=\"x\"} 1\n";
        assert_eq!(
            text(&registry.gather(), Format::Text),
            format!(
                "# HELP c_total Counts.\n# TYPE c_total counter\n{samples}\
                 # HELP h_seconds Takes.\n# TYPE h_seconds histogram\n{buckets}"
            )
        );
        assert_eq!(
            text(&registry.gather(), Format::OpenMetrics),
            format!(
                "# TYPE c counter\n# HELP c Counts.\n{samples}\
                 # TYPE h_seconds histogram\n# UNIT h_seconds seconds\n# HELP h_seconds Takes.\n{buckets}"
            )
        );
    }
}
