//! A view of memtables and the index snapshot below them, the newest on top.

use std::sync::Arc;

use redb::AccessGuard;
use relay_core::{ItemId, Recipient, Timestamp};

use crate::error::{StoreError, caught};
use crate::format::{self, Key, QueueRow};
use crate::index::snapshot::{IndexSnapshot, Value};
use crate::memtable::Memtable;
use crate::memtable::dedup_filter::DedupFilter;
use crate::memtable::queue_cache::QueueCache;
use crate::memtable::rows::{Range, RowEntry};
use crate::version::coverage::Coverage;

/// The most memtables on top of the index: a batch, the active and the sealed memtable.
const MEMTABLES_MAX: usize = 3;

/// What a transaction reads.
#[derive(Clone, Copy)]
pub(crate) struct ReadView<'a> {
    /// Newest first.
    memtables: [Option<&'a Memtable>; MEMTABLES_MAX],
    index_snapshot: &'a IndexSnapshot,
    /// The slots in which acked item ids may be.
    pub(crate) acked: &'a DedupFilter,
    pub(crate) cache: Option<&'a QueueCache>,
    /// What the memtables contain, if they are an excerpt.
    coverage: Option<&'a Coverage>,
}

/// A recipient and the number of its queue.
pub(crate) type RecipientRow<'a> = Result<(&'a Recipient, u64), StoreError>;

/// The live rows of a range in order or in reverse order. A corrupt row is an error, and iteration
/// continues after it.
pub(crate) struct Merger<'a> {
    reverse: bool,
    memtables: [MemtableRange<'a>; MEMTABLES_MAX],
    index_snapshot: SnapshotRange<'a>,
    /// The range ends where the coverage does.
    is_truncated: bool,
    /// How many tombstones it has passed.
    tombstones: usize,
}

struct MemtableRange<'a> {
    range: Option<Range<'a>>,
    head: Option<(Key, RowEntry<'a>)>,
}

struct SnapshotRange<'a> {
    range: redb::Range<'a, &'static [u8], &'static [u8]>,
    /// The rest of the range. On a corrupt page redb may return keys in any order, so that
    /// iteration would never end.
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

    /// The same view; if `coverage` is given, of an excerpt.
    pub(super) const fn within(self, coverage: Option<&'a Coverage>) -> Self {
        Self { coverage, ..self }
    }

    /// The number and row of a queue, if there is one.
    pub(crate) fn queue(&self, recipient: &Recipient) -> Result<Option<(u64, Arc<QueueRow>)>, StoreError> {
        let Some(queue) = self.queue_number(recipient)? else { return Ok(None) };
        let row = self.queue_row(queue)?.ok_or(StoreError::Corrupted("a queue has no row"))?;
        Ok(Some((queue, row)))
    }

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

    /// The recipient of a queue.
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
            return Ok(queue);
        }
        let entry = self.memtables.iter().flatten().find_map(|memtable| memtable.recipients.get(recipient));
        let queue = match entry {
            Some(queue) => *queue,
            None => self.index_snapshot.queue_number(recipient)?,
        };
        self.cache.inspect(|cache| match queue {
            Some(queue) => cache.keep_recipient(recipient.clone(), queue),
            None => cache.note_missing(recipient.clone()),
        });
        Ok(queue)
    }

    /// The index below all memtables.
    pub(crate) const fn index_snapshot(&self) -> &'a IndexSnapshot {
        self.index_snapshot
    }

    /// Visits every recipient that has a queue, in no order. A corrupt row is an error of its own.
    pub(crate) fn each_recipient(&self, visit: &mut dyn FnMut(RecipientRow<'_>)) -> Result<(), StoreError> {
        for (depth, memtable) in self.memtables.iter().flatten().enumerate() {
            for (recipient, queue) in &memtable.recipients {
                if let Some(queue) = queue.filter(|_| !self.is_in_newer_memtable(depth, recipient)) {
                    visit(Ok((recipient, queue)));
                }
            }
        }
        for row in self.index_snapshot.recipients()? {
            let (name, value) = row?;
            // redb panics over a name that is not UTF-8.
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

    /// Whether one of the first `depth` memtables has an entry of the recipient.
    fn is_in_newer_memtable(&self, depth: usize, recipient: &Recipient) -> bool {
        let mut newer = self.memtables.iter().flatten().take(depth);
        newer.any(|memtable| memtable.recipients.contains_key(recipient))
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'a>>, StoreError> {
        match self.memtables.iter().flatten().find_map(|memtable| memtable.rows.get(key)) {
            Some(row) => Ok(row.map(Value::Fresh)),
            None if self.coverage.is_some_and(|coverage| coverage.lacks(key)) => Err(StoreError::Beyond),
            // The index has no rows of a queue that is newer than it.
            None if key.queue_number() > self.index_snapshot.numbers.queue => Ok(None),
            None => self.index_snapshot.get(key),
        }
    }

    /// Whether the memtables have no entry from `from` to before `to`.
    pub(crate) fn is_only_in_index(&self, from: &Key, to: &Key) -> bool {
        self.memtables.iter().flatten().all(|memtable| memtable.rows.range(from, to).next().is_none())
    }

    /// Reads and decodes a row.
    pub(crate) fn read<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| decode(&value.bytes()?)).transpose()
    }

    /// The key of an acked item id, and until when it is remembered. It may have expired, if no
    /// sweep has removed it yet.
    pub(crate) fn read_acked(&self, queue: u64, id: ItemId) -> Result<Option<(Key, Timestamp)>, StoreError> {
        for slot in self.acked.slots_of(queue, id) {
            let key = Key::acked(slot, queue, id);
            if let Some(until) = self.read(&key, format::decode_until)? {
                return Ok(Some((key, until)));
            }
        }
        Ok(None)
    }

    /// The rows from `from` to before `to`.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Result<Merger<'a>, StoreError> {
        self.merge(from, to, false)
    }

    /// Like [`ReadView::range`], from the end.
    pub(crate) fn range_back(&self, from: &Key, to: &Key) -> Result<Merger<'a>, StoreError> {
        self.merge(from, to, true)
    }

    fn merge(&self, from: &Key, to: &Key, reverse: bool) -> Result<Merger<'a>, StoreError> {
        let covered_to = match self.coverage {
            Some(coverage) => coverage.covered_to(from, to).ok_or(StoreError::Beyond)?,
            None => *to,
        };
        let is_truncated = covered_to < *to;
        if is_truncated && reverse {
            return Err(StoreError::Beyond);
        }
        let to = &covered_to;
        let memtables = self.memtables.map(|memtable| {
            let range = memtable.map(|memtable| memtable.rows.range(from, to));
            let mut memtable = MemtableRange { range, head: None };
            memtable.advance(reverse);
            memtable
        });
        let mut index_snapshot =
            SnapshotRange { range: self.index_snapshot.range(from, to)?, from: *from, to: *to, head: None };
        index_snapshot.advance(reverse)?;
        Ok(Merger { reverse, memtables, index_snapshot, is_truncated, tombstones: 0 })
    }
}

impl<'a> MemtableRange<'a> {
    fn advance(&mut self, reverse: bool) {
        let Some(range) = &mut self.range else { return };
        self.head = if reverse { range.next_back() } else { range.next() };
    }

    fn take(&mut self, key: &Key, reverse: bool) -> Option<RowEntry<'a>> {
        let (_, value) = self.head.take_if(|head| head.0 == *key)?;
        self.advance(reverse);
        Some(value)
    }
}

impl<'a> SnapshotRange<'a> {
    /// Reads the next head. The caller has taken the previous one.
    fn advance(&mut self, reverse: bool) -> Result<(), StoreError> {
        loop {
            let row = if reverse { self.range.next_back() } else { self.range.next() };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row?;
            let Ok(key) = Key::from_bytes(key.value()) else {
                tracing::error!("skipping a row of the index with a corrupt key");
                continue;
            };
            if !(self.from..self.to).contains(&key) {
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
    /// How many tombstones it has passed.
    pub(crate) const fn tombstones(&self) -> usize {
        self.tombstones
    }

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

    fn next_row(&mut self) -> Option<Result<(Key, Value<'a>), StoreError>> {
        // Most of a deep queue is in the index alone.
        if self.memtables.iter().all(|memtable| memtable.head.is_none()) {
            let (key, value) = self.index_snapshot.head.take()?;
            let advanced = self.index_snapshot.advance(self.reverse);
            return Some(advanced.map(|()| (key, Value::Stored(key, value))));
        }
        loop {
            let key = self.next_key()?;
            if let Some(value) = self.step(&key).transpose() {
                return Some(value.map(|value| (key, value)));
            }
            self.tombstones += 1;
        }
    }
}

impl<'a> Iterator for Merger<'a> {
    type Item = Result<(Key, Value<'a>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().or_else(|| std::mem::take(&mut self.is_truncated).then_some(Err(StoreError::Beyond)))
    }
}
