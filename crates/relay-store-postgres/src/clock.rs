//! The time by which items expire, and the monotonic clock for timeouts. The only place in this
//! crate that reads a clock.

use std::sync::Arc;

use relay_core::{Clock, Page, StoreClock, Timestamp};
use tokio::time::Instant;

use crate::job::Outcome;

/// By whose time items expire.
pub(crate) enum StoreTime {
    /// The database's, which all relays share. This machine's clock only tells whether it can be
    /// right.
    Database(Arc<dyn Clock>),
    /// A clock of this process, for tests.
    Given(StoreClock),
}

impl StoreTime {
    pub(crate) fn given_by(clock: Arc<dyn Clock>) -> Self {
        Self::Given(StoreClock::new(clock))
    }

    /// The time for a statement; `None`: the database reads its own clock.
    pub(crate) fn given(&self) -> Option<Timestamp> {
        match self {
            Self::Database(_) => None,
            Self::Given(clock) => Some(clock.now()),
        }
    }

    /// The time of this machine, if the database has its own.
    pub(crate) fn machine(&self) -> Option<Timestamp> {
        match self {
            Self::Database(machine) => Some(machine.now()),
            Self::Given(_) => None,
        }
    }

    /// Converts the times of a page for clients.
    pub(crate) fn page_outside(&self, page: Page) -> Page {
        match self {
            Self::Database(_) => page,
            Self::Given(clock) => page.outside(clock.read()),
        }
    }

    /// Converts the times of an outcome for clients.
    pub(crate) fn outside(&self, outcome: Outcome) -> Outcome {
        match (self, outcome) {
            (Self::Given(clock), Outcome::Push(Ok(pushed))) => {
                Outcome::Push(Ok(pushed.outside(clock.read())))
            }
            (_, outcome) => outcome,
        }
    }
}

/// The current instant.
#[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
