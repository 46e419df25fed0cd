//! One connection: its TLS, its HTTP version, and its time limits.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::server::Server;
use crate::server::listen::Stream;
use crate::server::segments::Segments;
use crate::server::web_config;
use crate::telemetry::{Rejected, Task};

/// Time limit for a request head, and for everything before the first one, such as a TLS handshake.
/// Prometheus sends a head in one packet.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be used before it is asked to close, and then how long its last
/// response may take. Together 30 s: a reader that reads nothing holds its permit no longer.
const CONNECTION_LIFE: Duration = Duration::from_secs(20);
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// How long a connection may last after a stop. A reader receives a pending response in
/// milliseconds; a request that is incomplete by then needs no answer.
const DRAIN: Duration = Duration::from_secs(3);

/// How long after a stop a connection may take to send its first request. A client that connected
/// a moment before the stop, perhaps through a socket of systemd that outlives this process, sends
/// it at once. Less than the 500 ms that the shortest `web.shutdown_grace` leaves.
const FIRST_REQUEST: Duration = Duration::from_millis(400);

/// Largest request head. Prometheus sends some 500 bytes; hyper's minimum is 8 KiB.
const HEAD_BYTES_MAX: u32 = 16 * 1024;

/// Maximum concurrent requests per HTTP/2 connection. Prometheus sends one after the other.
const STREAMS_MAX: u32 = 16;

/// Maximum bytes of an HTTP/2 response that wait to be sent.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// More than a request of a browser or of Prometheus.
const REQUEST_BYTES: usize = 4 * 1024;

/// The answer to a client that speaks plain HTTP to a TLS server; the text of Go's server.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// When a connection ends.
struct Life {
    until: Instant,
    stop: CancellationToken,
}

/// A connection over which HTTP is spoken.
enum Opened {
    Plain(Stream),
    Encrypted(Box<TlsStream<Stream>>),
}

/// Serves a connection until it closes.
pub(super) async fn serve(server: &Arc<Server>, stream: Stream, stop: CancellationToken) {
    let until = Instant::now() + CONNECTION_LIFE;
    let opening = timeout(HEAD_TIMEOUT, open(server, stream));
    let opened = tokio::select! {
        opened = opening => opened,
        () = first_request_is_due(&stop) => return,
    };
    let opened = match opened {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(_elapsed) => return server.telemetry.http_rejected(Rejected::TlsHandshake).inc(),
    };
    let life = Life { until, stop };
    match opened {
        Opened::Plain(stream) => serve_http1(server, stream, false, life).await,
        Opened::Encrypted(stream) if web_config::is_http2(stream.get_ref().1.alpn_protocol()) => {
            serve_http2(server, stream, life).await;
        }
        Opened::Encrypted(stream) => serve_http1(server, stream, true, life).await,
    }
}

/// Waits until a connection without a request is to be closed because of a stop.
async fn first_request_is_due(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(FIRST_REQUEST).await;
}

/// Performs the steps before HTTP; `None` if the connection ends here.
async fn open(server: &Server, stream: Stream) -> Option<Opened> {
    if let Stream::Left(stream) = &stream {
        // Responses are written whole; waiting to fill a packet would only delay the last one.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(error = error.to_string(), "cannot set TCP_NODELAY");
        }
    }
    let Some(file) = &server.web_file else {
        return Some(Opened::Plain(stream));
    };
    // Without a certificate there is no answer; the reason is already logged.
    let Some(tls) = file.tls().await.ok()? else {
        return Some(Opened::Plain(stream));
    };
    if !starts_tls(&stream).await {
        refuse(stream).await;
        return None;
    }
    match TlsAcceptor::from(tls).accept(stream).await {
        Ok(stream) => Some(Opened::Encrypted(Box::new(stream))),
        Err(error) => {
            debug!(error = error.to_string(), "TLS handshake failed");
            server.telemetry.http_rejected(Rejected::TlsHandshake).inc();
            None
        }
    }
}

/// A client that does not read it needs no answer.
async fn refuse(mut stream: Stream) {
    // Unread input at close would make the kernel discard the answer.
    if stream.read(&mut [0; REQUEST_BYTES]).await.is_ok() {
        drop(stream.write_all(NOT_TLS).await);
    }
}

/// Whether the first byte starts a handshake. Read errors are left to the handshake.
async fn starts_tls(stream: &Stream) -> bool {
    let mut first = [0];
    // tokio can peek at TCP streams only.
    let mut peek = |fd: BorrowedFd<'_>| Ok(recv(fd, &mut first, RecvFlags::PEEK)?.0);
    let readable = Interest::READABLE;
    let peeked = match stream {
        Stream::Left(stream) => stream.async_io(readable, || peek(stream.as_fd())).await,
        Stream::Right(stream) => stream.async_io(readable, || peek(stream.as_fd())).await,
    };
    match peeked {
        Ok(1) => first == [HANDSHAKE],
        Ok(_) | Err(_) => true,
    }
}

async fn serve_http1(
    server: &Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    is_encrypted: bool,
    Life { until, stop }: Life,
) {
    let asked = CancellationToken::new();
    let answer = service_fn(async |request: Request<Incoming>| {
        asked.cancel();
        let mut response = server.answer(request, is_encrypted).await;
        if stop.is_cancelled() {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper's own panics before 1970 and after 9999; `answer` writes one.
        .auto_date_header(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX as usize)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // Stops after the first request, or when there was time for one.
    let stopped = async {
        asked.run_until_cancelled(first_request_is_due(&stop)).await;
        stop.cancelled().await;
    };
    let left = tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = stopped => DRAIN,
        () = sleep_until(until) => LAST_ANSWER,
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(left, connection).await {
        note(ended);
    }
}

async fn serve_http2(
    server: &Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    Life { until, stop }: Life,
) {
    let server = server.clone();
    // Each request is a separate task.
    let answer = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move {
            let _counted = server.telemetry.panic_guard(Task::Connection);
            Ok::<Response<Segments>, Infallible>(server.answer(request, true).await)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_send_buf_size(SEND_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let left = tokio::select! {
        ended = connection.as_mut() => return note(ended),
        () = stop.cancelled() => DRAIN,
        () = sleep_until(until) => LAST_ANSWER,
    };
    connection.as_mut().graceful_shutdown();
    if let Ok(ended) = timeout(left, connection).await {
        note(ended);
    }
}

/// The peer usually causes the end of a connection, so it is logged at debug level only.
fn note(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        debug!(error = error.to_string(), "a connection failed");
    }
}
