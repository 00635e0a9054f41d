//! Measures batches of pushes: beside single pushes, and beside a pipeline of appends in Redis.

use crate::load::{ItemIds, PushBatches, run};

use super::Lab;
use super::figure::{Bar, Section, median};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::redis;
use super::relay::Settings;

/// How many items a batch and a pipeline have.
const BATCH_ITEMS: usize = 100;

/// How many connections send batches.
const BATCH_CONNECTIONS: usize = 16;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Batches",
        "Batches of 100 items of 1 KiB for random ones of 100,000 recipients over 16 connections, beside \
         single pushes over 64 connections, and beside appends to Redis Streams (appendfsync always) in \
         pipelines of 100 over 16 connections. Each run has a new process and an empty store. Runs alternate, \
         and medians are compared.",
    );
    let (mut single, mut batch, mut redis) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut generator_cpu) = (Vec::new(), Vec::new());
    for _ in 0..lab.at_length(5, 1) {
        single.push(lab.push_into_empty(CONNECTIONS)?.report.rate());
        let relay = lab.relay(Settings::default())?;
        let mut pushes =
            PushBatches::new(ItemIds::new(0, RECIPIENTS), PAYLOAD_BYTES, BATCH_ITEMS as u64, 0..u64::MAX);
        let before = relay.server.cpu()?;
        let report = run(&mut pushes, &lab.short_plan(relay.server.address, BATCH_CONNECTIONS))?;
        section.note_failures("batches", &report);
        let items = report.rate() * BATCH_ITEMS as f64;
        let per_item =
            |time: std::time::Duration| time.as_secs_f64() * 1e6 / items / report.elapsed.as_secs_f64();
        cpu.push(per_item(relay.server.cpu()?.saturating_sub(before)));
        generator_cpu.push(per_item(report.cpu));
        batch.push(items);
        drop(relay);
        let requests = lab.at_length(2_000_000, 20_000);
        redis.extend(redis::pipelined_append_rate(lab, BATCH_CONNECTIONS, BATCH_ITEMS, requests)?);
    }
    section.add("single pushes, 64 connections", median(&single), "/s", Bar::None);
    section.add("items in batches, 16 connections", median(&batch), "/s", Bar::None);
    section.add("CPU time of an item, relay", median(&cpu), "µs", Bar::None);
    section.add("CPU time of an item, load generator", median(&generator_cpu), "µs", Bar::None);
    section.add("batches / single", median(&batch) / median(&single), "", Bar::AtLeast(2.4));
    if redis.is_empty() {
        section.note("Redis: skipped: redis-server not found.".to_owned());
    } else {
        section.add("Redis Streams, pipelines of 100, 16 connections", median(&redis), "/s", Bar::None);
        section.add("batches / Redis", median(&batch) / median(&redis), "", Bar::AtLeast(0.8));
    }
    Ok(section)
}
