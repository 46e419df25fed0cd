//! What the operating system allows this process: how many files it may open, and who may look
//! into its memory.

use std::error::Error;
use std::io;
use std::iter::successors;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::process::{getrlimit, set_dumpable_behavior, setrlimit};
use tracing::{debug, warn};

/// Files that are open for as long as the process runs, 13 without listeners, and for a moment: a
/// snapshot being saved, `/proc` being read, a reload, a connection that is turned away.
const FILES_OWN: u64 = 24;

/// For each account a connection to the API, and a second one tried beside it, or a file, or what
/// asks for an address.
const FILES_PER_ACCOUNT: u64 = 2;

/// Below so many files somebody has set a limit that was hardly meant for a server; 1,024 is usual.
const FILES_FEW: u64 = 128;

/// Raises the limit of open files as far as `wanted` connections need it and the system allows.
/// What is missing then is taken from the connections, never from the polls: returns how many
/// connections there may be, at least one.
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

/// The limit in force after an attempt to have `needed` files; `None` is none.
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
            debug!(error = error.to_string(), "cannot raise the limit of files");
            Some(limit)
        }
    }
}

/// How many of `wanted` connections fit under `limit` beside what is reserved. One always does: a
/// scrape is worth a poll that fails now and then.
fn share(limit: Option<u64>, reserve: u64, wanted: usize) -> usize {
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(reserve));
    usize::try_from(left).map_or(wanted, |left| left.clamp(1, wanted.max(1)))
}

/// Whether `error`, or what caused it, is that this process or the machine may open no more files.
pub fn is_lack_of_files(error: &(dyn Error + 'static)) -> bool {
    let lacks = |cause: &(dyn Error + 'static)| {
        let code = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        matches!(code, Some(libc::EMFILE | libc::ENFILE))
    };
    successors(Some(error), |cause| (*cause).source()).any(lacks)
}

/// Nobody but root may read the memory of this process, which holds tokens, and no crash writes it
/// to a disk.
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
