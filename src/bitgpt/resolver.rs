//! Looks up the API's name where that may take long, one lookup at a time, and knows whether an
//! answer is still missing.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// The system's resolver. It cannot be interrupted, and a silent DNS server holds it for many
/// seconds; so a lookup that was given up goes on, and the next attempt waits for the same one
/// instead of taking a second thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Resolver {
    lookup: Arc<Mutex<Option<Lookup>>>,
}

type Lookup = JoinHandle<io::Result<Vec<SocketAddr>>>;

impl Resolver {
    /// Whether a lookup was begun that nobody has seen the end of.
    pub(super) fn is_waiting(&self) -> bool {
        let lookup = self.lookup.try_lock();
        // Whoever holds it is looking up.
        lookup.map_or(true, |lookup| lookup.is_some())
    }

    async fn look_up(&self, name: String) -> io::Result<Vec<SocketAddr>> {
        let mut lookup = self.lookup.lock().await;
        // One that ended while nobody asked tells how things were then.
        if lookup.as_ref().is_some_and(JoinHandle::is_finished) {
            *lookup = None;
        }
        let running = lookup.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || Ok((name, 0).to_socket_addrs()?.collect()))
        });
        let found = running.await;
        *lookup = None;
        found?
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
