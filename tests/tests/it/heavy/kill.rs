//! `kill -9` while 32 connections push, also in batches, and ack, repeatedly on the same store. No
//! answered push is lost, no answered ack is undone, the order is kept, and the store passes
//! verification.
//!
//! An unanswered request may have taken full effect, or none. This test says nothing about a power
//! failure on a disk that lies about syncs: the system outlives the process.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;

use relay_core::Limits;
use relay_core::testing::ManualClock;
use relay_store_redb::{Options, RecipientNames, RedbRelay};
use relay_tests::audit::{Account, Step};
use relay_tests::{Client, Process, at_length};

const CONNECTIONS: usize = 32;
const KEPT_ITEMS: usize = 20;

/// The number of responses after which the process is killed: a different moment in each round.
fn responses_before_kill(round: usize) -> usize {
    200 + 97 * round
}

#[test]
fn kill_9_loses_no_answered_request() {
    let directory = tempfile::tempdir().unwrap();
    let account = |number| Account::new(format!("recipient {number}"), KEPT_ITEMS);
    let mut accounts: Vec<Account> = (0..CONNECTIONS).map(account).collect();
    for round in 0..at_length(20, 4) {
        let mut process = start_and_audit(directory.path(), &mut accounts);
        work_until_killed(&mut process, &mut accounts, responses_before_kill(round));
    }
    start_and_audit(directory.path(), &mut accounts).kill().unwrap();
    assert_eq!(verify_store(&directory.path().join("store")), Vec::<String>::new());
}

fn start_and_audit(directory: &Path, accounts: &mut [Account]) -> Process {
    let process = Process::start_on(crate::PROGRAM, directory, &[]).unwrap();
    let mut auditor = process.connect().unwrap();
    for account in accounts {
        assert_eq!(account.audit(&mut auditor).unwrap(), Vec::<String>::new());
    }
    process
}

/// Runs all clients and kills the process after `responses` responses.
fn work_until_killed(process: &mut Process, accounts: &mut [Account], responses: usize) {
    let (answered, counted) = mpsc::channel();
    thread::scope(|scope| {
        for account in accounts {
            let (mut client, answered) = (process.connect().unwrap(), answered.clone());
            scope.spawn(move || work(account, &mut client, &answered));
        }
        drop(answered);
        let seen = counted.iter().take(responses).count();
        assert_eq!(seen, responses, "the workers stopped before the process was killed");
        process.kill().unwrap();
    });
}

/// Pushes and acks until the connection breaks.
fn work(account: &mut Account, client: &mut Client, answered: &Sender<()>) {
    loop {
        match account.step(client) {
            Ok(Step::Pushed | Step::Acked) => answered.send(()).unwrap_or_default(),
            Ok(Step::Refused(status)) => panic!("refused with {status}"),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => panic!("{error}"),
            Err(_) => return,
        }
    }
}

fn verify_store(store: &Path) -> Vec<String> {
    let clock: Arc<ManualClock> = Arc::default();
    let options = Options { recipients: RecipientNames::AsStored, ..Options::default() };
    RedbRelay::open(store, Limits::default(), clock, options).unwrap().verify().unwrap()
}
