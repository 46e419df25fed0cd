//! Notifies systemd of the service state: ready, status, reloading, stopping, and watchdog
//! keep-alives while the poll loops are alive and the server answers. Protocol: `sd_notify(3)`.
//!
//! Notifications are best effort: without systemd this does nothing, and failed sends are ignored.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::ErrorKind::{NotFound, PermissionDenied};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::Sources;
use crate::event_log::WatchdogLog;
use crate::liveness::Liveness;
use crate::server::listen::ListenAddress;
use crate::state_store::{StateStore, Totals};

/// Timeout of a connection to our own server.
const SELF_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The shortest accepted watchdog period; the unit sets it, and each keep-alive costs a connection.
const WATCHDOG_MIN: Duration = Duration::from_millis(100);

/// How often the status is updated without a watchdog.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// The socket of systemd, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<(UnixDatagram, UnixAddress)>>);

/// The settings that systemd passes in the environment.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    /// Sends notifications to systemd.
    pub notifier: Notifier,
    /// systemd kills the process after this time without a keep-alive.
    pub watchdog: Option<Duration>,
}

impl Unit {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn new(sources: &Sources) -> Self {
        let number = |name| sources.variable(name).and_then(|text| text.parse().ok());
        let is_ours =
            number("WATCHDOG_PID").is_none_or(|pid: u64| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").map(Duration::from_micros);
        Self {
            notifier: Notifier::new(sources.variable("NOTIFY_SOCKET")),
            watchdog: watchdog.filter(|period| is_ours && *period >= WATCHDOG_MIN),
        }
    }
}

impl Notifier {
    /// `socket` is a path, or a name in the abstract namespace after an `@`.
    pub fn new(socket: Option<&str>) -> Self {
        let connect = |name: &str| {
            let address = match name.strip_prefix('@') {
                Some(name) => UnixAddress::from_abstract_name(name)?,
                None => UnixAddress::from_pathname(name)?,
            };
            let socket = UnixDatagram::unbound()?;
            // Sending must not block if the supervisor does not read.
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(Arc::new((socket, address)))
        };
        let socket = socket.filter(|name| !name.is_empty());
        Self(socket.and_then(|name| connect(name).ok()))
    }

    /// The sockets are bound, or a reload has ended.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// Shutdown has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=Stopping.");
    }

    fn status(&self, words: &str) {
        self.send(&format!("STATUS={words}"));
    }

    fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.0 else { return };
        let (socket, address) = &**socket;
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            debug!(error = error.to_string(), "cannot notify systemd");
        }
    }
}

/// Updates the status and sends watchdog keep-alives until `stop`. `own` is one of our addresses.
pub async fn report(
    unit: Unit,
    store: Arc<StateStore>,
    liveness: Liveness,
    own: Option<ListenAddress>,
    stop: CancellationToken,
) {
    if unit.notifier.0.is_none() {
        return stop.cancelled().await;
    }
    // Half of the period, as `sd_watchdog_enabled(3)` advises.
    let period = unit.watchdog.map_or(STATUS_EVERY, |period| period / 2);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = String::new();
    let mut log = WatchdogLog::default();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let status = status(store.totals());
        if status != told {
            unit.notifier.status(&status);
            told = status;
        }
        if unit.watchdog.is_none() {
            continue;
        }
        let loops_live = liveness.is_alive();
        let answers = match &own {
            Some(own) if loops_live => timeout(SELF_CONNECT_TIMEOUT.min(period), answers(own))
                .await
                .unwrap_or(false),
            _ => own.is_none(),
        };
        if loops_live && answers {
            unit.notifier.alive();
            log.sent();
        } else {
            log.withheld(loops_live, answers);
        }
    }
}

/// Whether our own server accepts connections. A rejection because the connection limit is reached
/// counts as an answer: a client that fills the server must not get it killed too.
async fn answers(own: &ListenAddress) -> bool {
    match own {
        ListenAddress::EveryAddress(port) => {
            let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), *port);
            ask(TcpStream::connect(address).await).await
        }
        ListenAddress::Tcp(address) => ask(TcpStream::connect(reachable(*address)).await).await,
        // If its file is gone, a restart creates it again.
        ListenAddress::Unix(path) => ask(UnixStream::connect(path).await).await,
        ListenAddress::PassedUnix(path) => match UnixStream::connect(dialable(path)).await {
            // Not for this user (SocketMode=), or not in this file system (PrivateTmp=): systemd's
            // socket units do this, and a restart would change nothing.
            Err(error) if matches!(error.kind(), PermissionDenied | NotFound) => true,
            connected => ask(connected).await,
        },
    }
}

/// An abstract name starts with a NUL byte.
fn dialable(path: &Path) -> Cow<'_, Path> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        Some(name) => Path::new(OsStr::from_bytes(&[b"\0", name].concat()))
            .to_owned()
            .into(),
        None => path.into(),
    }
}

/// Without `Host`, the answer is 400 whatever the web configuration file contains, and the request
/// does not count towards its rate limit.
async fn ask(connected: std::io::Result<impl AsyncRead + AsyncWrite + Unpin>) -> bool {
    let Ok(mut stream) = connected else {
        return false;
    };
    // A failed write or read means that the connection was rejected.
    let request = b"GET /-/healthy HTTP/1.1\r\nConnection: close\r\n\r\n";
    if stream.write_all(request).await.is_ok() {
        drop(stream.read(&mut [0; 64]).await);
    }
    true
}

/// An unspecified address is reachable through the loopback address.
fn reachable(mut own: SocketAddr) -> SocketAddr {
    if own.ip().is_unspecified() {
        own.set_ip(match own.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    own
}

fn status(totals: Totals) -> String {
    let Totals {
        accounts,
        failing,
        keys,
        ready: _,
    } = totals;
    format!("{keys} keys of {accounts} accounts; {failing} accounts failing")
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn only_systemd_can_restore_a_socket_that_it_passed() {
        let name = format!("systemd-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let of_abstract = UnixAddress::from_abstract_name(&name).unwrap();
        let of_abstract = std::os::unix::net::UnixListener::bind_addr(&of_abstract).unwrap();
        of_abstract.set_nonblocking(true).unwrap();
        let listeners = [
            UnixListener::bind(&path).unwrap(),
            UnixListener::from_std(of_abstract).unwrap(),
        ];
        // Rejects each connection.
        let servers = listeners.map(|listener| {
            tokio::spawn(async move {
                loop {
                    drop(listener.accept().await);
                }
            })
        });
        let own = ListenAddress::Unix(path.clone());
        let passed = ListenAddress::PassedUnix(path.clone());
        let of_abstract = ListenAddress::PassedUnix(format!("@{name}").into());
        for address in [&own, &passed, &of_abstract] {
            assert!(answers(address).await, "{address}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!answers(&own).await, "no client can reach it");
        assert!(answers(&passed).await, "a restart would change nothing");
        for server in servers {
            server.abort();
            drop(server.await);
        }
        assert!(!answers(&of_abstract).await, "it is closed");
    }
}
