//! Entry points for fuzzers and their tests: arbitrary bytes as a frame, as a segment, or as bit
//! flips in one. Compiled only with the feature `fuzzing`. This API is unstable.

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

/// A CRC-32C detects up to this many changed bits in data of this size.
const FLIPS_MAX: usize = 3;

/// Decodes bytes as a segment header, a frame and a file name. Also encodes a frame from them, and
/// checks that a flipped bit is detected.
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
        encoded_frame(
            (*kind).max(1),
            flag & 1 == 1,
            u16::from_le_bytes([*flip_low, *flip_high]).into(),
            body,
        );
    }
}

fn encoded_frame(kind: u8, is_last: bool, flip: usize, body: &[u8]) {
    let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let header = FrameHeader { body_bytes, kind, is_last, batch: 36, body_crc: SALT.body_crc(36, &[body]) };
    let mut bytes = [&header.encode(SALT, 36), body].concat();
    let location = Location { segment: 1, offset: 36, length: FRAME_HEADER_BYTES + body_bytes };
    let decoded = decode_frame(&Bytes::from(bytes.clone()), location, SALT);
    assert!(
        decoded.is_some_and(|frame| frame.kind == kind && frame.body == body),
        "an encoded frame cannot be decoded"
    );
    flip_bit(&mut bytes, flip);
    assert_eq!(decode_frame(&bytes.into(), location, SALT), None, "the flip of bit {flip} is not detected");
}

/// Opens, replays and scans a segment with arbitrary bytes after its header, and appends a batch.
pub fn segment(data: &[u8]) {
    let disk = SimDisk::new();
    let header = SegmentHeader { id: 1, previous: Position::default(), salt: SALT };
    put(&disk, [&header.encode(), data].concat());
    let (mut journal, replayed, _) = open(&disk);
    for segment in journal.reader().segments() {
        let mut frames = 0;
        let scanned = journal.reader().scan(segment.id, |step| {
            frames += usize::from(step.is_ok());
            ControlFlow::Continue(())
        });
        assert!(
            scanned.is_ok() && frames >= replayed.len().saturating_sub(1),
            "a scan finds fewer frames than a replay"
        );
    }
    let location = append(&mut journal, 9, b"appended");
    let read = journal.reader().read(&[location]).pop();
    assert!(read.is_some_and(|frame| frame.is_ok_and(|frame| frame.body == b"appended"[..])));
    let (_, replayed_again, _) = open(&disk);
    assert_eq!(replayed_again.len(), replayed.len() + 1, "the second replay differs");
}

/// Flips up to three bits of a journal. The replay returns each frame unchanged, or not at all.
/// Missing frames are reported, except at the end, where they may be a torn tail.
pub fn damage(data: &[u8]) {
    let Some((flips, bodies)) = data.split_first_chunk::<{ 1 + 2 * FLIPS_MAX }>() else { return };
    let disk = SimDisk::new();
    let (mut journal, _, _) = open(&disk);
    let mut written = BTreeMap::new();
    // At least two batches, so that one precedes the last.
    for body in bodies.chunks(20).chain([&b"the last but one"[..], b"the last"]).take(40) {
        let location = append(&mut journal, 1, body);
        written.insert((location.segment, location.offset), body.to_vec());
    }
    drop(journal);
    flip_bits(&disk, flips);
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
    let is_complete = replayed.len() == written.len();
    assert!(
        is_complete
            || !opened.damage.is_empty()
            || opened.torn_bytes > 0
            || opened.batches < written.len() as u64
    );
}

/// The first byte is the number of flips; each following pair selects a bit.
fn flip_bits(disk: &SimDisk, flips: &[u8; 1 + 2 * FLIPS_MAX]) {
    let [count, positions @ ..] = flips;
    let mut names = disk.list().unwrap_or_default();
    names.sort();
    let (pairs, _) = positions.as_chunks::<2>();
    for pair in pairs.iter().take(usize::from(*count) % (FLIPS_MAX + 1)) {
        let position = usize::from(u16::from_le_bytes(*pair));
        if let Some(name) = names.get(position % names.len().max(1)) {
            disk.edit(name, |bytes| flip_bit(bytes, position / names.len()));
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
    let mut batch = journal.begin().expect("the disk has no faults");
    let location = batch.append(kind, body, Bytes::new());
    journal.commit(batch).expect("the disk has no faults");
    location
}

fn open(disk: &SimDisk) -> (Journal, Vec<Frame>, Opened) {
    let mut replayed = Vec::new();
    let options = Options { segment_bytes: SEGMENT_BYTES, ..Options::default() };
    let opened = Journal::open(Arc::new(disk.clone()), options, None, |frames| {
        replayed.extend_from_slice(frames);
        Ok::<_, Infallible>(())
    });
    let (journal, opened) = opened.expect("a journal opens whatever its bytes are");
    (journal, replayed, opened)
}

fn put(disk: &SimDisk, bytes: Vec<u8>) {
    let name = file_name("journal", 1);
    disk.create(&name).expect("the disk has no faults");
    disk.edit(&name, |file| *file = bytes);
}
