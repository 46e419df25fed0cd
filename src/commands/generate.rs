//! `completions` and `man`: output generated from the command line.

use crate::app::Exit;
use crate::cli::{self, Shell};

/// `completions`: the script for `shell`.
pub(super) fn completions(shell: Shell) -> Exit {
    Exit::Done(cli::completions(shell))
}

/// `man`: the manual page in roff.
pub(super) fn man() -> Exit {
    Exit::Done(cli::man())
}
