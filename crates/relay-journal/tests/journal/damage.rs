//! Bytes rot, sectors go bad, and senders are hostile. It costs the frames that it hits, it is
//! told, and nothing that was not written is ever handed out.

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

/// All frames of a journal, by where they lie.
type Contents = BTreeMap<(u32, u32), (Location, u8, Bytes)>;

/// Three segments of a few small batches each.
fn small() -> (SimDisk, Journal) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 150).journal;
    for n in 0..9 {
        let frames = (0..=n % 3).map(|frame| (1 + n, vec![n * 16 + frame; usize::from(n + frame) % 7]));
        commit(&mut journal, &frames.collect());
    }
    assert_eq!(journal.reader().segments().len(), 3);
    (disk, journal)
}

fn name(segment: u32) -> String {
    format!("journal-{segment:010}.seg")
}

fn contents<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Contents {
    let entry = |frame: &Frame| {
        let place = (frame.location.segment, frame.location.offset);
        (place, (frame.location, frame.kind, frame.body.clone()))
    };
    frames.into_iter().map(entry).collect()
}

fn is_told(opened: &Open, segment: u32, byte: u32) -> bool {
    let holds = |damage: &Damage| damage.segment == segment && (damage.from..damage.to).contains(&byte);
    opened.opened.torn_bytes > 0 || opened.opened.damage.iter().any(holds)
}

/// Which frames may be missing when this byte is not what was written.
fn is_hit(frame: Location, batch: (u32, u32), last: (u32, u32), segment: u32, byte: u32) -> bool {
    let is_in_frame = (frame.offset..frame.offset + frame.length).contains(&byte);
    let is_torn = batch == last && segment == last.0 && byte >= last.1;
    frame.segment == segment && (byte < 36 || is_in_frame) || is_torn
}

fn check_flip(disk: &SimDisk, whole: &Open, segment: u32, byte: u32, bit: u32) {
    let disk = disk.after_crash(Survival::All);
    disk.edit(&name(segment), |bytes| bytes[byte as usize] ^= 1 << bit);
    let mut found = open(&disk, 150);
    let at = format!("segment {segment}, byte {byte}, bit {bit}: {:?}", found.opened);
    assert!(is_told(&found, segment, byte), "{at}");
    let shown = contents(found.batches.iter().flatten());
    let place = |frame: &Frame| (frame.location.segment, frame.location.offset);
    let last = place(&whole.batches.last().unwrap()[0]);
    let mut kept = 0;
    for batch in &whole.batches {
        for frame in batch {
            let is_kept = shown.contains_key(&place(frame));
            kept += usize::from(is_kept);
            assert!(is_kept || is_hit(frame.location, place(&batch[0]), last, segment, byte), "{at}");
            let read = read_one(&found.journal.reader(), frame.location);
            assert!(!is_kept || read.is_ok(), "what is replayed can be read: {at}");
            assert!(read.is_err() || bodies(&[read.unwrap()]) == bodies(std::slice::from_ref(frame)), "{at}");
        }
    }
    assert_eq!(kept, shown.len(), "nothing is invented: {at}");
    check_scan(&found, whole, segment, byte);

    commit(&mut found.journal, &texts(&["goes on"]));
    let again = open(&disk, 150);
    assert_eq!(again.batches[..found.batches.len()], found.batches, "{at}");
    assert_eq!(again.bodies().last(), Some(&texts(&["goes on"])), "{at}");
    assert_eq!(again.opened.damage, found.opened.damage, "{at}");
}

/// A scan shows of each segment what the replay has shown, and damage where a byte was changed.
fn check_scan(found: &Open, whole: &Open, segment: u32, byte: u32) {
    let original = contents(whole.batches.iter().flatten());
    for Segment { id, .. } in found.journal.reader().segments() {
        let mut frames = Vec::new();
        let mut damage = Vec::new();
        let outcome = found.journal.reader().scan(id, |step| {
            match step {
                Ok(frame) => frames.push(frame),
                Err(stretch) => damage.push(stretch),
            }
            ControlFlow::Continue(())
        });
        assert_eq!(outcome.is_ok(), id != segment || byte >= 36);
        let scanned = contents(&frames);
        assert!(scanned.iter().all(|(place, frame)| original.get(place) == Some(frame)));
        let replayed = contents(found.batches.iter().flatten().filter(|frame| frame.location.segment == id));
        assert_eq!(scanned, replayed, "segment {id}");
        assert!(damage.iter().all(|stretch| (stretch.from..stretch.to).contains(&byte) && id == segment));
    }
}

#[test]
fn a_flipped_bit_costs_what_it_hits() {
    let (disk, journal) = small();
    let whole = open(&disk, 150);
    assert_eq!(whole.opened.damage, []);
    for Segment { id, bytes } in journal.reader().segments() {
        for byte in 0..u32::try_from(bytes).unwrap() {
            for bit in slow(0..8, byte % 8..byte % 8 + 1) {
                check_flip(&disk, &whole, id, byte, bit);
            }
        }
    }
}

#[test]
fn a_position_behind_the_last_batch_makes_its_loss_known() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let first = commit(&mut journal, &texts(&["a"]))[0];
    let last = commit(&mut journal, &texts(&["b"]))[0];
    disk.edit(SEGMENT, |bytes| bytes[last.offset as usize] ^= 1);
    let from = open_from(&disk.after_crash(Survival::All), 1 << 20, Some(journal.end()));
    assert_eq!((from.opened.torn_bytes, from.journal.end()), (0, journal.end()));
    assert!(read_one(&from.journal.reader(), first).is_ok());
    assert!(read_one(&from.journal.reader(), last).is_err());
    assert_eq!(open(&disk, 1 << 20).opened.torn_bytes, u64::from(last.length), "nobody knows better");
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

/// Opens a disk and writes what is found: batches, whether something is torn, and which letters are
/// damage.
fn summary(disk: &SimDisk, locations: &[Location]) -> String {
    let found = open(disk, 1 << 20);
    let text =
        |batch: &Bodies| batch.iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned()).collect();
    let mut words: Vec<String> = found.bodies().iter().map(text).collect();
    for Damage { from, to, .. } in found.opened.damage {
        let hit = locations
            .iter()
            .zip('a'..)
            .filter(|(location, _)| from < location.offset + location.length && location.offset < to);
        words.push(format!("-{}", hit.map(|(_, letter)| letter).collect::<String>()));
    }
    if found.opened.torn_bytes > 0 {
        words.push(format!("torn {}", found.opened.torn_bytes));
    }
    words.join(" ")
}

/// Damages the headers and the bodies of these frames.
fn damaged(headers: &str, bodies: &str) -> String {
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
fn what_is_left_of_a_damaged_batch_counts_if_a_later_one_is_there() {
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
        assert_eq!(damaged(headers, bodies), expected, "headers {headers}, bodies {bodies}");
    }
}

#[test]
fn a_tail_torn_anywhere_is_cut_off() {
    let (disk, locations) = batches();
    let whole = disk.contents(SEGMENT).unwrap();
    for len in locations[5].offset..locations[8].offset {
        let disk = disk.after_crash(Survival::All);
        disk.edit(SEGMENT, |bytes| bytes.truncate(len as usize));
        let torn = len - locations[5].offset;
        let expected = if torn == 0 { "a bcd e".to_owned() } else { format!("a bcd e torn {torn}") };
        assert_eq!(summary(&disk, &locations), expected);
        assert_eq!(disk.contents(SEGMENT).unwrap(), whole[..locations[5].offset as usize]);
        assert_eq!(summary(&disk, &locations), "a bcd e");
    }
}

#[test]
fn copies_of_frames_in_a_payload_are_no_frames() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    commit(&mut journal, &texts(&["a", "b"]));
    commit(&mut journal, &texts(&["c"]));
    let copies = disk.contents(SEGMENT).unwrap()[36..].to_vec();
    let hostile = commit(&mut journal, &vec![(2, copies.clone()), (2, copies.repeat(40))]);
    commit(&mut journal, &texts(&["d"]));
    // The search for the next frame now has to pass through the payloads.
    disk.edit(SEGMENT, |bytes| hostile.iter().for_each(|location| bytes[location.offset as usize] ^= 1));
    let found = open(&disk, 1 << 20);
    assert_eq!(found.bodies(), [texts(&["a", "b"]), texts(&["c"]), texts(&["d"])]);
    assert_eq!(found.opened.damage.len(), 1);
}

#[test]
fn a_frame_of_another_segment_at_the_same_place_is_no_frame() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1).journal;
    for text in ["a", "b", "c"] {
        commit(&mut journal, &texts(&[text]));
    }
    let other = disk.contents(&name(2)).unwrap();
    disk.edit(SEGMENT, |bytes| bytes[36..].copy_from_slice(&other[36..]));
    let found = open(&disk, 1);
    assert_eq!(found.bodies(), [texts(&["b"]), texts(&["c"])]);
    assert_eq!(found.opened.damage.len(), 1);
}

#[test]
fn the_way_is_found_again_behind_a_large_hole() {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 30).journal;
    let large = vec![(1, vec![1; 1_500_000]), (1, vec![2; 700_001]), (1, vec![3; 2_000_003])];
    let locations = commit(&mut journal, &large);
    commit(&mut journal, &texts(&["b"]));
    commit(&mut journal, &texts(&["c"]));
    let middle = locations[1];
    // Looks like headers everywhere, for all that can be said without a checksum.
    disk.edit(SEGMENT, |bytes| {
        let end = (middle.offset + middle.length) as usize;
        bytes[middle.offset as usize..end].chunks_mut(8).for_each(|chunk| {
            let likely = [9, 0, 0, 0, 1, 0, 0, 0];
            chunk.copy_from_slice(&likely[..chunk.len()]);
        });
    });
    let found = open(&disk, 1 << 30);
    let left = vec![large[0].clone(), large[2].clone()];
    assert_eq!(found.bodies(), [left, texts(&["b"]), texts(&["c"])]);
    let damage: Vec<_> = found.opened.damage.iter().map(|damage| (damage.from, damage.to)).collect();
    assert_eq!(damage, [(middle.offset, middle.offset + middle.length)]);
}

/// A disk that cannot read some bytes of the first segment. Of the others it reads everything: they
/// are shorter.
fn with_bad_sector(disk: &SimDisk, from: u64, to: u64) -> Arc<HookedDisk> {
    Arc::new(HookedDisk::new(disk.clone(), move |call| {
        let is_hit = matches!(call, Call::Read(_, read) if read.start < to && from < read.end);
        if is_hit { Err(io::Error::other("the sector is bad")) } else { Ok(()) }
    }))
}

/// Sixty frames of 1,000 bytes, in batches of ten.
fn sixty() -> (SimDisk, Vec<Location>) {
    let disk = SimDisk::new();
    let mut journal = open(&disk, 1 << 20).journal;
    let locations = (0..6).flat_map(|n| commit(&mut journal, &vec![(1, vec![n; 1000]); 10])).collect();
    (disk, locations)
}

#[test]
fn a_bad_sector_costs_the_frames_on_its_page() {
    let (disk, locations) = sixty();
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
    assert_eq!((frames, damage), (found.opened.frames, 2), "the body of one frame, and the frames behind it");
    assert_eq!(outcome.unwrap_err().to_string(), "the journal cannot be read: the sector is bad");

    let read = found.journal.reader().read(&locations);
    let failed = read.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(failed, 1, "a frame alone needs no more than its own bytes");
}

#[test]
fn a_bad_sector_in_the_last_batch_is_told_and_nothing_is_cut_off() {
    let (disk, locations) = sixty();
    let last = locations[56].offset;
    let mut found =
        try_open(with_bad_sector(&disk, last.into(), u64::from(last) + 9), 1 << 20, None).unwrap();
    assert_eq!((found.batches.len(), found.opened.torn_bytes), (5, 0));
    assert_eq!(found.opened.damage.len(), 1);
    let len = disk.contents(SEGMENT).unwrap().len();
    commit(&mut found.journal, &texts(&["goes on"]));
    assert_eq!((disk.contents(SEGMENT).unwrap().len(), found.journal.reader().segments().len()), (len, 2));
}

#[test]
fn a_bad_sector_under_the_header_costs_the_segment() {
    let (disk, _) = sixty();
    let mut found = try_open(with_bad_sector(&disk, 0, 1), 1 << 20, None).unwrap();
    let to = u32::try_from(disk.contents(SEGMENT).unwrap().len()).unwrap();
    assert!(found.opened.unreadable);
    let what = "the disk cannot read the header of the segment";
    assert_eq!(found.opened.damage, [Damage { segment: 1, from: 0, to, what }]);
    assert_eq!(
        found.opened.damage[0].to_string(),
        format!("journal segment 1, bytes 0 to {to}: the disk cannot read the header of the segment")
    );
    commit(&mut found.journal, &texts(&["goes on"]));
    assert_eq!(open(&disk, 1 << 20).batches.len(), 7, "when the disk reads again, all is there");
}
