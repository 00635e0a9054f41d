//! Encodes and decodes the bytes of a segment file, without I/O. The crate documentation has the
//! layout. CRC-32C is the checksum with Castagnoli's polynomial (RFC 3720, appendix B.4).

use bytes::Bytes;

use crate::{Frame, Location, Position};

/// The only supported format.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 36;
pub(crate) const FRAME_HEADER_BYTES: u32 = 20;

const MAGIC: &[u8; 8] = b"relayseg";
/// The magic of headers before the first release. Their formats are numbered differently, and none
/// of them is supported.
const EARLIER_MAGIC: &[u8; 8] = b"relayjnl";
/// The flag of the last frame of a batch.
const LAST: u8 = 1;

/// The first bytes of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u32,
    /// The end of the last batch before this segment.
    pub(crate) previous: Position,
    pub(crate) salt: Salt,
}

/// Why 36 bytes are not a valid segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Corrupted(&'static str),
    /// The header has this format, which is not supported.
    Format(u32),
    /// The header is from before the first release.
    Earlier,
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_bytes: u32,
    pub(crate) kind: u8,
    pub(crate) is_last: bool,
    pub(crate) batch: u32,
    pub(crate) body_crc: u32,
}

/// The secret of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u64);

/// Such as `journal-0000000001.seg` for a journal with the name `journal`.
pub(crate) fn file_name(journal: &str, segment: u32) -> String {
    format!("{journal}-{segment:010}.seg")
}

/// The segment number in a file name; `None` for all other files, including those of other
/// journals.
pub(crate) fn segment_of(journal: &str, name: &str) -> Option<u32> {
    let segment = name.strip_prefix(journal)?.strip_prefix('-')?.strip_suffix(".seg")?.parse().ok()?;
    (segment > 0 && file_name(journal, segment) == name).then_some(segment)
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.previous.segment.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.previous.offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.0.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header of the file whose name has the number `id`.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES as usize], id: u32) -> Result<Self, HeaderError> {
        let mut fields = Fields(bytes);
        let (magic, format, own) = (fields.take::<8>(), fields.u32(), fields.u32());
        let previous = Position { segment: fields.u32(), offset: fields.u32() };
        let salt = Salt(u64::from_le_bytes(fields.take()));
        let is_valid = fields.u32() == crc32c::crc32c(&bytes[..32]);
        match &magic {
            MAGIC if is_valid => {}
            EARLIER_MAGIC if is_valid => return Err(HeaderError::Earlier),
            _ => return Err(HeaderError::Corrupted("the segment header is corrupt")),
        }
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        if own != id || previous.segment >= id {
            return Err(HeaderError::Corrupted("the segment header does not match the file name"));
        }
        Ok(Self { id, previous, salt })
    }
}

impl FrameHeader {
    /// The bytes of header and body together.
    pub(crate) fn frame_bytes(&self) -> u64 {
        u64::from(FRAME_HEADER_BYTES) + u64::from(self.body_bytes)
    }

    pub(crate) fn encode(&self, salt: Salt, offset: u32) -> [u8; FRAME_HEADER_BYTES as usize] {
        let mut bytes = [0; FRAME_HEADER_BYTES as usize];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = if self.is_last { LAST } else { 0 };
        bytes[8..12].copy_from_slice(&self.batch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = salt.header_crc(offset, &bytes[..16]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Decodes the header of the frame at `offset`; `None` if it is not valid there.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER_BYTES as usize], salt: Salt, offset: u32) -> Option<Self> {
        let mut fields = Fields(bytes);
        let body_bytes = fields.u32();
        let [kind, flags, ..] = fields.take::<4>();
        let (batch, body_crc) = (fields.u32(), fields.u32());
        let is_valid = Self::is_plausible(bytes)
            && fields.u32() == salt.header_crc(offset, &bytes[..16])
            && (SEGMENT_HEADER_BYTES..=offset).contains(&batch);
        is_valid.then_some(Self { body_bytes, kind, is_last: flags == LAST, batch, body_crc })
    }

    /// Whether a checksum is worth computing. This cheap check excludes nearly all other bytes.
    pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
        matches!(bytes, [_, _, _, _, kind, 0 | LAST, 0, 0, ..] if *kind != 0)
    }
}

/// Decodes the bytes at `location` in a segment; `None` if they are not exactly one valid frame.
pub(crate) fn decode_frame(bytes: &Bytes, location: Location, salt: Salt) -> Option<Frame> {
    let header = FrameHeader::decode(bytes.first_chunk()?, salt, location.offset)?;
    let body = bytes.slice(FRAME_HEADER_BYTES as usize..);
    let is_valid = header.frame_bytes() == u64::from(location.length)
        && body.len() == header.body_bytes as usize
        && header.body_crc == salt.body_crc(location.offset, &[&body]);
    is_valid.then_some(Frame { kind: header.kind, location, body })
}

impl Salt {
    /// The checksum of a body that consists of these pieces.
    pub(crate) fn body_crc(self, offset: u32, pieces: &[&[u8]]) -> u32 {
        pieces.iter().fold(seed(self.0 >> 32, offset), |crc, piece| crc32c::crc32c_append(crc, piece))
    }

    fn header_crc(self, offset: u32, header: &[u8]) -> u32 {
        crc32c::crc32c_append(seed(self.0 & 0xffff_ffff, offset), header)
    }
}

/// Starts a checksum with one half of a salt, which is below 2^32, and an offset.
fn seed(half: u64, offset: u32) -> u32 {
    crc32c::crc32c(&(half | u64::from(offset) << 32).to_le_bytes())
}

/// Reads fields from the front of bytes; past the end it returns zeros. The types of the callers
/// guarantee the length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes 11 to 88 on disk.
    const SALT: Salt = Salt(0x8877_6655_4433_2211);

    /// Bytes as hex, in fields of these widths; the remaining bytes are the last field.
    fn fields(mut bytes: &[u8], widths: &[usize]) -> Vec<String> {
        let mut fields = Vec::new();
        for width in widths.iter().copied().chain([bytes.len() - widths.iter().sum::<usize>()]) {
            let (field, rest) = bytes.split_at(width);
            fields.push(field.iter().map(|byte| format!("{byte:02x}")).collect());
            bytes = rest;
        }
        fields
    }

    fn header() -> SegmentHeader {
        SegmentHeader { id: 7, previous: Position { segment: 5, offset: 0x0001_2345 }, salt: SALT }
    }

    /// A frame of kind 3 with the body `alice`, the first one of its segment.
    fn frame() -> (FrameHeader, Bytes) {
        let body = b"alice";
        let body_crc = SALT.body_crc(36, &[b"al", b"", b"ice"]);
        let header = FrameHeader { body_bytes: 5, kind: 3, is_last: false, batch: 36, body_crc };
        (header, [&header.encode(SALT, 36)[..], body].concat().into())
    }

    const LOCATION: Location = Location { segment: 7, offset: 36, length: 25 };

    #[test]
    fn a_segment_header_on_disk() {
        let bytes = header().encode();
        let expected = [
            "72656c6179736567", // magic
            "01000000",         // format
            "07000000",         // segment
            "05000000",         // previous segment
            "45230100",         // previous end
            "1122334455667788", // salt
            "2bcfc712",         // checksum
            "",
        ];
        assert_eq!(fields(&bytes, &[8, 4, 4, 4, 4, 8, 4]), expected);
        assert_eq!(SegmentHeader::decode(&bytes, 7), Ok(header()));
    }

    #[test]
    fn a_frame_on_disk() {
        let (header, bytes) = frame();
        let expected = [
            "05000000",   // body length
            "03",         // kind
            "00",         // flags
            "0000",       // reserved
            "24000000",   // batch
            "36354978",   // body checksum
            "64679b8d",   // header checksum
            "616c696365", // body
        ];
        assert_eq!(fields(&bytes, &[4, 1, 1, 2, 4, 4, 4]), expected);
        assert_eq!(FrameHeader::decode(bytes.first_chunk().unwrap(), SALT, 36), Some(header));
        let found = decode_frame(&bytes, LOCATION, SALT).unwrap();
        assert_eq!((found.kind, found.location, &found.body[..]), (3, LOCATION, &b"alice"[..]));
    }

    #[test]
    fn the_last_frame_of_a_batch_on_disk() {
        let body_crc = SALT.body_crc(61, &[]);
        let header = FrameHeader { body_bytes: 0, kind: 9, is_last: true, batch: 36, body_crc };
        let bytes = header.encode(SALT, 61);
        let expected = ["00000000", "09", "01", "0000", "24000000", "e3956740", "c9c2d4dd", ""];
        assert_eq!(fields(&bytes, &[4, 1, 1, 2, 4, 4, 4]), expected);
        assert_eq!(FrameHeader::decode(&bytes, SALT, 61), Some(header));
    }

    #[test]
    fn every_changed_bit_is_detected() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(SegmentHeader::decode(&changed, 7), Err(HeaderError::Corrupted(_))),
                "bit {bit}"
            );
        }
        let (_, bytes) = frame();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_frame(&changed.into(), LOCATION, SALT), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_valid_only_at_its_own_offset_in_its_own_segment() {
        let (_, bytes) = frame();
        for offset in (37..5000).chain([0, 35, 36 << 8, 36 << 24, u32::MAX]) {
            assert_eq!(decode_frame(&bytes, Location { offset, ..LOCATION }, SALT), None, "{offset}");
        }
        for salt in [SALT.0 ^ 1, SALT.0 ^ 1 << 63] {
            assert_eq!(decode_frame(&bytes, LOCATION, Salt(salt)), None, "{salt:x}");
        }
        for length in [0, 19, 20, 24, 26] {
            assert_eq!(decode_frame(&bytes, Location { length, ..LOCATION }, SALT), None, "{length}");
            assert_eq!(
                decode_frame(&bytes.slice(..length.min(25) as usize), LOCATION, SALT).is_some(),
                length > 25
            );
        }
    }

    #[test]
    fn reserved_values_are_rejected_despite_valid_checksums() {
        for (at, value) in [(4, 0), (5, 2), (6, 1), (7, 1), (8, 35), (8, 37)] {
            let (_, bytes) = frame();
            let mut bytes: [u8; 20] = *bytes.first_chunk().unwrap();
            bytes[at] = value;
            let crc = SALT.header_crc(36, &bytes[..16]);
            bytes[16..].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(FrameHeader::decode(&bytes, SALT, 36), None, "byte {at} is {value}");
        }
    }

    #[test]
    fn a_valid_segment_header_must_match_its_file() {
        let decode = |at: usize, value: u8, id| {
            let mut bytes = header().encode();
            bytes[at] = value;
            let crc = crc32c::crc32c(&bytes[..32]);
            bytes[32..].copy_from_slice(&crc.to_le_bytes());
            SegmentHeader::decode(&bytes, id)
        };
        assert!(decode(16, 5, 7).is_ok());
        assert_eq!(decode(8, 2, 7), Err(HeaderError::Format(2)));
        for (at, value, id) in [(16, 5, 8), (16, 7, 7), (16, 8, 7), (0, b'R', 7)] {
            assert!(matches!(decode(at, value, id), Err(HeaderError::Corrupted(_))), "byte {at} is {value}");
        }
    }

    #[test]
    fn a_header_of_an_earlier_build_is_not_corruption() {
        let mut bytes = header().encode();
        bytes[..8].copy_from_slice(b"relayjnl");
        assert!(matches!(SegmentHeader::decode(&bytes, 7), Err(HeaderError::Corrupted(_))));
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes, 7), Err(HeaderError::Earlier));
    }

    #[test]
    fn file_names() {
        assert_eq!(file_name("journal", 1), "journal-0000000001.seg");
        assert_eq!(segment_of("journal", "journal-0000000001.seg"), Some(1));
        assert_eq!(segment_of("journal", "journal-4294967295.seg"), Some(u32::MAX));
        assert_eq!(segment_of("payload", "payload-0000000001.seg"), Some(1));
        for other in [
            "journal-0000000000.seg",
            "journal-4294967296.seg",
            "journal-1.seg",
            "journal-+000000001.seg",
            "journal-0000000001.seg.bak",
            "index.redb",
            "payload-0000000001.seg",
            "journal-two-0000000001.seg",
        ] {
            assert_eq!(segment_of("journal", other), None, "{other}");
        }
    }
}
