//! Building batches, committing them, and replaying them.

use std::sync::Arc;

use bytes::Bytes;
use relay_disk::SimDisk;
use relay_journal::{Journal, OpenError, Options, Position, Segment};

use crate::support::{bodies, commit, open, open_from, read_one, texts};

#[test]
fn a_new_journal_is_empty_and_writes_nothing() {
    let disk = SimDisk::new();
    let found = open(&disk, 1 << 20);
    assert_eq!((found.journal.end(), found.journal.reader().segments()), (Position::default(), vec![]));
    assert_eq!(disk.writes(), 0);
}

#[test]
fn a_replay_returns_the_committed_batches() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let batches = [texts(&["a", "", "c"]), texts(&["d"]), vec![(255, vec![0; 70_000]), (7, vec![1; 3])]];
    for batch in &batches {
        commit(&mut journal, batch);
    }
    let found = open(&disk, 1 << 20);
    assert_eq!(found.bodies(), batches);
    assert_eq!(found.journal.end(), journal.end());
    assert_eq!(found.opened.torn_bytes, 0);
}

#[test]
fn a_commit_takes_one_write_and_one_sync() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["a"]));
    let before = (disk.writes(), disk.syncs(), disk.calls());
    commit(&mut journal, &vec![(1, vec![0; 40_000]); 30]);
    assert_eq!((disk.writes(), disk.syncs(), disk.calls()), (before.0 + 1, before.1 + 1, before.2 + 2));
}

#[test]
fn a_nearly_full_page_is_filled() {
    // A segment header has 36 bytes, and a frame header 20.
    for (frame_bytes, end) in [
        (4060, 4096),
        (4050, 4086),
        (4040, 4096),
        (3500, 4096),
        (3240, 3276),
        (6108, 6144),
        (10_204, 10_240 + 2048),
        (10_203, 10_239),
        (1_000_000, 1_000_036),
        (1_002_000, 1_003_520),
    ] {
        let disk = SimDisk::new();
        let mut journal = open(&disk, 1 << 30).journal;
        let mut batch = journal.begin().unwrap();
        batch.append(1, &vec![7; frame_bytes - 20], Bytes::new());
        batch.fill_page(9);
        let filled = end as usize - 36 - frame_bytes;
        assert_eq!(journal.commit(batch).unwrap(), Position { segment: 1, offset: end });
        commit(&mut journal, &texts(&["next"]));
        let mut first = vec![(1, vec![7; frame_bytes - 20])];
        first.extend((filled > 0).then(|| (9, vec![0; filled - 20])));
        let found = open(&disk, 1 << 30);
        assert_eq!((found.bodies(), found.opened.damage), (vec![first, texts(&["next"])], vec![]));
    }
    let disk = SimDisk::new();
    let mut batch = open(&disk, 1 << 20).journal.begin().unwrap();
    batch.fill_page(9);
    assert!(batch.is_empty());
}

#[test]
fn an_empty_batch_causes_no_disk_calls() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let end = {
        let batch = journal.begin().unwrap();
        journal.commit(batch).unwrap()
    };
    assert_eq!(end, Position::default());
    commit(&mut journal, &texts(&["a"]));
    let calls = disk.calls();
    let batch = journal.begin().unwrap();
    assert!(batch.is_empty() && batch.bytes() == 0);
    assert_eq!(journal.commit(batch).unwrap(), Position { segment: 1, offset: 57 });
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_dropped_batch_has_no_effect() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let mut batch = journal.begin().unwrap();
    let dropped = batch.append(1, b"dropped", Bytes::from(vec![0; 20_000]));
    drop(batch);
    let locations = commit(&mut journal, &texts(&["a"]));
    assert_eq!((locations[0].segment, locations[0].offset), (dropped.segment, dropped.offset));
    assert_eq!(open(&disk, 1 << 20).bodies(), [texts(&["a"])]);
}

#[test]
fn rewinding_a_batch_removes_its_later_frames() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let large = Bytes::from(vec![9; 20_000]);
    let mut batch = journal.begin().unwrap();
    let nothing = batch.mark();
    batch.append(1, b"x", large.clone());
    batch.rewind(nothing);
    assert!(batch.is_empty() && batch.bytes() == 0);
    let first = batch.append(1, b"first", Bytes::new());
    let mark = batch.mark();
    let rewound = batch.append(2, b"y", large.clone());
    batch.append(0, b"z", Bytes::new());
    batch.rewind(mark);
    let second = batch.append(3, b"se", Bytes::from_static(b"cond"));
    assert_eq!((first.offset, second.offset), (36, rewound.offset));
    assert_eq!(batch.bytes(), u64::from(first.length + second.length));
    journal.commit(batch).unwrap();
    let found = open(&disk, 1 << 20);
    assert_eq!(found.bodies(), [vec![(1, b"first".to_vec()), (3, b"second".to_vec())]]);

    let mut batch = journal.begin().unwrap();
    let mark = batch.mark();
    batch.append(1, b"x", large);
    batch.rewind(mark);
    let end = journal.commit(batch).unwrap();
    assert_eq!(end, found.journal.end());
}

#[test]
fn head_and_tail_of_any_size_form_one_body() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let sizes = [0, 1, 16_383, 16_384, 100_000];
    let mut batch = journal.begin().unwrap();
    let mut expected = Vec::new();
    for head in sizes {
        for tail in sizes {
            let (head, tail) = (vec![1; head], vec![2; tail]);
            let location = batch.append(5, &head, Bytes::from(tail.clone()));
            expected.push((location, (5, [head, tail].concat())));
        }
    }
    journal.commit(batch).unwrap();
    let reader = journal.reader();
    for (location, body) in &expected {
        assert_eq!(&bodies(&[read_one(&reader, *location).unwrap()])[0], body);
    }
    let found = open(&disk, 1 << 20);
    assert_eq!(found.bodies()[0], expected.iter().map(|(_, body)| body.clone()).collect::<Vec<_>>());
    let locations = found.batches[0].iter().map(|frame| frame.location);
    assert!(locations.eq(expected.iter().map(|(location, _)| *location)));
}

#[test]
fn a_full_segment_takes_no_further_batch() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 100).journal;
    for text in ["a", "b", "c", &"d".repeat(200), "e"] {
        commit(&mut journal, &texts(&[text]));
    }
    let segments = [(1, 99 + 220), (2, 57)].map(|(id, bytes)| Segment { id, bytes });
    assert_eq!(journal.reader().segments(), segments);
    assert_eq!(journal.end(), Position { segment: 2, offset: 57 });
    assert_eq!(open(&disk, 100).journal.reader().segments(), segments);
}

#[test]
fn the_segment_length_is_clamped_to_its_limits() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, u64::MAX).journal;
    commit(&mut journal, &texts(&["a"]));
    assert_eq!(journal.reader().segments().len(), 1);
    let default = Options::default();
    assert_eq!(default.segment_bytes, 64 << 20);
}

#[test]
fn a_replay_begins_at_the_given_position() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 150).journal;
    let mut ends = vec![journal.end()];
    let batches: Vec<_> = (0..12).map(|n| texts(&["batch", &n.to_string()])).collect();
    for batch in &batches {
        commit(&mut journal, batch);
        ends.push(journal.end());
    }
    assert!(ends.is_sorted() && journal.reader().segments().len() > 3);
    for (done, end) in ends.iter().enumerate() {
        let found = open_from(&disk, 150, Some(*end));
        assert_eq!(found.bodies(), batches[done..], "from {end:?}");
        assert_eq!((found.journal.end(), &found.opened.damage), (journal.end(), &vec![]));
    }
}

#[test]
fn segments_before_the_position_are_not_read() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    commit(&mut journal, &texts(&["a"]));
    let from = journal.end();
    commit(&mut journal, &texts(&["b"]));
    disk.edit("journal-0000000001.seg", |bytes| bytes.fill(0xff));
    let found = open_from(&disk, 1, Some(from));
    assert_eq!((found.bodies(), found.opened.damage.len()), (vec![texts(&["b"])], 0));
}

#[test]
fn a_rejected_batch_ends_the_replay() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    for text in ["a", "b", "c"] {
        commit(&mut journal, &texts(&[text]));
    }
    let mut seen = 0;
    let error = Journal::open(Arc::new(disk), Options::default(), None, |batch| {
        seen += 1;
        if batch[0].body == "b" { Err("no b") } else { Ok(()) }
    });
    assert!(matches!(error, Err(OpenError::Replay("no b"))));
    assert_eq!(seen, 2);
}
