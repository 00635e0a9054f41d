//! Measures how fast full pages are read, and whether the depth of a queue matters.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::client::Client;
use crate::load::{ItemIds, Kind, Page, Pull, Push, Recipients, run, walk};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::floor;
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, run_to_end};
use super::relay::Settings;

/// Items in a full page, as configured.
const PAGE_ITEMS: u64 = 256;

/// Enough to keep all processors busy, since pages are large.
const PULL_CONNECTIONS: usize = 16;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    // 200,000 items, rounded to full pages.
    let items = PAGE_ITEMS * lab.at_length(781, 8);
    let mut section = Section::new(
        "Pull",
        format!(
            "One queue of {} items of 1 KiB, in full pages of 256 along its cursors, {PULL_CONNECTIONS} connections. Beside it, a \
             server that does nothing else answers with the bytes of one page that was encoded before. Then the first and the last page alone, on \
             one connection.",
            quantity(items as f64, "")
        ),
    );
    let relay = lab.relay(Settings::default())?;
    let address = relay.server.address;
    run_to_end(&mut Push::new(ItemIds::new(1, 1), PAYLOAD_BYTES, 0..items), address, CONNECTIONS)?;
    let home = lab.directory()?;
    let body = home.path().join("page.json");
    let mut first_body = Vec::new();
    let mut client = Client::connect(&address.to_string())?;
    let pages = walk(&mut client, &Recipients::computed(1), 0, usize::MAX, |body| {
        first_body.extend_from_slice(body);
    })?;
    std::fs::write(&body, first_body)?;
    let first = pages.first().context("the queue has no pages")?.clone();
    let last = pages.last().context("the queue has no pages")?.clone();

    let prepared = floor::start(&lab.program("relay-floor"), Some(&body))?;
    let (mut relay_rates, mut floor_rates) = (Vec::new(), Vec::new());
    for _ in 0..lab.rounds() {
        relay_rates.push(item_rate(lab, address, &pages)?);
        floor_rates.push(item_rate(lab, prepared.address, std::slice::from_ref(&first))?);
    }
    section.add("prepared body", median(&floor_rates), "items/s", Bar::None);
    section.add("relay", median(&relay_rates), "items/s", Bar::None);
    section.add("relay / prepared body", median(&relay_rates) / median(&floor_rates), "", Bar::AtLeast(0.5));
    compare_depths(lab, address, [first, last], &mut section)?;
    Ok(section)
}

/// Compares the latency of two pages of the same size.
fn compare_depths(
    lab: &Lab,
    address: SocketAddr,
    pages: [Page; 2],
    section: &mut Section,
) -> anyhow::Result<()> {
    let mut latencies = [Vec::new(), Vec::new()];
    for _ in 0..lab.rounds() {
        for (page, latencies) in pages.iter().zip(&mut latencies) {
            let report = run(&mut Pull::new(vec![page.clone()]), &lab.short_plan(address, 1))?;
            latencies.push(report.tally(Kind::Pull).latency_ms(0.5));
        }
    }
    let [first, last] = latencies.map(|latencies| median(&latencies));
    section.add("first page, median", first, "ms", Bar::None);
    section.add("last page, median", last, "ms", Bar::None);
    section.add("the slower / the faster", first.max(last) / first.min(last), "", Bar::Below(1.2));
    Ok(())
}

/// Items a second. A changed page counts as no items, so a rate of zero reports a fault.
fn item_rate(lab: &Lab, address: SocketAddr, pages: &[Page]) -> anyhow::Result<f64> {
    Ok(run(&mut Pull::new(pages.to_vec()), &lab.short_plan(address, PULL_CONNECTIONS))?.item_rate())
}
