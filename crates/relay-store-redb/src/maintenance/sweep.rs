//! The sweep: takes what has expired out of the queues, and forgets acked names whose time is over.
//! It works on the index as a checkpoint left it, so that nobody waits while it reads. The writer
//! is told what the front of a queue comes to, however long that is, and decides that it goes with
//! one record; the rows of it are dead then, and are buried later.

use std::ops::ControlFlow;
use std::sync::Arc;

use relay_core::{Queued as _, Seq, Swept, Timestamp};
use tokio::sync::oneshot;

use crate::engine::command::{Front, Job, Walked};
use crate::error::{StoreError, caught};
use crate::format::record::FrontSum;
use crate::format::{self, ItemRow, Key, QueueRow};
use crate::index::snapshot::IndexSnapshot;
use crate::maintenance::Maintenance;
use crate::memtable::dedup_filter::{DedupFilter, slot_ms};
use crate::txn::write::is_over;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// How many queues the writer is handed at once: half a millisecond of its time.
const QUEUES_TOGETHER: usize = 128;

/// How many items at the front of a queue are taken out at once, and how many after the writer has
/// refused that, and again. It costs the writer a count for each block and each file that they lie
/// in.
const ITEMS_TOGETHER: [u64; 3] = [8192, 512, 64];

/// How many rows are looked at, and taken away, at once, in some 0.2 s. No checkpoint can begin
/// meanwhile.
const ROWS_TOGETHER: usize = 65_536;

/// Some acked names whose time is over.
struct Over {
    keys: Vec<Key>,
    /// The first slot that was seen to hold others.
    others_in: Option<Timestamp>,
    /// Where to go on.
    next: Option<Key>,
}

impl Maintenance {
    /// Takes out what has expired, and forgets acked names. On failure some of that may be done.
    pub(crate) fn sweep(&mut self) -> Result<Swept, StoreError> {
        let now = self.shared.clock.now();
        let (mut swept, mut is_all) = (Swept::default(), true);
        if self.is_due(now)? {
            // What is forgotten at this time must not be looked for by a process that begins
            // earlier.
            self.shared.version_mut().note_time(now);
            self.checkpoint()?;
            // After one that had failed, that was what it should have written.
            if self.shared.version().index_snapshot().numbers.time < now {
                self.checkpoint()?;
            }
            (swept.items, is_all) = self.trim_queues(now)?;
            swept.forgotten = self.forget_acked(now)?;
        }
        if is_all {
            self.shared.metrics.swept(now);
        }
        Ok(swept)
    }

    /// Whether there may be something to do. A name is looked for only in slots of time that have
    /// begun.
    fn is_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        let (index_snapshot, is_fresh) = {
            let version = self.shared.version();
            let has_names = version.acked().all_slots().first().is_some_and(|slot| *slot <= now);
            (Arc::clone(version.index_snapshot()), has_names || version.is_due(now))
        };
        Ok(is_fresh || index_snapshot.range(&Key::due_start(), &Key::due_end(now))?.next().is_some())
    }

    /// Returns how many items there were, and whether these were all.
    fn trim_queues(&mut self, now: Timestamp) -> Result<(u64, bool), StoreError> {
        let (mut items, mut is_all, mut from) = (0, true, Some(Key::due_start()));
        while let Some(begin) = from {
            let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
            let (queues, next) = due_queues(&index_snapshot, &begin, now)?;
            let (mut fronts, mut deep) = (Vec::new(), Vec::new());
            for queue in queues {
                match is_spilled(&index_snapshot, queue) {
                    Ok(false) => fronts.push(Front { queue, walked: None }),
                    Ok(true) => deep.push(queue),
                    // It must not keep the sweep from all others.
                    Err(StoreError::Corrupted(what)) => {
                        tracing::error!(what, "the sweep passes a queue over")
                    }
                    Err(error) => return Err(error),
                }
            }
            items += self.trim(fronts, index_snapshot)?;
            for queue in deep {
                let (trimmed, is_whole) = self.trim_deep(queue, now)?;
                (items, is_all) = (items + trimmed, is_all && is_whole);
            }
            from = next;
        }
        Ok((items, is_all))
    }

    /// Takes out the front of a queue whose items have rows of their own, piece by piece. False if
    /// some of it is left.
    fn trim_deep(&mut self, queue: u64, now: Timestamp) -> Result<(u64, bool), StoreError> {
        let (mut items, mut from, mut refused) = (0, Seq::ZERO, 0);
        while let Some(together) = ITEMS_TOGETHER.get(refused) {
            let index_snapshot = Arc::clone(self.shared.version().index_snapshot());
            let Some(walked) = self.walk(&index_snapshot, queue, from, *together, now)? else {
                return Ok((items, true));
            };
            let (walked_items, next) = (walked.sum.usage().items, walked.through.next());
            let trimmed = self.trim(vec![Front { queue, walked: Some(walked) }], index_snapshot)?;
            items += trimmed;
            if trimmed == 0 {
                // Something of it has changed since. It is in the index next time, and fewer are
                // less likely to change meanwhile.
                refused += 1;
                self.checkpoint()?;
            } else if walked_items < *together {
                return Ok((items, true));
            } else {
                from = next;
            }
        }
        Ok((items, false))
    }

    /// What has expired at the front of a queue, from `from` on.
    fn walk(
        &self,
        index_snapshot: &IndexSnapshot,
        queue: u64,
        from: Seq,
        items_max: u64,
        now: Timestamp,
    ) -> Result<Option<Walked>, StoreError> {
        let acked = DedupFilter::default();
        let Some(rows) = QueueRows::of(of_index(index_snapshot, &acked), queue)? else { return Ok(None) };
        let (from, mut sum, mut through, mut items) =
            (from.max(rows.first()), FrontSum::default(), Seq::ZERO, 0);
        rows.scan(from, &mut |item: ItemRow| {
            self.shared.throttle.leave_core();
            if item.is_live(now) || items == items_max {
                return ControlFlow::Break(());
            }
            (items, through) = (items + 1, item.seq);
            sum.add(&item);
            ControlFlow::Continue(())
        })?;
        Ok((items > 0).then_some(Walked { from, through, sum }))
    }

    /// Has the writer take out what has expired. `base` is the index that it was found in.
    fn trim(&mut self, fronts: Vec<Front>, index_snapshot: Arc<IndexSnapshot>) -> Result<u64, StoreError> {
        if fronts.is_empty() {
            return Ok(0);
        }
        let mailbox = self.mailbox.upgrade().ok_or(StoreError::WriterEnded)?;
        let (caller, answer) = oneshot::channel();
        mailbox
            .blocking_send(Job::Trim(fronts, index_snapshot, caller))
            .map_err(|_| StoreError::WriterEnded)?;
        drop(mailbox);
        let items = answer.blocking_recv().map_err(|_| StoreError::WriterEnded)??;
        self.make_way()?;
        Ok(items)
    }

    /// Forgets the acked names whose time is over, and returns how many there were.
    fn forget_acked(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        let (mut names, mut others_in, mut from) = (0, None, Some(Key::acked_start()));
        while let Some(begin) = from {
            let shared = Arc::clone(&self.shared);
            let over = shared.while_no_checkpoint_begins(|| {
                let index_snapshot = Arc::clone(shared.version().index_snapshot());
                let over = caught(|| find_over(&index_snapshot, &begin, now))?;
                self.remove_rows(&over.keys)?;
                Ok::<_, StoreError>(over)
            })?;
            names += over.keys.len() as u64;
            others_in = others_in.or(over.others_in);
            from = over.next;
            self.make_way()?;
        }
        // Nothing can come into a slot any more that has ended.
        let ended = now.as_ms().saturating_sub(slot_ms(self.shared.limits.dedup_window_ms));
        let ended = Timestamp::from_ms(ended);
        self.shared.version().acked().forget_before(others_in.map_or(ended, |slot| slot.min(ended)));
        Ok(names)
    }

    /// Takes away some rows of items that are in no queue any more. True when there are no others.
    pub(crate) fn bury_some(&mut self) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        shared.while_no_checkpoint_begins(|| {
            let index_snapshot = Arc::clone(shared.version().index_snapshot());
            let dead = caught(|| dead_rows(&index_snapshot))?;
            self.remove_rows(&dead)?;
            Ok(dead.is_empty())
        })
    }

    /// Takes all of them away, as long as nothing more urgent is asked for.
    pub(crate) fn bury(&mut self) -> Result<(), StoreError> {
        while !self.shared.throttle.is_asked() && !self.bury_some()? {}
        Ok(())
    }

    /// Takes rows out of the index that no view shows any more.
    fn remove_rows(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let removed = caught(|| {
            self.index.remove(keys)?;
            self.index.index_snapshot()
        });
        match removed {
            Ok(index_snapshot) => {
                self.install(index_snapshot);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "rows that are not needed could not be taken out of the index");
                self.reopen();
                Err(error)
            }
        }
    }

    /// Writes a checkpoint if one is asked for.
    fn make_way(&mut self) -> Result<(), StoreError> {
        if self.shared.throttle.is_asked() { self.checkpoint() } else { Ok(()) }
    }
}

/// The index alone.
fn of_index<'a>(index_snapshot: &'a IndexSnapshot, acked: &'a DedupFilter) -> ReadView<'a> {
    ReadView::new([None; 3], index_snapshot, acked)
}

/// Some queues that the sweep has to look at, and where to go on.
fn due_queues(
    index_snapshot: &IndexSnapshot,
    from: &Key,
    now: Timestamp,
) -> Result<(Vec<u64>, Option<Key>), StoreError> {
    let (acked, mut queues) = (DedupFilter::default(), Vec::new());
    for row in of_index(index_snapshot, &acked).range(from, &Key::due_end(now))? {
        let (key, _) = row?;
        if queues.len() == QUEUES_TOGETHER {
            return Ok((queues, Some(key)));
        }
        queues.push(key.about());
    }
    Ok((queues, None))
}

/// Whether the items of a queue have rows of their own.
fn is_spilled(index_snapshot: &IndexSnapshot, queue: u64) -> Result<bool, StoreError> {
    let row = index_snapshot.get(&Key::queue(queue))?.map(|row| row.queue()).transpose()?;
    Ok(row.is_some_and(|row| row.inline().is_none()))
}

/// Acked names whose time is over, from `from` on. They lie in slots that have begun; the last of
/// these, or two, hold some that are not.
fn find_over(index_snapshot: &IndexSnapshot, from: &Key, now: Timestamp) -> Result<Over, StoreError> {
    let acked = DedupFilter::default();
    let mut over = Over { keys: Vec::new(), others_in: None, next: None };
    for (seen, row) in of_index(index_snapshot, &acked).range(from, &Key::acked_end(now))?.enumerate() {
        let (key, value) = row?;
        if seen == ROWS_TOGETHER {
            over.next = Some(key);
            break;
        }
        if is_over(&value, now)? {
            over.keys.push(key);
        } else {
            over.others_in.get_or_insert(key.slot());
        }
    }
    Ok(over)
}

/// Some rows of items that lie in front of the first one of their queue, and the names that lead
/// there; where there are no more, what says that there may be.
fn dead_rows(index_snapshot: &IndexSnapshot) -> Result<Vec<Key>, StoreError> {
    let acked = DedupFilter::default();
    let (view, mut dead) = (of_index(index_snapshot, &acked), Vec::new());
    for row in view.range(&Key::dead_start(), &Key::queues_start())? {
        let key = row?.0;
        let queue = match view.queue_row(key.about()) {
            // Where its items begin is not known.
            Err(StoreError::Corrupted(_)) => continue,
            row => row?,
        };
        if !add_dead_rows(&view, key.about(), queue.as_deref(), &mut dead)? {
            break;
        }
        dead.push(key);
    }
    // One behind the other, as they lie there.
    dead.sort_unstable();
    dead.dedup();
    Ok(dead)
}

/// False if there are more.
fn add_dead_rows(
    view: &ReadView<'_>,
    queue: u64,
    row: Option<&QueueRow>,
    dead: &mut Vec<Key>,
) -> Result<bool, StoreError> {
    let first = row.filter(|row| row.inline().is_none()).and_then(|row| row.ends);
    let end = first.map_or_else(|| Key::items_end(queue), |ends| Key::item(queue, ends.first.seq));
    let mut damaged = Vec::new();
    for row in view.range(&Key::items_start(queue), &end)? {
        if dead.len() >= ROWS_TOGETHER {
            return Ok(false);
        }
        let (key, value) = row?;
        let Some(seq) = key.item_seq() else { continue };
        let Ok(item) = value.bytes().and_then(|bytes| ItemRow::decode(seq, &bytes)) else {
            damaged.push(key);
            continue;
        };
        dead.push(key);
        let trace = Key::by_id(queue, item.id);
        match view.read(&trace, format::decode_seq) {
            Ok(Some(named)) if named == seq => dead.push(trace),
            Ok(_) | Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    if !damaged.is_empty() {
        // They go last, as what is left of them.
        dead.append(&mut damaged);
        add_dead_names(view, queue, first.map_or(Seq::new(u64::MAX), |ends| ends.first.seq), dead)?;
    }
    Ok(true)
}

/// A damaged item does not tell its name, so all names are looked at.
fn add_dead_names(
    view: &ReadView<'_>,
    queue: u64,
    first: Seq,
    dead: &mut Vec<Key>,
) -> Result<(), StoreError> {
    for row in view.range(&Key::items_end(queue), &Key::by_id_end(queue))? {
        let (key, value) = row?;
        match value.bytes().and_then(|bytes| format::decode_seq(&bytes)) {
            Ok(seq) if seq < first => dead.push(key),
            Ok(_) | Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
