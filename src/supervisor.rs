//! Supervises a task that may panic: counts each panic, restarts it after a pause, and gives up if
//! it keeps crashing.

use std::collections::VecDeque;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

/// This many panics within the window are not a coincidence: a restarted process with fresh memory
/// is more likely to recover, and its supervisor notices the failure.
const DEATHS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_mins(10);

/// The pause before a restart, which doubles with each panic in the window.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Why a supervised task finally ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It completed on request.
    Stopped,
    /// It panicked repeatedly.
    KeepsDying,
}

/// Runs the task from `start` until it completes, or has panicked five times in ten minutes.
pub async fn supervise<F: Future<Output = ()> + Send + 'static>(
    task: &str,
    mut start: impl FnMut() -> F,
    panics: &IntCounter,
    stop: &CancellationToken,
) -> Ended {
    let born = Instant::now();
    let mut deaths = Deaths::default();
    loop {
        let running = AbortOnDropHandle::new(tokio::spawn(start()));
        match running.await {
            Err(error) if error.is_panic() => panics.inc(),
            Ok(()) | Err(_) => return Ended::Stopped,
        }
        let Some(pause) = deaths.another(born.elapsed()) else {
            error!(task, deaths = DEATHS_MAX, "crash-looping, giving up");
            return Ended::KeepsDying;
        };
        let restart_in = humantime::format_duration(pause).to_string();
        warn!(task, restart_in, "task panicked, restarting");
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            return Ended::Stopped;
        }
    }
}

/// The times of recent panics, on any monotonic clock.
#[derive(Debug, Default)]
struct Deaths(VecDeque<Duration>);

impl Deaths {
    /// Records a panic at `uptime`: returns the pause before the restart, or `None` to give up.
    fn another(&mut self, uptime: Duration) -> Option<Duration> {
        self.0.push_back(uptime);
        self.0.retain(|at| uptime.saturating_sub(*at) < WINDOW);
        let earlier = u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX);
        (self.0.len() < DEATHS_MAX).then(|| PAUSE_MIN * 2_u32.saturating_pow(earlier))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn five_deaths_in_ten_minutes_are_too_many() {
        let mut deaths = Deaths::default();
        let seconds = Duration::from_secs;
        for (at, pause) in [
            (0, Some(1)),
            (1, Some(2)),
            (300, Some(4)),
            (599, Some(8)),
            // The first two are outside of the window.
            (601, Some(4)),
            (602, Some(8)),
            (603, None),
        ] {
            assert_eq!(deaths.another(seconds(at)), pause.map(seconds), "at {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_counted_restarted_and_given_up_on() {
        let panics = IntCounter::new("panics", "Panics.").unwrap();
        let lives = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let start = Instant::now();
        let dying = || {
            let lives = lives.clone();
            async move {
                lives.fetch_add(1, Ordering::Relaxed);
                panic!("as the test wants it");
            }
        };
        let ended = supervise("test", dying, &panics, &stop).await;
        assert_eq!(ended, Ended::KeepsDying);
        assert_eq!((panics.get(), lives.load(Ordering::Relaxed)), (5, 5));
        assert_eq!(start.elapsed().as_secs(), 1 + 2 + 4 + 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_recovers_or_is_stopped_ends_well() {
        let panics = IntCounter::new("panics", "Panics.").unwrap();
        let stop = CancellationToken::new();
        let mut lives = 0;
        let once = || {
            lives += 1;
            let is_first = lives == 1;
            async move { assert!(!is_first, "as the test wants it") }
        };
        assert_eq!(
            supervise("test", once, &panics, &stop).await,
            Ended::Stopped
        );
        assert_eq!(panics.get(), 1);
        stop.cancel();
        let dying = || async { panic!("as the test wants it") };
        assert_eq!(
            supervise("test", dying, &panics, &stop).await,
            Ended::Stopped
        );
        assert_eq!(panics.get(), 2);
    }
}
