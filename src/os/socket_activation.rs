//! Adopts listening sockets that systemd passes (`LISTEN_FDS`), for `--web.systemd-socket`.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::SockRef;

/// A listening socket that systemd opened.
#[derive(Debug)]
pub enum PassedSocket {
    /// `ListenStream=127.0.0.1:10120`
    Tcp(TcpListener),
    /// `ListenStream=/run/exporter.sock`
    Unix(UnixListener),
}

/// Why no socket is available.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// `LISTEN_FDS` and `LISTEN_PID` are missing, or meant for another process.
    #[error(
        "--web.systemd-socket: systemd handed over no socket; start the .socket unit, or leave the flag out"
    )]
    None,
    /// A socket is of another type, or a connection (`Accept=yes`).
    #[error(
        "--web.systemd-socket: socket number {0} is not a listening TCP or Unix stream socket; \
         use ListenStream= and Accept=no"
    )]
    Unusable(usize, #[source] io::Error),
}

/// Takes every passed socket, ready for tokio. Call it once.
pub fn take() -> Result<Vec<PassedSocket>, SocketError> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = take_one(&mut passed, index);
        sockets.extend(socket.map_err(|error| SocketError::Unusable(index, error))?);
    }
    if sockets.is_empty() {
        return Err(SocketError::None);
    }
    Ok(sockets)
}

fn take_one(passed: &mut ListenFd, index: usize) -> io::Result<Option<PassedSocket>> {
    // A socket of another type stays where it is.
    if let Ok(Some(listener)) = passed.take_unix_listener(index) {
        prepare(&SockRef::from(&listener))?;
        return Ok(Some(PassedSocket::Unix(listener)));
    }
    let Some(listener) = passed.take_tcp_listener(index)? else {
        return Ok(None);
    };
    prepare(&SockRef::from(&listener))?;
    Ok(Some(PassedSocket::Tcp(listener)))
}

fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    if !socket.is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)
}
