//! Reading by location, and scanning: correct frames in the correct order, few disk calls, and an
//! error for every failure.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_disk::{Call, Class, Fault, HookedDisk, SimDisk};
use relay_journal::{Damage, Frame, Location, ReadError, Reader};

use crate::support::{Bodies, SEGMENT, commit, open, open_from, read_one, texts, try_open};

fn numbered(frames: usize, bytes: usize) -> Bodies {
    (0..frames).map(|n| (1, n.to_string().repeat(bytes).as_bytes()[..bytes].to_vec())).collect()
}

fn text(frame: &Frame) -> String {
    String::from_utf8(frame.body.to_vec()).unwrap()
}

/// The results of a scan, with damage as its byte range.
fn scan(reader: &Reader, segment: u32) -> Vec<Result<Frame, (u32, u32)>> {
    let mut found = Vec::new();
    reader
        .scan(segment, |step| {
            found.push(step.map_err(|damage| (damage.from, damage.to)));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn results_have_the_order_of_the_request() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 300).journal;
    let mut all = Vec::new();
    for n in 0..40 {
        all.extend(commit(&mut journal, &texts(&[&format!("first {n}"), &format!("second {n}")])));
    }
    let reader = journal.reader();
    let requested: Vec<Location> = (0..200).map(|n| all[n * 37 % all.len()]).collect();
    for (location, result) in requested.iter().zip(reader.read(&requested)) {
        let frame = result.unwrap();
        assert_eq!((frame.kind, frame.location), (1, *location));
        let index = all.iter().position(|other| other == location).unwrap();
        assert_eq!(text(&frame), format!("{} {}", ["first", "second"][index % 2], index / 2));
    }
}

#[test]
fn adjacent_frames_are_read_together() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 30).journal;
    let small = commit(&mut journal, &numbered(256, 1000));
    let large = commit(&mut journal, &numbered(4, 600_000));
    let huge = commit(&mut journal, &numbered(1, 3_000_000));
    let calls = |locations: &[Location]| {
        let before = disk.calls();
        assert!(journal.reader().read(locations).iter().all(Result::is_ok));
        disk.calls() - before
    };
    assert_eq!(calls(&small), 1);
    assert_eq!(calls(&[small[255], small[0], small[0], small[128]]), 3, "the gaps are too large");
    assert_eq!(calls(&[small[0], small[17]]), 1, "a gap of 16 frames is small enough");
    assert_eq!(calls(&[small[0], small[18]]), 2, "a gap of 17 frames is too large");
    assert_eq!(calls(&large), 4, "two exceed the limit of one read");
    assert_eq!(calls(&huge), 1);
    assert_eq!(calls(&[]), 0);
}

#[test]
fn a_corrupt_frame_does_not_affect_its_neighbours() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let locations = commit(&mut journal, &numbered(9, 100));
    let corrupt = locations[4];
    disk.edit(SEGMENT, |bytes| bytes[corrupt.offset as usize + 50] ^= 1);
    for (location, result) in locations.iter().zip(journal.reader().read(&locations)) {
        match result {
            Err(ReadError::Corrupted(Damage { segment: 1, from, to, .. })) => {
                let end = corrupt.offset + corrupt.length;
                assert_eq!((*location, from, to), (corrupt, corrupt.offset, end));
            }
            other => assert_eq!(other.unwrap().location, *location),
        }
    }
}

#[test]
fn wrong_locations_are_errors() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let good = commit(&mut journal, &texts(&["a", "b"]))[0];
    let reader = journal.reader();
    let wrong = [
        Location { offset: good.offset + 1, ..good },
        Location { length: good.length - 1, ..good },
        Location { length: good.length + 1, ..good },
        Location { length: 0, ..good },
        Location { length: 19, ..good },
        Location { offset: 0, ..good },
        Location { length: u32::MAX, ..good },
        Location { offset: u32::MAX, length: u32::MAX, ..good },
    ];
    let mut requested = wrong.to_vec();
    requested.push(good);
    let mut results = reader.read(&requested);
    assert_eq!(text(&results.pop().unwrap().unwrap()), "a");
    for (location, result) in wrong.iter().zip(results) {
        assert!(matches!(result, Err(ReadError::Corrupted(_))), "{location:?}");
    }
    assert!(matches!(read_one(&reader, Location { segment: 2, ..good }), Err(ReadError::Gone)));
    assert!(matches!(reader.scan(2, |_| ControlFlow::Continue(())), Err(ReadError::Gone)));

    disk.edit(SEGMENT, |bytes| bytes.truncate(40));
    assert!(matches!(read_one(&reader, good), Err(ReadError::Corrupted(_))));
}

#[test]
fn disk_errors_are_reported_and_not_remembered() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let locations = commit(&mut journal, &texts(&["a", "b"]));
    disk.fail(Fault { times: u64::MAX, ..Fault::next(Some(Class::Read), ErrorKind::TimedOut) });
    let results = journal.reader().read(&locations);
    let is_timeout = |result: &Result<Frame, ReadError>| matches!(result, Err(ReadError::Io(error)) if error.kind() == ErrorKind::TimedOut);
    assert!(results.iter().all(is_timeout));
    disk.heal();
    assert!(journal.reader().read(&locations).iter().all(Result::is_ok));

    disk.fail(Fault::next(Some(Class::Read), ErrorKind::Other));
    let results = journal.reader().read(&locations);
    assert!(results.iter().all(Result::is_ok), "after a failed group read, each frame is read separately");
}

#[test]
fn a_removed_segment_stays_readable_for_a_running_scan() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 100).journal;
    let first = commit(&mut journal, &texts(&["a", "b", "c", "d"]));
    let second = commit(&mut journal, &texts(&["e"]));
    let reader = journal.reader();
    let mut seen = String::new();
    reader
        .scan(1, |frame| {
            seen.push_str(&text(&frame.unwrap()));
            journal.reader().remove(1, &|| ()).unwrap();
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, "abcd");
    let results = reader.read(&[first[0], second[0], first[1]]);
    assert!(matches!(results[0], Err(ReadError::Gone)) && matches!(results[2], Err(ReadError::Gone)));
    assert_eq!(text(results[1].as_ref().unwrap()), "e");
    assert_eq!(
        disk.bytes_used(),
        journal.reader().segments()[0].bytes,
        "the space of the removed segment is free"
    );
}

#[test]
fn a_reader_outlives_its_journal() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let location = commit(&mut journal, &texts(&["a"]))[0];
    let reader = journal.reader();
    drop(journal);
    assert_eq!(text(&read_one(&reader, location).unwrap()), "a");
}

#[test]
fn more_segments_than_handles_can_be_read() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    let locations: Vec<Location> =
        (0..600).flat_map(|n| commit(&mut journal, &texts(&[&n.to_string()]))).collect();
    for reader in [journal.reader(), open(&disk, 1).journal.reader()] {
        for (n, result) in reader.read(&locations).into_iter().enumerate() {
            assert_eq!(text(&result.unwrap()), n.to_string());
        }
    }
}

#[test]
fn a_scan_visits_every_frame_until_a_break() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 5 << 20).journal;
    let mut expected = Vec::new();
    for n in 0..40 {
        let bodies = vec![(2, vec![n; 200_000]), (3, vec![]), (4, vec![n; 99])];
        let locations = commit(&mut journal, &bodies);
        expected.extend(bodies.into_iter().zip(locations));
    }
    let reader = journal.reader();
    let mut found = Vec::new();
    for segment in journal.reader().segments() {
        found.extend(scan(&reader, segment.id).into_iter().map(Result::unwrap));
    }
    assert!(journal.reader().segments().len() > 1);
    let found = found.into_iter().map(|frame| ((frame.kind, frame.body.to_vec()), frame.location));
    assert!(found.eq(expected));

    let mut steps = 0;
    let stop = |_: Result<Frame, Damage>| {
        steps += 1;
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    reader.scan(1, stop).unwrap();
    assert_eq!(steps, 3);
}

#[test]
fn a_scan_reads_in_windows() {
    let widest = Arc::new(AtomicU64::new(0));
    let widest_seen = Arc::clone(&widest);
    let disk = HookedDisk::new(SimDisk::new(), move |call| {
        if let Call::Read(_, read) = call {
            widest_seen.fetch_max(read.end - read.start, Ordering::Relaxed);
        }
        Ok(())
    });
    let mut journal = try_open(Arc::new(disk), 1 << 30, None).unwrap().journal;
    for _ in 0..10 {
        commit(&mut journal, &numbered(100, 5000));
    }
    assert_eq!(scan(&journal.reader(), 1).len(), 1000);
    assert_eq!(widest.load(Ordering::Relaxed), 1 << 20);
}

#[test]
fn a_scan_reports_damage_between_frames() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let locations = commit(&mut journal, &numbered(6, 100));
    let offset = |frame: usize| locations[frame].offset as usize;
    disk.edit(SEGMENT, |bytes| {
        bytes[offset(1)] ^= 1;
        bytes[offset(2)] ^= 1;
        bytes[offset(4) + 30] ^= 1;
    });
    let steps = scan(&journal.reader(), 1);
    let found: Vec<_> = steps.into_iter().map(|step| step.map(|frame| frame.location)).collect();
    let expected = [
        Ok(locations[0]),
        Err((locations[1].offset, locations[3].offset)),
        Ok(locations[3]),
        Err((locations[4].offset, locations[5].offset)),
        Ok(locations[5]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_scan_stops_at_the_end_in_the_next_header() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    commit(&mut journal, &texts(&["a"]));
    commit(&mut journal, &texts(&["b"]));
    let from = journal.end();
    disk.edit(SEGMENT, |bytes| bytes.extend([1; 50]));
    let journal = open_from(&disk, 1, Some(from)).journal;
    assert_eq!(journal.reader().segments()[0].bytes, 107);
    assert_eq!(scan(&journal.reader(), 1).len(), 1);
}
