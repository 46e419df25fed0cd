//! Asking for a reload, from a signal or over HTTP, and reading the configuration again. All who
//! ask while one is under way share the next one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::SIGHUP;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, Problem};

/// Reads the configuration, as at start.
pub type Load = Arc<dyn Fn() -> Result<Config, Vec<Problem>> + Send + Sync>;

/// Requests that may wait; whoever comes later waits for a place.
const WAITING_MAX: usize = 16;

/// How long reading may take: files may be on a network that hangs.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Who waits for the outcome, if anybody.
type Waiting = Option<oneshot::Sender<Result<(), String>>>;

/// Where a reload is asked for.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Waiting>);

/// Where the requests arrive.
pub struct Reloader {
    load: Load,
    requests: mpsc::Receiver<Waiting>,
}

/// Until the daemon listens to signals, a SIGHUP would end the process. Nothing is lost by not
/// hearing it: the configuration is yet to be read. Call it first of all.
pub fn survive_early_hangups() {
    // Nobody looks at the flag that it sets. Without the handler it is as it was.
    drop(signal_hook::flag::register(SIGHUP, Arc::default()));
}

impl Reloads {
    /// Both ends; `load` reads the configuration.
    pub fn new(load: Load) -> (Self, Reloader) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        (Self(sender), Reloader { load, requests })
    }

    /// Asks for a reload and does not wait for it. Where too many wait already, the next reload
    /// sees the same files.
    pub fn ask(&self) {
        drop(self.0.try_send(None));
    }

    /// Asks for a reload and waits: `Err` says what is wrong with the configuration.
    pub async fn request(&self) -> Result<(), String> {
        let stopping = || "the exporter is stopping".to_owned();
        let (sender, outcome) = oneshot::channel();
        let sent = self.0.send(Some(sender)).await;
        sent.map_err(|_closed| stopping())?;
        outcome.await.unwrap_or_else(|_closed| Err(stopping()))
    }
}

impl Reloader {
    /// Waits until somebody asks; returns all who wait for the outcome. Pends for ever when nobody
    /// is left to ask.
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

    /// Reads and checks the configuration where waiting hurts nobody. The error names every
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
