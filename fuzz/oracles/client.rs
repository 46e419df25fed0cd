//! Raw bytes as an API's answer: a listing or a clean failure, in time, from one connection, and
//! the token goes nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api_key_exporter::provider::Provider;
use api_key_exporter::provider::http::Target;
use api_key_exporter::provider::lister::{Lister, ListerSettings};
use api_key_exporter::provider::tls::TlsConfigs;
use api_key_exporter::secret::TokenSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::support;

/// For one attempt. An answer that never ends is cut there.
const DEADLINE: Duration = Duration::from_millis(500);

/// Largest body, so that the fuzzer's inputs exceed it at times.
const BODY_BYTES_MAX: usize = 2 * 1024;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

/// The cache of TLS configurations, which plain HTTP does not use.
static TLS: LazyLock<Arc<TlsConfigs>> = LazyLock::new(|| Arc::new(TlsConfigs::new(support::now)));

/// Checks one answer.
pub fn check(bytes: &[u8]) {
    let requests: Arc<AtomicUsize> = Arc::default();
    let answer = RUNTIME.block_on(async {
        // An address of its own, so that no earlier attempt's connection is counted.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lister = lister(&format!("http://{}", listener.local_addr().unwrap()));
        let serving = tokio::spawn(serve(listener, bytes.to_vec(), requests.clone()));
        let answer = timeout(DEADLINE * 8, lister.attempt(DEADLINE, None)).await;
        serving.abort();
        answer.expect("an attempt ends in time")
    });
    let requests = requests.load(Ordering::SeqCst);
    assert!(requests <= 1, "{requests} requests for one attempt");
    match answer.result {
        Ok(listed) => {
            let keys = listed.listing.keys();
            assert!(keys.is_sorted_by(|a, b| a.id < b.id), "unsorted or twice");
            assert!(keys.len() <= 100);
        }
        Err(failure) => support::assert_clean_failure(&failure),
    }
}

/// What lists the keys of the API at `url`.
fn lister(url: &str) -> Lister {
    let token = TokenSource::Env {
        variable: "TOKEN".into(),
        token: support::token(),
    };
    let settings = ListerSettings {
        provider: Provider::BitGpt,
        target: Arc::new(Target {
            base_url: url.parse().unwrap(),
            proxy_url: None,
            timeout: DEADLINE,
            body_bytes_max: BODY_BYTES_MAX,
        }),
        ca_file: None,
        keys_max: 100,
        pages_max: 10,
        expected_env: None,
    };
    Lister::new(token, settings, TLS.clone(), None, support::now)
}

/// Reads each request's head, writes the answer and closes.
async fn serve(listener: TcpListener, answer: Vec<u8>, requests: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        // Any other program may have connected to this port.
        if String::from_utf8_lossy(&head).contains(support::TOKEN) {
            requests.fetch_add(1, Ordering::SeqCst);
        }
        drop(stream.write_all(&answer).await);
    }
}
