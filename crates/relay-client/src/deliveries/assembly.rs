//! Puts messages together from their chunks, in bounded memory. It does no I/O and reads no clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::key::MessageKey;
use super::recent::Recent;
use crate::options::SkipReason;
use crate::wire::Item;

/// The most unfinished messages, and the most chunks of all of them, whatever their size.
const PARTIALS_MAX: usize = 4096;
const CHUNKS_MAX: usize = 4 * 65_536;

/// The unfinished messages of a queue.
#[derive(Debug)]
pub(crate) struct Assembly {
    partials: HashMap<MessageKey, Partial>,
    payload_bytes: usize,
    chunks: usize,
    memory_bytes: usize,
    partial_age: Duration,
    /// Messages that were dropped because they did not fit. Their other chunks are of no use before
    /// the queue is read again, and would only push out messages that can be finished.
    dropped: HashSet<MessageKey>,
    has_dropped: bool,
    /// Messages that were skipped, with the arrival of the last chunk that is ignored.
    skipped: Recent<u64>,
    /// How many chunks were added so far.
    added: u64,
}

#[derive(Debug)]
struct Partial {
    chunks: BTreeMap<u64, Bytes>,
    payload_bytes: usize,
    grew: Instant,
    /// The number of the chunk that came last: several have one time.
    last_added: u64,
    /// Of the chunk that came first.
    sent_ms: u64,
    /// When the last of its chunks arrived at the relay.
    arrival_ms: u64,
}

/// A message whose chunks are all there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) payload: Bytes,
    pub(crate) sent_ms: u64,
    pub(crate) arrival_ms: u64,
}

/// What an item leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Whole(Whole),
    /// Other chunks are missing, or the message was skipped before.
    Partial,
    /// The message is not handed out.
    Skipped(SkipReason),
}

impl Assembly {
    pub(crate) fn new(memory_bytes: usize, partial_age: Duration) -> Self {
        Self {
            partials: HashMap::new(),
            payload_bytes: 0,
            chunks: 0,
            memory_bytes,
            partial_age,
            dropped: HashSet::new(),
            has_dropped: false,
            skipped: Recent::default(),
            added: 0,
        }
    }

    /// Adds an item.
    pub(crate) fn add(&mut self, key: &MessageKey, item: Item, now: Instant) -> Added {
        if self.is_skipped(key, item.arrival_ms) {
            return Added::Partial;
        }
        if let Some(reason) = self.fault(&item) {
            return self.skip(key, reason);
        }
        let Item { chunk_count, total_len, sent_ms, arrival_ms, .. } = item;
        if chunk_count == 1 {
            return Added::Whole(Whole { payload: item.payload, sent_ms, arrival_ms });
        }
        if self.dropped.contains(key) {
            return Added::Partial;
        }
        let Some(partial) = self.grow(key, item, now) else { return Added::Partial };
        let (payload_bytes, has_all) =
            (partial.payload_bytes as u64, partial.chunks.len() as u64 == chunk_count);
        if payload_bytes > total_len || has_all && payload_bytes < total_len {
            return self.skip(key, SkipReason::Malformed);
        }
        match self.remove_if(key, has_all) {
            Some(partial) => Added::Whole(partial.into_whole()),
            None => {
                self.make_room(key);
                Added::Partial
            }
        }
    }

    /// Whether to ignore a chunk. A message that was given up goes on if its sender does; its first
    /// chunks are still on the relay.
    fn is_skipped(&mut self, key: &MessageKey, arrival_ms: u64) -> bool {
        match self.skipped.get(key) {
            None => false,
            Some(until_ms) if arrival_ms <= *until_ms => true,
            Some(_) => {
                self.skipped.remove(key);
                self.has_dropped = true;
                false
            }
        }
    }

    /// Why an item belongs to no message that can be handed out.
    fn fault(&self, item: &Item) -> Option<SkipReason> {
        if !MessageKey::is_sound(item) {
            return Some(SkipReason::Malformed);
        }
        let len = if item.chunk_count == 1 { item.payload.len() as u64 } else { item.total_len };
        (len > self.memory_bytes as u64).then_some(SkipReason::TooLarge)
    }

    /// What is wrong stays wrong.
    fn skip(&mut self, key: &MessageKey, reason: SkipReason) -> Added {
        self.remove(key);
        self.skipped.insert(key, u64::MAX);
        Added::Skipped(reason)
    }

    /// Adds a chunk to its message, unless it is there.
    fn grow(&mut self, key: &MessageKey, item: Item, now: Instant) -> Option<&Partial> {
        self.added += 1;
        let partial = self.partials.entry(key.clone()).or_insert_with(|| Partial {
            chunks: BTreeMap::new(),
            payload_bytes: 0,
            grew: now,
            last_added: self.added,
            sent_ms: item.sent_ms,
            arrival_ms: item.arrival_ms,
        });
        if partial.chunks.contains_key(&item.chunk_index) {
            return None;
        }
        let payload_bytes = item.payload.len();
        partial.chunks.insert(item.chunk_index, item.payload);
        partial.payload_bytes += payload_bytes;
        partial.grew = now;
        partial.last_added = self.added;
        partial.arrival_ms = partial.arrival_ms.max(item.arrival_ms);
        self.payload_bytes += payload_bytes;
        self.chunks += 1;
        Some(partial)
    }

    /// Gives up the messages that have not grown for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<MessageKey> {
        let is_old = |partial: &Partial| now.saturating_duration_since(partial.grew) >= self.partial_age;
        let old = self.partials.iter().filter(|(_, partial)| is_old(partial));
        let old: Vec<MessageKey> = old.map(|(key, _)| key.clone()).collect();
        for key in &old {
            if let Some(partial) = self.remove(key) {
                self.skipped.insert(key, partial.arrival_ms);
            }
        }
        old
    }

    /// When the next message is given up, unless it grows.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let oldest = self.partials.values().map(|partial| partial.grew).min();
        oldest.and_then(|grew| grew.checked_add(self.partial_age))
    }

    /// Whether messages were dropped that may fit later.
    pub(crate) fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// The queue is read again from its start.
    pub(crate) fn begin_again(&mut self) {
        self.has_dropped = false;
        self.dropped.clear();
    }

    /// Drops the messages that have not grown for the longest, until the others fit.
    fn make_room(&mut self, grown: &MessageKey) {
        while self.payload_bytes > self.memory_bytes
            || self.partials.len() > PARTIALS_MAX
            || self.chunks > CHUNKS_MAX
        {
            let others = self.partials.iter().filter(|(key, _)| *key != grown);
            let oldest = others.min_by_key(|(_, partial)| partial.last_added).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
            self.has_dropped = true;
            if self.dropped.len() < PARTIALS_MAX {
                self.dropped.insert(oldest);
            }
        }
    }

    fn remove_if(&mut self, key: &MessageKey, condition: bool) -> Option<Partial> {
        if condition { self.remove(key) } else { None }
    }

    fn remove(&mut self, key: &MessageKey) -> Option<Partial> {
        let partial = self.partials.remove(key)?;
        self.payload_bytes -= partial.payload_bytes;
        self.chunks -= partial.chunks.len();
        Some(partial)
    }
}

impl Partial {
    fn into_whole(self) -> Whole {
        let mut payload = BytesMut::with_capacity(self.payload_bytes);
        for chunk in self.chunks.into_values() {
            payload.extend_from_slice(&chunk);
        }
        Whole { payload: payload.freeze(), sent_ms: self.sent_ms, arrival_ms: self.arrival_ms }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::clock;

    fn item(id: u128, index: u64, count: u64, payload: &'static [u8]) -> Item {
        Item {
            message_id: Uuid::from_u128(id),
            payload: Bytes::from_static(payload),
            kind: "opaque".to_owned(),
            total_len: 4,
            chunk_index: index,
            chunk_count: count,
            sent_ms: 7,
            arrival_ms: 0,
            deadline_ms: 0,
        }
    }

    fn add(assembly: &mut Assembly, item: Item, now: Instant) -> Added {
        assembly.add(&MessageKey::of(&item), item, now)
    }

    fn whole(payload: &'static [u8]) -> Added {
        Added::Whole(Whole { payload: Bytes::from_static(payload), sent_ms: 7, arrival_ms: 0 })
    }

    #[test]
    fn chunks_in_any_order_repeated_and_interleaved_make_messages() {
        let (mut assembly, now) = (Assembly::new(100, Duration::MAX), clock::instant());
        assert_eq!(add(&mut assembly, item(1, 1, 2, b"cd"), now), Added::Partial);
        assert_eq!(add(&mut assembly, item(2, 0, 2, b"xy"), now), Added::Partial);
        assert_eq!(add(&mut assembly, item(1, 1, 2, b"cd"), now), Added::Partial);
        assert_eq!(add(&mut assembly, item(3, 0, 1, b""), now), whole(b""));
        assert_eq!(add(&mut assembly, item(1, 0, 2, b"ab"), now), whole(b"abcd"));
        assert_eq!(add(&mut assembly, item(2, 1, 2, b"zz"), now), whole(b"xyzz"));
        assert_eq!((assembly.payload_bytes, assembly.chunks, assembly.partials.len()), (0, 0, 0));
    }

    #[test]
    fn chunks_of_different_messages_with_one_id_do_not_mix() {
        let (mut assembly, now) = (Assembly::new(100, Duration::MAX), clock::instant());
        assert_eq!(add(&mut assembly, item(1, 0, 2, b"ab"), now), Added::Partial);
        assert_eq!(add(&mut assembly, item(1, 1, 3, b"cd"), now), Added::Partial);
        let other = Item { kind: "other".to_owned(), ..item(1, 1, 2, b"cd") };
        assert_eq!(add(&mut assembly, other, now), Added::Partial);
        assert_eq!(assembly.partials.len(), 3);
    }

    #[test]
    fn the_one_that_has_not_grown_for_the_longest_is_dropped() {
        let (mut assembly, now) = (Assembly::new(5, Duration::MAX), clock::instant());
        let at = |ms| now + Duration::from_millis(ms);
        add(&mut assembly, item(1, 0, 3, b"ab"), at(0));
        add(&mut assembly, item(2, 0, 3, b"ab"), at(1));
        add(&mut assembly, item(1, 1, 3, b"a"), at(2));
        assert!(!assembly.has_dropped());
        add(&mut assembly, item(3, 0, 3, b"ab"), at(3));
        assert!(assembly.has_dropped());
        let mut left: Vec<u128> = assembly.partials.keys().map(|key| key.message_id.as_u128()).collect();
        left.sort_unstable();
        assert_eq!((left, assembly.payload_bytes), (vec![1, 3], 5));
    }

    #[test]
    fn messages_larger_than_the_memory_are_skipped() {
        let (mut assembly, now) = (Assembly::new(3, Duration::MAX), clock::instant());
        let too_large = Added::Skipped(SkipReason::TooLarge);
        assert_eq!(add(&mut assembly, item(1, 0, 2, b"ab"), now), too_large, "by its stated length");
        assert_eq!(add(&mut assembly, item(1, 0, 1, b"abcd"), now), too_large);
        assert_eq!(add(&mut assembly, item(1, 0, 2, b"ab"), now), Added::Partial, "it is told once");
        assert_eq!(add(&mut assembly, item(2, 0, 1, b"abc"), now), whole(b"abc"));
        assert_eq!((assembly.payload_bytes, assembly.chunks, assembly.partials.len()), (0, 0, 0));
    }

    #[test]
    fn messages_of_another_length_than_stated_are_malformed() {
        let (mut assembly, now) = (Assembly::new(100, Duration::MAX), clock::instant());
        let malformed = Added::Skipped(SkipReason::Malformed);
        for (id, payload) in [(1, b"c".as_slice()), (2, b"cde")] {
            assert_eq!(add(&mut assembly, item(id, 0, 2, b"ab"), now), Added::Partial);
            assert_eq!(add(&mut assembly, item(id, 1, 2, payload), now), malformed, "{payload:?}");
        }
        assert_eq!(add(&mut assembly, item(3, 0, 3, b"abcde"), now), malformed, "it cannot shrink");
        assert_eq!(add(&mut assembly, item(4, 0, 1, b"ab"), now), whole(b"ab"), "one chunk is all");
        assert_eq!((assembly.payload_bytes, assembly.chunks, assembly.partials.len()), (0, 0, 0));
    }

    #[test]
    fn many_empty_chunks_and_messages_are_bounded() {
        let (mut assembly, now) = (Assembly::new(100, Duration::MAX), clock::instant());
        for id in 0..5000 {
            add(&mut assembly, item(id, 0, 2, b""), now);
        }
        assert_eq!(assembly.partials.len(), PARTIALS_MAX);
        assert!(assembly.has_dropped());
    }

    #[test]
    fn old_ones_are_given_up() {
        let (mut assembly, now) = (Assembly::new(100, Duration::from_secs(10)), clock::instant());
        add(&mut assembly, item(1, 0, 2, b"ab"), now);
        add(&mut assembly, item(2, 0, 2, b"ab"), now + Duration::from_secs(5));
        assert_eq!(assembly.next_expiry(), Some(now + Duration::from_secs(10)));
        assert!(assembly.expire(now + Duration::from_secs(9)).is_empty());
        let given_up = assembly.expire(now + Duration::from_secs(10));
        assert!(matches!(&*given_up, [key] if key.message_id.as_u128() == 1));
        assert_eq!(assembly.payload_bytes, 2);
    }

    #[test]
    fn one_that_was_given_up_goes_on_with_a_later_chunk() {
        let (mut assembly, now) = (Assembly::new(100, Duration::ZERO), clock::instant());
        let at = |item: Item, arrival_ms| Item { arrival_ms, ..item };
        add(&mut assembly, at(item(1, 1, 3, b"b"), 5), now);
        add(&mut assembly, at(item(1, 0, 3, b"a"), 4), now);
        assert_eq!(assembly.expire(now).len(), 1);
        add(&mut assembly, at(item(1, 1, 3, b"b"), 5), now);
        assert!(assembly.partials.is_empty() && !assembly.has_dropped(), "it was there before");
        let late = at(item(1, 2, 3, b"cd"), 6);
        assert_eq!(add(&mut assembly, late, now), Added::Partial);
        assert!(assembly.has_dropped(), "the others have to be read again");
        assembly.begin_again();
        assert_eq!(add(&mut assembly, at(item(1, 0, 3, b"a"), 4), now), Added::Partial);
        let last = add(&mut assembly, at(item(1, 1, 3, b"b"), 5), now);
        assert!(matches!(last, Added::Whole(Whole { payload, arrival_ms: 6, .. }) if payload == "abcd"));
    }
}
