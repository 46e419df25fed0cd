//! Resolves the API's host name, one lookup at a time, and knows whether a lookup is still pending.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::provider::pending::Pending;

/// Concurrent lookups of all accounts: half of the blocking threads, which also read files, so that
/// a silent DNS server does not prevent tokens from being read.
static LOOKUPS: Semaphore = Semaphore::const_new(8);

/// The system's resolver. It cannot be interrupted, and a silent DNS server blocks it for many
/// seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    lookup: Arc<Pending<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// Whether a lookup is still pending.
    pub(super) fn is_waiting(&self) -> bool {
        self.lookup.is_waiting()
    }

    async fn look_up(&self, name: String) -> io::Result<Vec<SocketAddr>> {
        let look_up = move || Ok((name, 0).to_socket_addrs()?.collect());
        self.lookup.run(Some(&LOOKUPS), look_up).await?
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let found = this.look_up(name.as_str().to_owned()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
