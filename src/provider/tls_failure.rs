//! The messages for failed TLS handshakes: cause and remedy. Pure.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "most failures have no remedy of their own, and later versions add more"
)]

use std::error::Error as StdError;

use chrono::DateTime;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Most names of a certificate that a message lists. A line of the log has no room for more.
const NAMES_MAX: usize = 4;

/// rustls reports errors inside an `io::Error`, which is inside another one; their `source` skips
/// the wrapped error.
pub(super) fn error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let io = cause.downcast_ref::<std::io::Error>();
    match io.and_then(std::io::Error::get_ref) {
        Some(wrapped) => error(wrapped),
        None => cause.downcast_ref(),
    }
}

/// The cause of a failed handshake, and the remedy. Contains names from the server's certificate,
/// so it has to be cleaned.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => of_certificate(problem),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(problem) => of_incompatible(problem),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS on this port: is it the port for plain HTTP?".to_owned()
        }
        _ => format!("the TLS handshake failed: {error}"),
    }
}

/// What an operator can do about the server's certificate.
fn of_certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired => {
            "the server's certificate has expired: renew it; is this machine's clock right?"
                .to_owned()
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the server's certificate expired on {}: renew it; is this machine's clock right? \
             It says {}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYet => {
            "the server's certificate is not valid yet: is this machine's clock right?".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the server's certificate is not valid before {}: is this machine's clock right? \
             It says {}",
            date(*not_before),
            date(*time)
        ),
        CertificateError::UnknownIssuer => {
            "the issuer of the server's certificate is not trusted (UnknownIssuer): \
             accounts.ca_file names a private authority; or the server sends no intermediate \
             certificate"
                .to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => of_names(&expected.to_str(), presented),
        CertificateError::BadSignature => {
            "the signature of the server's certificate is wrong (BadSignature): does \
             accounts.ca_file hold an older authority of the same name?"
                .to_owned()
        }
        CertificateError::BadEncoding => {
            "the server's certificate is malformed (BadEncoding): issue a new one".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers (InvalidPurpose): issue one with the \
             extended key usage serverAuth"
                .to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate has an unsupported signature or key, such as SHA-1: issue \
             one with SHA-256 and an RSA key of at least 2048 bits, or ECDSA"
                .to_owned()
        }
        CertificateError::Other(other) => of_chain(&other.to_string()),
        // Its deprecated variant cannot be named.
        _ => format!("the server's certificate is not acceptable: {problem}"),
    }
}

/// Problems that rustls takes from its certificate validator, by their names there.
fn of_chain(name: &str) -> String {
    match name {
        "CaUsedAsEndEntity" => {
            "the server presents a CA certificate as its own (CaUsedAsEndEntity): issue a server \
             certificate, or a self-signed one with basicConstraints CA:FALSE"
        }
        "EndEntityUsedAsCa" => {
            "the server's certificate is signed by one that is not a CA (EndEntityUsedAsCa): issue \
             it with a CA certificate, basicConstraints CA:TRUE"
        }
        "NameConstraintViolation" => {
            "the certificate's authority must not issue for this name (NameConstraintViolation): \
             issue it with another authority"
        }
        "UnsupportedCertVersion" => {
            "the server's certificate is not X.509 version 3 (UnsupportedCertVersion): issue one \
             with a subjectAltName"
        }
        _ => return format!("the server's certificate is not acceptable: {name}"),
    }
    .to_owned()
}

/// The names that the certificate has, after the remedy: a long line is truncated.
fn of_names(expected: &str, presented: &[String]) -> String {
    if presented.is_empty() {
        return format!(
            "the server's certificate has no subjectAltName, and its common name does not count: \
             issue one with the subjectAltName {expected}"
        );
    }
    let shown = presented.iter().take(NAMES_MAX).map(|name| bare(name));
    let mut names = shown.collect::<Vec<_>>().join(", ");
    let more = presented.len().saturating_sub(NAMES_MAX);
    if more > 0 {
        names = format!("{names} and {more} more");
    }
    format!(
        "the server's certificate is not valid for {expected}: correct base_url or issue one with \
         that name; it is for {names}"
    )
}

/// A name without its kind: `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, inner)| inner);
    inner.trim_end_matches(')').trim_matches('"')
}

/// Why the server ended the handshake.
fn of_alert(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::ProtocolVersion => "the server supports neither TLS 1.2 nor TLS 1.3",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "the server accepts no cipher suite of the exporter (TLS 1.3, or TLS 1.2 with ECDHE and \
             AES-GCM or ChaCha20), or requires a client certificate"
        }
        AlertDescription::CertificateRequired
        | AlertDescription::NoCertificate
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "the server requires a client certificate, which the exporter does not have: use a \
             base_url without one, such as a proxy that adds it"
        }
        AlertDescription::UnrecognisedName => {
            "the server has no certificate for this name: correct base_url"
        }
        AlertDescription::NoApplicationProtocol => "the server does not offer HTTP/1.1",
        AlertDescription::InternalError => "the server failed during the handshake; see its log",
        _ => "the server rejected the TLS handshake",
    };
    format!("{why} (alert {alert:?})")
}

/// Why the server's offer cannot be accepted.
fn of_incompatible(problem: &PeerIncompatible) -> String {
    let why = match problem {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => {
            "the server supports neither TLS 1.2 nor TLS 1.3"
        }
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoEcPointFormatsInCommon => {
            "the server and the exporter have no cipher suite or key exchange in common"
        }
        _ => "the server's TLS is not compatible",
    };
    format!("{why} ({problem:?})")
}

/// A time of a certificate, to the minute.
fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let date = DateTime::from_timestamp(seconds, 0);
    date.map_or_else(
        || "a date beyond the calendar".to_owned(),
        |date| date.format("%Y-%m-%d %H:%M UTC").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::pki_types::ServerName;
    use rustls::{OtherError, PeerMisbehaved};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Validator(&'static str);

    fn named(names: &[&str]) -> Error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("keys.example.com").unwrap(),
            presented: names.iter().map(ToString::to_string).collect(),
        })
    }

    fn of(problem: CertificateError) -> Error {
        Error::InvalidCertificate(problem)
    }

    type Case = (Error, &'static [&'static str]);

    fn assert_words(cases: &[Case]) {
        for (error, expected) in cases {
            let words = words(error);
            for part in *expected {
                assert!(words.contains(part), "{part:?} is not in {words:?}");
            }
            assert!(words.len() < 240, "too long for a line: {words}");
        }
    }

    #[test]
    fn each_problem_of_a_certificate_names_its_cause_and_its_remedy() {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let other = |name| {
            of(CertificateError::Other(OtherError(Arc::new(Validator(
                name,
            )))))
        };
        let cases: &[Case] = &[
            (of(CertificateError::Expired), &["expired", "clock"]),
            (
                of(CertificateError::ExpiredContext {
                    time: time(1_780_172_596),
                    not_after: time(1_609_459_200),
                }),
                &[
                    "expired on 2021-01-01 00:00 UTC",
                    "clock",
                    "2026-05-30 20:23",
                ],
            ),
            (
                of(CertificateError::NotValidYet),
                &["not valid yet", "clock"],
            ),
            (
                of(CertificateError::NotValidYetContext {
                    time: time(0),
                    not_before: time(1_609_459_200),
                }),
                &["not valid before 2021-01-01", "clock", "1970-01-01"],
            ),
            (
                of(CertificateError::NotValidYetContext {
                    time: time(0),
                    not_before: time(u64::MAX),
                }),
                &["beyond the calendar"],
            ),
            (
                of(CertificateError::UnknownIssuer),
                &["UnknownIssuer", "ca_file", "intermediate"],
            ),
            (
                of(CertificateError::BadSignature),
                &["BadSignature", "ca_file"],
            ),
            (
                of(CertificateError::BadEncoding),
                &["malformed", "issue a new one"],
            ),
            (of(CertificateError::InvalidPurpose), &["serverAuth"]),
            (
                of(CertificateError::UnsupportedSignatureAlgorithmContext {
                    signature_algorithm_id: Vec::new(),
                    supported_algorithms: Vec::new(),
                }),
                &["SHA-1", "SHA-256"],
            ),
            (
                of(CertificateError::Revoked),
                &["not acceptable", "Revoked"],
            ),
            (
                other("CaUsedAsEndEntity"),
                &["CA certificate as its own", "issue a server", "CA:FALSE"],
            ),
            (other("EndEntityUsedAsCa"), &["not a CA", "CA:TRUE"]),
            (
                other("NameConstraintViolation"),
                &["must not issue", "another authority"],
            ),
            (other("UnsupportedCertVersion"), &["version 3", "issue one"]),
            (
                other("PathLenConstraintViolated"),
                &["not acceptable: PathLenConstraintViolated"],
            ),
        ];
        assert_words(cases);
    }

    #[test]
    fn each_other_failure_names_its_cause_and_its_remedy() {
        let alert = Error::AlertReceived;
        let cases: &[Case] = &[
            (
                named(&[]),
                &[
                    "no subjectAltName",
                    "issue one with the subjectAltName keys.example.com",
                ],
            ),
            (
                named(&["DnsName(\"a.example\")", "IpAddress(10.0.0.1)"]),
                &[
                    "not valid for keys.example.com",
                    "base_url",
                    "it is for a.example, 10.0.0.1",
                ],
            ),
            (
                named(&["DnsName(\"a\")"; 7]),
                &["it is for a, a, a, a and 3 more"],
            ),
            (
                alert(AlertDescription::ProtocolVersion),
                &["neither TLS 1.2", "ProtocolVersion"],
            ),
            (
                alert(AlertDescription::HandshakeFailure),
                &["cipher suite", "client certificate"],
            ),
            (
                alert(AlertDescription::CertificateRequired),
                &["client certificate", "proxy"],
            ),
            (
                alert(AlertDescription::BadCertificate),
                &["client certificate"],
            ),
            (
                alert(AlertDescription::UnrecognisedName),
                &["no certificate for this name"],
            ),
            (alert(AlertDescription::Unknown(200)), &["rejected", "0xc8"]),
            (
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
                &["neither TLS 1.2", "ServerDoesNotSupportTls12Or13"],
            ),
            (
                Error::InvalidMessage(InvalidMessage::InvalidContentType),
                &["does not speak TLS on this port", "plain HTTP"],
            ),
            (
                Error::PeerMisbehaved(PeerMisbehaved::TooMuchEarlyDataReceived),
                &["handshake failed", "TooMuchEarlyData"],
            ),
        ];
        assert_words(cases);
    }
}
