//! How far the replay of a store has come that is being opened, for whoever wants to tell those who
//! wait. It changes nothing, and what it cannot find out it does not tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_disk::Disk;
use relay_journal::{Frame, Location, Position, Segment};

/// Filled in while a store opens. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct OpenProgress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Bytes of the journal that are to be replayed; 0 as long as that is not known.
    bytes: AtomicU64,
    replayed: AtomicU64,
}

/// Follows a replay.
#[derive(Debug)]
pub(crate) struct Watch {
    progress: OpenProgress,
    /// The segments to be replayed, ascending.
    segments: Vec<Segment>,
    from: Position,
}

impl OpenProgress {
    /// How much of what is to be replayed is replayed, in percent. `None` before that begins.
    pub fn percent(&self) -> Option<u8> {
        let bytes = self.0.bytes.load(Ordering::Relaxed);
        let replayed = self.0.replayed.load(Ordering::Relaxed).min(bytes);
        let percent = u128::from(replayed).saturating_mul(100).checked_div(bytes.into())?;
        u8::try_from(percent).ok()
    }
}

impl Watch {
    /// Looks how much there is to be replayed from `from` on.
    pub(crate) fn new(progress: &OpenProgress, disk: &Arc<dyn Disk>, from: Position) -> Self {
        let name = relay_journal::Options::default().name;
        // Should the disk fail here, it fails again where somebody is told.
        let mut segments = relay_journal::segments(Arc::clone(disk), name).unwrap_or_default();
        segments.retain(|segment| segment.id >= from.segment);
        let watch = Self { progress: progress.clone(), segments, from };
        watch.progress.0.bytes.store(watch.bytes_to(u32::MAX, 0), Ordering::Relaxed);
        watch
    }

    /// Notes that a batch is replayed.
    pub(crate) fn note(&self, frames: &[Frame]) {
        let Some(Location { segment, offset, length }) = frames.last().map(|last| last.location) else {
            return;
        };
        let replayed = self.bytes_to(segment, u64::from(offset) + u64::from(length));
        self.progress.0.replayed.store(replayed, Ordering::Relaxed);
    }

    /// How many bytes are to be replayed up to this place of a segment.
    fn bytes_to(&self, segment: u32, offset: u64) -> u64 {
        let before = self.segments.iter().take_while(|other| other.id < segment);
        let bytes: u64 = before.map(|segment| segment.bytes).sum();
        bytes.saturating_add(offset).saturating_sub(self.from.offset.into())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn watch(progress: &OpenProgress) -> Watch {
        let segments = [3, 4].map(|id| Segment { id, bytes: 1000 }).to_vec();
        let watch =
            Watch { progress: progress.clone(), segments, from: Position { segment: 3, offset: 500 } };
        progress.0.bytes.store(watch.bytes_to(u32::MAX, 0), Ordering::Relaxed);
        watch
    }

    fn frame(segment: u32, offset: u32) -> Frame {
        let location = Location { segment, offset, length: 100 };
        Frame { kind: 1, location, body: Bytes::new() }
    }

    #[test]
    fn it_goes_from_nothing_to_all() {
        let progress = OpenProgress::default();
        assert_eq!(progress.percent(), None);
        let watch = watch(&progress);
        assert_eq!(progress.percent(), Some(0));
        watch.note(&[]);
        watch.note(&[frame(3, 550)]);
        assert_eq!(progress.percent(), Some(10));
        watch.note(&[frame(4, 0), frame(4, 150)]);
        assert_eq!(progress.percent(), Some(50));
        watch.note(&[frame(4, 900)]);
        assert_eq!(progress.percent(), Some(100));
        watch.note(&[frame(4, 90_000)]);
        assert_eq!(progress.percent(), Some(100));
    }

    #[test]
    fn what_has_nothing_to_replay_tells_nothing() {
        let disk: Arc<dyn Disk> = Arc::new(relay_disk::SimDisk::new());
        let progress = OpenProgress::default();
        let _watch = Watch::new(&progress, &disk, Position { segment: 0, offset: 0 });
        assert_eq!(progress.percent(), None);
    }
}
