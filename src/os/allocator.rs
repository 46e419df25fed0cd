//! Tells the system's allocator to give back what a poll leaves behind. The only unsafe code.
//!
//! A poll replaces everything, in whichever thread it ran. glibc keeps a pool for each thread, and
//! learns from each large block that is freed to keep the next one: after a hundred polls of ten
//! thousand keys it held half as much again as was in use. One pool, and a fixed limit from which
//! on blocks go back to the system, keep an exporter that runs for years as small as on its first
//! day.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::state_store::Subscription;

/// Blocks from this size on are the system's own pages; glibc's default before it learns otherwise.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: libc::c_int = 128 * 1024;

/// Unused memory at the end of the heap from which on it goes back to the system: more than a
/// scrape takes, so that scrapes do not fetch the same pages again and again.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 1024 * 1024;

/// Must be called before other threads start. Where there is no glibc, there is nothing to tell.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "glibc has no other way, and no crate wraps this one"
    )]
    // SAFETY: mallopt takes two integers and is called before any other thread could allocate.
    unsafe {
        // They return 0 for an option that is unknown; then memory is kept, which is no error.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// How long after a change memory is given back, and how often at most. It takes time in proportion
/// to the heap, some milliseconds, so not after each poll of thousands of accounts.
const TRIM_PAUSE: Duration = Duration::from_secs(5);

/// Gives memory back after states changed, until `stop`.
pub async fn trim_after_changes(mut changes: Subscription, stop: CancellationToken) {
    let mut next = async || {
        changes.changed().await;
        sleep(TRIM_PAUSE).await;
        changes.skip();
    };
    while stop.run_until_cancelled(next()).await.is_some() {
        trim();
    }
}

/// Gives back the pages that hold nothing but holes: after ten thousand changed keys, 7 of 52 MiB.
fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "glibc has no other way, and no crate wraps this one"
    )]
    // SAFETY: it takes an integer, and any thread may call it at any time.
    unsafe {
        // Tells whether there was something to give back, which does not matter.
        libc::malloc_trim(0);
    }
}
