//! The primary and its children are killed under load, and the best standby becomes the primary.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use relay_core::{Ack, ItemId, MessageId, Relay as _};
use relay_store_postgres::testing::Server;
use relay_store_postgres::{Durability, Options, PostgresRelay};

use super::support::{
    dsn, is_left_out, messages, name, new_store, now, open, push, push_patiently, until, verify, with_dsn,
};

const QUEUES: u128 = 40;
const SENDERS: usize = 16;
const QUORUM: &str = "synchronous_standby_names = 'ANY 1 (s1, s2)'";

/// What clients were told.
#[derive(Default)]
struct Told {
    stored: Mutex<HashSet<u128>>,
    acked: Mutex<HashSet<u128>>,
    /// Those whose ack got no answer.
    perhaps: Mutex<HashSet<u128>>,
}

#[test]
fn no_answered_push_or_ack_is_lost_when_a_standby_is_promoted() {
    if !is_left_out() {
        fail_over(Server::kill, |_| {});
    }
}

/// Its address still accepts connections, and commits that were sent to it never end.
#[test]
fn no_answered_push_or_ack_is_lost_when_the_primary_hangs() {
    if !is_left_out() {
        // Later it goes on, and still takes itself for the primary.
        fail_over(|primary| primary.pause().unwrap(), |primary| primary.resume().unwrap());
    }
}

fn fail_over(lose: impl FnOnce(&mut Server), come_back: impl FnOnce(&mut Server)) {
    let (mut primary, standbys, options) = three_servers();
    let relay = open(&options);
    let (told, is_over, number) = (Told::default(), AtomicBool::new(false), AtomicU64::new(1));
    let outage = thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| send(&relay, &told, &is_over, &number));
        }
        thread::sleep(Duration::from_secs(2));
        lose(&mut primary);
        let killed = now();
        promote_best(&standbys);
        push_patiently(&relay, "probe", 1);
        let outage = now() - killed;
        come_back(&mut primary);
        thread::sleep(Duration::from_secs(2));
        is_over.store(true, Ordering::Relaxed);
        outage
    });
    assert!(outage < Duration::from_secs(20), "{outage:?}");
    // A relay that starts now finds the new primary, too, although the old one is named first.
    let late = open(&options);
    assert!(!push_patiently(&late, "probe", 1), "it was stored before");
    assert_eq!(messages(&late, "probe"), [1]);
    told.check(&relay);
    assert_eq!(verify(&options), Vec::<String>::new());
}

/// A primary whose commits wait for one of two standbys, and a relay that knows all three.
fn three_servers() -> (Server, [Server; 2], Options) {
    let primary = Server::start("").unwrap();
    let database = new_store(&primary);
    let standbys = ["s1", "s2"].map(|name| primary.standby(name, "").unwrap());
    primary.configure(QUORUM).unwrap();
    until("both follow", || {
        primary.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'").unwrap()
            == "2"
    });
    let ports = [primary.port(), standbys[0].port(), standbys[1].port()].map(|port| port.to_string());
    let name = dsn(&database).rsplit('=').next().unwrap();
    let hosts =
        format!("host=127.0.0.1,127.0.0.1,127.0.0.1 port={} user=relay dbname={name}", ports.join(","));
    let options = Options { durability: Durability::Replicated, ..with_dsn(&database, &hosts) };
    (primary, standbys, options)
}

impl Told {
    /// Everything that was stored is there once, unless it was acked.
    fn check(self, relay: &PostgresRelay) {
        let [stored, acked, perhaps] =
            [self.stored, self.acked, self.perhaps].map(|set| set.into_inner().unwrap());
        let left: Vec<u128> = (0..QUEUES).flat_map(|queue| messages(relay, &format!("q{queue}"))).collect();
        let distinct: HashSet<u128> = left.iter().copied().collect();
        assert_eq!(distinct.len(), left.len(), "no item is there twice");
        let is_lost =
            |message: &&u128| ![&distinct, &acked, &perhaps].iter().any(|set| set.contains(message));
        let lost: Vec<_> = stored.iter().filter(is_lost).collect();
        assert!(lost.is_empty(), "lost: {lost:?} of {}", stored.len());
        let undone: Vec<_> = acked.intersection(&distinct).collect();
        assert!(undone.is_empty(), "acks undone: {undone:?}");
        assert!(stored.len() > 500, "{}", stored.len());
    }
}

/// Pushes, and acks every third item.
fn send(relay: &PostgresRelay, told: &Told, is_over: &AtomicBool, number: &AtomicU64) {
    while !is_over.load(Ordering::Relaxed) {
        let message = u128::from(number.fetch_add(1, Ordering::Relaxed));
        let recipient = format!("q{}", message % QUEUES);
        if push(relay, &recipient, message).is_err() {
            continue;
        }
        told.stored.lock().unwrap().insert(message);
        if message % 3 == 0 {
            let id = ItemId { message_id: MessageId::from_bytes(message.to_be_bytes()), chunk_index: 0 };
            let ack = Ack::new(name(&recipient), vec![id]).unwrap();
            let set = match pollster::block_on(relay.ack(ack)) {
                Ok(outcome) if outcome.deleted == 1 => &told.acked,
                Ok(outcome) => panic!("the item was stored: {outcome:?}"),
                Err(_) => &told.perhaps,
            };
            set.lock().unwrap().insert(message);
        }
    }
}

/// Promotes the standby that has received more, and lets the other one follow it.
fn promote_best(standbys: &[Server; 2]) {
    let received = |server: &Server| {
        let lsn = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')::bigint";
        server.execute(lsn).unwrap().parse::<u64>().unwrap()
    };
    let [a, b] = standbys;
    let (best, other, other_name) = if received(a) >= received(b) { (a, b, "s2") } else { (b, a, "s1") };
    best.configure(QUORUM).unwrap();
    best.promote().unwrap();
    let follow = format!(
        "primary_conninfo = 'host=127.0.0.1 port={} user=relay application_name={other_name}'",
        best.port()
    );
    other.configure(&follow).unwrap();
}
