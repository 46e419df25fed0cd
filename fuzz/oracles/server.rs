//! Raw bytes to the HTTP server: well-formed answers, no wait, and the next client is served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;
use std::time::Duration;

use api_key_exporter::app;
use api_key_exporter::config::{Config, Sources};
use api_key_exporter::server::listen;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::support::{self, TOKEN};

/// Longer than any answer takes on a busy machine, and shorter than the server's own limits.
const PATIENCE: Duration = Duration::from_secs(4);

/// Ends whatever the input leaves open: a head, a line of chunks, the connection.
const END: &[u8] = b"\r\n\r\nGET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// The statuses that the exporter answers with, and hyper's own.
const STATUSES: [&str; 12] = [
    "200", "202", "400", "401", "403", "404", "405", "413", "414", "429", "431", "503",
];

/// One exporter, which serves all inputs. Its account's API refuses connections.
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let text = "web.enable_lifecycle = true\n[[accounts]]\nname = \"a\"\ntoken_env = \"TOKEN\"\n\
        base_url = \"http://127.0.0.1:1\"";
    let sources = Sources {
        environment: [("TOKEN".to_owned(), TOKEN.to_owned())].into(),
        ..Sources::default()
    };
    let config = Config::parse(text, &sources).unwrap();
    // It lives as long as the process.
    let runtime = Box::leak(Box::new(Runtime::new().unwrap()));
    let _within = runtime.enter();
    let listener = listen::bind_one(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let tasks = runtime.block_on(app::spawn(&config, vec![listener], &stop));
    Box::leak(Box::new((tasks.unwrap(), stop)));
    address
});

/// Checks one connection's bytes.
pub fn check(bytes: &[u8]) {
    assert_answers(&exchange(&[bytes, END].concat()));
    let healthy = exchange(&END[4..]);
    assert!(healthy.starts_with(b"HTTP/1.1 200 "), "it no longer serves");
}

/// Everything that comes back until the server closes.
fn exchange(bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(*ADDRESS).expect("it takes connections");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut received = Vec::new();
    // A server that closes early resets the connection; what came before is kept.
    if stream.write_all(bytes).is_ok()
        && let Err(error) = stream.read_to_end(&mut received)
    {
        let is_reset = error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(is_reset, "no end of the answer: {error}");
    }
    received
}

/// A sequence of HTTP/1 answers. One to a HEAD request has a length and no body.
fn assert_answers(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            return; // cut by a reset
        };
        let head = std::str::from_utf8(&bytes[..end]).expect("a head of ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap();
        let code = ["HTTP/1.1 ", "HTTP/1.0 "];
        let code = code.iter().find_map(|version| status.strip_prefix(version));
        let code = code.unwrap_or_else(|| panic!("no status line: {status:?}"));
        assert!(STATUSES.contains(&&code[..3]), "{status:?}");
        let mut length = None;
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            if name.eq_ignore_ascii_case("content-length") {
                assert!(length.is_none(), "two lengths: {head}");
                length = Some(value.parse::<usize>().expect("a length"));
            }
        }
        let length = length.unwrap_or_else(|| panic!("no length: {head}"));
        let rest = &bytes[end + 4..];
        let has_body = !rest.is_empty() && !rest.starts_with(b"HTTP/1.");
        bytes = if has_body {
            rest.get(length..).unwrap_or_default()
        } else {
            rest
        };
        if has_body {
            let body = &rest[..length.min(rest.len())];
            support::assert_no_token("an answer", &String::from_utf8_lossy(body));
        }
    }
}
