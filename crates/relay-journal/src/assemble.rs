//! Puts the frames of one segment together to batches, and decides which of them count. It sees
//! each frame and each damage once, in order, and reads nothing itself.
//!
//! A batch counts if it is complete, or if something shows that it was synced: a frame of a later
//! batch, since a batch is written only after the one before was synced, or the header of the next
//! segment, which names the end of this one. What is missing of such a batch is damage, and what is
//! left of it counts. Everything else behind the last batch that counts was never synced, as far as
//! anybody was told: it is a torn tail, and no damage.

use crate::walk::Walked;
use crate::{Damage, Frame};

/// The batches of one segment.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// Behind the last batch that counts.
    end: u32,
    /// Where that one begins, unless something shows that it was synced.
    doubtful: Option<u32>,
    /// The batch that is not yet known to count, by where it begins.
    open: Option<Open>,
    /// Damage behind `end`: it shows only later whether that was synced.
    held: Vec<Damage>,
    damage: Vec<Damage>,
}

#[derive(Debug)]
struct Open {
    batch: u32,
    frames: Vec<Frame>,
    /// Where the next frame has to begin, as long as none is missing.
    next: u32,
}

/// What became of a segment.
#[derive(Debug)]
pub(crate) struct Assembled {
    /// Behind the last batch that counts.
    pub(crate) end: u32,
    /// Where that one begins, if it counts for the sole reason that it is complete.
    pub(crate) doubtful: Option<u32>,
    pub(crate) damage: Vec<Damage>,
}

impl Assembly {
    /// Begins with the batch at `start`.
    pub(crate) fn new(start: u32) -> Self {
        Self { end: start, doubtful: None, open: None, held: Vec::new(), damage: Vec::new() }
    }

    /// Takes the next frame, and hands out the frames of each batch that is now known to count.
    pub(crate) fn frame<E>(
        &mut self,
        walked: Walked,
        mut replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Walked { frame, batch, is_last } = walked;
        let mut open = match self.open.take_if(|open| open.batch == batch) {
            Some(open) => open,
            None => {
                self.seal(batch, &mut replay)?;
                Open { batch, frames: Vec::new(), next: batch }
            }
        };
        let is_next = frame.location.offset == open.next;
        if is_next {
            open.next = frame.location.offset + frame.location.length;
        }
        open.frames.push(frame);
        if is_next && is_last {
            (self.end, self.doubtful) = (open.next, Some(batch));
            return replay(&open.frames);
        }
        self.open = Some(open);
        Ok(())
    }

    /// Takes a stretch that cannot be read.
    pub(crate) fn damage(&mut self, damage: Damage) {
        self.held.push(damage);
    }

    /// All is seen. `synced` is where the header of the next segment says that this one ends, if
    /// there is one.
    pub(crate) fn finish<E>(
        mut self,
        synced: Option<u32>,
        replay: impl FnMut(&[Frame]) -> Result<(), E>,
    ) -> Result<Assembled, E> {
        if let Some(synced) = synced {
            self.seal(synced, replay)?;
        }
        Ok(Assembled { end: self.end, doubtful: self.doubtful, damage: self.damage })
    }

    /// Everything before `synced` was synced.
    fn seal<E>(&mut self, synced: u32, mut replay: impl FnMut(&[Frame]) -> Result<(), E>) -> Result<(), E> {
        for held in std::mem::take(&mut self.held) {
            if held.from < synced {
                self.damage.push(Damage { to: held.to.min(synced), ..held });
            }
            if held.to > synced {
                self.held.push(Damage { from: held.from.max(synced), ..held });
            }
        }
        (self.end, self.doubtful) = (self.end.max(synced), None);
        self.open.take().map_or(Ok(()), |open| replay(&open.frames))
    }
}
