//! Tests of the durable store under faults, through HTTP: failing disks, flipped bits, crashed
//! threads, clock steps. The tests of the store crate cover the details; these tests check what
//! clients see.

mod clock_steps;
mod fail_stop;
mod failing_disk;
mod rot;
mod wrong_clock;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use relay_core::testing::ManualClock;
use relay_core::{Chunk, Envelope, Kind, Limits, MessageId, Recipient};
use relay_disk::SimDisk;
use relay_store_redb::{OpenError, Options, RedbRelay};
use relay_tests::{Client, message_of};

/// Payloads of this size and above are blobs.
const BLOB_BYTES: usize = 1_000;

/// Options so small that a few requests already create and remove segments and write checkpoints.
fn small_options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        checkpoint_rows: 60,
        checkpoint_bytes: 16 * 1024,
        segment_bytes: 4 * 1024,
        blob_bytes: BLOB_BYTES as u64,
        ..Options::default()
    }
}

fn open_on(disk: &SimDisk, clock: &Arc<ManualClock>) -> Result<RedbRelay, OpenError> {
    let clock = Arc::clone(clock);
    RedbRelay::open_on(Arc::new(disk.clone()), Path::new("/store"), Limits::default(), clock, small_options())
}

/// An envelope with message `number`, for a push or an import.
pub(crate) fn envelope(recipient: &str, number: u128) -> Envelope {
    Envelope {
        recipient: Recipient::parse(recipient).unwrap(),
        message_id: MessageId::from_bytes(number.to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1,
        sent_ms: 0,
        ttl_ms: None,
        payload: "x".into(),
    }
}

/// A message number and its payload.
type PulledItem = (u128, Vec<u8>);

/// Pulls all items of a queue, page by page. `Err` is the status and code of the first page that
/// failed.
fn pull_all(client: &mut Client, recipient: &str) -> Result<Vec<PulledItem>, (u16, String)> {
    let items = client.pull_all(recipient).unwrap().map_err(|response| (response.status, response.code()))?;
    let shown = items.iter().map(|item| {
        let payload = STANDARD.decode(item["ciphertext_b64"].as_str().unwrap()).unwrap();
        (message_of(item).unwrap(), payload)
    });
    Ok(shown.collect())
}

/// The payload of message `number`. No two messages have the same.
fn payload(number: u128, bytes: usize) -> Vec<u8> {
    let seed =
        number.to_le_bytes().into_iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(byte));
    let mut random = Random(seed);
    (0..bytes).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// Random numbers from a seed that is printed, so that a run can be repeated as far as threads
/// allow.
struct Random(u64);

impl Random {
    /// A new seed for each run, or the one in the environment.
    fn seed() -> u64 {
        #[expect(clippy::disallowed_methods, reason = "the seed of a failed run can be set")]
        let from_environment = std::env::var("RELAY_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = from_environment.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        eprintln!("RELAY_FAULT_SEED={seed}");
        seed
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
