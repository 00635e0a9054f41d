//! Whether requests are worth sending, and why not: what `/ready` tells. The server itself knows of
//! its end alone; the rest it asks whoever has started it.

use std::fmt;
use std::sync::Arc;

/// Why a relay is not ready. That it drains, the server knows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// It has only begun to start.
    Starting,
    /// It reads again what was done before it was stopped, and has done so much of that.
    Replaying {
        /// From 0 to 100.
        percent: u8,
    },
    /// It stores nothing more until there is space again. Pulls go on.
    StorageFull,
    /// It is about to end.
    Draining,
}

/// Says whether a relay is ready. It is asked for each `/ready`, from any thread, and must not
/// wait.
#[derive(Clone)]
pub struct Readiness(Arc<dyn Fn() -> Result<(), Unready> + Send + Sync>);

impl Readiness {
    /// Asks `ready`.
    pub fn new(ready: impl Fn() -> Result<(), Unready> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ready))
    }

    /// For a relay that is ready from the start to its end.
    pub fn always() -> Self {
        Self::new(|| Ok(()))
    }

    pub(crate) fn check(&self) -> Result<(), Unready> {
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

/// As `details.reason` has it.
impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("starting"),
            Self::Replaying { percent } => write!(f, "replaying {percent}%"),
            Self::StorageFull => f.write_str("storage_full"),
            Self::Draining => f.write_str("draining"),
        }
    }
}
