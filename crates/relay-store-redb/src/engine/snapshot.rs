//! A store as it was at one moment, while it goes on: a read snapshot of the index, the files that
//! this leads to, and a pin that keeps the maintenance thread from taking any of these away. What
//! is in the journal behind the index does not belong to it, so nothing is replayed and nobody
//! waits for anybody.

use std::sync::Arc;

use relay_disk::Disk;

use crate::engine::shared::Shared;
use crate::error::StoreError;
use crate::format;
use crate::index::Index;
use crate::index::snapshot::IndexSnapshot;
use crate::io::pin::Pin;
use crate::io::throttle::IoThrottle;

/// A store as it was at one moment.
pub struct Snapshot {
    pub(crate) index_snapshot: Arc<IndexSnapshot>,
    /// Where the files lie.
    pub(crate) disk: Arc<dyn Disk>,
    /// The files that belong to it, and how much of each does.
    pub(crate) files: Vec<(String, u64)>,
    /// How long the index is by now; written anew it is no longer.
    pub(crate) index_bytes: u64,
    /// How it leaves room for requests.
    pub(crate) throttle: Arc<IoThrottle>,
    pub(crate) _pin: Pin,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// What belongs to the checkpoint that `core` rests on. For the maintenance thread alone, which
/// takes no file away meanwhile.
pub(crate) fn of_checkpoint(shared: &Shared, index: &Index) -> Result<Snapshot, StoreError> {
    let pin = Pin::new(&shared.pins);
    let index_snapshot = Arc::clone(shared.version().index_snapshot());
    let files = files_of(shared, &index_snapshot);
    let (index_bytes, throttle) = (index.file_bytes()?, Arc::clone(&index.throttle));
    Ok(Snapshot { index_snapshot, disk: index.disk(), files, index_bytes, throttle, _pin: pin })
}

/// The segments in which something lives, the one that the journal goes on in, up to there, and the
/// payload files that live.
fn files_of(shared: &Shared, index_snapshot: &IndexSnapshot) -> Vec<(String, u64)> {
    let position = index_snapshot.position.unwrap_or_default();
    let (main, payloads) = (&shared.journal.main, &shared.journal.payloads);
    let segments = main.each_segment().filter_map(|segment| {
        let bytes = if segment.id == position.segment { u64::from(position.offset) } else { segment.bytes };
        let belongs = segment.id == position.segment
            || segment.id < position.segment && index_snapshot.segments.contains_key(&segment.id);
        belongs.then(|| (main.file_name(segment.id), bytes))
    });
    let large = payloads.each_segment().filter_map(|file| {
        let known = format::payload_segment(file.id)?;
        index_snapshot.segments.contains_key(&known).then(|| (payloads.file_name(file.id), file.bytes))
    });
    segments.chain(large).collect()
}
