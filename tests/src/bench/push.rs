//! Measures pushes a second, beside HTTP without a store, Redis, and the disk alone.

use super::Lab;
use super::disk;
use super::figure::{Bar, Section, median};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX};
use super::redis;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Push",
        "Payloads of 1 KiB to random ones of 100,000 recipients, each answered when it is on disk; closed loop. \
         Each run has a new process and an empty store. Runs of the relay and of its peers alternate, and \
         medians are compared. Floor: the same HTTP server over a store that does nothing.",
    );
    beside_floor_and_redis(lab, &mut section)?;
    many_connections(lab, &mut section)?;
    one_connection(lab, &mut section)?;
    Ok(section)
}

fn beside_floor_and_redis(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let (mut floor, mut relay, mut redis) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu, mut generator_cpu) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        floor.push(lab.push_onto_floor(CONNECTIONS)?.report.rate());
        let measured = lab.push_into_empty(CONNECTIONS)?;
        section.note_failures("64 connections", &measured.report);
        relay.push(measured.report.rate());
        let [server_us, generator_us] = measured.cpu_us();
        cpu.push(server_us);
        generator_cpu.push(generator_us);
        redis.extend(redis_rate(lab, CONNECTIONS)?);
    }
    let rate = lab.note_push_rates(&relay);
    section.add("floor, 64 connections", median(&floor), "/s", Bar::None);
    section.add("relay, 64 connections", rate, "/s", Bar::None);
    section.add("relay / floor", rate / median(&floor), "", Bar::AtLeast(0.45));
    section.add("CPU time of a push, relay", median(&cpu), "µs", Bar::None);
    section.add("CPU time of a push, load generator", median(&generator_cpu), "µs", Bar::None);
    add_redis(section, "64", rate, &redis, 1.2);
    Ok(())
}

fn many_connections(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let (mut relay, mut redis) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        let report = lab.push_into_empty(CONNECTIONS_MAX)?.report;
        section.note_failures("256 connections", &report);
        relay.push(report.rate());
        redis.extend(redis_rate(lab, CONNECTIONS_MAX)?);
    }
    section.add("relay, 256 connections", median(&relay), "/s", Bar::None);
    add_redis(section, "256", median(&relay), &redis, 1.0);
    Ok(())
}

fn one_connection(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let (mut relay, mut disk) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        disk.push(1.0 / disk::push_syncs(lab)?.median.as_secs_f64());
        relay.push(lab.push_into_empty(1)?.report.rate());
    }
    section.add("appends of 1.2 KB with fdatasync, one after the other", median(&disk), "/s", Bar::None);
    section.add("relay, 1 connection", median(&relay), "/s", Bar::None);
    section.add("relay / appends", median(&relay) / median(&disk), "", Bar::AtLeast(0.5));
    Ok(())
}

fn redis_rate(lab: &Lab, connections: usize) -> anyhow::Result<Option<f64>> {
    redis::append_rate(lab, connections, lab.at_length(200_000, 10_000))
}

fn add_redis(section: &mut Section, connections: &str, relay: f64, rates: &[f64], bar: f64) {
    if rates.is_empty() {
        section.note(format!("Redis, {connections} connections: skipped: redis-server not found."));
        return;
    }
    section.add(format!("Redis Streams, {connections} connections"), median(rates), "/s", Bar::None);
    section.add("relay / Redis", relay / median(rates), "", Bar::AtLeast(bar));
}
