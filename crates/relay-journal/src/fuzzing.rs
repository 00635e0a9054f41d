//! What fuzzers and their tests run: bytes of any origin, taken for a frame, a segment, or damage
//! to one. Compiled with the feature `fuzzing` alone; nothing of it is part of a running relay, and
//! nothing is promised to stay.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use relay_disk::{Disk as _, SimDisk};

use crate::format::{
    FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, decode_frame, file_name,
    segment_of,
};
use crate::{Frame, Journal, Location, Opened, Options, Position};

const SALT: Salt = Salt(0x8877_6655_4433_2211);
const SEGMENT_BYTES: u64 = 300;

/// A CRC-32C notices every change of up to this many bits in what we write.
const FLIPS_MAX: usize = 3;

/// Bytes taken for the header of a segment, for a frame, and for the name of a file; and a frame
/// made of them, of which no changed bit passes.
pub fn frame(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>()
        && let Ok(header) = SegmentHeader::decode(bytes, 7)
    {
        assert!(header.previous.segment < header.id && header.encode() == *bytes, "{header:?}");
    }
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let location = Location { segment: 1, offset: 36, length };
    if let Some(frame) = decode_frame(&Bytes::copy_from_slice(data), location, SALT) {
        assert_eq!(frame.body.len() + FRAME_HEADER_BYTES as usize, data.len());
    }
    if let Some(segment) = std::str::from_utf8(data).ok().and_then(|name| segment_of("journal", name)) {
        assert_eq!(file_name("journal", segment).as_bytes(), data);
    }
    if let Some(([kind, flag, flip_low, flip_high], body)) = data.split_first_chunk() {
        made_frame((*kind).max(1), flag & 1 == 1, u16::from_le_bytes([*flip_low, *flip_high]).into(), body);
    }
}

fn made_frame(kind: u8, is_last: bool, flip: usize, body: &[u8]) {
    let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let header = FrameHeader { body_bytes, kind, is_last, batch: 36, body_crc: SALT.body_crc(36, &[body]) };
    let mut bytes = [&header.encode(SALT, 36), body].concat();
    let location = Location { segment: 1, offset: 36, length: FRAME_HEADER_BYTES + body_bytes };
    let found = decode_frame(&Bytes::from(bytes.clone()), location, SALT);
    assert!(
        found.is_some_and(|frame| frame.kind == kind && frame.body == body),
        "a frame that was written is not read"
    );
    flip_bit(&mut bytes, flip);
    assert_eq!(decode_frame(&bytes.into(), location, SALT), None, "bit {flip} is changed, and it passes");
}

/// Bytes of any origin behind the header of a segment. They are opened, replayed and scanned, and
/// the journal goes on.
pub fn segment(data: &[u8]) {
    let disk = SimDisk::new();
    let header = SegmentHeader { id: 1, previous: Position::default(), salt: SALT };
    put(&disk, [&header.encode(), data].concat());
    let (mut journal, replayed, _) = open(&disk);
    for segment in journal.reader().segments() {
        let mut frames = 0;
        let counted = journal.reader().scan(segment.id, |step| {
            frames += usize::from(step.is_ok());
            ControlFlow::Continue(())
        });
        assert!(
            counted.is_ok() && frames >= replayed.len().saturating_sub(1),
            "a scan sees less than a replay"
        );
    }
    let location = append(&mut journal, 9, b"and on");
    let found = journal.reader().read(&[location]).pop();
    assert!(found.is_some_and(|frame| frame.is_ok_and(|frame| frame.body == b"and on"[..])));
    let (_, again, _) = open(&disk);
    assert_eq!(
        again.len(),
        replayed.len() + 1,
        "what was replayed once is replayed again, and what came after it"
    );
}

/// A journal, and up to three changed bits in it. What is replayed is what was written, in its
/// place, or missing; and if something is missing, that is reported, but at the end, where it may
/// be a torn tail.
pub fn damage(data: &[u8]) {
    let Some((flips, bodies)) = data.split_first_chunk::<{ 1 + 2 * FLIPS_MAX }>() else { return };
    let disk = SimDisk::new();
    let (mut journal, _, _) = open(&disk);
    let mut written = BTreeMap::new();
    // Two batches at least, so that there is something in front of the last one.
    for body in bodies.chunks(20).chain([&b"the last but one"[..], b"the last"]).take(40) {
        let location = append(&mut journal, 1, body);
        written.insert((location.segment, location.offset), body.to_vec());
    }
    drop(journal);
    damage_files(&disk, flips);
    let (_, replayed, opened) = open(&disk);
    for frame in &replayed {
        let Location { segment, offset, .. } = frame.location;
        let original = written.get(&(segment, offset));
        assert!(
            original.is_some_and(|body| frame.body == body[..]),
            "{:?} was never written",
            frame.location
        );
    }
    let is_whole = replayed.len() == written.len();
    assert!(
        is_whole
            || !opened.damage.is_empty()
            || opened.torn_bytes > 0
            || opened.batches < written.len() as u64
    );
}

/// The first byte tells how many bits, and each pair of the others which one.
fn damage_files(disk: &SimDisk, flips: &[u8; 1 + 2 * FLIPS_MAX]) {
    let [count, places @ ..] = flips;
    let mut names = disk.list().unwrap_or_default();
    names.sort();
    let (pairs, _) = places.as_chunks::<2>();
    for pair in pairs.iter().take(usize::from(*count) % (FLIPS_MAX + 1)) {
        let place = usize::from(u16::from_le_bytes(*pair));
        if let Some(name) = names.get(place % names.len().max(1)) {
            disk.edit(name, |bytes| flip_bit(bytes, place / names.len()));
        }
    }
}

fn flip_bit(bytes: &mut [u8], bit: usize) {
    let length = bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(bit / 8 % length) {
        *byte ^= 1 << (bit % 8);
    }
}

fn append(journal: &mut Journal, kind: u8, body: &[u8]) -> Location {
    let mut batch = journal.begin().expect("nothing fails on this disk");
    let location = batch.append(kind, body, Bytes::new());
    journal.commit(batch).expect("nothing fails on this disk");
    location
}

fn open(disk: &SimDisk) -> (Journal, Vec<Frame>, Opened) {
    let mut replayed = Vec::new();
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let opened = Journal::open(Arc::new(disk.clone()), options, None, |frames| {
        replayed.extend_from_slice(frames);
        Ok::<_, Infallible>(())
    });
    let (journal, opened) = opened.expect("whatever the bytes are, they are no reason not to open");
    (journal, replayed, opened)
}

fn put(disk: &SimDisk, bytes: Vec<u8>) {
    let name = file_name("journal", 1);
    disk.create(&name).expect("nothing fails on this disk");
    disk.edit(&name, |file| *file = bytes);
}
