//! The link to the next page in `Link` headers (RFC 8288). Pure.

use http::HeaderMap;
use http::header::LINK;

/// A `Link` header that may have a link to the next page, and cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The target of the first link with `rel="next"`.
pub(super) fn next(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let mut is_malformed = false;
    for value in headers.get_all(LINK) {
        let links = ascii(value.as_bytes());
        match next_of(&links) {
            Ok(Some(next)) => return Ok(Some(next)),
            Ok(None) => {}
            Err(Malformed) => is_malformed |= links.to_ascii_lowercase().contains("next"),
        }
    }
    if is_malformed {
        Err(Malformed)
    } else {
        Ok(None)
    }
}

/// The text with all other bytes percent-encoded, as a URL needs them.
fn ascii(bytes: &[u8]) -> String {
    let texts = bytes.iter().map(|byte| match byte {
        0..=127 => char::from(*byte).to_string(),
        128.. => format!("%{byte:02X}"),
    });
    texts.collect()
}

/// `<target>; name=value; name="value, or two", <target> …`
fn next_of(links: &str) -> Result<Option<String>, Malformed> {
    let mut rest = links;
    loop {
        // Empty elements of a list are allowed.
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Ok(None);
        }
        let link = rest.strip_prefix('<').ok_or(Malformed)?;
        let (target, after) = link.split_once('>').ok_or(Malformed)?;
        let (params, after) = split_unquoted(after, b',')?;
        if is_next(params)? {
            return Ok(Some(target.trim().to_owned()));
        }
        rest = after;
    }
}

fn is_next(params: &str) -> Result<bool, Malformed> {
    let mut rest = params;
    while !rest.is_empty() {
        let (param, after) = split_unquoted(rest, b';')?;
        rest = after;
        if let Some((name, value)) = param.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            // Some servers use single quotes.
            let value = value.trim().trim_matches(['"', '\'']);
            let mut relations = value.split_ascii_whitespace();
            return Ok(relations.any(|relation| relation.eq_ignore_ascii_case("next")));
        }
    }
    Ok(false)
}

/// The text before the first separator outside quotes, and the text after it.
fn split_unquoted(text: &str, separator: u8) -> Result<(&str, &str), Malformed> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if byte == separator && !is_quoted => {
                let (before, after) = text.split_at(at);
                return Ok((before, after.get(1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    if is_quoted {
        Err(Malformed)
    } else {
        Ok((text, ""))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let values = values.iter();
        let values = values.map(|value| (LINK, HeaderValue::from_bytes(value).unwrap()));
        let mut headers = HeaderMap::new();
        headers.extend(values.map(|(name, value)| (Some(name), value)));
        headers
    }

    #[test]
    fn the_next_page_is_found_among_links_of_all_kinds() {
        for (header, expected) in [
            (
                "<https://a/?page=2>; rel=\"next\"",
                Ok(Some("https://a/?page=2")),
            ),
            ("</a>; rel=first, </b>; REL=\"last next\"", Ok(Some("/b"))),
            (
                "</a,b;c>; title=\"x, y; rel=next\"; rel=\"prev\", </d>;rel=next",
                Ok(Some("/d")),
            ),
            ("</a>; title=\"\\\"\"; rel=\"next\"", Ok(Some("/a"))),
            ("</a>; rel='next'", Ok(Some("/a"))),
            (" , </a>; rel=self,, </b>; rel = next ,", Ok(Some("/b"))),
            (
                "</k?owner=J\u{f6}rg&page=2>; rel=next",
                Ok(Some("/k?owner=J%C3%B6rg&page=2")),
            ),
            ("</a>; title=\"\u{e9}\"; rel=next", Ok(Some("/a"))),
            ("</a>; rel=\"prev\"", Ok(None)),
            ("</a>; rev=\"next\"", Ok(None)),
            ("</next>", Ok(None)),
            ("", Ok(None)),
            ("/a; rel=next", Err(Malformed)),
            ("<a; rel=next", Err(Malformed)),
            ("</a>; rel=\"next", Err(Malformed)),
            ("</a>; rel=prev, /b; rel=next", Err(Malformed)),
            ("nonsense", Ok(None)),
        ] {
            let found = next(&headers(&[header.as_bytes()]));
            let expected = expected.map(|target| target.map(str::to_owned));
            assert_eq!(found, expected, "{header}");
        }
    }

    #[test]
    fn all_headers_and_all_bytes_count() {
        let found = next(&headers(&[b"</a>; rel=self", b"</b?\xff>; rel=next"]));
        assert_eq!(found, Ok(Some("/b?%FF".to_owned())));
        let found = next(&headers(&[b"rel=next </a>", b"</b>; rel=next"]));
        assert_eq!(found, Ok(Some("/b".to_owned())));
        let found = next(&headers(&[b"</a>; rel=self", b"\xe9 rel=next"]));
        assert_eq!(found, Err(Malformed));
    }
}
