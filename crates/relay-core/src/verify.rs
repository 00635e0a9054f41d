//! Recounts a store: what is noted must be what is there, and every index must lead both ways. It
//! looks at one queue after the other, an item at a time, so it takes little memory however much
//! the store holds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use crate::limits::Usage;
use crate::message::{ItemId, Recipient, Seq};
use crate::store::{ItemStatus, Queued, ReadTx};
use crate::time::Timestamp;

/// The most findings about one queue that are listed: one that is wrong from end to end must not
/// hide the others.
const QUEUE_FINDINGS_MAX: usize = 20;

/// What was found, one sentence each. A store that is wrong from end to end has more to tell than
/// anybody reads, or than fits into memory: what goes beyond the bound is counted and not listed.
#[derive(Debug)]
pub struct Findings {
    listed: Vec<String>,
    listed_max: usize,
    more: u64,
}

/// How many names a queue remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of items that lie in it.
    pub queued: u64,
    /// Of items that were acked.
    pub acked: u64,
}

/// A queue, as it shows itself for a recount.
pub trait InspectQueue {
    /// How its store fails.
    type Error;
    /// An item.
    type Item: Queued;

    /// What it is noted to hold.
    fn usage(&self) -> Result<Usage, Self::Error>;

    /// Shows all items, in arrival order, until `visit` breaks.
    fn scan(&self, visit: &mut dyn FnMut(Self::Item) -> ControlFlow<()>) -> Result<(), Self::Error>;

    /// What is known of an item's name.
    fn locate(&self, id: ItemId) -> Result<Option<ItemStatus>, Self::Error>;

    /// How many names it remembers: those of items that lie in it, and acked ones.
    fn names(&self) -> Result<Names, Self::Error>;

    /// When the sweep looks at it, if ever: not later than the deadline of its first item.
    fn due(&self) -> Option<Timestamp>;
}

/// What a store that holds everything in memory shows for a recount, beyond what the rules need.
pub trait Inspect: ReadTx {
    /// Every queue that the store knows of.
    fn recipients(&self) -> Result<Vec<Recipient>, Self::Error>;

    /// Every name that a queue remembers.
    fn traces(&self, recipient: &Recipient) -> Result<Vec<(ItemId, ItemStatus)>, Self::Error>;

    /// The expiry index: when the sweep looks at which queue. A store may note each item, or each
    /// queue not later than its first deadline.
    fn expiry(&self) -> Result<Vec<(Timestamp, Recipient)>, Self::Error>;

    /// The expiry index of acked names.
    fn acked_expiry(&self) -> Result<Vec<(Timestamp, Recipient, ItemId)>, Self::Error>;
}

/// Recounts everything and lists what does not add up; nothing, when all is well. Queues are told
/// apart by number, since who they belong to must not be told.
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

    let mut findings = Findings::default();
    let mut acked_traces = 0_usize;
    for (number, recipient) in (0..).zip(&recipients) {
        let due = earliest.get(recipient).copied();
        recount_queue(
            number,
            &InStore { store, queue: store.queue(recipient)?, recipient, due },
            &mut findings,
        )?;
        let mut expires = true;
        for (id, trace) in store.traces(recipient)? {
            if let ItemStatus::Acked { until } = trace {
                acked_traces += 1;
                expires &= acked.contains(&(until, recipient.clone(), id));
            }
        }
        if !expires {
            findings.add(format!("queue {number}: an acked name would never be forgotten"));
        }
    }
    if acked.len() != acked_traces {
        findings.add(format!("{} acked names are due to expire, {acked_traces} exist", acked.len()));
    }
    let known: HashSet<_> = recipients.iter().collect();
    let strangers = earliest.keys().filter(|recipient| !known.contains(recipient)).count();
    if strangers > 0 {
        findings.add(format!("the expiry index names {strangers} unknown queues"));
    }
    Ok(findings.into_listed())
}

/// Recounts a queue, and adds what does not add up. It is told by `number`, since who it belongs to
/// must not be told.
///
/// # Errors
/// The store's. What was found until then is added.
pub fn recount_queue<Q: InspectQueue>(
    number: u64,
    queue: &Q,
    findings: &mut Findings,
) -> Result<(), Q::Error> {
    let mut counting = Counting { wrong: Findings::new(QUEUE_FINDINGS_MAX), ..Counting::default() };
    let counted = counting.count(queue);
    let wrong = counting.wrong.map(|what| format!("queue {number}: {what}"));
    findings.absorb(wrong);
    counted
}

/// A queue of a store that finds it by its recipient.
struct InStore<'a, S: ReadTx> {
    store: &'a S,
    queue: S::Queue,
    recipient: &'a Recipient,
    due: Option<Timestamp>,
}

impl<S: Inspect> InspectQueue for InStore<'_, S> {
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
        let traces = self.store.traces(self.recipient)?;
        let queued = traces.iter().filter(|(_, trace)| matches!(trace, ItemStatus::Queued { .. })).count();
        Ok(Names { queued: queued as u64, acked: (traces.len() - queued) as u64 })
    }

    fn due(&self) -> Option<Timestamp> {
        self.due
    }
}

/// What is counted of a queue.
#[derive(Default)]
struct Counting {
    sum: Usage,
    first: Option<Timestamp>,
    before: Option<(Seq, Timestamp)>,
    wrong: Findings,
}

impl Counting {
    fn count<Q: InspectQueue>(&mut self, queue: &Q) -> Result<(), Q::Error> {
        let mut located = Ok(());
        queue.scan(&mut |item| match queue.locate(item.id()) {
            Ok(trace) => {
                self.count_item(&item, trace);
                ControlFlow::Continue(())
            }
            Err(error) => {
                located = Err(error);
                ControlFlow::Break(())
            }
        })?;
        located?;
        self.check_counts(queue.usage()?, queue.names()?);
        self.check_expiry(queue.due());
        Ok(())
    }

    fn count_item(&mut self, item: &impl Queued, found: Option<ItemStatus>) {
        let (seq, deadline, payload_bytes) = (item.seq(), item.deadline(), item.payload_bytes());
        if let Some((seq_before, deadline_before)) = self.before {
            if seq_before >= seq {
                self.wrong.add(format!(
                    "arrival number {} comes before {}",
                    seq_before.as_u64(),
                    seq.as_u64()
                ));
            }
            if deadline_before > deadline {
                self.wrong.add(format!("item {} expires before the item in front of it", seq.as_u64()));
            }
        }
        if found != Some(ItemStatus::Queued { seq, deadline, payload_bytes }) {
            self.wrong.add(format!("item {} is not found by its name", seq.as_u64()));
        }
        self.sum = self.sum.plus(Usage::of(payload_bytes));
        self.first.get_or_insert(deadline);
        self.before = Some((seq, deadline));
    }

    fn check_counts(&mut self, noted: Usage, Names { queued, acked }: Names) {
        let sum = self.sum;
        if sum != noted {
            self.wrong.add(format!("the usage noted is {noted:?}, the items add up to {sum:?}"));
        }
        if sum.is_empty() && acked == 0 {
            self.wrong.add("it is empty and should be forgotten".to_owned());
        }
        // Each item is found by its name. If there are as many names, each of them leads to one.
        if queued != sum.items {
            self.wrong.add(format!("{queued} names lead to {} items", sum.items));
        }
    }

    fn check_expiry(&mut self, noted: Option<Timestamp>) {
        match (self.first, noted) {
            (Some(first), Some(at)) if at <= first => {}
            (None, None) => {}
            (Some(_), _) => self.wrong.add("the sweep would miss its first item".to_owned()),
            (None, Some(_)) => self.wrong.add("the sweep would look at it for nothing".to_owned()),
        }
    }
}

impl Findings {
    /// The most that are listed of one kind, unless another bound is set.
    pub const LISTED_MAX: usize = 1_000;

    /// None yet, of which so many will be listed.
    #[must_use]
    pub const fn new(listed_max: usize) -> Self {
        Self { listed: Vec::new(), listed_max, more: 0 }
    }

    /// Adds one.
    pub fn add(&mut self, finding: String) {
        if self.listed.len() < self.listed_max {
            self.listed.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Adds all of these.
    pub fn absorb(&mut self, others: Self) {
        others.listed.into_iter().for_each(|finding| self.add(finding));
        self.more = self.more.saturating_add(others.more);
    }

    /// The same, in other words.
    #[must_use]
    pub fn map(self, words: impl FnMut(String) -> String) -> Self {
        Self { listed: self.listed.into_iter().map(words).collect(), ..self }
    }

    /// All that are listed, and a last one that tells how many are not.
    #[must_use]
    pub fn into_listed(self) -> Vec<String> {
        let mut listed = self.listed;
        if self.more > 0 {
            listed.push(format!("{} more of this kind are not listed", self.more));
        }
        listed
    }
}

impl Default for Findings {
    fn default() -> Self {
        Self::new(Self::LISTED_MAX)
    }
}
