//! The saved snapshot of each account: read at start, written after each good poll, so that a
//! restart in the middle of an outage loses nothing. A disk that fails costs a count, never a poll.

pub mod format;
mod saver;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::{DateTime, Utc};
pub use saver::save_all;
use tracing::{info, warn};

use crate::domain::account_state::AccountState;
use crate::domain::listing::Listing;
use crate::domain::text::chain;
use crate::snapshot::format::{BadSnapshot, Identity, Snapshot};

/// Nobody but the exporter's user needs to see which keys there are.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Room for the first line and the fields around the keys.
const OVERHEAD_BYTES: u64 = 64 * 1024;

/// A key takes about as much room saved as it took in the API's answer; four times leaves room for
/// allow lists whose entries grow by a mask.
const GROWTH: u64 = 4;

/// How many characters of an account's name stand in its file's name, for people.
const NAME_CHARS_MAX: usize = 32;

/// The folder of the snapshots. Locked as long as this lives: two exporters would overwrite each
/// other's.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    bytes_max: u64,
    _lock: File,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("cannot use {}", .0.display())]
    Unusable(PathBuf, #[source] io::Error),
    /// Another process uses it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
}

/// Why a file cannot be taken for a snapshot.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read it")]
    Unreadable(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Bad(#[from] BadSnapshot),
}

/// Where the store is, whether it could be opened already or not.
#[derive(Debug)]
pub struct SnapshotDirectory {
    directory: PathBuf,
    body_bytes_max: usize,
    store: OnceLock<Store>,
}

impl SnapshotDirectory {
    /// `directory` and `body_bytes_max` are as in [`Store::open`]; nothing is opened yet.
    pub fn new(directory: &Path, body_bytes_max: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            body_bytes_max,
            store: OnceLock::new(),
        }
    }

    /// The store, where it was opened.
    pub fn store(&self) -> Option<&Store> {
        self.store.get()
    }

    /// The store, opened now unless it is already. For one task at a time, because a second one
    /// would find the folder locked. Blocks on the disk.
    pub fn open(&self) -> Result<&Store, StoreError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open(&self.directory, self.body_bytes_max)?;
        Ok(self.store.get_or_init(|| store))
    }
}

impl Store {
    /// Takes `directory`, making it where its parent is there. `body_bytes_max` is the largest
    /// answer of an API, which bounds what is read back.
    pub fn open(directory: &Path, body_bytes_max: usize) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Unusable(directory.to_owned(), error);
        match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(unusable(error));
            }
            Ok(()) | Err(_) => {}
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(directory.join("lock"))
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

    /// The snapshot of `identity`, where there is a usable one. One that is of no use is left where
    /// it is, told, and overwritten by the next good poll.
    pub fn load(&self, identity: &Identity) -> Option<Snapshot> {
        let path = self.path(&identity.account);
        let account = &*identity.account;
        match self.read(&path, identity) {
            Ok(snapshot) => {
                let (keys, listed_at) = (snapshot.listing.keys().len(), snapshot.listed_at);
                let listed_at = listed_at.to_rfc3339();
                info!(
                    account,
                    keys, listed_at, "knows the keys of the saved snapshot"
                );
                Some(snapshot)
            }
            Err(LoadError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let (error, file) = (chain(&error), path.display().to_string());
                warn!(account, file, error, "ignoring the saved snapshot");
                None
            }
        }
    }

    fn read(&self, path: &Path, identity: &Identity) -> Result<Snapshot, LoadError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(LoadError::NotAFile);
        }
        let mut bytes = Vec::new();
        file.take(self.bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.bytes_max {
            return Err(LoadError::TooLarge(self.bytes_max));
        }
        Ok(format::decode(&bytes, identity)?)
    }

    /// Replaces the snapshot of `identity`: whoever reads it, whenever, finds the old one or the
    /// new one. Blocks on the disk.
    pub fn save(
        &self,
        identity: &Identity,
        listing: &Listing,
        listed_at: DateTime<Utc>,
    ) -> io::Result<()> {
        let path = self.path(&identity.account);
        let unfinished = path.with_extension("new");
        let bytes = format::encode(identity, listing, listed_at);
        let written = replace(&path, &unfinished, &bytes).and_then(|()| {
            // The rename itself is on disk only when the folder is.
            File::open(&self.directory)?.sync_all()
        });
        if written.is_err() {
            // It may hold what little room there is. That it cannot be removed is told already.
            drop(fs::remove_file(&unfinished));
        }
        written
    }

    /// One file for each name: what of it a file name can hold, and a checksum of the rest.
    fn path(&self, account: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let shown: String = account.chars().take(NAME_CHARS_MAX).map(plain).collect();
        let sum = format::checksum(account.as_bytes());
        self.directory.join(format!("{shown}-{sum:016x}.snapshot"))
    }
}

/// Writes a new file beside the old one and puts it in its directory.
fn replace(path: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left over where the last exporter was killed in the middle.
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // `create_new` follows no link that somebody laid there.
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

/// Whose snapshot the state of an account is.
pub fn identity(state: &AccountState) -> Identity {
    Identity {
        account: state.account.name.to_string(),
        base_url: state.account.base_url.to_string(),
    }
}
