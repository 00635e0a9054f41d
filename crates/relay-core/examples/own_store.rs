//! The rules of the relay over a store of your own.
//!
//! relay-core decides what a push, a pull and an ack do; a store only remembers. To bring your own,
//! implement [`ReadTx`] and [`WriteTx`]: what is there, and how it is changed. Neither holds any
//! rule. What you get in return is quotas, idempotency, order, paging and expiry, the same as every
//! other store has them.
//!
//! This store is two maps and a counter. It is slow, and it is complete. Nothing here reads a clock
//! or does I/O: the time is passed in.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{
    Ack, Chunk, Due, DueItems, Envelope, Forgotten, Item, ItemId, ItemStatus, Kind, Limits, MessageId, Pull,
    ReadTx, Recipient, Seq, SweepTx, Timestamp, Usage, WriteTx, queue,
};

/// How many items the whole store holds. Yours ends where the disk does.
const ROWS_MAX: usize = 3;

/// Step 1: what is remembered. `Clone` makes the transactions of this example possible, see
/// [`Shelf::write`].
#[derive(Clone, Default)]
struct Shelf {
    /// The items. The key sorts them as they have to be read: by queue, then by arrival.
    items: BTreeMap<(Recipient, Seq), Item<Bytes>>,
    /// What is known of a name: where the item lies, or until when it is remembered that it was
    /// acked.
    traces: BTreeMap<(Recipient, ItemId), ItemStatus>,
    /// What each queue holds, as the rules noted it.
    usage: BTreeMap<Recipient, Usage>,
    /// The last arrival number, which is never used again.
    last_seq: Seq,
}

/// Step 2: how it fails. The rules hand this through and do not look at it.
#[derive(Debug)]
struct ShelfFull;

impl fmt::Display for ShelfFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the shelf has only {ROWS_MAX} places")
    }
}

impl std::error::Error for ShelfFull {}

/// Step 3: a transaction. All changes come into effect together, or none: the work is done on a
/// copy, which takes the place of the original when it succeeds and is dropped when it fails. A
/// database does this better.
impl Shelf {
    fn write<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R, ShelfFull>) -> Result<R, ShelfFull> {
        let mut copy = self.clone();
        let result = work(&mut copy)?;
        *self = copy;
        Ok(result)
    }
}

/// Step 4: reading. A recipient that is not known has an empty queue.
impl ReadTx for Shelf {
    type Error = ShelfFull;
    type Item = Item<Bytes>;
    /// A database would keep here what it has found of the queue, to find it once for each request.
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, ShelfFull> {
        Ok(recipient.clone())
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, ShelfFull> {
        Ok(self.usage.get(recipient).copied().unwrap_or_default())
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, ShelfFull> {
        Ok(self.traces.get(&(recipient.clone(), id)).copied())
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), ShelfFull> {
        let rest = self.items.range((recipient.clone(), from)..);
        for (_, item) in rest.take_while(|((owner, _), _)| owner == recipient) {
            if visit(item.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, ShelfFull> {
        let queue = (recipient.clone(), Seq::ZERO)..=(recipient.clone(), self.last_seq);
        Ok(self.items.range(queue).next_back().map(|(_, item)| item.deadline))
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, ShelfFull> {
        Ok(self.items.get(&(recipient.clone(), seq)).is_some_and(|item| item.body == payload))
    }
}

/// Step 5: changing. The rules call this only after they have decided.
impl WriteTx for Shelf {
    fn next_seq(&mut self) -> Result<Seq, ShelfFull> {
        self.last_seq = self.last_seq.next();
        Ok(self.last_seq)
    }

    fn insert(&mut self, recipient: &mut Recipient, item: Item<Bytes>) -> Result<(), ShelfFull> {
        if self.items.len() >= ROWS_MAX {
            return Err(ShelfFull);
        }
        let trace =
            ItemStatus::Queued { seq: item.seq, deadline: item.deadline, payload_bytes: item.payload_bytes };
        self.traces.insert((recipient.clone(), item.id()), trace);
        self.items.insert((recipient.clone(), item.seq), item);
        Ok(())
    }

    fn remove(&mut self, recipient: &mut Recipient, id: ItemId, seq: Seq) -> Result<(), ShelfFull> {
        self.traces.remove(&(recipient.clone(), id));
        self.items.remove(&(recipient.clone(), seq));
        Ok(())
    }

    fn remember_acked(
        &mut self,
        recipient: &mut Recipient,
        id: ItemId,
        until: Timestamp,
    ) -> Result<(), ShelfFull> {
        self.traces.insert((recipient.clone(), id), ItemStatus::Acked { until });
        Ok(())
    }

    fn close(&mut self, recipient: Recipient, usage: Usage) -> Result<(), ShelfFull> {
        // A queue that holds nothing is not kept, so that recipients do not pile up.
        if usage.is_empty() {
            self.usage.remove(&recipient)
        } else {
            self.usage.insert(recipient, usage)
        };
        Ok(())
    }
}

impl SweepTx for Shelf {
    /// A real store keeps an index by deadline. Here it is enough to look at everything, which lies
    /// in order already.
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
        let over = |trace: &ItemStatus| matches!(trace, ItemStatus::Acked { until } if *until <= now);
        let names = self.traces.iter().filter(|(_, trace)| over(trace)).map(|(name, _)| name.clone());
        let names: Vec<_> = names.take(max).collect();
        for name in &names {
            self.traces.remove(name);
        }
        Ok(Forgotten { names: names.len(), more: names.len() == max })
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
        payload: Bytes::from_static(text.as_bytes()),
    })
}

/// Step 6: use. Each call is one transaction, at a time that you tell.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut shelf, limits, alice) = (Shelf::default(), Limits::default(), Recipient::parse("alice")?);
    let monday = Timestamp::from_ms(1_700_000_000_000);

    for (number, text) in [(1, "hello"), (2, "how are you?"), (1, "hello"), (3, "bye")] {
        let envelope = envelope(&alice, number, text)?;
        // Two layers: the store may fail, and the rules may refuse.
        let outcome = shelf.write(|tx| queue::push(tx, &limits, monday, envelope))??;
        println!("push {number}: {outcome:?}");
    }

    // A push that fails half-way leaves nothing behind.
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

    // What nobody fetches is gone when its time is over; a sweep, step by step, gives its place
    // back.
    let later = monday.plus_ms(limits.ttl_ms);
    assert!(queue::pull(&shelf, &limits, later, &pull)?.items.is_empty());
    while shelf.write(|tx| queue::expire(tx, later, 100))?.more {}
    println!(
        "after {} days: {} items, {} names",
        limits.ttl_ms / 86_400_000,
        shelf.items.len(),
        shelf.traces.len()
    );
    assert!(shelf.items.is_empty() && shelf.traces.is_empty() && shelf.usage.is_empty());
    Ok(())
}
