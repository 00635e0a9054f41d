//! Measures how many items a second are acked.

use crate::load::{Ack, Groups, ItemIds, Push};

use super::Lab;
use super::figure::{Bar, Section, median};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, run_to_end};
use super::relay::Settings;

const BATCH: usize = 100;

/// Items for each recipient in one round. Some of them do not fill an ack.
const ITEMS_PER_RECIPIENT: u64 = 200;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let recipients = lab.at_length(1000, 20);
    let round_items = recipients * ITEMS_PER_RECIPIENT;
    let mut section = Section::new(
        "Ack",
        format!(
            "Items of 1 KiB in the queues of {recipients} recipients, acked 100 at a time, 64 connections, closed loop."
        ),
    );
    let relay = lab.relay(Settings::default())?;
    let ids = ItemIds::new(1, recipients);
    let mut rates = Vec::new();
    for round in 0..lab.rounds() as u64 {
        let items = round * round_items..(round + 1) * round_items;
        run_to_end(
            &mut Push::new(ids.clone(), PAYLOAD_BYTES, items.clone()),
            relay.server.address,
            CONNECTIONS_MAX,
        )?;
        let groups = Groups::new(&ids, items, BATCH).only_of(BATCH);
        let report = run_to_end(&mut Ack::new(ids.clone(), groups), relay.server.address, CONNECTIONS)?;
        section.note_failures("acks", &report);
        rates.push(report.item_rate());
    }
    section.add("acked", median(&rates), "items/s", Bar::AtLeast(40_000.0));
    Ok(section)
}
