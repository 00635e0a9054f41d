//! Checks a whole store: the rules of relay-core for each queue, and the redundant data of this
//! store. It reads every row, and every record that a row refers to. It skips what is corrupt,
//! changes nothing, and needs bounded memory.

mod queue;
mod recipients;
mod rows;
mod twice;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use relay_core::verify::Findings;
use relay_core::{Seq, Timestamp, Usage};
use relay_journal::Location;

use crate::RedbRelay;
use crate::admin::scan;
use crate::admin::verify::rows::RowChecks;
use crate::admin::verify::twice::DuplicateFinder;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format::{self, Counters, Key, LiveChange, LiveCount};
use crate::txn::read::ReadTxn;
use crate::txn::whole::WholeStore;

/// What a store holds, including expired items that are not removed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The number of queues that hold items or remember acked item ids.
    pub queues: u64,
    /// The items and their payload bytes.
    pub usage: Usage,
    /// The number of acked item ids that are remembered.
    pub acked: u64,
}

impl RedbRelay {
    /// Checks the whole store. Returns what is inconsistent, and what was found corrupt when the
    /// store was opened. It checks the store as it was when the check began. The store serves
    /// requests meanwhile, but frees no disk space until the check ends.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, StoreError> {
        self.verify_watched(&mut |_| ControlFlow::Continue(()))
    }

    /// Like [`RedbRelay::verify`]. After each item, `watch` gets the number of items that are
    /// checked, and may stop the check. Meanwhile some seconds may pass without an item.
    ///
    /// # Errors
    /// As [`RedbRelay::verify`], and [`StoreError::Stopped`].
    pub fn verify_watched(
        &self,
        watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<String>, StoreError> {
        let mut findings = self.findings.clone();
        findings.extend(self.shared.read_whole(|store| verify(store, &self.shared, watch))?);
        Ok(findings)
    }

    /// Counts what the store holds.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        self.shared.read_whole(|store| contents(&store.read_txn(&self.shared.journal)))
    }
}

/// What the checks count, to compare it with the stored counts at the end.
struct Counted<'a> {
    items: u64,
    watch: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    /// The recorded live frames of each segment, minus those that were found.
    segments: BTreeMap<u32, LiveChange>,
    /// The largest numbers in use.
    largest: Counters,
    /// All arrival numbers in use.
    seqs: DuplicateFinder,
}

/// Lists what is inconsistent in a store.
fn verify(
    store: &WholeStore,
    shared: &Shared,
    watch: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Vec<String>, StoreError> {
    let (txn, numbers) = (&store.read_txn(&shared.journal), store.numbers);
    let (mut all, view) = (Vec::new(), txn.view);
    // Read again for each queue, because acked item ids expire during the check.
    let now = || shared.clock.now();
    let mut part = |what: &str, check: &mut dyn FnMut(&mut Findings) -> Result<(), StoreError>| {
        let mut findings = Findings::default();
        run_check(what, &mut findings, check)?;
        all.extend(findings.into_listed());
        Ok::<_, StoreError>(())
    };
    let mut counted = Counted::new(store.segments.clone(), watch);
    part("the keys of the index", &mut |findings| rows::find_invalid_keys(&view, findings))?;
    let mut rows = RowChecks::new(view, numbers.time);
    for (what, range) in rows::sections() {
        part(what, &mut |findings| rows.check(&range, findings))?;
    }
    counted.largest.queue = rows.largest_queue;
    part("the recipients", &mut |findings| recipients::check(&view, &mut counted.largest, findings))?;
    part("the queues", &mut |findings| check_queues(txn, &mut counted, &now, findings))?;
    part("the segments", &mut |findings| {
        counted.check_segments(findings);
        counted.check_numbers(numbers, findings);
        Ok(())
    })?;
    part("the arrival numbers", &mut |findings| {
        counted.seqs.check(findings, &mut |visit| each_seq(txn, visit))
    })?;
    Ok(all)
}

/// Runs a check of one part of the store. Corruption that stops it becomes a finding, so that the
/// other parts are still checked.
fn run_check(
    what: &str,
    findings: &mut Findings,
    check: &mut dyn FnMut(&mut Findings) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match caught(|| check(findings)) {
        Err(error) if error.is_corruption() => {
            findings.add(format!("{what}: the check is incomplete: {error}"));
            Ok(())
        }
        checked => checked,
    }
}

fn check_queues(
    txn: &ReadTxn<'_>,
    counted: &mut Counted<'_>,
    now: &dyn Fn() -> Timestamp,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    for rows in scan::queues(txn)? {
        let rows = rows?;
        let what = format!("queue number {}", rows.queue);
        run_check(&what, findings, &mut |findings| queue::check(txn, &rows, counted, now, findings))?;
    }
    Ok(())
}

/// Visits the arrival number of every item.
fn each_seq(txn: &ReadTxn<'_>, visit: &mut dyn FnMut(Seq)) -> Result<(), StoreError> {
    for rows in scan::queues(txn)? {
        rows?.scan(Seq::ZERO, &mut |item| {
            visit(item.seq);
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}

impl<'a> Counted<'a> {
    fn new(recorded: BTreeMap<u32, LiveCount>, watch: &'a mut dyn FnMut(u64) -> ControlFlow<()>) -> Self {
        let recorded = recorded.into_iter().filter(|(_, live)| *live != LiveCount::default());
        let segments = recorded.map(|(segment, live)| (segment, LiveChange::of(live))).collect();
        let (largest, seqs) = (Counters::default(), DuplicateFinder::default());
        Self { items: 0, watch, segments, largest, seqs }
    }

    /// Whether to stop after one more item.
    fn next_item(&mut self) -> ControlFlow<()> {
        self.items += 1;
        (self.watch)(self.items)
    }

    /// Reports what is left: in a sound store, every recorded frame was found.
    fn check_segments(&self, findings: &mut Findings) {
        for (segment, LiveChange { items, bytes }) in &self.segments {
            let id = format::own_location(Location { segment: *segment, offset: 0, length: 0 }).segment;
            let file = if format::is_blob(*segment) { "blob" } else { "segment" };
            findings.add(format!("{file} {id}: its live frames are off by {items:+} and {bytes:+} bytes"));
        }
    }

    fn check_numbers(&self, recorded: Counters, findings: &mut Findings) {
        let numbers = [
            ("arrival", recorded.seq.as_u64(), self.largest.seq.as_u64()),
            ("queue", recorded.queue, self.largest.queue),
        ];
        for (kind, recorded, largest) in numbers {
            if largest > recorded {
                findings.add(format!(
                    "the last {kind} number is recorded as {recorded}, but {largest} is in use"
                ));
            }
        }
    }
}

/// Sums over all queues. Corrupt rows do not count.
pub(super) fn contents(txn: &ReadTxn<'_>) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for rows in scan::queues(txn)? {
        contents.queues += 1;
        contents.usage = contents.usage.plus(rows?.row.usage);
    }
    for row in txn.view.range(&Key::acked_start(), &Key::end())? {
        match row {
            Ok(_) => contents.acked += 1,
            Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(contents)
}

/// Lists the corrupt rows, which all other reads skip.
pub(super) fn find_corrupt_rows(txn: &ReadTxn<'_>) -> Result<Vec<String>, StoreError> {
    let mut findings = Findings::default();
    for row in txn.view.range(&Key::start(), &Key::end())? {
        rows::parse(row, &mut findings)?;
    }
    Ok(findings.into_listed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corruption_becomes_a_finding_and_other_errors_are_returned() {
        let run = |error: fn() -> StoreError| {
            let mut findings = Findings::default();
            run_check("a part", &mut findings, &mut |_| Err(error())).map(|()| findings.into_listed())
        };
        let expected = |error: StoreError| vec![format!("a part: the check is incomplete: {error}")];
        assert_eq!(run(|| panic!()).unwrap(), expected(StoreError::Panicked));
        assert_eq!(run(|| StoreError::Corrupted("a row")).unwrap(), expected(StoreError::Corrupted("a row")));
        assert!(run(|| redb::StorageError::Corrupted("a page".into()).into()).unwrap()[0].contains("a page"));
        assert!(run(|| StoreError::Full).is_err());
        assert!(run(|| std::io::Error::other("the disk fails").into()).is_err());
    }

    #[test]
    fn recorded_live_frames_that_do_not_exist_are_found() {
        let live = LiveCount { items: 2, bytes: 100 };
        let recorded = [(1, live), (2, LiveCount::default()), (0x8000_0003, live)];
        let mut watch = |_| ControlFlow::Continue(());
        let mut counted = Counted::new(recorded.into(), &mut watch);
        counted.segments.insert(4, LiveChange { items: -1, bytes: -50 });
        let mut findings = Findings::default();
        counted.check_segments(&mut findings);
        assert_eq!(
            findings.into_listed(),
            [
                "segment 1: its live frames are off by +2 and +100 bytes",
                "segment 4: its live frames are off by -1 and -50 bytes",
                "blob 3: its live frames are off by +2 and +100 bytes",
            ]
        );
    }
}
