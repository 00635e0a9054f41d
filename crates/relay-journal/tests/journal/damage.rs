//! Corrupt bytes, bad sectors and hostile payloads. They affect only the frames that they hit, the
//! journal reports them, and it never returns data that was not written.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use relay_disk::{Call, HookedDisk, SimDisk, Survival};
use relay_journal::{Damage, Frame, Journal, Location, Segment};

use crate::support::{
    Bodies, Open, SEGMENT, bodies, commit, open, open_from, read_one, slow, texts, try_open,
};

/// All frames of a journal, by segment and offset.
type Contents = BTreeMap<(u32, u32), (Location, u8, Bytes)>;

/// Three segments with a few small batches each.
fn small_journal() -> (SimDisk, Journal) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 150).journal;
    for n in 0..9 {
        let frames = (0..=n % 3).map(|frame| (1 + n, vec![n * 16 + frame; usize::from(n + frame) % 7]));
        commit(&mut journal, &frames.collect());
    }
    assert_eq!(journal.reader().segments().len(), 3);
    (disk, journal)
}

fn file_name(segment: u32) -> String {
    format!("journal-{segment:010}.seg")
}

fn contents<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Contents {
    let entry = |frame: &Frame| {
        let key = (frame.location.segment, frame.location.offset);
        (key, (frame.location, frame.kind, frame.body.clone()))
    };
    frames.into_iter().map(entry).collect()
}

fn is_reported(opened: &Open, segment: u32, byte: u32) -> bool {
    let holds = |damage: &Damage| damage.segment == segment && (damage.from..damage.to).contains(&byte);
    opened.opened.torn_bytes > 0 || opened.opened.damage.iter().any(holds)
}

/// Whether the frame may be missing when this byte is corrupt.
fn is_hit(frame: Location, batch: (u32, u32), last: (u32, u32), segment: u32, byte: u32) -> bool {
    let is_in_frame = (frame.offset..frame.offset + frame.length).contains(&byte);
    let is_torn = batch == last && segment == last.0 && byte >= last.1;
    frame.segment == segment && (byte < 36 || is_in_frame) || is_torn
}

fn check_flip(disk: &SimDisk, intact: &Open, segment: u32, byte: u32, bit: u32) {
    let disk = disk.after_crash(Survival::All);
    disk.edit(&file_name(segment), |bytes| bytes[byte as usize] ^= 1 << bit);
    let mut found = open(&disk, 150);
    let at = format!("segment {segment}, byte {byte}, bit {bit}: {:?}", found.opened);
    assert!(is_reported(&found, segment, byte), "{at}");
    let replayed = contents(found.batches.iter().flatten());
    let key = |frame: &Frame| (frame.location.segment, frame.location.offset);
    let last = key(&intact.batches.last().unwrap()[0]);
    let mut kept = 0;
    for batch in &intact.batches {
        for frame in batch {
            let is_kept = replayed.contains_key(&key(frame));
            kept += usize::from(is_kept);
            assert!(is_kept || is_hit(frame.location, key(&batch[0]), last, segment, byte), "{at}");
            let read = read_one(&found.journal.reader(), frame.location);
            assert!(!is_kept || read.is_ok(), "a replayed frame cannot be read: {at}");
            assert!(read.is_err() || bodies(&[read.unwrap()]) == bodies(std::slice::from_ref(frame)), "{at}");
        }
    }
    assert_eq!(kept, replayed.len(), "an unwritten frame was replayed: {at}");
    check_scan(&found, intact, segment, byte);

    commit(&mut found.journal, &texts(&["later"]));
    let second = open(&disk, 150);
    assert_eq!(second.batches[..found.batches.len()], found.batches, "{at}");
    assert_eq!(second.bodies().last(), Some(&texts(&["later"])), "{at}");
    assert_eq!(second.opened.damage, found.opened.damage, "{at}");
}

/// A scan must find the same frames as the replay, and damage at the changed byte only.
fn check_scan(found: &Open, intact: &Open, segment: u32, byte: u32) {
    let original = contents(intact.batches.iter().flatten());
    for Segment { id, .. } in found.journal.reader().segments() {
        let mut frames = Vec::new();
        let mut damage = Vec::new();
        let outcome = found.journal.reader().scan(id, |step| {
            match step {
                Ok(frame) => frames.push(frame),
                Err(range) => damage.push(range),
            }
            ControlFlow::Continue(())
        });
        assert_eq!(outcome.is_ok(), id != segment || byte >= 36);
        let scanned = contents(&frames);
        assert!(scanned.iter().all(|(key, frame)| original.get(key) == Some(frame)));
        let replayed = contents(found.batches.iter().flatten().filter(|frame| frame.location.segment == id));
        assert_eq!(scanned, replayed, "segment {id}");
        assert!(damage.iter().all(|range| (range.from..range.to).contains(&byte) && id == segment));
    }
}

#[test]
fn a_flipped_bit_affects_only_what_it_hits() {
    let (disk, journal) = small_journal();
    let intact = open(&disk, 150);
    assert_eq!(intact.opened.damage, []);
    for Segment { id, bytes } in journal.reader().segments() {
        for byte in 0..u32::try_from(bytes).unwrap() {
            for bit in slow(0..8, byte % 8..byte % 8 + 1) {
                check_flip(&disk, &intact, id, byte, bit);
            }
        }
    }
}

#[test]
fn a_position_after_the_last_batch_reveals_its_loss() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let first = commit(&mut journal, &texts(&["a"]))[0];
    let last = commit(&mut journal, &texts(&["b"]))[0];
    disk.edit(SEGMENT, |bytes| bytes[last.offset as usize] ^= 1);
    let found = open_from(&disk.after_crash(Survival::All), 1 << 20, Some(journal.end()));
    assert_eq!((found.opened.torn_bytes, found.journal.end()), (0, journal.end()));
    assert!(read_one(&found.journal.reader(), first).is_ok());
    assert!(read_one(&found.journal.reader(), last).is_err());
    assert_eq!(
        open(&disk, 1 << 20).opened.torn_bytes,
        u64::from(last.length),
        "without a position it is a torn tail"
    );
}

/// A segment of five batches: one frame, three frames, one, three, one; `a` to `i`.
fn batches() -> (SimDisk, Vec<Location>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let batches =
        [texts(&["a"]), texts(&["b", "c", "d"]), texts(&["e"]), texts(&["f", "g", "h"]), texts(&["i"])];
    let locations = batches.iter().flat_map(|batch| commit(&mut journal, batch)).collect();
    (disk, locations)
}

/// Opens the journal and describes it: the batches, `-` with the letters of damaged frames, and the
/// torn bytes.
fn summary(disk: &SimDisk, locations: &[Location]) -> String {
    let found = open(disk, 1 << 20);
    let text =
        |batch: &Bodies| batch.iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect();
    let mut words: Vec<String> = found.bodies().iter().map(text).collect();
    for Damage { from, to, .. } in found.opened.damage {
        let damaged = locations
            .iter()
            .zip('a'..)
            .filter(|(location, _)| from < location.offset + location.length && location.offset < to);
        words.push(format!("-{}", damaged.map(|(_, letter)| letter).collect::<String>()));
    }
    if found.opened.torn_bytes > 0 {
        words.push(format!("torn {}", found.opened.torn_bytes));
    }
    words.join(" ")
}

/// Corrupts the headers and the bodies of these frames.
fn corrupted(headers: &str, bodies: &str) -> String {
    let (disk, locations) = batches();
    disk.edit(SEGMENT, |bytes| {
        for (location, letter) in locations.iter().zip('a'..) {
            let at = location.offset as usize;
            bytes[at + 17] ^= u8::from(headers.contains(letter));
            bytes[at + 20] ^= u8::from(bodies.contains(letter));
        }
    });
    summary(&disk, &locations)
}

#[test]
fn intact_frames_of_a_corrupt_batch_count_if_a_later_batch_exists() {
    for (headers, bodies, expected) in [
        ("", "", "a bcd e fgh i"),
        ("b", "", "a cd e fgh i -b"),
        ("c", "", "a bd e fgh i -c"),
        ("d", "", "a bc e fgh i -d"),
        ("", "c", "a bd e fgh i -c"),
        ("bcd", "", "a e fgh i -bcd"),
        ("", "bcd", "a e fgh i -b -c -d"),
        ("dea", "", "bc fgh i -a -de"),
        ("def", "", "a bc gh i -de -f"),
        ("i", "", "a bcd e fgh torn 21"),
        ("", "i", "a bcd e fgh torn 21"),
        ("hi", "", "a bcd e torn 84"),
        ("ei", "", "a bcd fgh -e torn 21"),
        ("eg", "", "a bcd fh i -e -g"),
        ("abcdefgh", "", "i -abcdefgh"),
        ("abcdefghi", "", "torn 189"),
    ] {
        assert_eq!(corrupted(headers, bodies), expected, "headers {headers}, bodies {bodies}");
    }
}

#[test]
fn a_torn_tail_of_any_length_is_cut_off() {
    let (disk, locations) = batches();
    let intact = disk.contents(SEGMENT).unwrap();
    for len in locations[5].offset..locations[8].offset {
        let disk = disk.after_crash(Survival::All);
        disk.edit(SEGMENT, |bytes| bytes.truncate(len as usize));
        let torn = len - locations[5].offset;
        let expected = if torn == 0 { "a bcd e".to_owned() } else { format!("a bcd e torn {torn}") };
        assert_eq!(summary(&disk, &locations), expected);
        assert_eq!(disk.contents(SEGMENT).unwrap(), intact[..locations[5].offset as usize]);
        assert_eq!(summary(&disk, &locations), "a bcd e");
    }
}

#[test]
fn copies_of_frames_in_a_payload_are_not_frames() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["a", "b"]));
    commit(&mut journal, &texts(&["c"]));
    let copies = disk.contents(SEGMENT).unwrap()[36..].to_vec();
    let hostile = commit(&mut journal, &vec![(2, copies.clone()), (2, copies.repeat(40))]);
    commit(&mut journal, &texts(&["d"]));
    // The search for the next frame now passes through the payloads.
    disk.edit(SEGMENT, |bytes| hostile.iter().for_each(|location| bytes[location.offset as usize] ^= 1));
    let found = open(&disk, 1 << 20);
    assert_eq!(found.bodies(), [texts(&["a", "b"]), texts(&["c"]), texts(&["d"])]);
    assert_eq!(found.opened.damage.len(), 1);
}

#[test]
fn a_frame_of_another_segment_at_the_same_offset_is_not_a_frame() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    for text in ["a", "b", "c"] {
        commit(&mut journal, &texts(&[text]));
    }
    let other = disk.contents(&file_name(2)).unwrap();
    disk.edit(SEGMENT, |bytes| bytes[36..].copy_from_slice(&other[36..]));
    let found = open(&disk, 1);
    assert_eq!(found.bodies(), [texts(&["b"]), texts(&["c"])]);
    assert_eq!(found.opened.damage.len(), 1);
}

#[test]
fn frames_after_a_large_corrupt_range_are_found() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 30).journal;
    let large = vec![(1, vec![1; 1_500_000]), (1, vec![2; 700_001]), (1, vec![3; 2_000_003])];
    let locations = commit(&mut journal, &large);
    commit(&mut journal, &texts(&["b"]));
    commit(&mut journal, &texts(&["c"]));
    let middle = locations[1];
    // Looks like headers everywhere until a checksum is computed.
    disk.edit(SEGMENT, |bytes| {
        let end = (middle.offset + middle.length) as usize;
        bytes[middle.offset as usize..end].chunks_mut(8).for_each(|chunk| {
            let plausible = [9, 0, 0, 0, 1, 0, 0, 0];
            chunk.copy_from_slice(&plausible[..chunk.len()]);
        });
    });
    let found = open(&disk, 1 << 30);
    let first = vec![large[0].clone(), large[2].clone()];
    assert_eq!(found.bodies(), [first, texts(&["b"]), texts(&["c"])]);
    let damage: Vec<_> = found.opened.damage.iter().map(|damage| (damage.from, damage.to)).collect();
    assert_eq!(damage, [(middle.offset, middle.offset + middle.length)]);
}

/// A disk that cannot read some bytes of the first segment. Other segments are shorter, so it can
/// read all of them.
fn with_bad_sector(disk: &SimDisk, from: u64, to: u64) -> Arc<HookedDisk> {
    Arc::new(HookedDisk::new(disk.clone(), move |call| {
        let is_hit = matches!(call, Call::Read(_, read) if read.start < to && from < read.end);
        if is_hit { Err(io::Error::other("the sector is bad")) } else { Ok(()) }
    }))
}

/// Sixty frames of 1,000 bytes, in batches of ten.
fn sixty_frames() -> (SimDisk, Vec<Location>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let locations = (0..6).flat_map(|n| commit(&mut journal, &vec![(1, vec![n; 1000]); 10])).collect();
    (disk, locations)
}

#[test]
fn a_bad_sector_affects_the_frames_on_its_page() {
    let (disk, locations) = sixty_frames();
    let bad = with_bad_sector(&disk, 20_480, 20_992);
    let found = try_open(bad, 1 << 20, None).unwrap();
    let page = 20_480..24_576;
    let is_hit =
        |location: &&Location| location.offset < page.end && location.offset + location.length > page.start;
    assert_eq!(found.opened.frames, 60 - locations.iter().filter(is_hit).count() as u64);
    assert_eq!((found.batches.len(), found.opened.damage.len(), found.opened.torn_bytes), (6, 2, 0));
    assert!(found.opened.unreadable);

    let (mut frames, mut damage) = (0, 0);
    let outcome = found.journal.reader().scan(1, |step| {
        frames += u64::from(step.is_ok());
        damage += u32::from(step.is_err());
        ControlFlow::Continue(())
    });
    assert_eq!((frames, damage), (found.opened.frames, 2), "the body of one frame, and the frames after it");
    assert_eq!(outcome.unwrap_err().to_string(), "the journal cannot be read: the sector is bad");

    let read = found.journal.reader().read(&locations);
    let failed = read.iter().filter(|result| result.is_err()).count();
    assert_eq!(failed, 1, "a separate read needs only the bytes of its frame");
}

#[test]
fn a_bad_sector_in_the_last_batch_is_damage_and_not_a_torn_tail() {
    let (disk, locations) = sixty_frames();
    let last = locations[56].offset;
    let mut found =
        try_open(with_bad_sector(&disk, last.into(), u64::from(last) + 9), 1 << 20, None).unwrap();
    assert_eq!((found.batches.len(), found.opened.torn_bytes), (5, 0));
    assert_eq!(found.opened.damage.len(), 1);
    let len = disk.contents(SEGMENT).unwrap().len();
    commit(&mut found.journal, &texts(&["later"]));
    assert_eq!((disk.contents(SEGMENT).unwrap().len(), found.journal.reader().segments().len()), (len, 2));
}

#[test]
fn a_bad_sector_in_the_header_loses_the_segment() {
    let (disk, _) = sixty_frames();
    let mut found = try_open(with_bad_sector(&disk, 0, 1), 1 << 20, None).unwrap();
    let to = u32::try_from(disk.contents(SEGMENT).unwrap().len()).unwrap();
    assert!(found.opened.unreadable);
    let what = "the disk cannot read the segment header";
    assert_eq!(found.opened.damage, [Damage { segment: 1, from: 0, to, what }]);
    assert_eq!(
        found.opened.damage[0].to_string(),
        format!("journal segment 1, bytes 0 to {to}: the disk cannot read the segment header")
    );
    commit(&mut found.journal, &texts(&["later"]));
    assert_eq!(open(&disk, 1 << 20).batches.len(), 7, "the healthy disk lacks a batch");
}
