//! Checks the rows of the index one by one. Each must be sound, and must agree with the row of its
//! queue.

use std::ops::Range;

use relay_core::verify::Findings;
use relay_core::{Seq, Timestamp};

use crate::error::StoreError;
use crate::format::{self, ItemRow, Items, Key, ParsedKey, QueueRow};
use crate::index::snapshot::Value;
use crate::version::view::ReadView;

/// The kinds of rows, and the range of their keys.
pub(super) fn sections() -> [(&'static str, Range<Key>); 7] {
    [
        ("the owners of queues", Key::start()..Key::dead_start()),
        ("the marks of dead rows", Key::dead_start()..Key::queues_start()),
        ("the rows of queues", Key::queues_start()..Key::queues_end()),
        ("the rows of items", Key::queues_end()..Key::due_start()),
        ("the due times", Key::due_start()..Key::acked_start()),
        ("the acked item ids", Key::acked_start()..Key::floors_start()),
        ("the marks of floors", Key::floors_start()..Key::end()),
    ]
}

/// Finds rows whose keys no lookup produces. All other checks skip them.
pub(super) fn find_invalid_keys(view: &ReadView<'_>, findings: &mut Findings) -> Result<(), StoreError> {
    let valid = Key::start()..Key::end();
    for row in view.index_snapshot().all_rows()? {
        if !Key::from_bytes(row?.0.value()).is_ok_and(|key| valid.contains(&key)) {
            findings.add("the index: a row has an invalid key".to_owned());
        }
    }
    Ok(())
}

/// Parses a row. A corrupt key or value becomes a finding.
pub(super) fn parse(
    row: Result<(Key, Value<'_>), StoreError>,
    findings: &mut Findings,
) -> Result<Option<ParsedRow>, StoreError> {
    match row.and_then(|(key, value)| parse_row(&key, &value.bytes()?)) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(StoreError::Corrupted(what)) => {
            findings.add(format!("the index: {what}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse_row(key: &Key, value: &[u8]) -> Result<ParsedRow, StoreError> {
    let (queue, key) = (key.queue_number(), key.parse()?);
    let mut until = Timestamp::default();
    match key {
        ParsedKey::Owner(_) => _ = format::decode_owner(value)?,
        ParsedKey::Queue(_) => _ = QueueRow::decode(value)?,
        ParsedKey::Item(_, seq) => _ = ItemRow::decode(seq, value)?,
        ParsedKey::ById(..) => _ = format::decode_seq(value)?,
        ParsedKey::Block(..) => _ = format::decode_usage(value)?,
        ParsedKey::Early(..) => _ = format::decode_payload_bytes(value)?,
        ParsedKey::Acked(slot, ..) => {
            until = format::decode_until(value)?;
            if until < slot {
                return Err(StoreError::Corrupted("an acked item id expires before its slot begins"));
            }
        }
        ParsedKey::Dead(_) | ParsedKey::Due(..) | ParsedKey::Floor(_) if value.is_empty() => {}
        ParsedKey::Dead(_) | ParsedKey::Due(..) | ParsedKey::Floor(_) => {
            return Err(StoreError::Corrupted("a row has a value but should be empty"));
        }
    }
    Ok(ParsedRow { queue, key, until })
}

pub(super) struct ParsedRow {
    queue: u64,
    key: ParsedKey,
    /// When an acked item id expires.
    until: Timestamp,
}

/// The part of a queue's row that other rows must agree with.
#[derive(Clone, Copy, Debug)]
enum QueueSummary {
    Missing,
    Corrupted,
    Queue {
        /// The first item of a spilled queue.
        first: Option<Seq>,
        due: Option<Timestamp>,
        remembers_until: Timestamp,
        has_floor: bool,
    },
}

/// Compares rows with their queues.
pub(super) struct RowChecks<'a> {
    view: ReadView<'a>,
    /// The time of the store.
    now: Timestamp,
    /// The largest queue number in any key.
    pub(super) largest_queue: u64,
    /// The queue of the previous row, because most rows have the same queue as their neighbour.
    last: Option<(u64, QueueSummary, bool)>,
    /// The queue of the last finding. One finding per queue and section is enough.
    reported: Option<u64>,
}

impl<'a> RowChecks<'a> {
    pub(super) const fn new(view: ReadView<'a>, now: Timestamp) -> Self {
        Self { view, now, largest_queue: 0, last: None, reported: None }
    }

    pub(super) fn check(&mut self, range: &Range<Key>, findings: &mut Findings) -> Result<(), StoreError> {
        self.reported = None;
        for row in self.view.range(&range.start, &range.end)? {
            let Some(ParsedRow { queue, key, until }) = parse(row, findings)? else { continue };
            self.largest_queue = self.largest_queue.max(queue);
            // Each queue has a check of its own, later.
            if matches!(key, ParsedKey::Queue(_)) {
                continue;
            }
            let (summary, has_dead) = self.summary(queue)?;
            // A queue need not know expired acked item ids, and dead rows belong to no queue.
            let is_expired = until <= self.now && matches!(key, ParsedKey::Acked(..));
            if is_expired || has_dead && is_dead(key, summary) {
                continue;
            }
            if let Some(wrong) = find_error(key, until, summary)
                && self.reported.replace(queue) != Some(queue)
            {
                findings.add(format!("queue number {queue}: {wrong}"));
            }
        }
        Ok(())
    }

    /// The summary of a queue, and whether the index marks rows of it as dead.
    fn summary(&mut self, queue: u64) -> Result<(QueueSummary, bool), StoreError> {
        if let Some((_, summary, has_dead)) = self.last.filter(|(last, ..)| *last == queue) {
            return Ok((summary, has_dead));
        }
        let summary = match self.view.queue_row(queue) {
            Ok(None) => QueueSummary::Missing,
            Ok(Some(row)) => QueueSummary::Queue {
                first: row.ends.map(|ends| ends.first.seq).filter(|_| matches!(row.items, Items::Spilled(_))),
                due: row.due(),
                has_floor: row.floor.is_some(),
                remembers_until: row.remembers_until,
            },
            Err(StoreError::Corrupted(_)) => QueueSummary::Corrupted,
            Err(error) => return Err(error),
        };
        let has_dead = self.view.get(&Key::dead(queue))?.is_some();
        self.last = Some((queue, summary, has_dead));
        Ok((summary, has_dead))
    }
}

/// Whether a row may be dead: its item, or the item that it leads to, is no longer in the queue.
fn is_dead(key: ParsedKey, summary: QueueSummary) -> bool {
    match (key, summary) {
        (ParsedKey::Dead(_), _) => true,
        (ParsedKey::Item(..) | ParsedKey::ById(..) | ParsedKey::Early(..), QueueSummary::Missing) => true,
        (ParsedKey::Item(_, seq) | ParsedKey::Early(_, _, seq), QueueSummary::Queue { first, .. }) => {
            first.is_none_or(|first| seq < first)
        }
        // The check of the queue looks at the item that it leads to.
        (ParsedKey::ById(..), QueueSummary::Queue { .. }) => true,
        _ => false,
    }
}

/// What is wrong with a row of this queue, if anything.
fn find_error(key: ParsedKey, until: Timestamp, summary: QueueSummary) -> Option<&'static str> {
    let (first, due, remembers_until, has_floor) = match summary {
        QueueSummary::Missing => return Some(without_queue(key)),
        QueueSummary::Corrupted => return None,
        QueueSummary::Queue { first, due, remembers_until, has_floor } => {
            (first, due, remembers_until, has_floor)
        }
    };
    let (is_right, wrong) = match (key, first) {
        (ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Queue(_), _) => return None,
        (ParsedKey::Item(_, seq) | ParsedKey::Early(_, _, seq), Some(first)) => {
            (first <= seq, "an item lies before its first item")
        }
        (ParsedKey::Item(..) | ParsedKey::ById(..) | ParsedKey::Block(..) | ParsedKey::Early(..), first) => {
            (first.is_some(), "it is not spilled but has rows of items")
        }
        (ParsedKey::Floor(_), _) => (has_floor, "it has the mark of a floor but no floor"),
        (ParsedKey::Due(at, _), _) => (due == Some(at), "it is due at another time than its row says"),
        (ParsedKey::Acked(..), _) => {
            (until <= remembers_until, "an acked item id is remembered for longer than its row says")
        }
    };
    (!is_right).then_some(wrong)
}

const fn without_queue(key: ParsedKey) -> &'static str {
    match key {
        ParsedKey::Floor(_) => "it has a floor but does not exist",
        ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Queue(_) => {
            "it has an owner but does not exist"
        }
        ParsedKey::Item(..) => "it has items but does not exist",
        ParsedKey::ById(..) => "it has item ids but does not exist",
        ParsedKey::Block(..) => "it has block counts but does not exist",
        ParsedKey::Early(..) => "it has items that expire early but does not exist",
        ParsedKey::Due(..) => "it has a due time but does not exist",
        ParsedKey::Acked(..) => "it has acked item ids but does not exist",
    }
}
