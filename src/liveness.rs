//! Whether the poll loops are alive. Each promises when it will report next; a loop that breaks its
//! promise is stuck, whatever the API does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Added to every promise: a machine under load, or waking from sleep, is late and not dead.
const SLACK: Duration = Duration::from_secs(30);

/// The promises of all poll loops.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    /// Milliseconds from `start` until each loop is overdue.
    overdue: Arc<[AtomicU64]>,
}

/// One loop's promise.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    liveness: Liveness,
    index: usize,
}

impl Liveness {
    /// Watches `loops` loops, each of which has 30 s for its first promise.
    pub fn new(loops: usize) -> Self {
        let first = u64::try_from(SLACK.as_millis()).unwrap_or(u64::MAX);
        Self {
            start: Instant::now(),
            overdue: (0..loops).map(|_| AtomicU64::new(first)).collect(),
        }
    }

    /// The handle for loop number `index`.
    pub fn heartbeat(&self, index: usize) -> Heartbeat {
        Heartbeat {
            liveness: self.clone(),
            index,
        }
    }

    /// Whether every loop has kept its promise so far.
    pub fn is_alive(&self) -> bool {
        let now = millis(self.start.elapsed());
        self.overdue
            .iter()
            .all(|overdue| now <= overdue.load(Ordering::Relaxed))
    }
}

impl Heartbeat {
    /// Promises to be back by `at`.
    pub fn promise(&self, at: Instant) {
        let overdue = millis(
            at.saturating_duration_since(self.liveness.start)
                .saturating_add(SLACK),
        );
        if let Some(slot) = self.liveness.overdue.get(self.index) {
            slot.store(overdue, Ordering::Relaxed);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_breaks_its_promise_is_dead_and_may_come_back() {
        let liveness = Liveness::new(2);
        let (first, second) = (liveness.heartbeat(0), liveness.heartbeat(1));
        first.promise(Instant::now() + Duration::from_secs(60));
        second.promise(Instant::now() + Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert!(liveness.is_alive());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!liveness.is_alive());
        first.promise(Instant::now());
        assert!(liveness.is_alive());
    }
}
