//! A fake API on loopback, for the demo and for tests. It answers each request as a script
//! specifies, correctly or not. `shapes` has the answers of all providers except BitGPT.
//!
//! It writes HTTP by hand, because a server library refuses to send a wrong length or to stop in
//! the middle.

pub mod shapes;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Largest request head; the exporter's own client sends some 200 bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long a client may take to send its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Most requests recorded. A test makes far fewer; the limit bounds the memory of a long-running
/// demo.
const REQUESTS_MAX: usize = 10_000;

/// A request from a client.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head was complete.
    pub at: Instant,
    /// The method and the path.
    pub line: String,
    /// The headers, names in lower case, without the one that carries the token.
    pub headers: Vec<(String, String)>,
    /// Whether it carried the right token.
    pub is_authorized: bool,
}

/// The reply to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status, any number.
    pub status: u16,
    /// Further headers, written as they are.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the end of the body is marked.
    pub framing: Framing,
    /// Delay before the first byte.
    pub delay: Duration,
    /// Delay before each byte of the head.
    pub head_drip: Duration,
    /// Delay before each byte of the body.
    pub body_drip: Duration,
    /// The connection closes after this many bytes of the body.
    pub cut_after: Option<usize>,
    /// The body repeats endlessly.
    pub is_endless: bool,
}

/// How the end of a body is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, correct.
    Length,
    /// `Content-Length` with this value, correct or not.
    FalseLength(u64),
    /// One chunk.
    Chunked,
    /// The connection closes.
    Close,
}

impl Reply {
    /// A JSON body with a status.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::body(status, "application/json", body.to_string())
    }

    /// Any body with a status.
    pub fn body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
            framing: Framing::Length,
            delay: Duration::ZERO,
            head_drip: Duration::ZERO,
            body_drip: Duration::ZERO,
            cut_after: None,
            is_endless: false,
        }
    }

    /// A successful listing of `keys`, as the documentation shows it.
    pub fn listing(keys: &[Value]) -> Self {
        Self::json(
            200,
            &json!({
                "status": 200, "data": keys, "error": null, "log": null, "validator": null, "support_id": null,
                "message": "Resources listed successfully", "env": "development"
            }),
        )
    }

    /// The page of one key, as the documentation shows it.
    pub fn page(key: &Value) -> Self {
        Self::json(
            200,
            &json!({
                "status": 200, "data": key, "error": null, "log": null, "validator": null,
                "support_id": "support_0197c0ec-0000-7000-8000-000000000200",
                "message": "Resource retrieved successfully", "env": "development"
            }),
        )
    }

    /// An error envelope.
    pub fn error(status: u16, error: &str, support_id: &str) -> Self {
        Self::json(
            status,
            &json!({
                "status": status, "data": null, "error": error, "log": { "request_id": "req_1234567890" },
                "validator": null, "support_id": support_id, "message": null, "env": "development"
            }),
        )
    }

    /// The same reply with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(sent, _)| sent == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The id of the key if the request is for a key's page; `None` if it is for the listing.
    pub fn key_id(&self) -> Option<&str> {
        self.line.strip_prefix("GET /developers/api_keys/")
    }
}

/// The authorization that a request needs to reach the script.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// The name of the header, in lower case.
    pub header: String,
    /// The full value of the header.
    pub value: String,
    /// The reply to every other request.
    pub refusal: Reply,
}

impl Authorization {
    /// A bearer token, with BitGPT's refusal.
    pub fn bearer(token: &str) -> Self {
        Self {
            header: "authorization".to_owned(),
            value: format!("Bearer {token}"),
            refusal: Reply::error(
                401,
                "Authentication failed",
                "support_0197c0ec-0000-7000-8000-000000000401",
            ),
        }
    }
}

/// A running fake API. Stops when dropped.
#[derive(Debug)]
pub struct FakeApi {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl FakeApi {
    /// Listens on `address` and answers as `script` specifies. A request without the bearer token
    /// `token` gets 401 and does not reach the script.
    pub async fn start(
        address: SocketAddr,
        token: &str,
        script: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_with(address, Authorization::bearer(token), script).await
    }

    /// Listens on `address` and answers requests with this authorization as `script` specifies.
    pub async fn start_with(
        address: SocketAddr,
        authorization: Authorization,
        script: impl FnMut(&Request) -> Reply + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared {
            authorization,
            requests: requests.clone(),
            script: Mutex::new(Box::new(script)),
        });
        let accepting = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _peer)) => drop(tokio::spawn(shared.clone().serve(stream))),
                    // Temporarily out of file descriptors.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self {
            address,
            requests,
            accepting,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far, up to a limit.
    pub fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Shared {
    authorization: Authorization,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Mutex<Script>,
}

impl Shared {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let head = timeout(HEAD_TIMEOUT, read_head(&mut stream)).await;
        let Ok(Ok(head)) = head else { return };
        let request = self.parse(&head);
        {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            if requests.len() < REQUESTS_MAX {
                requests.push(request.clone());
            }
        }
        let reply = if request.is_authorized {
            let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
            script(&request)
        } else {
            self.authorization.refusal.clone()
        };
        // The client may have disconnected, which is not an error.
        drop(write(&mut stream, &reply).await);
    }

    fn parse(&self, head: &str) -> Request {
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        let mut is_authorized = false;
        let mut headers = Vec::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if name == self.authorization.header {
                is_authorized = value == self.authorization.value;
            } else {
                headers.push((name, value.to_owned()));
            }
        }
        let line = line.trim_end_matches(" HTTP/1.1").to_owned();
        Request {
            at: Instant::now(),
            line,
            headers,
            is_authorized,
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn write(stream: &mut TcpStream, reply: &Reply) -> io::Result<()> {
    sleep(reply.delay).await;
    let mut head = vec![
        format!("HTTP/1.1 {} Fake", reply.status),
        "Connection: close".to_owned(),
    ];
    head.extend(
        reply
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}")),
    );
    head.push(match reply.framing {
        Framing::Length => format!("Content-Length: {}\r\n\r\n", reply.body.len()),
        Framing::FalseLength(length) => format!("Content-Length: {length}\r\n\r\n"),
        Framing::Chunked => format!(
            "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            reply.body.len()
        ),
        Framing::Close => "\r\n".to_owned(),
    });
    let head = head.join("\r\n");
    drip(stream, head.as_bytes(), reply.head_drip).await?;
    let body = reply
        .body
        .get(..reply.cut_after.unwrap_or(usize::MAX).min(reply.body.len()))
        .unwrap_or_default();
    drip(stream, body, reply.body_drip).await?;
    if reply.is_endless {
        loop {
            drip(stream, body, reply.body_drip).await?;
        }
    }
    if reply.framing == Framing::Chunked && reply.cut_after.is_none() {
        stream.write_all(b"\r\n0\r\n\r\n").await?;
    }
    stream.shutdown().await
}

async fn drip(stream: &mut TcpStream, bytes: &[u8], pause: Duration) -> io::Result<()> {
    if pause.is_zero() {
        return stream.write_all(bytes).await;
    }
    for byte in bytes {
        sleep(pause).await;
        stream.write_u8(*byte).await?;
    }
    Ok(())
}
