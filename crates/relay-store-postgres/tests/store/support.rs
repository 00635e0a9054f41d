//! Servers and requests for the tests.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use relay_core::testing::ManualClock;
use relay_core::{
    Chunk, Clock, Envelope, Error, Item, Kind, Limits, MessageId, Page, Pull, PushOutcome, Recipient,
    Relay as _, Timestamp,
};
pub(crate) use relay_store_postgres::testing::{Server, is_left_out};
use relay_store_postgres::{Admin, Durability, Options, PostgresRelay};

/// Far longer than anything should take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a standby whose confirmation each commit needs.
pub(crate) struct Pair {
    pub(crate) primary: Server,
    pub(crate) standby: Server,
    pub(crate) options: Options,
}

impl Pair {
    /// `None` if PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        if is_left_out() {
            return None;
        }
        let primary = Server::start("").unwrap();
        let options = new_store(&primary);
        let standby = primary.standby("s1", "").unwrap();
        primary.configure("synchronous_standby_names = 's1'").unwrap();
        until("the standby follows", || {
            let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            primary.execute(sync).unwrap() == "1"
        });
        let options = Options { durability: Durability::Replicated, ..options };
        Some(Self { primary, standby, options })
    }

    /// The number of transactions that wait for the standby.
    pub(crate) fn waiting(&self) -> usize {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        self.primary.execute(waiting).unwrap().parse().unwrap()
    }
}

/// A server alone with a store, unless PostgreSQL is not installed.
pub(crate) fn database() -> Option<(Server, Options)> {
    if is_left_out() {
        return None;
    }
    let server = Server::start("").unwrap();
    let options = new_store(&server);
    Some((server, options))
}

/// Options for a new store on this server, whose relays do not wait for long.
pub(crate) fn new_store(server: &Server) -> Options {
    Options { open_patience: Duration::from_secs(10), ..server.create_store().unwrap() }
}

pub(crate) fn open(options: &Options) -> PostgresRelay {
    PostgresRelay::open(options.clone(), Limits::default(), Arc::new(MachineClock)).unwrap()
}

pub(crate) fn open_with_clock(options: &Options, limits: Limits, clock: &Arc<ManualClock>) -> PostgresRelay {
    PostgresRelay::open_with_clock(options.clone(), limits, Arc::<ManualClock>::clone(clock)).unwrap()
}

/// The clock of this machine.
pub(crate) struct MachineClock;

#[expect(clippy::disallowed_methods, reason = "the clock of the tests")]
impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_ms(u64::try_from(since.as_millis()).unwrap())
    }

    fn elapsed_ms(&self) -> u64 {
        self.now().as_ms()
    }
}

/// Findings of a check of the whole store.
pub(crate) fn verify(options: &Options) -> Vec<String> {
    Admin::connect(options).unwrap().verify().unwrap()
}

pub(crate) fn name(recipient: &str) -> Recipient {
    Recipient::parse(recipient).unwrap()
}

pub(crate) fn envelope(recipient: &str, message: u128, payload: &[u8]) -> Envelope {
    Envelope {
        recipient: name(recipient),
        message_id: MessageId::from_bytes(message.to_be_bytes()),
        chunk: Chunk::new(0, 1).unwrap(),
        kind: Kind::parse("opaque").unwrap(),
        total_len: payload.len() as u64,
        sent_ms: 1,
        payload: payload.to_vec().into(),
        ttl_ms: None,
    }
}

pub(crate) fn push(relay: &PostgresRelay, recipient: &str, message: u128) -> Result<PushOutcome, Error> {
    pollster::block_on(relay.push(envelope(recipient, message, &message.to_be_bytes())))
}

/// Pushes until the relay answers. Returns whether the last attempt stored the item.
pub(crate) fn push_patiently(relay: &PostgresRelay, recipient: &str, message: u128) -> bool {
    let begun = now();
    loop {
        match push(relay, recipient, message) {
            Ok(outcome) => return outcome.is_stored(),
            Err(error) => assert!(now() - begun < PATIENCE, "{error:?}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// All items of a queue, read page by page.
pub(crate) fn pull_all(relay: &PostgresRelay, recipient: &str) -> Vec<Item<bytes::Bytes>> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let pull = Pull { recipient: name(recipient), after, items_max: None };
        let Page { items: of_page, next, .. } = pollster::block_on(relay.pull(pull)).unwrap();
        items.extend(of_page);
        after = next;
        if after.is_none() {
            return items;
        }
    }
}

/// The messages of a queue, in order.
pub(crate) fn messages(relay: &PostgresRelay, recipient: &str) -> Vec<u128> {
    let items = pull_all(relay, recipient);
    items.iter().map(|item| u128::from_be_bytes(*item.message_id.as_bytes())).collect()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = now();
    while !is_so() {
        assert!(now() - begun < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
