//! What to do after an accept that failed: whether to pause, and whether to say so. Pure: times are
//! handed in.

use std::io;
use std::time::Duration;

/// The pause after a failed accept, doubling: at the limit of open files, an accept loop without
/// one eats a core.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often it is told, as a failing poll is.
const TOLD_EVERY: Duration = Duration::from_mins(15);

/// So many lost connections in a row are more than bad luck, and get pauses too.
const LOST_IN_A_ROW_MAX: u32 = 100;

/// What the accept loop remembers of its failures.
#[derive(Debug)]
pub(super) struct AcceptBackoff {
    pause: Duration,
    lost_in_a_row: u32,
    told_at: Option<Duration>,
    untold: u64,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// That connection was lost; the next one may be fine at once.
    GoOn,
    /// The trouble is ours: wait so long, and say so where there is a number, of failures that were
    /// not told.
    Pause(Duration, Option<u64>),
}

impl Default for AcceptBackoff {
    fn default() -> Self {
        Self {
            pause: PAUSE_MIN,
            lost_in_a_row: 0,
            told_at: None,
            untold: 0,
        }
    }
}

impl AcceptBackoff {
    /// A connection was accepted.
    pub(super) fn is_over(&mut self) {
        self.pause = PAUSE_MIN;
        self.lost_in_a_row = 0;
    }

    /// An accept failed, `uptime` after the start.
    pub(super) fn failed(&mut self, error: &io::Error, uptime: Duration) -> Next {
        if is_about_the_peer(error) && self.lost_in_a_row < LOST_IN_A_ROW_MAX {
            self.lost_in_a_row += 1;
            return Next::GoOn;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        let is_news = self
            .told_at
            .is_none_or(|at| uptime.saturating_sub(at) >= TOLD_EVERY);
        if !is_news {
            self.untold += 1;
            return Next::Pause(pause, None);
        }
        self.told_at = Some(uptime);
        Next::Pause(pause, Some(std::mem::take(&mut self.untold)))
    }
}

/// Errors of one connection that was lost before it was accepted, and those that accept(2) says to
/// treat like it.
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
        // A firewall forbade it.
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

    fn failed(trouble: &mut AcceptBackoff, code: i32, second: u64) -> Next {
        let error = io::Error::from_raw_os_error(code);
        trouble.failed(&error, Duration::from_secs(second))
    }

    #[test]
    fn pauses_double_and_are_told_once_in_fifteen_minutes() {
        let mut trouble = AcceptBackoff::default();
        let millis = Duration::from_millis;
        for (second, pause, told) in [
            (0, 50, Some(0)),
            (1, 100, None),
            (2, 200, None),
            (3, 400, None),
            (4, 800, None),
            (5, 1000, None),
            (899, 1000, None),
            (900, 1000, Some(6)),
        ] {
            let next = failed(&mut trouble, libc::EMFILE, second);
            assert_eq!(next, Next::Pause(millis(pause), told), "at {second}");
        }
        // A success shortens the pause, and is no reason to tell again.
        trouble.is_over();
        let next = failed(&mut trouble, libc::EMFILE, 901);
        assert_eq!(next, Next::Pause(millis(50), None));
    }

    #[test]
    fn lost_connections_cost_no_pause_unless_all_are_lost() {
        let mut trouble = AcceptBackoff::default();
        for round in 0..3 {
            for _ in 0..LOST_IN_A_ROW_MAX {
                assert_eq!(failed(&mut trouble, libc::EPROTO, round), Next::GoOn);
            }
            assert_ne!(failed(&mut trouble, libc::EPROTO, round), Next::GoOn);
            trouble.is_over();
        }
    }
}
