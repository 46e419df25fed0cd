//! Which certificate authorities are trusted, and which clock validates certificates. All accounts
//! that trust the same authorities share one configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::load_native_certs;
use tokio::time::Instant;

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::{Line, chain};
use crate::os::clock::TlsClock;
use crate::os::files::{self, FileError};
use crate::os::rlimits::is_lack_of_files;
use crate::provider::connection::no_files;
use crate::provider::pending::Pending;

/// Most certificates read from one `ca_file`; an operating system has a few hundred.
const CA_CERTIFICATES_MAX: usize = 10_000;

/// Certificate authorities are read again after this time: operating systems replace them a few
/// times a year.
const LIFE: Duration = Duration::from_hours(24);

/// A failed handshake does not cause authorities to be read again if they were read within this
/// time. Otherwise a thousand accounts of one misconfigured server would read them a thousand
/// times.
const FRESH: Duration = Duration::from_secs(3);

/// Most configurations kept. The system's authorities take half a megabyte; a company's file takes
/// some kilobytes.
const CONFIGS_MAX: usize = 256;

/// The certificate authorities that a connection trusts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// None: the connection is not encrypted.
    Nobody,
    /// The system's authorities.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// The TLS configurations of all accounts, one for each set of authorities.
#[derive(Debug)]
pub struct TlsConfigs {
    entries: Mutex<HashMap<Trust, Arc<Entry>>>,
    now: fn() -> DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Entry {
    built: Mutex<Option<(Arc<ClientConfig>, Instant)>>,
    building: Pending<Result<Arc<ClientConfig>, Failure>>,
}

impl TlsConfigs {
    /// Starts empty. Nothing is read before the first request: a cold start must not wait for
    /// certificates. `now` is the clock that certificates are validated against.
    pub fn new(now: fn() -> DateTime<Utc>) -> Self {
        Self {
            entries: Mutex::default(),
            now,
        }
    }

    /// The configuration for `trust`; it is built unless there is one that is young enough.
    pub(super) async fn get(&self, trust: &Trust) -> Result<Arc<ClientConfig>, Failure> {
        let entry = self.entry(trust);
        if let Some(config) = entry.young(LIFE) {
            return Ok(config);
        }
        let authorities = match trust {
            Trust::Nobody => Some(RootCertStore::empty()),
            Trust::System => None,
            Trust::File(path) => Some(read_ca_file(path).await?),
        };
        let (building, now) = (entry.clone(), self.now);
        let build = move || {
            // Another account may have built it in the meantime.
            if let Some(config) = building.young(LIFE) {
                return Ok(config);
            }
            let config = Arc::new(build(authorities, now)?);
            building.set(Some((config.clone(), Instant::now())));
            Ok(config)
        };
        entry.building.run(None, build).await.map_err(|_panicked| {
            let why = "reading the certificate authorities panicked";
            Failure::new(Reason::Internal, why)
        })?
    }

    /// Makes the next request read the authorities again: they may have changed on disk.
    pub(super) fn distrust(&self, trust: &Trust) {
        let entry = self.entry(trust);
        if entry.young(FRESH).is_none() {
            entry.set(None);
        }
    }

    fn entry(&self, trust: &Trust) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CONFIGS_MAX && !entries.contains_key(trust) {
            // This also drops entries of removed accounts; the others are rebuilt on demand.
            entries.clear();
        }
        entries.entry(trust.clone()).or_default().clone()
    }
}

impl Entry {
    fn young(&self, life: Duration) -> Option<Arc<ClientConfig>> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, built_at) = built.as_ref()?;
        (built_at.elapsed() < life).then(|| config.clone())
    }

    fn set(&self, built: Option<(Arc<ClientConfig>, Instant)>) {
        *self.built.lock().unwrap_or_else(PoisonError::into_inner) = built;
    }
}

/// Trusts `authorities`, or else the system's. Reading the system's blocks for some 50 ms.
fn build(
    authorities: Option<RootCertStore>,
    now: fn() -> DateTime<Utc>,
) -> Result<ClientConfig, Failure> {
    let trusted = match authorities {
        Some(authorities) => authorities,
        None => of_system(native_authorities()?),
    };
    config(trusted, now)
}

/// The system's certificate authorities. If some cannot be opened for lack of file descriptors,
/// this fails now, instead of missing them for a day.
fn native_authorities() -> Result<Vec<CertificateDer<'static>>, Failure> {
    let loaded = load_native_certs();
    let lack = loaded.errors.iter().find(|error| is_lack_of_files(*error));
    lack.map_or(Ok(loaded.certs), |error| Err(no_files(&error.to_string())))
}

/// Largest `ca_file`: enough for [`CA_CERTIFICATES_MAX`] certificates.
const CA_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a `ca_file` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be opened or read.
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not a regular file of an acceptable size, or its file system hangs.
    #[error("{} {}", .0.display(), .1)]
    Unusable(PathBuf, FileError),
    /// It contains no certificate.
    #[error("{} contains no PEM certificate", .0.display())]
    Empty(PathBuf),
    /// One of its PEM blocks is damaged.
    #[error("block {number} of {} cannot be read: {problem}", .path.display())]
    BadBlock {
        /// The file.
        path: PathBuf,
        /// The number of the block, from 1.
        number: usize,
        /// The problem, without any content of the file.
        problem: &'static str,
    },
}

impl CaFileError {
    /// Whether the cause may be transient and unrelated to the file: a file system that hangs.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Unusable(_, FileError::NoAnswer))
    }
}

/// Reads certificate authorities in PEM, to check the configuration. Blocks for 5 s at most.
pub fn check_ca_file(path: &Path) -> Result<(), CaFileError> {
    certificates(path, files::read(path, CA_BYTES_MAX)).map(drop)
}

/// Reads certificate authorities in PEM.
async fn read_ca_file(path: &Path) -> Result<RootCertStore, Failure> {
    certificates(path, files::read_async(path, CA_BYTES_MAX).await)
        .map_err(|error| Failure::because(Reason::Tls, Line::own(&chain(&error))))
}

fn certificates(
    path: &Path,
    content: Result<Arc<files::Content>, FileError>,
) -> Result<RootCertStore, CaFileError> {
    let path = path.to_owned();
    let pem = match content {
        Ok(pem) => pem,
        Err(FileError::Unreadable(error)) => return Err(CaFileError::Unreadable(path, error)),
        Err(error) => return Err(CaFileError::Unusable(path, error)),
    };
    match authorities(&pem) {
        Ok(trusted) if trusted.is_empty() => Err(CaFileError::Empty(path)),
        Ok(trusted) => Ok(trusted),
        Err((number, problem)) => Err(CaFileError::BadBlock {
            path,
            number,
            problem,
        }),
    }
}

/// The certificates of a PEM file, or the number of the first damaged block and its problem. Blocks
/// of other kinds count and are ignored.
fn authorities(pem: &[u8]) -> Result<RootCertStore, (usize, &'static str)> {
    let mut trusted = RootCertStore::empty();
    let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem);
    for (number, block) in (1..=CA_CERTIFICATES_MAX).zip(blocks) {
        let (kind, der) = block.map_err(|error| (number, problem(&error)))?;
        if kind == SectionKind::Certificate {
            let added = trusted.add(der.into());
            added.map_err(|_no_details| (number, "it is not an X.509 certificate"))?;
        }
    }
    Ok(trusted)
}

/// The error's own text would repeat content of the file, which may be a private key.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "others cannot occur here, or are of later versions"
)]
fn problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "its END line is missing",
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "it is not base64",
        pem::Error::SectionTooLarge => "it is too large",
        _ => "it is not PEM",
    }
}

/// The system's authorities, or the bundled ones if the system has none, as in an image built from
/// scratch.
fn of_system(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut trusted = of(certificates);
    if trusted.is_empty() {
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusted
}

fn of(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates);
    trusted
}

/// A configuration that trusts these authorities and validates certificates at the time `now`.
fn config(trusted: RootCertStore, now: fn() -> DateTime<Utc>) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(TlsClock(now)))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::because(Reason::Tls, Line::own(&error.to_string())))?;
    Ok(config.with_root_certificates(trusted).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_block_of_a_ca_file_is_named_by_its_number() {
        let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        let (good, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let block = |content: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{content}\n-----END CERTIFICATE-----\n")
        };
        let unended = "-----BEGIN CERTIFICATE-----\nMIIB\n";
        let cases = [
            (good.clone(), Ok(1)),
            (format!("comment\n{key}{good}"), Ok(1)),
            (key.clone(), Ok(0)),
            (String::new(), Ok(0)),
            (block("!!"), Err((1, "it is not base64"))),
            (
                format!("{good}{}{good}", block("anVuaw==")),
                Err((2, "it is not an X.509 certificate")),
            ),
            (
                format!("{key}{good}{unended}"),
                Err((3, "its END line is missing")),
            ),
            (
                format!("{good}-----BEGIN CERTIFICATE\n"),
                Err((2, "its BEGIN line is malformed")),
            ),
        ];
        for (pem, expected) in cases {
            let found = authorities(pem.as_bytes()).map(|trusted| trusted.len());
            assert_eq!(found, expected, "{pem}");
        }
    }

    #[test]
    fn a_system_without_authorities_gets_those_that_the_exporter_brings() {
        let brought = of_system(Vec::new()).len();
        assert!(brought > 50, "{brought}");
        let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        assert_eq!(of_system(vec![own.cert.der().clone()]).len(), 1);
        // An unparsable certificate has no effect.
        let junk = CertificateDer::from_slice(b"junk");
        assert_eq!(of_system(vec![junk]).len(), brought);
    }
}
