//! Compares random sequences of commits, rewinds and reopenings with a list in memory.

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use relay_disk::{SimDisk, Survival};
use relay_journal::{Frame, Journal, Location};

use crate::support::{Bodies, open, open_from, slow};

/// A frame as it is appended: kind, head, and the length of the tail.
type Draft = (u8, Vec<u8>, usize);

#[derive(Clone, Debug)]
enum Operation {
    /// Appends the first list, appends and rewinds the second, then appends the third.
    Commit(Vec<Draft>, Vec<Draft>, Vec<Draft>),
    Drop(Vec<Draft>),
    Reopen,
}

fn drafts() -> impl Strategy<Value = Vec<Draft>> {
    let tail = prop_oneof![6 => 0..200_usize, 2 => 16_000..17_000_usize, 1 => 0..300_000_usize];
    proptest::collection::vec((1..=255_u8, proptest::collection::vec(any::<u8>(), 0..40), tail), 0..6)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (drafts(), drafts(), drafts()).prop_map(|(first, rewound, rest)| Operation::Commit(first, rewound, rest)),
        1 => drafts().prop_map(Operation::Drop),
        1 => Just(Operation::Reopen),
    ]
}

fn tail(draft: &Draft) -> Bytes {
    Bytes::from(vec![draft.0 ^ 0x55; draft.2])
}

fn body(draft: &Draft) -> (u8, Vec<u8>) {
    (draft.0, [&draft.1[..], &tail(draft)].concat())
}

fn commit(journal: &mut Journal, first: &[Draft], rewound: &[Draft], rest: &[Draft]) -> Vec<Location> {
    let mut batch = journal.begin().unwrap();
    let mut locations = Vec::new();
    for draft in first {
        locations.push(batch.append(draft.0, &draft.1, tail(draft)));
    }
    let mark = batch.mark();
    for draft in rewound {
        batch.append(draft.0, &draft.1, tail(draft));
    }
    batch.rewind(mark);
    for draft in rest {
        locations.push(batch.append(draft.0, &draft.1, tail(draft)));
    }
    journal.commit(batch).unwrap();
    locations
}

fn run(segment_bytes: u64, operations: Vec<Operation>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, segment_bytes).journal;
    let mut batches: Vec<Bodies> = Vec::new();
    let mut locations: Vec<Location> = Vec::new();
    let mut positions = vec![(journal.end(), 0)];
    for operation in operations {
        match operation {
            Operation::Commit(first, rewound, rest) => {
                locations.extend(commit(&mut journal, &first, &rewound, &rest));
                let bodies: Bodies = first.iter().chain(&rest).map(body).collect();
                batches.extend((!bodies.is_empty()).then_some(bodies));
                positions.push((journal.end(), batches.len()));
            }
            Operation::Drop(drafts) => {
                let mut batch = journal.begin().unwrap();
                for draft in &drafts {
                    batch.append(draft.0, &draft.1, tail(draft));
                }
            }
            Operation::Reopen => {
                let found = open(&disk, segment_bytes);
                assert_eq!(found.bodies(), batches);
                journal = found.journal;
            }
        }
    }
    for (position, skipped) in positions {
        let found = open_from(&disk.after_crash(Survival::None), segment_bytes, Some(position));
        assert_eq!(found.bodies(), batches[skipped..]);
        assert_eq!((found.opened.damage, found.opened.torn_bytes), (vec![], 0));
    }
    let expected: Vec<_> = batches.concat().into_iter().zip(locations.iter().copied()).collect();
    let plain = |frame: Frame| ((frame.kind, frame.body.to_vec()), frame.location);
    let read: Vec<_> =
        journal.reader().read(&locations).into_iter().map(|result| plain(result.unwrap())).collect();
    assert_eq!(read, expected);
    let mut scanned = Vec::new();
    for segment in journal.reader().segments() {
        let visit = |step: Result<Frame, _>| {
            scanned.push(plain(step.unwrap()));
            ControlFlow::Continue(())
        };
        journal.reader().scan(segment.id, visit).unwrap();
    }
    assert_eq!(scanned, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: slow(500, 48), ..ProptestConfig::default() })]

    #[test]
    fn a_journal_behaves_like_a_list(
        segment_bytes in prop_oneof![Just(1), 100..5000_u64, Just(1 << 20)],
        operations in proptest::collection::vec(operation(), 0..20),
    ) {
        run(segment_bytes, operations);
    }
}
