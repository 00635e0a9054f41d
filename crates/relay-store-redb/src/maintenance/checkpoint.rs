//! Everything that changes the index: checkpoints, rewriting it into a denser file, removing rows,
//! and reopening it after a failure.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::shared::Shared;
use crate::engine::snapshot::{self, Snapshot};
use crate::error::{StoreError, caught};
use crate::format::Key;
use crate::index::snapshot::IndexSnapshot;
use crate::index::{Index, Written};
use crate::io::metrics::Stopwatch;
use crate::maintenance::Maintenance;

impl Maintenance {
    /// Writes the memtable to the index, and reclaims what is dead according to the new index.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        let outcome = caught(|| write_checkpoint(&self.shared, &mut self.index).map(drop));
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a checkpoint could not be written; retrying");
            self.shared.metrics.checkpoint_failed();
            self.reopen();
        }
        self.shared.note_checkpoint(outcome.clone());
        outcome?;
        self.remove_dead_segments();
        self.remove_some_dead_rows();
        self.rewrite_if_wasteful()
    }

    /// Writes a checkpoint if the writer requests one.
    pub(super) fn checkpoint_if_requested(&mut self) -> Result<(), StoreError> {
        if self.shared.throttle.is_checkpoint_requested() { self.checkpoint() } else { Ok(()) }
    }

    /// Writes a checkpoint, and a second one if the first does not include what is wanted. After a
    /// failed checkpoint, the first one only writes what that one should have written.
    pub(super) fn checkpoint_including(
        &mut self,
        is_included: impl Fn(&IndexSnapshot) -> bool,
    ) -> Result<(), StoreError> {
        self.checkpoint()?;
        if is_included(self.shared.version().index_snapshot()) { Ok(()) } else { self.checkpoint() }
    }

    /// Takes a snapshot of the store, with everything that is published by now.
    pub(super) fn snapshot(&mut self) -> Result<Snapshot, StoreError> {
        let wanted = self.shared.version().position();
        self.checkpoint_including(|index| index.position.unwrap_or_default() >= wanted)?;
        snapshot::of_checkpoint(&self.shared, &self.index)
    }

    /// Rewrites the index if it is mostly holes and the disk has space for both files. On failure
    /// the old index stays in use.
    fn rewrite_if_wasteful(&mut self) -> Result<(), StoreError> {
        let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
        if !self.index.is_wasteful(&index_snapshot, self.is_quiet)?
            || !self.index.has_space_for_another(&index_snapshot)?
        {
            return Ok(());
        }
        let rewritten = self.rewrite(index_snapshot);
        if let Err(error) = &rewritten {
            tracing::warn!(%error, "cannot rewrite the index");
        }
        // A checkpoint that failed between two steps has to be retried soon.
        if self.shared.is_in_trouble() { rewritten } else { Ok(()) }
    }

    /// Rewrites the index into a new file, with checkpoints between the steps when the writer
    /// requests them.
    pub(super) fn rewrite(&mut self, index_snapshot: Arc<IndexSnapshot>) -> Result<(), StoreError> {
        let (shared, mut checkpoint_failed) = (Arc::clone(&self.shared), false);
        shared.is_rewriting.store(true, Ordering::Relaxed);
        let rewritten = caught(|| {
            self.index.rewrite(index_snapshot, &mut |index| {
                if !shared.throttle.is_checkpoint_requested() {
                    return Ok(None);
                }
                // Set first, so that a panic counts as a failure.
                checkpoint_failed = true;
                let written = write_checkpoint(&shared, index)?;
                checkpoint_failed = false;
                shared.note_checkpoint(Ok(()));
                Ok(written)
            })
        });
        let outcome = rewritten.map(|old| {
            match caught(|| self.index.index_snapshot()) {
                Ok(index_snapshot) => install(&self.shared, Arc::new(index_snapshot)),
                Err(_) => self.reopen(),
            }
            old.give_back();
        });
        // Otherwise the old index is still good, and a snapshot may be reading it.
        if outcome.is_err() && (checkpoint_failed || self.index.needs_reopening()) {
            self.reopen();
        }
        if checkpoint_failed {
            self.shared.metrics.checkpoint_failed();
        }
        self.shared.is_rewriting.store(false, Ordering::Relaxed);
        self.shared.note_checkpoint(if checkpoint_failed { outcome.clone() } else { Ok(()) });
        outcome
    }

    /// Removes rows from the index that no view shows.
    pub(super) fn remove_rows(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let removed = caught(|| {
            self.index.remove(keys)?;
            self.index.index_snapshot()
        });
        let removed = removed.map(|index_snapshot| install(&self.shared, Arc::new(index_snapshot)));
        if let Err(error) = &removed {
            tracing::warn!(%error, "cannot remove unneeded rows from the index");
            self.reopen();
        }
        removed
    }

    pub(super) fn reopen(&mut self) {
        match caught(|| self.index.reopen()) {
            Ok(index_snapshot) => {
                install(&self.shared, Arc::new(index_snapshot));
                tracing::info!("the index was reopened");
            }
            Err(error) => tracing::error!(%error, "cannot reopen the index; retrying"),
        }
        self.reopened = Some(Stopwatch::start());
    }
}

/// Writes the memtable to the index. Returns what was written and the new index snapshot, or `None`
/// if there was nothing to write.
fn write_checkpoint(shared: &Shared, index: &mut Index) -> Result<Written, StoreError> {
    shared.throttle.checkpoint_begins();
    let sealed = shared.version_mut().seal();
    let Some(sealed) = sealed else { return Ok(None) };
    let (rows, stopwatch) = (sealed.memtable.weight(), Stopwatch::start());
    let written_bytes = index.checkpoint(&sealed)?;
    let index_snapshot = Arc::new(index.index_snapshot()?);
    install(shared, Arc::clone(&index_snapshot));
    shared.metrics.checkpoint(stopwatch);
    tracing::debug!(rows, written_bytes, "a checkpoint was written");
    Ok(Some((sealed, index_snapshot)))
}

/// Drops the old index snapshot without the lock, because closing a database takes time.
fn install(shared: &Shared, index_snapshot: Arc<IndexSnapshot>) {
    let old = shared.version_mut().install(index_snapshot);
    drop(old);
}
