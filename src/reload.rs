//! Requests a reload, from a signal or over HTTP, and reads the configuration again. All requests
//! that arrive during a reload share the next one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::SIGHUP;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, Problem};

/// Reads the configuration, as at start.
pub type Load = Arc<dyn Fn() -> Result<Config, Vec<Problem>> + Send + Sync>;

/// Maximum pending requests; further ones wait until there is room.
const WAITING_MAX: usize = 16;

/// Read timeout: files may be on a network that hangs.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The caller that waits for the outcome, if any.
type Waiting = Option<oneshot::Sender<Result<(), String>>>;

/// Sends reload requests.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Waiting>);

/// Receives reload requests.
pub struct Reloader {
    load: Load,
    requests: mpsc::Receiver<Waiting>,
}

/// Until the daemon handles signals, a SIGHUP would end the process. Ignoring it loses nothing: the
/// configuration has not been read yet. Must be called first.
pub fn survive_early_hangups() {
    // The flag that the handler sets is never read. If registration fails, the default handler
    // stays.
    drop(signal_hook::flag::register(SIGHUP, Arc::default()));
}

impl Reloads {
    /// Creates both ends; `load` reads the configuration.
    pub fn new(load: Load) -> (Self, Reloader) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        (Self(sender), Reloader { load, requests })
    }

    /// Requests a reload without waiting for it. If too many requests are pending, the next reload
    /// sees the same files.
    pub fn ask(&self) {
        drop(self.0.try_send(None));
    }

    /// Requests a reload and waits: `Err` describes what is wrong with the configuration.
    pub async fn request(&self) -> Result<(), String> {
        let stopping = || "the exporter is stopping".to_owned();
        let (sender, outcome) = oneshot::channel();
        let sent = self.0.send(Some(sender)).await;
        sent.map_err(|_closed| stopping())?;
        outcome.await.unwrap_or_else(|_closed| Err(stopping()))
    }
}

impl Reloader {
    /// Waits for a request; returns all callers that wait for the outcome. Never completes once all
    /// senders are gone.
    pub async fn asked(&mut self) -> Vec<oneshot::Sender<Result<(), String>>> {
        let Some(first) = self.requests.recv().await else {
            return std::future::pending().await;
        };
        let mut waiting = vec![first];
        while let Ok(another) = self.requests.try_recv() {
            waiting.push(another);
        }
        waiting.into_iter().flatten().collect()
    }

    /// Reads and checks the configuration on a thread that may block. The error names every
    /// problem, on one line.
    pub async fn load(&self) -> Result<Config, String> {
        let load = self.load.clone();
        let loading = tokio::task::spawn_blocking(move || load());
        match tokio::time::timeout(LOAD_TIMEOUT, loading).await {
            Ok(Ok(Ok(config))) => Ok(config),
            Ok(Ok(Err(problems))) => {
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                Err(words.join("; "))
            }
            Ok(Err(_panicked)) => Err("reading the configuration panicked".to_owned()),
            Err(_elapsed) => Err(format!(
                "reading the configuration took longer than {}",
                humantime::format_duration(LOAD_TIMEOUT)
            )),
        }
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
