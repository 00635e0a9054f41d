//! When a checkpoint is due, and when requests have to wait for it.

use crate::version::Version;

/// So many times what makes a checkpoint due, and no more, piles up in memory while one is written.
const PILE_UP: u32 = 2;

/// When a checkpoint is due: what waits for it in memory, and what a restart would replay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckpointDue {
    pub(crate) rows: usize,
    pub(crate) replay_bytes: u64,
    pub(crate) segment_bytes: u64,
}

impl CheckpointDue {
    /// Blobs are not replayed, but wait for a checkpoint to be given back.
    pub(crate) fn is_due(&self, version: &Version) -> bool {
        self.is_passed(version, 1) || version.payload_bytes() >= self.replay_bytes
    }

    /// So much that more has to wait.
    pub(crate) fn piled_up(&self, version: &Version) -> bool {
        self.is_passed(version, PILE_UP)
    }

    fn is_passed(&self, version: &Version, times: u32) -> bool {
        let rows = self.rows.saturating_mul(times as usize);
        let bytes = self.replay_bytes.saturating_mul(u64::from(times));
        version.waiting_rows() >= rows || version.replay_bytes(self.segment_bytes) >= bytes
    }
}
