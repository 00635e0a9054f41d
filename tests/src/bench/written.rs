//! Measures bytes written to disk per byte of payload, while pushes and acks keep the store at one
//! size.

use crate::load::{ItemIds, Kind, Mixed, Pace, Plan, Stop, run};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::relay::Settings;

const LARGER_BYTES: usize = 64 * 1024;
const BATCH: usize = 100;

/// The number of requests for one payload size: pushes and nearly as many acks, since few
/// recipients have two items that are due.
struct Phase {
    payload_bytes: usize,
    /// Requests until nearly all recipients exist and acks have been running for long.
    warm_up: u64,
    /// Requests that count. They span many checkpoints, so it hardly matters where between two of
    /// them counting begins and ends.
    counted: u64,
    /// How many further items are pushed before one is acked.
    lag: u64,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let small = Phase {
        payload_bytes: PAYLOAD_BYTES,
        warm_up: lab.at_length(600_000, 4000),
        counted: lab.at_length(1_200_000, 4000),
        lag: lab.at_length(40_000, 400),
    };
    let larger = Phase {
        payload_bytes: LARGER_BYTES,
        warm_up: lab.at_length(10_000, 200),
        counted: lab.at_length(40_000, 200),
        lag: lab.at_length(2000, 20),
    };
    let mut section = Section::new(
        "Bytes written",
        format!(
            "write_bytes of the process by the bytes of the payloads, at a steady state: items to random ones of 100,000 recipients, \
             each acked when {} more were pushed ({} at 64 KiB). Counted over {} requests ({}) after {} ({}).",
            quantity(small.lag as f64, ""),
            quantity(larger.lag as f64, ""),
            quantity(small.counted as f64, ""),
            quantity(larger.counted as f64, ""),
            quantity(small.warm_up as f64, ""),
            quantity(larger.warm_up as f64, ""),
        ),
    );
    let ratio = written(lab, &small, &mut section)?;
    section.add("written / payload, 1 KiB", ratio, "", Bar::Below(1.7));
    let ratio = written(lab, &larger, &mut section)?;
    section.add("written / payload, 64 KiB", ratio, "", Bar::Below(1.1));
    Ok(section)
}

fn written(lab: &Lab, phase: &Phase, section: &mut Section) -> anyhow::Result<f64> {
    let relay = lab.relay(Settings::default())?;
    let mut mixed =
        Mixed::new(ItemIds::new(1, RECIPIENTS), phase.payload_bytes, 0..u64::MAX / 2, phase.lag, BATCH);
    let mut requests = |count| {
        let stop = Stop { requests: Some(count), ..Stop::default() };
        let plan = Plan { address: relay.server.address, connections: CONNECTIONS, pace: Pace::Closed, stop };
        run(&mut mixed, &plan)
    };
    requests(phase.warm_up)?;
    let before = relay.server.written_bytes()?;
    let report = requests(phase.counted)?;
    let written = relay.server.written_bytes()? - before;
    section.note_failures("pushes and acks", &report);
    Ok(written as f64 / (report.tally(Kind::Push).items * phase.payload_bytes as u64) as f64)
}
