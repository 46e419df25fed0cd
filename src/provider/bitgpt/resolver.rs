//! Looks up the API's name where that may take long, one lookup at a time, and knows whether an
//! answer is still missing.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

/// Lookups at once, of all accounts: half of the threads that files are read in too, so that a
/// silent DNS server keeps no token from being read.
static LOOKUPS: Semaphore = Semaphore::const_new(8);

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
        let running = match lookup.take() {
            Some(running) if !running.is_finished() => running,
            // One that ended while nobody asked tells how things were then.
            Some(_) | None => begin(name).await?,
        };
        let found = lookup.insert(running).await;
        *lookup = None;
        found?
    }
}

async fn begin(name: String) -> io::Result<Lookup> {
    let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    Ok(tokio::task::spawn_blocking(move || {
        let found = (name, 0).to_socket_addrs();
        drop(place);
        Ok(found?.collect())
    }))
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
