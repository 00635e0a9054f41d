//! A consistent view of a running store: a read snapshot of the index, the files that it refers to,
//! and a pin that keeps the maintenance thread from removing them. It excludes what the journal has
//! after the checkpoint, so it replays nothing and blocks no request.

use std::cmp::Ordering;
use std::sync::Arc;

use relay_disk::Disk;

use crate::engine::shared::Shared;
use crate::error::StoreError;
use crate::format;
use crate::index::Index;
use crate::index::snapshot::IndexSnapshot;
use crate::io::pin::Pin;
use crate::io::throttle::IoThrottle;
use crate::naming::Naming;

/// A consistent view of a store, as of its last checkpoint.
pub struct Snapshot {
    pub(crate) index_snapshot: Arc<IndexSnapshot>,
    pub(crate) disk: Arc<dyn Disk>,
    /// The names of the files, and how many bytes of each belong to the snapshot.
    pub(crate) files: Vec<(String, u64)>,
    /// The size of the index file. A rewritten copy is no larger.
    pub(crate) index_bytes: u64,
    /// Slows a copy down in favour of requests.
    pub(crate) throttle: Arc<IoThrottle>,
    pub(crate) _pin: Pin,
}

impl Snapshot {
    /// How the store names recipients.
    #[must_use]
    pub fn naming(&self) -> Naming {
        self.index_snapshot.naming
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

/// Takes a snapshot of the last checkpoint. Only the maintenance thread may call it, because that
/// thread could otherwise remove files meanwhile.
pub(crate) fn of_checkpoint(shared: &Shared, index: &Index) -> Result<Snapshot, StoreError> {
    let pin = Pin::new(&shared.pins);
    let index_snapshot = Arc::clone(shared.version().index_snapshot());
    let files = files_of(shared, &index_snapshot);
    let (index_bytes, throttle) = (index.file_bytes()?, Arc::clone(&index.throttle));
    Ok(Snapshot { index_snapshot, disk: Arc::clone(&index.disk), files, index_bytes, throttle, _pin: pin })
}

/// The segments with live items, the checkpoint's own segment up to the checkpoint, and the live
/// blobs.
fn files_of(shared: &Shared, index_snapshot: &IndexSnapshot) -> Vec<(String, u64)> {
    let position = index_snapshot.position.unwrap_or_default();
    let (main, blobs) = (&shared.journal.main, &shared.journal.blobs);
    let segments = main.each_segment().filter_map(|segment| {
        let bytes = match segment.id.cmp(&position.segment) {
            Ordering::Less if index_snapshot.segments.contains_key(&segment.id) => segment.bytes,
            Ordering::Equal => position.offset.into(),
            _ => return None,
        };
        Some((main.file_name(segment.id), bytes))
    });
    let live_blobs = blobs.each_segment().filter_map(|file| {
        let segment = format::blob_segment(file.id)?;
        index_snapshot.segments.contains_key(&segment).then(|| (blobs.file_name(file.id), file.bytes))
    });
    segments.chain(live_blobs).collect()
}
