//! How many bytes reach the disk for each byte of payload, while pushes and acks keep the store at one size.

use std::thread::sleep;
use std::time::Duration;

use crate::load::{Mixed, Names};

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{Relay, Settings};

const LARGER_BYTES: usize = 64 * 1024;
const BATCH: usize = 100;

/// How often it is looked whether the process still writes, and how often at most.
const LOOK: Duration = Duration::from_secs(3);
const LOOKS_MAX: usize = 40;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let (small, larger) = (lab.at_length(400_000, 4000), lab.at_length(20_000, 200));
    let mut section = Section::new(
        "Bytes written",
        format!(
            "write_bytes of the process, from an empty store until it writes no more, by the bytes of all payloads: {} items of \
             1 KiB and {} of 64 KiB to random ones of 100,000 recipients, each acked when a tenth as many more were pushed.",
            quantity(small as f64, ""),
            quantity(larger as f64, "")
        ),
    );
    let ratio = written(lab, PAYLOAD_BYTES, small, &mut section)?;
    section.add("written / payload, 1 KiB", ratio, "", Bar::Below(1.7));
    let ratio = written(lab, LARGER_BYTES, larger, &mut section)?;
    section.add("written / payload, 64 KiB", ratio, "", Bar::Below(1.1));
    Ok(section)
}

fn written(lab: &Lab, payload_bytes: usize, items: u64, section: &mut Section) -> anyhow::Result<f64> {
    let relay = lab.relay(Settings::default())?;
    let before = relay.server.written_bytes()?;
    let mut mixed = Mixed::new(Names::new(1, RECIPIENTS), payload_bytes, 0..items, items / 10, BATCH);
    let report = run_to_end(&mut mixed, relay.server.address, CONNECTIONS)?;
    section.watch("pushes and acks", &report);
    let written = written_when_quiet(lab, &relay)? - before;
    Ok(written as f64 / (items * payload_bytes as u64) as f64)
}

fn written_when_quiet(lab: &Lab, relay: &Relay) -> std::io::Result<u64> {
    let mut written = relay.server.written_bytes()?;
    for _ in 0..LOOKS_MAX {
        sleep(lab.at_length(LOOK, LOOK / 6));
        let now = relay.server.written_bytes()?;
        if now == written {
            break;
        }
        written = now;
    }
    Ok(written)
}
