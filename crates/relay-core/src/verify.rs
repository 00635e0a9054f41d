//! Recounts a store: what is noted must be what is there, and every index must lead both ways.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::limits::Usage;
use crate::message::{ItemId, Recipient, Seq};
use crate::store::{Queued, ReadTx, Trace};
use crate::time::Timestamp;

/// What a store shows for a recount, beyond what the rules need.
pub trait Inspect: ReadTx {
    /// Every queue that the store knows of.
    fn recipients(&self) -> Result<Vec<Recipient>, Self::Error>;

    /// Every name that a queue remembers.
    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, Trace)>, Self::Error>;

    /// The expiry index: when the sweep looks at which queue. A store may note each item, or each queue not later than its first
    /// deadline.
    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Self::Error>;

    /// The expiry index of acked names.
    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Self::Error>;
}

/// Recounts everything and lists what does not add up; nothing, when all is well. Queues are told apart by number, since who
/// they belong to must not be told.
///
/// # Errors
/// The store's.
pub fn recount<S: Inspect>(store: &S) -> Result<Vec<String>, S::Error> {
    let recipients = store.recipients()?;
    let mut earliest = BTreeMap::<Recipient, Timestamp>::new();
    for (at, recipient) in store.expiry()? {
        earliest.entry(recipient).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let acked: BTreeSet<_> = store.acked_expiry()?.into_iter().collect();

    let mut findings = Vec::new();
    let mut acked_traces = 0_usize;
    for (number, recipient) in recipients.iter().enumerate() {
        let queue = QueueView::read(store, recipient)?;
        acked_traces += queue.acked.len();
        let mut wrong = queue.check_counts();
        wrong.extend(queue.check_order());
        wrong.extend(queue.check_traces());
        wrong.extend(queue.check_expiry(earliest.get(recipient).copied()));
        let expires = |(id, until): &(ItemId, Timestamp)| acked.contains(&(*until, recipient.clone(), *id));
        if !queue.acked.iter().all(expires) {
            wrong.push("an acked name would never be forgotten".to_owned());
        }
        findings.extend(wrong.into_iter().map(|what| format!("queue {number}: {what}")));
    }
    if acked.len() != acked_traces {
        findings.push(format!("{} acked names are due to expire, {acked_traces} exist", acked.len()));
    }
    let known: HashSet<_> = recipients.iter().collect();
    let strangers = earliest.keys().filter(|recipient| !known.contains(recipient)).count();
    if strangers > 0 {
        findings.push(format!("the expiry index names {strangers} unknown queues"));
    }
    Ok(findings)
}

/// What one queue shows of itself.
struct QueueView<I> {
    usage: Usage,
    items: Vec<I>,
    queued: BTreeMap<ItemId, Trace>,
    acked: Vec<(ItemId, Timestamp)>,
}

impl<I: Queued> QueueView<I> {
    fn read<S: Inspect<Item = I>>(store: &S, recipient: &Recipient) -> Result<Self, S::Error> {
        let (queue, mut items) = (store.queue(recipient)?, Vec::new());
        store.scan(&queue, Seq::ZERO, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        })?;
        let (mut queued, mut acked) = (BTreeMap::new(), Vec::new());
        for (id, trace) in store.traces(recipient)? {
            match trace {
                Trace::Queued { .. } => drop(queued.insert(id, trace)),
                Trace::Acked { until } => acked.push((id, until)),
            }
        }
        Ok(Self { usage: store.usage(&queue)?, items, queued, acked })
    }

    fn check_counts(&self) -> Vec<String> {
        let sum = self.items.iter().map(|item| Usage::of(item.payload_bytes())).sum::<Usage>();
        let mut wrong = Vec::new();
        if sum != self.usage {
            wrong.push(format!("the usage noted is {:?}, the items add up to {sum:?}", self.usage));
        }
        if self.items.is_empty() && self.acked.is_empty() {
            wrong.push("it is empty and should be forgotten".to_owned());
        }
        wrong
    }

    fn check_order(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (a, b) in self.items.iter().zip(self.items.iter().skip(1)) {
            if a.seq() >= b.seq() {
                wrong.push(format!("arrival number {} comes before {}", a.seq().as_u64(), b.seq().as_u64()));
            }
            if a.deadline() > b.deadline() {
                wrong.push(format!("item {} expires before the item in front of it", b.seq().as_u64()));
            }
        }
        wrong
    }

    fn check_traces(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for item in &self.items {
            let (seq, deadline, payload_bytes) = (item.seq(), item.deadline(), item.payload_bytes());
            if self.queued.get(&item.id()) != Some(&Trace::Queued { seq, deadline, payload_bytes }) {
                wrong.push(format!("item {} is not found by its name", seq.as_u64()));
            }
        }
        if self.queued.len() != self.items.len() {
            wrong.push(format!("{} names lead to {} items", self.queued.len(), self.items.len()));
        }
        wrong
    }

    fn check_expiry(&self, noted: Option<Timestamp>) -> Vec<String> {
        match (self.items.first(), noted) {
            (Some(first), Some(at)) if at <= first.deadline() => Vec::new(),
            (None, None) => Vec::new(),
            (Some(_), _) => vec!["the sweep would miss its first item".to_owned()],
            (None, Some(_)) => vec!["the sweep would look at it for nothing".to_owned()],
        }
    }
}
