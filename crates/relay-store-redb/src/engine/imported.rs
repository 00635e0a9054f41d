//! The outcome of an import.

use relay_core::{ImportOutcome, Rejection};

/// What became of items that were imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// They lie at the end of their queues.
    pub stored: u64,
    /// They were there already, or were acked within the dedup window.
    pub known: u64,
    /// How many of those that are known lie there with another payload, which stays.
    pub conflicts: u64,
    /// Their time was over.
    pub expired: u64,
    /// Why the first item that was not taken was refused. Those behind it were not looked at, so
    /// that the order holds when it is tried again.
    pub refused: Option<Rejection>,
}

impl Imported {
    /// How many items were taken, whatever became of them.
    #[must_use]
    pub const fn items(&self) -> u64 {
        self.stored.saturating_add(self.known).saturating_add(self.expired)
    }

    /// Both together, in this order.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            stored: self.stored.saturating_add(other.stored),
            known: self.known.saturating_add(other.known),
            conflicts: self.conflicts.saturating_add(other.conflicts),
            expired: self.expired.saturating_add(other.expired),
            refused: self.refused.or(other.refused),
        }
    }

    pub(crate) fn note(&mut self, outcome: ImportOutcome) {
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
