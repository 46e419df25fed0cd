//! Runs blocking work that cannot be interrupted: one job at a time per owner.

use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinError, JoinHandle};

/// Abandoned work continues to run. The next caller waits for its end instead of using a second
/// thread.
#[derive(Debug)]
pub(super) struct Pending<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Pending<T> {
    /// Whether work was started and its result was not collected yet.
    pub(super) fn is_waiting(&self) -> bool {
        let pending = self.0.try_lock();
        // Locked means that a caller is waiting.
        pending.map_or(true, |pending| pending.is_some())
    }

    /// The result of the work in progress, or of `work`, which runs on a blocking thread after it
    /// has a permit from `permits`, if any.
    pub(super) async fn run(
        &self,
        permits: Option<&'static Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let mut pending = self.0.lock().await;
        let running = match pending.take() {
            Some(running) if !running.is_finished() => running,
            // The result of abandoned work is outdated.
            Some(_) | None => {
                let permit = match permits {
                    // A closed semaphore would only lift the limit, and none is ever closed.
                    Some(permits) => permits.acquire().await.ok(),
                    None => None,
                };
                tokio::task::spawn_blocking(move || {
                    let done = work();
                    drop(permit);
                    done
                })
            }
        };
        let done = pending.insert(running).await;
        *pending = None;
        done
    }
}
