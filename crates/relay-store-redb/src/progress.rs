//! The progress of the replay while a store opens. If the journal cannot be listed, it reports
//! nothing; it never makes the opening fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_disk::Disk;
use relay_journal::{Frame, Location, Position, Segment};

/// Progress of a store that opens. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct OpenProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many bytes of the journal there are to replay; 0 while unknown.
    bytes: AtomicU64,
    replayed: AtomicU64,
}

/// Updates the progress during a replay.
#[derive(Debug)]
pub(crate) struct ReplayObserver {
    progress: OpenProgress,
    /// The segments to replay, ascending.
    segments: Vec<Segment>,
    from: Position,
}

impl OpenProgress {
    /// The replayed part of the journal, in percent; `None` before the replay begins.
    pub fn percent(&self) -> Option<u8> {
        let bytes = self.0.bytes.load(Ordering::Relaxed);
        let replayed = self.0.replayed.load(Ordering::Relaxed).min(bytes);
        let percent = u128::from(replayed).saturating_mul(100).checked_div(bytes.into())?;
        u8::try_from(percent).ok()
    }
}

impl ReplayObserver {
    /// Computes how much there is to replay from `from` on.
    pub(crate) fn new(progress: &OpenProgress, disk: &Arc<dyn Disk>, from: Position) -> Self {
        let name = relay_journal::Options::default().name;
        // If the disk fails here, the opening fails too and reports it.
        let mut segments = relay_journal::segments(Arc::clone(disk), name).unwrap_or_default();
        segments.retain(|segment| segment.id >= from.segment);
        let observer = Self { progress: progress.clone(), segments, from };
        observer.progress.0.bytes.store(observer.bytes_to(u32::MAX, 0), Ordering::Relaxed);
        observer
    }

    /// Records that a batch was replayed.
    pub(crate) fn note(&self, frames: &[Frame]) {
        let Some(Location { segment, offset, length }) = frames.last().map(|last| last.location) else {
            return;
        };
        let replayed = self.bytes_to(segment, u64::from(offset) + u64::from(length));
        self.progress.0.replayed.store(replayed, Ordering::Relaxed);
    }

    /// How many bytes there are to replay up to this offset of a segment.
    fn bytes_to(&self, segment: u32, offset: u64) -> u64 {
        let earlier = self.segments.iter().take_while(|other| other.id < segment);
        let bytes: u64 = earlier.map(|segment| segment.bytes).sum();
        bytes.saturating_add(offset).saturating_sub(self.from.offset.into())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn observer(progress: &OpenProgress) -> ReplayObserver {
        let segments = [3, 4].map(|id| Segment { id, bytes: 1000 }).to_vec();
        let observer = ReplayObserver {
            progress: progress.clone(),
            segments,
            from: Position { segment: 3, offset: 500 },
        };
        progress.0.bytes.store(observer.bytes_to(u32::MAX, 0), Ordering::Relaxed);
        observer
    }

    fn frame(segment: u32, offset: u32) -> Frame {
        let location = Location { segment, offset, length: 100 };
        Frame { kind: 1, location, body: Bytes::new() }
    }

    #[test]
    fn the_percentage_grows_from_0_to_100() {
        let progress = OpenProgress::default();
        assert_eq!(progress.percent(), None);
        let observer = observer(&progress);
        assert_eq!(progress.percent(), Some(0));
        observer.note(&[]);
        observer.note(&[frame(3, 550)]);
        assert_eq!(progress.percent(), Some(10));
        observer.note(&[frame(4, 0), frame(4, 150)]);
        assert_eq!(progress.percent(), Some(50));
        observer.note(&[frame(4, 900)]);
        assert_eq!(progress.percent(), Some(100));
        observer.note(&[frame(4, 90_000)]);
        assert_eq!(progress.percent(), Some(100));
    }

    #[test]
    fn an_empty_journal_has_no_progress() {
        let disk: Arc<dyn Disk> = Arc::new(relay_disk::SimDisk::new());
        let progress = OpenProgress::default();
        let _observer = ReplayObserver::new(&progress, &disk, Position { segment: 0, offset: 0 });
        assert_eq!(progress.percent(), None);
    }
}
