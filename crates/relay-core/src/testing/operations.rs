//! Random operations on a relay. There are few recipients, items, sizes and time steps, so that
//! they collide often.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{collection, option, sample};

use crate::limits::Limits;

/// One step of a random run. The numbers are indexes into the constants of this module.
#[derive(Clone, Debug)]
pub enum Op {
    /// Push an item.
    Push {
        /// The queue.
        recipient: usize,
        /// The item.
        item: OpItem,
        /// The length of the payload.
        payload_bytes: usize,
        /// Whether the item has the second of two contents.
        other_content: bool,
        /// The item's own TTL.
        ttl_ms: Option<u64>,
    },
    /// Pull a page.
    Pull {
        /// The queue.
        recipient: usize,
        /// The index of an earlier cursor of this queue, modulo their number. If there is none, the
        /// pull starts at the front.
        after: Option<usize>,
        /// The maximum number of items.
        max: Option<u64>,
    },
    /// Ack items, some of them perhaps twice.
    Ack {
        /// The queue.
        recipient: usize,
        /// The items.
        items: Vec<OpItem>,
        /// All items up to an earlier cursor, too: its index as in [`Op::Pull`]. If there is none,
        /// only `items`.
        through: Option<usize>,
    },
    /// Ack all items of a queue.
    Purge {
        /// The queue.
        recipient: usize,
    },
    /// Move the clock forwards.
    Advance {
        /// The distance.
        ms: u64,
    },
    /// Set the clock back.
    SetBack {
        /// The distance.
        ms: u64,
    },
    /// Reclaim expired items.
    Sweep,
    /// Close the store and open it again.
    Reopen {
        /// The index of the new limits in [`rules`].
        rules: usize,
    },
}

/// An item of a random run.
#[derive(Clone, Copy, Debug)]
pub struct OpItem {
    /// The index of the message in [`MESSAGES`].
    pub message: usize,
    /// The index of the chunk, less than [`CHUNKS`].
    pub chunk: u32,
}

/// The recipients. They are easily confused with each other.
pub const RECIPIENTS: [&str; 3] = ["a", "a:b", "a:"];

/// The labels of the messages.
pub const MESSAGES: [&str; 4] = ["m0", "m1", "m2", "m3"];

/// The number of chunks of each message.
pub const CHUNKS: u32 = 2;

/// The distances of [`Op::Advance`]. Those to the end of the dedup window and of the TTL are there
/// twice: only a request at exactly that time reveals an error of a millisecond.
const STEPS_MS: &[u64] = &[1, 999, 1_000, 3_000, 4_000, 4_000, 9_999, 10_000, 10_000, 30_000];

const STEPS_BACK_MS: &[u64] = &[1, 2_000, 20_000];

/// An empty payload, one that is a byte too large, and some that fill quotas and pages exactly.
const PAYLOADS_BYTES: &[usize] = &[0, 1, 5, 10, 20, 21];

/// The TTLs of items that have their own: whole seconds, as clients give them. The last one is more
/// than any limit.
const TTLS_MS: &[u64] = &[1_000, 3_000, 4_000, 60_000];

/// The limits of a random run. It starts with the first ones. The others change what an operator
/// may change between two starts of a relay.
pub fn rules() -> [Limits; 4] {
    let base = Limits {
        message_bytes_max: 20,
        queue_bytes_max: 60,
        queue_items_max: 6,
        ttl_ms: 10_000,
        page_items_max: 3,
        page_bytes_max: 30,
        dedup_window_ms: 4_000,
    };
    [
        base.clone(),
        Limits { ttl_ms: 3_000, ..base.clone() },
        Limits { dedup_window_ms: 0, queue_items_max: 3, ..base.clone() },
        Limits { dedup_window_ms: 15_000, queue_bytes_max: 25, page_items_max: 1, ..base },
    ]
}

/// Between 1 and `length_max` operations.
pub fn operations(length_max: usize) -> impl Strategy<Value = Vec<Op>> {
    collection::vec(operation(), 1..=length_max)
}

/// The maximum number of operations of [`from_bytes`].
const FROM_BYTES_MAX: usize = 200;

/// Decodes operations for a fuzzer. Any bytes are valid, and one byte more or less changes little
/// of the rest.
pub fn from_bytes(bytes: &[u8]) -> Vec<Op> {
    let mut rest = bytes.iter().copied();
    let mut ops = Vec::new();
    while let Some(first) = rest.next().filter(|_| ops.len() < FROM_BYTES_MAX) {
        let mut below = |bound: usize| usize::from(rest.next().unwrap_or(0)) % bound;
        ops.push(match first % 8 {
            0..=2 => Op::Push {
                recipient: below(RECIPIENTS.len()),
                item: item_from(below(MESSAGES.len() * 2)),
                payload_bytes: pick(PAYLOADS_BYTES, below(PAYLOADS_BYTES.len())),
                other_content: first & 0x80 != 0,
                ttl_ms: (first & 0x40 != 0).then(|| pick(TTLS_MS, below(TTLS_MS.len()))),
            },
            3 | 4 => Op::Pull {
                recipient: below(RECIPIENTS.len()),
                after: (first & 0x80 != 0).then(|| below(256)),
                max: (first & 0x40 != 0).then(|| 1 + below(4) as u64),
            },
            5 => {
                let items = usize::from(first >> 3) % 4;
                Op::Ack {
                    recipient: below(RECIPIENTS.len()),
                    items: (0..items).map(|_| item_from(below(MESSAGES.len() * 2))).collect(),
                    through: (first & 0x80 != 0).then(|| below(256)),
                }
            }
            6 => Op::Advance { ms: pick(STEPS_MS, below(STEPS_MS.len())) },
            _ => match first >> 3 {
                0..=7 => Op::Reopen { rules: below(rules().len()) },
                8..=15 => Op::SetBack { ms: pick(STEPS_BACK_MS, below(STEPS_BACK_MS.len())) },
                16..=19 => Op::Purge { recipient: below(RECIPIENTS.len()) },
                _ => Op::Sweep,
            },
        });
    }
    ops
}

fn pick<T: Copy + Default>(choices: &[T], index: usize) -> T {
    choices.get(index).copied().unwrap_or_default()
}

fn item_from(number: usize) -> OpItem {
    OpItem { message: number / 2, chunk: u32::from(number % 2 == 1) }
}

fn operation() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => push(),
        6 => (recipient(), option::of(any::<usize>()), option::of(1_u64..5))
            .prop_map(|(recipient, after, max)| Op::Pull { recipient, after, max }),
        4 => (recipient(), collection::vec(item(), 0..4), option::weighted(0.3, any::<usize>()))
            .prop_map(|(recipient, items, through)| Op::Ack { recipient, items, through }),
        1 => recipient().prop_map(|recipient| Op::Purge { recipient }),
        3 => sample::select(STEPS_MS).prop_map(|ms| Op::Advance { ms }),
        1 => sample::select(STEPS_BACK_MS).prop_map(|ms| Op::SetBack { ms }),
        2 => Just(Op::Sweep),
        2 => (0..rules().len()).prop_map(|rules| Op::Reopen { rules }),
    ]
}

fn push() -> impl Strategy<Value = Op> {
    let ttl_ms = option::weighted(0.3, sample::select(TTLS_MS));
    (recipient(), item(), sample::select(PAYLOADS_BYTES), any::<bool>(), ttl_ms).prop_map(
        |(recipient, item, payload_bytes, other_content, ttl_ms)| Op::Push {
            recipient,
            item,
            payload_bytes,
            other_content,
            ttl_ms,
        },
    )
}

fn recipient() -> impl Strategy<Value = usize> {
    0..RECIPIENTS.len()
}

fn item() -> impl Strategy<Value = OpItem> {
    (0..MESSAGES.len(), 0..CHUNKS).prop_map(|(message, chunk)| OpItem { message, chunk })
}
