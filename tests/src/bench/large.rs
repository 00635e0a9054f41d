//! Measures pushes of the largest size, and small pushes beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::load::{ItemIds, Kind, Pace, Plan, Push, Report, Stop, run};

use super::Lab;
use super::disk;
use super::figure::{Bar, Section, median};
use super::lab::{PAYLOAD_BYTES, RECIPIENTS};
use super::relay::Settings;

const LARGE_BYTES: usize = 8 * 1024 * 1024;
const LARGE_CONNECTIONS: usize = 4;
const SMALL_CONNECTIONS: usize = 16;
const SMALL_PER_SECOND: f64 = 500.0;
const MB: f64 = 1e6;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "Large pushes",
        "Payloads of 8 MiB over 4 connections, closed loop, alternating with the disk alone (writes of 8 MiB, each synced). \
         Then the same beside 500 pushes of 1 KiB a second (open loop, 16 connections).",
    );
    let (mut relay, mut disk) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        disk.push(disk::sequential_rate(lab)?);
        let fresh = lab.relay(Settings::default())?;
        let report = push_large(&lab.short_plan(fresh.server.address, LARGE_CONNECTIONS))?;
        section.note_failures("8 MiB", &report);
        relay.push(report.item_rate() * LARGE_BYTES as f64);
    }
    section.add("disk alone", median(&disk) / MB, "MB/s", Bar::None);
    section.add("relay, payload", median(&relay) / MB, "MB/s", Bar::None);
    section.add("relay / disk", median(&relay) / median(&disk), "", Bar::AtLeast(0.25));

    let small = push_small_beside_large(lab, &mut section)?.tally(Kind::Push);
    section.add("pushes of 1 KiB beside them, p50", small.latency_ms(0.5), "ms", Bar::None);
    section.add("pushes of 1 KiB beside them, p99", small.latency_ms(0.99), "ms", Bar::Below(50.0));
    Ok(section)
}

fn push_large(plan: &Plan) -> std::io::Result<Report> {
    run(&mut Push::new(ItemIds::new(1, RECIPIENTS), LARGE_BYTES, 0..u64::MAX), plan)
}

fn push_small_beside_large(lab: &Lab, section: &mut Section) -> anyhow::Result<Report> {
    let relay = lab.relay(Settings::default())?;
    let address = relay.server.address;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut large_plan = lab.short_plan(address, LARGE_CONNECTIONS);
    large_plan.stop = Stop { flag: Some(Arc::clone(&is_over)), ..Stop::default() };
    let (small, large) = std::thread::scope(|scope| {
        let large = scope.spawn(|| push_large(&large_plan));
        let time = Some(Duration::from_secs(lab.at_length(20, 2)));
        let plan = Plan {
            address,
            connections: SMALL_CONNECTIONS,
            pace: Pace::PerSecond(SMALL_PER_SECOND),
            stop: Stop { time, ..Stop::default() },
        };
        let small = run(&mut Push::new(ItemIds::new(2, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX), &plan);
        is_over.store(true, Ordering::Relaxed);
        (small, large.join())
    });
    let large = large.map_err(|_| anyhow::anyhow!("the thread of the large pushes panicked"))??;
    section.note_failures("8 MiB beside small ones", &large);
    section.add(
        "8 MiB beside small ones, payload",
        large.item_rate() * LARGE_BYTES as f64 / MB,
        "MB/s",
        Bar::None,
    );
    let small = small?;
    section.note_failures("small ones beside 8 MiB", &small);
    Ok(small)
}
