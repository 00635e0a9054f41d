//! Decodes the parts of a body in CBOR, and skips values.

use std::convert::Infallible;

use cbor4ii::core::dec::{Decode as _, Read, Reference};
use cbor4ii::core::{major, marker, types};

use super::error::{Error, syntax};

/// How deep arrays, maps and tags may be nested, also where they are ignored. Each level takes a
/// piece of the stack.
const DEPTH_MAX: u32 = 127;

/// The rest of a body.
pub(super) struct Decoder<'de> {
    body: &'de [u8],
    pub(super) offset: usize,
    depth: u32,
}

impl<'de> Read<'de> for Decoder<'de> {
    type Error = Infallible;

    fn fill<'a>(&'a mut self, wanted: usize) -> Result<Reference<'de, 'a>, Infallible> {
        let rest = self.rest();
        Ok(Reference::Long(rest.get(..wanted).unwrap_or(rest)))
    }

    fn advance(&mut self, bytes: usize) {
        self.offset = self.offset.saturating_add(bytes).min(self.body.len());
    }
}

impl<'de> Decoder<'de> {
    pub(super) const fn new(body: &'de [u8]) -> Self {
        Self { body, offset: 0, depth: 0 }
    }

    /// Whether everything is read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.offset == self.body.len()
    }

    /// What was read from `start` on.
    pub(super) fn read_since(&self, start: usize) -> &'de [u8] {
        self.body.get(start..self.offset).unwrap_or_default()
    }

    fn rest(&self) -> &'de [u8] {
        self.body.get(self.offset..).unwrap_or_default()
    }

    pub(super) fn first_byte(&self) -> Result<u8, Error> {
        self.rest().first().copied().ok_or_else(|| syntax("the body ends where a value is expected"))
    }

    /// Reads something that is nested in what is read now.
    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return Err(syntax("values are nested too deeply"));
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    pub(super) fn skip_simple(&mut self, first: u8) -> Result<(), Error> {
        let bytes = match first {
            marker::FALSE | marker::TRUE | marker::NULL | marker::UNDEFINED => 1,
            marker::F16 => 3,
            marker::F32 => 5,
            marker::F64 => 9,
            marker::BREAK => return Err(syntax("a break where a value is expected")),
            // Among them are simple values to which nobody has given a meaning.
            _ => return Err(syntax("a byte that cannot begin a value")),
        };
        if self.rest().len() < bytes {
            return Err(syntax("the body ends within a value"));
        }
        self.advance(bytes);
        Ok(())
    }

    pub(super) fn bytes(&mut self) -> Result<&'de [u8], Error> {
        self.refuse_chunks()?;
        Ok(types::Bytes::<&[u8]>::decode(self)?.0)
    }

    pub(super) fn text(&mut self) -> Result<&'de str, Error> {
        self.refuse_chunks()?;
        Ok(<&str>::decode(self)?)
    }

    fn refuse_chunks(&self) -> Result<(), Error> {
        if is_indefinite(self.first_byte()?) {
            return Err(syntax("a string of indefinite length, which the relay does not read"));
        }
        Ok(())
    }

    /// Skips a value, and checks that it is well-formed (RFC 8949, appendix C) and that its text is
    /// UTF-8.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        let first = self.first_byte()?;
        match first >> 5 {
            major::UNSIGNED => drop(u64::decode(self)?),
            major::NEGATIVE => drop(i128::decode(self)?),
            major @ (major::BYTES | major::STRING) if is_indefinite(first) => {
                self.advance(1);
                while !self.is_break()? {
                    let chunk = self.first_byte()?;
                    if chunk >> 5 != major || is_indefinite(chunk) {
                        return Err(syntax("a string contains something else than its chunks"));
                    }
                    self.skip_string(major)?;
                }
            }
            major @ (major::BYTES | major::STRING) => self.skip_string(major)?,
            major::ARRAY => {
                let left = types::Array::len(self)?;
                self.nested(|nested| nested.skip_each(left, Self::skip))?;
            }
            major::MAP => {
                let left = types::Map::len(self)?;
                self.nested(|nested| {
                    nested.skip_each(left, |entry| entry.skip().and_then(|()| entry.skip()))
                })?;
            }
            major::TAG => {
                types::Tag::tag(self)?;
                self.nested(Self::skip)?;
            }
            _ => self.skip_simple(first)?,
        }
        Ok(())
    }

    fn skip_string(&mut self, major: u8) -> Result<(), Error> {
        if major == major::BYTES {
            types::Bytes::<&[u8]>::decode(self)?;
        } else {
            <&str>::decode(self)?;
        }
        Ok(())
    }

    fn skip_each(
        &mut self,
        mut left: Option<usize>,
        skip: impl Fn(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while self.has_next(&mut left)? {
            skip(self)?;
        }
        Ok(())
    }

    /// Whether another element follows, of which `left` are left.
    pub(super) fn has_next(&mut self, left: &mut Option<usize>) -> Result<bool, Error> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.is_break()? => {
                *left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// Skips a break, if one follows.
    fn is_break(&mut self) -> Result<bool, Error> {
        let is_break = self.first_byte()? == marker::BREAK;
        self.advance(usize::from(is_break));
        Ok(is_break)
    }
}

/// Whether this byte begins a value of indefinite length.
const fn is_indefinite(first: u8) -> bool {
    first & marker::START == marker::START
}
