//! Everything that the store reports about itself, in one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_core::{Figures, FileUse, Usage};
use relay_journal::Reader;

use crate::engine::shared::Shared;
use crate::format::LiveCount;
use crate::io::journals::Journals;

/// All that the store tells.
pub(crate) fn figures(shared: &Shared, waiting_bytes: u64) -> Figures {
    let (seen, reading) = (&shared.metrics, shared.clock.read());
    let now_ms = reading.now.as_ms();
    let lag_ms = |since: &AtomicU64| Some(now_ms.saturating_sub(since.load(Ordering::Relaxed)));
    Figures {
        batch_requests: Some(seen.batch_requests.distribution()),
        sync_us: Some(seen.sync_us.distribution()),
        checkpoint_us: Some(seen.checkpoint_us.distribution()),
        checkpoints_failed: Some(seen.checkpoints_failed.load(Ordering::Relaxed)),
        delivery_age_ms: Some(seen.delivery_age_ms.distribution()),
        live: Some(live(shared)),
        waiting_bytes: Some(waiting_bytes),
        damaged_items: Some(shared.damaged_items.load(Ordering::Relaxed)),
        is_full: Some(shared.space.is_full()),
        files: files(&shared.journal, seen.index_bytes.load(Ordering::Relaxed)),
        sweep_lag_ms: lag_ms(&seen.swept_ms),
        reclaim_lag_ms: lag_ms(&seen.tidy_ms),
        clock_offset_ms: Some(reading.offset_ms()),
    }
}

/// What lives, by the counts of the segments. The lock is held for the changes since the last
/// checkpoint alone.
fn live(shared: &Shared) -> Usage {
    let version = shared.version();
    let (index_snapshot, change) = (Arc::clone(version.index_snapshot()), version.change());
    drop(version);
    let LiveCount { items, bytes } = sum(&index_snapshot.segments).changed(change);
    Usage { items, bytes }
}

fn sum(segments: &BTreeMap<u32, LiveCount>) -> LiveCount {
    segments.values().fold(LiveCount::default(), |sum, live| LiveCount {
        items: sum.items.saturating_add(live.items),
        bytes: sum.bytes.saturating_add(live.bytes),
    })
}

fn files(journals: &Journals, index_bytes: u64) -> Vec<FileUse> {
    let all = |kind, journal: &Reader| {
        let (files, bytes) = journal.usage();
        FileUse { kind, files, bytes }
    };
    vec![
        all("journal", &journals.main),
        all("payload", &journals.payloads),
        FileUse { kind: "index", files: 1, bytes: index_bytes },
    ]
}
