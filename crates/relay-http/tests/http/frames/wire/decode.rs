//! Decoders for frames, and for the status of a response.

use super::encode::{DATA, END_STREAM, GOAWAY, HEADERS};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::frames) struct Frame {
    pub(in crate::frames) kind: u8,
    pub(in crate::frames) flags: u8,
    pub(in crate::frames) stream: u32,
    pub(in crate::frames) payload: Vec<u8>,
}

impl Frame {
    /// The first frame of these bytes and its length, once it is complete.
    pub(in crate::frames) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let ([high, middle, low, kind, flags, stream @ ..], rest) = bytes.split_first_chunk::<9>()?;
        let length = usize::try_from(u32::from_be_bytes([0, *high, *middle, *low])).unwrap();
        let payload = rest.get(..length)?.to_vec();
        Some((Self { kind: *kind, flags: *flags, stream: u32::from_be_bytes(*stream), payload }, 9 + length))
    }

    /// The error code of an RST_STREAM or a GOAWAY.
    pub(in crate::frames) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(in crate::frames) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// The status at the beginning of a head that uses no dynamic table.
pub(in crate::frames) fn status(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [index @ 0x88..=0x8e, ..] => INDEXED[usize::from(index - 0x88)],
        // A literal with the name at index 8.
        [0x08 | 0x18 | 0x48, length, text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 { digits(text.iter().map(|byte| byte - b'0')) } else { huffman(text) }
        }
        _ => panic!("no status: {block:x?}"),
    }
}

fn digits(digits: impl Iterator<Item = u8>) -> u16 {
    digits.fold(0, |number, digit| number * 10 + u16::from(digit))
}

/// Huffman-coded digits: five bits for 0 to 2, and six for the others (RFC 7541, appendix B).
fn huffman(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let mut next = move |count: usize| (0..count).try_fold(0, |number, _| Some(number << 1 | bits.next()?));
    digits((0..3).map(|_| match next(5).unwrap() {
        short @ 0..=2 => short,
        long => (long << 1 | next(1).unwrap()) - 0b01_1001 + 3,
    }))
}
