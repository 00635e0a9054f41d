//! Checks that need concurrent requests or deep queues. They wait for threads only, so they always
//! end.

use std::collections::HashSet;
use std::fmt::Debug;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::error::{Error, Rejection};
use crate::limits::Limits;
use crate::message::{Envelope, ItemId, Recipient, Seq};
use crate::queue::{Ack, AckOutcome, Page, Pull, PushOutcome, Swept};
use crate::relay::Relay;

use super::contents::{Content, message_id};
use super::harness::Harness;
use super::trial::describe;
use super::{Failure, ManualClock};

const THREADS: usize = 8;

/// The number of items that each thread pushes.
const ITEMS_EACH: usize = 40;

/// More items than a store handles in one step.
const DEEP: usize = 2_500;

/// One check on a new store.
struct Check<'a, H: Harness> {
    harness: &'a H,
    relay: &'a H::Relay,
    clock: &'a ManualClock,
}

pub(super) fn run<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    type CheckFn<H> = fn(&Check<'_, H>) -> Result<(), String>;
    let checks: [(&str, CheckFn<H>); 6] = [
        ("many threads push one item", |check| check.push_one_item()),
        ("many threads push into one queue", |check| check.push_into_one_queue()),
        ("many threads fill the rest of a queue", |check| check.fill_a_queue()),
        ("many threads ack the same items", |check| check.ack_the_same_items()),
        ("a deep queue is paged, acked and swept", |check| check.deep_queue()),
        ("many queues are swept", |check| check.many_queues()),
    ];
    for (title, run) in checks {
        let clock = Arc::new(ManualClock::new());
        let limits = Limits { queue_items_max: DEEP as u64, ..Limits::default() };
        let relay = harness.open(limits, Arc::clone(&clock));
        run(&Check { harness, relay: &relay, clock: &clock })
            .map_err(|error| Failure::new(format!("{title}: {error}")))?;
        let findings = harness.verify(&relay);
        if !findings.is_empty() {
            return Err(Failure::new(format!("{title}: verify: {}", findings.join("; "))));
        }
    }
    Ok(())
}

impl<H: Harness> Check<'_, H> {
    /// Exactly one push of an item stores it; all others are duplicates.
    fn push_one_item(&self) -> Result<(), String> {
        let envelopes: Vec<Envelope> =
            (0..ITEMS_EACH).map(|number| envelope("alice", number)).collect::<Result<_, _>>()?;
        let outcomes =
            on_threads(|_| envelopes.iter().map(|envelope| self.push(envelope.clone())).collect())?;
        for number in 0..ITEMS_EACH {
            let outcomes = outcomes.iter().filter_map(|of_thread| of_thread.get(number));
            let stored = outcomes.clone().filter(|outcome| outcome.is_stored()).count();
            same("stored", &stored, &1)?;
            let conflicts =
                outcomes.filter(|outcome| matches!(outcome, PushOutcome::Duplicate { conflict: true, .. }));
            same("conflicts", &conflicts.count(), &0)?;
        }
        same("items in the queue", &self.pull_all("alice")?.len(), &ITEMS_EACH)
    }

    /// No item is lost or duplicated, and the items of a thread stay in order. A concurrent reader
    /// that follows the cursors sees all items.
    fn push_into_one_queue(&self) -> Result<(), String> {
        let done = AtomicBool::new(false);
        let followed = thread::scope(|scope| {
            let follower = scope.spawn(|| self.follow(&done));
            let pushed = on_threads(|thread| self.push_all(items_of(thread)));
            done.store(true, Ordering::SeqCst);
            let followed = follower.join().map_err(|_| "a thread panicked".to_owned())?;
            pushed.and(followed)
        })?;
        let queue = self.pull_all("alice")?;
        same_list("items seen by cursor", &followed, &queue)?;
        same("items", &queue.iter().collect::<HashSet<_>>().len(), &(THREADS * ITEMS_EACH))?;
        for thread in 0..THREADS {
            let own: Vec<ItemId> = items_of(thread).map(item_id).collect();
            let seen: Vec<ItemId> = queue.iter().filter(|id| own.contains(id)).copied().collect();
            same_list("a thread's items in order", &seen, &own)?;
        }
        Ok(())
    }

    /// If the threads push more items than the quota allows, the queue becomes exactly full.
    fn fill_a_queue(&self) -> Result<(), String> {
        let capacity = THREADS * ITEMS_EACH / 2;
        self.push_all(0..DEEP - capacity)?;
        let stored = on_threads(|thread| {
            items_of(thread).map(|number| self.try_push(envelope("alice", DEEP + number)?)).collect()
        })?;
        let stored = stored.iter().flatten().filter(|stored| **stored).count();
        same("stored", &stored, &capacity)?;
        same("items in the queue", &self.pull_all("alice")?.len(), &DEEP)
    }

    /// Exactly one ack deletes each item.
    fn ack_the_same_items(&self) -> Result<(), String> {
        self.push_all(0..ITEMS_EACH)?;
        let deleted = on_threads(|_| (0..ITEMS_EACH).map(|number| self.ack(number..number + 1)).collect())?;
        let deleted: u64 = deleted.iter().flatten().map(|outcome| outcome.deleted).sum();
        same("deleted", &deleted, &(ITEMS_EACH as u64))?;
        same("items in the queue", &self.pull_all("alice")?.len(), &0)
    }

    fn deep_queue(&self) -> Result<(), String> {
        self.push_all(0..DEEP)?;
        let all: Vec<ItemId> = (0..DEEP).map(item_id).collect();
        same_list("the queue", &self.pull_all("alice")?, &all)?;

        // All but the first and the last ten, so that the pages must cross a hole.
        let acked = self.ack(10..DEEP - 10)?;
        same("acked", &acked, &AckOutcome { deleted: DEEP as u64 - 20, missing: 0, remaining: 20 })?;
        let left: Vec<ItemId> = (0..10).chain(DEEP - 10..DEEP).map(item_id).collect();
        same_list("the queue around a hole", &self.pull_all("alice")?, &left)?;

        self.clock.advance_ms(Limits::default().ttl_ms);
        same_list("the expired queue", &self.pull_all("alice")?, &[])?;
        same("swept", &self.sweep()?, &Swept { items: 20, forgotten: DEEP as u64 - 20 })
    }

    fn many_queues(&self) -> Result<(), String> {
        for number in 0..DEEP {
            self.push(envelope(&format!("queue {number}"), 0)?)?;
        }
        self.clock.advance_ms(1);
        self.push(envelope("queue 0", 1)?)?;
        self.clock.advance_ms(Limits::default().ttl_ms - 1);
        same("swept", &self.sweep()?, &Swept { items: DEEP as u64, forgotten: 0 })?;
        same_list("the younger item", &self.pull_all("queue 0")?, &[item_id(1)])?;
        same("swept again", &self.sweep()?, &Swept::default())
    }

    /// Follows the cursors of a queue until all pushes are `done`, then to its end. It returns all
    /// items that it saw.
    fn follow(&self, done: &AtomicBool) -> Result<Vec<ItemId>, String> {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let is_done = done.load(Ordering::SeqCst);
            let page = self.pull("alice", after)?;
            // The next pull repeats a page without a cursor.
            if page.next.is_some() || is_done {
                add_page(&mut seen, &page)?;
            }
            if page.next.is_none() && is_done {
                return Ok(seen);
            }
            after = page.next.or(after);
        }
    }

    /// Pulls all pages of a queue, and checks that `remaining` is right on each of them.
    fn pull_all(&self, queue: &str) -> Result<Vec<ItemId>, String> {
        let (mut seen, mut after, mut expected) = (Vec::new(), None, None);
        loop {
            let page = self.pull(queue, after)?;
            let rest = page.items.len() as u64 + page.remaining;
            same("remaining", &rest, &expected.unwrap_or(rest))?;
            expected = Some(page.remaining);
            add_page(&mut seen, &page)?;
            if page.next.is_none() {
                return same("remaining at the end", &page.remaining, &0).map(|()| seen);
            }
            after = page.next;
        }
    }

    fn push(&self, envelope: Envelope) -> Result<PushOutcome, String> {
        self.harness.block_on(self.relay.push(envelope)).map_err(|error| describe(&error))
    }

    fn push_all(&self, numbers: Range<usize>) -> Result<Vec<PushOutcome>, String> {
        numbers.map(|number| self.push(envelope("alice", number)?)).collect()
    }

    /// Whether the push stored the item. A full queue is not a failure here.
    fn try_push(&self, envelope: Envelope) -> Result<bool, String> {
        match self.harness.block_on(self.relay.push(envelope)) {
            Ok(outcome) => Ok(outcome.is_stored()),
            Err(Error::Rejected(Rejection::QuotaExceeded { .. })) => Ok(false),
            Err(error) => Err(describe(&error)),
        }
    }

    fn ack(&self, numbers: Range<usize>) -> Result<AckOutcome, String> {
        let ack = Ack::new(recipient("alice")?, numbers.map(item_id).collect());
        let ack = ack.map_err(|rejection| rejection.to_string())?;
        self.harness.block_on(self.relay.ack(ack)).map_err(|error| describe(&error))
    }

    fn sweep(&self) -> Result<Swept, String> {
        self.harness.sweep(self.relay).map_err(|error| describe(&error))
    }

    fn pull(&self, queue: &str, after: Option<Seq>) -> Result<Page, String> {
        let pull = Pull { recipient: recipient(queue)?, after, items_max: NonZeroU64::new(100) };
        let page = self.harness.block_on(self.relay.pull(pull)).map_err(|error| describe(&error))?;
        if page.items.is_empty() && page.next.is_some() {
            return Err("an empty page has a cursor".to_owned());
        }
        Ok(page)
    }
}

/// Runs `work` on every thread, with the number of the thread, and returns all results.
fn on_threads<T, W>(work: W) -> Result<Vec<Vec<T>>, String>
where
    T: Send,
    W: Fn(usize) -> Result<Vec<T>, String> + Sync,
{
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        results.into_iter().map(|result| result.map_err(|_| "a thread panicked".to_owned())?).collect()
    })
}

/// The numbers of a thread's items.
fn items_of(thread: usize) -> Range<usize> {
    thread * ITEMS_EACH..(thread + 1) * ITEMS_EACH
}

/// Adds the items of a page. It fails if there are more than any queue holds, because a wrong
/// cursor could repeat pages for ever.
fn add_page(seen: &mut Vec<ItemId>, page: &Page) -> Result<(), String> {
    seen.extend(page.items.iter().map(|item| item.id()));
    if seen.len() <= DEEP { Ok(()) } else { Err(format!("the pages have more than {DEEP} items")) }
}

fn envelope(queue: &str, number: usize) -> Result<Envelope, String> {
    let content = Content {
        recipient: recipient(queue)?,
        message: &format!("m{number}"),
        chunk_index: 0,
        chunk_count: 1,
        payload_bytes: 100,
        ttl_ms: None,
        seed: "",
    };
    content.envelope().map_err(|rejection| rejection.to_string())
}

fn item_id(number: usize) -> ItemId {
    ItemId { message_id: message_id(&format!("m{number}")), chunk_index: 0 }
}

fn recipient(queue: &str) -> Result<Recipient, String> {
    Recipient::parse(queue).map_err(|rejection| rejection.to_string())
}

fn same<T: PartialEq + Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {got:?}")) }
}

/// Like [`same`], but a failure shows only the first difference of two long lists.
fn same_list(what: &str, got: &[ItemId], expected: &[ItemId]) -> Result<(), String> {
    let equal = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    let what = format!("{what}, {equal} of {} items equal, then", expected.len());
    same(&what, &got.get(equal), &expected.get(equal))
}
