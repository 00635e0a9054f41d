//! The durable store under faults, through HTTP: a disk that fails, bits that flip, a thread that
//! dies, a clock that jumps. What the store does about each is proven closer to it; here is what a
//! client sees of it.

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

/// Payloads from here on lie in files of their own.
const ASIDE_BYTES: usize = 1_000;

/// So small that segments come and go, and checkpoints are written, within a few requests.
fn small_options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        checkpoint_rows: 60,
        checkpoint_bytes: 16 * 1024,
        segment_bytes: 4 * 1024,
        blob_bytes: ASIDE_BYTES as u64,
        ..Options::default()
    }
}

fn open_on(disk: &SimDisk, clock: &Arc<ManualClock>) -> Result<RedbRelay, OpenError> {
    let clock = Arc::clone(clock);
    RedbRelay::open_on(Arc::new(disk.clone()), Path::new("/store"), Limits::default(), clock, small_options())
}

/// What brings message `number` from another store.
pub(crate) fn envelope(recipient: &str, number: u128) -> Envelope {
    Envelope {
        recipient: Recipient::parse(recipient).unwrap(),
        message_id: MessageId::from_bytes(number.to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 1,
        sent_ms: 0,
        payload: "x".into(),
    }
}

/// A message and its payload.
type Shown = (u128, Vec<u8>);

/// All items of a queue, page by page. `Err` with the status and code of the first page that
/// failed.
fn pull_all(client: &mut Client, recipient: &str) -> Result<Vec<Shown>, (u16, String)> {
    let items = client.pull_all(recipient).unwrap().map_err(|answer| (answer.status, answer.code()))?;
    let shown = items.iter().map(|item| {
        let payload = STANDARD.decode(item["ciphertext_b64"].as_str().unwrap()).unwrap();
        (message_of(item).unwrap(), payload)
    });
    Ok(shown.collect())
}

/// What message `number` carries. No two have the same.
fn payload(number: u128, bytes: usize) -> Vec<u8> {
    let seed =
        number.to_le_bytes().into_iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(byte));
    let mut random = Random(seed);
    (0..bytes).map(|_| random.next().to_le_bytes()[0]).collect()
}

/// Random numbers from a seed that is printed, so that a run can be told again as far as threads
/// allow.
struct Random(u64);

impl Random {
    /// A seed of its own for each run, or the one in the environment.
    fn seed() -> u64 {
        #[expect(clippy::disallowed_methods, reason = "who looks into a failure sets the seed")]
        let given = std::env::var("RELAY_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
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
