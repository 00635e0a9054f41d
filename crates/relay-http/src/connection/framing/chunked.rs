//! Finds the end of a chunked body (RFC 9112, section 7.1). It does not decode the body.
//!
//! Extensions are skipped if they have no quotes and are short, since all parsers agree on their
//! end then. Trailers are skipped too, except those that could change the meaning of the request.

use super::Malformed;
use super::fields;

/// The most digits of a chunk size.
const SIZE_DIGITS_MAX: u32 = 16;

/// The most bytes of the extensions of one chunk.
const EXTENSION_BYTES_MAX: u32 = 64;

/// The most bytes of all trailers together.
const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// Trailers that a careless parser might take for header fields.
const FORBIDDEN_TRAILERS: [&[u8]; 9] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"trailer",
    b"te",
    b"content-encoding",
    b"content-type",
    b"expect",
];

/// The parser of one chunked body.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// The bytes of the current chunk that are still to come.
    size: u64,
    digits: u32,
    extension_bytes: u32,
    trailer: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    Trailer,
}

const BAD_SIZE: Malformed = Malformed::Because("a chunk size is not a plain hexadecimal number");
const BAD_EXTENSION: Malformed =
    Malformed::Because("a chunk extension is too long or contains invalid characters");
const BAD_END: Malformed = Malformed::Because("a chunk does not end where its size says");
const BAD_TRAILER: Malformed =
    Malformed::Because("the trailer is too long, malformed, or contains a forbidden field");

impl Chunked {
    pub(super) const fn new() -> Self {
        Self { at: At::Size, size: 0, digits: 0, extension_bytes: 0, trailer: Vec::new(), trailer_bytes: 0 }
    }

    /// Returns how many bytes of `input` belong to the body, and whether they complete it.
    ///
    /// # Errors
    /// When the coding is malformed.
    pub(super) fn read(&mut self, input: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut read = 0;
        while let Some(rest) = input.get(read..).filter(|rest| !rest.is_empty()) {
            if self.at == At::Data {
                let len = rest.len().min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= len as u64;
                read += len;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            let byte = rest.first().copied().unwrap_or_default();
            read += 1;
            if self.step(byte)? {
                return Ok((read, true));
            }
        }
        Ok((read, false))
    }

    /// Reads one byte. Returns whether it completes the body.
    fn step(&mut self, byte: u8) -> Result<bool, Malformed> {
        match self.at {
            At::Size => self.read_size(byte)?,
            At::Extension => self.read_extension(byte)?,
            At::SizeLineFeed => {
                expect(byte, b'\n', BAD_SIZE)?;
                self.at = if self.size == 0 { At::Trailer } else { At::Data };
                (self.digits, self.extension_bytes) = (0, 0);
            }
            At::DataReturn => {
                expect(byte, b'\r', BAD_END)?;
                self.at = At::DataLineFeed;
            }
            At::DataLineFeed => {
                expect(byte, b'\n', BAD_END)?;
                self.at = At::Size;
            }
            At::Trailer => return self.read_trailer(byte),
            At::Data => {}
        }
        Ok(false)
    }

    fn read_size(&mut self, byte: u8) -> Result<(), Malformed> {
        if byte == b'\r' && self.digits > 0 {
            self.at = At::SizeLineFeed;
            return Ok(());
        }
        if byte == b';' && self.digits > 0 {
            self.at = At::Extension;
            return Ok(());
        }
        let digit = char::from(byte).to_digit(16).ok_or(BAD_SIZE)?;
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(BAD_SIZE);
        }
        self.size = self.size << 4 | u64::from(digit);
        // The framework uses the same width and needs space for one more digit.
        if self.size > u64::MAX >> 4 { Err(BAD_SIZE) } else { Ok(()) }
    }

    fn read_extension(&mut self, byte: u8) -> Result<(), Malformed> {
        if byte == b'\r' {
            self.at = At::SizeLineFeed;
            return Ok(());
        }
        self.extension_bytes += 1;
        let is_plain = fields::is_token(byte) || matches!(byte, b'=' | b';');
        if is_plain && self.extension_bytes <= EXTENSION_BYTES_MAX { Ok(()) } else { Err(BAD_EXTENSION) }
    }

    fn read_trailer(&mut self, byte: u8) -> Result<bool, Malformed> {
        self.trailer.push(byte);
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BAD_TRAILER);
        }
        if byte != b'\n' {
            return Ok(false);
        }
        let line = std::mem::take(&mut self.trailer);
        let line = line.strip_suffix(b"\r\n").ok_or(BAD_TRAILER)?;
        if line.is_empty() {
            return Ok(true);
        }
        let (name, _) = fields::field(line)?;
        let is_forbidden = FORBIDDEN_TRAILERS.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden));
        if is_forbidden { Err(BAD_TRAILER) } else { Ok(false) }
    }
}

fn expect(byte: u8, expected: u8, error: Malformed) -> Result<(), Malformed> {
    if byte == expected { Ok(()) } else { Err(error) }
}
