//! One view of all memtables and the index below them, the newest on top.

use std::sync::Arc;

use redb::AccessGuard;
use relay_core::{ItemId, Recipient, Timestamp};

use crate::error::{StoreError, caught};
use crate::format::{self, Key, QueueRow};
use crate::index::snapshot::{IndexSnapshot, Value};
use crate::memtable::Memtable;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::queue_cache::QueueCache;
use crate::memtable::rows::{Found, Range};
use crate::version::coverage::Coverage;

/// The most memtables that lie on the index: a batch, what is newer than the checkpoint under way,
/// and what that writes.
const MEMTABLES_MAX: usize = 3;

/// What a transaction reads.
#[derive(Clone, Copy)]
pub(crate) struct ReadView<'a> {
    /// Newest first.
    memtables: [Option<&'a Memtable>; MEMTABLES_MAX],
    index_snapshot: &'a IndexSnapshot,
    /// Where acked names may be.
    pub(crate) acked: &'a DedupFilter,
    pub(crate) cache: Option<&'a QueueCache>,
    /// What the memtables say all of, if they are excerpts.
    coverage: Option<&'a Coverage>,
}

/// A recipient and the number of the queue that it leads to, or that this cannot be read.
pub(crate) type RecipientFound<'a> = Result<(&'a Recipient, u64), StoreError>;

/// The rows of a range in order, or in reverse order, without those that are gone. A damaged row is
/// an error, and what comes after it is shown all the same.
pub(crate) struct Merger<'a> {
    reverse: bool,
    memtables: [MemtableRange<'a>; MEMTABLES_MAX],
    index_snapshot: SnapshotRange<'a>,
    /// What comes behind the end is not known.
    is_cut: bool,
}

struct MemtableRange<'a> {
    range: Option<Range<'a>>,
    head: Option<(Key, Found<'a>)>,
}

struct SnapshotRange<'a> {
    range: redb::Range<'a, &'static [u8], &'static [u8]>,
    /// What is left of the range. Over a damaged page redb may go astray, and who follows it may go
    /// round in circles.
    from: Key,
    to: Key,
    head: Option<(Key, AccessGuard<'a, &'static [u8]>)>,
}

impl<'a> ReadView<'a> {
    pub(crate) const fn new(
        memtables: [Option<&'a Memtable>; MEMTABLES_MAX],
        index_snapshot: &'a IndexSnapshot,
        acked: &'a DedupFilter,
    ) -> Self {
        Self { memtables, index_snapshot, acked, cache: None, coverage: None }
    }

    /// The same view, with a cache.
    pub(crate) const fn with_cache(self, cache: &'a QueueCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// The same view, of memtables that say only this much.
    pub(crate) const fn within(self, coverage: &'a Coverage) -> Self {
        Self { coverage: Some(coverage), ..self }
    }

    /// The number and row of a queue, if there is one.
    pub(crate) fn queue(&self, recipient: &Recipient) -> Result<Option<(u64, Arc<QueueRow>)>, StoreError> {
        let Some(queue) = self.queue_number(recipient)? else { return Ok(None) };
        let row = self.queue_row(queue)?.ok_or(StoreError::Corrupted("a queue has no row"))?;
        Ok(Some((queue, row)))
    }

    /// The row of a queue.
    pub(crate) fn queue_row(&self, queue: u64) -> Result<Option<Arc<QueueRow>>, StoreError> {
        if let Some(row) = self.cache.and_then(|cache| cache.row(queue)) {
            return Ok(Some(row));
        }
        let row = self.get(&Key::queue(queue))?.map(|value| value.queue()).transpose()?;
        if let (Some(cache), Some(row)) = (self.cache, &row) {
            cache.keep_row(queue, Arc::clone(row));
        }
        Ok(row)
    }

    /// Whose queue it is.
    pub(crate) fn owner(&self, queue: u64) -> Result<Recipient, StoreError> {
        if let Some(owner) = self.cache.and_then(|cache| cache.owner(queue)) {
            return Ok(owner);
        }
        let owner = self.get(&Key::owner(queue))?.ok_or(StoreError::Corrupted("a queue has no owner"))?;
        let owner = format::decode_owner(&owner.bytes()?)?;
        if let Some(cache) = self.cache {
            cache.keep_owner(queue, owner.clone());
        }
        Ok(owner)
    }

    /// The number of the recipient's queue.
    pub(crate) fn queue_number(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        if let Some(queue) = self.cache.and_then(|cache| cache.queue_number(recipient)) {
            return Ok(Some(queue));
        }
        let queue = self.find_queue(recipient)?;
        if let (Some(cache), Some(queue)) = (self.cache, queue) {
            cache.keep_recipient(recipient.clone(), queue);
        }
        Ok(queue)
    }

    fn find_queue(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        match self.memtables.iter().flatten().find_map(|memtable| memtable.recipients.get(recipient)) {
            Some(number) => Ok(*number),
            None => self.index_snapshot.queue_number(recipient),
        }
    }

    /// The index below all memtables.
    pub(crate) const fn index_snapshot(&self) -> &'a IndexSnapshot {
        self.index_snapshot
    }

    /// Shows every name with the queue that it leads to, in no order. A damaged one is an error of
    /// its own.
    pub(crate) fn each_recipient(&self, visit: &mut dyn FnMut(RecipientFound<'_>)) -> Result<(), StoreError> {
        for (depth, memtable) in self.memtables.iter().flatten().enumerate() {
            for (name, queue) in &memtable.recipients {
                if let Some(queue) = queue.filter(|_| !self.is_in_newer_memtable(depth, name)) {
                    visit(Ok((name, queue)));
                }
            }
        }
        for row in self.index_snapshot.recipients()? {
            let (name, value) = row?;
            // Over what is no text redb panics.
            match caught(|| IndexSnapshot::parse_name(name.value())) {
                Ok(name) if self.is_in_newer_memtable(MEMTABLES_MAX, &name) => {}
                Ok(name) => {
                    visit(IndexSnapshot::checked_name(&name, value.value()).map(|queue| (&name, queue)));
                }
                Err(error) => visit(Err(error)),
            }
        }
        Ok(())
    }

    /// Whether one of the first so many memtables says where the name leads.
    fn is_in_newer_memtable(&self, depth: usize, name: &Recipient) -> bool {
        self.memtables.iter().flatten().take(depth).any(|memtable| memtable.recipients.contains_key(name))
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'a>>, StoreError> {
        match self.memtables.iter().flatten().find_map(|memtable| memtable.rows.get(key)) {
            Some(row) => Ok(row.map(Value::Fresh)),
            None if self.coverage.is_some_and(|coverage| coverage.lacks(key)) => Err(StoreError::Beyond),
            // A queue that is newer than the index has nothing there.
            None if key.about() > self.index_snapshot.numbers.queue => Ok(None),
            None => self.index_snapshot.get(key),
        }
    }

    /// Whether nothing is newer than the index of the rows from `from` on and before `to`.
    pub(crate) fn is_of_index(&self, from: &Key, to: &Key) -> bool {
        self.memtables.iter().flatten().all(|memtable| memtable.rows.range(from, to).next().is_none())
    }

    /// What a row says.
    pub(crate) fn read<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| decode(&value.bytes()?)).transpose()
    }

    /// Where an acked name is remembered, and until when; also when that is over and no sweep has
    /// come by yet.
    pub(crate) fn read_acked(&self, queue: u64, id: ItemId) -> Result<Option<(Key, Timestamp)>, StoreError> {
        for slot in self.acked.slots_of(queue, id) {
            let key = Key::acked(slot, queue, id);
            if let Some(until) = self.read(&key, format::decode_until)? {
                return Ok(Some((key, until)));
            }
        }
        Ok(None)
    }

    /// The rows from `from` on and before `to`.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Result<Merger<'a>, StoreError> {
        self.merge(from, to, false)
    }

    /// As [`ReadView::range`], from the end.
    pub(crate) fn range_back(&self, from: &Key, to: &Key) -> Result<Merger<'a>, StoreError> {
        self.merge(from, to, true)
    }

    fn merge(&self, from: &Key, to: &Key, reverse: bool) -> Result<Merger<'a>, StoreError> {
        let known_to = match self.coverage {
            Some(coverage) => coverage.known_to(from, to).ok_or(StoreError::Beyond)?,
            None => *to,
        };
        let is_cut = known_to < *to;
        if is_cut && reverse {
            return Err(StoreError::Beyond);
        }
        let to = &known_to;
        let memtables = self.memtables.map(|memtable| {
            let range = memtable.map(|memtable| memtable.rows.range(from, to));
            let mut memtable = MemtableRange { range, head: None };
            memtable.advance(reverse);
            memtable
        });
        let mut index_snapshot =
            SnapshotRange { range: self.index_snapshot.range(from, to)?, from: *from, to: *to, head: None };
        index_snapshot.advance(reverse)?;
        Ok(Merger { reverse, memtables, index_snapshot, is_cut })
    }
}

impl<'a> MemtableRange<'a> {
    fn advance(&mut self, reverse: bool) {
        let Some(range) = &mut self.range else { return };
        self.head = if reverse { range.next_back() } else { range.next() };
    }

    fn take(&mut self, key: &Key, reverse: bool) -> Option<Found<'a>> {
        let (_, value) = self.head.take_if(|head| head.0 == *key)?;
        self.advance(reverse);
        Some(value)
    }
}

impl<'a> SnapshotRange<'a> {
    fn advance(&mut self, reverse: bool) -> Result<(), StoreError> {
        loop {
            let row = if reverse { self.range.next_back() } else { self.range.next() };
            let Some(row) = row else {
                self.head = None;
                return Ok(());
            };
            let (key, value) = row?;
            let Ok(key) = Key::from_bytes(key.value()) else {
                tracing::error!("a row of the index has a damaged key and is passed over");
                continue;
            };
            if !(self.from..self.to).contains(&key) {
                self.head = None;
                return Err(StoreError::Corrupted("the index is out of order"));
            }
            if reverse {
                self.to = key;
            } else {
                self.from = key;
            }
            self.head = Some((key, value));
            return Ok(());
        }
    }
}

impl<'a> Merger<'a> {
    fn next_key(&self) -> Option<Key> {
        let memtables =
            self.memtables.iter().filter_map(|memtable| memtable.head.as_ref().map(|head| head.0));
        let keys = memtables.chain(self.index_snapshot.head.as_ref().map(|head| head.0));
        if self.reverse { keys.max() } else { keys.min() }
    }

    fn step(&mut self, key: &Key) -> Result<Option<Value<'a>>, StoreError> {
        let mut newest = None;
        for memtable in &mut self.memtables {
            let value = memtable.take(key, self.reverse);
            newest = newest.or(value);
        }
        let stored = self.index_snapshot.head.take_if(|head| head.0 == *key);
        if stored.is_some() {
            self.index_snapshot.advance(self.reverse)?;
        }
        match (newest, stored) {
            (Some(value), _) => Ok(value.map(Value::Fresh)),
            (None, Some((key, value))) => Ok(Some(Value::Stored(key, value))),
            (None, None) => Ok(None),
        }
    }
}

impl<'a> Iterator for Merger<'a> {
    type Item = Result<(Key, Value<'a>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().or_else(|| std::mem::take(&mut self.is_cut).then_some(Err(StoreError::Beyond)))
    }
}

impl<'a> Merger<'a> {
    fn next_row(&mut self) -> Option<Result<(Key, Value<'a>), StoreError>> {
        // Most of a deep queue is in the index alone.
        if self.memtables.iter().all(|memtable| memtable.head.is_none()) {
            let (key, value) = self.index_snapshot.head.take()?;
            return Some(
                self.index_snapshot.advance(self.reverse).map(|()| (key, Value::Stored(key, value))),
            );
        }
        loop {
            let key = self.next_key()?;
            match self.step(&key) {
                Ok(None) => {}
                Ok(Some(value)) => return Some(Ok((key, value))),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
