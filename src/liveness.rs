//! Whether the poll loops are alive. Each loop announces when it will report next; a loop that
//! misses its deadline is stuck, whatever the API does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// Added to every deadline: a machine under load, or waking from sleep, is late but not dead.
const SLACK: Duration = Duration::from_secs(30);

/// The deadlines of all poll loops.
#[derive(Clone, Debug)]
pub struct Liveness {
    start: Instant,
    /// Milliseconds from `start` until each loop is overdue; removed with the loop.
    overdue: Arc<Mutex<Vec<Weak<AtomicU64>>>>,
}

/// The deadline of one loop. Dropping it stops watching the loop.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    start: Instant,
    overdue: Arc<AtomicU64>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}

impl Liveness {
    /// Watches no loop yet.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            overdue: Arc::default(),
        }
    }

    /// Returns the handle for a new loop, which has 30 s until its first deadline.
    pub fn heartbeat(&self) -> Heartbeat {
        let heartbeat = Heartbeat {
            start: self.start,
            overdue: Arc::default(),
        };
        heartbeat.promise(Instant::now());
        let mut all = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        // Only when the list would have to grow: rarely, whatever the number of loops.
        if all.len() == all.capacity() {
            all.retain(|overdue| overdue.strong_count() > 0);
        }
        all.push(Arc::downgrade(&heartbeat.overdue));
        heartbeat
    }

    /// Whether every loop has met its deadline so far.
    pub fn is_alive(&self) -> bool {
        let now = millis(self.start.elapsed());
        let all = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watched = all.iter().filter_map(Weak::upgrade);
        watched.all(|overdue| now <= overdue.load(Ordering::Relaxed))
    }
}

impl Heartbeat {
    /// Promises the next report by `at`.
    pub fn promise(&self, at: Instant) {
        let overdue = at
            .saturating_duration_since(self.start)
            .saturating_add(SLACK);
        self.overdue.store(millis(overdue), Ordering::Relaxed);
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
        let liveness = Liveness::new();
        let (first, second) = (liveness.heartbeat(), liveness.heartbeat());
        first.promise(Instant::now() + Duration::from_secs(60));
        second.promise(Instant::now() + Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(90)).await;
        assert!(liveness.is_alive());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!liveness.is_alive());
        first.promise(Instant::now());
        assert!(liveness.is_alive());
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(!liveness.is_alive());
        drop(first);
        assert!(liveness.is_alive(), "nobody waits for a loop that is gone");
    }
}
