//! Behaviour of the simulated disk alone: planned faults, crashes and counters.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use relay_disk::{Class, Disk, DiskFile, Fault, SimDisk, Survival};

/// A disk with one durable file that holds `text`.
fn disk_with(name: &str, text: &str) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let file = disk.create(name).unwrap();
    write(&*file, 0, text).unwrap();
    file.sync().unwrap();
    disk.sync().unwrap();
    (disk, file)
}

fn write(file: &dyn DiskFile, offset: u64, text: &str) -> io::Result<()> {
    file.write_all_at(&[text.as_bytes()], offset)
}

fn text(disk: &SimDisk, name: &str) -> Option<String> {
    disk.contents(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of `a` after each kind of crash; for torn crashes, all results of 200 seeds.
fn after_crashes(disk: &SimDisk) -> (Option<String>, Option<String>, BTreeSet<Option<String>>) {
    let after = |survival| text(&disk.after_crash(survival), "a");
    let torn = (0..200).map(|seed| after(Survival::Torn(seed))).collect();
    (after(Survival::None), after(Survival::All), torn)
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_write_is_pending_until_its_file_is_synced() {
    let (disk, file) = disk_with("a", "old");
    write(&*file, 0, "new").unwrap();
    let (none, all, torn) = after_crashes(&disk);
    assert_eq!((none, all), (some("old"), some("new")));
    let prefixes = ["old", "nld", "neld", "ned", "new"].map(some);
    assert!(torn.iter().all(|text| prefixes.contains(text)), "{torn:?}");
    assert!(torn.contains(&some("old")) && torn.contains(&some("new")) && torn.len() > 2, "{torn:?}");
    assert_eq!(text(&disk, "a"), some("new"), "`after_crash` does not change the disk");

    disk.sync().unwrap();
    assert_eq!(after_crashes(&disk).0, some("old"), "syncing names does not sync files");
    file.sync().unwrap();
    assert_eq!(after_crashes(&disk), (some("new"), some("new"), BTreeSet::from([some("new")])));
}

#[test]
fn a_length_is_pending_until_its_file_is_synced() {
    let (disk, file) = disk_with("a", "long");
    file.set_len(2).unwrap();
    let (none, all, torn) = after_crashes(&disk);
    assert_eq!((none, all), (some("long"), some("lo")));
    assert_eq!(torn, BTreeSet::from([some("long"), some("lo")]));
    file.sync().unwrap();
    assert_eq!(after_crashes(&disk).0, some("lo"));
}

#[test]
fn a_torn_write_can_lose_sectors() {
    let (disk, file) = disk_with("a", "");
    file.write_all_at(&[&[1; 300], &[1; 2000]], 100).unwrap();
    let mut holes = 0;
    for seed in 0..200 {
        let bytes = disk.after_crash(Survival::Torn(seed)).contents("a").unwrap();
        for sector in bytes.get(512..).unwrap_or_default().chunks_exact(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]) || bytes.len() < 2400, "a sector was torn");
        }
        holes += u32::from(bytes.len() == 2400 && bytes[2399] == 1 && bytes[600] == 0);
    }
    assert!(holes > 3, "{holes}");
}

#[test]
fn names_are_pending_until_the_disk_is_synced() {
    let (disk, file) = disk_with("a", "1");
    disk.rename("a", "b").unwrap();
    disk.create("c").unwrap();
    file.sync().unwrap();
    let names = |survival| disk.after_crash(survival).list().unwrap().concat();
    assert_eq!((names(Survival::None), names(Survival::All)), ("a".into(), "bc".into()));
    let torn: BTreeSet<String> = (0..100).map(|seed| names(Survival::Torn(seed))).collect();
    assert_eq!(torn, ["a", "ac", "b", "bc"].map(str::to_owned).into());

    disk.sync().unwrap();
    assert_eq!(names(Survival::None), "bc");
    disk.remove("b").unwrap();
    assert_eq!(names(Survival::None), "bc");
    assert_eq!(text(&disk.after_crash(Survival::None), "b"), some("1"));
    disk.sync().unwrap();
    assert_eq!(names(Survival::None), "c");
}

#[test]
fn after_a_failed_sync_a_write_may_be_lost_despite_later_syncs() {
    let (disk, file) = disk_with("a", "....");
    write(&*file, 0, "1").unwrap();
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    assert_eq!(kind(file.sync()), Some(ErrorKind::Other));
    write(&*file, 3, "2").unwrap();
    file.sync().unwrap();
    let (none, all, torn) = after_crashes(&disk);
    assert_eq!((none, all), (some("...2"), some("1..2")));
    assert_eq!(torn, BTreeSet::from([some("...2"), some("1..2")]));
}

#[test]
fn write_back_leaves_writes_pending_and_its_failure_may_lose_them() {
    let (disk, file) = disk_with("a", "old");
    write(&*file, 0, "new").unwrap();
    file.write_back(0, 3).unwrap();
    assert_eq!(disk.after_crash(Survival::None).contents("a").unwrap(), b"old");
    assert_eq!(kind(file.write_back(0, 4)), Some(ErrorKind::UnexpectedEof));
    disk.fail(Fault::next(Some(Class::Write), ErrorKind::Other));
    assert_eq!(kind(file.write_back(0, 3)), Some(ErrorKind::Other));
    file.sync().unwrap();
    assert_eq!(disk.after_crash(Survival::None).contents("a").unwrap(), b"old", "a sync does not report it");
}

#[test]
fn a_failed_sync_of_the_disk_leaves_names_pending() {
    let (disk, _) = disk_with("a", "");
    disk.remove("a").unwrap();
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    disk.sync().unwrap_err();
    assert_eq!(text(&disk.after_crash(Survival::None), "a"), some(""));
    assert_eq!(text(&disk.after_crash(Survival::All), "a"), None);
    disk.sync().unwrap();
    assert_eq!(text(&disk.after_crash(Survival::None), "a"), None);
}

#[test]
fn a_fault_fails_the_planned_calls_of_its_class() {
    let (disk, file) = disk_with("a", "abc");
    let fault = Fault { at: 1, times: 2, ..Fault::next(Some(Class::Read), ErrorKind::Other) };
    disk.fail(fault);
    let lens: Vec<bool> = (0..5)
        .map(|_| {
            write(&*file, 0, "x").unwrap();
            file.len().is_ok()
        })
        .collect();
    assert_eq!(lens, [true, false, false, true, true]);

    disk.fail(Fault { times: u64::MAX, ..Fault::next(None, ErrorKind::StorageFull) });
    for _ in 0..3 {
        assert_eq!(kind(file.len()), Some(ErrorKind::StorageFull));
        assert_eq!(kind(write(&*file, 0, "y")), Some(ErrorKind::StorageFull));
        assert_eq!(kind(file.sync()), Some(ErrorKind::StorageFull));
        assert_eq!(kind(disk.list()), Some(ErrorKind::StorageFull));
        assert_eq!(kind(disk.create("b")), Some(ErrorKind::StorageFull));
    }
    disk.heal();
    assert_eq!(text(&disk, "a"), some("xbc"));
    assert_eq!(disk.list().unwrap(), ["a"]);
}

#[test]
fn two_faults_count_independently() {
    let (disk, file) = disk_with("a", "");
    disk.fail(Fault::next(None, ErrorKind::Other));
    disk.fail(Fault { at: 1, ..Fault::next(Some(Class::Read), ErrorKind::StorageFull) });
    let kinds: Vec<_> = (0..3).map(|_| kind(file.len())).collect();
    assert_eq!(kinds, [Some(ErrorKind::Other), Some(ErrorKind::StorageFull), None]);
}

#[test]
fn a_failed_write_can_be_partial() {
    let (disk, file) = disk_with("a", "old");
    disk.fail(Fault { partly: 2, ..Fault::next(Some(Class::Write), ErrorKind::Other) });
    assert_eq!(kind(write(&*file, 0, "new")), Some(ErrorKind::Other));
    assert_eq!(text(&disk, "a"), some("ned"));
    assert_eq!(after_crashes(&disk).0, some("old"));
}

#[test]
fn a_full_disk_rejects_growth() {
    let (disk, file) = disk_with("a", "abc");
    assert_eq!(disk.free_bytes().unwrap(), None);
    disk.space_limit(Some(5));
    assert_eq!(disk.free_bytes().unwrap(), Some(2));
    assert_eq!(kind(write(&*file, 3, "def")), Some(ErrorKind::StorageFull));
    assert_eq!(kind(file.set_len(6)), Some(ErrorKind::StorageFull));
    assert_eq!(text(&disk, "a"), some("abc"));
    write(&*file, 1, "xyz").unwrap();
    write(&*disk.create("b").unwrap(), 0, "1").unwrap();
    assert_eq!((disk.bytes_used(), disk.free_bytes().unwrap()), (5, Some(0)));

    disk.remove("b").unwrap();
    write(&*file, 4, "!").unwrap();
    disk.remove("a").unwrap();
    assert_eq!(disk.bytes_used(), 5, "an open file occupies space");
    drop(file);
    assert_eq!(disk.bytes_used(), 0);
    disk.space_limit(None);
    write(&*disk.create("c").unwrap(), 0, "longer").unwrap();
}

/// As on ext4, a failing `reserve` keeps all available space.
#[test]
fn reserved_space_is_unavailable_to_other_files_until_set_len_frees_it() {
    let (disk, file) = disk_with("a", "abc");
    file.reserve(u64::MAX).unwrap();
    disk.space_limit(Some(20));
    assert_eq!(disk.free_bytes().unwrap(), Some(17), "without a limit, nothing is reserved");
    file.reserve(10).unwrap();
    file.reserve(5).unwrap();
    assert_eq!((disk.free_bytes().unwrap(), disk.bytes_used()), (Some(10), 3));
    write(&*file, 3, "defghij").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), Some(10), "the write uses reserved space");

    assert_eq!(kind(file.reserve(100)), Some(ErrorKind::StorageFull));
    assert_eq!(disk.free_bytes().unwrap(), Some(0), "the failed call keeps the available space");
    let other = disk.create("b").unwrap();
    assert_eq!(kind(write(&*other, 0, "1")), Some(ErrorKind::StorageFull));
    file.set_len(10).unwrap();
    assert_eq!(disk.free_bytes().unwrap(), Some(10));
    write(&*other, 0, "1").unwrap();

    disk.fail(Fault::next(Some(Class::Write), ErrorKind::Other));
    assert_eq!(kind(file.reserve(12)), Some(ErrorKind::Other));
    assert_eq!((disk.free_bytes().unwrap(), text(&disk, "a")), (Some(9), some("abcdefghij")));
}

#[test]
fn a_power_cut_at_a_sync_leaves_its_changes_pending() {
    let (disk, file) = disk_with("a", "0");
    disk.cut_at_sync(1);
    write(&*file, 0, "1").unwrap();
    file.sync().unwrap();
    write(&*file, 0, "2").unwrap();
    assert!(!disk.power_cut());
    file.sync().unwrap_err();
    assert!(disk.power_cut());
    disk.heal();
    assert!(file.len().is_err() && write(&*file, 0, "3").is_err() && disk.list().is_err());
    let (none, all, torn) = after_crashes(&disk);
    assert_eq!((none, all), (some("1"), some("2")));
    assert_eq!(torn, BTreeSet::from([some("1"), some("2")]));
}

#[test]
fn a_power_cut_at_a_write_leaves_it_pending() {
    let (disk, file) = disk_with("a", "0");
    disk.cut_at_write(1);
    write(&*file, 0, "1").unwrap();
    file.sync().unwrap();
    write(&*file, 0, "2").unwrap_err();
    assert!(disk.power_cut() && file.sync().is_err());
    let (none, all, _) = after_crashes(&disk);
    assert_eq!((none, all), (some("1"), some("2")));

    let (disk, _) = disk_with("a", "0");
    disk.cut_at_write(0);
    disk.remove("a").unwrap_err();
    let (none, all, _) = after_crashes(&disk);
    assert_eq!((none, all), (some("0"), None));
}

#[test]
fn after_crash_returns_an_independent_disk_without_faults() {
    let (disk, file) = disk_with("a", "1");
    disk.space_limit(Some(1));
    disk.cut_at_write(0);
    write(&*file, 0, "2").unwrap_err();
    let crashed = disk.after_crash(Survival::None);
    let reopened = crashed.open("a").unwrap();
    write(&*reopened, 0, "345").unwrap();
    assert_eq!((text(&crashed, "a"), crashed.power_cut()), (some("345"), false));
    assert_eq!(text(&crashed.after_crash(Survival::None), "a"), some("1"), "surviving bytes are durable");
    assert_eq!(text(&disk.after_crash(Survival::None), "a"), some("1"));
}

#[test]
fn edits_are_durable() {
    let (disk, file) = disk_with("a", "abc");
    write(&*file, 0, "x").unwrap();
    disk.edit("a", |bytes| bytes[1] ^= 1);
    assert_eq!(text(&disk.after_crash(Survival::None), "a"), some("xcc"));
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"xcc");
}

#[test]
fn every_call_counts_once() {
    let disk = SimDisk::new();
    let file = disk.create("a").unwrap();
    write(&*file, 0, "abc").unwrap();
    file.set_len(2).unwrap();
    file.reserve(9).unwrap();
    file.write_back(0, 2).unwrap();
    file.sync().unwrap();
    disk.sync().unwrap();
    disk.rename("a", "b").unwrap();
    disk.list().unwrap();
    disk.free_bytes().unwrap();
    disk.open("b").unwrap();
    file.len().unwrap();
    assert_eq!(disk.file_len("b").unwrap(), 2);
    file.read_exact_at(&mut [0], 0).unwrap();
    disk.remove("b").unwrap();
    disk.open("b").unwrap_err();
    assert_eq!((disk.calls(), disk.writes(), disk.syncs()), (16, 7, 2));
    assert_eq!(disk.written_bytes(), 3);
}
