//! A disk on which reads, writes or syncs fail at random, or space runs out, for a while. Clients
//! see 503 and 507 and no other errors. Everything answered with 200 stays true: during the faults,
//! after them, after a restart and after a power cut. Once the disk works again, so does the relay.
//!
//! A request that was answered with an error may still have taken effect.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_disk::{Class, Fault, SimDisk, Survival};
use relay_tests::{Client, Relay, ack_body, at_length, eventually, push_body};

use super::{BLOB_BYTES, Random, open_on, payload, pull_all};

const CLIENTS: u64 = 4;

/// The kind of fault.
#[derive(Clone, Copy, Debug)]
enum DiskFault {
    Calls(Class),
    Space,
    Any,
}

#[test]
fn responses_stay_true_when_reads_fail() {
    run_with_faults(DiskFault::Calls(Class::Read));
}

#[test]
fn responses_stay_true_when_writes_fail() {
    run_with_faults(DiskFault::Calls(Class::Write));
}

#[test]
fn responses_stay_true_when_syncs_fail() {
    run_with_faults(DiskFault::Calls(Class::Sync));
}

#[test]
fn responses_stay_true_when_space_runs_out() {
    run_with_faults(DiskFault::Space);
}

#[test]
fn responses_stay_true_when_everything_fails() {
    run_with_faults(DiskFault::Any);
}

impl DiskFault {
    /// Injects a fault, or ends all faults.
    fn inject(self, disk: &SimDisk, random: &mut Random) {
        let fault = match (self, random.below(4)) {
            (Self::Any, 0) => Self::Space,
            (Self::Any, 1) => Self::Calls(Class::Read),
            (Self::Any, 2) => Self::Calls(Class::Write),
            (Self::Any, _) => Self::Calls(Class::Sync),
            (fault, _) => fault,
        };
        if random.one_in(4) {
            return recover(disk);
        }
        match fault {
            Self::Calls(class) => disk.fail(Fault {
                class: Some(class),
                at: random.below(20),
                times: 1 + random.below(8),
                kind: io::ErrorKind::Other,
                partly: usize::try_from(random.below(3) * 100).unwrap(),
            }),
            Self::Space | Self::Any => disk.space_limit(Some(disk.bytes_used() + random.below(20_000))),
        }
    }
}

fn recover(disk: &SimDisk) {
    disk.heal();
    disk.space_limit(None);
}

/// What one client knows of its own queue.
struct KnownQueue {
    recipient: String,
    next: u128,
    /// Pushes that were answered with 200: these items are in the queue, in this order.
    stored: Vec<u128>,
    /// Messages whose push or ack failed: they may be in the queue or not.
    uncertain: Vec<u128>,
    /// The number of responses by status and code.
    responses: BTreeMap<(u16, String), u64>,
}

/// The payload length of a message. Some are blobs.
fn bytes_of(message: u128) -> usize {
    usize::try_from(message * 97 % 600).unwrap() + if message.is_multiple_of(5) { BLOB_BYTES } else { 0 }
}

impl KnownQueue {
    fn new(number: u64) -> Self {
        let (stored, uncertain, responses) = Default::default();
        Self {
            recipient: format!("queue-{number}"),
            next: u128::from(number) << 64,
            stored,
            uncertain,
            responses,
        }
    }

    fn count(&mut self, status: u16, code: String) {
        *self.responses.entry((status, code)).or_default() += 1;
    }

    fn push(&mut self, client: &mut Client) -> bool {
        self.next += 1;
        let message = self.next;
        let body = push_body(&self.recipient, message, &payload(message, bytes_of(message)));
        let response = client.post("/push", &body).unwrap();
        self.count(response.status, response.code());
        if response.status == 200 {
            assert_eq!(response.json()["stored"], true, "{message} is new");
            self.stored.push(message);
        } else {
            self.uncertain.push(message);
        }
        response.status == 200
    }

    /// Acks about half of the queue.
    fn ack(&mut self, client: &mut Client, random: &mut Random) {
        let acked: Vec<u128> = self.stored.iter().copied().filter(|_| random.one_in(2)).collect();
        let response = client.post("/ack", &ack_body(&self.recipient, &acked)).unwrap();
        self.count(response.status, response.code());
        self.stored.retain(|message| !acked.contains(message));
        if response.status == 200 {
            assert_eq!(response.json()["deleted"], acked.len(), "all acked items were in the queue");
        } else {
            self.uncertain.extend(acked);
        }
    }

    /// Pulls the queue and compares it. False if the pull fails.
    fn pull(&mut self, client: &mut Client) -> bool {
        match pull_all(client, &self.recipient) {
            Ok(shown) => {
                self.count(200, String::new());
                self.compare(&shown);
                true
            }
            Err((status, code)) => {
                self.count(status, code);
                false
            }
        }
    }

    fn compare(&self, shown: &[(u128, Vec<u8>)]) {
        for (message, found) in shown {
            assert!(*found == payload(*message, bytes_of(*message)), "the payload of {message} is wrong");
            let is_known = self.stored.contains(message) || self.uncertain.contains(message);
            assert!(is_known, "{message} was acked and reappeared");
        }
        let certain: Vec<u128> =
            shown.iter().map(|item| item.0).filter(|message| !self.uncertain.contains(message)).collect();
        assert_eq!(certain, self.stored, "the queue is what was answered");
    }
}

fn run_with_faults(fault: DiskFault) {
    let seed = Random::seed();
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let store = Arc::new(open_on(&disk, &clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |config| config.relay.gc_interval_seconds = 1);
    let mut queues: Vec<KnownQueue> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (disk, relay) = (&disk, &relay);
                scope.spawn(move || run_client(fault, disk, relay, number, seed))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    recover(&disk);
    let mut client = relay.connect().unwrap();
    for queue in &mut queues {
        eprintln!("{}: {:?}", queue.recipient, queue.responses);
        assert!(eventually(|| queue.push(&mut client).then_some(())).is_some(), "the relay does not recover");
        assert!(eventually(|| queue.pull(&mut client).then_some(())).is_some(), "the relay does not recover");
    }
    // After a failed checkpoint the index is opened again, and a check that meets this ends.
    let findings = eventually(|| store.verify().ok()).expect("the store can be checked");
    assert_eq!(findings, Vec::<String>::new());
    audit(&disk.after_crash(Survival::None), &clock, &mut queues);
    drop((client, relay, store));
    audit(&disk, &clock, &mut queues);
}

/// Runs one client, which also injects faults.
fn run_client(fault: DiskFault, disk: &SimDisk, relay: &Relay, number: u64, seed: u64) -> KnownQueue {
    let mut random = Random(seed.wrapping_add(number));
    let mut queue = KnownQueue::new(number);
    let mut client = relay.connect().unwrap();
    for _ in 0..at_length(10_000, 250) {
        if random.one_in(6) {
            fault.inject(disk, &mut random);
        }
        match random.below(6) {
            0..3 => drop(queue.push(&mut client)),
            3..5 => drop(queue.pull(&mut client)),
            _ => queue.ack(&mut client, &mut random),
        }
    }
    for (status, code) in queue.responses.keys() {
        let is_allowed =
            matches!((status, &**code), (200, "") | (503, "storage_error") | (507, "storage_full"));
        assert!(is_allowed, "{status} {code:?}");
    }
    queue
}

/// Opens a store from this disk and compares all queues.
fn audit(disk: &SimDisk, clock: &Arc<ManualClock>, queues: &mut [KnownQueue]) {
    let store = Arc::new(open_on(disk, clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    for queue in queues {
        assert!(queue.pull(&mut client));
    }
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}
