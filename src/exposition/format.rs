//! The two formats of the exposition, and the difference between them: the lines about a family.
//! Pure.
//!
//! Text 0.0.4: <https://prometheus.io/docs/instrumenting/exposition_formats/>. OpenMetrics 1.0:
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>.

/// A format that a scraper may request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// The type in OpenMetrics; the text format has no `info` and uses gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Info,
    Histogram,
}

/// Units used as suffixes of metric names. OpenMetrics requires them to be declared, and only if
/// the name ends in the unit.
const UNITS: [&str; 2] = ["seconds", "bytes"];

impl Format {
    /// Both, in the order of their numbers.
    pub(super) const ALL: [Self; 2] = [Self::Text, Self::OpenMetrics];

    /// The value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The end of the exposition.
    pub(super) fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }

    /// The lines before a family's samples. `name` is that of the samples, without the suffixes of
    /// a histogram; `help` contains no characters that need escaping.
    pub(super) fn header(self, name: &str, kind: Kind, help: &str) -> String {
        let word = match (self, kind) {
            (Self::Text, Kind::Gauge | Kind::Info) | (Self::OpenMetrics, Kind::Gauge) => "gauge",
            (_, Kind::Counter) => "counter",
            (_, Kind::Histogram) => "histogram",
            (Self::OpenMetrics, Kind::Info) => "info",
        };
        if self == Self::Text {
            return format!("# HELP {name} {help}\n# TYPE {name} {word}\n");
        }
        // OpenMetrics names the family without the suffix of its samples' names.
        let suffix = match kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let family = name.strip_suffix(suffix).unwrap_or(name);
        let is_unit = |unit: &&&str| {
            family
                .strip_suffix(**unit)
                .is_some_and(|rest| rest.ends_with('_'))
        };
        let unit = UNITS
            .iter()
            .find(is_unit)
            .map(|unit| format!("# UNIT {family} {unit}\n"));
        format!(
            "# TYPE {family} {word}\n{}# HELP {family} {help}\n",
            unit.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_introduced_as_each_format_wants() {
        let cases = [
            (
                Format::Text,
                "a_info",
                Kind::Info,
                "# HELP a_info H.\n# TYPE a_info gauge\n",
            ),
            (
                Format::Text,
                "a_total",
                Kind::Counter,
                "# HELP a_total H.\n# TYPE a_total counter\n",
            ),
            (
                Format::OpenMetrics,
                "a_info",
                Kind::Info,
                "# TYPE a info\n# HELP a H.\n",
            ),
            (
                Format::OpenMetrics,
                "a_total",
                Kind::Counter,
                "# TYPE a counter\n# HELP a H.\n",
            ),
            (
                Format::OpenMetrics,
                "a_seconds_total",
                Kind::Counter,
                "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds H.\n",
            ),
            (
                Format::OpenMetrics,
                "a_bytes",
                Kind::Gauge,
                "# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes H.\n",
            ),
            (
                Format::OpenMetrics,
                "aseconds",
                Kind::Gauge,
                "# TYPE aseconds gauge\n# HELP aseconds H.\n",
            ),
        ];
        for (format, name, kind, expected) in cases {
            assert_eq!(
                format.header(name, kind, "H."),
                expected,
                "{format:?} {name}"
            );
        }
    }
}
