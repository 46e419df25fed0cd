//! Blocking work that cannot be interrupted: one at a time, and never a second one for the same.

use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinError, JoinHandle};

/// Work that was given up goes on, and the next one to ask waits for its end instead of taking a
/// second thread.
#[derive(Debug)]
pub(super) struct Pending<T>(Mutex<Option<JoinHandle<T>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Pending<T> {
    /// Whether work was begun whose end nobody has seen.
    pub(super) fn is_waiting(&self) -> bool {
        let pending = self.0.try_lock();
        // Locked means that somebody waits.
        pending.map_or(true, |pending| pending.is_some())
    }

    /// The result of the work under way, or of `work` on a thread that may block, once `permits`
    /// has one, where there are some.
    pub(super) async fn run(
        &self,
        permits: Option<&'static Semaphore>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let mut pending = self.0.lock().await;
        let running = match pending.take() {
            Some(running) if !running.is_finished() => running,
            // The result of work that ended while nobody waited is old.
            Some(_) | None => {
                let permit = match permits {
                    // A closed semaphore, which none is, would only lift the limit.
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
