//! The threads: how many there are, and whether the system gives them.

use std::io;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Threads that serve and poll. Two: one may be busy with a large listing while the other answers.
/// More would only cost memory, and a 128-core host would get 128.
const WORKERS: usize = 2;

/// Threads for files and name resolution, which block.
const BLOCKING_MAX: usize = 16;

/// How long such a thread waits for work: for good. tokio panics where it has none left and the
/// system gives no other.
const BLOCKING_LIFE: Duration = Duration::from_hours(24 * 365);

/// Threads that there must be: the workers, one that blocks, and the log's.
const NEEDED: usize = WORKERS + 2;

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// The system gives fewer.
    #[error("cannot start {NEEDED} threads; allow more (TasksMax=, ulimit -u)")]
    TooFew(#[source] io::Error),
    /// tokio needs more than threads: files, most likely.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// Starts the runtime. Its first thread for what blocks starts with the first such task, which
/// should come at once, while there is surely room for it.
pub fn runtime() -> Result<Runtime, ThreadsError> {
    try_threads().map_err(ThreadsError::TooFew)?;
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_MAX)
        .thread_keep_alive(BLOCKING_LIFE)
        .enable_all()
        .build()
        .map_err(ThreadsError::Runtime)
}

/// Whether the system gives as many threads as needed at a time; the runtime and the log would
/// panic.
fn try_threads() -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let wait = || drop(gate.lock());
        let threads: io::Result<Vec<_>> = (0..NEEDED)
            .map(|_| thread::Builder::new().spawn_scoped(scope, wait))
            .collect();
        drop(closed);
        threads.map(drop)
    })
}
