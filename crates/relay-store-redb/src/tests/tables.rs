//! Batches, memtables, checkpoints and the index below them show what one sorted map would show:
//! random changes, some taken back, some never published, while checkpoints begin, fail and end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, option, proptest};
use relay_disk::{Class, Fault, SimDisk, Survival};
use relay_journal::Position;

use super::*;
use crate::format::record::item_head;
use crate::index::Index;
use crate::version::read_snapshot::Wanted;

/// There are few of each, so that changes meet.
const QUEUES: u64 = 3;
const NUMBERS: u64 = 4;
/// The numbers that stand for the row of a queue, and for when it is due. The others are items.
const ROW: u64 = 0;
const DUE: u64 = 1;

/// A step of a random run.
#[derive(Clone, Debug)]
enum Step {
    /// Requests that are decided together; whether they then become visible.
    Batch(Vec<Request>, bool),
    /// A checkpoint begins, if none is under way.
    Freeze,
    /// What is sealed is written; whether the store hears of it, or believes that it failed and
    /// opens the index anew.
    Checkpoint(bool),
    /// The index is written anew. These batches come between its steps, and a checkpoint after each
    /// of them.
    Rewrite(Vec<Vec<Request>>),
    /// Everything in memory is lost: only what a checkpoint wrote is left.
    Restart,
}

/// Changes that count together; whether they are taken back.
#[derive(Clone, Debug)]
struct Request {
    changes: Vec<Change>,
    taken_back: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Row(u64, u64, Option<u8>),
    Name(u64, Option<u64>),
}

/// What should be there.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    rows: BTreeMap<Key, Vec<u8>>,
    recipients: BTreeMap<u64, u64>,
    numbers: Counters,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        4 => (0..QUEUES, 0..NUMBERS, option::of(any::<u8>())).prop_map(|(queue, number, value)| Change::Row(queue, number, value)),
        1 => (0..QUEUES, option::of(0..QUEUES)).prop_map(|(name, queue)| Change::Name(name, queue)),
    ];
    let request = (collection::vec(change, 0..5), any::<bool>())
        .prop_map(|(changes, taken_back)| Request { changes, taken_back });
    let batches = collection::vec(collection::vec(request.clone(), 0..4), 0..6);
    let step = prop_oneof![
        1 => batches.prop_map(Step::Rewrite),
        4 => (collection::vec(request, 0..4), any::<bool>()).prop_map(|(requests, is_synced)| Step::Batch(requests, is_synced)),
        2 => any::<()>().prop_map(|()| Step::Freeze),
        2 => any::<bool>().prop_map(Step::Checkpoint),
        1 => any::<()>().prop_map(|()| Step::Restart),
    ];
    collection::vec(step, 1..24)
}

fn key(queue: u64, number: u64) -> Key {
    match number {
        ROW => Key::queue(queue),
        DUE => Key::due(due_at(queue), queue),
        _ => Key::item(queue, Seq::new(number)),
    }
}

/// Some are due at the same time.
fn due_at(queue: u64) -> Timestamp {
    Timestamp::from_ms(queue / 2)
}

fn recipient(name: u64) -> Recipient {
    Recipient::parse(&format!("name {name}")).unwrap()
}

/// Changes the rows as requests do: whatever has a number gives it away.
fn change(tables: &mut Tables<'_>, model: &mut Model, change: &Change) {
    match *change {
        Change::Row(queue, number, value) => {
            let value = match number {
                ROW => {
                    let row = value.map(|until| {
                        let remembers_until = Timestamp::from_ms(until.into());
                        QueueRow { remembers_until, ..QueueRow::default() }
                    });
                    tables.put_row(queue, RowChange::Queue(queue, Some(row.clone().map(Arc::new))));
                    tables.cache.forget_queue(queue);
                    row.map(|row| row.encode())
                }
                DUE => {
                    tables.put_due(due_at(queue), queue, value.is_some());
                    value.map(|_| Vec::new())
                }
                _ => {
                    let value = value.map(|value| vec![value; usize::from(value % 7)]);
                    tables.put(key(queue, number), value.clone());
                    value
                }
            };
            let numbers = Counters {
                seq: model.numbers.seq.max(Seq::new(number)),
                queue: model.numbers.queue.max(queue),
                ..model.numbers
            };
            (tables.memtable.numbers, model.numbers) = (numbers, numbers);
            match value {
                Some(value) => drop(model.rows.insert(key(queue, number), value)),
                None => drop(model.rows.remove(&key(queue, number))),
            }
        }
        Change::Name(name, queue) => {
            tables.put_recipient(recipient(name), queue);
            match queue {
                Some(queue) => drop(model.recipients.insert(name, queue)),
                None => drop(model.recipients.remove(&name)),
            }
        }
    }
}

fn expect(view: ReadView<'_>, model: &Model) {
    let show = |rows: crate::version::view::Merger<'_>| -> Vec<(Key, Vec<u8>)> {
        rows.map(|row| row.map(|(key, value)| (key, value.bytes().unwrap().into_owned())).unwrap()).collect()
    };
    let expect_range = |from: Key, to: Key| {
        let part = model.rows.iter().filter(|(key, _)| (from..to).contains(key));
        let part: Vec<_> = part.map(|(key, value)| (*key, value.clone())).collect();
        let mut back = show(view.range_back(&from, &to).unwrap());
        back.reverse();
        assert_eq!(show(view.range(&from, &to).unwrap()), part, "{from:?} to {to:?}");
        assert_eq!(back, part, "{from:?} back from {to:?}");
    };
    expect_range(Key::start(), Key::end());
    for queue in 0..QUEUES {
        assert_eq!(view.queue_number(&recipient(queue)).unwrap(), model.recipients.get(&queue).copied());
        for number in 0..NUMBERS {
            let key = key(queue, number);
            let value = view.get(&key).unwrap().map(|value| value.bytes().unwrap().into_owned());
            assert_eq!(value, model.rows.get(&key).cloned());
            for to in [Key::queues_end(), Key::items_end(queue), Key::due(due_at(1), 1), Key::acked_start()] {
                expect_range(key, to);
            }
        }
    }
}

/// An snapshot says the same of its queue, as far as it says anything, and all that was wanted.
fn expect_excerpts(version: &Version, model: &Model) {
    for (queue, from, (rows_max, is_of_older)) in (0..QUEUES).flat_map(|queue| {
        let copied = [(0, false), (1, false), (2, false), (100, false), (2, true), (100, true)];
        (0..=NUMBERS).flat_map(move |from| copied.map(|copied| (queue, from, copied)))
    }) {
        let number = model.recipients.get(&queue).copied();
        let wanted = Wanted { from: Seq::new(from), id: None, rows_max, is_of_older };
        let snapshot = version.snapshot((&recipient(queue), number), wanted);
        let view = snapshot.view();
        assert_eq!(view.queue_number(&recipient(queue)).unwrap(), number);
        let Some(number) = number else { continue };
        let key = Key::queue(number);
        let row = view.get(&key).unwrap().map(|value| value.bytes().unwrap().into_owned());
        assert_eq!(row, model.rows.get(&key).cloned());
        let (mut seen, to) = (0, Key::items_end(number));
        let expected: Vec<_> = model.rows.range(Key::item(number, Seq::new(from))..to).collect();
        for row in view.range(&Key::item(number, Seq::new(from)), &to).into_iter().flatten() {
            match row {
                Ok((key, value)) => assert_eq!((&key, &value.bytes().unwrap().into_owned()), expected[seen]),
                Err(StoreError::Beyond) => {
                    // Tombstones count as well.
                    assert!(rows_max < 100 || is_of_older, "it says nothing of a row that was wanted");
                    break;
                }
                Err(error) => panic!("{error}"),
            }
            seen += 1;
        }
        assert!(seen == expected.len() || rows_max < 100 || is_of_older);
        for seq in 0..NUMBERS {
            let key = Key::item(number, Seq::new(seq));
            match view.get(&key) {
                Err(StoreError::Beyond) => {}
                value => assert_eq!(
                    value.unwrap().map(|value| value.bytes().unwrap().into_owned()),
                    model.rows.get(&key).cloned()
                ),
            }
        }
    }
}

/// A version over an index on a disk in memory.
struct Stack {
    index: Index,
    version: Version,
    cache: QueueCache,
    at: Position,
}

impl Stack {
    fn on(disk: &SimDisk) -> Self {
        let index = Index::open(Arc::new(disk.clone()), 1 << 20).unwrap();
        let at = Position { segment: 1, offset: 36 };
        let version = Version::open(Arc::new(index.index_snapshot().unwrap()), at).unwrap();
        Self { index, version, cache: QueueCache::default(), at }
    }

    fn batch(&mut self, model: &mut Model, requests: &[Request], is_synced: bool) {
        let mut changed = model.clone();
        let mut tables = Tables::new(&self.version, &self.cache);
        for request in requests {
            let before = changed.clone();
            let numbers = tables.savepoint();
            request.changes.iter().for_each(|made| change(&mut tables, &mut changed, made));
            expect(tables.view(), &changed);
            if request.taken_back {
                tables.rollback(numbers);
                changed = before;
                expect(tables.view(), &changed);
            }
        }
        let memtable = tables.memtable;
        if is_synced {
            self.at.offset += 1;
            self.version.publish(memtable, self.at);
            *model = changed;
        } else {
            self.cache.forget_all();
        }
    }

    fn checkpoint(&mut self, is_heard_of: bool) -> bool {
        let Some(sealed) = self.version.seal() else { return false };
        self.index.checkpoint(&sealed).unwrap();
        if is_heard_of {
            self.version.install(Arc::new(self.index.index_snapshot().unwrap()));
        } else {
            self.version.install(Arc::new(self.index.reopen().unwrap()));
        }
        assert_eq!(self.version.index_snapshot().position, Some(sealed.position));
        true
    }

    /// All is in the index afterwards.
    fn rewrite(&mut self, model: &mut Model, mut batches: Vec<Vec<Request>>) {
        while self.checkpoint(true) {}
        let nowhere = Index::open(Arc::new(SimDisk::new()), 1 << 20).unwrap();
        let mut index = std::mem::replace(&mut self.index, nowhere);
        let index_snapshot = Arc::clone(self.version.index_snapshot());
        let rewritten = index.rewrite(index_snapshot, &mut |index| {
            let Some(requests) = batches.pop() else { return Ok(None) };
            self.batch(model, &requests, true);
            let Some(sealed) = self.version.seal() else { return Ok(None) };
            index.checkpoint(&sealed)?;
            let index_snapshot = Arc::new(index.index_snapshot()?);
            self.version.install(Arc::clone(&index_snapshot));
            Ok(Some((sealed, index_snapshot)))
        });
        drop(rewritten.unwrap());
        self.index = index;
        self.version.install(Arc::new(self.index.index_snapshot().unwrap()));
    }

    fn restart(&mut self) {
        let index_snapshot = Arc::new(self.index.reopen().unwrap());
        self.at = index_snapshot.position.unwrap_or(self.at);
        self.version = Version::open(index_snapshot, self.at).unwrap();
        self.cache.forget_all();
    }
}

proptest! {
    #![proptest_config(crate::samples::config())]

    #[test]
    fn layers_show_what_a_map_would_show(steps in steps()) {
        let (mut stack, mut model) = (Stack::on(&SimDisk::new()), Model::default());
        let (mut sealed, mut durable) = (None, Model::default());
        for step in steps {
            match step {
                Step::Batch(requests, is_synced) => stack.batch(&mut model, &requests, is_synced),
                Step::Freeze => {
                    if stack.version.seal().is_some() {
                        sealed.get_or_insert_with(|| model.clone());
                    }
                }
                Step::Checkpoint(is_heard_of) => {
                    if stack.checkpoint(is_heard_of) {
                        durable = sealed.take().unwrap_or_else(|| model.clone());
                    }
                }
                Step::Rewrite(batches) => {
                    stack.rewrite(&mut model, batches);
                    (durable, sealed) = (model.clone(), None);
                }
                Step::Restart => {
                    stack.restart();
                    (model, sealed) = (durable.clone(), None);
                }
            }
            expect(stack.version.synced(), &model);
            expect_excerpts(&stack.version, &model);
            assert_eq!(stack.version.numbers(), model.numbers);
        }
    }
}

/// A sync fails once, anywhere in a checkpoint: what the index then says that it holds, it holds
/// after a power cut too. Segments are unlinked on the strength of that.
#[test]
fn what_a_reopened_index_holds_is_durable() {
    for at in 0.. {
        let disk = SimDisk::new();
        let mut stack = Stack::on(&disk);
        for value in [1, 2] {
            let changes = vec![Change::Row(1, 2, Some(value))];
            stack.batch(&mut Model::default(), &[Request { changes, taken_back: false }], true);
            let sealed = stack.version.seal().unwrap();
            if value == 1 {
                stack.index.checkpoint(&sealed).unwrap();
                drop(stack.version.install(Arc::new(stack.index.index_snapshot().unwrap())));
                disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
            } else if stack.index.checkpoint(&sealed).is_ok() {
                assert!(at > 1, "a checkpoint syncs more than once");
                return;
            }
        }
        let held = stack.index.reopen().unwrap().position;
        let left = Index::open(Arc::new(disk.after_crash(Survival::None)), 1 << 20).unwrap();
        assert_eq!(left.index_snapshot().unwrap().position, held, "sync {at} failed");
    }
}

/// A sync fails once, anywhere while the index is written anew: what a later checkpoint says that
/// it holds, it holds after a power cut too, whichever of the two files has the name then.
#[test]
fn what_an_index_holds_that_was_to_be_written_anew_is_durable() {
    for at in 0.. {
        let disk = SimDisk::new();
        let mut stack = Stack::on(&disk);
        let checkpoint = |stack: &mut Stack, value| {
            let changes = vec![Change::Row(1, 2, Some(value))];
            stack.batch(&mut Model::default(), &[Request { changes, taken_back: false }], true);
            assert!(stack.checkpoint(true));
        };
        checkpoint(&mut stack, 1);
        disk.fail(Fault { at, ..Fault::next(Some(Class::Sync), io::ErrorKind::Other) });
        let index_snapshot = Arc::clone(stack.version.index_snapshot());
        if stack.index.rewrite(index_snapshot, &mut |_| Ok(None)).is_ok() {
            assert!(at > 1, "the file and its name are synced");
            return;
        }
        let index_snapshot = stack.index.reopen().unwrap();
        drop(stack.version.install(Arc::new(index_snapshot)));
        checkpoint(&mut stack, 2);
        let left = Index::open(Arc::new(disk.after_crash(Survival::None)), 1 << 20).unwrap();
        assert_eq!(left.index_snapshot().unwrap().position, Some(stack.at), "sync {at} failed");
    }
}

/// An item that came back after damage may be live for longer than what was pushed since. What is
/// behind it is, too: pages and sweeps find their way along a queue by its deadlines.
#[test]
fn no_item_is_over_before_one_that_is_in_front_of_it() {
    let stack = Stack::on(&SimDisk::new());
    let mut tables = Tables::new(&stack.version, &stack.cache);
    let item = crate::samples::item_row();
    for number in 1..=2 * APART_FROM_ITEMS as u64 {
        let id = ItemId { chunk_index: u32::try_from(number).unwrap(), ..item.id };
        let deadline = Timestamp::from_ms(1000 - number);
        let item = ItemRow { seq: Seq::new(number), id, deadline, ..item.clone() };
        let open = tables.open(1).unwrap();
        let mut open = open.unwrap_or_else(|| tables.make_queue(1, recipient(1)));
        tables.add_item(&mut open, item, None).unwrap();
        tables.close(open).unwrap();
        let (rows, mut items) = (tables.rows(1).unwrap().unwrap(), Vec::new());
        rows.scan(Seq::ZERO, &mut |item| {
            items.push(item);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(items.len() as u64, number);
        assert!(items.iter().all(|item| item.deadline.as_ms() == 999), "with {number} items");
        assert_eq!(rows.row.ends, Ends::of(&items));
    }
}

#[test]
fn an_item_goes_where_its_own_record_goes_and_nowhere_else() {
    let stack = Stack::on(&SimDisk::new());
    let mut tables = Tables::new(&stack.version, &stack.cache);
    let (item, to) = (crate::samples::item(), Location { segment: 2, offset: 36, length: 1 });
    let mut open = tables.make_queue(1, recipient(1));
    tables.add_item(&mut open, crate::samples::item_row(), None).unwrap();
    tables.close(open).unwrap();
    let mut move_by = |queue, name, item: &relay_core::Item<()>| {
        let body = item_head(queue, &recipient(name), item);
        tables.move_item(&ItemRecord::parse(&body).unwrap(), None, to).unwrap()
    };
    let other = relay_core::Item { message_id: relay_core::MessageId::from_bytes([7; 16]), ..item.clone() };
    assert!(!move_by(1, 2, &item), "it is of somebody else");
    assert!(!move_by(2, 1, &item), "it is of another queue");
    assert!(!move_by(1, 1, &other), "it is of another item");
    assert!(move_by(1, 1, &item));
    let moved = tables.rows(1).unwrap().unwrap().read_item(item.seq).unwrap().unwrap();
    assert_eq!(moved.location, to);
}
