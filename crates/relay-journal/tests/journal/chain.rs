//! Which segments belong to the journal when some are missing, unfinished, corrupt or have another
//! format.

use std::io::ErrorKind;
use std::sync::Arc;

use relay_disk::{Disk, SimDisk, Survival};
use relay_journal::{Damage, Journal, OpenError, Position};

use crate::support::{SEGMENT, commit, open, open_from, texts, try_open};

const NAMES: [&str; 4] =
    [SEGMENT, "journal-0000000002.seg", "journal-0000000003.seg", "journal-0000000004.seg"];

/// Four segments, each with one frame that ends at 57: `a` to `d`.
fn four_segments() -> (SimDisk, Journal) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    for text in ["a", "b", "c", "d"] {
        commit(&mut journal, &texts(&[text]));
    }
    (disk, journal)
}

fn at(segment: u32) -> Option<Position> {
    Some(Position { segment, offset: 57 })
}

/// Opens from a position, and commits another batch. Returns the replayed batches as text and the
/// damage as numbers.
fn reopen(disk: &SimDisk, from: Option<Position>) -> (String, Vec<(u32, u32, u32)>) {
    let disk = disk.after_crash(Survival::All);
    let mut found = open_from(&disk, 1, from);
    commit(&mut found.journal, &texts(&["+"]));
    let second = open_from(&disk.after_crash(Survival::None), 1, from);
    assert_eq!(second.bodies().split_last().unwrap().1, found.bodies());
    let mut expected = found.opened.damage.clone();
    // Damage before the position is reported only until a later segment exists.
    expected.retain(|damage| Some(Position { segment: damage.segment, offset: damage.to }) > from);
    assert_eq!(second.opened.damage, expected);
    let numbers = |damage: &Damage| (damage.segment, damage.from, damage.to);
    let text = found.bodies().concat().into_iter().map(|(_, body)| String::from_utf8(body).unwrap());
    (text.collect(), found.opened.damage.iter().map(numbers).collect())
}

fn result(text: &str, damage: &[(u32, u32, u32)]) -> (String, Vec<(u32, u32, u32)>) {
    (text.to_owned(), damage.to_vec())
}

#[test]
fn a_missing_segment_between_others_is_damage() {
    let (disk, _) = four_segments();
    disk.remove(NAMES[1]).unwrap();
    assert_eq!(reopen(&disk, None), result("acd", &[(2, 0, 57)]));
    assert_eq!(reopen(&disk, at(1)), result("cd", &[(2, 0, 57)]));
    assert_eq!(reopen(&disk, at(2)), result("cd", &[]), "the position is at its end");
    assert_eq!(reopen(&disk, Some(Position { segment: 2, offset: 36 })), result("cd", &[(2, 36, 57)]));
    assert_eq!(reopen(&disk, at(3)), result("d", &[]));
}

#[test]
fn missing_segments_at_the_beginning_are_not_damage() {
    let (disk, journal) = four_segments();
    journal.reader().remove(1, &|| ()).unwrap();
    journal.reader().remove(2, &|| ()).unwrap();
    assert_eq!(reopen(&disk, None), result("cd", &[]));
    assert_eq!(reopen(&disk, at(2)), result("cd", &[]));
    assert_eq!(reopen(&disk, at(1)), result("cd", &[(2, 0, 57)]), "the position needs segment 2");
}

#[test]
fn missing_segments_at_the_end_are_damage_if_the_position_names_them() {
    let (disk, _) = four_segments();
    disk.remove(NAMES[3]).unwrap();
    assert_eq!(reopen(&disk, at(4)), result("", &[(4, 0, 57)]));
    assert_eq!(reopen(&disk, at(3)), result("", &[]), "nothing names segment 4");
    let empty = SimDisk::new();
    assert_eq!(reopen(&empty, at(4)), result("", &[(4, 0, 57)]));
}

#[test]
fn new_segment_numbers_exceed_the_position() {
    let disk = SimDisk::new();
    let mut journal = open_from(&disk, 1, at(4)).journal;
    commit(&mut journal, &texts(&["e"]));
    assert_eq!(journal.end(), Position { segment: 5, offset: 57 });
}

#[test]
fn a_corrupt_header_loses_only_its_segment() {
    for byte in 0..36 {
        for (lost, rest) in ["bcd", "acd", "abd", "abc"].into_iter().enumerate() {
            let (disk, _) = four_segments();
            disk.edit(NAMES[lost], |bytes| bytes[byte] ^= 4);
            let number = u32::try_from(lost + 1).unwrap();
            assert_eq!(reopen(&disk, None), result(rest, &[(number, 0, 57)]), "byte {byte}");
            assert_eq!(reopen(&disk, at(number)), result(&"abcd"[lost + 1..], &[]), "byte {byte}");
        }
    }
}

#[test]
fn a_segment_truncated_within_its_header_is_lost() {
    for len in [0, 1, 35] {
        let (disk, _) = four_segments();
        disk.edit(NAMES[1], |bytes| bytes.truncate(len));
        assert_eq!(reopen(&disk, None), result("acd", &[(2, 0, 57)]));
    }
}

#[test]
fn an_unfinished_segment_at_the_end_is_removed() {
    for len in [0, 1, 35, 36] {
        let (disk, _) = four_segments();
        disk.edit(NAMES[3], |bytes| {
            bytes.truncate(len);
            bytes.iter_mut().for_each(|byte| *byte = 0);
        });
        assert_eq!(reopen(&disk, None), result("abc", &[]));
        let journal = open(&disk, 1).journal;
        assert_eq!((journal.reader().segments().len(), disk.contents(NAMES[3])), (3, None));
    }
}

#[test]
fn a_finished_segment_without_a_batch_is_replaced() {
    let (disk, mut journal) = four_segments();
    journal.begin().unwrap();
    let mut found = open(&disk, 1);
    assert_eq!((found.journal.end(), found.journal.reader().segments().len()), (at(4).unwrap(), 4));
    commit(&mut found.journal, &texts(&["e"]));
    assert_eq!(found.journal.end(), at(6).unwrap());
}

#[test]
fn a_segment_that_no_header_names_is_removed() {
    let (disk, _) = four_segments();
    // The header of 4 now names 2 as the previous segment, as if 3 had failed before its first
    // batch.
    let second = disk.contents(NAMES[2]).unwrap();
    disk.edit(NAMES[3], |bytes| {
        bytes[16..24].copy_from_slice(&second[16..24]);
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(reopen(&disk, None), result("abd", &[]));
    let segments = open(&disk, 1).journal.reader().segments();
    assert_eq!((segments.len(), disk.contents(NAMES[2])), (3, None));
}

#[test]
fn bytes_after_the_end_in_the_next_header_do_not_count() {
    let (disk, _) = four_segments();
    let twin = disk.contents(NAMES[0]).unwrap();
    disk.edit(NAMES[0], |bytes| bytes.extend(&twin[36..]));
    assert_eq!(reopen(&disk, None), result("abcd", &[]));
    disk.edit(NAMES[0], |bytes| bytes.truncate(50));
    assert_eq!(reopen(&disk, None), result("bcd", &[(1, 36, 50), (1, 50, 57)]));
}

#[test]
fn a_tail_is_damage_if_the_next_header_is_lost() {
    let (disk, _) = four_segments();
    disk.edit(NAMES[0], |bytes| bytes.extend([7; 30]));
    disk.edit(NAMES[1], |bytes| bytes[0] = 0);
    assert_eq!(reopen(&disk, None), result("acd", &[(1, 57, 87), (2, 0, 57)]));
}

#[test]
fn a_last_segment_that_ends_before_the_position_is_damage() {
    let (disk, _) = four_segments();
    disk.edit(NAMES[3], |bytes| bytes.truncate(40));
    assert_eq!(reopen(&disk, at(4)), result("", &[(4, 40, 57)]));
    assert_eq!(open(&disk, 1).opened.torn_bytes, 4);
}

#[test]
fn a_copy_with_another_file_name_is_not_a_segment() {
    let (disk, _) = four_segments();
    let copy = disk.contents(NAMES[1]).unwrap();
    disk.edit(NAMES[2], |bytes| *bytes = copy);
    assert_eq!(reopen(&disk, None), result("abd", &[(3, 0, 57)]));
}

#[test]
fn another_format_is_rejected_with_a_clear_message() {
    let (disk, _) = four_segments();
    disk.edit(NAMES[1], |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    });
    let error = try_open(Arc::new(disk.clone()), 1, None).err().unwrap();
    assert!(matches!(error, OpenError::Format { segment: 2, found: 9, expected: 1 }));
    assert_eq!(error.to_string(), "journal segment 2 has format 9, this version reads format 1");
    assert!(try_open(Arc::new(disk), 1, at(3)).is_ok(), "the replay does not need segment 2");
}

#[test]
fn the_last_segment_cannot_be_removed() {
    let (_, journal) = four_segments();
    assert_eq!(journal.reader().remove(4, &|| ()).unwrap_err().kind(), ErrorKind::InvalidInput);
    journal.reader().remove(2, &|| ()).unwrap();
    journal.reader().remove(2, &|| ()).unwrap();
    journal.reader().remove(77, &|| ()).unwrap();
    let ids: Vec<u32> = journal.reader().segments().iter().map(|segment| segment.id).collect();
    assert_eq!(ids, [1, 3, 4]);
}

#[test]
fn other_files_are_ignored() {
    let (disk, _) = four_segments();
    for name in ["index.redb", "journal-0000000000.seg", "journal-12.seg"] {
        disk.create(name).unwrap();
    }
    assert_eq!(reopen(&disk, None), result("abcd", &[]));
    assert_eq!(disk.list().unwrap().len(), 7);
}
