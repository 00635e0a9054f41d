//! Deserializes the fields of requests, from JSON and from CBOR. The error about a value of the
//! wrong type contains the name of the field, the expected type and the found type, but never the
//! value. serde's own errors would repeat the value, however long it is. So every field of a
//! request has a reader here.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::api::limits::BATCH_ITEMS_MAX;

/// The name of the body in errors.
const BODY: &str = "the body";

/// Defines a reader for each field, and the list of their names.
macro_rules! fields {
    ($($read:ident$(<$object:ident>)?($name:literal): $kind:ty;)*) => {
        /// The names of the fields in errors.
        pub(super) const NAMES: &[&str] = &[BODY, $($name),*];

        $(pub(super) fn $read<'de, $($object: Deserialize<'de>,)? D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<<$kind as FieldKind<'de>>::Value, D::Error> {
            Reader::<$kind>::named($name).deserialize(deserializer)
        })*
    };
}

fields! {
    recipient("recipient"): Text;
    message_id("message_id"): Text;
    ciphertext_b64("ciphertext_b64"): Text;
    ciphertext("ciphertext"): Binary;
    meta<T>("meta"): Object<T>;
    kind("meta.kind"): Text;
    total_len("meta.total_len"): Integer<u64>;
    meta_chunk_index("meta.chunk_index"): Integer<u32>;
    chunk_count("meta.chunk_count"): Integer<u32>;
    sent_ms("meta.sent_ms"): Integer<u64>;
    ttl_seconds("ttl_seconds"): Optional<Positive>;
    cursor("cursor"): Optional<Text>;
    max("max"): Optional<Positive>;
    wait_ms("wait_ms"): Optional<Integer<u64>>;
    tail("tail"): Optional<Flag>;
    keepalive_ms("keepalive_ms"): Optional<Integer<u64>>;
    ack<T>("ack"): ObjectArray<T>;
    ack_before("ack_before"): Optional<Text>;
    items<T>("items"): Items<Object<T>>;
    raw_items<T>("items"): Items<Raw<T>>;
    proof("proof"): Optional<Text>;
    chunk_index("chunk_index"): Integer<u32>;
}

/// The type of a field: what it accepts, and how that is converted. By default, a method refuses
/// its kind of value.
pub(super) trait FieldKind<'de>: Sized {
    type Value;

    /// The type in words, for errors.
    const EXPECTED: &'static str;

    fn string(_: Cow<'de, str>) -> Option<Self::Value> {
        None
    }

    /// JSON has no byte strings.
    fn bytes(_: &'de [u8]) -> Option<Self::Value> {
        None
    }

    fn number(_: u64) -> Option<Self::Value> {
        None
    }

    fn boolean(_: bool) -> Option<Self::Value> {
        None
    }

    fn null() -> Option<Self::Value> {
        None
    }

    fn array<A: SeqAccess<'de>>(_: A) -> Option<Result<Self::Value, A::Error>> {
        None
    }

    fn object<A: MapAccess<'de>>(_: A) -> Option<Result<Self::Value, A::Error>> {
        None
    }
}

/// A string.
pub(super) struct Text;

/// A byte string.
pub(super) struct Binary;

/// A whole number of the type `N`.
pub(super) struct Integer<N>(PhantomData<N>);

/// A whole number that should be positive. The conversion of the request refuses 0.
pub(super) struct Positive;

/// True or false.
pub(super) struct Flag;

/// A value of the type `K`, or null.
pub(super) struct Optional<K>(PhantomData<K>);

/// An object. serde would also accept an array of the values of its fields.
pub(super) struct Object<T>(PhantomData<T>);

/// An array of objects.
pub(super) struct ObjectArray<T>(PhantomData<T>);

impl<'de> FieldKind<'de> for Text {
    type Value = Cow<'de, str>;
    const EXPECTED: &'static str = "a string";

    fn string(text: Cow<'de, str>) -> Option<Self::Value> {
        Some(text)
    }
}

impl<'de> FieldKind<'de> for Binary {
    type Value = &'de [u8];
    const EXPECTED: &'static str = "a byte string";

    fn bytes(bytes: &'de [u8]) -> Option<&'de [u8]> {
        Some(bytes)
    }
}

impl FieldKind<'_> for Integer<u64> {
    type Value = u64;
    const EXPECTED: &'static str = "a whole number from 0 to 18446744073709551615";

    fn number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl FieldKind<'_> for Integer<u32> {
    type Value = u32;
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn number(number: u64) -> Option<u32> {
        number.try_into().ok()
    }
}

impl FieldKind<'_> for Positive {
    type Value = u64;
    const EXPECTED: &'static str = "a positive whole number";

    fn number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl FieldKind<'_> for Flag {
    type Value = bool;
    const EXPECTED: &'static str = "true or false";

    fn boolean(flag: bool) -> Option<bool> {
        Some(flag)
    }
}

impl<'de, K: FieldKind<'de>> FieldKind<'de> for Optional<K> {
    type Value = Option<K::Value>;
    const EXPECTED: &'static str = K::EXPECTED;

    fn string(text: Cow<'de, str>) -> Option<Self::Value> {
        K::string(text).map(Some)
    }

    fn number(number: u64) -> Option<Self::Value> {
        K::number(number).map(Some)
    }

    fn boolean(flag: bool) -> Option<Self::Value> {
        K::boolean(flag).map(Some)
    }

    fn null() -> Option<Self::Value> {
        Some(None)
    }
}

impl<'de, T: Deserialize<'de>> FieldKind<'de> for Object<T> {
    type Value = T;
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(fields: A) -> Option<Result<T, A::Error>> {
        Some(T::deserialize(MapAccessDeserializer::new(fields)))
    }
}

impl<'de, T: Deserialize<'de>> FieldKind<'de> for ObjectArray<T> {
    type Value = Vec<T>;
    const EXPECTED: &'static str = "an array of objects";

    fn array<A: SeqAccess<'de>>(mut elements: A) -> Option<Result<Vec<T>, A::Error>> {
        let next = || elements.next_element_seed(Reader::<Object<T>>::named("ack")).transpose();
        Some(std::iter::from_fn(next).collect())
    }
}

/// The items of a batch.
pub(super) struct Items<K>(PhantomData<K>);

/// Any value, as it is encoded.
pub(super) struct Raw<T>(PhantomData<T>);

impl<'de, K: Element<'de>> FieldKind<'de> for Items<K> {
    type Value = Vec<K::Value>;
    const EXPECTED: &'static str = "an array of at most 256 objects";

    fn array<A: SeqAccess<'de>>(mut elements: A) -> Option<Result<Self::Value, A::Error>> {
        let mut items = Vec::new();
        loop {
            match K::next(&mut elements) {
                Ok(Some(_)) if items.len() == BATCH_ITEMS_MAX => {
                    return Some(Err(Reader::<Self>::named("items").refuse("more")));
                }
                Ok(Some(item)) => items.push(item),
                Ok(None) => return Some(Ok(items)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What [`Items`] may contain.
pub(super) trait Element<'de> {
    type Value;

    fn next<A: SeqAccess<'de>>(elements: &mut A) -> Result<Option<Self::Value>, A::Error>;
}

impl<'de, T: Deserialize<'de>> Element<'de> for Object<T> {
    type Value = T;

    fn next<A: SeqAccess<'de>>(elements: &mut A) -> Result<Option<T>, A::Error> {
        elements.next_element_seed(Reader::<Self>::named(BODY))
    }
}

impl<'de, T: Deserialize<'de>> Element<'de> for Raw<T> {
    type Value = T;

    fn next<A: SeqAccess<'de>>(elements: &mut A) -> Result<Option<T>, A::Error> {
        elements.next_element()
    }
}

/// A body. It is an object.
pub(super) struct BodyObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BodyObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader::<Object<T>>::named(BODY).deserialize(deserializer).map(Self)
    }
}

/// Deserializes the field `name`, of the type `K`.
struct Reader<K> {
    name: &'static str,
    kind: PhantomData<K>,
}

impl<K> Reader<K> {
    const fn named(name: &'static str) -> Self {
        Self { name, kind: PhantomData }
    }
}

impl<'de, K: FieldKind<'de>> DeserializeSeed<'de> for Reader<K> {
    type Value = K::Value;

    /// Accepts any value. With a typed method, the deserializer would put the found value into an
    /// error of its own.
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, K: FieldKind<'de>> Reader<K> {
    fn take<E: Error>(&self, value: Option<K::Value>, found: &str) -> Result<K::Value, E> {
        value.ok_or_else(|| self.refuse(found))
    }

    #[cold]
    fn refuse<E: Error>(&self, found: &str) -> E {
        E::custom(format_args!("{}: expected {}, found {found}", self.name, K::EXPECTED))
    }
}

impl<'de, K: FieldKind<'de>> Visitor<'de> for Reader<K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(K::EXPECTED)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<K::Value, E> {
        self.take(K::string(Cow::Borrowed(text)), "a string")
    }

    /// For strings with escapes, which cannot be borrowed from the body.
    fn visit_str<E: Error>(self, text: &str) -> Result<K::Value, E> {
        self.take(K::string(Cow::Owned(text.to_owned())), "a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<K::Value, E> {
        self.take(K::bytes(bytes), "a byte string")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<K::Value, E> {
        let found = if K::number(0).is_some() { "a number that is too large" } else { "a number" };
        self.take(K::number(number), found)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<K::Value, E> {
        Err(self.refuse("a negative number"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<K::Value, E> {
        // A whole number that exceeds `u64` arrives as a float.
        Err(self.refuse(match number {
            _ if number.is_sign_negative() => "a negative number",
            #[expect(clippy::cast_precision_loss, reason = "it is rounded up to a power of two")]
            _ if number >= u64::MAX as f64 => "a number that is too large",
            _ => "a number with a fraction or an exponent",
        }))
    }

    /// For the numbers of CBOR that are not whole by their type, whatever their value.
    fn visit_f32<E: Error>(self, _: f32) -> Result<K::Value, E> {
        Err(self.refuse("a floating-point number"))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<K::Value, E> {
        self.take(K::boolean(flag), "a boolean")
    }

    fn visit_unit<E: Error>(self) -> Result<K::Value, E> {
        self.take(K::null(), "null")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<K::Value, A::Error> {
        K::array(elements).unwrap_or_else(|| Err(self.refuse("an array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<K::Value, A::Error> {
        K::object(fields).unwrap_or_else(|| Err(self.refuse("an object")))
    }
}
