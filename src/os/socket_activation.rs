//! Takes over listening sockets that systemd passes (`LISTEN_FDS`), for `--web.systemd-socket`.

use std::io;
use std::net::TcpListener;

use listenfd::ListenFd;

/// Why no socket is available.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// `LISTEN_FDS` and `LISTEN_PID` are missing, or meant for another process.
    #[error(
        "--web.systemd-socket: systemd handed over no socket; start the .socket unit, or leave the flag out"
    )]
    None,
    /// A socket is not a listening TCP socket.
    #[error("--web.systemd-socket: socket number {0} is no listening TCP socket")]
    Unusable(usize, #[source] io::Error),
}

/// Takes every passed socket, ready for tokio. Call it once.
pub fn take() -> Result<Vec<TcpListener>, SocketError> {
    let mut handed_over = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed_over.len() {
        let unusable = |error| SocketError::Unusable(index, error);
        if let Some(listener) = handed_over.take_tcp_listener(index).map_err(unusable)? {
            listener.set_nonblocking(true).map_err(unusable)?;
            listeners.push(listener);
        }
    }
    if listeners.is_empty() {
        return Err(SocketError::None);
    }
    Ok(listeners)
}
