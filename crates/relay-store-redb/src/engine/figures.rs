//! Collects the statistics of the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_core::{Figures, FileUse, Usage};
use relay_journal::Reader;

use crate::engine::shared::Shared;
use crate::format::LiveCount;
use crate::io::journals::Journals;

pub(crate) fn figures(shared: &Shared, waiting_bytes: u64) -> Figures {
    let (metrics, reading) = (&shared.metrics, shared.clock.read());
    let now_ms = reading.now.as_ms();
    let lag_ms = |since: &AtomicU64| Some(now_ms.saturating_sub(since.load(Ordering::Relaxed)));
    Figures {
        batch_requests: Some(metrics.batch_requests.distribution()),
        sync_us: Some(metrics.sync_us.distribution()),
        checkpoint_us: Some(metrics.checkpoint_us.distribution()),
        checkpoints_failed: Some(metrics.checkpoints_failed.load(Ordering::Relaxed)),
        delivery_age_ms: Some(metrics.delivery_age_ms.distribution()),
        live: Some(live(shared)),
        waiting_bytes: Some(waiting_bytes),
        damaged_items: Some(shared.damaged_items.load(Ordering::Relaxed)),
        is_full: Some(shared.space.is_full()),
        files: files(&shared.journal, metrics.index_bytes.load(Ordering::Relaxed)),
        space: Some(shared.space.figures()),
        sweep_lag_ms: lag_ms(&metrics.swept_ms),
        reclaim_lag_ms: lag_ms(&metrics.reclaimed_ms),
        clock_offset_ms: Some(reading.offset_ms()),
        wakes: None,
        database: None,
    }
}

/// The live items, from the counts of the segments. It holds the lock only to sum up the changes
/// since the last checkpoint.
fn live(shared: &Shared) -> Usage {
    let version = shared.version();
    let (index_snapshot, change) = (Arc::clone(version.index_snapshot()), version.change());
    drop(version);
    let checkpointed = index_snapshot.segments.values().fold(LiveCount::default(), |sum, live| LiveCount {
        items: sum.items.saturating_add(live.items),
        bytes: sum.bytes.saturating_add(live.bytes),
    });
    let LiveCount { items, bytes } = checkpointed.changed(change);
    Usage { items, bytes }
}

fn files(journals: &Journals, index_bytes: u64) -> Vec<FileUse> {
    let file_use = |kind, journal: &Reader| {
        let (files, bytes) = journal.usage();
        FileUse { kind, files, bytes }
    };
    vec![
        file_use("journal", &journals.main),
        file_use("payload", &journals.blobs),
        FileUse { kind: "index", files: 1, bytes: index_bytes },
    ]
}
