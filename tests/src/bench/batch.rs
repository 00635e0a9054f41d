//! Measures batches of pushes: beside single pushes, beside a pipeline of appends in Redis, and in
//! CBOR beside JSON. Then pushes and pulls of the largest size in both formats.

use std::time::Duration;

use crate::load::{Format, ItemIds, PushBatches, run};

use super::Lab;
use super::cbor;
use super::figure::{Bar, Section, median};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::redis;
use super::relay::Settings;

/// How many items a batch and a pipeline have.
const BATCH_ITEMS: usize = 100;

/// How many connections send batches.
const BATCH_CONNECTIONS: usize = 16;

/// The runs in one format: items a second, and the CPU time of an item.
#[derive(Default)]
struct Batches {
    rates: Vec<f64>,
    cpu: Vec<f64>,
    generator_cpu: Vec<f64>,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Batches",
        "Batches of 100 items of 1 KiB for random ones of 100,000 recipients over 16 connections, beside \
         single pushes over 64 connections, beside the same batches in CBOR, and beside appends to Redis Streams (appendfsync always) in \
         pipelines of 100 over 16 connections. Each run has a new process and an empty store. Runs alternate, \
         and medians are compared.",
    );
    let (mut single, mut in_json, mut in_cbor) = (Vec::new(), Batches::default(), Batches::default());
    let mut redis = Vec::new();
    for _ in 0..lab.at_length(5, 1) {
        single.push(lab.push_into_empty(CONNECTIONS)?.report.rate());
        in_json.measure(lab, Format::Json, &mut section)?;
        in_cbor.measure(lab, Format::Cbor, &mut section)?;
        let requests = lab.at_length(2_000_000, 20_000);
        redis.extend(redis::pipelined_append_rate(lab, BATCH_CONNECTIONS, BATCH_ITEMS, requests)?);
    }
    let batch = &in_json.rates;
    section.add("single pushes, 64 connections", median(&single), "/s", Bar::None);
    for (name, batches) in [("JSON", &in_json), ("CBOR", &in_cbor)] {
        section.add(format!("items in batches, {name}"), median(&batches.rates), "/s", Bar::None);
        section.add(format!("CPU time of an item, relay, {name}"), median(&batches.cpu), "µs", Bar::None);
        let generator_cpu = median(&batches.generator_cpu);
        section.add(format!("CPU time of an item, load generator, {name}"), generator_cpu, "µs", Bar::None);
    }
    section.add("batches / single", median(batch) / median(&single), "", Bar::AtLeast(2.4));
    section.add("CBOR / JSON", cbor::ratio(&in_cbor.rates, batch), "", Bar::AtLeast(1.15));
    if redis.is_empty() {
        section.note("Redis: skipped: redis-server not found.".to_owned());
    } else {
        section.add("Redis Streams, pipelines of 100, 16 connections", median(&redis), "/s", Bar::None);
        section.add("batches / Redis", median(batch) / median(&redis), "", Bar::AtLeast(0.8));
    }
    cbor::measure_large(lab, &mut section)?;
    Ok(section)
}

impl Batches {
    /// One run into an empty store.
    fn measure(&mut self, lab: &Lab, format: Format, section: &mut Section) -> anyhow::Result<()> {
        let relay = lab.relay(Settings::default())?;
        let ids = ItemIds::new(0, RECIPIENTS);
        let mut pushes = PushBatches::new(format, ids, PAYLOAD_BYTES, BATCH_ITEMS as u64, 0..u64::MAX);
        let before = relay.server.cpu()?;
        let report = run(&mut pushes, &lab.short_plan(relay.server.address, BATCH_CONNECTIONS))?;
        section.note_failures("batches", &report);
        let items = report.rate() * BATCH_ITEMS as f64;
        let per_item = |time: Duration| time.as_secs_f64() * 1e6 / items / report.elapsed.as_secs_f64();
        self.cpu.push(per_item(relay.server.cpu()?.saturating_sub(before)));
        self.generator_cpu.push(per_item(report.cpu));
        self.rates.push(items);
        Ok(())
    }
}
