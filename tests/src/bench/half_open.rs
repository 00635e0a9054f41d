//! Measures what streams cost that nobody reads, and requests for streams that never end: their
//! memory, how fast others are served meanwhile, and when the relay frees their places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::load::{now, post};
use crate::{pull_body, push_body};

use super::Lab;
use super::figure::{Bar, Section};
use super::lab::PAYLOAD_BYTES;
use super::open_files;
use super::probe::Probe;
use super::relay::{BenchRelay, Settings};
use super::statistics::Sample;
use super::subscriber::runtime;

/// More than the system holds for a client without a receive buffer.
const UNREAD_BYTES: usize = 256 * 1024;

/// How long the relay may take to end what a client does not read or complete.
const CUT_TIMEOUT: Duration = Duration::from_secs(120);

/// How many connections come from one address of 127/8.
const CONNECTIONS_PER_ADDRESS: usize = 500;

pub(super) fn measure(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let streams = lab.at_length(10_000, 300).min(open_files::allow(20_000)? * 4 / 5);
    let (heads, unread) = (streams / 10, streams / 20);
    // Streams take fifteen of sixteen connections.
    let connections_max = (streams + heads) as u64 * 2;
    let relay = lab.relay(Settings { connections_max, has_metrics: true, ..Settings::default() })?;
    let runtime = runtime()?;
    add_latencies(lab, section, &relay, "without other clients")?;
    let before = relay.server.memory()?.resident;
    let mut held = Vec::with_capacity(streams + heads);
    for number in 0..streams {
        held.push(stalled(&runtime, relay.server.address, number, &stream_request(number))?);
    }
    await_metric(&relay, "relay_waiting_pulls", streams)?;
    add_memory(section, &relay, before, &format!("{streams} streams that nobody reads"), streams)?;
    add_latencies(lab, section, &relay, "beside them")?;
    let head = b"POST /stream HTTP/1.1\r\nhost: relay\r\ncontent-length: 20\r\n\r\n";
    for number in streams..streams + heads {
        held.push(stalled(&runtime, relay.server.address, number, head)?);
    }
    let start = now();
    let mut sender = Client::connect(&relay.server.address.to_string())?;
    for number in 0..unread {
        let item = push_body(&queue(number), 1, &vec![7; UNREAD_BYTES]);
        ensure!(sender.post("/push", &item)?.status == 200, "a push was refused");
    }
    let what = format!("{heads} requests without a body, and {unread} unread pages of 256 KiB, besides");
    add_memory(section, &relay, before, &what, streams)?;
    add_latencies(lab, section, &relay, "beside all of these")?;
    await_metric(&relay, "relay_requests_in_flight", streams - unread)?;
    await_metric(&relay, "relay_inflight_bytes", 0)?;
    let freed = (now() - start).as_secs_f64();
    section.add("what nobody reads or completes is free after", freed, "s", Bar::AtMost(60.0));
    Ok(())
}

fn queue(number: usize) -> String {
    format!("queue {number}")
}

fn stream_request(number: usize) -> Bytes {
    post("/stream", b"", json!({"recipient": queue(number)}).to_string().as_bytes())
}

/// A client that sends these bytes and reads nothing. It has almost no receive buffer.
fn stalled(
    runtime: &Runtime,
    address: SocketAddr,
    number: usize,
    request: &[u8],
) -> anyhow::Result<TcpStream> {
    let host = u8::try_from(number / CONNECTIONS_PER_ADDRESS % 200)?;
    runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1)?;
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 2, host)), 0))?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(request).await?;
        Ok(stream)
    })
}

fn add_memory(
    section: &mut Section,
    relay: &BenchRelay,
    before: u64,
    what: &str,
    streams: usize,
) -> anyhow::Result<()> {
    let grown = relay.server.memory()?.resident.saturating_sub(before);
    section.add(
        format!("{what}: growth of RSS for each stream"),
        grown as f64 / streams as f64 / 1024.0,
        "KiB",
        Bar::None,
    );
    Ok(())
}

/// Pushes and pulls one after the other, and adds how long each took.
fn add_latencies(lab: &Lab, section: &mut Section, relay: &BenchRelay, beside: &str) -> anyhow::Result<()> {
    let mut probe = Probe::connect(relay.server.address)?;
    let recipient = format!("others {beside}");
    let pull = post("/pull", b"", pull_body(&recipient, None, Some(1)).to_string().as_bytes());
    let mut samples = [Vec::new(), Vec::new()];
    for number in 0..lab.at_length(2_000, 100) {
        let item = push_body(&recipient, number, &vec![7; PAYLOAD_BYTES]).to_string();
        let push = post("/push", b"", item.as_bytes());
        for (request, times) in [&push, &pull].into_iter().zip(&mut samples) {
            let answer = probe.exchange(request)?;
            ensure!(answer.status == 200, "status {} {beside}", answer.status);
            times.push(u64::try_from(answer.time.as_nanos())?);
        }
    }
    for (name, times) in ["push", "pull"].into_iter().zip(samples) {
        let sample = Sample::new(times);
        for (quantile, part, bar) in [("p50", 0.5, Bar::None), ("p99", 0.99, Bar::AtMost(25.0))] {
            section.add(format!("a {name} {beside}: {quantile}"), sample.quantile(part) / 1e6, "ms", bar);
        }
    }
    Ok(())
}

fn await_metric(relay: &BenchRelay, metric: &str, expected: usize) -> anyhow::Result<()> {
    let start = now();
    loop {
        let value = relay.metric(metric)?;
        if value == expected as f64 {
            return Ok(());
        }
        ensure!(now() - start < CUT_TIMEOUT, "{metric} is {value}, and not {expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
