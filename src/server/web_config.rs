//! The effective web configuration file: TLS, users, headers and rate limit. The file and all files
//! that it names are read again for each connection and each request, so that changes apply
//! immediately; while they cannot be used, all requests are rejected.

mod client_certificates;
mod format;
mod passwords;
mod rate_limit;
mod tls;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ring::digest;
use rustls::ServerConfig;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};

use crate::domain::text::chain;
use crate::event_log::WebFileLog;
use crate::os::files::{self, Content, FileError, Links};
use crate::server::web_config::format::{Parsed, Pem, TlsServer, WebConfig};
use crate::server::web_config::passwords::Passwords;
use crate::server::web_config::rate_limit::Bucket;
use crate::server::web_config::tls::{Material, Named, bytes};

/// Largest file that is read: the web file or a file that it names. The certificate authorities of
/// an operating system take some 250 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Read timeout: files may be on a network that hangs.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a file without users must stay unchanged before authentication is turned off: a file
/// that is being written is empty for a moment.
const SETTLING: Duration = Duration::from_secs(1);

/// A web configuration file.
#[derive(Debug)]
pub struct WebFile {
    path: PathBuf,
    now: fn() -> DateTime<Utc>,
    /// Locked while the file is read, so that at most one read is pending.
    state: Arc<AsyncMutex<State>>,
    /// Whether the last usable file requires TLS.
    is_encrypted: AtomicBool,
    passwords: Passwords,
    bucket: Mutex<Option<Bucket>>,
    start: Instant,
    log: Mutex<WebFileLog>,
}

/// The known state of the file.
#[derive(Debug)]
struct State {
    in_force: Arc<InForce>,
    /// Digest of content without users that is not accepted yet, and when it was first seen.
    settling: Option<(Vec<u8>, Instant)>,
}

/// The settings of the file and of the files that it names, as last read.
pub(super) struct InForce {
    config: WebConfig,
    tls: Option<Arc<ServerConfig>>,
    /// A digest of everything that was read: the content holds secrets and is not kept for
    /// comparison.
    digest: Vec<u8>,
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InForce").finish_non_exhaustive()
    }
}

/// Why a connection or a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The file cannot be used.
    Unusable,
    /// The file requires TLS, and the connection has none.
    Unencrypted,
    /// The rate limit is exceeded.
    TooMany,
    /// The user is missing or unknown, or the password is wrong.
    Unauthorized,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Unusable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unencrypted => StatusCode::BAD_REQUEST,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
        }
    }

    /// The response body; identical to the reference.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unusable => "Internal Server Error\n",
            Self::Unencrypted => "Client sent an HTTP request to an HTTPS server.\n",
            Self::TooMany => "Too Many Requests\n",
            Self::Unauthorized => "Unauthorized\n",
        }
    }
}

impl InForce {
    /// Headers of responses.
    pub(super) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.config.headers
    }
}

/// Whether HTTP/2 may follow the TLS handshake.
pub(super) fn is_http2(alpn: Option<&[u8]>) -> bool {
    alpn == Some(tls::H2)
}

/// Checks the file and all files that it names; the error lists every problem.
pub fn check(path: &Path, now: fn() -> DateTime<Utc>) -> Result<(), Vec<String>> {
    load(path, now, read_waiting, None).map(|_usable| ())
}

impl WebFile {
    /// Whether connections are encrypted, according to the last usable file.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted.load(Ordering::Relaxed)
    }

    /// Reads the file at start; the error lists every problem.
    pub fn open(path: &Path, now: fn() -> DateTime<Utc>) -> Result<Self, Vec<String>> {
        let in_force = load(path, now, read_waiting, None)?;
        let no_random = || vec!["the system has no source of random numbers".to_owned()];
        Ok(Self {
            path: path.to_owned(),
            now,
            is_encrypted: in_force.tls.is_some().into(),
            state: Arc::new(AsyncMutex::new(State {
                in_force,
                settling: None,
            })),
            passwords: Passwords::new().ok_or_else(no_random)?,
            bucket: Mutex::default(),
            start: Instant::now(),
            log: Mutex::default(),
        })
    }

    /// The TLS settings for a new connection; `None` means plain HTTP, where each request is
    /// rejected while the file cannot be used. If TLS was in force, there is no answer without it.
    pub(super) async fn tls(&self) -> Result<Option<Arc<ServerConfig>>, Refusal> {
        match self.current().await {
            Ok(in_force) => Ok(in_force.tls.clone()),
            Err(refusal) if self.is_encrypted() => Err(refusal),
            Err(_) => Ok(None),
        }
    }

    /// Reads the file again and returns the effective settings. Errors are already logged.
    async fn current(&self) -> Result<Arc<InForce>, Refusal> {
        let read = self.read();
        let outcome = match timeout(READ_TIMEOUT, read).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err("reading takes too long; is its file system there?".to_owned()),
        };
        match outcome {
            Ok((in_force, is_new)) => {
                if is_new {
                    let is_encrypted = in_force.tls.is_some();
                    self.is_encrypted.store(is_encrypted, Ordering::Relaxed);
                }
                self.log().usable(&self.path, is_new);
                Ok(in_force)
            }
            Err(error) => {
                self.log().unusable(&self.path, &error);
                Err(Refusal::Unusable)
            }
        }
    }

    async fn read(&self) -> Result<(Arc<InForce>, bool), String> {
        let mut state = self.state.clone().lock_owned().await;
        let (path, now) = (self.path.clone(), self.now);
        // The lock is held to the end of the read, even if the caller has stopped waiting.
        let reading = tokio::task::spawn_blocking(move || {
            let new = load(&path, now, read_here, Some(&state.in_force));
            let new = new.map_err(|problems| problems.join("; "))?;
            state.take_over(new)
        });
        reading
            .await
            .map_err(|_panicked| "reading failed".to_owned())?
    }

    /// Whether a request is allowed; returns the headers for the response. The rate limit is
    /// checked before the passwords.
    pub(super) async fn admit(
        &self,
        headers: &HeaderMap,
        is_encrypted: bool,
    ) -> Result<Arc<InForce>, (Refusal, Option<Arc<InForce>>)> {
        let in_force = self.current().await.map_err(|refusal| (refusal, None))?;
        if in_force.tls.is_some() && !is_encrypted {
            return Err((Refusal::Unencrypted, None));
        }
        if !self.is_within_limit(&in_force) {
            return Err((Refusal::TooMany, None));
        }
        let users = &in_force.config.users;
        let authorization = headers.get(AUTHORIZATION);
        if !users.is_empty() && !self.passwords.are_right(users, authorization).await {
            return Err((Refusal::Unauthorized, Some(in_force)));
        }
        Ok(in_force)
    }

    fn is_within_limit(&self, in_force: &InForce) -> bool {
        let uptime = self.start.elapsed();
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limit) = in_force.config.rate_limit else {
            *bucket = None;
            return true;
        };
        if bucket.is_none_or(|known| known.limit() != limit) {
            *bucket = Some(Bucket::new(limit, uptime));
        }
        bucket.as_mut().is_none_or(|bucket| bucket.take(uptime))
    }

    fn log(&self) -> MutexGuard<'_, WebFileLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Applies `new` if it does not weaken the exporter's protection; otherwise returns the reason.
    /// Returns the effective settings, and whether they changed.
    fn take_over(&mut self, new: Arc<InForce>) -> Result<(Arc<InForce>, bool), String> {
        let known = &self.in_force;
        if Arc::ptr_eq(known, &new) {
            self.settling = None;
            return Ok((new, false));
        }
        if known.tls.is_some() && new.tls.is_none() {
            return Err("TLS cannot be turned off without a restart".to_owned());
        }
        if !known.config.users.is_empty() && new.config.users.is_empty() {
            let first_seen = match &self.settling {
                Some((digest, first_seen)) if *digest == new.digest => *first_seen,
                _ => Instant::now(),
            };
            if first_seen.elapsed() < SETTLING {
                self.settling = Some((new.digest.clone(), first_seen));
                return Ok((known.clone(), false));
            }
        }
        self.settling = None;
        self.in_force = new.clone();
        Ok((new, true))
    }
}

/// Reads everything; returns `known` if nothing changed. Blocks on the file system.
fn load(
    path: &Path,
    now: fn() -> DateTime<Utc>,
    read: Read,
    known: Option<&Arc<InForce>>,
) -> Result<Arc<InForce>, Vec<String>> {
    let content = read(path).map_err(|error| vec![chain(&error)])?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let Parsed {
        config,
        tls,
        mut problems,
    } = format::parse(&content, folder).map_err(|why| vec![why])?;
    let files = tls.as_ref().map(|tls| read_named(tls, read, &mut problems));
    if !problems.is_empty() {
        return Err(problems);
    }
    let digest = digest(&content, files.as_ref());
    if let Some(known) = known.filter(|known| known.digest == digest) {
        return Ok(known.clone());
    }
    let server = match (&tls, &files) {
        (Some(tls), Some(files)) => {
            let server = tls::server(tls, files, config.http2, now);
            Some(server.map_err(|why| vec![format!("tls_server_config: {why}")])?)
        }
        _ => None,
    };
    Ok(Arc::new(InForce {
        config,
        tls: server.map(Arc::new),
        digest,
    }))
}

/// The content of the files in `tls_server_config`.
fn read_named(tls: &TlsServer, read: Read, problems: &mut Vec<String>) -> Named {
    let mut read_one = |pem: Option<&Pem>, name: &str| match pem? {
        Pem::Inline(text) => Some(Material::Inline(text.clone())),
        Pem::File(path) => {
            let content = read(path).map_err(|error| {
                let (path, why) = (path.display(), chain(&error));
                problems.push(format!("tls_server_config.{name}_file: {path}: {why}"));
            });
            content.ok().map(Material::File)
        }
    };
    Named {
        cert: read_one(tls.cert.as_ref(), "cert"),
        key: read_one(tls.key.as_ref(), "key"),
        client_ca: read_one(tls.client_ca.as_ref(), "client_ca"),
    }
}

/// How a file is read.
type Read = fn(&Path) -> Result<Arc<Content>, FileError>;

/// For callers without other work: waits for some seconds at most.
fn read_waiting(path: &Path) -> Result<Arc<Content>, FileError> {
    files::read(path, FILE_BYTES_MAX)
}

/// For a thread whose callers have their own timeouts.
fn read_here(path: &Path) -> Result<Arc<Content>, FileError> {
    files::read_here(path, FILE_BYTES_MAX, Links::Follow).map(Arc::new)
}

fn digest(content: &[u8], named: Option<&Named>) -> Vec<u8> {
    let mut hash = digest::Context::new(&digest::SHA256);
    let named = named
        .map(|named| [&named.cert, &named.key, &named.client_ca].map(|one| bytes(one.as_ref())));
    for part in std::iter::once(content).chain(named.into_iter().flatten()) {
        hash.update(&part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finish().as_ref().to_vec()
}
