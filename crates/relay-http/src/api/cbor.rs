//! Deserializes CBOR (RFC 8949) into the types of requests, for which JSON is deserialized, too.
//!
//! It borrows strings from the body and never allocates for a declared length. It accepts lengths
//! in any form, arrays and maps of indefinite length, and tags, which it ignores. It refuses
//! strings of indefinite length, since they would have to be copied, and keys that are not text:
//! serde would take a number for the position of a field. No error repeats a part of the body.

mod decoder;
mod error;
#[cfg(test)]
mod tests;

use std::fmt;

use cbor4ii::core::dec::Decode as _;
use cbor4ii::core::{major, marker, types};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use self::decoder::Decoder;
use self::error::syntax;
pub(super) use self::error::{Error, ErrorKind};

/// The name of the newtype that stands for the bytes of any value.
const RAW: &str = "relay_http::api::cbor::RawCbor";

/// A value that is still encoded.
pub(super) struct RawCbor<'a>(pub(super) &'a [u8]);

/// Deserializes a body, which is one value.
///
/// # Errors
/// What is wrong, and where.
pub(super) fn from_slice<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Error> {
    let mut decoder = Decoder::new(body);
    let value = T::deserialize(&mut decoder)?;
    if decoder.is_at_end() { Ok(value) } else { Err(syntax("more bytes after the value").at(decoder.offset)) }
}

/// The elements of an array, or the entries of a map.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    /// How many follow; `None` if a break will end them.
    left: Option<usize>,
}

impl<'de> Decoder<'de> {
    /// Reads a value.
    fn value<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let first = self.first_byte()?;
        match first >> 5 {
            major::UNSIGNED => visitor.visit_u64(u64::decode(self)?),
            // The smallest numbers exceed the type, but no request has a negative number.
            major::NEGATIVE => visitor.visit_i64(i128::decode(self)?.try_into().unwrap_or(i64::MIN)),
            major::BYTES => visitor.visit_borrowed_bytes(self.bytes()?),
            major::STRING => visitor.visit_borrowed_str(self.text()?),
            major::ARRAY => self.nested(|nested| {
                let left = types::Array::len(nested)?;
                let mut elements = Elements { decoder: nested, left };
                let value = visitor.visit_seq(&mut elements)?;
                elements.end().map(|()| value)
            }),
            major::MAP => self.nested(|nested| {
                let left = types::Map::len(nested)?;
                let mut entries = Elements { decoder: nested, left };
                let value = visitor.visit_map(&mut entries)?;
                entries.end().map(|()| value)
            }),
            major::TAG => self.nested(|nested| {
                types::Tag::tag(nested)?;
                nested.value(visitor)
            }),
            _ => self.simple(first, visitor),
        }
    }

    /// Reads a value of the last major type: a constant or a floating-point number.
    fn simple<V: Visitor<'de>>(&mut self, first: u8, visitor: V) -> Result<V::Value, Error> {
        self.skip_simple(first)?;
        match first {
            marker::FALSE => visitor.visit_bool(false),
            marker::TRUE => visitor.visit_bool(true),
            // The readers of fields refuse all of these, and never look at the number.
            marker::F16 | marker::F32 | marker::F64 => visitor.visit_f32(0.0),
            _ => visitor.visit_unit(),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.offset;
        self.value(visitor).map_err(|error| error.at(start))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.offset;
        self.skip().map_err(|error| error.at(start))?;
        visitor.visit_unit()
    }

    /// Reads the key of a field.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.offset;
        let is_text = |first: u8| first >> 5 == major::STRING;
        let key = match self.first_byte() {
            Ok(first) if !is_text(first) => Err(syntax("a key that is not a text string")),
            _ => self.text(),
        };
        visitor.visit_borrowed_str(key.map_err(|error| error.at(start))?)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name != RAW {
            return visitor.visit_newtype_struct(self);
        }
        let start = self.offset;
        self.skip().map_err(|error| error.at(start))?;
        visitor.visit_borrowed_bytes(self.read_since(start))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum
    }
}

impl<'de> Elements<'_, 'de> {
    /// Asserts that the visitor has read everything.
    fn end(&self) -> Result<(), Error> {
        if self.left == Some(0) { Ok(()) } else { Err(syntax("an element that nobody has read")) }
    }

    /// Reads the next element or key, if there is one.
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if !self.decoder.has_next(&mut self.left)? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

impl<'de> SeqAccess<'de> for &mut Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for &mut Elements<'_, 'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.decoder)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawCbor<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;

        impl<'de> Visitor<'de> for RawVisitor {
            type Value = RawCbor<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<RawCbor<'de>, E> {
                Ok(RawCbor(bytes))
            }
        }

        deserializer.deserialize_newtype_struct(RAW, RawVisitor)
    }
}
