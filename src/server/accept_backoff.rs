//! How long to pause after a failed accept. Pure.

use std::io;
use std::time::Duration;

/// The pause after a failed accept, which doubles each time. Without a pause, an accept loop at the
/// limit of open files would use a whole core.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// This many lost connections in a row are not a coincidence, and cause pauses too.
const LOST_IN_A_ROW_MAX: u32 = 100;

/// The failure history of the accept loop.
#[derive(Debug)]
pub(super) struct AcceptBackoff {
    pause: Duration,
    lost_in_a_row: u32,
}

impl Default for AcceptBackoff {
    fn default() -> Self {
        Self {
            pause: PAUSE_MIN,
            lost_in_a_row: 0,
        }
    }
}

impl AcceptBackoff {
    /// A connection was accepted.
    pub(super) fn is_over(&mut self) {
        self.pause = PAUSE_MIN;
        self.lost_in_a_row = 0;
    }

    /// Handles a failed accept: returns the pause, or `None` if only that connection was lost and
    /// the next one may succeed immediately.
    pub(super) fn failed(&mut self, error: &io::Error) -> Option<Duration> {
        if is_about_the_peer(error) && self.lost_in_a_row < LOST_IN_A_ROW_MAX {
            self.lost_in_a_row += 1;
            return None;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

/// Errors of a connection that was lost before it was accepted, and errors that accept(2)
/// recommends treating the same way.
fn is_about_the_peer(error: &io::Error) -> bool {
    let lost = [
        libc::ECONNABORTED,
        libc::ECONNREFUSED,
        libc::ECONNRESET,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::EINTR,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::ENONET,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        // A firewall rejected it.
        libc::EPERM,
        libc::EPROTO,
        libc::ETIMEDOUT,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| lost.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(backoff: &mut AcceptBackoff, code: i32) -> Option<u128> {
        let pause = backoff.failed(&io::Error::from_raw_os_error(code));
        pause.map(|pause| pause.as_millis())
    }

    #[test]
    fn pauses_double_until_an_accept_succeeds() {
        let mut backoff = AcceptBackoff::default();
        for pause in [50, 100, 200, 400, 800, 1000, 1000] {
            assert_eq!(failed(&mut backoff, libc::EMFILE), Some(pause));
        }
        backoff.is_over();
        assert_eq!(failed(&mut backoff, libc::EMFILE), Some(50));
    }

    #[test]
    fn lost_connections_cost_no_pause_unless_all_are_lost() {
        let mut backoff = AcceptBackoff::default();
        for _ in 0..3 {
            for _ in 0..LOST_IN_A_ROW_MAX {
                assert_eq!(failed(&mut backoff, libc::EPROTO), None);
            }
            assert_eq!(failed(&mut backoff, libc::EPROTO), Some(50));
            backoff.is_over();
        }
    }
}
