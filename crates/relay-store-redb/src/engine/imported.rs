//! The outcome of an import.

use relay_core::{ImportOutcome, Rejection};

/// The outcome of an import, counted by item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Items appended to their queues.
    pub stored: u64,
    /// Items that were queued already, or acked within the dedup window.
    pub known: u64,
    /// Known items that are queued with a different payload, which was kept.
    pub conflicts: u64,
    /// Items whose deadline had passed.
    pub expired: u64,
    /// Why the first rejected item was rejected. The import stops there, so that a retry keeps the
    /// order.
    pub refused: Option<Rejection>,
}

impl Imported {
    /// The number of processed items, whatever their outcome.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.stored.saturating_add(self.known).saturating_add(self.expired)
    }

    /// The sum of this outcome and the one of a later import.
    #[must_use]
    pub fn plus(self, later: Self) -> Self {
        Self {
            stored: self.stored.saturating_add(later.stored),
            known: self.known.saturating_add(later.known),
            conflicts: self.conflicts.saturating_add(later.conflicts),
            expired: self.expired.saturating_add(later.expired),
            refused: self.refused.or(later.refused),
        }
    }

    pub(super) fn note(&mut self, outcome: ImportOutcome) {
        match outcome {
            ImportOutcome::Stored => self.stored += 1,
            ImportOutcome::Known { conflict } => {
                self.known += 1;
                self.conflicts += u64::from(conflict);
            }
            ImportOutcome::Expired => self.expired += 1,
        }
    }
}
