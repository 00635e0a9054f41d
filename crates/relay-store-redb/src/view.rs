//! One view of all layers and the index below them, the newest on top.

use std::borrow::Cow;
use std::sync::Arc;

use redb::AccessGuard;
use relay_core::{ItemId, Recipient, Timestamp};

use crate::acked::AckedNames;
use crate::base::Base;
use crate::error::{StoreError, caught};
use crate::excerpt::Coverage;
use crate::layer::Layer;
use crate::memo::Memo;
use crate::rows::{Found, Fresh, Range};
use crate::schema::{self, Key, QueueRow};

/// The most layers that lie on the index: a batch, what is newer than the checkpoint under way, and what that writes.
const LAYERS_MAX: usize = 3;

/// What a transaction reads.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Newest first.
    layers: [Option<&'a Layer>; LAYERS_MAX],
    base: &'a Base,
    /// Where acked names may be.
    pub(crate) acked: &'a AckedNames,
    pub(crate) memo: Option<&'a Memo>,
    /// What the layers say all of, if they are excerpts.
    coverage: Option<&'a Coverage>,
}

/// A recipient and the number of the queue that it leads to, or that this cannot be read.
pub(crate) type NameFound<'a> = Result<(&'a Recipient, u64), StoreError>;

/// The value of a row.
pub(crate) enum Value<'a> {
    /// Of a layer.
    Fresh(Fresh<'a>),
    /// Of the index, with its checksum behind it, which is checked when the value is looked at.
    Stored(Key, AccessGuard<'a, &'static [u8]>),
}

/// The rows of a range in order, or in reverse order, without those that are gone. A damaged row is an error, and what comes after it is
/// shown all the same.
pub(crate) struct Merge<'a> {
    reverse: bool,
    layers: [LayerRange<'a>; LAYERS_MAX],
    base: BaseRange<'a>,
    /// What comes behind the end is not known.
    is_cut: bool,
}

struct LayerRange<'a> {
    range: Option<Range<'a>>,
    head: Option<(Key, Found<'a>)>,
}

struct BaseRange<'a> {
    range: redb::Range<'a, &'static [u8], &'static [u8]>,
    /// What is left of the range. Over a damaged page redb may go astray, and who follows it may go round in circles.
    from: Key,
    to: Key,
    head: Option<(Key, AccessGuard<'a, &'static [u8]>)>,
}

impl<'a> View<'a> {
    pub(crate) const fn new(
        layers: [Option<&'a Layer>; LAYERS_MAX],
        base: &'a Base,
        acked: &'a AckedNames,
    ) -> Self {
        Self { layers, base, acked, memo: None, coverage: None }
    }

    /// The same view, with a memo.
    pub(crate) const fn with_memo(self, memo: &'a Memo) -> Self {
        Self { memo: Some(memo), ..self }
    }

    /// The same view, of layers that say only this much.
    pub(crate) const fn within(self, coverage: &'a Coverage) -> Self {
        Self { coverage: Some(coverage), ..self }
    }

    /// The number and row of a queue, if there is one.
    pub(crate) fn queue(&self, recipient: &Recipient) -> Result<Option<(u64, Arc<QueueRow>)>, StoreError> {
        let Some(queue) = self.name(recipient)? else { return Ok(None) };
        let row = self.queue_row(queue)?.ok_or(StoreError::Damaged("a queue has no row"))?;
        Ok(Some((queue, row)))
    }

    /// The row of a queue.
    pub(crate) fn queue_row(&self, queue: u64) -> Result<Option<Arc<QueueRow>>, StoreError> {
        if let Some(row) = self.memo.and_then(|memo| memo.row(queue)) {
            return Ok(Some(row));
        }
        let row = self.get(&Key::queue(queue))?.map(|value| value.queue()).transpose()?;
        if let (Some(memo), Some(row)) = (self.memo, &row) {
            memo.keep_row(queue, Arc::clone(row));
        }
        Ok(row)
    }

    /// Whose queue it is.
    pub(crate) fn owner(&self, queue: u64) -> Result<Recipient, StoreError> {
        if let Some(owner) = self.memo.and_then(|memo| memo.owner(queue)) {
            return Ok(owner);
        }
        let owner = self.get(&Key::owner(queue))?.ok_or(StoreError::Damaged("a queue has no owner"))?;
        let owner = schema::decode_owner(&owner.bytes()?)?;
        if let Some(memo) = self.memo {
            memo.keep_owner(queue, owner.clone());
        }
        Ok(owner)
    }

    /// The number of the recipient's queue.
    pub(crate) fn name(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        if let Some(queue) = self.memo.and_then(|memo| memo.name(recipient)) {
            return Ok(Some(queue));
        }
        let queue = self.find_name(recipient)?;
        if let (Some(memo), Some(queue)) = (self.memo, queue) {
            memo.keep_name(recipient.clone(), queue);
        }
        Ok(queue)
    }

    fn find_name(&self, recipient: &Recipient) -> Result<Option<u64>, StoreError> {
        match self.layers.iter().flatten().find_map(|layer| layer.names.get(recipient)) {
            Some(number) => Ok(*number),
            None => self.base.name(recipient),
        }
    }

    /// The index below all layers.
    pub(crate) const fn base(&self) -> &'a Base {
        self.base
    }

    /// Shows every name with the queue that it leads to, in no order. A damaged one is an error of its own.
    pub(crate) fn each_name(&self, visit: &mut dyn FnMut(NameFound<'_>)) -> Result<(), StoreError> {
        for (depth, layer) in self.layers.iter().flatten().enumerate() {
            for (name, queue) in &layer.names {
                if let Some(queue) = queue.filter(|_| !self.is_named_above(depth, name)) {
                    visit(Ok((name, queue)));
                }
            }
        }
        for row in self.base.names()? {
            let (name, value) = row?;
            // Over what is no text redb panics.
            match caught(|| Base::parse_name(name.value())) {
                Ok(name) if self.is_named_above(LAYERS_MAX, &name) => {}
                Ok(name) => visit(Base::checked_name(&name, value.value()).map(|queue| (&name, queue))),
                Err(error) => visit(Err(error)),
            }
        }
        Ok(())
    }

    /// Whether one of the first so many layers says where the name leads.
    fn is_named_above(&self, depth: usize, name: &Recipient) -> bool {
        self.layers.iter().flatten().take(depth).any(|layer| layer.names.contains_key(name))
    }

    pub(crate) fn get(&self, key: &Key) -> Result<Option<Value<'a>>, StoreError> {
        match self.layers.iter().flatten().find_map(|layer| layer.rows.get(key)) {
            Some(row) => Ok(row.map(Value::Fresh)),
            None if self.coverage.is_some_and(|coverage| coverage.lacks(key)) => Err(StoreError::Beyond),
            // A queue that is newer than the index has nothing there.
            None if key.about() > self.base.numbers.queue => Ok(None),
            None => self.base.get(key),
        }
    }

    /// Whether nothing is newer than the index of the rows from `from` on and before `to`.
    pub(crate) fn is_of_index(&self, from: &Key, to: &Key) -> bool {
        self.layers.iter().flatten().all(|layer| layer.rows.range(from, to).next().is_none())
    }

    /// What a row says.
    pub(crate) fn read<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(&[u8]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|value| decode(&value.bytes()?)).transpose()
    }

    /// Where an acked name is remembered, and until when; also when that is over and no sweep has come by yet.
    pub(crate) fn read_acked(&self, queue: u64, id: ItemId) -> Result<Option<(Key, Timestamp)>, StoreError> {
        for slot in self.acked.slots_of(queue, id) {
            let key = Key::acked(slot, queue, id);
            if let Some(until) = self.read(&key, schema::decode_until)? {
                return Ok(Some((key, until)));
            }
        }
        Ok(None)
    }

    /// The rows from `from` on and before `to`.
    pub(crate) fn range(&self, from: &Key, to: &Key) -> Result<Merge<'a>, StoreError> {
        self.merge(from, to, false)
    }

    /// As [`View::range`], from the end.
    pub(crate) fn range_back(&self, from: &Key, to: &Key) -> Result<Merge<'a>, StoreError> {
        self.merge(from, to, true)
    }

    fn merge(&self, from: &Key, to: &Key, reverse: bool) -> Result<Merge<'a>, StoreError> {
        let known_to = match self.coverage {
            Some(coverage) => coverage.known_to(from, to).ok_or(StoreError::Beyond)?,
            None => *to,
        };
        let is_cut = known_to < *to;
        if is_cut && reverse {
            return Err(StoreError::Beyond);
        }
        let to = &known_to;
        let layers = self.layers.map(|layer| {
            let range = layer.map(|layer| layer.rows.range(from, to));
            let mut layer = LayerRange { range, head: None };
            layer.advance(reverse);
            layer
        });
        let mut base = BaseRange { range: self.base.range(from, to)?, from: *from, to: *to, head: None };
        base.advance(reverse)?;
        Ok(Merge { reverse, layers, base, is_cut })
    }
}

impl Value<'_> {
    /// The value alone, or that it is damaged.
    pub(crate) fn bytes(&self) -> Result<Cow<'_, [u8]>, StoreError> {
        match self {
            Self::Fresh(row) => Ok(row.bytes()),
            Self::Stored(key, guard) => Base::checked(key, guard.value()).map(Cow::Borrowed),
        }
    }

    /// The same, of the row of a queue.
    pub(crate) fn queue(&self) -> Result<Arc<QueueRow>, StoreError> {
        match self {
            Self::Fresh(Fresh::Queue(row)) => Ok(Arc::clone(row)),
            value => QueueRow::decode(&value.bytes()?).map(Arc::new),
        }
    }
}

impl<'a> LayerRange<'a> {
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

impl<'a> BaseRange<'a> {
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
                return Err(StoreError::Damaged("the index is out of order"));
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

impl<'a> Merge<'a> {
    fn next_key(&self) -> Option<Key> {
        let layers = self.layers.iter().filter_map(|layer| layer.head.as_ref().map(|head| head.0));
        let keys = layers.chain(self.base.head.as_ref().map(|head| head.0));
        if self.reverse { keys.max() } else { keys.min() }
    }

    fn step(&mut self, key: &Key) -> Result<Option<Value<'a>>, StoreError> {
        let mut newest = None;
        for layer in &mut self.layers {
            let value = layer.take(key, self.reverse);
            newest = newest.or(value);
        }
        let stored = self.base.head.take_if(|head| head.0 == *key);
        if stored.is_some() {
            self.base.advance(self.reverse)?;
        }
        match (newest, stored) {
            (Some(value), _) => Ok(value.map(Value::Fresh)),
            (None, Some((key, value))) => Ok(Some(Value::Stored(key, value))),
            (None, None) => Ok(None),
        }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = Result<(Key, Value<'a>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().or_else(|| std::mem::take(&mut self.is_cut).then_some(Err(StoreError::Beyond)))
    }
}

impl<'a> Merge<'a> {
    fn next_row(&mut self) -> Option<Result<(Key, Value<'a>), StoreError>> {
        // Most of a deep queue is in the index alone.
        if self.layers.iter().all(|layer| layer.head.is_none()) {
            let (key, value) = self.base.head.take()?;
            return Some(self.base.advance(self.reverse).map(|()| (key, Value::Stored(key, value))));
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
