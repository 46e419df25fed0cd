//! Resource limits of the process: open files, and access to its memory.

use std::error::Error;
use std::io;
use std::iter::successors;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::process::{getrlimit, set_dumpable_behavior, setrlimit};
use tracing::{debug, warn};

/// Files that stay open while the process runs, 13 without listeners, and short-lived ones: a
/// snapshot being saved, `/proc` being read, a reload, a rejected connection.
const FILES_OWN: u64 = 24;

/// Per account: one connection to the API, and a second one tried in parallel, or a file, or a
/// socket for name resolution.
const FILES_PER_ACCOUNT: u64 = 2;

/// A lower limit was hardly meant for a server; 1,024 is usual.
const FILES_FEW: u64 = 128;

/// Raises the open-file limit as far as `wanted` connections need and the system allows. If the
/// limit is too low, it reduces the connections, never the polls. Returns the number of allowed
/// connections, at least one.
pub fn connections(wanted: usize, listeners: usize, accounts: usize) -> usize {
    let reserve = FILES_OWN + listeners as u64 + FILES_PER_ACCOUNT * accounts as u64;
    let limit = raise(reserve + wanted as u64);
    let allowed = share(limit, reserve, wanted);
    let limit = limit.unwrap_or(u64::MAX);
    if allowed < wanted || limit < FILES_FEW {
        warn!(
            open_files_max = limit,
            needed = reserve + wanted as u64,
            connections_max = allowed,
            "open-file limit too low (ulimit -n, LimitNOFILE=): reducing max connections"
        );
    }
    allowed
}

/// The effective limit after an attempt to raise it to `needed` files; `None` means unlimited.
fn raise(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let limit = current?;
    let possible = needed.min(maximum.unwrap_or(u64::MAX));
    if possible <= limit {
        return Some(limit);
    }
    let raised = Rlimit {
        current: Some(possible),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(possible),
        Err(error) => {
            debug!(
                error = error.to_string(),
                "cannot raise the open-file limit"
            );
            Some(limit)
        }
    }
}

/// How many of `wanted` connections fit under `limit` in addition to the reserve. At least one: a
/// scrape is worth an occasional failed poll.
fn share(limit: Option<u64>, reserve: u64, wanted: usize) -> usize {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(reserve));
    usize::try_from(left).map_or(wanted, |left| left.clamp(1, wanted.max(1)))
}

/// Whether `error` or one of its causes is the open-file limit of the process or the machine.
pub fn is_lack_of_files(error: &(dyn Error + 'static)) -> bool {
    let lacks = |cause: &(dyn Error + 'static)| {
        let code = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        matches!(code, Some(libc::EMFILE | libc::ENFILE))
    };
    successors(Some(error), |cause| (*cause).source()).any(lacks)
}

/// Only root may read the memory of this process, which holds tokens, and a crash does not dump it
/// to disk.
pub fn keep_memory_private() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        debug!(
            error = error.to_string(),
            "cannot disable core dumps and tracing"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_give_way_to_polls_and_one_is_always_left() {
        for (limit, wanted, expected) in [
            (None, 256, 256),
            (Some(1024), 256, 256),
            (Some(283), 256, 256),
            (Some(282), 256, 255),
            (Some(64), 256, 37),
            (Some(64), 10, 10),
            (Some(28), 256, 1),
            (Some(16), 256, 1),
            (Some(0), 1, 1),
        ] {
            assert_eq!(share(limit, 27, wanted), expected, "{limit:?}, {wanted}");
        }
    }

    #[test]
    fn a_lack_of_files_is_seen_through_what_wraps_it() {
        let lack = || io::Error::from_raw_os_error(libc::EMFILE);
        assert!(is_lack_of_files(&lack()));
        assert!(is_lack_of_files(&io::Error::from_raw_os_error(
            libc::ENFILE
        )));
        let wrapped = crate::secret::TokenError::Unreadable("x".into(), lack());
        assert!(is_lack_of_files(&wrapped));
        assert!(!is_lack_of_files(&io::Error::from_raw_os_error(
            libc::EACCES
        )));
        assert!(!is_lack_of_files(&io::Error::other("x")));
    }
}
