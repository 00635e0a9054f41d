//! A disk on which reads, writes or syncs fail at random, or space runs out, for a while. Clients
//! see 503 and 507 and nothing worse; what was answered 200 is true then, afterwards, after a
//! restart and after a power cut; and when the disk is well again, so is the relay.
//!
//! Not promised: that what was answered with an error did not happen.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use relay_core::testing::ManualClock;
use relay_disk::{Class, Fault, SimDisk, Survival};
use relay_tests::{Client, Relay, ack_body, at_length, eventually, push_body};

use super::{ASIDE_BYTES, Random, open_on, payload, pull_all};

const CLIENTS: u64 = 4;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Calls(Class),
    Space,
    Any,
}

#[test]
fn reads_fail() {
    weather(Trouble::Calls(Class::Read));
}

#[test]
fn writes_fail() {
    weather(Trouble::Calls(Class::Write));
}

#[test]
fn syncs_fail() {
    weather(Trouble::Calls(Class::Sync));
}

#[test]
fn space_runs_out() {
    weather(Trouble::Space);
}

#[test]
fn everything_fails() {
    weather(Trouble::Any);
}

impl Trouble {
    /// Makes trouble, or takes it back.
    fn strike(self, disk: &SimDisk, random: &mut Random) {
        let trouble = match (self, random.below(4)) {
            (Self::Any, 0) => Self::Space,
            (Self::Any, 1) => Self::Calls(Class::Read),
            (Self::Any, 2) => Self::Calls(Class::Write),
            (Self::Any, _) => Self::Calls(Class::Sync),
            (trouble, _) => trouble,
        };
        if random.one_in(4) {
            return recover(disk);
        }
        match trouble {
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
struct Account {
    recipient: String,
    next: u128,
    /// Answered 200: they are there, in this order.
    stored: Vec<u128>,
    /// Pushes or acks of these failed: they may be there or not.
    unsure: Vec<u128>,
    /// How many answers of each status and code there were.
    answers: BTreeMap<(u16, String), u64>,
}

/// How long the payload of a message is: some lie aside.
fn bytes_of(message: u128) -> usize {
    usize::try_from(message * 97 % 600).unwrap() + if message.is_multiple_of(5) { ASIDE_BYTES } else { 0 }
}

impl Account {
    fn new(number: u64) -> Self {
        let (stored, unsure, answers) = Default::default();
        Self { recipient: format!("queue-{number}"), next: u128::from(number) << 64, stored, unsure, answers }
    }

    fn note(&mut self, status: u16, code: String) {
        *self.answers.entry((status, code)).or_default() += 1;
    }

    fn push(&mut self, client: &mut Client) -> bool {
        self.next += 1;
        let message = self.next;
        let body = push_body(&self.recipient, message, &payload(message, bytes_of(message)));
        let answer = client.post("/push", &body).unwrap();
        self.note(answer.status, answer.code());
        if answer.status == 200 {
            assert_eq!(answer.json()["stored"], true, "{message} is new");
            self.stored.push(message);
        } else {
            self.unsure.push(message);
        }
        answer.status == 200
    }

    /// Acks about half of what is there.
    fn ack(&mut self, client: &mut Client, random: &mut Random) {
        let named: Vec<u128> = self.stored.iter().copied().filter(|_| random.one_in(2)).collect();
        let answer = client.post("/ack", &ack_body(&self.recipient, &named)).unwrap();
        self.note(answer.status, answer.code());
        self.stored.retain(|message| !named.contains(message));
        if answer.status == 200 {
            assert_eq!(answer.json()["deleted"], named.len(), "they were all there");
        } else {
            self.unsure.extend(named);
        }
    }

    /// What a pull shows is true. False when it shows nothing.
    fn pull(&mut self, client: &mut Client) -> bool {
        match pull_all(client, &self.recipient) {
            Ok(shown) => {
                self.note(200, String::new());
                self.compare(&shown);
                true
            }
            Err((status, code)) => {
                self.note(status, code);
                false
            }
        }
    }

    fn compare(&self, shown: &[(u128, Vec<u8>)]) {
        for (message, found) in shown {
            assert!(*found == payload(*message, bytes_of(*message)), "the payload of {message} is wrong");
            let is_known = self.stored.contains(message) || self.unsure.contains(message);
            assert!(is_known, "{message} was acked, and is back");
        }
        let sure: Vec<u128> =
            shown.iter().map(|item| item.0).filter(|message| !self.unsure.contains(message)).collect();
        assert_eq!(sure, self.stored, "what was answered");
    }
}

fn weather(trouble: Trouble) {
    let seed = Random::seed();
    let (disk, clock) = (SimDisk::new(), Arc::new(ManualClock::new()));
    let store = Arc::new(open_on(&disk, &clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |config| config.relay.gc_interval_seconds = 1);
    let mut accounts: Vec<Account> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (disk, relay) = (&disk, &relay);
                scope.spawn(move || suffer(trouble, disk, relay, number, seed))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    recover(&disk);
    let mut client = relay.connect().unwrap();
    for account in &mut accounts {
        eprintln!("{}: {:?}", account.recipient, account.answers);
        assert!(eventually(|| account.push(&mut client).then_some(())).is_some(), "it does not get well");
        assert!(eventually(|| account.pull(&mut client).then_some(())).is_some(), "it does not get well");
    }
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
    audit(&disk.after_crash(Survival::None), &clock, &mut accounts);
    drop((client, relay, store));
    audit(&disk, &clock, &mut accounts);
}

/// One client, while the disk has trouble.
fn suffer(trouble: Trouble, disk: &SimDisk, relay: &Relay, number: u64, seed: u64) -> Account {
    let mut random = Random(seed.wrapping_add(number));
    let mut account = Account::new(number);
    let mut client = relay.connect().unwrap();
    for _ in 0..at_length(10_000, 250) {
        if random.one_in(6) {
            trouble.strike(disk, &mut random);
        }
        match random.below(6) {
            0..3 => drop(account.push(&mut client)),
            3..5 => drop(account.pull(&mut client)),
            _ => account.ack(&mut client, &mut random),
        }
    }
    for (status, code) in account.answers.keys() {
        let is_allowed =
            matches!((status, &**code), (200, "") | (503, "storage_error") | (507, "storage_full"));
        assert!(is_allowed, "{status} {code:?}");
    }
    account
}

/// Opens what is on a disk, and compares.
fn audit(disk: &SimDisk, clock: &Arc<ManualClock>, accounts: &mut [Account]) {
    let store = Arc::new(open_on(disk, clock).unwrap());
    let relay = Relay::with_store(Arc::clone(&store), |_| {});
    let mut client = relay.connect().unwrap();
    for account in accounts {
        assert!(account.pull(&mut client));
    }
    assert_eq!(store.verify().unwrap(), Vec::<String>::new());
}
