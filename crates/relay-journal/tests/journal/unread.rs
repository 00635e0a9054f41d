//! A journal that is never replayed, because its frame locations are stored elsewhere. It shares
//! its disk with another journal.

use std::sync::Arc;

use bytes::Bytes;
use relay_disk::{Class, Disk, Fault, SimDisk};
use relay_journal::{Journal, Location, Options};

use crate::support::{commit, open};

/// A journal with one batch in each segment.
fn payloads(disk: &SimDisk, last: u32) -> Journal {
    let options = Options { name: "payload", segment_bytes: 0, ..Options::default() };
    Journal::open_unread(Arc::new(disk.clone()), options, last).unwrap()
}

fn write(journal: &mut Journal, body: &'static [u8]) -> Location {
    let mut batch = journal.begin().unwrap();
    let location = batch.append(1, b"", Bytes::from_static(body));
    journal.commit(batch).unwrap();
    location
}

fn body(journal: &Journal, location: Location) -> Option<Bytes> {
    journal.reader().read(&[location]).remove(0).ok().map(|frame| frame.body)
}

#[test]
fn each_batch_has_its_own_removable_file() {
    let disk = SimDisk::new();
    let mut journal = payloads(&disk, 0);
    let first = write(&mut journal, b"first");
    let second = write(&mut journal, b"second");
    assert_eq!((first.segment, second.segment), (1, 2));
    journal.reader().remove(2, &|| ()).unwrap();
    assert_eq!(disk.list().unwrap(), ["payload-0000000001.seg"]);
    assert_eq!((body(&journal, first).unwrap(), body(&journal, second)), ("first".into(), None));
    assert_eq!(write(&mut journal, b"third").segment, 3, "a number is used twice");
}

#[test]
fn opening_reads_no_segment_and_continues_after_all_numbers() {
    let disk = SimDisk::new();
    let first = write(&mut payloads(&disk, 0), b"first");
    disk.create("payload-0000000005.seg").unwrap().write_all_at(&[b"no header"], 0).unwrap();
    let mut journal = payloads(&disk, 0);
    assert_eq!(body(&journal, first).unwrap(), "first");
    assert_eq!(write(&mut journal, b"next").segment, 6);
    let mut journal = payloads(&disk, 9);
    assert_eq!(write(&mut journal, b"after the given number").segment, 10);
}

#[test]
fn two_journals_on_one_disk_are_independent() {
    let disk = SimDisk::new();
    let mut main = open(&disk, 100).journal;
    commit(&mut main, &vec![(1, b"main".to_vec())]);
    let mut journal = payloads(&disk, 0);
    let first = write(&mut journal, b"first");
    let segments: Vec<_> = journal.reader().segments().iter().map(|segment| segment.id).collect();
    assert_eq!(segments, [1]);
    let found = open(&disk, 100);
    assert_eq!(found.bodies(), [vec![(1, b"main".to_vec())]]);
    assert_eq!(body(&journal, first).unwrap(), "first");
}

#[test]
fn a_failed_batch_leaves_no_file_and_the_next_uses_another() {
    let disk = SimDisk::new();
    let mut journal = payloads(&disk, 0);
    let mut batch = journal.begin().unwrap();
    batch.append(1, b"", Bytes::from_static(b"lost"));
    disk.fail(Fault::next(Some(Class::Sync), std::io::ErrorKind::StorageFull));
    assert_eq!(journal.commit(batch).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let location = write(&mut journal, b"kept");
    assert_eq!(disk.list().unwrap(), ["payload-0000000002.seg"]);
    assert_eq!(body(&journal, location).unwrap(), "kept");
}
