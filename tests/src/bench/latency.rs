//! How long a push takes while there is room: at half of the highest rate, with sweeps under way.

use std::time::Duration;

use crate::load::{Kind, Names, Pace, Plan, Push, Stop, run};

use super::Lab;
use super::disk;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::relay::Settings;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let rate = lab.push_rate()? / 2.0;
    let seconds = lab.at_length(60, 5);
    let settings = Settings {
        ttl_seconds: lab.at_length(20, 2),
        gc_interval_seconds: lab.at_length(5, 1),
        ..Settings::default()
    };
    let mut section = Section::new(
        "Latency",
        format!(
            "Pushes of 1 KiB for {seconds} s at half of the highest rate, {} (open loop, 64 connections: latencies count \
             from when a push was due, so that stalls show). Items live for {} s and a sweep runs every {} s.",
            quantity(rate, "/s"),
            settings.ttl_seconds,
            settings.gc_interval_seconds
        ),
    );
    let sync_ms = disk::batch_syncs(lab)?.median.as_secs_f64() * 1000.0;
    let relay = lab.relay(settings)?;
    let mut push = Push::new(Names::new(0, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX);
    let stop = Stop { time: Some(Duration::from_secs(seconds)), ..Stop::default() };
    let plan =
        Plan { address: relay.server.address, connections: CONNECTIONS, pace: Pace::PerSecond(rate), stop };
    let report = run(&mut push, &plan)?;
    let pushes = report.of(Kind::Push);
    section.watch("open loop", &report);
    section.add("fdatasync of 64 KiB, median", sync_ms, "ms", Bar::None);
    section.add("pushes", report.rate(), "/s", Bar::None);
    section.add("p50", pushes.latency_ms(0.5), "ms", Bar::Below(5.0 * sync_ms));
    section.add("p99", pushes.latency_ms(0.99), "ms", Bar::Below(40.0 * sync_ms));
    section.add("p99.9", pushes.latency_ms(0.999), "ms", Bar::None);
    section.add("max", pushes.latency_ms(1.0), "ms", Bar::Below(100.0));
    Ok(section)
}
