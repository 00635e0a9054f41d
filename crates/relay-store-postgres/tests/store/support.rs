//! Servers and requests for the tests.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use relay_core::testing::ManualClock;
use relay_core::{
    Chunk, Clock, Envelope, Error, Item, Kind, Limits, MessageId, Page, Pull, PushOutcome, Recipient,
    Relay as _, Timestamp,
};
pub(crate) use relay_store_postgres::testing::{Server, is_left_out};
use relay_store_postgres::{Admin, Durability, Options, PostgresRelay, ShardOptions, Slots};

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

/// The connection string of the first database.
pub(crate) fn dsn(options: &Options) -> &str {
    &options.shards[0].dsn
}

/// The same options for another database.
pub(crate) fn with_dsn(options: &Options, dsn: &str) -> Options {
    Options { shards: vec![ShardOptions::alone(dsn.to_owned())], ..options.clone() }
}

/// Options for a new store in two databases, one on each server.
pub(crate) fn two_shards(first: &Server, second: &Server) -> Options {
    let stores = [(first, "0-127"), (second, "128-255")];
    let shards = stores.map(|(server, slots)| ShardOptions {
        dsn: dsn(&new_store(server)).to_owned(),
        slots: Slots::parse(slots).unwrap(),
    });
    Options { shards: shards.to_vec(), ..new_store(first) }
}

/// A recipient whose slot is one of these; another one for each number.
pub(crate) fn name_in(slots: RangeInclusive<u8>, number: usize) -> String {
    let names = (0..).map(|candidate| format!("name{candidate}"));
    let slot = |name: &String| blake3::hash(name.as_bytes()).as_bytes()[0];
    names.filter(|name| slots.contains(&slot(name))).nth(number).unwrap()
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

/// All items of a queue, read page by page. A relay that is not ready is asked again.
pub(crate) fn pull_all(relay: &PostgresRelay, recipient: &str) -> Vec<Item<bytes::Bytes>> {
    let (mut items, mut after, begun) = (Vec::new(), None, now());
    loop {
        let pull = Pull { recipient: name(recipient), after, items_max: None };
        let page = loop {
            match pollster::block_on(relay.pull(pull.clone())) {
                Err(Error::NotReady { .. }) if now() - begun < PATIENCE => {
                    thread::sleep(Duration::from_millis(50));
                }
                page => break page.unwrap(),
            }
        };
        let Page { items: of_page, next, .. } = page;
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
