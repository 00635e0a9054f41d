//! Measures pushes and pulls of the largest payloads, in CBOR beside JSON.

use std::net::SocketAddr;

use crate::client::Client;
use crate::load::{Format, ItemIds, Page, Pull, Push, Recipients, run, walk};

use super::Lab;
use super::figure::{Bar, Section, median};
use super::relay::Settings;

/// The largest payload, as configured.
const LARGE_BYTES: usize = 8 * 1024 * 1024;

const LARGE_CONNECTIONS: usize = 4;

/// How many items the pulls read, one on a page.
const LARGE_ITEMS: u64 = 16;

const MB: f64 = 1e6;

/// The median of the ratios of runs that followed each other.
pub(super) fn ratio(one: &[f64], other: &[f64]) -> f64 {
    let ratios: Vec<_> = one.iter().zip(other).map(|(one, other)| one / other).collect();
    median(&ratios)
}

/// Bytes of payload a second, of the runs in one format.
#[derive(Default)]
struct Rates {
    pushed: Vec<f64>,
    pulled: Vec<f64>,
    /// Of an item that is pushed and then pulled.
    both: Vec<f64>,
}

impl Rates {
    fn measure(&mut self, lab: &Lab, format: Format, section: &mut Section) -> anyhow::Result<()> {
        let relay = lab.relay(Settings::default())?;
        let plan = lab.short_plan(relay.server.address, LARGE_CONNECTIONS);
        let report = run(&mut Push::of(format, ItemIds::new(1, 1000), LARGE_BYTES, 0..u64::MAX), &plan)?;
        section.note_failures("pushes of 8 MiB", &report);
        let pushed = report.item_rate() * LARGE_BYTES as f64;
        let pages = pages(relay.server.address, format, lab)?;
        let report = run(&mut Pull::new(pages), &plan)?;
        section.note_failures("pulls of 8 MiB", &report);
        let pulled = report.item_rate() * LARGE_BYTES as f64;
        self.pushed.push(pushed);
        self.pulled.push(pulled);
        self.both.push(2.0 / (1.0 / pushed + 1.0 / pulled));
        Ok(())
    }
}

/// Pushes large items to one queue, and returns its pages in this format.
fn pages(address: SocketAddr, format: Format, lab: &Lab) -> anyhow::Result<Vec<Page>> {
    let ids = ItemIds::new(2, 1);
    run(&mut Push::of(format, ids, LARGE_BYTES, 0..LARGE_ITEMS), &lab.short_plan(address, 1))?;
    let mut client = Client::connect(&address.to_string())?;
    let pages = walk(&mut client, &Recipients::computed(1), 0, usize::MAX, |_| {})?;
    match format {
        Format::Json => Ok(pages),
        Format::Cbor => pages.into_iter().map(|page| in_cbor(&mut client, page)).collect(),
    }
}

/// The same page as CBOR.
fn in_cbor(client: &mut Client, page: Page) -> anyhow::Result<Page> {
    const ACCEPT: &[u8] = b"accept: application/cbor\r\n";
    let line = page.request.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (first, rest) = page.request.split_at(line);
    let request = [first, ACCEPT, rest].concat();
    client.send(&request)?;
    let body_bytes = client.receive()?.body.len() as u64;
    Ok(Page { request: request.into(), body_bytes, items: page.items })
}

/// Adds the figures of payloads of 8 MiB.
pub(super) fn measure_large(lab: &Lab, section: &mut Section) -> anyhow::Result<()> {
    let (mut in_json, mut in_cbor) = (Rates::default(), Rates::default());
    for _ in 0..lab.at_length(5, 1) {
        in_json.measure(lab, Format::Json, section)?;
        in_cbor.measure(lab, Format::Cbor, section)?;
    }
    section.note(
        "Payloads of 8 MiB: pushes over 4 connections into an empty store, then pulls of pages with one item \
         over 4 connections, each for 10 s. Bytes of payload a second; \"both\" is the rate of an item that is \
         pushed and then pulled.",
    );
    for (name, rates) in [("JSON", &in_json), ("CBOR", &in_cbor)] {
        section.add(format!("8 MiB, pushed, {name}"), median(&rates.pushed) / MB, "MB/s", Bar::None);
        section.add(format!("8 MiB, pulled, {name}"), median(&rates.pulled) / MB, "MB/s", Bar::None);
    }
    section.add("8 MiB, pushed, CBOR / JSON", ratio(&in_cbor.pushed, &in_json.pushed), "", Bar::None);
    section.add("8 MiB, pulled, CBOR / JSON", ratio(&in_cbor.pulled, &in_json.pulled), "", Bar::None);
    section.add("8 MiB, both, CBOR / JSON", ratio(&in_cbor.both, &in_json.both), "", Bar::AtLeast(1.5));
    Ok(())
}
