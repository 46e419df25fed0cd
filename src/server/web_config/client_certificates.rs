//! Which client certificates are accepted: Go's five policies, and allowed names.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error};
use rustls::{RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::server::web_config::format::ClientAuth;

/// Requests and verifies certificates.
#[derive(Debug)]
struct Verifier {
    is_mandatory: bool,
    /// `None` accepts any certificate if the client has its key.
    trusted: Option<Trusted>,
    allowed_names: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The rules for verifying a certificate.
#[derive(Debug)]
struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    /// `None` if there is no authority, so that certificates cannot be verified.
    chain: Option<Arc<dyn ClientCertVerifier>>,
}

/// The verifier for client certificates; `None` if no certificate is requested.
pub(super) fn verifier(
    policy: ClientAuth,
    authorities: Vec<CertificateDer<'static>>,
    allowed_names: Option<Vec<String>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let (is_mandatory, is_checked) = match policy {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => (false, false),
        ClientAuth::RequireAny => (true, false),
        ClientAuth::VerifyIfGiven => (false, true),
        ClientAuth::RequireAndVerify => (true, true),
    };
    let trusted = is_checked
        .then(|| trusted(authorities, provider))
        .transpose()?;
    Ok(Some(Arc::new(Verifier {
        is_mandatory,
        trusted,
        allowed_names,
        algorithms: provider.signature_verification_algorithms,
    })))
}

fn trusted(
    certificates: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Trusted, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let chain: Option<Arc<dyn ClientCertVerifier>> = if roots.is_empty() {
        None
    } else {
        let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        Some(builder.build().map_err(|error| error.to_string())?)
    };
    Ok(Trusted {
        certificates,
        chain,
    })
}

impl Trusted {
    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // A certificate that is itself in the file is trusted, as in Go. webpki would reject most
        // self-signed ones, because they are marked as authorities.
        if self.certificates.iter().any(|known| known == end_entity) {
            return is_usable(&parsed(end_entity)?, now);
        }
        match &self.chain {
            Some(chain) => chain
                .verify_client_cert(end_entity, intermediates, now)
                .map(|_verified| ()),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        let chain = self
            .trusted
            .as_ref()
            .and_then(|trusted| trusted.chain.as_ref());
        chain.map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.check(end_entity, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed_names
            && !names(&parsed(end_entity)?)
                .iter()
                .any(|name| allowed.contains(name))
        {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

/// Whether a trusted certificate is within its validity period and may identify a client.
fn is_usable(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let purposes = certificate.extended_key_usage();
    let purposes = purposes.map_err(|_error| Error::from(CertificateError::BadEncoding))?;
    match purposes {
        Some(purposes) if !purposes.value.any && !purposes.value.client_auth => {
            Err(CertificateError::InvalidPurpose.into())
        }
        _ => Ok(()),
    }
}

/// The subject alternative names as text: DNS names, mail addresses, IP addresses and URIs.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        GeneralName::IPAddress(bytes) => ip_address(bytes).map(|address| address.to_string()),
        GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => None,
    };
    names.value.general_names.iter().filter_map(text).collect()
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn verifier(
        policy: ClientAuth,
        known: &CertificateDer<'static>,
        names: Option<&str>,
    ) -> Arc<dyn ClientCertVerifier> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let names = names.map(|name| vec!["other".to_owned(), name.to_owned()]);
        let verifier = super::verifier(policy, vec![known.clone()], names, &provider);
        verifier.unwrap().unwrap()
    }

    fn is_accepted(
        verifier: &dyn ClientCertVerifier,
        certificate: &CertificateDer<'_>,
        year: u64,
    ) -> bool {
        let now = Duration::from_secs((year - 1970) * 31_557_600 + 86_400 * 100);
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_client_cert(certificate, &[], now).is_ok()
    }

    #[test]
    fn each_kind_of_name_is_compared_as_a_whole() {
        let certificate = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("prometheus.example.com".try_into().unwrap()),
                SanType::DnsName("*.wild.example.com".try_into().unwrap()),
                SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
                SanType::URI("spiffe://example.com/prometheus".try_into().unwrap()),
                SanType::IpAddress([192, 0, 2, 1].into()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
            ];
        });
        for (name, expected) in [
            ("prometheus.example.com", true),
            ("*.wild.example.com", true),
            ("ops@example.com", true),
            ("spiffe://example.com/prometheus", true),
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("a.wild.example.com", false),
            ("example.com", false),
            ("PROMETHEUS.example.com", false),
            ("", false),
        ] {
            let verifier = verifier(ClientAuth::RequireAny, &certificate, Some(name));
            assert_eq!(
                is_accepted(&*verifier, &certificate, 2020),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn a_certificate_in_the_file_must_be_within_its_time_and_for_clients() {
        let plain = certificate(|_| {});
        let server = certificate(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let client = certificate(|params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        for (certificate, year, expected) in [
            (&plain, 2020, true),
            (&plain, 2019, false),
            (&plain, 2021, false),
            (&client, 2020, true),
            (&server, 2020, false),
        ] {
            for policy in [ClientAuth::VerifyIfGiven, ClientAuth::RequireAndVerify] {
                let verifier = verifier(policy, certificate, None);
                assert_eq!(
                    is_accepted(&*verifier, certificate, year),
                    expected,
                    "{year}"
                );
                // Another one of the same kind, which is not in the file.
                let other = self::certificate(|_| {});
                assert!(!is_accepted(&*verifier, &other, year));
            }
            let verifier = verifier(ClientAuth::RequireAny, certificate, None);
            assert!(is_accepted(&*verifier, certificate, year));
        }
    }
}
