//! Decides whether a rewrite of the index is worth it. redb reuses the holes in its file, but never
//! returns them to the disk.

use crate::error::{StoreError, caught};
use crate::format;
use crate::index::Index;
use crate::index::snapshot::IndexSnapshot;

/// A smaller file is never rewritten.
const SMALL_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The least that 1,000 bytes of rows take in a file without holes. Pages are between half full and
/// full, and the file grows by doubling. The last rewrite may have measured more.
const FILE_BYTES_PER_1000: u64 = 2000;

/// The bytes of a row in the table of segments, with its overhead.
const SEGMENT_ROW_BYTES: u64 = 24;

/// The file is rewritten when it exceeds this many times what its rows need. A file in which rows
/// come and go takes twice as much, and fills its holes.
const WASTEFUL: u64 = 3;
/// The same while no requests arrive. Not less: a new file may be half empty, as it grows by
/// doubling, so a rewrite would gain nothing.
const WASTEFUL_QUIET: u64 = 2;

/// While requests arrive, this many checkpoints pass between two rewrites, because no checkpoint
/// can begin during a rewrite.
const REWRITE_AFTER_CHECKPOINTS: u32 = 8;
/// The factor for a rewrite before that: the file is nearly all holes, so the rewrite is short.
const NEARLY_EMPTY: u64 = 12;

impl Index {
    /// Whether the file is mostly holes, and should be rewritten. `is_quiet`: no requests arrive.
    pub(crate) fn is_wasteful(
        &mut self,
        index_snapshot: &IndexSnapshot,
        is_quiet: bool,
    ) -> Result<bool, StoreError> {
        let bytes = self.file_bytes()?;
        if bytes <= SMALL_FILE_BYTES {
            return Ok(false);
        }
        let times = if is_quiet {
            WASTEFUL_QUIET
        } else if self.checkpoints_since_rewrite >= REWRITE_AFTER_CHECKPOINTS {
            WASTEFUL
        } else {
            NEARLY_EMPTY
        };
        let needed_bytes = self.needed_bytes(index_snapshot, bytes);
        tracing::debug!(bytes, needed_bytes, times, "compared the index file with what its rows need");
        Ok(bytes > needed_bytes.saturating_mul(times))
    }

    /// About how many bytes a file without holes would take.
    fn needed_bytes(&mut self, index_snapshot: &IndexSnapshot, file_bytes: u64) -> u64 {
        let size = index_snapshot.size;
        // A count over a corrupt index fails, and so would a rewrite: the file counts as full.
        let count = || caught(|| index_snapshot.count_rows_bytes()).unwrap_or(file_bytes);
        let rows_bytes =
            size.rows_bytes.unwrap_or_else(|| *self.counted_rows_bytes.get_or_insert_with(count));
        let segments_bytes = (index_snapshot.segments.len() as u64).saturating_mul(SEGMENT_ROW_BYTES);
        let per_1000 = size.file_bytes_per_1000.unwrap_or_default().max(FILE_BYTES_PER_1000);
        rows_bytes.saturating_add(segments_bytes).saturating_mul(per_1000) / 1000
    }

    /// Whether the disk has space for a second index. If the disk does not report its free space, a
    /// rewrite is tried.
    pub(crate) fn has_space_for_another(
        &mut self,
        index_snapshot: &IndexSnapshot,
    ) -> Result<bool, StoreError> {
        let file_bytes = self.file_bytes()?;
        let needed_bytes = self.needed_bytes(index_snapshot, file_bytes).saturating_add(SMALL_FILE_BYTES);
        let free_bytes = self.disk.free_bytes().ok().flatten();
        Ok(free_bytes.is_none_or(|free_bytes| free_bytes >= needed_bytes))
    }

    /// Stores how much of this new file, which has no holes, its rows take. Not in a small file,
    /// where the empty pages of the tables count.
    pub(super) fn store_density(&self, rows_bytes: u64) -> Result<(), StoreError> {
        let bytes = self.file_bytes()?;
        if bytes > SMALL_FILE_BYTES && rows_bytes > 0 {
            let tx = self.begin()?;
            let per_1000 = bytes.saturating_mul(1000) / rows_bytes;
            tx.open_table(format::META)?.insert(format::META_FILE_BYTES_PER_1000, per_1000)?;
            tx.commit()?;
        }
        Ok(())
    }
}
