//! Disk calls fail, one or several in a row, at every position. Committed batches stay, failed ones
//! do not return, and later ones succeed.

use std::io::ErrorKind;
use std::sync::Arc;

use relay_disk::{Call, Class, Disk, Fault, HookedDisk, SimDisk, Survival};
use relay_journal::JournalError;

use crate::script::Run;
use crate::support::{commit, open, slow, texts, try_commit, try_open};

fn survivals() -> impl Iterator<Item = Survival> {
    let torn = (0..slow(12, 3)).map(Survival::Torn);
    [Survival::None, Survival::All].into_iter().chain(torn)
}

fn check_all(fault: impl Fn(u64) -> Fault) {
    let clean = SimDisk::new();
    Run::on(&clean);
    for at in 0..clean.calls() {
        let disk = SimDisk::new();
        disk.fail(fault(at));
        let run = Run::on(&disk);
        disk.heal();
        for survival in survivals() {
            run.check(&disk, survival);
        }
    }
}

#[test]
fn every_call_fails_once() {
    for partly in slow(vec![0, 1, 36, 300], vec![0, 300]) {
        check_all(|at| Fault { at, partly, ..Fault::next(None, ErrorKind::Other) });
    }
}

#[test]
fn several_calls_in_a_row_fail() {
    for times in slow(vec![2, 3, 4, 5, 7, 12], vec![3, 7]) {
        check_all(|at| Fault { at, times, partly: 40, ..Fault::next(None, ErrorKind::StorageFull) });
    }
}

#[test]
fn only_syncs_or_only_writes_fail_for_a_while() {
    for class in [Class::Sync, Class::Write] {
        for times in slow(vec![2, 3, 5, 9], vec![3]) {
            check_all(|at| Fault { at, times, partly: 100, ..Fault::next(Some(class), ErrorKind::Other) });
        }
    }
}

#[test]
fn a_full_disk_is_reported_and_used_again_when_it_has_space() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["before"]));
    disk.space_limit(Some(disk.bytes_used() + 20));
    for _ in 0..50 {
        let error = try_commit(&mut journal, &texts(&["too much for the disk"])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }
    assert_eq!(journal.reader().segments().len(), 1, "failed attempts leave files");
    assert_eq!(journal.reader().read(&[]).len(), 0);

    disk.space_limit(None);
    commit(&mut journal, &texts(&["after"]));
    let found = open(&disk.after_crash(Survival::None), 1 << 20);
    assert_eq!(found.bodies(), [texts(&["before"]), texts(&["after"])]);
    assert_eq!(disk.contents("journal-0000000001.seg").unwrap().len(), 36 + 26);
}

#[test]
fn a_journal_on_a_full_disk_can_be_opened_and_read() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    let locations = commit(&mut journal, &texts(&["before"]));
    disk.space_limit(Some(0));
    let mut found = open(&disk, 1);
    assert_eq!(found.bodies(), [texts(&["before"])]);
    assert_eq!(found.journal.reader().read(&locations)[0].as_ref().unwrap().body, "before");
    assert_eq!(found.journal.begin().unwrap_err().kind(), ErrorKind::StorageFull);
}

#[test]
fn errors_name_the_failed_operation() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    assert!(matches!(journal.begin(), Err(JournalError::Segment(_))));
    commit(&mut journal, &texts(&["a"]));
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    assert!(matches!(try_commit(&mut journal, &texts(&["b"])), Err(JournalError::Write(_))));
    disk.fail(Fault { times: u64::MAX, ..Fault::next(Some(Class::Sync), ErrorKind::StorageFull) });
    let error = try_open(Arc::new(disk), 1 << 20, None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
}

#[test]
fn a_batch_is_excluded_before_its_failed_sync_is_reported() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["a"]));
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    try_commit(&mut journal, &texts(&["b"])).unwrap_err();
    let torn = (0..40).map(Survival::Torn);
    for survival in [Survival::None, Survival::All].into_iter().chain(torn) {
        let crashed = disk.after_crash(survival);
        // Reopening without a write must not change the result.
        for _ in 0..3 {
            assert_eq!(open(&crashed, 1 << 20).bodies(), [texts(&["a"])]);
        }
        assert_eq!(open(&crashed.after_crash(Survival::None), 1 << 20).bodies(), [texts(&["a"])]);
    }
}

#[test]
fn a_replayed_batch_is_durable_even_after_a_failed_sync() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["a"]));
    // The batch is written. Then its sync, its truncation and the creation of the next segment
    // fail.
    disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
    disk.fail(Fault { at: 1, times: 2, ..Fault::next(Some(Class::Write), ErrorKind::Other) });
    try_commit(&mut journal, &texts(&["b"])).unwrap_err();
    drop(journal);
    let both = [texts(&["a"]), texts(&["b"])];
    assert_eq!(open(&disk, 1 << 20).bodies(), both);
    assert_eq!(open(&disk.after_crash(Survival::None), 1 << 20).bodies(), both);
}

#[test]
fn a_segment_whose_first_batch_fails_is_removed() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    commit(&mut journal, &texts(&["a"]));
    journal.begin().unwrap();
    disk.fail(Fault { partly: 9, ..Fault::next(Some(Class::Write), ErrorKind::Other) });
    try_commit(&mut journal, &texts(&["b"])).unwrap_err();
    commit(&mut journal, &texts(&["c"]));
    let ids: Vec<u32> = journal.reader().segments().iter().map(|segment| segment.id).collect();
    assert_eq!(ids, [1, 3]);
    assert_eq!(disk.contents("journal-0000000002.seg"), None);
    assert_eq!(open(&disk, 1).bodies(), [texts(&["a"]), texts(&["c"])]);
}

#[test]
fn files_that_cannot_be_removed_do_not_accumulate() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    // The file is created, but the write of its header and its removal fail.
    for _ in 0..100 {
        disk.fail(Fault { at: 1, times: u64::MAX, ..Fault::next(Some(Class::Write), ErrorKind::Other) });
        journal.begin().unwrap_err();
        disk.heal();
    }
    let files = (1..500).filter(|id| disk.contents(&format!("journal-{id:010}.seg")).is_some()).count();
    assert!(files <= 1, "{files}");
}

const RESERVED_BYTES: u64 = 64 << 10;

/// The free space of a nearly full disk belongs to whatever needs it now, such as an index that
/// must grow before anything can be removed.
#[test]
fn a_new_segment_reserves_no_space_on_a_nearly_full_disk() {
    for (segments_free, is_plenty) in [(3, false), (5, true)] {
        let disk = SimDisk::new();
        let mut journal = open(&disk, RESERVED_BYTES).journal;
        disk.space_limit(Some(segments_free * RESERVED_BYTES));
        commit(&mut journal, &texts(&["a"]));
        let allocated = segments_free * RESERVED_BYTES - disk.free_bytes().unwrap().unwrap();
        assert_eq!(allocated, if is_plenty { RESERVED_BYTES } else { disk.bytes_used() });
    }
}

#[test]
fn a_partial_reservation_is_released() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, RESERVED_BYTES).journal;
    disk.space_limit(Some(RESERVED_BYTES / 2));
    // The disk fails to report its free space.
    disk.fail(Fault::next(Some(Class::Read), ErrorKind::Other));
    let batch = journal.begin().unwrap();
    assert_eq!(disk.free_bytes().unwrap(), Some(RESERVED_BYTES / 2 - 36), "all but the header");
    disk.create("another").unwrap().write_all_at(&[&[1; 1000]], 0).unwrap();
    drop(batch);
    commit(&mut journal, &texts(&["a"]));
    assert_eq!(open(&disk.after_crash(Survival::None), RESERVED_BYTES).bodies(), [texts(&["a"])]);
}

/// Batch `b` fails in segment 1, and the header of segment 2 excludes it. The first batch of
/// segment 2, `c`, fails too, so segment 2 is removed, and segment 3 cannot be created. The journal
/// has reported the failure of `b`, so `b` must stay excluded.
#[test]
fn a_failed_batch_stays_excluded_when_the_segment_that_excludes_it_is_removed() {
    for is_cut_off in [true, false] {
        let disk = SimDisk::new();
        let hook = |call: Call<'_>| match call {
            Call::Create("journal-0000000003.seg") => Err(ErrorKind::Other.into()),
            _ => Ok(()),
        };
        let hooked = Arc::new(HookedDisk::new(disk.clone(), hook));
        let mut journal = try_open(hooked, 1 << 20, None).unwrap().journal;
        commit(&mut journal, &texts(&["a"]));
        disk.fail(Fault::next(Some(Class::Sync), ErrorKind::Other));
        if !is_cut_off {
            disk.fail(Fault { at: 1, ..Fault::next(Some(Class::Write), ErrorKind::Other) });
        }
        try_commit(&mut journal, &texts(&["b"])).unwrap_err();
        assert!(disk.contents("journal-0000000002.seg").is_some(), "segment 2 names the end of segment 1");
        disk.fail(Fault::next(Some(Class::Write), ErrorKind::Other));
        try_commit(&mut journal, &texts(&["c"])).unwrap_err();
        assert!(disk.contents("journal-0000000002.seg").is_none());
        for survival in [Survival::None, Survival::All].into_iter().chain((0..200).map(Survival::Torn)) {
            let found = open(&disk.after_crash(survival), 1 << 20).bodies();
            assert_eq!(found, [texts(&["a"])], "{survival:?}, cut off at once: {is_cut_off}");
        }
    }
}
