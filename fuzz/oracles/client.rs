//! Raw bytes as an API's answer: a listing or a clean failure, in time, from one connection, and
//! the token goes nowhere else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
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

/// An API that answers with the latest input, and what lists its keys.
struct Api {
    runtime: Runtime,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
    lister: Lister,
}

static API: LazyLock<Api> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let requests: Arc<AtomicUsize> = Arc::default();
    runtime.spawn(serve(listener, answer.clone(), requests.clone()));
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
        expected_env: None,
    };
    let tls = Arc::new(TlsConfigs::new(support::now));
    Api {
        lister: Lister::new(token, settings, tls, support::now),
        runtime,
        answer,
        requests,
    }
});

/// Checks one answer.
pub fn check(bytes: &[u8]) {
    bytes.clone_into(&mut API.answer.lock().unwrap());
    API.requests.store(0, Ordering::SeqCst);
    // The timer needs the runtime that it is made in.
    let attempt = async { timeout(DEADLINE * 8, API.lister.attempt(DEADLINE)).await };
    let answer = API
        .runtime
        .block_on(attempt)
        .expect("an attempt ends in time");
    let requests = API.requests.load(Ordering::SeqCst);
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

/// Reads each request's head, writes the answer and closes.
async fn serve(listener: TcpListener, answer: Arc<Mutex<Vec<u8>>>, requests: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let bytes = answer.lock().unwrap().clone();
        drop(stream.write_all(&bytes).await);
    }
}
