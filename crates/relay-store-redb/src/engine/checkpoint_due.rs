//! When a checkpoint is due, and when requests must wait for it.

use crate::version::Version;

/// While a checkpoint is written, changes may grow to this multiple of the thresholds.
const PENDING_FACTOR: u32 = 2;

/// The thresholds that make a checkpoint due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointDue {
    /// Changed rows in memory.
    pub(crate) rows: usize,
    /// Bytes of the journal that a restart would replay.
    pub(crate) replay_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl CheckpointDue {
    /// Blobs count too: they are not replayed, but only a checkpoint lets them be removed.
    pub(super) fn is_due(&self, version: &Version) -> bool {
        self.is_exceeded(version, 1) || version.blob_bytes() >= self.replay_bytes
    }

    /// Whether further requests must wait for the checkpoint.
    pub(super) fn must_wait(&self, version: &Version) -> bool {
        self.is_exceeded(version, PENDING_FACTOR)
    }

    fn is_exceeded(&self, version: &Version, factor: u32) -> bool {
        let rows = self.rows.saturating_mul(factor as usize);
        let bytes = self.replay_bytes.saturating_mul(u64::from(factor));
        version.waiting_rows() >= rows || version.replay_bytes(self.segment_bytes) >= bytes
    }
}
