//! The recount must notice when a store lies about what it holds.

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
enum Lie {
    None,
    OneItemMore,
    OneByteLess,
    TwoItemsSwapped,
    LaterItemExpiresFirst,
    ItemMissing,
    TraceMissing,
    TracesMissing,
    TraceTooMany,
    TraceLeadsElsewhere,
    TraceOfAckedForgotten,
    ExpiryMissing,
    ExpiryTooLate,
    ExpiryOfEmptyQueue,
    ExpiryOfStranger,
    AckedExpiryMissing,
    AckedExpiryTooMany,
    AckedExpiryAtOtherTime,
    EmptyQueueKept,
}

/// Tables that are in order: alice has two items and one acked name, bob has nothing but an acked
/// name.
struct Lying {
    tables: MemoryTables,
    lie: Lie,
}

#[test]
fn what_is_beyond_the_bound_is_counted() {
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

/// A queue that is wrong from end to end must not hide the others, nor fill the memory.
#[test]
fn of_one_queue_some_findings_are_listed() {
    let (mut tables, limits) = (tables(), Limits::default());
    for number in 10..60 {
        let Ok(outcome) =
            queue::push(&mut tables, &limits, Timestamp::from_ms(6_000), envelope("alice", number, 1));
        assert!(outcome.unwrap().is_stored());
    }
    let Ok(findings) = recount(&Lying { tables, lie: Lie::TracesMissing });
    assert_eq!(findings.len(), 22, "{findings:?}");
    assert_eq!(findings[0], "queue 0: item 1 is not found by its name");
    assert_eq!(
        findings[20..],
        ["2 acked names are due to expire, 1 exist", "33 more of this kind are not listed"]
    );
}

#[test]
fn every_lie_is_told() {
    let check = |lie: Lie, expected: &[&str]| {
        let Ok(findings) = recount(&Lying { tables: tables(), lie });
        assert_eq!(findings, expected, "{lie:?}");
    };
    let usage =
        |items, bytes| format!("queue 0: the usage noted is Usage {{ items: {items}, bytes: {bytes} }}");
    let added = |items, bytes| format!("the items add up to Usage {{ items: {items}, bytes: {bytes} }}");
    check(Lie::None, &[]);
    check(Lie::OneItemMore, &[&format!("{}, {}", usage(3, 30), added(2, 30))]);
    check(Lie::OneByteLess, &[&format!("{}, {}", usage(2, 29), added(2, 30))]);
    check(
        Lie::TwoItemsSwapped,
        &[
            "queue 0: arrival number 2 comes before 1",
            "queue 0: item 1 expires before the item in front of it",
        ],
    );
    check(
        Lie::LaterItemExpiresFirst,
        &[
            "queue 0: item 2 expires before the item in front of it",
            "queue 0: item 2 is not found by its name",
        ],
    );
    check(
        Lie::ItemMissing,
        &[&format!("{}, {}", usage(2, 30), added(1, 20)), "queue 0: 2 names lead to 1 items"],
    );
    check(
        Lie::TraceMissing,
        &["queue 0: item 1 is not found by its name", "queue 0: 1 names lead to 2 items"],
    );
    check(Lie::TraceTooMany, &["queue 0: 3 names lead to 2 items"]);
    check(Lie::TraceLeadsElsewhere, &["queue 0: item 1 is not found by its name"]);
    check(Lie::TraceOfAckedForgotten, &["2 acked names are due to expire, 1 exist"]);
    check(Lie::ExpiryMissing, &["queue 0: the sweep would miss its first item"]);
    check(Lie::ExpiryTooLate, &["queue 0: the sweep would miss its first item"]);
    check(Lie::ExpiryOfEmptyQueue, &["queue 1: the sweep would look at it for nothing"]);
    check(Lie::ExpiryOfStranger, &["the expiry index names 1 unknown queues"]);
    check(
        Lie::AckedExpiryMissing,
        &["queue 0: an acked name would never be forgotten", "1 acked names are due to expire, 2 exist"],
    );
    check(Lie::AckedExpiryTooMany, &["3 acked names are due to expire, 2 exist"]);
    check(Lie::AckedExpiryAtOtherTime, &["queue 0: an acked name would never be forgotten"]);
    check(Lie::EmptyQueueKept, &["queue 2: it is empty and should be forgotten"]);
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
        payload: vec![0; payload_bytes].into(),
    }
}

fn id(number: u8) -> ItemId {
    ItemId { message_id: MessageId::from_bytes([number; 16]), chunk_index: 0 }
}

fn named(recipient: &str) -> Recipient {
    Recipient::parse(recipient).unwrap()
}

impl Lying {
    fn tells(&self, lie: Lie, recipient: &Recipient) -> bool {
        self.lie == lie && recipient.as_str() == "alice"
    }
}

impl ReadTx for Lying {
    type Error = Never;
    type Item = Item<Bytes>;
    type Queue = Recipient;

    fn queue(&self, recipient: &Recipient) -> Result<Recipient, Never> {
        self.tables.queue(recipient)
    }

    fn usage(&self, recipient: &Recipient) -> Result<Usage, Never> {
        let Ok(mut usage) = self.tables.usage(recipient);
        if self.tells(Lie::OneItemMore, recipient) {
            usage.items += 1;
        }
        if self.tells(Lie::OneByteLess, recipient) {
            usage.bytes -= 1;
        }
        Ok(usage)
    }

    fn locate(&self, recipient: &Recipient, id: ItemId) -> Result<Option<ItemStatus>, Never> {
        let Ok(traces) = self.traces(recipient);
        Ok(traces.into_iter().find(|(known, _)| *known == id).map(|(_, trace)| trace))
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
        if self.tells(Lie::TwoItemsSwapped, recipient) {
            items.reverse();
        }
        if self.tells(Lie::LaterItemExpiresFirst, recipient) {
            items[1].deadline = Timestamp::from_ms(items[0].deadline.as_ms() - 1);
        }
        if self.tells(Lie::ItemMissing, recipient) {
            items.remove(0);
        }
        let _ = items.into_iter().try_for_each(visit);
        Ok(())
    }

    fn last_deadline(&self, recipient: &Recipient) -> Result<Option<Timestamp>, Never> {
        self.tables.last_deadline(recipient)
    }

    fn has_payload(&self, recipient: &Recipient, seq: Seq, payload: &[u8]) -> Result<bool, Never> {
        self.tables.has_payload(recipient, seq, payload)
    }
}

impl Inspect for Lying {
    fn recipients(&self) -> Result<Vec<Recipient>, Never> {
        let Ok(mut recipients) = self.tables.recipients();
        recipients.sort();
        if self.lie == Lie::EmptyQueueKept {
            recipients.push(named("carol"));
        }
        Ok(recipients)
    }

    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Never> {
        let Ok(mut traces) = self.tables.traces(recipient);
        if self.tells(Lie::TracesMissing, recipient) {
            traces.clear();
        }
        if self.tells(Lie::TraceMissing, recipient) {
            traces.retain(|(known, _)| *known != id(1));
        }
        if self.tells(Lie::TraceOfAckedForgotten, recipient) {
            traces.retain(|(known, _)| *known != id(3));
        }
        for (known, trace) in traces.clone() {
            if known != id(1) {
                continue;
            }
            if self.tells(Lie::TraceTooMany, recipient) {
                traces.push((id(9), trace));
            }
            if let ItemStatus::Queued { deadline, payload_bytes, .. } = trace
                && self.tells(Lie::TraceLeadsElsewhere, recipient)
            {
                traces.retain(|(known, _)| *known != id(1));
                traces.push((known, ItemStatus::Queued { seq: Seq::new(2), deadline, payload_bytes }));
            }
        }
        Ok(traces)
    }

    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Never> {
        let Ok(mut expiry) = self.tables.expiry();
        let at = Timestamp::from_ms(1);
        match self.lie {
            Lie::ExpiryMissing => expiry.clear(),
            Lie::ExpiryTooLate => drop(expiry.remove(0)),
            Lie::ExpiryOfEmptyQueue => expiry.push((at, named("bob"))),
            Lie::ExpiryOfStranger => expiry.push((at, named("carol"))),
            _ => {}
        }
        Ok(expiry)
    }

    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Never> {
        let Ok(mut acked) = self.tables.acked_expiry();
        let first = acked[0].clone();
        match self.lie {
            Lie::AckedExpiryMissing => drop(acked.remove(0)),
            Lie::AckedExpiryTooMany => acked.push((first.0, first.1, id(9))),
            Lie::AckedExpiryAtOtherTime => acked[0].0 = Timestamp::from_ms(first.0.as_ms() + 1),
            _ => {}
        }
        Ok(acked)
    }
}
