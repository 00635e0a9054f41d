//! Looks up the host of a gateway. The system's look-up cannot be cancelled and has a thread of its
//! own, so few may run at a time, also of calls that have given up.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

/// How many look-ups run at a time.
const LOOKUPS_MAX: usize = 4;

/// The system's resolver, or another function that blocks.
#[derive(Clone)]
pub(super) struct Resolver {
    lookups: Arc<Semaphore>,
    lookup: fn(&str) -> io::Result<Vec<SocketAddr>>,
}

type Addresses = std::vec::IntoIter<SocketAddr>;

impl Resolver {
    pub(super) fn system() -> Self {
        Self::new(|host| Ok((host, 0).to_socket_addrs()?.collect()))
    }

    fn new(lookup: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Self {
        Self { lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)), lookup }
    }

    async fn resolve(self, host: String) -> io::Result<Addresses> {
        let permit = self.lookups.acquire_owned().await.map_err(io::Error::other)?;
        let found = tokio::task::spawn_blocking(move || {
            // The look-up continues after its call has given up, so it keeps its permit.
            let _permit = permit;
            (self.lookup)(&host)
        });
        Ok(found.await.map_err(io::Error::other)??.into_iter())
    }
}

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().resolve(name.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};

    use futures_util::FutureExt as _;

    use super::*;

    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static MAY_END: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

    /// A look-up that hangs until the test lets it end.
    fn hanging(_: &str) -> io::Result<Vec<SocketAddr>> {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        drop(MAY_END.1.wait_while(MAY_END.0.lock().unwrap(), |may_end| !*may_end).unwrap());
        Ok(Vec::new())
    }

    #[tokio::test]
    async fn lookups_that_hang_stay_few_even_if_their_calls_give_up() {
        let resolver = Resolver::new(hanging);
        for _ in 0..10 * LOOKUPS_MAX {
            // The call gives up at once, but its look-up has begun.
            assert!(resolver.clone().resolve("host".to_owned()).now_or_never().is_none());
        }
        assert_eq!(resolver.lookups.available_permits(), 0);
        *MAY_END.0.lock().unwrap() = true;
        MAY_END.1.notify_all();
        assert_eq!(resolver.clone().resolve("host".to_owned()).await.unwrap().len(), 0);
        let all = resolver.lookups.acquire_many(u32::try_from(LOOKUPS_MAX).unwrap()).await;
        drop(all.unwrap());
        assert_eq!(RUNNING.load(Ordering::SeqCst), LOOKUPS_MAX + 1, "the others never began");
    }
}
