//! Which segments belong to the journal when some are missing, unfinished, unreadable or of another
//! make.

use std::io::ErrorKind;
use std::sync::Arc;

use relay_disk::{Disk, SimDisk, Survival};
use relay_journal::{Damage, Journal, OpenError, Position};

use crate::support::{SEGMENT, commit, open, open_from, texts, try_open};

const NAMES: [&str; 4] =
    [SEGMENT, "journal-0000000002.seg", "journal-0000000003.seg", "journal-0000000004.seg"];

/// Four segments, each with a batch of one frame that ends at 57: `a` to `d`.
fn four() -> (SimDisk, Journal) {
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

/// Opens from a position; tells the batches as a text and the damage as numbers, once the journal
/// has also gone on.
fn found(disk: &SimDisk, from: Option<Position>) -> (String, Vec<(u32, u32, u32)>) {
    let disk = disk.after_crash(Survival::All);
    let mut found = open_from(&disk, 1, from);
    commit(&mut found.journal, &texts(&["+"]));
    let again = open_from(&disk.after_crash(Survival::None), 1, from);
    assert_eq!(again.bodies().split_last().unwrap().1, found.bodies());
    let mut known = found.opened.damage.clone();
    // What is not behind the position is told only as long as no later segment has begun.
    known.retain(|damage| Some(Position { segment: damage.segment, offset: damage.to }) > from);
    assert_eq!(again.opened.damage, known);
    let numbers = |damage: &Damage| (damage.segment, damage.from, damage.to);
    let text = found.bodies().concat().into_iter().map(|(_, body)| String::from_utf8(body).unwrap());
    (text.collect(), found.opened.damage.iter().map(numbers).collect())
}

fn text(text: &str, damage: &[(u32, u32, u32)]) -> (String, Vec<(u32, u32, u32)>) {
    (text.to_owned(), damage.to_vec())
}

#[test]
fn a_segment_that_is_missing_between_others_is_damage() {
    let (disk, _) = four();
    disk.remove(NAMES[1]).unwrap();
    assert_eq!(found(&disk, None), text("acd", &[(2, 0, 57)]));
    assert_eq!(found(&disk, at(1)), text("cd", &[(2, 0, 57)]));
    assert_eq!(found(&disk, at(2)), text("cd", &[]), "nothing of it was asked for");
    assert_eq!(found(&disk, Some(Position { segment: 2, offset: 36 })), text("cd", &[(2, 36, 57)]));
    assert_eq!(found(&disk, at(3)), text("d", &[]));
}

#[test]
fn segments_missing_at_the_beginning_were_removed() {
    let (disk, journal) = four();
    journal.reader().remove(1, &|| ()).unwrap();
    journal.reader().remove(2, &|| ()).unwrap();
    assert_eq!(found(&disk, None), text("cd", &[]));
    assert_eq!(found(&disk, at(2)), text("cd", &[]));
    assert_eq!(found(&disk, at(1)), text("cd", &[(2, 0, 57)]), "this one was not to be removed");
}

#[test]
fn segments_missing_at_the_end_are_damage_if_they_were_seen() {
    let (disk, _) = four();
    disk.remove(NAMES[3]).unwrap();
    assert_eq!(found(&disk, at(4)), text("", &[(4, 0, 57)]));
    assert_eq!(found(&disk, at(3)), text("", &[]), "nobody knows of it");
    let empty = SimDisk::new();
    assert_eq!(found(&empty, at(4)), text("", &[(4, 0, 57)]));
}

#[test]
fn numbers_go_on_behind_all_that_was_ever_seen() {
    let disk = SimDisk::new();
    let mut journal = open_from(&disk, 1, at(4)).journal;
    commit(&mut journal, &texts(&["e"]));
    assert_eq!(journal.end(), Position { segment: 5, offset: 57 });
}

#[test]
fn a_segment_without_its_header_is_lost_and_no_other() {
    for byte in 0..36 {
        for (lost, rest) in ["bcd", "acd", "abd", "abc"].into_iter().enumerate() {
            let (disk, _) = four();
            disk.edit(NAMES[lost], |bytes| bytes[byte] ^= 4);
            let number = u32::try_from(lost + 1).unwrap();
            assert_eq!(found(&disk, None), text(rest, &[(number, 0, 57)]), "byte {byte}");
            assert_eq!(found(&disk, at(number)), text(&"abcd"[lost + 1..], &[]), "byte {byte}");
        }
    }
}

#[test]
fn a_segment_that_was_cut_to_less_than_its_header_is_lost() {
    for len in [0, 1, 35] {
        let (disk, _) = four();
        disk.edit(NAMES[1], |bytes| bytes.truncate(len));
        assert_eq!(found(&disk, None), text("acd", &[(2, 0, 57)]));
    }
}

#[test]
fn an_unfinished_segment_at_the_end_is_removed() {
    for len in [0, 1, 35, 36] {
        let (disk, _) = four();
        disk.edit(NAMES[3], |bytes| {
            bytes.truncate(len);
            bytes.iter_mut().for_each(|byte| *byte = 0);
        });
        assert_eq!(found(&disk, None), text("abc", &[]));
        let journal = open(&disk, 1).journal;
        assert_eq!((journal.reader().segments().len(), disk.contents(NAMES[3])), (3, None));
    }
}

#[test]
fn a_finished_segment_without_a_batch_is_made_anew() {
    let (disk, mut journal) = four();
    journal.begin().unwrap();
    let mut found = open(&disk, 1);
    assert_eq!((found.journal.end(), found.journal.reader().segments().len()), (at(4).unwrap(), 4));
    commit(&mut found.journal, &texts(&["e"]));
    assert_eq!(found.journal.end(), at(6).unwrap());
}

#[test]
fn a_segment_that_nothing_names_is_removed() {
    let (disk, _) = four();
    // The header of 4 now says that 2 comes before it, as if 3 had failed before its first batch.
    let second = disk.contents(NAMES[2]).unwrap();
    disk.edit(NAMES[3], |bytes| {
        bytes[16..24].copy_from_slice(&second[16..24]);
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(found(&disk, None), text("abd", &[]));
    let segments = open(&disk, 1).journal.reader().segments();
    assert_eq!((segments.len(), disk.contents(NAMES[2])), (3, None));
}

#[test]
fn nothing_counts_behind_the_end_that_the_next_segment_names() {
    let (disk, _) = four();
    let twin = disk.contents(NAMES[0]).unwrap();
    disk.edit(NAMES[0], |bytes| bytes.extend(&twin[36..]));
    assert_eq!(found(&disk, None), text("abcd", &[]));
    disk.edit(NAMES[0], |bytes| bytes.truncate(50));
    assert_eq!(found(&disk, None), text("bcd", &[(1, 36, 50), (1, 50, 57)]));
}

#[test]
fn a_tail_that_no_header_names_the_end_of_is_told() {
    let (disk, _) = four();
    disk.edit(NAMES[0], |bytes| bytes.extend([7; 30]));
    disk.edit(NAMES[1], |bytes| bytes[0] = 0);
    assert_eq!(found(&disk, None), text("acd", &[(1, 57, 87), (2, 0, 57)]));
}

#[test]
fn a_last_segment_shorter_than_what_was_seen_is_damage() {
    let (disk, _) = four();
    disk.edit(NAMES[3], |bytes| bytes.truncate(40));
    assert_eq!(found(&disk, at(4)), text("", &[(4, 40, 57)]));
    assert_eq!(open(&disk, 1).opened.torn_bytes, 4);
}

#[test]
fn a_copy_under_another_name_is_no_segment() {
    let (disk, _) = four();
    let copy = disk.contents(NAMES[1]).unwrap();
    disk.edit(NAMES[2], |bytes| *bytes = copy);
    assert_eq!(found(&disk, None), text("abd", &[(3, 0, 57)]));
}

#[test]
fn another_format_is_refused_in_a_clear_sentence() {
    let (disk, _) = four();
    disk.edit(NAMES[1], |bytes| {
        bytes[8] = 9;
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    });
    let error = try_open(Arc::new(disk.clone()), 1, None).err().unwrap();
    assert!(matches!(error, OpenError::Format { segment: 2, found: 9, expected: 1 }));
    assert_eq!(error.to_string(), "journal segment 2 has format 9, this version reads format 1");
    assert!(try_open(Arc::new(disk), 1, at(3)).is_ok(), "it is not needed");
}

#[test]
fn the_last_segment_cannot_be_removed() {
    let (_, journal) = four();
    assert_eq!(journal.reader().remove(4, &|| ()).unwrap_err().kind(), ErrorKind::InvalidInput);
    journal.reader().remove(2, &|| ()).unwrap();
    journal.reader().remove(2, &|| ()).unwrap();
    journal.reader().remove(77, &|| ()).unwrap();
    let ids: Vec<u32> = journal.reader().segments().iter().map(|segment| segment.id).collect();
    assert_eq!(ids, [1, 3, 4]);
}

#[test]
fn other_files_are_left_alone() {
    let (disk, _) = four();
    for name in ["index.redb", "journal-0000000000.seg", "journal-12.seg"] {
        disk.create(name).unwrap();
    }
    assert_eq!(found(&disk, None), text("abcd", &[]));
    assert_eq!(disk.list().unwrap().len(), 7);
}
