//! Writes single samples of the exposition format: a name, labels, a value. Pure.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>. Labels are escaped in
//! the same way in the text format and in OpenMetrics.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::exposition::format::Format;

/// Collects the samples of one metric family for one key or one account.
pub(super) struct Samples<'a> {
    /// The destination of the lines.
    pub(super) out: &'a mut String,
    /// The family's name.
    pub(super) name: &'static str,
    /// The labels that every sample carries, opened and not closed: `{account="a",key_id="b"`.
    pub(super) labels: &'a str,
    /// The format, for features that only one of them has.
    pub(super) format: Format,
}

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Integer(i64),
    Count(u64),
    /// A number of IPv6 addresses below 2^128.
    Huge(u128),
    /// 2^128.
    AllIpv6,
    /// Seconds since 1970, with a fraction if there is one.
    Time(DateTime<Utc>),
    Seconds(Duration),
}

/// 2^128 in full: readers may round it, the exporter does not.
const ALL_IPV6: &str = "340282366920938463463374607431768211456";

impl Samples<'_> {
    /// Writes a sample without further labels.
    pub(super) fn sample(&mut self, value: Value) {
        self.labelled(&[], value);
    }

    /// Writes a sample with further labels. Names are fixed, values may be any text.
    pub(super) fn labelled(&mut self, labels: &[(&str, &str)], value: Value) {
        self.suffixed("", labels, value);
    }

    /// Writes a sample whose name is the family's with `suffix`.
    pub(super) fn suffixed(&mut self, suffix: &str, labels: &[(&str, &str)], value: Value) {
        self.write(suffix, labels, value);
        self.out.push('\n');
    }

    /// Writes a counter's sample. If the format has exemplars, it carries one for its last
    /// increment: a label of at most 128 characters with its name, and the time of the increment.
    pub(super) fn counted(
        &mut self,
        labels: &[(&str, &str)],
        count: u64,
        exemplar: Option<(&str, &str, DateTime<Utc>)>,
    ) {
        self.write("", labels, Value::Count(count));
        if let (Format::OpenMetrics, Some((name, text, at))) = (self.format, exemplar) {
            self.out.push_str(" # {");
            push_label(self.out, name, text);
            self.out.push_str("} 1 ");
            push_value(self.out, Value::Time(at));
        }
        self.out.push('\n');
    }

    fn write(&mut self, suffix: &str, labels: &[(&str, &str)], value: Value) {
        self.out.push_str(self.name);
        self.out.push_str(suffix);
        self.out.push_str(self.labels);
        for (name, text) in labels {
            self.out.push(',');
            push_label(self.out, name, text);
        }
        self.out.push_str("} ");
        push_value(self.out, value);
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Count(flag.into())
    }
}

/// `name="text"`, escaped.
pub(super) fn push_label(out: &mut String, name: &str, text: &str) {
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'\\', b'"', b'\n', rest.as_bytes()) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let (escaped, len) = match special.as_bytes().first() {
            Some(b'\\') => ("\\\\", 1),
            Some(b'"') => ("\\\"", 1),
            _ => ("\\n", 1),
        };
        out.push_str(escaped);
        rest = special.split_at(len).1;
    }
    out.push_str(rest);
    out.push('"');
}

/// The value's digits.
pub(super) fn push_value(out: &mut String, value: Value) {
    let mut digits = itoa::Buffer::new();
    match value {
        Value::Integer(number) => out.push_str(digits.format(number)),
        Value::Count(number) => out.push_str(digits.format(number)),
        Value::Huge(number) => out.push_str(digits.format(number)),
        Value::AllIpv6 => out.push_str(ALL_IPV6),
        Value::Time(time) => push_time(out, time),
        Value::Seconds(duration) if duration.subsec_nanos() == 0 => {
            out.push_str(digits.format(duration.as_secs()));
        }
        Value::Seconds(duration) => out.push_str(&duration.as_secs_f64().to_string()),
    }
}

fn push_time(out: &mut String, time: DateTime<Utc>) {
    let nanoseconds = time.timestamp_subsec_nanos();
    if nanoseconds == 0 {
        out.push_str(itoa::Buffer::new().format(time.timestamp()));
    } else if time.timestamp() < 0 {
        // Before 1970, seconds and fraction have opposite signs; this path need not be fast.
        out.push_str(&(time.timestamp() as f64 + f64::from(nanoseconds) / 1e9).to_string());
    } else {
        let text = format!("{}.{nanoseconds:09}", time.timestamp());
        out.push_str(text.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = String::new();
        push_label(&mut out, "name", "a\"b\\c\nd {ü}");
        assert_eq!(out, r#"name="a\"b\\c\nd {ü}""#);
    }

    #[test]
    fn values_are_exact() {
        let time = |seconds, nanoseconds| {
            Value::Time(DateTime::from_timestamp(seconds, nanoseconds).unwrap())
        };
        let cases = [
            (Value::Integer(-5), "-5"),
            (Value::Count(u64::MAX), "18446744073709551615"),
            (
                Value::Huge(u128::MAX),
                "340282366920938463463374607431768211455",
            ),
            (Value::AllIpv6, "340282366920938463463374607431768211456"),
            (time(253_402_300_799, 0), "253402300799"),
            (time(1_755_723_396, 456_000_000), "1755723396.456"),
            (time(-2, 500_000_000), "-1.5"),
            (Value::Seconds(Duration::from_secs(300)), "300"),
            (Value::Seconds(Duration::from_millis(5500)), "5.5"),
        ];
        for (value, expected) in cases {
            let mut out = String::new();
            push_value(&mut out, value);
            assert_eq!(out, expected, "{value:?}");
        }
    }
}
