//! The terminal, if there is one.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

/// The columns of the terminal behind `stream`; `None` if it is none, or does not know.
pub fn columns(stream: &(impl AsFd + IsTerminal)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Shows `words` on the last line of the terminal behind stderr. The next text replaces them,
/// because the cursor stays at their start. A failed write loses nothing that matters.
pub fn show_progress(words: &str) {
    drop(write!(std::io::stderr(), "\u{1b}[K{words}\r"));
}
