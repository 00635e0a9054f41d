//! The sweep: removes expired items from the queues, and forgets acked item ids after the dedup
//! window. It reads the index snapshot of a checkpoint, so no request waits meanwhile. It sends the
//! sum of an expired front to the writer, which removes the front with one record, however long it
//! is. The rows of those items are dead then, and are removed later.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_core::{Seq, Swept, Timestamp};
use tokio::sync::oneshot;

use crate::engine::command::{Front, Job, TaskResponder, Walked};
use crate::error::{StoreError, caught};
use crate::format::record::FrontSum;
use crate::format::{ItemRow, Key};
use crate::index::snapshot::IndexSnapshot;
use crate::maintenance::Maintenance;
use crate::memtable::dedup_filter::{DedupFilter, slot_ms};
use crate::txn::write::is_acked_row_expired;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// How many queues one job has the writer trim: half a millisecond of its time.
const QUEUES_PER_JOB: usize = 128;

/// How many items at the front of a queue one job removes: at first, after the writer has refused
/// once, and after it has refused twice. The writer updates a count for each block and each segment
/// that they lie in.
const ITEMS_PER_JOB: [u64; 3] = [8192, 512, 64];

/// How many acked item ids are read and removed at once, in about 0.2 s. No checkpoint can begin
/// meanwhile.
const ACKED_PER_STEP: usize = 65_536;

/// Acked item ids that have expired.
struct ExpiredAcked {
    keys: Vec<Key>,
    /// The first slot with item ids that have not expired.
    live_slot: Option<Timestamp>,
    /// Where to continue.
    next: Option<Key>,
}

impl Maintenance {
    /// Removes expired items and acked item ids. On failure, some may be removed already.
    pub(super) fn sweep(&mut self) -> Result<Swept, StoreError> {
        let now = self.shared.clock.now();
        let (mut swept, mut is_complete) = (Swept::default(), true);
        if self.is_due(now)? {
            // The next process must not start at an earlier time, because it would look for item
            // ids that are forgotten at `now`.
            self.shared.version_mut().note_time(now);
            self.checkpoint_including(|index| index.numbers.time >= now)?;
            (swept.items, is_complete) = self.trim_queues(now)?;
            swept.forgotten = self.forget_acked(now)?;
        }
        if is_complete {
            self.shared.metrics.swept(now);
        }
        swept.items += self.shared.settled_items.swap(0, Ordering::Relaxed);
        Ok(swept)
    }

    /// Whether anything may have expired. Item ids can expire only in slots that have begun.
    fn is_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        let (index_snapshot, is_due_in_memory) = {
            let version = self.shared.version();
            let has_acked = version.acked().all_slots().first().is_some_and(|slot| *slot <= now);
            (Arc::clone(version.index_snapshot()), has_acked || version.is_due(now))
        };
        Ok(is_due_in_memory || index_snapshot.range(&Key::due_start(), &Key::due_end(now))?.next().is_some())
    }

    /// Returns how many items it removed, and whether these were all that have expired.
    fn trim_queues(&mut self, now: Timestamp) -> Result<(u64, bool), StoreError> {
        let (mut items, mut is_complete, mut next) = (0, true, Some(Key::due_start()));
        while let Some(from) = next {
            let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
            let (queues, rest) = due_queues(&index_snapshot, &from, now)?;
            next = rest;
            let (mut inline, mut spilled) = (Vec::new(), Vec::new());
            for queue in queues {
                match is_spilled(&index_snapshot, queue) {
                    Ok(false) => inline.push(Front { queue, walked: None }),
                    Ok(true) => spilled.push(queue),
                    // A corrupt queue must not keep the sweep from the other queues.
                    Err(StoreError::Corrupted(what)) => {
                        tracing::error!(what, "the sweep skips a corrupt queue");
                    }
                    Err(error) => return Err(error),
                }
            }
            items += self.trim(inline, index_snapshot)?;
            let settled = self.settle(&spilled)?;
            if settled > 0 {
                // The walks must see what is left.
                self.checkpoint()?;
            }
            items += settled;
            for queue in spilled {
                let (trimmed, is_all) = self.trim_spilled(queue, now)?;
                (items, is_complete) = (items + trimmed, is_complete && is_all);
            }
        }
        Ok((items, is_complete))
    }

    /// Removes the expired front of a spilled queue, piece by piece. Returns how many items it
    /// removed, and whether these were all that have expired.
    fn trim_spilled(&mut self, queue: u64, now: Timestamp) -> Result<(u64, bool), StoreError> {
        let (mut items, mut from, mut refusals) = (0, Seq::ZERO, 0);
        while let Some(items_max) = ITEMS_PER_JOB.get(refusals) {
            let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
            let Some(walked) = self.walk(&index_snapshot, queue, from, *items_max, now)? else {
                return Ok((items, true));
            };
            let (walked_items, next) = (walked.sum.usage().items, walked.through.next());
            let trimmed = self.trim(vec![Front { queue, walked: Some(walked) }], index_snapshot)?;
            items += trimmed;
            if trimmed == 0 {
                // These items have changed since the last checkpoint. The next one includes the
                // change, and a shorter front is less likely to change again.
                refusals += 1;
                self.checkpoint()?;
            } else if walked_items < *items_max {
                return Ok((items, true));
            } else {
                from = next;
            }
        }
        Ok((items, false))
    }

    /// Lets the writer remove the items of spilled queues that have expired before one in front of
    /// them. Returns their number.
    fn settle(&mut self, queues: &[u64]) -> Result<u64, StoreError> {
        let mut items = 0;
        for queue in queues {
            loop {
                let settled = match self.ask_writer(|responder| Job::Settle(*queue, responder)) {
                    Err(error) if error.is_corruption() => {
                        tracing::error!("the sweep skips a corrupt queue");
                        break;
                    }
                    settled => settled?,
                };
                items += settled.expired;
                if !(settled.has_advanced && settled.is_full) {
                    break;
                }
            }
        }
        Ok(items)
    }

    /// Finds the expired items at the front of a queue, starting at `from`.
    fn walk(
        &self,
        index_snapshot: &IndexSnapshot,
        queue: u64,
        from: Seq,
        items_max: u64,
        now: Timestamp,
    ) -> Result<Option<Walked>, StoreError> {
        let acked = DedupFilter::default();
        let view = ReadView::new([None; 3], index_snapshot, &acked);
        let Some(rows) = QueueRows::of(view, queue)? else { return Ok(None) };
        let from = from.max(rows.first());
        let (mut sum, mut through, mut items) = (FrontSum::default(), Seq::ZERO, 0);
        rows.scan(from, &mut |item: ItemRow| {
            self.shared.throttle.yield_core();
            if now < item.bound() || items == items_max {
                return ControlFlow::Break(());
            }
            (items, through) = (items + 1, item.seq);
            sum.add(&item);
            ControlFlow::Continue(())
        })?;
        Ok((items > 0).then_some(Walked { from, through, sum }))
    }

    /// Lets the writer remove expired fronts, which were found in this index snapshot. Returns how
    /// many items it removed.
    fn trim(&mut self, fronts: Vec<Front>, index_snapshot: Arc<IndexSnapshot>) -> Result<u64, StoreError> {
        if fronts.is_empty() {
            return Ok(0);
        }
        self.ask_writer(|responder| Job::Trim(fronts, index_snapshot, responder))
    }

    /// Sends the writer a job and waits for its answer.
    fn ask_writer<T>(&mut self, job: impl FnOnce(TaskResponder<T>) -> Job) -> Result<T, StoreError> {
        let mailbox = self.mailbox.upgrade().ok_or(StoreError::WriterEnded)?;
        let (responder, response) = oneshot::channel();
        let sent = mailbox.blocking_send(job(responder));
        drop(mailbox);
        sent.map_err(|_| StoreError::WriterEnded)?;
        let answer = response.blocking_recv().map_err(|_| StoreError::WriterEnded)??;
        self.checkpoint_if_requested()?;
        Ok(answer)
    }

    /// Forgets expired acked item ids, and returns how many there were.
    fn forget_acked(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let (mut item_ids, mut live_slot, mut next) = (0, None, Some(Key::acked_start()));
        while let Some(from) = next {
            let shared = Arc::clone(&self.shared);
            let expired = shared.while_no_checkpoint_begins(|| {
                let index_snapshot = Arc::clone(shared.version().index_snapshot());
                let expired = caught(|| find_expired(&index_snapshot, &from, now))?;
                self.remove_rows(&expired.keys)?;
                Ok::<_, StoreError>(expired)
            })?;
            item_ids += expired.keys.len() as u64;
            live_slot = live_slot.or(expired.live_slot);
            next = expired.next;
            self.checkpoint_if_requested()?;
        }
        // No item id can be added to a slot that has ended, also not by a batch that began with the
        // dedup window of the last sweep.
        let window_ms = self.shared.limits.load().dedup_window_ms;
        let widest_ms = window_ms.max(std::mem::replace(&mut self.swept_window_ms, window_ms));
        let ended = now.as_ms().saturating_sub(slot_ms(widest_ms));
        let ended = Timestamp::from_ms(ended);
        self.shared.version().acked().forget_before(live_slot.map_or(ended, |slot| slot.min(ended)));
        Ok(item_ids)
    }
}

/// The next queues with a due time up to `now`, and where to continue.
fn due_queues(
    index_snapshot: &IndexSnapshot,
    from: &Key,
    now: Timestamp,
) -> Result<(Vec<u64>, Option<Key>), StoreError> {
    let (acked, mut queues) = (DedupFilter::default(), Vec::new());
    for row in ReadView::new([None; 3], index_snapshot, &acked).range(from, &Key::due_end(now))? {
        let (key, _) = row?;
        if queues.len() == QUEUES_PER_JOB {
            return Ok((queues, Some(key)));
        }
        queues.push(key.queue_number());
    }
    Ok((queues, None))
}

fn is_spilled(index_snapshot: &IndexSnapshot, queue: u64) -> Result<bool, StoreError> {
    let row = index_snapshot.get(&Key::queue(queue))?.map(|row| row.queue()).transpose()?;
    Ok(row.is_some_and(|row| row.inline().is_none()))
}

/// Finds expired acked item ids, starting at `from`. They lie in slots that have begun. The last
/// one or two of these also hold item ids that have not expired.
fn find_expired(
    index_snapshot: &IndexSnapshot,
    from: &Key,
    now: Timestamp,
) -> Result<ExpiredAcked, StoreError> {
    let acked = DedupFilter::default();
    let mut expired = ExpiredAcked { keys: Vec::new(), live_slot: None, next: None };
    let rows = ReadView::new([None; 3], index_snapshot, &acked).range(from, &Key::acked_end(now))?;
    for (number, row) in rows.enumerate() {
        let (key, value) = row?;
        if number == ACKED_PER_STEP {
            expired.next = Some(key);
            break;
        }
        if is_acked_row_expired(&value, now)? {
            expired.keys.push(key);
        } else {
            expired.live_slot.get_or_insert(key.slot());
        }
    }
    Ok(expired)
}
