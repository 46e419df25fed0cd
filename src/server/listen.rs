//! Opens the listening sockets, or adopts those that systemd passes.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::SocketAddr as UnixAddress;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use crate::os::socket_activation::{self, PassedSocket, SocketError};

/// The accept backlog; more than `web.max_connections` is useless.
const BACKLOG: i32 = 1024;

/// Permissions of a Unix socket: its owner and its group may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// A listen address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `:10120`: all addresses of the machine, IPv6 and IPv4 if available.
    EveryAddress(u16),
    /// `127.0.0.1:10120`
    Tcp(SocketAddr),
    /// `unix:/run/exporter.sock`
    Unix(PathBuf),
    /// A Unix socket that systemd passed: a path, or an abstract name after an `@`.
    PassedUnix(PathBuf),
}

/// The text is not a valid listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    /// Parses an address in the common form of exporters; `localhost` is the only host name.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let port = |text: &str| text.parse().map_err(|_error| NotAnAddress);
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return path
                .is_absolute()
                .then(|| Self::Unix(path.into()))
                .ok_or(NotAnAddress);
        }
        if let Some(text) = text.strip_prefix(':') {
            return port(text).map(Self::EveryAddress);
        }
        let address = match text.strip_prefix("localhost:") {
            Some(text) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port(text)?),
            None => text.parse().map_err(|_error| NotAnAddress)?,
        };
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EveryAddress(port) => write!(f, ":{port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) | Self::PassedUnix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket of our own.
    Unix(UnixSocket),
    /// A Unix socket that systemd passed, which also owns its file.
    PassedUnix(UnixListener),
}

/// A listening Unix socket; its file is removed on drop.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// A TCP or Unix connection.
pub type Stream = Either<TcpStream, UnixStream>;

/// Why no listening socket is available.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is in use, does not belong to this machine, or is not allowed.
    #[error("cannot listen on {0}")]
    Bind(ListenAddress, #[source] io::Error),
    /// systemd passed no usable socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// A socket from systemd cannot be used.
    #[error("cannot use a socket passed by systemd")]
    Passed(#[source] io::Error),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Listener {
    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Either::Left(stream)),
            Self::Unix(UnixSocket { listener, .. }) | Self::PassedUnix(listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Either::Right(stream)),
        }
    }

    /// The bound address, with the port that the system chose; `None` if the system does not report
    /// it.
    pub fn address(&self) -> Option<ListenAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(ListenAddress::Tcp),
            Self::Unix(UnixSocket { path, .. }) => Some(ListenAddress::Unix(path.clone())),
            Self::PassedUnix(listener) => passed_path(&listener.local_addr().ok()?.into()),
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // A file that cannot be removed is replaced at the next start.
        drop(std::fs::remove_file(&self.path));
    }
}

/// Adopts the sockets that systemd passes. Must be called within a runtime.
pub fn from_systemd() -> Result<Vec<Listener>, ListenError> {
    let adopted = socket_activation::take()?
        .into_iter()
        .map(|socket| match socket {
            PassedSocket::Tcp(listener) => TcpListener::from_std(listener).map(Listener::Tcp),
            PassedSocket::Unix(listener) => {
                UnixListener::from_std(listener).map(Listener::PassedUnix)
            }
        });
    adopted
        .collect::<Result<_, _>>()
        .map_err(ListenError::Passed)
}

/// The path of a passed Unix socket, or an abstract name in systemd's notation.
fn passed_path(address: &UnixAddress) -> Option<ListenAddress> {
    let path = match address.as_abstract_name() {
        Some(name) => format!("@{}", String::from_utf8_lossy(name)).into(),
        None => address.as_pathname()?.to_owned(),
    };
    Some(ListenAddress::PassedUnix(path))
}

/// Listens on all `addresses`. Must be called within a runtime.
pub fn bind(addresses: &[ListenAddress]) -> Result<Vec<Listener>, ListenError> {
    addresses.iter().map(bind_to).collect()
}

/// Listens on an IP address and port. Must be called within a runtime.
pub fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    tcp(address, OnlyV6::AsTheSystemSays)
}

/// Listens on one address. Must be called within a runtime.
pub fn bind_to(address: &ListenAddress) -> Result<Listener, ListenError> {
    let listener = match address {
        ListenAddress::EveryAddress(port) => every_address(*port).map(Listener::Tcp),
        ListenAddress::Tcp(address) => bind_one(*address).map(Listener::Tcp),
        ListenAddress::Unix(path) | ListenAddress::PassedUnix(path) => {
            unix(path).map(Listener::Unix)
        }
    };
    listener.map_err(|error| ListenError::Bind(address.clone(), error))
}

/// Whether an IPv6 socket excludes IPv4.
#[derive(Clone, Copy)]
enum OnlyV6 {
    AsTheSystemSays,
    No,
}

/// Both families on one socket, or IPv4 if the machine has no IPv6.
fn every_address(port: u16) -> io::Result<TcpListener> {
    let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    match tcp(both, OnlyV6::No) {
        Err(error) if lacks_ipv6(&error) => {
            let ipv4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
            bind_one(ipv4)
        }
        outcome => outcome,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let codes = [
        libc::EAFNOSUPPORT,
        libc::EADDRNOTAVAIL,
        libc::EPROTONOSUPPORT,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| codes.contains(&code))
}

/// Listens on an address and port.
fn tcp(address: SocketAddr, only_v6: OnlyV6) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let OnlyV6::No = only_v6 {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait until the kernel drops the connections of the previous process.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Listens on a path, and replaces its file if no process listens on it any more.
fn unix(path: &Path) -> io::Result<UnixSocket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // No client can connect before the socket listens.
    std::fs::set_permissions(path, PermissionsExt::from_mode(UNIX_SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    let path = path.to_owned();
    Ok(UnixSocket { listener, path })
}

/// Removes a stale socket of an ended process; any other file stays and makes binding fail.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    // Non-blocking, because a process that does not accept would make it wait.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // A process listens there, or it cannot be determined.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_all_the_usual_forms() {
        for (text, expected) in [
            ("127.0.0.1:10120", Some("127.0.0.1:10120")),
            (":10120", Some(":10120")),
            ("[::1]:10120", Some("[::1]:10120")),
            ("[::]:10120", Some("[::]:10120")),
            ("localhost:10120", Some("127.0.0.1:10120")),
            ("0.0.0.0:0", Some("0.0.0.0:0")),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:a.sock", None),
            ("unix:", None),
            ("10120", None),
            ("127.0.0.1", None),
            ("127.0.0.1:99999", None),
            ("example.com:80", None),
        ] {
            let address = text.parse::<ListenAddress>().ok();
            let shown = address.map(|address| address.to_string());
            assert_eq!(shown.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_lack_of_ipv6_is_told_from_other_errors() {
        for (code, expected) in [
            (libc::EAFNOSUPPORT, true),
            (libc::EADDRNOTAVAIL, true),
            (libc::EADDRINUSE, false),
            (libc::EACCES, false),
        ] {
            assert_eq!(
                lacks_ipv6(&io::Error::from_raw_os_error(code)),
                expected,
                "{code}"
            );
        }
    }

    #[tokio::test]
    async fn every_address_is_both_families_by_one_socket() {
        let listener = bind_to(&ListenAddress::EveryAddress(0)).unwrap();
        let Some(ListenAddress::Tcp(address)) = listener.address() else {
            panic!("{listener:?}")
        };
        assert!(
            address.is_ipv6(),
            "does this machine have no IPv6? {address}"
        );
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            TcpStream::connect((ip, address.port())).await.unwrap();
            listener.accept().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let folder = std::env::temp_dir().join(format!("listen-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.sock");
        let address = ListenAddress::Unix(path.clone());
        // The state that a killed process leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = bind_to(&address).unwrap();
        assert_eq!(listener.address(), Some(address.clone()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, UNIX_SOCKET_MODE);
        let error = bind_to(&address).unwrap_err().to_string();
        assert_eq!(error, format!("cannot listen on unix:{}", path.display()));
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
        assert!(!path.exists(), "the socket is left behind");
        std::fs::write(&path, "precious").unwrap();
        bind_to(&address).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
