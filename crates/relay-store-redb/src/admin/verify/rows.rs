//! The rows of the index, one by one: each must be sound, and about a queue that is there and knows
//! of it.

use std::ops::Range;

use relay_core::verify::Findings;
use relay_core::{Seq, Timestamp};

use crate::error::StoreError;
use crate::format::{self, ItemRow, Items, Key, ParsedKey, QueueRow};
use crate::index::snapshot::Value;
use crate::version::view::ReadView;

/// A row as a range shows it.
type Row<'a> = Result<(Key, Value<'a>), StoreError>;

/// The kinds of rows, and where they lie.
pub(super) fn sections() -> [(&'static str, Range<Key>); 6] {
    let [owners, dead, queues] = [Key::dead_start(), Key::queues_start(), Key::queues_end()];
    let [items, due, acked] = [Key::due_start(), Key::acked_start(), Key::end()];
    [
        ("the owners of queues", Key::start()..owners),
        ("what is said of dead rows", owners..dead),
        ("the rows of queues", dead..queues),
        ("the rows of items", queues..items),
        ("what is due", items..due),
        ("the acked names", due..acked),
    ]
}

/// Looks for rows that lie where no key leads: all others pass them over.
pub(super) fn find_strange_keys(view: &ReadView<'_>, findings: &mut Findings) -> Result<(), StoreError> {
    let known = Key::start()..Key::end();
    for row in view.index_snapshot().all_rows()? {
        let is_known = Key::from_bytes(row?.0.value()).is_ok_and(|key| known.contains(&key));
        if !is_known {
            findings.add("the index: a row has a key that is none".to_owned());
        }
    }
    Ok(())
}

/// What a row is about. One that is damaged, in its key or its value, is told instead.
pub(super) fn parse(row: Row<'_>, findings: &mut Findings) -> Result<Option<Parsed>, StoreError> {
    match row.and_then(|(key, value)| parse_row(&key, &value.bytes()?)) {
        Ok(parsed) => Ok(Some(parsed)),
        Err(StoreError::Corrupted(what)) => {
            findings.add(format!("the index: {what}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse_row(key: &Key, value: &[u8]) -> Result<Parsed, StoreError> {
    let key = key.parse()?;
    let mut until = Timestamp::default();
    match key {
        ParsedKey::Owner(_) => format::decode_owner(value).map(drop),
        ParsedKey::Queue(_) => QueueRow::decode(value).map(drop),
        ParsedKey::Item(_, seq) => ItemRow::decode(seq, value).map(drop),
        ParsedKey::ById(..) => format::decode_seq(value).map(drop),
        ParsedKey::Block(..) => format::decode_usage(value).map(drop),
        ParsedKey::Acked(slot, ..) => {
            until = format::decode_until(value)?;
            let is_in_slot = until >= slot;
            is_in_slot
                .then_some(())
                .ok_or(StoreError::Corrupted("an acked name is over before its slot begins"))
        }
        ParsedKey::Dead(_) | ParsedKey::Due(..) if value.is_empty() => Ok(()),
        ParsedKey::Dead(_) | ParsedKey::Due(..) => {
            Err(StoreError::Corrupted("a row has a value and needs none"))
        }
    }
    .map(|()| Parsed { key, until })
}

/// What a row is about, and, of an acked name, when it is over.
pub(super) struct Parsed {
    key: ParsedKey,
    until: Timestamp,
}

/// What the row of a queue says, as far as other rows have to agree.
#[derive(Clone, Copy, Debug)]
enum About {
    Missing,
    Corrupted,
    Queue {
        /// The first item, if they have rows of their own.
        first: Option<Seq>,
        due: Option<Timestamp>,
        remembers_until: Timestamp,
    },
}

/// Goes from rows to the queues that they are about.
pub(super) struct RowChecks<'a> {
    view: ReadView<'a>,
    /// The time that the store has come to.
    now: Timestamp,
    /// The largest number of a queue in any key.
    pub(super) largest_queue: u64,
    /// The queue of the last row: most are about the same one as the row before.
    last: Option<(u64, About, bool)>,
    /// The queue about whose rows something was told last: once is enough.
    told: Option<u64>,
}

impl<'a> RowChecks<'a> {
    pub(super) const fn new(view: ReadView<'a>, now: Timestamp) -> Self {
        Self { view, now, largest_queue: 0, last: None, told: None }
    }

    pub(super) fn check(&mut self, range: &Range<Key>, findings: &mut Findings) -> Result<(), StoreError> {
        self.told = None;
        for row in self.view.range(&range.start, &range.end)? {
            let Some(Parsed { key, until }) = parse(row, findings)? else { continue };
            let queue = queue_of(key);
            self.largest_queue = self.largest_queue.max(queue);
            // The queues are looked at one by one, later.
            if matches!(key, ParsedKey::Queue(_)) {
                continue;
            }
            let (about, has_dead) = self.about(queue)?;
            // Of these no queue need know, and those are nobody's any more.
            let is_over = until <= self.now && matches!(key, ParsedKey::Acked(..));
            if is_over || has_dead && is_dead(key, about) {
                continue;
            }
            if let Some(wrong) = wrong_with(key, until, about)
                && self.told.replace(queue) != Some(queue)
            {
                findings.add(format!("queue number {queue}: {wrong}"));
            }
        }
        Ok(())
    }

    /// What the queue says, and whether it is said that rows of it are dead.
    fn about(&mut self, queue: u64) -> Result<(About, bool), StoreError> {
        if let Some((_, about, has_dead)) = self.last.filter(|(last, ..)| *last == queue) {
            return Ok((about, has_dead));
        }
        let about = match self.view.queue_row(queue) {
            Ok(None) => About::Missing,
            Ok(Some(row)) => About::Queue {
                first: row.ends.map(|ends| ends.first.seq).filter(|_| matches!(row.items, Items::Spilled(_))),
                due: row.due(),
                remembers_until: row.remembers_until,
            },
            Err(StoreError::Corrupted(_)) => About::Corrupted,
            Err(error) => return Err(error),
        };
        let has_dead = self.view.get(&Key::dead(queue))?.is_some();
        self.last = Some((queue, about, has_dead));
        Ok((about, has_dead))
    }
}

const fn queue_of(key: ParsedKey) -> u64 {
    match key {
        ParsedKey::Owner(queue)
        | ParsedKey::Dead(queue)
        | ParsedKey::Queue(queue)
        | ParsedKey::Item(queue, _)
        | ParsedKey::ById(queue, _)
        | ParsedKey::Block(queue, _)
        | ParsedKey::Due(_, queue)
        | ParsedKey::Acked(_, queue, _) => queue,
    }
}

/// Whether a row is that of an item which is not in the queue any more, or leads to one.
fn is_dead(key: ParsedKey, about: About) -> bool {
    match (key, about) {
        (ParsedKey::Dead(_), _) | (ParsedKey::Item(..) | ParsedKey::ById(..), About::Missing) => true,
        (ParsedKey::Item(_, seq), About::Queue { first, .. }) => first.is_none_or(|first| seq < first),
        // To which one is looked at with the queue.
        (ParsedKey::ById(..), About::Queue { .. }) => true,
        _ => false,
    }
}

/// What is wrong with a row about this queue, if something is.
fn wrong_with(key: ParsedKey, until: Timestamp, about: About) -> Option<&'static str> {
    let About::Queue { first, due, remembers_until } = about else {
        return matches!(about, About::Missing).then(|| leads_nowhere(key));
    };
    let (is_right, wrong) = match key {
        ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Queue(_) => return None,
        ParsedKey::Item(_, seq) if first.is_some() => {
            (first.is_some_and(|first| first <= seq), "items lie in front of its first one")
        }
        ParsedKey::Item(..) | ParsedKey::ById(..) | ParsedKey::Block(..) => {
            (first.is_some(), "items have rows where they need none")
        }
        ParsedKey::Due(at, _) => (due == Some(at), "it is due at another time than that of its first item"),
        ParsedKey::Acked(..) => (until <= remembers_until, "an acked name is there and none is noted"),
    };
    (!is_right).then_some(wrong)
}

const fn leads_nowhere(key: ParsedKey) -> &'static str {
    match key {
        ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Queue(_) => "it has an owner and is not there",
        ParsedKey::Item(..) => "it has items and is not there",
        ParsedKey::ById(..) => "it has names of items and is not there",
        ParsedKey::Block(..) => "it has counts of items and is not there",
        ParsedKey::Due(..) => "it is due and is not there",
        ParsedKey::Acked(..) => "it has acked names and is not there",
    }
}
