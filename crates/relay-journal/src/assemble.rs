//! Groups the frames of one segment into batches, and decides which batches count. It sees each
//! frame and each unreadable range once, in order, and reads nothing itself.
//!
//! A batch counts if it is complete, or if there is evidence that it was synced. A frame of a later
//! batch is such evidence, because the journal writes a batch only after it has synced the previous
//! one. So is the header of the next segment, which names the end of this one. The unreadable
//! frames of a synced batch are damage, and its other frames count. All bytes after the last batch
//! that counts are a torn tail, not damage: the journal never reported them as synced.

use crate::walk::Walked;
use crate::{Damage, Frame};

/// The batches of one segment.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// The end of the last batch that counts.
    pub(crate) end: u32,
    /// The start of that batch, if it counts only because it is complete.
    pub(crate) unconfirmed: Option<u32>,
    /// Damage before `end`.
    pub(crate) damage: Vec<Damage>,
    /// The batch that does not count yet.
    pending: Option<PendingBatch>,
    /// Unreadable ranges after `end`, which may or may not have been synced.
    pending_damage: Vec<Damage>,
}

#[derive(Debug)]
struct PendingBatch {
    start: u32,
    frames: Vec<Frame>,
    /// Where the next frame begins if none is missing.
    next: u32,
}

impl Assembly {
    /// Begins with the batch at `start`.
    pub(crate) fn new(start: u32) -> Self {
        Self { end: start, unconfirmed: None, damage: Vec::new(), pending: None, pending_damage: Vec::new() }
    }

    /// Adds the next frame, and replays each batch that now counts.
    pub(crate) fn frame<E>(
        &mut self,
        walked: Walked,
        mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Walked { frame, batch, is_last } = walked;
        let mut pending = match self.pending.take_if(|pending| pending.start == batch) {
            Some(pending) => pending,
            None => {
                self.confirm(batch, &mut replay)?;
                PendingBatch { start: batch, frames: Vec::new(), next: batch }
            }
        };
        let is_next = frame.location.offset == pending.next;
        if is_next {
            pending.next = frame.location.offset + frame.location.length;
        }
        pending.frames.push(frame);
        if is_next && is_last {
            (self.end, self.unconfirmed) = (pending.next, Some(batch));
            return replay(&pending.frames);
        }
        self.pending = Some(pending);
        Ok(())
    }

    /// Adds an unreadable range.
    pub(crate) fn damage(&mut self, damage: Damage) {
        self.pending_damage.push(damage);
    }

    /// Handles the evidence that everything before `synced_end` was synced. Replays the pending
    /// batch.
    pub(crate) fn confirm<E>(
        &mut self,
        synced_end: u32,
        mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(), E> {
        for damage in std::mem::take(&mut self.pending_damage) {
            if damage.from < synced_end {
                self.damage.push(Damage { to: damage.to.min(synced_end), ..damage });
            }
            if damage.to > synced_end {
                self.pending_damage.push(Damage { from: damage.from.max(synced_end), ..damage });
            }
        }
        (self.end, self.unconfirmed) = (self.end.max(synced_end), None);
        self.pending.take().map_or(Ok(()), |pending| replay(&pending.frames))
    }
}
