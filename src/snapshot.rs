//! The saved snapshot of each account: read at start, written after each successful poll, so that a
//! restart during an outage loses nothing. A failing disk increments a counter and never affects a
//! poll.

pub mod format;
mod saver;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use saver::save_all;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::domain::account_state::{AccountState, SavedState};
use crate::domain::fnv;
use crate::domain::text::chain;
use crate::os::files::{self, FileError, Links};
use crate::snapshot::format::{BadSnapshot, Identity};

/// Only the exporter's user needs to see which keys exist.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Allowance for the first line and the fields around the keys.
const OVERHEAD_BYTES: u64 = 64 * 1024;

/// A saved key takes about as much space as in the API's answer. Four times that leaves room for
/// allow lists with entries that grow by a mask.
const GROWTH: u64 = 4;

/// Most characters of an account's name in its file name, for readability.
const NAME_CHARS_MAX: usize = 32;

/// The snapshot directory. Locked while this exists: two exporters would overwrite each other's
/// files.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    bytes_max: u64,
    _lock: File,
}

/// Why the snapshot directory is not usable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be used.
    #[error("cannot use {}", .0.display())]
    Unusable(PathBuf, #[source] io::Error),
    /// Another process uses it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// Its file system hangs.
    #[error("{} does not respond; check the mount", .0.display())]
    NoAnswer(PathBuf),
    /// A snapshot cannot be written.
    #[error(transparent)]
    Unsaved(io::Error),
    /// A bug.
    #[error("the access to the snapshots panicked")]
    Panicked,
}

/// Why a file is not a valid snapshot.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Bad(#[from] BadSnapshot),
}

/// How long a start or a reload waits for a snapshot. Without it, keys appear after the next
/// successful poll; no scrape is answered before the start is complete.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a save may take before it counts as failed: a busy disk takes seconds to sync.
const SAVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The location of the store, whether it is open or not. If its file system hangs, callers wait for
/// a limited time, and at most one thread blocks.
#[derive(Debug)]
pub struct SnapshotDirectory {
    directory: PathBuf,
    body_bytes_max: usize,
    store: OnceLock<Store>,
    /// Held while the directory is in use, even after the caller has stopped waiting.
    in_use: Arc<Mutex<()>>,
    is_overdue: AtomicBool,
}

impl SnapshotDirectory {
    /// `directory` and `body_bytes_max` are as in [`Store::open`]; nothing is opened yet.
    pub fn new(directory: &Path, body_bytes_max: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            body_bytes_max,
            store: OnceLock::new(),
            in_use: Arc::default(),
            is_overdue: AtomicBool::new(false),
        }
    }

    /// Opens the store.
    pub async fn open(self: &Arc<Self>) -> Result<(), StoreError> {
        self.within(LOAD_TIMEOUT, |_store| ()).await
    }

    /// The snapshot of `identity`, if the store is open and has a valid one.
    pub async fn load(self: &Arc<Self>, identity: Identity) -> Option<SavedState> {
        self.store.get()?;
        let account = identity.account.clone();
        let loading = self.within(LOAD_TIMEOUT, move |store| store.load(&identity));
        match loading.await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let error = chain(&error);
                warn!(account, error, "starting without the saved snapshot");
                None
            }
        }
    }

    /// Saves a snapshot as [`Store::save`] does, and opens the directory first if necessary.
    pub async fn save(
        self: &Arc<Self>,
        identity: Identity,
        state: SavedState,
    ) -> Result<(), StoreError> {
        let save = move |store: &Store| store.save(&identity, &state);
        let saved = self.within(SAVE_TIMEOUT, save).await?;
        saved.map_err(StoreError::Unsaved)
    }

    /// Runs `work` with the store on a blocking thread, and opens the store first if necessary.
    /// Fails immediately while earlier work is overdue.
    async fn within<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let no_answer = || StoreError::NoAnswer(self.directory.clone());
        if self.is_overdue.load(Ordering::SeqCst) {
            return Err(no_answer());
        }
        let working = async {
            let in_use = self.in_use.clone().lock_owned().await;
            let this = self.clone();
            tokio::task::spawn_blocking(move || {
                let result = this.opened().map(work);
                drop(in_use);
                this.is_overdue.store(false, Ordering::SeqCst);
                result
            })
            .await
        };
        match timeout(limit, working).await {
            Ok(Ok(result)) => result,
            Ok(Err(_panicked)) => Err(StoreError::Panicked),
            Err(_elapsed) => {
                self.is_overdue.store(true, Ordering::SeqCst);
                // It may have ended just now, and would then stay marked as overdue.
                if self.in_use.try_lock().is_ok() {
                    self.is_overdue.store(false, Ordering::SeqCst);
                }
                Err(no_answer())
            }
        }
    }

    fn opened(&self) -> Result<&Store, StoreError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open(&self.directory, self.body_bytes_max)?;
        Ok(self.store.get_or_init(|| store))
    }
}

impl Store {
    /// Opens `directory`, and creates it if its parent exists. `body_bytes_max` is the largest
    /// answer of an API, which limits the size of a file that is read.
    pub fn open(directory: &Path, body_bytes_max: usize) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Unusable(directory.to_owned(), error);
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unusable(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false);
        let lock = files::open(
            options.mode(FILE_MODE),
            &directory.join("lock"),
            Links::Refuse,
        )
        .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory: directory.to_owned(),
                bytes_max: (body_bytes_max as u64) * GROWTH + OVERHEAD_BYTES,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// The snapshot of `identity`, if there is a valid one. An invalid one is logged and left in
    /// place; the next successful poll overwrites it.
    pub fn load(&self, identity: &Identity) -> Option<SavedState> {
        let path = self.path(&identity.account);
        let account = &*identity.account;
        match self.read(&path, identity) {
            Ok(snapshot) => {
                let (keys, listed_at) = (snapshot.listing.keys().len(), snapshot.listed_at);
                let listed_at = listed_at.to_rfc3339();
                info!(account, keys, listed_at, "loaded the saved snapshot");
                Some(snapshot)
            }
            Err(LoadError::File(FileError::Unreadable(error)))
                if error.kind() == io::ErrorKind::NotFound =>
            {
                None
            }
            Err(error) => {
                let (error, file) = (chain(&error), path.display().to_string());
                warn!(account, file, error, "ignoring the saved snapshot");
                None
            }
        }
    }

    fn read(&self, path: &Path, identity: &Identity) -> Result<SavedState, LoadError> {
        let bytes = files::read_here(path, self.bytes_max, Links::Refuse)?;
        Ok(format::decode(&bytes, identity)?)
    }

    /// Replaces the snapshot of `identity` atomically: a reader sees either the old or the new one.
    /// Blocks on the disk.
    pub fn save(&self, identity: &Identity, state: &SavedState) -> io::Result<()> {
        let path = self.path(&identity.account);
        let unfinished = path.with_extension("new");
        let bytes = format::encode(identity, state);
        let written = replace(&path, &unfinished, &bytes).and_then(|()| {
            // The rename is durable only after the directory is synced.
            File::open(&self.directory)?.sync_all()
        });
        if written.is_err() {
            // It may take up the remaining space. A failure to remove it needs no further report.
            drop(fs::remove_file(&unfinished));
        }
        written
    }

    /// One file per account name: the characters that are valid in a file name, and a checksum of
    /// the name.
    fn path(&self, account: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let shown: String = account.chars().take(NAME_CHARS_MAX).map(plain).collect();
        let sum = fnv::hash(account.as_bytes());
        self.directory.join(format!("{shown}-{sum:016x}.snapshot"))
    }
}

/// Writes a new file next to the old one and renames it into place.
fn replace(path: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left over if the last exporter was killed during a save.
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // `create_new` does not follow a symbolic link that another user may have placed.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(unfinished, path)
}

/// The identity of the snapshot for this account state.
pub fn identity(state: &AccountState) -> Identity {
    Identity {
        account: state.account.name.to_string(),
        provider: state.account.provider.to_string(),
        base_url: state.account.base_url.to_string(),
    }
}
