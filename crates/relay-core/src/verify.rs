//! Checks a store: recorded counts must match the items, and each index must lead both ways. It
//! reads one queue at a time and one item at a time, so it needs little memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::limits::Usage;
use crate::message::{ItemId, Recipient, Seq};
use crate::store::{ItemStatus, Queued, ReadTx};
use crate::time::Timestamp;

/// The maximum number of listed findings per queue, so that one bad queue does not hide others.
const QUEUE_FINDINGS_MAX: usize = 20;

/// Findings, one sentence each. A bad store could have more than fit into memory, so those beyond a
/// bound are counted but not listed.
#[derive(Debug)]
pub struct Findings {
    listed: Vec<String>,
    listed_max: usize,
    more: u64,
}

/// The number of item ids that a queue remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Ids of items in the queue.
    pub queued: u64,
    /// Ids of acked items.
    pub acked: u64,
}

/// A queue, as [`recount_queue`] reads it.
pub trait InspectQueue {
    /// The error of the store.
    type Error;
    /// An item.
    type Item: Queued;

    /// The recorded usage.
    fn usage(&self) -> Result<Usage, Self::Error>;

    /// Visits all items in arrival order, until `visit` breaks.
    fn scan(&self, visit: &mut dyn FnMut(Self::Item) -> ControlFlow<()>) -> Result<(), Self::Error>;

    /// Looks up an item id.
    fn locate(&self, id: ItemId) -> Result<Option<ItemStatus>, Self::Error>;

    /// Counts the item ids that the queue remembers.
    fn names(&self) -> Result<Names, Self::Error>;

    /// When the sweep visits the queue, if ever: no later than the first deadline of its items.
    fn due(&self) -> Option<Timestamp>;

    /// Whether the next sweep drops it, if it is empty and the ids of its acked items have expired.
    fn is_left_to_sweep(&self) -> bool {
        false
    }
}

/// An in-memory store, as [`recount`] reads it.
pub trait Inspect: ReadTx {
    /// Every known queue.
    fn recipients(&self) -> Result<Vec<Recipient>, Self::Error>;

    /// Every item id that a queue remembers.
    fn statuses(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Self::Error>;

    /// The expiry index: when the sweep visits which queue. It has an entry per item, or one per
    /// queue that is no later than its first deadline.
    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Self::Error>;

    /// The expiry index of acked item ids.
    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Self::Error>;
}

/// Checks a whole store and lists the inconsistencies. Findings number the queues, because
/// recipients are private.
///
/// # Errors
/// Those of the store.
pub fn recount<S: Inspect>(store: &S) -> Result<Vec<String>, S::Error> {
    let recipients = store.recipients()?;
    let mut earliest = BTreeMap::<Recipient, Timestamp>::new();
    for (at, recipient) in store.expiry()? {
        earliest.entry(recipient).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let acked: BTreeSet<_> = store.acked_expiry()?.into_iter().collect();

    let mut findings = Findings::default();
    let mut acked_found = 0_usize;
    for (number, recipient) in (0..).zip(&recipients) {
        let due = earliest.get(recipient).copied();
        let queue = StoreQueue { store, queue: store.queue(recipient)?, recipient, due };
        recount_queue(number, &queue, &mut findings)?;
        let mut expires = true;
        for (id, status) in store.statuses(recipient)? {
            if let ItemStatus::Acked { until } = status {
                acked_found += 1;
                expires &= acked.contains(&(until, recipient.clone(), id));
            }
        }
        if !expires {
            findings.add(format!("queue {number}: an acked item id would never be forgotten"));
        }
    }
    if acked.len() != acked_found {
        let indexed = acked.len();
        findings.add(format!("the expiry index has {indexed} acked item ids, the queues have {acked_found}"));
    }
    let known: HashSet<_> = recipients.iter().collect();
    let unknown = earliest.keys().filter(|recipient| !known.contains(recipient)).count();
    if unknown > 0 {
        findings.add(format!("the expiry index has {unknown} unknown queues"));
    }
    Ok(findings.into_listed())
}

/// Checks one queue. Findings show its `number`, because recipients are private.
///
/// # Errors
/// Those of the store. Earlier findings are kept.
pub fn recount_queue<Q: InspectQueue>(
    number: u64,
    queue: &Q,
    findings: &mut Findings,
) -> Result<(), Q::Error> {
    let mut check = QueueCheck { wrong: Findings::new(QUEUE_FINDINGS_MAX), ..QueueCheck::default() };
    let checked = check.run(queue);
    for finding in &mut check.wrong.listed {
        *finding = format!("queue {number}: {finding}");
    }
    findings.absorb(check.wrong);
    checked
}

/// A queue of an in-memory store.
struct StoreQueue<'a, S: ReadTx> {
    store: &'a S,
    queue: S::Queue,
    recipient: &'a Recipient,
    due: Option<Timestamp>,
}

impl<S: Inspect> InspectQueue for StoreQueue<'_, S> {
    type Error = S::Error;
    type Item = S::Item;

    fn usage(&self) -> Result<Usage, S::Error> {
        self.store.usage(&self.queue)
    }

    fn scan(&self, visit: &mut dyn FnMut(S::Item) -> ControlFlow<()>) -> Result<(), S::Error> {
        self.store.scan(&self.queue, Seq::ZERO, visit)
    }

    fn locate(&self, id: ItemId) -> Result<Option<ItemStatus>, S::Error> {
        self.store.locate(&self.queue, id)
    }

    fn names(&self) -> Result<Names, S::Error> {
        let mut names = Names::default();
        for (_, status) in self.store.statuses(self.recipient)? {
            match status {
                ItemStatus::Queued { .. } => names.queued += 1,
                ItemStatus::Acked { .. } => names.acked += 1,
            }
        }
        Ok(names)
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

/// A check of one queue in progress.
#[derive(Default)]
struct QueueCheck {
    sum: Usage,
    first_deadline: Option<Timestamp>,
    previous: Option<Seq>,
    wrong: Findings,
}

impl QueueCheck {
    fn run<Q: InspectQueue>(&mut self, queue: &Q) -> Result<(), Q::Error> {
        let mut located = Ok(());
        queue.scan(&mut |item| match queue.locate(item.id()) {
            Ok(status) => {
                self.check_item(&item, status);
                ControlFlow::Continue(())
            }
            Err(error) => {
                located = Err(error);
                ControlFlow::Break(())
            }
        })?;
        located?;
        self.check_counts(queue.usage()?, queue.names()?, queue.is_left_to_sweep());
        self.check_expiry(queue.due());
        Ok(())
    }

    fn check_item(&mut self, item: &impl Queued, status: Option<ItemStatus>) {
        let (seq, deadline, payload_bytes) = (item.seq(), item.deadline(), item.payload_bytes());
        let number = seq.as_u64();
        if let Some(previous) = self.previous.filter(|previous| *previous >= seq) {
            self.wrong.add(format!("arrival number {} comes before {number}", previous.as_u64()));
        }
        if status != Some(ItemStatus::Queued { seq, deadline, payload_bytes }) {
            self.wrong.add(format!("item {number} is not found by its item id"));
        }
        self.sum = self.sum.plus(Usage::of(payload_bytes));
        self.first_deadline = Some(self.first_deadline.map_or(deadline, |first| first.min(deadline)));
        self.previous = Some(seq);
    }

    fn check_counts(&mut self, recorded: Usage, Names { queued, acked }: Names, is_left: bool) {
        let sum = self.sum;
        if sum != recorded {
            self.wrong.add(format!("the recorded usage is {recorded:?}, the items add up to {sum:?}"));
        }
        if sum.is_empty() && acked == 0 && !is_left {
            self.wrong.add("it is empty and should be forgotten".to_owned());
        }
        // Every item is found by its id. So if the counts are equal, every id leads to an item.
        if queued != sum.items {
            self.wrong.add(format!("{queued} item ids lead to {} items", sum.items));
        }
    }

    fn check_expiry(&mut self, due: Option<Timestamp>) {
        match (self.first_deadline, due) {
            (Some(first), Some(at)) if at <= first => {}
            (None, None) => {}
            (Some(_), _) => self.wrong.add("the sweep would miss the item that expires first".to_owned()),
            (None, Some(_)) => self.wrong.add("the sweep would visit it without need".to_owned()),
        }
    }
}

impl Findings {
    /// The default bound on listed findings of one kind.
    pub const LISTED_MAX: usize = 1_000;

    /// No findings, with a bound on those that are listed.
    #[must_use]
    pub const fn new(listed_max: usize) -> Self {
        Self { listed: Vec::new(), listed_max, more: 0 }
    }

    /// Adds one finding.
    pub fn add(&mut self, finding: String) {
        if self.listed.len() < self.listed_max {
            self.listed.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Adds all `others`.
    pub fn absorb(&mut self, others: Self) {
        others.listed.into_iter().for_each(|finding| self.add(finding));
        self.more = self.more.saturating_add(others.more);
    }

    /// The listed findings, then a sentence with the number of the others, if there are any.
    #[must_use]
    pub fn into_listed(mut self) -> Vec<String> {
        if self.more > 0 {
            self.listed.push(format!("{} more of this kind are not listed", self.more));
        }
        self.listed
    }
}

impl Default for Findings {
    fn default() -> Self {
        Self::new(Self::LISTED_MAX)
    }
}
