//! HTTP/2 floods against the program with its shipped configuration: it stays within its memory
//! bound, and serves other clients.

use std::io;
use std::time::Duration;

use relay_tests::at_length;

use super::http2::{self, DATA, Http2Connection, INITIAL_WINDOW, RST_STREAM};
use super::{Target, within};
use crate::stopwatch::Stopwatch;

/// The documented bound for the shipped configuration.
const MEMORY_BYTES_MAX: u64 = 600 * 1024 * 1024;

/// The most concurrent streams of one connection.
const STREAMS: u32 = 128;

/// The most concurrent streams of one address.
const STREAMS_OF_ADDRESS: f64 = 1280.0;

/// Each attack comes from its own address.
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

/// Sends these frames, 20 at a time, as long as the relay accepts them. Returns how many were sent.
fn send_until_refused(connection: &mut Http2Connection, frames: impl Iterator<Item = Vec<u8>>) -> usize {
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
    let (max, current) = (target.memory_bytes_max(), target.memory_bytes());
    let cpu = target.cpu_time().saturating_sub(cpu);
    let summary = format!(
        "{what}: {sent} sent; {} MiB of memory at most, {} MiB now; {cpu:?} of CPU; {} in flight on {} connections",
        max >> 20,
        current >> 20,
        target.requests(),
        target.metric("relay_connections")
    );
    println!("{summary}");
    assert!(max < MEMORY_BYTES_MAX, "{summary}");
    assert!(target.requests() <= STREAMS_OF_ADDRESS + 10.0, "{summary}");
    assert_serves(target, &summary);
}

/// Asserts that nothing is held once all clients have disconnected.
fn assert_all_is_released(target: &Target) {
    let is_released = || {
        target.requests() == 0.0
            && target.metric("relay_connections") == 0.0
            && target.inflight_bytes() == 0.0
    };
    let time_until_released = within(Duration::from_secs(60), is_released);
    assert!(
        time_until_released.is_some(),
        "{} requests, {} bytes are left",
        target.requests(),
        target.inflight_bytes()
    );
}

#[test]
fn requests_without_bodies_stay_within_the_memory_bound() {
    let target = Target::tls("");
    let requests = at_length(220_000, 220_000);
    let cpu = target.cpu_time();
    let mut connection = target.http2_from(attacker(1), &[(INITIAL_WINDOW, 0)]).unwrap();
    let sent = send_until_refused(
        &mut connection,
        (0..requests).map(|number| http2::unfinished_push(2 * number + 1, &[])),
    );
    let end = connection.await_goaway();
    report(&target, "requests without bodies on one connection", sent, cpu);
    assert!(end.is_ok(), "the connection is given up");
    assert!((sent as u64) < u64::from(requests), "the relay takes all of them");

    let cpu = target.cpu_time();
    let mut connections: Vec<_> =
        (0..50).filter_map(|_| target.http2_from(attacker(2), &[(INITIAL_WINDOW, 0)]).ok()).collect();
    let each = requests / 50;
    let sent = connections
        .iter_mut()
        .map(|connection| {
            send_until_refused(
                connection,
                (0..each).map(|number| http2::unfinished_push(2 * number + 1, &[])),
            )
        })
        .sum();
    report(&target, "requests without bodies on fifty connections", sent, cpu);
    drop((connection, connections));
    assert_all_is_released(&target);
}

#[test]
fn heads_of_many_fields_stay_within_the_memory_bound() {
    let target = Target::tls("");
    // A field of HPACK's static table takes one byte. The second head has fields of some KB in
    // total.
    let (many_fields, large_fields) = (vec![0x90; 30_000], http2::field("x", &"v".repeat(120)).repeat(300));
    for (number, what, fields) in
        [(3, "heads of 30,000 fields", &many_fields), (4, "heads of 40 KB", &large_fields)]
    {
        let cpu = target.cpu_time();
        let (mut connections, mut sent) = (Vec::new(), 0);
        for _ in 0..at_length(400, 50) {
            if let Ok(mut connection) = target.http2_from(attacker(number), &[(INITIAL_WINDOW, 0)]) {
                sent += send_until_refused(
                    &mut connection,
                    (0..200).map(|number| http2::request_with_long_head(2 * number + 1, fields)),
                );
                connections.push(connection);
            }
        }
        report(&target, what, sent, cpu);
    }
    assert_all_is_released(&target);
}

#[test]
fn pages_behind_zero_windows_are_given_up() {
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
    report(&target, "pages behind zero windows", sent, cpu);
    // The connections stay open, but their pages are given up.
    let given_up = within(Duration::from_secs(40), || target.inflight_bytes() == 0.0);
    println!("given up after {given_up:?}");
    assert!(given_up.is_some(), "{} bytes are held", target.inflight_bytes());
    drop(connections);
    assert_all_is_released(&target);
}

/// Opens as many connections as an address may have, each with as many requests as it may have, and
/// reads no response.
#[test]
fn the_streams_that_one_address_holds_are_bounded() {
    let connections = at_length(400, 100);
    let target = Target::tls(
        "rate_limit.per_ip_rps = 100000\nrate_limit.burst = 100000\nrate_limit.endpoints.push_rps = 100000\n",
    );
    let fill: Vec<u8> = (0..STREAMS).flat_map(|number| http2::unfinished_push(2 * number + 1, &[])).collect();
    let large: Vec<u8> = (0..80).flat_map(|_| http2::field("x", &"v".repeat(120))).collect();
    let fill_large: Vec<u8> =
        (0..STREAMS).flat_map(|number| http2::unfinished_push(2 * number + 1, &large)).collect();
    // The numbers that fit into the share of one address.
    for (number, what, frames, at_least) in
        [(20, "small heads", &fill, STREAMS_OF_ADDRESS), (21, "large heads", &fill_large, 350.0)]
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
        let summary = format!(
            "{what}: {requests} of {} requests are parked on {connections} connections ({refused} closed, {parked:?}), with {more_kib} KiB \
             more memory, which is {:.1} KiB each",
            connections * STREAMS,
            more_kib / requests.max(1.0),
        );
        println!("{summary}");
        assert!(parked.is_some() && requests <= STREAMS_OF_ADDRESS, "{summary}");
        assert!(after.saturating_sub(before) < 40 << 20, "{summary}");
        assert_serves(&target, &summary);
        drop(open);
        assert_all_is_released(&target);
    }
    println!("{} MiB at most", target.memory_bytes_max() >> 20);
    assert!(target.memory_bytes_max() < MEMORY_BYTES_MAX);
}

/// A client that reads a page at 64 KiB a second is not too slow.
#[test]
fn a_client_that_reads_64_kib_a_second_gets_the_largest_page() -> io::Result<()> {
    const BYTES_PER_SECOND: usize = 64 * 1024;
    if !relay_tests::run_slow_tests() {
        return Ok(());
    }
    let target = Target::tls("");
    assert_eq!(target.push_page_over_tls(), 200);
    let mut connection = target.http2_from(VICTIM, &[(INITIAL_WINDOW, 16 * 1024)])?;
    connection.send(&http2::pull(1, "alice"))?;
    let watch = Stopwatch::start();
    let mut received_bytes = 0;
    loop {
        let frame = connection.read()?;
        assert_ne!(frame.kind, RST_STREAM, "given up after {:?} and {received_bytes} bytes", watch.elapsed());
        if frame.kind != DATA {
            continue;
        }
        received_bytes += frame.payload.len();
        if frame.flags & 1 != 0 {
            break;
        }
        let due = Duration::from_secs_f64(received_bytes as f64 / BYTES_PER_SECOND as f64);
        std::thread::sleep(due.saturating_sub(watch.elapsed()));
        let more = u32::try_from(frame.payload.len()).map_err(io::Error::other)?;
        connection.send(&[http2::window(0, more), http2::window(1, more)].concat())?;
    }
    println!("{received_bytes} bytes in {:?}", watch.elapsed());
    assert!(received_bytes > 9 * 1024 * 1024);
    Ok(())
}
