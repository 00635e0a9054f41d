//! Reads every live item of a store, queue by queue and in arrival order, as the store was when the
//! pass began. It changes nothing. Requests wait only while it copies the memtables.

use std::ops::ControlFlow;

use bytes::Bytes;
use relay_core::{Item, Queued as _, Recipient, Timestamp};

use crate::RedbRelay;
use crate::admin::{scan, verify};
use crate::error::{StoreError, caught};
use crate::format::record::Owner;
use crate::io::payload;
use crate::txn::read::ReadTxn;
use crate::version::queue_reader::QueueRows;

impl RedbRelay {
    /// Visits every live item, queue by queue and in arrival order, until `visit` breaks. Returns
    /// one finding for each queue and item that it skipped because it could not be read.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn export(
        &self,
        mut visit: impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, StoreError> {
        let store = self.shared.whole();
        let txn = store.read_txn(&self.shared.journal);
        let time = self.shared.clock.read();
        let mut visit = |recipient: &Recipient, mut item: Item<Bytes>| {
            (item.arrival, item.deadline) = (time.outside(item.arrival), time.outside(item.deadline));
            visit(recipient, item)
        };
        let findings = caught(|| {
            let mut findings = self.findings.clone();
            findings.extend(verify::find_corrupt_rows(&txn)?);
            for rows in scan::queues(&txn)? {
                let rows = rows?;
                match export_queue(&txn, &rows, time.now, &mut findings, &mut visit) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => break,
                    Err(StoreError::Corrupted(what)) => {
                        findings.push(format!("queue number {}: {what}", rows.queue));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(findings)
        })?;
        store.checked(findings)
    }
}

fn export_queue(
    txn: &ReadTxn<'_>,
    rows: &QueueRows<'_>,
    now: Timestamp,
    findings: &mut Vec<String>,
    visit: &mut impl FnMut(&Recipient, Item<Bytes>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let queue = rows.queue;
    let recipient = txn.view.owner(queue)?;
    let owner = Owner { queue, recipient: &recipient };
    let mut flow = ControlFlow::Continue(());
    scan::each_record(txn, rows, rows.front(now)?.live_from, &mut |row, frame| {
        let seq = row.seq.as_u64();
        let item = frame.map_err(StoreError::from);
        match item.and_then(|frame| payload::item_of_frame(frame, owner, row, &mut None)) {
            Ok(item) if item.is_live(now) => flow = visit(&recipient, item),
            Ok(_) => {}
            Err(error) => findings.push(format!("queue number {queue}, item {seq}: {error}")),
        }
        flow
    })?;
    Ok(flow)
}
