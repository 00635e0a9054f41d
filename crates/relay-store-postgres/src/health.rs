//! Whether the database can serve, as the last attempts showed.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use relay_core::Unavailable;

use crate::error::PostgresError;

/// What is wrong with a database, if anything is. All parts of a shard share one.
#[derive(Default)]
pub(crate) struct Health {
    /// The number of the shard, for the log, if there are several.
    shard: Option<usize>,
    /// 0: nothing; otherwise a [`Unavailable`] in the order of `REASONS`, from 1.
    state: AtomicU8,
    is_full: AtomicBool,
    /// The last line that was logged, so that a long outage is logged once.
    logged: Mutex<Option<String>>,
}

const REASONS: [Unavailable; 2] = [Unavailable::Database, Unavailable::Standby];

impl Health {
    pub(crate) fn new(shard: Option<usize>) -> Self {
        Self { shard, ..Self::default() }
    }

    /// A transaction has succeeded.
    pub(crate) fn is_well(&self) {
        if self.state.load(Ordering::Relaxed) != 0 && self.state.swap(0, Ordering::Relaxed) != 0 {
            *self.logged() = None;
            tracing::info!(shard = self.shard, "the database serves again");
        }
    }

    /// The database did not serve because of this.
    pub(crate) fn failed(&self, error: &PostgresError) {
        self.set(Unavailable::Database, error);
    }

    /// The standby does not confirm a transaction.
    pub(crate) fn waits_for_standby(&self) {
        self.set(Unavailable::Standby, &"the standby does not confirm what was written");
    }

    /// Whether there is space for pushes. It is logged when that changes.
    pub(crate) fn set_full(&self, is_full: bool) {
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => tracing::warn!(
                    shard = self.shard,
                    "the database has no space left; pushes are refused until it has"
                ),
                false => tracing::info!(shard = self.shard, "the database has space again"),
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(crate) fn unavailable(&self) -> Option<Unavailable> {
        let index = self.state.load(Ordering::Relaxed).checked_sub(1)?;
        REASONS.get(usize::from(index)).copied()
    }

    fn set(&self, reason: Unavailable, detail: &dyn fmt::Display) {
        let index = REASONS.iter().position(|known| *known == reason).unwrap_or_default();
        self.state.store(u8::try_from(index + 1).unwrap_or(1), Ordering::Relaxed);
        let (mut logged, detail) = (self.logged(), detail.to_string());
        if logged.as_ref() != Some(&detail) {
            tracing::warn!(
                shard = self.shard,
                reason = %detail,
                "the database does not serve; requests are refused until it does"
            );
            *logged = Some(detail);
        }
    }

    fn logged(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
