//! A store of your own below the rules of relay-core.
//!
//! Implement [`ReadTx`] and [`WriteTx`], which contain no rules. relay-core adds quotas,
//! idempotency, order, paging and expiry, exactly as for every other store.
//!
//! This store is three maps and a counter: slow, but complete. It reads no clock and does no I/O.
//! The caller passes the time in.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Ack, Chunk, Due, DueItems, Envelope, Forgotten, Item, ItemId, ItemStatus, Kind, Limits, MessageId, Pull,
    ReadTx, Recipient, Seq, SweepTx, Timestamp, Usage, WriteTx, queue,
};

/// The capacity of the whole store. A real store is limited by its disk.
const ROWS_MAX: usize = 3;

/// Step 1: the data. The transactions of this example need `Clone`, see [`Shelf::write`].
#[derive(Clone, Default)]
struct Shelf {
    /// The items, in the order of reads: by queue, then by arrival.
    items: BTreeMap<(Recipient, Seq), Item<Bytes>>,
    /// The queued and the acked item ids.
    statuses: BTreeMap<(Recipient, ItemId), ItemStatus>,
    /// The usage of each queue, as the rules computed it.
    usage: BTreeMap<Recipient, Usage>,
    /// The last arrival number, which is never used again.
    last_seq: Seq,
}

/// Step 2: the error type. The rules pass it through.
#[derive(Debug)]
struct ShelfFull;

impl fmt::Display for ShelfFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shelf holds only {ROWS_MAX} items")
    }
}

impl std::error::Error for ShelfFull {}

/// Step 3: a transaction. It changes a copy, which replaces the original only on success. So all
/// changes take effect together, or none does. A database does this better.
impl Shelf {
    fn write<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, ShelfFull>) -> Result<R, ShelfFull> {
        let mut copy = self.clone();
        let result = work(&mut copy)?;
        *self = copy;
        Ok(result)
    }
}

/// Step 4: reads. An unknown recipient has an empty queue.
impl ReadTx for Shelf {
    type Error = ShelfFull;
    type Item = Item<Bytes>;
    /// A database would cache the queue's row here, to read it once per request.
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, ShelfFull> {
        Ok(recipient.clone())
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, ShelfFull> {
        Ok(self.usage.get(recipient).copied().unwrap_or_default())
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, ShelfFull> {
        Ok(self.statuses.get(&(recipient.clone(), id)).copied())
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), ShelfFull> {
        let items = self.items.range((recipient.clone(), from)..);
        for (_, item) in items.take_while(|((owner, _), _)| owner == recipient) {
            if visit(item.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, ShelfFull> {
        Ok(self.items.get(&(recipient.clone(), seq)).is_some_and(|item| item.body == payload))
    }
}

/// Step 5: writes. The rules have already decided when they call these.
impl WriteTx for Shelf {
    fn next_seq(&mut self, _: &Self::Queue) -> Result<Seq, ShelfFull> {
        self.last_seq = self.last_seq.next();
        Ok(self.last_seq)
    }

    fn insert(&mut self, recipient: &mut Recipient, item: Item<Bytes>) -> Result<(), ShelfFull> {
        if self.items.len() >= ROWS_MAX {
            return Err(ShelfFull);
        }
        let Item { seq, deadline, payload_bytes, .. } = item;
        let status = ItemStatus::Queued { seq, deadline, payload_bytes };
        self.statuses.insert((recipient.clone(), item.id()), status);
        self.items.insert((recipient.clone(), item.seq), item);
        Ok(())
    }

    fn remove(&mut self, recipient: &mut Recipient, id: ItemId, seq: Seq) -> Result<(), ShelfFull> {
        self.statuses.remove(&(recipient.clone(), id));
        self.items.remove(&(recipient.clone(), seq));
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &mut Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), ShelfFull> {
        self.statuses.insert((recipient.clone(), id), ItemStatus::Acked { until });
        Ok(())
    }

    fn close(&mut self, recipient: Recipient, usage: Usage) -> Result<(), ShelfFull> {
        // An empty queue is removed, so that recipients do not accumulate.
        if usage.is_empty() {
            self.usage.remove(&recipient)
        } else {
            self.usage.insert(recipient, usage)
        };
        Ok(())
    }
}

impl SweepTx for Shelf {
    /// A real store needs an index by deadline. This one scans all items, which are already in
    /// order.
    fn due(&mut self, now: Timestamp, max: usize) -> Result<DueItems, ShelfFull> {
        let due =
            self.items.iter().filter(|(_, item)| item.deadline <= now).map(|((recipient, seq), item)| Due {
                recipient: recipient.clone(),
                id: item.id(),
                seq: *seq,
                payload_bytes: item.payload_bytes,
            });
        let items: Vec<Due> = due.take(max).collect();
        let more = items.len() == max;
        Ok(DueItems { items, more })
    }

    fn forget_acked(&mut self, now: Timestamp, max: usize) -> Result<Forgotten, ShelfFull> {
        let is_over = |status: &ItemStatus| matches!(status, ItemStatus::Acked { until } if *until <= now);
        let forgotten = self.statuses.extract_if(.., |_, status| is_over(status)).take(max).count();
        Ok(Forgotten { item_ids: forgotten, more: forgotten == max })
    }
}

fn envelope(recipient: &Recipient, number: u8, text: &'static str) -> Result<Envelope, relay_core::Error> {
    Ok(Envelope {
        recipient: recipient.clone(),
        message_id: MessageId::from_bytes([number; 16]),
        chunk: Chunk::new(0, 1)?,
        kind: Kind::parse("opaque")?,
        total_len: text.len() as u64,
        sent_ms: 0,
        ttl_ms: None,
        payload: Bytes::from_static(text.as_bytes()),
    })
}

/// Step 6: use. Each call is one transaction, at the given time.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut shelf, limits, alice) = (Shelf::default(), Limits::default(), Recipient::parse("alice")?);
    let monday = Timestamp::from_ms(1_700_000_000_000);

    for (number, text) in [(1, "hello"), (2, "how are you?"), (1, "hello"), (3, "bye")] {
        let envelope = envelope(&alice, number, text)?;
        // Two errors: the store may fail, and the rules may refuse.
        let outcome = shelf.write(|tx| queue::push(tx, &limits, monday, envelope))??;
        println!("push {number}: {outcome:?}");
    }

    // A push that fails half-way changes nothing.
    let before = shelf.last_seq;
    let envelope = envelope(&alice, 4, "one too many")?;
    let failed = shelf.write(|tx| queue::push(tx, &limits, monday, envelope));
    println!("push 4: {}", failed.err().map_or_else(String::new, |error| error.to_string()));
    assert_eq!(shelf.last_seq, before);

    let pull = Pull { recipient: alice.clone(), after: None, items_max: None };
    let page = queue::pull(&shelf, &limits, monday, &pull)?;
    for item in &page.items {
        println!("pull: {}", String::from_utf8_lossy(&item.body));
    }
    assert_eq!(page.items.len(), 3);

    let ack = Ack::new(alice, page.items.iter().take(2).map(Item::id).collect())?;
    let outcome = shelf.write(|tx| queue::ack(tx, &limits, monday, &ack))?;
    println!("ack: {outcome:?}");
    assert_eq!((outcome.deleted, outcome.remaining), (2, 1));

    // Items expire at their deadline. A sweep reclaims their space, step by step.
    let later = monday.plus_ms(limits.ttl_ms);
    assert!(queue::pull(&shelf, &limits, later, &pull)?.items.is_empty());
    while shelf.write(|tx| queue::expire(tx, later, 100))?.more {}
    let (days, items, ids) = (limits.ttl_ms / 86_400_000, shelf.items.len(), shelf.statuses.len());
    println!("after {days} days: {items} items, {ids} item ids");
    assert!(shelf.items.is_empty() && shelf.statuses.is_empty() && shelf.usage.is_empty());
    Ok(())
}
