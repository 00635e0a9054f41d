//! Whether the relay is ready for requests, as `/ready` reports it. The server itself knows only
//! about its shutdown. The caller of [`serve`](crate::serve) provides the rest.

use std::fmt;
use std::sync::Arc;

/// Why a relay is not ready. Its text is the `details.reason` of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The relay is starting.
    #[error("starting")]
    Starting,
    /// The relay is replaying the journal of its store.
    #[error("replaying {percent}%")]
    Replaying {
        /// The progress, from 0 to 100.
        percent: u8,
    },
    /// The store has no space for pushes. Pulls and acks still work.
    #[error("storage_full")]
    StorageFull,
    /// The database of the relay cannot be reached, or cannot be used.
    #[error("database")]
    Database,
    /// The database of the relay waits for its standby.
    #[error("database_standby")]
    Standby,
    /// The relay is shutting down. The server reports this by itself.
    #[error("draining")]
    Draining,
}

/// Reports whether a relay is ready. Every request for `/ready` calls it, on any thread, so it must
/// not block.
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Result<(), Unready> + Send + Sync>);

impl Readiness {
    /// Calls `ready` each time.
    pub fn new(ready: impl Fn() -> Result<(), Unready> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ready))
    }

    /// A relay that is always ready.
    pub fn always() -> Self {
        Self::new(|| Ok(()))
    }

    /// Whether the relay is ready now.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self) -> Result<(), Unready> {
        (self.0)()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::always()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.check()).finish()
    }
}
