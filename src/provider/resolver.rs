//! Looks up the API's name where that may take long, one lookup at a time, and knows whether an
//! answer is still missing.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use crate::provider::pending::Pending;

/// Lookups at once, of all accounts: half of the threads that files are read in too, so that a
/// silent DNS server keeps no token from being read.
static LOOKUPS: Semaphore = Semaphore::const_new(8);

/// The system's resolver. It cannot be interrupted, and a silent DNS server holds it for many
/// seconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    lookup: Arc<Pending<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// Whether a lookup was begun that nobody has seen the end of.
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
