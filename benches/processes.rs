//! Processes and a client that the benches share.
#![allow(dead_code, reason = "no bench needs all of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A connection, encrypted or not.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// An HTTP client as plain as can be, with one connection that it keeps.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<Box<dyn Stream>>,
    tls: Option<Arc<ClientConfig>>,
    /// Lines of each request.
    header: String,
    buffer: Vec<u8>,
    /// Of the last answer.
    status: u16,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::with(address, None, "")
    }

    /// One that connects by TLS, or adds lines to each request.
    pub(crate) fn with(address: SocketAddr, tls: Option<Arc<ClientConfig>>, header: &str) -> Self {
        Self {
            address,
            stream: None,
            tls,
            header: header.to_owned(),
            buffer: vec![0; 1 << 20],
            status: 0,
        }
    }

    /// Closes the connection.
    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Opens a connection; the handshake of TLS comes with the first request.
    fn connect(&mut self) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        self.stream = Some(match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = "localhost".try_into().unwrap();
                let session = ClientConnection::new(tls.clone(), name).unwrap();
                Box::new(StreamOwned::new(session, stream))
            }
        });
    }

    /// How long a GET took to its last byte, and the body. A connection that the server ended is
    /// opened anew.
    pub(crate) fn get(&mut self, is_gzip: bool) -> (Duration, Vec<u8>) {
        self.get_path("/metrics", is_gzip)
    }

    /// The status of the answer for `path`.
    pub(crate) fn status(&mut self, path: &str) -> u16 {
        self.get_path(path, false);
        self.status
    }

    fn get_path(&mut self, path: &str, is_gzip: bool) -> (Duration, Vec<u8>) {
        for _ in 0..3 {
            if self.stream.is_none() {
                self.connect();
            }
            let start = Instant::now();
            if let Some(body) = self.attempt(path, is_gzip) {
                return (start.elapsed(), body);
            }
            self.stream = None;
        }
        panic!("{} does not answer", self.address);
    }

    fn attempt(&mut self, path: &str, is_gzip: bool) -> Option<Vec<u8>> {
        let stream = self.stream.as_mut()?;
        let encoding = if is_gzip {
            "Accept-Encoding: gzip\r\n"
        } else {
            ""
        };
        let header = &self.header;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n{header}{encoding}\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut filled = 0;
        let head_len = loop {
            let read = stream
                .read(&mut self.buffer[filled..])
                .ok()
                .filter(|read| *read > 0)?;
            filled += read;
            if let Some(at) = self.buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break at + 4;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..head_len]).to_lowercase();
        self.status = head.get(9..12)?.parse().ok()?;
        assert!(path != "/metrics" || self.status == 200, "{head}");
        let (_, rest) = head.split_once("content-length: ").unwrap();
        let length: usize = rest.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(&self.buffer[head_len..filled]);
        while body.len() < length {
            let read = stream
                .read(&mut self.buffer)
                .ok()
                .filter(|read| *read > 0)?;
            body.extend_from_slice(&self.buffer[..read]);
        }
        Some(body)
    }
}

/// A child process; killed at the end.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// User and system time so far; the kernel counts hundredths of a second.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not killed: nginx would leave its workers behind.
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

pub(crate) fn exporter() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api-key-exporter"));
    command.env_clear();
    command
}

pub(crate) fn myself() -> Command {
    let path: PathBuf = std::env::current_exe().unwrap();
    Command::new(path)
}

pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Waits until `address` answers `/metrics` with 200.
pub(crate) fn wait_for(address: SocketAddr, limit: Duration) {
    let start = Instant::now();
    loop {
        if TcpStream::connect(address).is_ok() {
            let mut client = Client::new(address);
            client.connect();
            if client.attempt("/metrics", false).is_some() {
                return;
            }
        }
        assert!(
            start.elapsed() < limit,
            "{address} does not answer (is nginx installed?)"
        );
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Waits until `address` accepts connections.
pub(crate) fn listens(address: SocketAddr, limit: Duration) {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(start.elapsed() < limit, "{address} does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Runs `task`, which never ends, on a runtime of its own.
pub(crate) fn wait_for_ever(task: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(task);
}
