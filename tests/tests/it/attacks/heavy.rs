//! Floods over HTTP/2 against the program as it is shipped: it stays within the memory that is
//! promised, and others are served.

use std::io;
use std::time::Duration;

use relay_tests::at_length;

use super::http2::{self, Connection, DATA, INITIAL_WINDOW, RST_STREAM};
use super::{Target, within};
use crate::stopwatch::Stopwatch;

/// The bound that is promised for the configuration as it is shipped.
const MEMORY_BYTES_MAX: u64 = 600 * 1024 * 1024;

/// As many of one connection as there may be at once.
const STREAMS: u32 = 128;

/// As many of one address.
const OF_ADDRESS: f64 = 1280.0;

/// Each attack comes from an address of its own.
const fn attacker(number: u8) -> [u8; 4] {
    [127, 0, 1, number]
}

const VICTIM: [u8; 4] = [127, 0, 2, 1];

fn assert_serves(target: &Target, what: &str) {
    let watch = Stopwatch::start();
    let mut connection = target.http2_from(VICTIM, &[]).unwrap();
    connection.send(&http2::pull(1, "nobody")).unwrap();
    assert!(connection.body(1).unwrap().is_some(), "{what}");
    assert!(watch.elapsed() < Duration::from_secs(5), "{what}: another waits for {:?}", watch.elapsed());
}

/// Sends these frames, a few at a time, as long as the other side takes them. Tells how many it
/// took.
fn pour(connection: &mut Connection, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let mut frames = frames.peekable();
    let mut sent = 0;
    while frames.peek().is_some() {
        let piece: Vec<Vec<u8>> = frames.by_ref().take(20).collect();
        if connection.send(&piece.concat()).is_err() {
            break;
        }
        sent += piece.len();
    }
    sent
}

fn report(target: &Target, what: &str, sent: usize, cpu: Duration) {
    let (most, now) = (target.memory_bytes_max(), target.memory_bytes());
    let cpu = target.cpu_time().saturating_sub(cpu);
    let told = format!(
        "{what}: {sent} sent; {} MiB of memory at most, {} MiB now; {cpu:?} of CPU; {} in flight on {} connections",
        most >> 20,
        now >> 20,
        target.requests(),
        target.metric("relay_connections")
    );
    println!("{told}");
    assert!(most < MEMORY_BYTES_MAX, "{told}");
    assert!(target.requests() <= OF_ADDRESS + 10.0, "{told}");
    assert_serves(target, &told);
}

/// What is there once everybody has gone.
fn assert_all_gone(target: &Target) {
    let is_gone = || {
        target.requests() == 0.0
            && target.metric("relay_connections") == 0.0
            && target.inflight_bytes() == 0.0
    };
    let gone = within(Duration::from_secs(60), is_gone);
    assert!(gone.is_some(), "{} requests, {} bytes are left", target.requests(), target.inflight_bytes());
}

#[test]
fn requests_without_bodies_on_one_connection_and_on_fifty() {
    let target = Target::tls("");
    let requests = at_length(220_000, 220_000);
    let cpu = target.cpu_time();
    let mut connection = target.http2_from(attacker(1), &[(INITIAL_WINDOW, 0)]).unwrap();
    let sent = pour(&mut connection, (0..requests).map(|number| http2::begun(2 * number + 1, &[])));
    let end = connection.goodbye();
    report(&target, "requests without bodies on one connection", sent, cpu);
    assert!(end.is_ok(), "the connection is given up");
    assert!((sent as u64) < u64::from(requests), "the relay takes all of them");

    let cpu = target.cpu_time();
    let mut connections: Vec<_> =
        (0..50).filter_map(|_| target.http2_from(attacker(2), &[(INITIAL_WINDOW, 0)]).ok()).collect();
    let each = requests / 50;
    let sent = connections
        .iter_mut()
        .map(|connection| pour(connection, (0..each).map(|number| http2::begun(2 * number + 1, &[]))))
        .sum();
    report(&target, "requests without bodies on fifty connections", sent, cpu);
    drop((connection, connections));
    assert_all_gone(&target);
}

#[test]
fn heads_of_thirty_thousand_fields() {
    let target = Target::tls("");
    // A field of the table that every client knows takes one byte, here and in the second kind one
    // of some KB.
    let (many, some) = (vec![0x90; 30_000], http2::field("x", &"v".repeat(120)).repeat(300));
    for (number, what, fields) in [(3, "heads of 30,000 fields", &many), (4, "heads of 40 KB", &some)] {
        let cpu = target.cpu_time();
        let (mut connections, mut sent) = (Vec::new(), 0);
        for _ in 0..at_length(400, 50) {
            if let Ok(mut connection) = target.http2_from(attacker(number), &[(INITIAL_WINDOW, 0)]) {
                sent += pour(&mut connection, (0..200).map(|number| http2::long(2 * number + 1, fields)));
                connections.push(connection);
            }
        }
        report(&target, what, sent, cpu);
    }
    assert_all_gone(&target);
}

#[test]
fn the_largest_pages_behind_windows_of_nothing() {
    let target = Target::tls("");
    assert_eq!(target.push_page_over_tls(), 200);
    let cpu = target.cpu_time();
    let mut connections: Vec<_> = (0..20)
        .filter_map(|number| target.http2_from(attacker(4 + number % 4), &[(INITIAL_WINDOW, 0)]).ok())
        .collect();
    for connection in &mut connections {
        let pulls: Vec<u8> = (0..20).flat_map(|number| http2::pull(2 * number + 1, "alice")).collect();
        connection.send(&pulls).unwrap();
    }
    let sent = connections.len() * 20;
    let is_full = within(Duration::from_secs(20), || target.inflight_bytes() > 100e6);
    assert!(is_full.is_some(), "{} bytes are held", target.inflight_bytes());
    report(&target, "pages behind windows of nothing", sent, cpu);
    // They hold their connections, and get nothing by it.
    let given_up = within(Duration::from_secs(40), || target.inflight_bytes() == 0.0);
    println!("given up after {given_up:?}");
    assert!(given_up.is_some(), "{} bytes are held", target.inflight_bytes());
    drop(connections);
    assert_all_gone(&target);
}

/// As many connections as an address may have, and on each as many requests as there may be, whose
/// answers nobody takes.
#[test]
fn one_address_parks_all_the_streams_that_it_can() {
    let connections = at_length(400, 100);
    let target = Target::tls(
        "rate_limit.per_ip_rps = 100000\nrate_limit.burst = 100000\nrate_limit.endpoints.push_rps = 100000\n",
    );
    let fill: Vec<u8> = (0..STREAMS).flat_map(|number| http2::begun(2 * number + 1, &[])).collect();
    let large: Vec<u8> = (0..80).flat_map(|_| http2::field("x", &"v".repeat(120))).collect();
    let fill_large: Vec<u8> = (0..STREAMS).flat_map(|number| http2::begun(2 * number + 1, &large)).collect();
    // What fits into the room of an address.
    for (number, what, frames, at_least) in
        [(20, "small heads", &fill, OF_ADDRESS), (21, "large heads", &fill_large, 350.0)]
    {
        let mut open: Vec<_> = (0..connections)
            .map(|_| target.http2_from(attacker(number), &[(INITIAL_WINDOW, 0)]).unwrap())
            .collect();
        assert!(
            within(Duration::from_secs(20), || target.metric("relay_connections") >= f64::from(connections))
                .is_some()
        );
        let before = target.memory_bytes();
        let refused =
            open.iter_mut().map(|connection| connection.send(frames)).filter(Result::is_err).count();
        let parked = within(Duration::from_secs(20), || target.requests() >= at_least);
        let (requests, after) = (target.requests(), target.memory_bytes());
        let more_kib = f64::from(u32::try_from(after.saturating_sub(before) >> 10).unwrap());
        let told = format!(
            "{what}: {requests} of {} requests are parked on {connections} connections ({refused} closed, {parked:?}), with {more_kib} KiB \
             more memory, which is {:.1} KiB each",
            connections * STREAMS,
            more_kib / requests.max(1.0),
        );
        println!("{told}");
        assert!(parked.is_some() && requests <= OF_ADDRESS, "{told}");
        assert!(after.saturating_sub(before) < 40 << 20, "{told}");
        assert_serves(&target, &told);
        drop(open);
        assert_all_gone(&target);
    }
    println!("{} MiB at most", target.memory_bytes_max() >> 20);
    assert!(target.memory_bytes_max() < MEMORY_BYTES_MAX);
}

/// A client that takes its page at 64 KiB a second is none that holds it.
#[test]
fn who_takes_64_kib_a_second_gets_the_largest_page() -> io::Result<()> {
    const A_SECOND: usize = 64 * 1024;
    if !relay_tests::run_slow_tests() {
        return Ok(());
    }
    let target = Target::tls("");
    assert_eq!(target.push_page_over_tls(), 200);
    let mut connection = target.http2_from(VICTIM, &[(INITIAL_WINDOW, 16 * 1024)])?;
    connection.send(&http2::pull(1, "alice"))?;
    let watch = Stopwatch::start();
    let mut taken = 0;
    loop {
        let frame = connection.read()?;
        assert_ne!(frame.kind, RST_STREAM, "given up after {:?} and {taken} bytes", watch.elapsed());
        if frame.kind != DATA {
            continue;
        }
        taken += frame.payload.len();
        if frame.flags & 1 != 0 {
            break;
        }
        let due = Duration::from_secs_f64(taken as f64 / A_SECOND as f64);
        std::thread::sleep(due.saturating_sub(watch.elapsed()));
        let more = u32::try_from(frame.payload.len()).map_err(io::Error::other)?;
        connection.send(&[http2::window(0, more), http2::window(1, more)].concat())?;
    }
    println!("{taken} bytes in {:?}", watch.elapsed());
    assert!(taken > 9 * 1024 * 1024);
    Ok(())
}
