//! Whether a request is well-formed, and whether a page of another site sent it. Pure.

use std::net::Ipv6Addr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Uri, Version};
use url::Url;

/// Whether the request has the required `Host` header (RFC 9112, 3.2) and a valid target.
pub(super) fn is_valid(version: Version, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    let is_needed = version == Version::HTTP_11;
    let is_host_valid = host.map_or(!is_needed, is_valid_host) && hosts.next().is_none();
    is_host_valid && is_valid_target(uri)
}

/// An empty one is valid: the target has no authority.
fn is_valid_host(value: &HeaderValue) -> bool {
    let host = value.as_bytes();
    host.is_empty() || std::str::from_utf8(host).is_ok_and(is_authority)
}

/// Proxies request absolute URLs; `http` accepts some that are not valid.
fn is_valid_target(uri: &Uri) -> bool {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) => true,
        (Some("http" | "https"), Some(authority)) => is_authority(authority.as_str()),
        _ => false,
    }
}

/// A host with an optional port, without a user.
fn is_authority(text: &str) -> bool {
    host_and_port("http", text).is_some()
}

/// Whether a page of another site sent the request. Browsers send headers that name the site, other
/// clients do not. `external` is the URL of the exporter behind a proxy.
pub(super) fn is_cross_site(uri: &Uri, headers: &HeaderMap, external: Option<&Url>) -> bool {
    let sites = headers.get_all("sec-fetch-site");
    let is_own_site = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    if !sites.iter().all(is_own_site) {
        return true;
    }
    let is_own_origin = |origin: &HeaderValue| {
        let origin = origin.to_str().ok()?;
        let (scheme, rest) = origin.split_once("://")?;
        let origin = host_and_port(scheme, rest)?;
        let authority = uri.authority().map(http::uri::Authority::as_str);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let own = authority
            .or(host)
            .and_then(|own| host_and_port(scheme, own));
        let external = external
            .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default())));
        Some(own.as_ref() == Some(&origin) || external.as_ref() == Some(&origin))
    };
    let mut origins = headers.get_all(ORIGIN).iter();
    !origins.all(|origin| is_own_origin(origin) == Some(true))
}

/// The host in lower case, and the port or the scheme's default (RFC 3986, 3.2.2 and 3.2.3);
/// `None` if there is more than a host and a port. Not a [`Url`], which rejects valid names that
/// end like an IPv4 address, such as the `exporter.1` of a Docker Swarm task.
fn host_and_port(scheme: &str, authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // Not a colon within an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        Some(_) | None => (authority, ""),
    };
    let is_host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    let port = match (port, scheme) {
        ("", "http") => Some(80),
        ("", "https") => Some(443),
        ("", _) => None,
        (port, _) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        _ => return None,
    };
    is_host.then(|| (host.to_ascii_lowercase(), port))
}

/// A non-empty `reg-name` of RFC 3986, which includes IPv4 addresses.
fn is_name(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    let is_escape = |text: &[u8]| text.len() == 2 && text.iter().all(u8::is_ascii_hexdigit);
    let mut after_percent = host.split('%').skip(1);
    !host.is_empty()
        && host.bytes().all(|byte| byte == b'%' || is_plain(byte))
        && after_percent.all(|rest| rest.as_bytes().get(..2).is_some_and(is_escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_request_has_one_host_and_a_target_that_means_something() {
        let eleven = Version::HTTP_11;
        for (version, target, hosts, expected) in [
            (eleven, "/", &["a"][..], true),
            (eleven, "/", &["a:80"], true),
            (eleven, "/", &["[::1]:80"], true),
            (eleven, "/", &["[2001:DB8::1]"], true),
            (eleven, "/", &["exporter.1:10120"], true),
            (eleven, "/", &["256.1.1.1"], true),
            (eleven, "/", &["xn--a"], true),
            (eleven, "/", &["stack_exporter.1.x7~(a)%41"], true),
            (eleven, "/", &["a:"], true),
            (eleven, "/", &[":80"], false),
            (eleven, "/", &["a%4"], false),
            (eleven, "/", &["a%zz"], false),
            (eleven, "/", &["a<b"], false),
            (eleven, "/", &["a\\b"], false),
            (eleven, "/", &["a:+80"], false),
            (eleven, "/", &["::1"], false),
            (eleven, "/", &["[::1"], false),
            (eleven, "/", &["[::1]x"], false),
            (eleven, "/", &["[1.2.3.4]"], false),
            (eleven, "/", &[""], true),
            (eleven, "/", &[], false),
            (eleven, "/", &["a", "a"], false),
            (eleven, "/", &["a", "b"], false),
            (eleven, "/", &["a b"], false),
            (eleven, "/", &["a/b"], false),
            (eleven, "/", &["u@a"], false),
            (eleven, "/", &["a:port"], false),
            (eleven, "/", &["a:99999"], false),
            (eleven, "/", &["[::::]"], false),
            (eleven, "http://a/", &["a"], true),
            (eleven, "http://a:1/", &["b"], true),
            (eleven, "http://exporter.1/metrics", &["b"], true),
            (eleven, "http://[::::]/", &["a"], false),
            (eleven, "http://u:p@a/", &["a"], false),
            (eleven, "http://a:99999/", &["a"], false),
            (eleven, "ftp://a/", &["a"], false),
            (eleven, "a:443", &["a"], false),
            (eleven, "*", &["a"], true),
            (Version::HTTP_10, "/", &[], true),
            (Version::HTTP_10, "/", &["a", "a"], false),
            (Version::HTTP_2, "https://a/", &[], true),
        ] {
            let pairs: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let uri: Uri = match target.parse() {
                Ok(uri) => uri,
                // hyper rejects it first.
                Err(_) if !expected => continue,
                Err(error) => panic!("{target}: {error}"),
            };
            let is_valid = is_valid(version, &uri, &headers(&pairs));
            assert_eq!(is_valid, expected, "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn an_authority_has_a_host_and_a_port() {
        for (scheme, authority, expected) in [
            ("http", "Own.1", Some(("own.1", Some(80)))),
            ("https", "own:", Some(("own", Some(443)))),
            ("https", "[::A]:80", Some(("[::a]", Some(80)))),
            ("moz-extension", "own", Some(("own", None))),
            ("http", "own:65536", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(scheme, authority), expected, "{authority}");
        }
    }

    #[test]
    fn only_browsers_on_another_site_are_cross_site() {
        let external = Url::parse("https://keys.example.com/exporter/").unwrap();
        for (pairs, expected) in [
            (&[][..], false),
            (&[("origin", "http://own:1")], false),
            (&[("origin", "http://OWN:1")], false),
            (&[("origin", "https://keys.example.com")], false),
            (&[("origin", "https://keys.example.com:443")], false),
            (&[("origin", "http://keys.example.com")], true),
            (&[("origin", "http://own")], true),
            (&[("origin", "http://own:2")], true),
            (&[("origin", "http://own.evil:1")], true),
            (&[("origin", "http://evil@own:1/")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
            (
                &[("origin", "http://own:1"), ("origin", "http://evil")],
                true,
            ),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "nonsense")], true),
            (
                &[("sec-fetch-site", "cross-site"), ("origin", "http://own:1")],
                true,
            ),
        ] {
            let mut headers = headers(pairs);
            headers.insert(HOST, "own:1".parse().unwrap());
            let uri = Uri::from_static("/-/reload");
            let is_cross_site = is_cross_site(&uri, &headers, Some(&external));
            assert_eq!(is_cross_site, expected, "{pairs:?}");
        }
        // A proxy that sends absolute URLs.
        let uri = Uri::from_static("http://own:1/-/reload");
        let origin = headers(&[("origin", "http://own:1"), ("host", "other")]);
        assert!(!is_cross_site(&uri, &origin, None));
    }
}
