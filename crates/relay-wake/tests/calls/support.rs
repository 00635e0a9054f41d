//! A relay in memory that wakes, and what clients do with it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use relay_core::{
    Ack, Chunk, Clock, Envelope, ItemId, Kind, Limits, MemoryRelay, MessageId, Pull, PushOutcome, Recipient,
    Relay, Timestamp, WakeFigures,
};
use relay_wake::{GatewayUrl, Options, Rules, WakeKey, Wakes, WakingRelay};
use tokio::task::JoinHandle;

pub(crate) const KEY: [u8; WakeKey::BYTES] = [42; WakeKey::BYTES];

/// The machine's clocks.
pub(crate) struct Machine(pub(crate) Instant);

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(1_700_000_000_000 + self.elapsed_ms())
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from((now() - self.0).as_millis()).unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "tests measure")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Calls at once, and tries twice.
pub(crate) fn options(url: &str) -> Options {
    Options {
        url: GatewayUrl::parse(url).unwrap(),
        key: WakeKey::new(&KEY),
        ca_path: None,
        rules: Rules {
            grace: Duration::ZERO,
            confirm: Duration::ZERO,
            quiet: Duration::from_secs(3600),
            attempts_max: NonZeroU32::new(2).unwrap(),
            queues_max: NonZeroUsize::new(1000).unwrap(),
            calls_max: NonZeroUsize::new(8).unwrap(),
            calls_per_second: NonZeroU32::new(10_000).unwrap(),
        },
        timeout: Duration::from_secs(10),
    }
}

/// A relay whose wakes run until it is dropped.
pub(crate) struct Waking {
    pub(crate) relay: Arc<WakingRelay<MemoryRelay>>,
    task: JoinHandle<()>,
}

impl Waking {
    pub(crate) fn start(options: &Options) -> Self {
        let clock: Arc<Machine> = Arc::new(Machine(now()));
        let wakes = Wakes::new(options, Arc::<Machine>::clone(&clock)).unwrap();
        let relay = Arc::new(WakingRelay::new(MemoryRelay::new(Limits::default(), clock), Some(wakes)));
        let calling = Arc::clone(&relay);
        Self { relay, task: tokio::spawn(async move { calling.call_gateway().await }) }
    }

    pub(crate) async fn push(&self, recipient: &str, message: u128) -> PushOutcome {
        self.relay.push(envelope(recipient, message)).await.unwrap()
    }

    pub(crate) async fn pull(&self, recipient: &str) -> usize {
        let pull = Pull { recipient: name(recipient), after: None, items_max: None };
        self.relay.pull(pull).await.unwrap().items.len()
    }

    pub(crate) async fn ack(&self, recipient: &str, message: u128) {
        let item = ItemId { message_id: MessageId::from_bytes(message.to_be_bytes()), chunk_index: 0 };
        self.relay.ack(Ack::new(name(recipient), vec![item]).unwrap()).await.unwrap();
    }

    pub(crate) fn figures(&self) -> WakeFigures {
        self.relay.figures().wakes.unwrap()
    }

    /// Waits until the figures are as a test wants them.
    pub(crate) async fn until(&self, wanted: impl Fn(WakeFigures) -> bool) -> WakeFigures {
        for _ in 0..2000 {
            if wanted(self.figures()) {
                return self.figures();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the figures stay at {:?}", self.figures());
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn name(text: &str) -> Recipient {
    Recipient::parse(text).unwrap()
}

pub(crate) fn envelope(recipient: &str, message: u128) -> Envelope {
    Envelope {
        recipient: name(recipient),
        message_id: MessageId::from_bytes(message.to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: 5,
        sent_ms: 1,
        ttl_ms: None,
        payload: Bytes::from_static(b"hello"),
    }
}
