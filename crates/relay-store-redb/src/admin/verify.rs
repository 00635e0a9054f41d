//! Recounts a store: what relay-core asks of every queue, and what only this store has. It reads
//! every row and every record that a row leads to, from both ends, and goes on behind what is
//! damaged. It changes nothing, and takes a bounded amount of memory.

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
use crate::admin::verify::rows::RowChecks;
use crate::admin::verify::twice::Twice;
use crate::engine::shared::Shared;
use crate::error::{StoreError, caught};
use crate::format::{self, Change, Counters, Key, LiveCount};
use crate::index::snapshot::Value;
use crate::txn::read::Reading;
use crate::txn::whole::Whole;
use crate::version::queue_reader::QueueRows;
use crate::version::view::ReadView;

/// What a store holds, expired items that are not reclaimed yet included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Queues that hold items or remember acked names.
    pub queues: u64,
    /// Items and their payloads.
    pub usage: Usage,
    /// Acked names that are remembered.
    pub acked: u64,
}

impl RedbRelay {
    /// Recounts everything and lists what does not add up, and what was found damaged when the
    /// store was opened. Reads the whole store, as it was when this began: requests go on, and the
    /// space of what goes meanwhile is given back afterwards.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read at all.
    pub fn verify(&self) -> Result<Vec<String>, StoreError> {
        let mut findings = self.findings.clone();
        findings.extend(self.shared.read_whole(|whole| verify(whole, &self.shared))?);
        Ok(findings)
    }

    /// What the store holds.
    ///
    /// # Errors
    /// [`StoreError`] when the store cannot be read.
    pub fn contents(&self) -> Result<Contents, StoreError> {
        self.shared.read_whole(|whole| contents(&whole.reading(&self.shared.journal)))
    }
}

/// What is counted along the way.
struct Counted {
    /// What is noted of the live frames of each segment, less those that are found.
    segments: BTreeMap<u32, Change>,
    /// The largest numbers in use.
    largest: Counters,
    /// All arrival numbers in use.
    seqs: Twice,
}

/// Lists what does not add up in a store as it was.
pub(crate) fn verify(whole: &Whole, shared: &Shared) -> Result<Vec<String>, StoreError> {
    let (reading, numbers) = (&whole.reading(&shared.journal), whole.numbers);
    let (mut all, view) = (Vec::new(), reading.view);
    // It goes on: acked names are forgotten meanwhile.
    let now = || shared.clock.now();
    let mut part = |what: &str, check: &mut dyn FnMut(&mut Findings) -> Result<(), StoreError>| {
        let mut findings = Findings::default();
        contain(what, &mut findings, check)?;
        all.extend(findings.into_listed());
        Ok::<_, StoreError>(())
    };
    let mut counted = Counted::new(whole.segments.clone());
    part("the keys of the index", &mut |findings| rows::find_strange_keys(&view, findings))?;
    let mut rows = RowChecks::new(view, numbers.time);
    for (what, range) in rows::sections() {
        part(what, &mut |findings| rows.check(&range, findings))?;
    }
    counted.largest.queue = rows.largest_queue;
    part("the names of queues", &mut |findings| recipients::check(&view, &mut counted.largest, findings))?;
    part("the queues", &mut |findings| check_queues(reading, &mut counted, &now, findings))?;
    part("the segments", &mut |findings| {
        counted.check_segments(findings);
        counted.check_numbers(numbers, findings);
        Ok(())
    })?;
    part("the arrival numbers", &mut |findings| {
        counted.seqs.check(findings, &mut |visit| each_seq(reading, visit))
    })?;
    Ok(all)
}

/// Checks part of a store. What it cannot get past is told, and must not keep others from looking.
fn contain(
    what: &str,
    findings: &mut Findings,
    check: &mut dyn FnMut(&mut Findings) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match caught(|| check(findings)) {
        Err(error) if error.is_corruption() => {
            findings.add(format!("{what}: not checked to the end: {error}"));
            Ok(())
        }
        checked => checked,
    }
}

fn check_queues(
    reading: &Reading<'_>,
    counted: &mut Counted,
    now: &dyn Fn() -> Timestamp,
    findings: &mut Findings,
) -> Result<(), StoreError> {
    for rows in queues(reading)? {
        let rows = rows?;
        let name = format!("queue number {}", rows.queue);
        contain(&name, findings, &mut |findings| queue::check(reading, &rows, counted, now, findings))?;
    }
    Ok(())
}

/// Shows the arrival number of every item.
fn each_seq(reading: &Reading<'_>, visit: &mut dyn FnMut(Seq)) -> Result<(), StoreError> {
    for rows in queues(reading)? {
        rows?.scan(Seq::ZERO, &mut |item| {
            visit(item.seq);
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}

impl Counted {
    fn new(noted: BTreeMap<u32, LiveCount>) -> Self {
        let noted = noted.into_iter().filter(|(_, live)| *live != LiveCount::default());
        let segments = noted.map(|(segment, live)| (segment, Change::of(live))).collect();
        Self { segments, largest: Counters::default(), seqs: Twice::default() }
    }

    /// What is left of what was noted should be nothing.
    fn check_segments(&self, findings: &mut Findings) {
        for (segment, Change { items, bytes }) in &self.segments {
            let own = format::own_location(Location { segment: *segment, offset: 0, length: 0 }).segment;
            let file = if format::is_payload(*segment) { "payload file" } else { "segment" };
            findings.add(format!(
                "{file} {own}: what is noted of its live frames is off by {items:+} and {bytes:+} bytes"
            ));
        }
    }

    fn check_numbers(&self, noted: Counters, findings: &mut Findings) {
        let numbers = [
            ("arrival", noted.seq.as_u64(), self.largest.seq.as_u64()),
            ("queue", noted.queue, self.largest.queue),
        ];
        for (of, noted, largest) in numbers {
            if largest > noted {
                findings.add(format!("the last {of} number is noted as {noted}, and {largest} is in use"));
            }
        }
    }
}

/// The sum over all queues.
pub(crate) fn contents(reading: &Reading<'_>) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for rows in queues(reading)? {
        let row = rows?.row;
        contents.queues += 1;
        contents.usage = contents.usage.plus(row.usage);
    }
    for row in reading.view.range(&Key::acked_start(), &Key::end())? {
        match row {
            Ok(_) => contents.acked += 1,
            Err(StoreError::Corrupted(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(contents)
}

/// Lists the rows that are damaged, which all others pass over.
pub(crate) fn find_damaged_rows(reading: &Reading<'_>) -> Result<Vec<String>, StoreError> {
    let mut findings = Findings::default();
    for row in reading.view.range(&Key::start(), &Key::end())? {
        rows::parse(row, &mut findings)?;
    }
    Ok(findings.into_listed())
}

/// All queues whose row can be read.
pub(crate) fn queues<'a>(
    reading: &Reading<'a>,
) -> Result<impl Iterator<Item = Result<QueueRows<'a>, StoreError>> + use<'a>, StoreError> {
    let view = reading.view;
    let rows = view.range(&Key::queues_start(), &Key::queues_end())?;
    Ok(rows.filter_map(move |row| match row.and_then(|row| queue(view, &row)) {
        Err(StoreError::Corrupted(_)) => None,
        queue => Some(queue),
    }))
}

fn queue<'a>(view: ReadView<'a>, (key, value): &(Key, Value<'a>)) -> Result<QueueRows<'a>, StoreError> {
    Ok(QueueRows { view, queue: key.about(), row: value.queue()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_check_stumbles_over_is_a_finding_and_the_rest_an_error() {
        let told = |error: fn() -> StoreError| {
            let mut findings = Findings::default();
            contain("a part", &mut findings, &mut |_| Err(error())).map(|()| findings.into_listed())
        };
        let expected = |error: StoreError| vec![format!("a part: not checked to the end: {error}")];
        assert_eq!(told(|| panic!()).unwrap(), expected(StoreError::Panicked));
        assert_eq!(
            told(|| StoreError::Corrupted("a row")).unwrap(),
            expected(StoreError::Corrupted("a row"))
        );
        assert!(
            told(|| redb::StorageError::Corrupted("a page".into()).into()).unwrap()[0].contains("a page")
        );
        assert!(told(|| StoreError::Full).is_err());
        assert!(told(|| std::io::Error::other("the disk fails").into()).is_err());
    }

    #[test]
    fn what_is_noted_of_segments_must_be_there() {
        let live = LiveCount { items: 2, bytes: 100 };
        let noted = [(1, live), (2, LiveCount::default()), (0x8000_0003, live)];
        let mut counted = Counted::new(noted.into());
        counted.segments.insert(4, Change { items: -1, bytes: -50 });
        let mut findings = Findings::default();
        counted.check_segments(&mut findings);
        assert_eq!(
            findings.into_listed(),
            [
                "segment 1: what is noted of its live frames is off by +2 and +100 bytes",
                "segment 4: what is noted of its live frames is off by -1 and -50 bytes",
                "payload file 3: what is noted of its live frames is off by +2 and +100 bytes",
            ]
        );
    }
}
