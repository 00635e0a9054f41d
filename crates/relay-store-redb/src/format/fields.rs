//! Numbers and texts in rows and records: appended when a row is written, and taken off its front
//! when it is read. Invalid bytes are an error, never a panic.

use relay_core::{Seq, Timestamp, Usage};
use relay_journal::Location;

use crate::error::StoreError;

/// Takes fields off the front of a row.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// The kind of row, for errors.
    what: &'static str,
}

/// Appends a number as LEB128: seven bits in a byte, the low ones first, the top bit set where more
/// follow.
pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    bytes.push(low_bits(number));
}

/// Appends several numbers.
pub(crate) fn put_numbers(bytes: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| put_number(bytes, number));
}

/// Appends a text with its length before it.
pub(crate) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// Appends a location: segment, offset and length.
pub(crate) fn put_location(bytes: &mut Vec<u8>, Location { segment, offset, length }: Location) {
    put_numbers(bytes, [segment, offset, length].map(u64::from));
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or_default()
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    const fn corrupted(&self) -> StoreError {
        StoreError::Corrupted(self.what)
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(self.corrupted())?;
        self.rest = rest;
        Ok(*field)
    }

    /// A big-endian number of 8 bytes, as in keys.
    pub(super) fn be(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    /// A number that [`put_number`] wrote.
    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let mut number = 0_u64;
        // Rows are full of numbers, so this looks for the end of the row only once per number.
        for (shift, (index, byte)) in (0..64).step_by(7).zip(self.rest.iter().enumerate()) {
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                let fits = number >> shift == bits;
                return if fits { Ok(number) } else { Err(self.corrupted()) };
            }
        }
        Err(self.corrupted())
    }

    /// A number that fits into 32 bits.
    pub(crate) fn small(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.number()?).map_err(|_| self.corrupted())
    }

    pub(super) fn seq(&mut self) -> Result<Seq, StoreError> {
        self.number().map(Seq::new)
    }

    pub(super) fn timestamp(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_ms)
    }

    pub(crate) fn location(&mut self) -> Result<Location, StoreError> {
        Ok(Location { segment: self.small()?, offset: self.small()?, length: self.small()? })
    }

    pub(super) fn usage(&mut self) -> Result<Usage, StoreError> {
        Ok(Usage { items: self.number()?, bytes: self.number()? })
    }

    /// A text with its length before it.
    pub(crate) fn text(&mut self) -> Result<&'a str, StoreError> {
        let length = usize::try_from(self.number()?).map_err(|_| self.corrupted())?;
        let (field, rest) = self.rest.split_at_checked(length).ok_or(self.corrupted())?;
        self.rest = rest;
        std::str::from_utf8(field).map_err(|_| self.corrupted())
    }

    /// All bytes that are left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(crate) const fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Returns `decoded` if no bytes are left.
    pub(crate) fn end<T>(&self, decoded: T) -> Result<T, StoreError> {
        if self.rest.is_empty() { Ok(decoded) } else { Err(self.corrupted()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_leb128() {
        for (number, expected) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            assert_eq!(bytes, expected);
            let mut fields = Fields::new(&bytes, "test");
            assert_eq!(fields.number().unwrap(), number);
            fields.end(()).unwrap();
        }
    }

    #[test]
    fn a_number_that_is_cut_short_or_too_large_is_an_error() {
        for bytes in
            [&[][..], &[0x80], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert!(Fields::new(bytes, "test").number().is_err(), "{bytes:?}");
        }
    }
}
