//! Opens the listening sockets, or takes over those of systemd.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::os::socket_activation::{self, SocketError};

/// Connections that the kernel keeps waiting; more than `web.max_connections` makes no sense.
const BACKLOG: u32 = 1024;

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address that is in use, not of this machine, or not allowed.
    #[error("cannot listen on {0}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// systemd passed no usable socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A socket of systemd cannot be used.
    #[error("cannot use a socket passed by systemd")]
    HandedOver(#[source] std::io::Error),
}

/// Takes over the sockets that systemd opened. Must be called within a runtime.
pub fn from_systemd() -> Result<Vec<TcpListener>, ListenError> {
    let adopted = socket_activation::take()?
        .into_iter()
        .map(TcpListener::from_std);
    adopted
        .collect::<Result<_, _>>()
        .map_err(ListenError::HandedOver)
}

/// Listens on all `addresses`. Must be called within a runtime.
pub fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let bound = addresses
        .iter()
        .map(|address| bind_one(*address).map_err(|error| ListenError::Bind(*address, error)));
    bound.collect()
}

/// Listens on one address. Must be called within a runtime.
pub fn bind_one(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait until the kernel forgets the connections of the last process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
