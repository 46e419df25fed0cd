//! Chooses format and compression according to the client's headers. Pure.
//!
//! RFC 9110, 12.5, as far as scrapers need it, and Prometheus' addition: `escaping=`.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING};

use crate::exposition::{Encoding, Format};

/// Maximum alternatives of a header that are considered; Prometheus sends four or five.
const ALTERNATIVES_MAX: usize = 32;

/// Escaping schemes for names outside of the old syntax. All of our names fit it and stay unchanged
/// with any scheme; only the scheme's name is repeated.
const ESCAPINGS: [&str; 4] = ["allow-utf-8", "underscores", "dots", "values"];

/// The negotiated response format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The format.
    pub format: Format,
    /// The escaping scheme that the client requested, repeated in the content type.
    pub escaping: Option<&'static str>,
}

impl Chosen {
    /// The value of the `Content-Type` header.
    pub fn content_type(self) -> String {
        let escaping = self.escaping.map(|word| format!("; escaping={word}"));
        format!(
            "{}{}",
            self.format.content_type(),
            escaping.unwrap_or_default()
        )
    }
}

/// The format that the client prefers: by q, then named formats over `*/*`, then OpenMetrics over
/// text. Text 0.0.4 is the fallback for clients that request nothing, or nothing that we support.
pub fn format(headers: &HeaderMap) -> Chosen {
    let mut best: Option<(Rank, Chosen)> = None;
    for alternative in alternatives(headers, &ACCEPT) {
        if let Some((rank, chosen)) = offer(&alternative)
            && best.as_ref().is_none_or(|(known, _)| rank > *known)
        {
            best = Some((rank, chosen));
        }
    }
    best.map_or(
        Chosen {
            format: Format::Text,
            escaping: None,
        },
        |(_, chosen)| chosen,
    )
}

/// Gzip if the client accepts it by name or by wildcard, and does not prefer an unencoded response.
pub fn encoding(headers: &HeaderMap) -> Encoding {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for Alternative { value, q, .. } in alternatives(headers, &ACCEPT_ENCODING) {
        match value.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(q),
            "*" => any = Some(q),
            "identity" => identity = Some(q),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    if gzip > 0 && gzip >= identity.unwrap_or(0) {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

/// The preference for an alternative: its q, whether it is named, and our own order.
type Rank = (u16, bool, bool);

/// One alternative of an `Accept` header.
struct Alternative<'a> {
    value: &'a str,
    parameters: &'a str,
    /// In thousandths; 0 means "not acceptable".
    q: u16,
}

fn offer(alternative: &Alternative<'_>) -> Option<(Rank, Chosen)> {
    let Alternative {
        value,
        parameters,
        q,
    } = alternative;
    if *q == 0 {
        return None;
    }
    let find = |name: &str| {
        let mut pairs = parameters
            .split(';')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(known, _)| known.trim().eq_ignore_ascii_case(name))
            .map(|(_, text)| unquoted(text))
    };
    let (is_named, format) = match value.to_ascii_lowercase().as_str() {
        // 0.0.1 was a draft; a client that accepts only that version cannot get 1.0.0.
        "application/openmetrics-text" if matches!(find("version"), None | Some("1.0.0")) => {
            (true, Format::OpenMetrics)
        }
        // Text 1.0.0 differs only for names that we do not use, so 0.0.4 serves it.
        "text/plain" => (true, Format::Text),
        "text/*" | "*/*" => (false, Format::Text),
        "application/*" => (false, Format::OpenMetrics),
        _ => return None,
    };
    let asked = find("escaping");
    let escaping = ESCAPINGS.into_iter().find(|word| asked == Some(*word));
    Some((
        (*q, is_named, format == Format::OpenMetrics),
        Chosen { format, escaping },
    ))
}

fn alternatives<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = Alternative<'a>> {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let parts = values
        .flat_map(|value| value.split(','))
        .take(ALTERNATIVES_MAX);
    parts.map(|part| {
        let (value, parameters) = part.split_once(';').unwrap_or((part, ""));
        Alternative {
            value: value.trim(),
            parameters,
            q: q(parameters),
        }
    })
}

/// The weight in thousandths, 1000 if there is none; an invalid weight counts as none.
fn q(parameters: &str) -> u16 {
    let given = parameters.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("q")
            .then(|| unquoted(value))
    });
    let weight = given.map_or(Some(1.0), |text| text.parse::<f64>().ok());
    match weight.filter(|weight| (0.0..=1.0).contains(weight)) {
        // The syntax allows three decimal places.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1000"
        )]
        Some(weight) => (weight * 1000.0).round() as u16,
        None => 1000,
    }
}

fn unquoted(text: &str) -> &str {
    text.trim().trim_matches('"')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PROMETHEUS_2_42: &str = "application/openmetrics-text;version=1.0.0,\
        application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_2_53: &str = "application/openmetrics-text;version=1.0.0;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_3_5: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,\
        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    const PROMETHEUS_PROTOBUF: &str = "application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,\
        application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2";
    const VICTORIA_METRICS: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";

    fn headers(name: &http::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_scraper_gets_the_format_that_it_likes_best() {
        let (text, openmetrics) = (
            "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics.content_type(),
        );
        let escaped = format!("{openmetrics}; escaping=allow-utf-8");
        let cases: [(&[&str], &str); 22] = [
            (&[PROMETHEUS_2_42], openmetrics),
            (&[PROMETHEUS_2_53], openmetrics),
            (&[PROMETHEUS_3_5], &escaped),
            (&[PROMETHEUS_PROTOBUF], openmetrics),
            (&[VICTORIA_METRICS], text),
            (&[], text),
            (&[""], text),
            (&["*/*"], text),
            (&["text/*"], text),
            (&["application/*"], openmetrics),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], text),
            (&["application/openmetrics-text"], openmetrics),
            (
                &["APPLICATION/OpenMetrics-Text; Version=1.0.0"],
                openmetrics,
            ),
            (
                &["application/openmetrics-text;version=\"1.0.0\""],
                openmetrics,
            ),
            (&["application/openmetrics-text;version=0.0.1"], text),
            (&["application/openmetrics-text;version=2.0.0"], text),
            (&["application/openmetrics-text;q=0"], text),
            (&["application/openmetrics-text;q=0,text/plain;q=0"], text),
            (&["application/json"], text),
            (&["text/plain", "application/openmetrics-text"], openmetrics),
            (
                &["application/openmetrics-text;q=0.5,text/plain;q=0.50001;version=1.0.0"],
                openmetrics,
            ),
            (&[";;;=,,q=;*;q=nan,\u{e9}", "text/plain;q=2"], text),
        ];
        for (accept, expected) in cases {
            let values: Vec<&str> = accept
                .iter()
                .filter(|value| value.is_ascii())
                .copied()
                .collect();
            assert_eq!(
                format(&headers(&ACCEPT, &values)).content_type(),
                expected,
                "{accept:?}"
            );
        }
    }

    #[test]
    fn an_unknown_escaping_is_not_repeated() {
        let accept = "text/plain;version=1.0.0;escaping=evil\"header";
        assert_eq!(format(&headers(&ACCEPT, &[accept])).escaping, None);
        let accept = "text/plain;version=1.0.0;escaping=underscores";
        assert_eq!(
            format(&headers(&ACCEPT, &[accept])).escaping,
            Some("underscores")
        );
    }

    #[test]
    fn gzip_is_for_whoever_takes_it() {
        let cases: [(&[&str], Encoding); 14] = [
            (&[], Encoding::Identity),
            (&["gzip"], Encoding::Gzip),
            (&["x-gzip"], Encoding::Gzip),
            (&["GZIP"], Encoding::Gzip),
            (&["deflate, gzip;q=1.0, *;q=0.5"], Encoding::Gzip),
            (&["deflate", "gzip"], Encoding::Gzip),
            (&["gzip;q=0"], Encoding::Identity),
            (&["gzip;q=0.0, *"], Encoding::Identity),
            (&["identity"], Encoding::Identity),
            (&["gzip;q=0.5, identity"], Encoding::Identity),
            (&["*"], Encoding::Gzip),
            (&["identity;q=0"], Encoding::Identity),
            (&["br, zstd"], Encoding::Identity),
            (&[""], Encoding::Identity),
        ];
        for (accept, expected) in cases {
            assert_eq!(
                encoding(&headers(&ACCEPT_ENCODING, accept)),
                expected,
                "{accept:?}"
            );
        }
    }
}
