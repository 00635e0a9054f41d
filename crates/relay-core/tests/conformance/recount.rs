//! `recount` must detect every corruption of a store.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::memory::MemoryTables;
use relay_core::verify::{Findings, Inspect, recount};
use relay_core::{
    Ack, Chunk, Envelope, Item, ItemId, ItemStatus, Kind, Limits, MessageId, ReadTx, Recipient, Seq,
    Timestamp, Usage, queue,
};

type Never = std::convert::Infallible;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Corruption {
    None,
    OneItemMore,
    OneByteLess,
    TwoItemsSwapped,
    LaterItemExpiresFirst,
    ItemMissing,
    StatusMissing,
    StatusesMissing,
    StatusTooMany,
    StatusLeadsElsewhere,
    StatusOfAckedMissing,
    ExpiryMissing,
    ExpiryTooLate,
    ExpiryOfEmptyQueue,
    ExpiryOfUnknownQueue,
    AckedExpiryMissing,
    AckedExpiryTooMany,
    AckedExpiryAtOtherTime,
    EmptyQueueKept,
}

/// Correct tables that report one corruption. Alice has two items and an acked item id, bob has an
/// acked item id only.
struct CorruptTables {
    tables: MemoryTables,
    corruption: Corruption,
}

#[test]
fn findings_beyond_the_bound_are_counted() {
    let mut findings = Findings::new(2);
    for number in 0..5 {
        findings.add(format!("finding {number}"));
    }
    let mut all = Findings::new(3);
    all.absorb(findings);
    all.add("another".to_owned());
    all.add("one too many".to_owned());
    let expected = ["finding 0", "finding 1", "another", "4 more of this kind are not listed"];
    assert_eq!(all.into_listed(), expected);
    assert_eq!(Findings::default().into_listed(), Vec::<String>::new());
}

/// One bad queue must not hide others, and must not fill the memory.
#[test]
fn the_findings_of_one_queue_are_bounded() {
    let (mut tables, limits) = (tables(), Limits::default());
    for number in 10..60 {
        let Ok(outcome) =
            queue::push(&mut tables, &limits, Timestamp::from_ms(6_000), envelope("alice", number, 1));
        assert!(outcome.unwrap().is_stored());
    }
    let Ok(findings) = recount(&CorruptTables { tables, corruption: Corruption::StatusesMissing });
    assert_eq!(findings.len(), 22, "{findings:?}");
    assert_eq!(findings[0], "queue 0: item 1 is not found by its item id");
    assert_eq!(
        findings[20..],
        ["the expiry index has 2 acked item ids, the queues have 1", "33 more of this kind are not listed"]
    );
}

#[test]
fn every_corruption_is_found() {
    let check = |corruption: Corruption, expected: &[&str]| {
        let Ok(findings) = recount(&CorruptTables { tables: tables(), corruption });
        assert_eq!(findings, expected, "{corruption:?}");
    };
    let usage =
        |items, bytes| format!("queue 0: the recorded usage is Usage {{ items: {items}, bytes: {bytes} }}");
    let added = |items, bytes| format!("the items add up to Usage {{ items: {items}, bytes: {bytes} }}");
    check(Corruption::None, &[]);
    check(Corruption::OneItemMore, &[&format!("{}, {}", usage(3, 30), added(2, 30))]);
    check(Corruption::OneByteLess, &[&format!("{}, {}", usage(2, 29), added(2, 30))]);
    check(Corruption::TwoItemsSwapped, &["queue 0: arrival number 2 comes before 1"]);
    check(
        Corruption::LaterItemExpiresFirst,
        &[
            "queue 0: item 2 is not found by its item id",
            "queue 0: the sweep would miss the item that expires first",
        ],
    );
    check(
        Corruption::ItemMissing,
        &[&format!("{}, {}", usage(2, 30), added(1, 20)), "queue 0: 2 item ids lead to 1 items"],
    );
    check(
        Corruption::StatusMissing,
        &["queue 0: item 1 is not found by its item id", "queue 0: 1 item ids lead to 2 items"],
    );
    check(Corruption::StatusTooMany, &["queue 0: 3 item ids lead to 2 items"]);
    check(Corruption::StatusLeadsElsewhere, &["queue 0: item 1 is not found by its item id"]);
    check(Corruption::StatusOfAckedMissing, &["the expiry index has 2 acked item ids, the queues have 1"]);
    check(Corruption::ExpiryMissing, &["queue 0: the sweep would miss the item that expires first"]);
    check(Corruption::ExpiryTooLate, &["queue 0: the sweep would miss the item that expires first"]);
    check(Corruption::ExpiryOfEmptyQueue, &["queue 1: the sweep would visit it without need"]);
    check(Corruption::ExpiryOfUnknownQueue, &["the expiry index has 1 unknown queues"]);
    check(
        Corruption::AckedExpiryMissing,
        &[
            "queue 0: an acked item id would never be forgotten",
            "the expiry index has 1 acked item ids, the queues have 2",
        ],
    );
    check(Corruption::AckedExpiryTooMany, &["the expiry index has 3 acked item ids, the queues have 2"]);
    check(Corruption::AckedExpiryAtOtherTime, &["queue 0: an acked item id would never be forgotten"]);
    check(Corruption::EmptyQueueKept, &["queue 2: it is empty and should be forgotten"]);
}

fn tables() -> MemoryTables {
    let (mut tables, limits) = (MemoryTables::default(), Limits::default());
    for (recipient, number, bytes, now_ms) in
        [("alice", 1, 10, 1_000), ("alice", 2, 20, 2_000), ("alice", 3, 5, 3_000), ("bob", 4, 5, 4_000)]
    {
        let now = Timestamp::from_ms(now_ms);
        let Ok(outcome) = queue::push(&mut tables, &limits, now, envelope(recipient, number, bytes));
        assert!(outcome.unwrap().is_stored());
    }
    for (recipient, number) in [("alice", 3), ("bob", 4)] {
        let ack = Ack::new(named(recipient), vec![id(number)]).unwrap();
        let Ok(outcome) = queue::ack(&mut tables, &limits, Timestamp::from_ms(5_000), &ack);
        assert_eq!(outcome.deleted, 1);
    }
    tables
}

fn envelope(recipient: &str, number: u8, payload_bytes: usize) -> Envelope {
    Envelope {
        recipient: named(recipient),
        message_id: id(number).message_id,
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 0,
        sent_ms: 0,
        ttl_ms: None,
        payload: vec![0; payload_bytes].into(),
    }
}

fn id(number: u8) -> ItemId {
    ItemId { message_id: MessageId::from_bytes([number; 16]), chunk_index: 0 }
}

fn named(recipient: &str) -> Recipient {
    Recipient::parse(recipient).unwrap()
}

impl CorruptTables {
    fn applies(&self, corruption: Corruption, recipient: &Recipient) -> bool {
        self.corruption == corruption && recipient.as_str() == "alice"
    }
}

impl ReadTx for CorruptTables {
    type Error = Never;
    type Item = Item<Bytes>;
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, Never> {
        self.tables.queue(recipient)
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, Never> {
        let Ok(mut usage) = self.tables.usage(recipient);
        if self.applies(Corruption::OneItemMore, recipient) {
            usage.items += 1;
        }
        if self.applies(Corruption::OneByteLess, recipient) {
            usage.bytes -= 1;
        }
        Ok(usage)
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, Never> {
        let Ok(statuses) = self.statuses(recipient);
        Ok(statuses.into_iter().find(|(known, _)| *known == id).map(|(_, status)| status))
    }

    fn scan(
        &self,
        recipient: &Recipient,
        from: Seq,
        visit: &mut dyn FnMut(Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<(), Never> {
        let mut items = Vec::new();
        self.tables.scan(recipient, from, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        })?;
        if self.applies(Corruption::TwoItemsSwapped, recipient) {
            items.reverse();
        }
        if self.applies(Corruption::LaterItemExpiresFirst, recipient) {
            items[1].deadline = Timestamp::from_ms(items[0].deadline.as_ms() - 1);
        }
        if self.applies(Corruption::ItemMissing, recipient) {
            items.remove(0);
        }
        let _ = items.into_iter().try_for_each(visit);
        Ok(())
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, Never> {
        self.tables.has_payload(recipient, seq, payload)
    }
}

impl Inspect for CorruptTables {
    fn recipients(&self) -> Result<Vec<Recipient>, Never> {
        let Ok(mut recipients) = self.tables.recipients();
        recipients.sort();
        if self.corruption == Corruption::EmptyQueueKept {
            recipients.push(named("carol"));
        }
        Ok(recipients)
    }

    fn statuses(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Never> {
        let Ok(mut statuses) = self.tables.statuses(recipient);
        if self.applies(Corruption::StatusesMissing, recipient) {
            statuses.clear();
        }
        if self.applies(Corruption::StatusMissing, recipient) {
            statuses.retain(|(known, _)| *known != id(1));
        }
        if self.applies(Corruption::StatusOfAckedMissing, recipient) {
            statuses.retain(|(known, _)| *known != id(3));
        }
        for (known, status) in statuses.clone() {
            if known != id(1) {
                continue;
            }
            if self.applies(Corruption::StatusTooMany, recipient) {
                statuses.push((id(9), status));
            }
            if let ItemStatus::Queued { deadline, payload_bytes, .. } = status
                && self.applies(Corruption::StatusLeadsElsewhere, recipient)
            {
                statuses.retain(|(known, _)| *known != id(1));
                statuses.push((known, ItemStatus::Queued { seq: Seq::new(2), deadline, payload_bytes }));
            }
        }
        Ok(statuses)
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Never> {
        let Ok(mut expiry) = self.tables.expiry();
        let at = Timestamp::from_ms(1);
        match self.corruption {
            Corruption::ExpiryMissing => expiry.clear(),
            Corruption::ExpiryTooLate => drop(expiry.remove(0)),
            Corruption::ExpiryOfEmptyQueue => expiry.push((at, named("bob"))),
            Corruption::ExpiryOfUnknownQueue => expiry.push((at, named("carol"))),
            _ => {}
        }
        Ok(expiry)
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Never> {
        let Ok(mut acked) = self.tables.acked_expiry();
        let first = acked[0].clone();
        match self.corruption {
            Corruption::AckedExpiryMissing => drop(acked.remove(0)),
            Corruption::AckedExpiryTooMany => acked.push((first.0, first.1, id(9))),
            Corruption::AckedExpiryAtOtherTime => acked[0].0 = Timestamp::from_ms(first.0.as_ms() + 1),
            _ => {}
        }
        Ok(acked)
    }
}
