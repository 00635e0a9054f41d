//! What only shows when many threads ask at once, or when a queue is deep. It waits for threads and
//! for nothing else, so that it always ends.

use std::collections::HashSet;
use std::fmt::Debug;
use std::num::NonZeroU64;
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

/// How many items each thread pushes.
const ITEMS_EACH: usize = 40;

/// More than a store takes care of in one step.
const DEEP: usize = 2_500;

pub(super) fn run<H: Harness>(harness: &mut H) -> Result<(), Failure> {
    let checks: [(&str, Check<H>); 6] = [
        ("many threads push one item", push_one_item),
        ("many threads push into one queue", push_into_one_queue),
        ("many threads fill the last places", fill_the_last_places),
        ("many threads ack the same items", ack_the_same_items),
        ("a deep queue is paged, acked and swept", deep_queue),
        ("many queues are swept", many_queues),
    ];
    for (name, check) in checks {
        let clock = Arc::new(ManualClock::new());
        let limits = Limits { queue_items_max: DEEP as u64, ..Limits::default() };
        let relay = harness.open(limits, Arc::clone(&clock));
        let checked = check(harness, &relay, &clock);
        checked.map_err(|what| Failure::new(format!("{name}: {what}")))?;
        let findings = harness.verify(&relay);
        if !findings.is_empty() {
            return Err(Failure::new(format!("{name}: verify: {}", findings.join("; "))));
        }
    }
    Ok(())
}

type Check<H> = fn(&H, &<H as Harness>::Relay, &ManualClock) -> Result<(), String>;

/// Exactly one push of an item stores it; all others are duplicates.
fn push_one_item<H: Harness>(harness: &H, relay: &H::Relay, _: &ManualClock) -> Result<(), String> {
    let envelopes: Vec<Envelope> =
        (0..ITEMS_EACH).map(|number| envelope("alice", number)).collect::<Result<_, _>>()?;
    let outcomes = on_threads(|_| envelopes.iter().map(|e| push(harness, relay, e.clone())).collect())?;
    for number in 0..ITEMS_EACH {
        let outcomes = outcomes.iter().filter_map(|of_thread| of_thread.get(number));
        let stored = outcomes.clone().filter(|outcome| outcome.is_stored()).count();
        same("stored", &stored, &1)?;
        let conflicts =
            outcomes.filter(|outcome| matches!(outcome, PushOutcome::Duplicate { conflict: true, .. }));
        same("conflicts", &conflicts.count(), &0)?;
    }
    same("items in the queue", &drain(harness, relay, "alice")?.len(), &ITEMS_EACH)
}

/// Nothing is lost or doubled, each thread's items stay in order, and one who follows the cursor at
/// the same time misses none.
fn push_into_one_queue<H: Harness>(harness: &H, relay: &H::Relay, _: &ManualClock) -> Result<(), String> {
    let done = AtomicBool::new(false);
    let followed = thread::scope(|scope| {
        let follower = scope.spawn(|| follow(harness, relay, &done));
        let pushed = on_threads(|thread| {
            (0..ITEMS_EACH)
                .map(|number| push(harness, relay, envelope("alice", thread * ITEMS_EACH + number)?))
                .collect()
        });
        done.store(true, Ordering::SeqCst);
        let followed = follower.join().map_err(|_| "a thread panicked".to_owned())?;
        pushed.and(followed)
    })?;
    let queue = drain(harness, relay, "alice")?;
    same_list("items seen behind the cursor", &followed, &queue)?;
    same("items", &queue.iter().collect::<HashSet<_>>().len(), &(THREADS * ITEMS_EACH))?;
    for thread in 0..THREADS {
        let own: Vec<ItemId> = (0..ITEMS_EACH).map(|number| item_id(thread * ITEMS_EACH + number)).collect();
        let seen: Vec<ItemId> = queue.iter().filter(|id| own.contains(id)).copied().collect();
        same_list("a thread's items in order", &seen, &own)?;
    }
    Ok(())
}

/// Of more items than there is room for, exactly as many are stored as there is room for.
fn fill_the_last_places<H: Harness>(harness: &H, relay: &H::Relay, _: &ManualClock) -> Result<(), String> {
    let places = THREADS * ITEMS_EACH / 2;
    for number in 0..DEEP - places {
        push(harness, relay, envelope("alice", number)?)?;
    }
    let stored = on_threads(|thread| {
        let first = DEEP + thread * ITEMS_EACH;
        (first..first + ITEMS_EACH)
            .map(|number| try_push(harness, relay, envelope("alice", number)?))
            .collect()
    })?;
    let stored = stored.iter().flatten().filter(|stored| **stored).count();
    same("stored", &stored, &places)?;
    same("items in the queue", &drain(harness, relay, "alice")?.len(), &DEEP)
}

/// Each item is deleted by exactly one ack.
fn ack_the_same_items<H: Harness>(harness: &H, relay: &H::Relay, _: &ManualClock) -> Result<(), String> {
    for number in 0..ITEMS_EACH {
        push(harness, relay, envelope("alice", number)?)?;
    }
    let deleted =
        on_threads(|_| (0..ITEMS_EACH).map(|number| ack(harness, relay, number..number + 1)).collect())?;
    let deleted: u64 = deleted.iter().flatten().map(|outcome| outcome.deleted).sum();
    same("deleted", &deleted, &(ITEMS_EACH as u64))?;
    same("items in the queue", &drain(harness, relay, "alice")?.len(), &0)
}

fn deep_queue<H: Harness>(harness: &H, relay: &H::Relay, clock: &ManualClock) -> Result<(), String> {
    for number in 0..DEEP {
        push(harness, relay, envelope("alice", number)?)?;
    }
    let all: Vec<ItemId> = (0..DEEP).map(item_id).collect();
    same_list("the queue", &drain(harness, relay, "alice")?, &all)?;

    // All but the first and the last ten, so that there is a hole for the paging to cross.
    let acked = ack(harness, relay, 10..DEEP - 10)?;
    same("acked", &acked, &AckOutcome { deleted: DEEP as u64 - 20, missing: 0, remaining: 20 })?;
    let left: Vec<ItemId> = (0..10).chain(DEEP - 10..DEEP).map(item_id).collect();
    same_list("the queue around a hole", &drain(harness, relay, "alice")?, &left)?;

    clock.advance_ms(Limits::default().ttl_ms);
    same_list("the expired queue", &drain(harness, relay, "alice")?, &[])?;
    same("swept", &sweep(harness, relay)?, &Swept { items: 20, forgotten: DEEP as u64 - 20 })
}

fn many_queues<H: Harness>(harness: &H, relay: &H::Relay, clock: &ManualClock) -> Result<(), String> {
    for number in 0..DEEP {
        push(harness, relay, envelope(&format!("queue {number}"), 0)?)?;
    }
    clock.advance_ms(1);
    push(harness, relay, envelope("queue 0", 1)?)?;
    clock.advance_ms(Limits::default().ttl_ms - 1);
    same("swept", &sweep(harness, relay)?, &Swept { items: DEEP as u64, forgotten: 0 })?;
    same_list("what is younger", &drain(harness, relay, "queue 0")?, &[item_id(1)])?;
    same("swept again", &sweep(harness, relay)?, &Swept::default())
}

/// Follows a queue from cursor to cursor until all pushes are `done`, then to its end, and tells
/// all that it saw.
fn follow<H: Harness>(harness: &H, relay: &H::Relay, done: &AtomicBool) -> Result<Vec<ItemId>, String> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let last_look = done.load(Ordering::SeqCst);
        let page = pull(harness, relay, "alice", after)?;
        // What has no cursor behind it is shown again next time.
        if page.next.is_some() || last_look {
            seen.extend(page.items.iter().map(|item| item.id()));
            bounded(&seen)?;
        }
        if page.next.is_none() && last_look {
            return Ok(seen);
        }
        after = page.next.or(after);
    }
}

/// Runs `work` on every thread, with the number of the thread, and collects what each one got.
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

fn push<H: Harness>(harness: &H, relay: &H::Relay, envelope: Envelope) -> Result<PushOutcome, String> {
    harness.block_on(relay.push(envelope)).map_err(|error| describe(&error))
}

/// As [`push`], but a full queue is no failure: tells whether the item was stored.
fn try_push<H: Harness>(harness: &H, relay: &H::Relay, envelope: Envelope) -> Result<bool, String> {
    match harness.block_on(relay.push(envelope)) {
        Ok(outcome) => Ok(outcome.is_stored()),
        Err(Error::Rejected(Rejection::QuotaExceeded { .. })) => Ok(false),
        Err(error) => Err(describe(&error)),
    }
}

fn ack<H: Harness>(
    harness: &H,
    relay: &H::Relay,
    numbers: std::ops::Range<usize>,
) -> Result<AckOutcome, String> {
    let ack = Ack::new(recipient("alice")?, numbers.map(item_id).collect())
        .map_err(|rejection| rejection.to_string())?;
    harness.block_on(relay.ack(ack)).map_err(|error| describe(&error))
}

fn sweep<H: Harness>(harness: &H, relay: &H::Relay) -> Result<Swept, String> {
    harness.sweep(relay).map_err(|error| describe(&error))
}

fn pull<H: Harness>(harness: &H, relay: &H::Relay, queue: &str, after: Option<Seq>) -> Result<Page, String> {
    let pull = Pull { recipient: recipient(queue)?, after, items_max: NonZeroU64::new(100) };
    let page = harness.block_on(relay.pull(pull)).map_err(|error| describe(&error))?;
    if page.items.is_empty() && page.next.is_some() {
        Err("an empty page has a cursor".to_owned())
    } else {
        Ok(page)
    }
}

/// Stops what would never come to an end: no queue here holds more.
fn bounded(seen: &[ItemId]) -> Result<(), String> {
    if seen.len() <= DEEP { Ok(()) } else { Err(format!("more than {DEEP} items were shown, page by page")) }
}

/// Pages through a queue to its end, and checks that each page tells how much follows.
fn drain<H: Harness>(harness: &H, relay: &H::Relay, queue: &str) -> Result<Vec<ItemId>, String> {
    let (mut seen, mut after, mut expected) = (Vec::new(), None, None);
    loop {
        let page = pull(harness, relay, queue, after)?;
        let rest = page.items.len() as u64 + page.remaining;
        same("remaining", &rest, &expected.unwrap_or(rest))?;
        expected = Some(page.remaining);
        seen.extend(page.items.iter().map(|item| item.id()));
        bounded(&seen)?;
        if page.next.is_none() {
            return same("remaining at the end", &page.remaining, &0).map(|()| seen);
        }
        after = page.next;
    }
}

fn envelope(queue: &str, number: usize) -> Result<Envelope, String> {
    let message = format!("m{number}");
    let recipient = recipient(queue)?;
    let content = Content {
        recipient,
        message: &message,
        chunk_index: 0,
        chunk_count: 1,
        payload_bytes: 100,
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

/// As [`same`], but a failure tells only where two long lists part.
fn same_list(what: &str, got: &[ItemId], expected: &[ItemId]) -> Result<(), String> {
    let equal = got.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
    let what = format!("{what}, {equal} of {} items right, then", expected.len());
    same(&what, &got.get(equal), &expected.get(equal))
}
