//! Measures rate, memory and restart of a store that has grown.

use std::net::SocketAddr;

use anyhow::ensure;

use crate::client::{Client, push_body};
use crate::load::{ItemIds, Push, now, run};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{CACHE_BYTES, Settings};

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let items = lab.at_length(2_000_000, 20_000);
    let mut section = Section::new(
        "Growth",
        format!(
            "The queues of 100,000 recipients hold {} items of 1 KiB. Pushes into this store and into an empty one take \
             turns (64 connections). Then the process is killed and started again.",
            quantity(items as f64, "")
        ),
    );
    let mut relay = lab.relay(Settings::default())?;
    let ids = ItemIds::new(1, RECIPIENTS);
    let fill = run_to_end(
        &mut Push::new(ids.clone(), PAYLOAD_BYTES, 0..items),
        relay.server.address,
        CONNECTIONS_MAX,
    )?;
    section.note_failures("fill", &fill);
    let mut push = Push::new(ids, PAYLOAD_BYTES, items..u64::MAX);
    let (mut full, mut empty) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        empty.push(lab.push_into_empty(CONNECTIONS)?.report.rate());
        full.push(run(&mut push, &lab.short_plan(relay.server.address, CONNECTIONS))?.rate());
    }
    section.add("filling it, 256 connections", fill.rate(), "/s", Bar::None);
    section.add("empty store", median(&empty), "/s", Bar::None);
    section.add("full store", median(&full), "/s", Bar::None);
    section.add("full / empty", median(&full) / median(&empty), "", Bar::AtLeast(0.75));
    let memory = relay.server.memory()?;
    section.add("resident memory", memory.resident as f64 / MIB, "MiB", Bar::None);
    let memory_max = 256.0 + CACHE_BYTES as f64 / MIB;
    section.add("its high-water mark", memory.peak as f64 / MIB, "MiB", Bar::Below(memory_max));
    section.add("files", relay.disk_usage()?.total_bytes() as f64 / MIB, "MiB", Bar::None);

    relay.server.kill()?;
    let start = now();
    relay.start_again(Settings::default())?;
    push_one(relay.server.address)?;
    let seconds = (now() - start).as_secs_f64();
    section.add("kill -9, start, first push answered", seconds, "s", Bar::Below(1.0));
    Ok(section)
}

fn push_one(address: SocketAddr) -> anyhow::Result<()> {
    let response =
        Client::connect(&address.to_string())?.post("/push", &push_body("after the crash", 1, b"hello"))?;
    ensure!(response.status == 200, "the first push after the crash got status {}", response.status);
    Ok(())
}
