//! Which certificate authorities are trusted, by which clock certificates are judged, and what a
//! failed handshake says. Reads nothing but the `ca_file` that it is given.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use crate::domain::failure::{Failure, Reason};
use crate::domain::text::chain;
use crate::os::files::{self, FileError};

/// Most certificates read from one `ca_file`; whole operating systems have some hundred.
const CA_CERTIFICATES_MAX: usize = 10_000;

/// Largest `ca_file`: room for as many certificates.
const CA_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why a `ca_file` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be opened or read.
    #[error("cannot read {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is something else than a file of a sensible size, or its file system hangs.
    #[error("{} {}", .0.display(), .1)]
    Unusable(PathBuf, FileError),
    /// There is nothing in it.
    #[error("{} holds no certificate in PEM", .0.display())]
    Empty(PathBuf),
    /// It is damaged.
    #[error("{} holds a certificate that is not PEM", .0.display())]
    NotPem(PathBuf),
}

impl CaFileError {
    /// Whether it may be gone in a minute and says nothing of the file: a file system that hangs.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::Unusable(_, FileError::NoAnswer))
    }
}

/// Reads certificate authorities in PEM, for a check of the configuration. Blocks for 5 s at most.
pub fn check_ca_file(path: &Path) -> Result<(), CaFileError> {
    certificates(path, files::read(path, CA_BYTES_MAX)).map(drop)
}

/// Reads certificate authorities in PEM.
pub(super) async fn read_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    certificates(path, files::read_async(path, CA_BYTES_MAX).await)
        .map_err(|error| Failure::new(Reason::Tls, &chain(&error)))
}

fn certificates(
    path: &Path,
    content: Result<Arc<files::Content>, FileError>,
) -> Result<Vec<CertificateDer<'static>>, CaFileError> {
    let path = path.to_owned();
    let pem = match content {
        Ok(pem) => pem,
        Err(FileError::Unreadable(error)) => return Err(CaFileError::Unreadable(path, error)),
        Err(error) => return Err(CaFileError::Unusable(path, error)),
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem)
        .take(CA_CERTIFICATES_MAX)
        .collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(CaFileError::Empty(path)),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(CaFileError::NotPem(path)),
    }
}

/// The authorities of the system, or those that the exporter brings where the system has none, as
/// in an image made from nothing.
pub(super) fn of_system(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut trusted = of(certificates);
    if trusted.is_empty() {
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    trusted
}

pub(super) fn of(certificates: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(certificates);
    trusted
}

/// TLS that trusts these authorities and judges certificates as of `now`.
pub(super) fn config(
    trusted: RootCertStore,
    now: fn() -> DateTime<Utc>,
) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock(now)))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Reason::Tls, &error.to_string()))?;
    Ok(config.with_root_certificates(trusted).with_no_client_auth())
}

/// The exporter's clock for rustls, whose own panics before 1970.
#[derive(Debug)]
struct Clock(fn() -> DateTime<Utc>);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().timestamp()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// rustls reports through an `io::Error`, and that through another; their `source` skips what they
/// wrap.
pub(super) fn error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let io = cause.downcast_ref::<std::io::Error>();
    match io.and_then(std::io::Error::get_ref) {
        Some(wrapped) => error(wrapped),
        None => cause.downcast_ref(),
    }
}

/// What a failed handshake says, with a hint where one helps.
pub(super) fn words(error: &rustls::Error) -> String {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return error.to_string();
    };
    let is_about_time = matches!(
        certificate,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
    );
    if is_about_time {
        // First, because rustls has much to say about times, and long lines are cut.
        return format!("is this machine's clock right? {error}");
    }
    if *certificate == UnknownIssuer {
        return format!("{error} (accounts.ca_file names an authority of your own)");
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_a17_a_system_without_authorities_gets_those_that_the_exporter_brings() {
        let brought = of_system(Vec::new()).len();
        assert!(brought > 50, "{brought}");
        let own = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        assert_eq!(of_system(vec![own.cert.der().clone()]).len(), 1);
        // What cannot be read as a certificate is as good as none.
        let junk = CertificateDer::from_slice(b"junk");
        assert_eq!(of_system(vec![junk]).len(), brought);
    }

    #[test]
    fn fault_d2_a_clock_before_1970_is_1970_to_tls() {
        let before = Clock(|| DateTime::from_timestamp(-1, 0).unwrap());
        let after = Clock(|| DateTime::from_timestamp(7, 0).unwrap());
        let seconds = |clock: Clock| clock.current_time().unwrap().as_secs();
        assert_eq!((seconds(before), seconds(after)), (0, 7));
    }
}
