//! A backup beside a relay that serves: it holds what was answered before it began, and nobody is
//! kept waiting or left with half of it.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use relay_tests::{Client, Process, ack_body, push_body};

use super::{Place, Queues};

const CONNECTIONS: u128 = 8;

/// What was answered: messages that are in their queue, and those that were acked.
#[derive(Clone, Default)]
struct Answered {
    there: BTreeSet<u128>,
    gone: BTreeSet<u128>,
}

#[test]
fn what_was_answered_before_is_in_it() {
    let place = Place::filled();
    let relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    let (answered, stop) = (Mutex::new(Answered::default()), AtomicBool::new(false));
    let (count, counted) = mpsc::channel();
    let before = thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (mut client, count, answered, stop) =
                (relay.connect().unwrap(), count.clone(), &answered, &stop);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    work(&mut client, connection + CONNECTIONS * round, answered);
                    count.send(()).ok();
                }
            });
        }
        assert_eq!(counted.iter().take(500).count(), 500);
        let before = answered.lock().unwrap().clone();
        let told = place.done("store", &["backup"], "b");
        assert!(told.contains(" files of "), "{told}");
        stop.store(true, Ordering::Relaxed);
        before
    });
    let told = place.done("other", &["restore"], "b");
    assert!(told.ends_with("0 findings\n"), "{told}");
    let restored = messages(&place.queues("other"));
    assert!(before.there.len() > 200 && before.gone.len() > 200);
    let answered = answered.into_inner().unwrap();
    let lost = before.there.difference(&restored).filter(|message| !answered.gone.contains(message)).count();
    assert_eq!(lost, 0, "answered before the backup began");
    assert_eq!(before.gone.intersection(&restored).count(), 0, "acked before the backup began");
    // What was there before all of this is there as well.
    assert_eq!(place.queues("other")["bob"].len(), 300);
}

/// Pushes two messages and acks the first one.
fn work(client: &mut Client, number: u128, answered: &Mutex<Answered>) {
    let messages = [number * 2, number * 2 + 1];
    for message in messages {
        let answer = client.post("/push", &push_body("load", message, b"payload")).unwrap();
        assert_eq!(answer.status, 200);
        answered.lock().unwrap().there.insert(message);
    }
    let answer = client.post("/ack", &ack_body("load", &messages[..1])).unwrap();
    assert_eq!(answer.status, 200);
    let mut answered = answered.lock().unwrap();
    answered.there.remove(&messages[0]);
    answered.gone.insert(messages[0]);
}

fn messages(queues: &Queues) -> BTreeSet<u128> {
    let load = queues.get("load").into_iter().flatten();
    load.map(|item| u128::from_be_bytes(*item.message_id.as_bytes())).collect()
}

/// Asks for a backup as the command does, and returns once the relay has told that it has begun.
fn ask(place: &Place, name: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(place.path("store/control.sock")).unwrap();
    stream.write_all(format!("backup 1\n{}", place.text(name)).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.starts_with("progress 0 "), "{line}");
    stream
}

/// A backup that somebody has cut off is whole, if it was faster, or is none; the next one is
/// whole.
fn audit(place: &Place, whole: &Queues) {
    let ended = place.run("restored", &["restore"], "b");
    if ended.status.code() == Some(0) {
        assert_eq!(place.queues("restored"), *whole);
    } else {
        assert!(ended.stderr.contains("b holds no whole backup"), "{}", ended.stderr);
        place.done("store", &["backup"], "b");
    }
    place.done("other", &["restore"], "b");
    assert_eq!(place.queues("other"), *whole);
}

#[test]
fn the_relay_is_killed_in_the_middle() {
    let place = Place::filled();
    let whole = place.queues("store");
    let mut relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    let asked = ask(&place, "b");
    relay.kill().unwrap();
    drop(asked);
    assert_eq!(place.queues("store"), whole);
    audit(&place, &whole);
}

#[test]
fn who_asked_goes_away_in_the_middle_and_the_relay_goes_on() {
    let place = Place::filled();
    let whole = place.queues("store");
    let mut relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    drop(ask(&place, "b"));
    // It answers one at a time, so with this one the first is over.
    place.done("store", &["backup"], "c");
    assert_eq!(relay.connect().unwrap().get("/health").unwrap().status, 200);
    audit(&place, &whole);
    relay.signal("TERM").unwrap();
    assert!(relay.wait_a_while().unwrap().success());
    assert!(!place.path("store/control.sock").exists());
    place.done("third", &["restore"], "c");
    assert_eq!(place.queues("third"), whole);
}

#[test]
fn a_refusal_reaches_who_asked() {
    let place = Place::filled();
    let _relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    place.done("store", &["backup"], "b");
    let told = place.refused("store", &["backup"], "b");
    assert!(told.starts_with("the relay says: ") && told.contains("is not empty"), "{told}");
}

/// Listens in the place of a relay, and tells what a backup would be told.
fn pretend(place: &Place) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(place.path("store/control.sock")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"progress 0 12345\ndone 7 12345\n").unwrap();
        // Until the other side is gone.
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    })
}

#[test]
fn a_backup_is_there_before_it_is_said_to_be() {
    let place = Place::filled();
    let _held = super::open(&place.path("store"));
    let liar = pretend(&place);
    let told = place.refused("store", &["backup"], "nothere");
    assert!(told.contains("nothere: it may see other directories there"), "{told}");
    liar.join().unwrap();

    // Nor is another one taken for it.
    std::fs::remove_file(place.path("store/control.sock")).unwrap();
    drop(_held);
    place.done("store", &["backup"], "older");
    let _held = super::open(&place.path("store"));
    let liar = pretend(&place);
    let told = place.refused("store", &["backup"], "older");
    assert!(told.contains("the relay says that the backup is written, and it is not all in "), "{told}");
    liar.join().unwrap();
}

/// Root can run a relay as somebody else; others see their own alone.
#[test]
fn who_listens_in_the_place_of_the_relay_is_asked_for_nothing() {
    const STRANGER: &str = "12345";
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return;
    }
    let place = Place::filled();
    let _held = super::open(&place.path("store"));
    // A relay of the stranger's, with everything that it needs.
    std::fs::set_permissions(place.0.path(), Permissions::from_mode(0o755)).unwrap();
    let (program, theirs) = (place.text("program"), place.text("theirs"));
    std::fs::copy(crate::PROGRAM, &program).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(12_345), None).unwrap();
    let words = [
        "--reuid",
        STRANGER,
        "--clear-groups",
        &program,
        "--address",
        "127.0.0.1:0",
        "--storage-path",
        &theirs,
    ];
    let _theirs = Process::start("setpriv", &words).unwrap();
    std::fs::rename(place.path("theirs/control.sock"), place.path("store/control.sock")).unwrap();
    let told = place.refused("store", &["backup"], "b");
    assert!(told.contains("control.sock is not the owner of the store; it was asked for nothing"), "{told}");
    assert!(!place.path("b").exists());

    // A file of theirs in the place of the store's makes them no owner of the directory.
    std::os::unix::fs::chown(place.path("store/relay.redb"), Some(12_345), None).unwrap();
    assert!(place.refused("store", &["backup"], "b").contains("is not the owner of the store"));
}

#[test]
fn a_relay_that_was_killed_leaves_no_socket_in_the_way() {
    let place = Place::filled();
    let mut relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    relay.kill().unwrap();
    assert!(place.path("store/control.sock").exists());
    let _relay = Process::start_on(crate::PROGRAM, place.0.path(), &[]).unwrap();
    place.done("store", &["backup"], "b");
}

#[test]
fn where_no_socket_fits_the_relay_serves_all_the_same() {
    let place = Place::new();
    // Longer than the address of a socket can be.
    let long = "d".repeat(120);
    std::fs::create_dir(place.path(&long)).unwrap();
    let relay = Process::start_on(crate::PROGRAM, &place.path(&long), &[]).unwrap();
    assert_eq!(relay.connect().unwrap().get("/health").unwrap().status, 200);
    let told = place.refused(&format!("{long}/store"), &["backup"], "b");
    assert!(told.contains("is in use by a relay that cannot be asked for a backup"), "{told}");
}
