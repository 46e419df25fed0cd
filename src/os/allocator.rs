//! Makes the system's allocator return memory that a poll leaves behind. The only unsafe code.
//!
//! A poll replaces all data, on whichever thread it runs. glibc keeps a pool for each thread, and
//! raises its thresholds with each large block that is freed: after a hundred polls of ten thousand
//! keys it held 50 % more memory than was in use. A single pool and fixed thresholds for returning
//! blocks to the system keep memory usage constant over years of uptime.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::state_store::Subscription;

/// Blocks of at least this size are mapped separately; glibc's initial default before it adapts.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: libc::c_int = 128 * 1024;

/// Unused memory at the end of the heap is returned to the system above this size. It exceeds the
/// needs of a scrape, so that scrapes do not request the same pages again and again.
#[cfg(target_env = "gnu")]
const KEPT_BYTES: libc::c_int = 1024 * 1024;

/// Must be called before other threads start. Does nothing without glibc.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "glibc has no other way, and no crate wraps this one"
    )]
    // SAFETY: mallopt takes two integers and is called before any other thread could allocate.
    unsafe {
        // They return 0 for an unknown option; memory is then kept, which is not an error.
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Delay between a change and the return of memory, and the minimum interval. The call takes time
/// in proportion to the heap, some milliseconds, so it must not follow each poll of thousands of
/// accounts.
const TRIM_PAUSE: Duration = Duration::from_secs(5);

/// Returns memory after state changes, until `stop`.
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

/// Returns pages without live data: after ten thousand changed keys, 7 of 52 MiB.
fn trim() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "glibc has no other way, and no crate wraps this one"
    )]
    // SAFETY: it takes an integer, and any thread may call it at any time.
    unsafe {
        // Returns whether any memory was returned, which does not matter.
        libc::malloc_trim(0);
    }
}
