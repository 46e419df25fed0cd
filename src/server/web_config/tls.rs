//! Builds a TLS server from `tls_server_config` and the certificates and key that it names.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use secrecy::{ExposeSecret, SecretString};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::os::clock::TlsClock;
use crate::os::files::Content;
use crate::server::web_config::client_certificates;
use crate::server::web_config::format::{Curve, TlsServer, Versions};

/// Maximum certificates per file; operating systems ship a few hundred authorities.
const CERTIFICATES_MAX: usize = 10_000;

/// The ALPN protocol of HTTP/2.
pub(super) const H2: &[u8] = b"h2";

/// The content of a certificate or key file; wiped from memory when dropped.
pub(super) enum Material {
    File(Arc<Content>),
    Inline(SecretString),
}

/// The files that `tls_server_config` names.
pub(super) struct Named {
    pub(super) cert: Option<Material>,
    pub(super) key: Option<Material>,
    pub(super) client_ca: Option<Material>,
}

/// The bytes of the files that were found; empty for others.
pub(super) fn bytes(material: Option<&Material>) -> &[u8] {
    match material {
        None => &[],
        Some(Material::File(content)) => content,
        Some(Material::Inline(text)) => text.expose_secret().as_bytes(),
    }
}

/// The TLS server. Certificates are checked as of `now`. The error never contains the key.
pub(super) fn server(
    config: &TlsServer,
    named: &Named,
    http2: bool,
    now: fn() -> DateTime<Utc>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(provider(config));
    let authorities = if named.client_ca.is_some() {
        certificates(bytes(named.client_ca.as_ref()), "client_ca")?
    } else {
        Vec::new()
    };
    let verifier = client_certificates::verifier(
        config.client_auth,
        authorities,
        config.client_allowed_sans.clone(),
        &provider,
    )?;
    let identity = identity(named)?;
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(TlsClock(now)))
        .with_protocol_versions(&versions(config, &provider))
        .map_err(|error| format!("cannot be used: {error}"))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let identity = SingleCertAndKey::from(identity);
    let mut server = builder.with_cert_resolver(Arc::new(identity));
    server.ignore_client_order = config.prefer_server_cipher_suites;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    if http2 {
        server.alpn_protocols.insert(0, H2.to_vec());
    }
    // A resumed session would not present its certificate again, which may no longer be accepted.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

fn provider(config: &TlsServer) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !config.cipher_suites.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        // As in Go, the list applies to TLS 1.2; the suites of 1.3 are all secure.
        let is_13 = |suite: &&SupportedCipherSuite| suite.tls13().is_some();
        let mut suites: Vec<_> = all.iter().filter(is_13).copied().collect();
        for name in &config.cipher_suites {
            let is_named = |suite: &&SupportedCipherSuite| suite.suite().as_str() == Some(name);
            suites.extend(all.iter().find(is_named).copied());
        }
        provider.cipher_suites = suites;
    }
    if !config.curves.is_empty() {
        provider.kx_groups = config.curves.iter().map(|curve| group(*curve)).collect();
    }
    provider
}

fn group(curve: Curve) -> &'static dyn SupportedKxGroup {
    match curve {
        Curve::P256 => ring::kx_group::SECP256R1,
        Curve::P384 => ring::kx_group::SECP384R1,
        Curve::X25519 => ring::kx_group::X25519,
    }
}

fn versions(
    config: &TlsServer,
    provider: &CryptoProvider,
) -> Vec<&'static SupportedProtocolVersion> {
    let has_12 = provider
        .cipher_suites
        .iter()
        .any(|suite| suite.tls13().is_none());
    match config.versions {
        Versions::Tls12 => vec![&TLS12],
        Versions::Both if has_12 => vec![&TLS13, &TLS12],
        Versions::Both | Versions::Tls13 => vec![&TLS13],
    }
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(CERTIFICATES_MAX)
        .collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(format!("{name} contains no PEM certificate"))
        }
        Ok(certificates) => Ok(certificates),
        // The parser's own message may repeat the content.
        Err(_) => Err(format!(
            "{name} contains a certificate that is not valid PEM"
        )),
    }
}

fn identity(named: &Named) -> Result<CertifiedKey, String> {
    let chain = certificates(bytes(named.cert.as_ref()), "cert")?;
    let key = PrivateKeyDer::from_pem_slice(bytes(named.key.as_ref()))
        .map_err(|_error| "key holds no private key in PEM without a password".to_owned())?;
    let key = ring::sign::any_supported_type(&key).map_err(|_error| {
        "key is of a kind that is not supported; use RSA, ECDSA or Ed25519".to_owned()
    })?;
    let unreadable = || "cert holds something that is not a certificate".to_owned();
    let first = chain.first().ok_or_else(unreadable)?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|_error| unreadable())?;
    let is_pair = key
        .public_key()
        .is_none_or(|public| *public == *certificate.public_key().raw);
    if !is_pair {
        return Err("cert and key do not belong together".to_owned());
    }
    Ok(CertifiedKey::new(chain, key))
}
