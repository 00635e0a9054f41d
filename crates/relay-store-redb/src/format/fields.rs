//! Counters and texts in rows and records: written at the end of one, taken off its front. A row
//! that is too short, too long or no text is reported and never a panic.

use relay_core::Usage;

use crate::error::StoreError;

/// Takes fields off the front of a row.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    /// What the row is, for the report.
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

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7f).unwrap_or_default()
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(StoreError::Corrupted(self.what))?;
        self.rest = rest;
        Ok(*field)
    }

    /// A big-endian number, as keys have them.
    pub(crate) fn be(&mut self) -> Result<u64, StoreError> {
        self.take().map(u64::from_be_bytes)
    }

    /// A number that [`put_number`] wrote.
    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let mut number = 0_u64;
        // Rows are full of numbers: the end of the row is looked for once, and not at every byte.
        for (shift, (index, byte)) in (0..64).step_by(7).zip(self.rest.iter().enumerate()) {
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(index + 1..).unwrap_or_default();
                let fits = number >> shift == bits;
                return if fits { Ok(number) } else { Err(StoreError::Corrupted(self.what)) };
            }
        }
        Err(StoreError::Corrupted(self.what))
    }

    /// A number that fits into 32 bits.
    pub(crate) fn small(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.number()?).map_err(|_| StoreError::Corrupted(self.what))
    }

    pub(crate) fn usage(&mut self) -> Result<Usage, StoreError> {
        Ok(Usage { items: self.number()?, bytes: self.number()? })
    }

    /// The next `length` bytes.
    pub(crate) fn slice(&mut self, length: u64) -> Result<&'a [u8], StoreError> {
        let length = usize::try_from(length).map_err(|_| StoreError::Corrupted(self.what))?;
        let (field, rest) = self.rest.split_at_checked(length).ok_or(StoreError::Corrupted(self.what))?;
        self.rest = rest;
        Ok(field)
    }

    /// All that is left, as text that `parse` takes.
    pub(crate) fn rest_text<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let bytes = std::mem::take(&mut self.rest);
        std::str::from_utf8(bytes).ok().and_then(parse).ok_or(StoreError::Corrupted(self.what))
    }

    pub(crate) const fn rest_bytes(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn end<T>(&self, decoded: T) -> Result<T, StoreError> {
        if self.rest.is_empty() { Ok(decoded) } else { Err(StoreError::Corrupted(self.what)) }
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
    fn a_number_without_end_or_too_large_is_reported() {
        for bytes in
            [&[][..], &[0x80], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert!(Fields::new(bytes, "test").number().is_err(), "{bytes:?}");
        }
    }
}
