//! The blobs whose pushes have been decided.

use relay_journal::Location;

use crate::engine::command::{Job, Prepared};
use crate::format;

/// The blobs that a batch decides. Blob numbers ascend from batch to batch, so the last number
/// covers all earlier ones.
#[derive(Clone, Copy, Default)]
pub(super) struct DecidedBlobs {
    /// The number of the last blob; 0 if there is none.
    pub(super) through: u32,
    pub(super) bytes: u64,
}

impl DecidedBlobs {
    pub(super) fn of(jobs: &[Job]) -> Self {
        let locations = jobs.iter().flat_map(Job::prepared).filter_map(|prepared| match prepared {
            Prepared::Written(location) => Some(format::own_location(location)),
            Prepared::Nothing | Prepared::Compared(..) => None,
        });
        let one = |blob: Location| Self { through: blob.segment, bytes: u64::from(blob.length) };
        locations.map(one).fold(Self::default(), Self::and)
    }

    pub(super) fn and(self, later: Self) -> Self {
        Self { through: self.through.max(later.through), bytes: self.bytes.saturating_add(later.bytes) }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.through == 0
    }
}
