//! Starts the runtime: the number of threads, and whether the system provides them.

use std::io;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Threads that serve and poll. Two: one may be busy with a large listing while the other answers.
/// More would only cost memory: a 128-core host would get 128.
const WORKERS: usize = 2;

/// Threads for files and name resolution, which block.
const BLOCKING_MAX: usize = 16;

/// How long an idle blocking thread is kept: indefinitely. tokio panics if it has no such thread
/// left and the system refuses a new one.
const BLOCKING_LIFE: Duration = Duration::from_hours(24 * 365);

/// Required threads: the workers, one blocking thread, and the log's thread.
const NEEDED: usize = WORKERS + 2;

/// Why the runtime cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ThreadsError {
    /// The system provides fewer threads.
    #[error("cannot start {NEEDED} threads; allow more (TasksMax=, ulimit -u)")]
    TooFew(#[source] io::Error),
    /// tokio lacks another resource, most likely files.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

/// Starts the runtime. The first blocking thread starts with the first blocking task, which should
/// follow immediately, while a thread is certainly available.
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

/// Whether the system provides the required number of threads; otherwise the runtime and the log
/// would panic.
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
