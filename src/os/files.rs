//! Reads every file that the configuration names: regular files only, without blocking on a pipe,
//! up to a size limit. A hanging file system affects only what needs the file.
//!
//! No timeout can interrupt a system call that hangs, as on a dead network mount, so a read runs on
//! another thread and its callers stop waiting after their own timeouts. Each file has at most one
//! pending read, which all callers share.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use secrecy::zeroize::Zeroizing;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

/// How long [`read`] waits. A network mount that is merely slow answers within a second or two.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest wait of [`read`] after other files have timed out. A healthy disk needs well under
/// a millisecond.
const READ_TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// Maximum reads on tokio's blocking threads; half of the threads stay free for other work when all
/// reads hang.
const POOLED_MAX: usize = 8;

/// How long a read waits for one of tokio's threads before it gets a thread of its own. Reads take
/// microseconds, so after this long the others hang.
const POOL_TIMEOUT: Duration = Duration::from_millis(100);

/// Stack size of a dedicated read thread: it opens, checks and reads.
const STACK_BYTES: usize = 128 * 1024;

/// Extra capacity, so that reading to the end does not move a secret to a new buffer.
const SPARE_BYTES: u64 = 64;

/// The content of a file; wiped from memory when dropped, and not shown by `Debug`.
pub struct Content {
    bytes: Zeroizing<Vec<u8>>,
    mode: u32,
}

impl Content {
    /// The permissions of the file that was read.
    pub fn mode(&self) -> u32 {
        self.mode
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes.len())
    }
}

/// Whether symbolic links are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Yes: Kubernetes mounts secrets as symbolic links.
    Follow,
    /// No: only the exporter itself writes there.
    Refuse,
}

/// Why a file cannot be used. The text neither names the file nor repeats its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("cannot read it")]
    Unreadable(#[source] io::Error),
    /// It is not a regular file; the text describes it.
    #[error("is not a regular file but {0}")]
    NotAFile(&'static str),
    /// It is larger than this many bytes.
    #[error("is larger than {0} bytes; is this the right file?")]
    TooLarge(u64),
    /// Its file system hangs.
    #[error("cannot be read: its file system does not respond; check the mount")]
    NoAnswer,
}

impl Clone for FileError {
    fn clone(&self) -> Self {
        match self {
            Self::Unreadable(error) => Self::Unreadable(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            Self::NotAFile(kind) => Self::NotAFile(kind),
            Self::TooLarge(limit) => Self::TooLarge(*limit),
            Self::NoAnswer => Self::NoAnswer,
        }
    }
}

/// The content of the file at `path`, of at most `limit` bytes. Waits at most 5 s, and half as long
/// for each file that has timed out already and still hangs: loading a configuration that names a
/// thousand files on a dead mount must not take hours.
pub fn read(path: &Path, limit: u64) -> Result<Arc<Content>, FileError> {
    let (pending, new) = find_or_add(path, limit);
    let thread = match new.map(|job| own_thread(|| job.run())) {
        Some(Ok(thread)) => Some(thread),
        // The system cannot start another thread. Reading here may hang, but failing would be
        // certain.
        Some(Err(_)) => return read_here(path, limit, Links::Follow).map(Arc::new),
        None => None,
    };
    let outcome = pending.wait(patience());
    if let (Some(_), Some(thread)) = (&outcome, thread) {
        // The thread has ended, and is gone before the caller starts other threads.
        drop(thread.join());
    }
    outcome.unwrap_or(Err(FileError::NoAnswer))
}

/// Like [`read`], but waits as long as the caller does.
pub async fn read_async(path: &Path, limit: u64) -> Result<Arc<Content>, FileError> {
    let (pending, new) = find_or_add(path, limit);
    if let Some(job) = new {
        match timeout(POOL_TIMEOUT, POOLED.acquire()).await {
            Ok(Ok(permit)) => drop(tokio::task::spawn_blocking(move || {
                job.run();
                drop(permit);
            })),
            Ok(Err(_)) | Err(_) => {
                own_thread(|| job.run()).map_err(FileError::Unreadable)?;
            }
        }
    }
    pending.outcome().await
}

/// Like [`read`], on the current thread, without a timeout.
pub fn read_here(path: &Path, limit: u64, links: Links) -> Result<Content, FileError> {
    let mut options = OpenOptions::new();
    let file = open(options.read(true), path, links).map_err(FileError::Unreadable)?;
    let metadata = file.metadata().map_err(FileError::Unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(kind(metadata.file_type())));
    }
    if metadata.len() > limit {
        return Err(FileError::TooLarge(limit));
    }
    let room = usize::try_from(metadata.len() + SPARE_BYTES).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    // The file may grow meanwhile, and kernel files have no size.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(FileError::Unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge(limit));
    }
    let mode = metadata.permissions().mode();
    Ok(Content { bytes, mode })
}

/// Opens a file without blocking on a pipe and without acquiring a controlling terminal.
pub fn open(options: &mut OpenOptions, path: &Path, links: Links) -> io::Result<File> {
    let no_follow = match links {
        Links::Follow => 0,
        Links::Refuse => libc::O_NOFOLLOW,
    };
    // std adds O_CLOEXEC.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | no_follow;
    options.custom_flags(flags).open(path)
}

fn kind(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    }
}

/// The permits for tokio's blocking threads.
static POOLED: Semaphore = Semaphore::const_new(POOLED_MAX);

/// All pending reads.
static PENDING: Mutex<BTreeMap<Key, Arc<Pending>>> = Mutex::new(BTreeMap::new());

/// One file, and the size limit of its readers.
type Key = (PathBuf, u64);

type Outcome = Result<Arc<Content>, FileError>;

/// A pending read, shared by all callers that wait for it.
#[derive(Debug, Default)]
struct Pending {
    progress: Mutex<Progress>,
    ended: Condvar,
    ended_async: Notify,
}

#[derive(Debug, Default)]
struct Progress {
    outcome: Option<Outcome>,
    is_overdue: bool,
}

/// A read to execute. If it is dropped instead, the waiting callers get an error.
struct Job {
    key: Key,
    pending: Arc<Pending>,
}

/// The pending read of a file. If there was none, the caller gets the job.
fn find_or_add(path: &Path, limit: u64) -> (Arc<Pending>, Option<Job>) {
    let key = (path.to_owned(), limit);
    let mut all = lock(&PENDING);
    if let Some(pending) = all.get(&key) {
        return (pending.clone(), None);
    }
    let pending = Arc::<Pending>::default();
    all.insert(key.clone(), pending.clone());
    let job = Job {
        key,
        pending: pending.clone(),
    };
    (pending, Some(job))
}

/// The timeout of the next [`read`].
fn patience() -> Duration {
    let is_overdue = |pending: &&Arc<Pending>| lock(&pending.progress).is_overdue;
    let overdue = lock(&PENDING).values().filter(is_overdue).count();
    let halvings = u32::try_from(overdue).unwrap_or(u32::MAX);
    let shortened = READ_TIMEOUT.checked_div(2_u32.saturating_pow(halvings));
    shortened.unwrap_or_default().max(READ_TIMEOUT_MIN)
}

fn own_thread(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name("file".to_owned());
    thread.stack_size(STACK_BYTES).spawn(work)
}

impl Job {
    fn run(self) {
        let (path, limit) = &self.key;
        let outcome = read_here(path, *limit, Links::Follow).map(Arc::new);
        lock(&self.pending.progress).outcome = Some(outcome);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // First, so that no caller joins a finished read.
        lock(&PENDING).remove(&self.key);
        let mut progress = lock(&self.pending.progress);
        progress.outcome.get_or_insert(Err(FileError::NoAnswer));
        drop(progress);
        self.pending.ended.notify_all();
        self.pending.ended_async.notify_waiters();
    }
}

impl Pending {
    fn wait(&self, patience: Duration) -> Option<Outcome> {
        let progress = lock(&self.progress);
        let is_pending = |progress: &mut Progress| progress.outcome.is_none();
        let waited = self
            .ended
            .wait_timeout_while(progress, patience, is_pending);
        let (mut progress, _) = waited.unwrap_or_else(PoisonError::into_inner);
        progress.is_overdue = progress.outcome.is_none();
        progress.outcome.clone()
    }

    async fn outcome(&self) -> Outcome {
        loop {
            // Before the outcome is checked, so that no completion is missed.
            let ended = self.ended_async.notified();
            if let Some(outcome) = lock(&self.progress).outcome.clone() {
                return outcome;
            }
            ended.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
