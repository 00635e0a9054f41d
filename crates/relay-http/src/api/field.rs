//! How the fields of requests are read. A value of a wrong kind is refused in words of ours, which
//! name the field, what it takes and which kind was found. They never hold the value: what serde
//! itself would say of it repeats it, however long it is.
//!
//! So every field of a request has a reader here, and none is left to serde's own.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::AckEntry;
use super::Meta;

/// What the whole of a body is called where a field would be.
const BODY: &str = "the body";

/// One reader for each field, and the names of all of them.
macro_rules! fields {
    ($($read:ident($name:literal): $kind:ty;)*) => {
        /// What mistakes call the fields.
        pub(super) const NAMES: &[&str] = &[BODY, $($name),*];

        $(pub(super) fn $read<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<<$kind as Kind<'de>>::Value, D::Error> {
            Reader::<$kind>::named($name).read(deserializer)
        })*
    };
}

fields! {
    recipient("recipient"): Text;
    message_id("message_id"): Text;
    ciphertext_b64("ciphertext_b64"): Text;
    meta("meta"): Object<Meta<'de>>;
    kind("meta.kind"): Text;
    total_len("meta.total_len"): Whole<u64>;
    meta_chunk_index("meta.chunk_index"): Whole<u32>;
    chunk_count("meta.chunk_count"): Whole<u32>;
    sent_ms("meta.sent_ms"): Whole<u64>;
    cursor("cursor"): Optional<Text>;
    max("max"): Optional<Positive>;
    ack("ack"): Objects<AckEntry<'de>>;
    chunk_index("chunk_index"): Whole<u32>;
}

/// What a field takes, and what becomes of it. Kinds of values that it says nothing of are refused.
pub(super) trait Kind<'de>: Sized {
    type Value;

    /// In words.
    const EXPECTED: &'static str;

    /// Of a text that can be borrowed from the body.
    fn borrowed(_: &'de str) -> Option<Self::Value> {
        None
    }

    /// Of a text with escapes.
    fn copied(_: &str) -> Option<Self::Value> {
        None
    }

    fn number(_: u64) -> Option<Self::Value> {
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

/// A text.
pub(super) struct Text;

/// A whole number as large as `N` can be.
pub(super) struct Whole<N>(PhantomData<N>);

/// A whole number, of which only those from 1 on make sense. That it is not 0 is looked at with all
/// else that it means.
pub(super) struct Positive;

/// Another kind, or null.
pub(super) struct Optional<K>(PhantomData<K>);

/// An object, and not an array of its values in their order, which serde takes for a struct as
/// well.
pub(super) struct Object<T>(PhantomData<T>);

/// An array of objects.
pub(super) struct Objects<T>(PhantomData<T>);

impl<'de> Kind<'de> for Text {
    type Value = Cow<'de, str>;
    const EXPECTED: &'static str = "a string";

    fn borrowed(text: &'de str) -> Option<Self::Value> {
        Some(Cow::Borrowed(text))
    }

    fn copied(text: &str) -> Option<Self::Value> {
        Some(Cow::Owned(text.to_owned()))
    }
}

impl Kind<'_> for Whole<u64> {
    type Value = u64;
    const EXPECTED: &'static str = "a whole number from 0 to 18446744073709551615";

    fn number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl Kind<'_> for Whole<u32> {
    type Value = u32;
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

    fn number(number: u64) -> Option<u32> {
        number.try_into().ok()
    }
}

impl Kind<'_> for Positive {
    type Value = u64;
    const EXPECTED: &'static str = "a positive whole number";

    fn number(number: u64) -> Option<u64> {
        Some(number)
    }
}

impl<'de, K: Kind<'de>> Kind<'de> for Optional<K> {
    type Value = Option<K::Value>;
    const EXPECTED: &'static str = K::EXPECTED;

    fn borrowed(text: &'de str) -> Option<Self::Value> {
        K::borrowed(text).map(Some)
    }

    fn copied(text: &str) -> Option<Self::Value> {
        K::copied(text).map(Some)
    }

    fn number(number: u64) -> Option<Self::Value> {
        K::number(number).map(Some)
    }

    fn null() -> Option<Self::Value> {
        Some(None)
    }
}

impl<'de, T: Deserialize<'de>> Kind<'de> for Object<T> {
    type Value = T;
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(fields: A) -> Option<Result<T, A::Error>> {
        Some(T::deserialize(MapAccessDeserializer::new(fields)))
    }
}

impl<'de, T: Deserialize<'de>> Kind<'de> for Objects<T> {
    type Value = Vec<T>;
    const EXPECTED: &'static str = "an array of objects";

    fn array<A: SeqAccess<'de>>(mut elements: A) -> Option<Result<Vec<T>, A::Error>> {
        let mut objects = Vec::new();
        loop {
            match elements.next_element::<Element<T>>() {
                Ok(Some(Element(object))) => objects.push(object),
                Ok(None) => return Some(Ok(objects)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// An object in the one field that is an array.
struct Element<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader::<Object<T>>::named("ack").read(deserializer).map(Self)
    }
}

/// A body, which is an object.
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Reader::<Object<T>>::named(BODY).read(deserializer).map(Self)
    }
}

/// Reads the value of the field that has this name.
struct Reader<K> {
    name: &'static str,
    kind: PhantomData<K>,
}

impl<K> Reader<K> {
    const fn named(name: &'static str) -> Self {
        Self { name, kind: PhantomData }
    }
}

impl<'de, K: Kind<'de>> Reader<K> {
    /// Asks for any value: a deserializer that is asked for one kind puts what it finds instead
    /// into an error of its own.
    fn read<D: Deserializer<'de>>(self, deserializer: D) -> Result<K::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn take<E: Error>(&self, value: Option<K::Value>, found: &str) -> Result<K::Value, E> {
        value.ok_or_else(|| self.refuse(found))
    }

    #[cold]
    fn refuse<E: Error>(&self, found: &str) -> E {
        E::custom(format_args!("{}: expected {}, found {found}", self.name, K::EXPECTED))
    }
}

impl<'de, K: Kind<'de>> Visitor<'de> for Reader<K> {
    type Value = K::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(K::EXPECTED)
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<K::Value, E> {
        self.take(K::borrowed(text), "a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<K::Value, E> {
        self.take(K::copied(text), "a string")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<K::Value, E> {
        self.take(
            K::number(number),
            if K::number(0).is_some() { "one that is too large" } else { "a number" },
        )
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<K::Value, E> {
        Err(self.refuse("a negative number"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<K::Value, E> {
        // A number of digits alone comes as this one if it is larger than all that a field takes.
        Err(self.refuse(match number {
            _ if number.is_sign_negative() => "a negative number",
            #[expect(clippy::cast_precision_loss, reason = "it is rounded up, to a power of two")]
            _ if number >= u64::MAX as f64 => "one that is too large",
            _ => "a number with a fraction or an exponent",
        }))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<K::Value, E> {
        Err(self.refuse("a boolean"))
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
