//! JSON objects in which no member is repeated. serde alone would accept an array for a struct, and
//! ignore the repetition of a member that it does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An object with the members of `T`, each once. Whether other members are refused, and repetitions
/// of them, is up to `T`.
pub(crate) fn parse_object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = object(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| parsed)
}

/// Like [`parse_object`], and the members that `T` does not know are not repeated either. Objects
/// inside of those are not looked at.
pub(crate) fn parse_open_object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    serde_json::from_slice::<UniqueMembers<IgnoredAny>>(json).ok()?;
    parse_object(json)
}

/// For a member that is an object.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Object<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(members))
        }
    }
    deserializer.deserialize_map(Object(PhantomData))
}

/// For an optional member: refuses `null`, which must not stand for its absence.
pub(crate) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// An object without repeated members.
pub(crate) struct UniqueMembers<V>(
    #[cfg_attr(not(feature = "issuer"), allow(dead_code, reason = "only sets of keys need the values"))]
    pub(crate) BTreeMap<String, V>,
);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMembers<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
            type Value = UniqueMembers<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<UniqueMembers<V>, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = members.next_entry()? {
                    if all.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is repeated"));
                    }
                }
                Ok(UniqueMembers(all))
            }
        }
        deserializer.deserialize_map(Unique(PhantomData))
    }
}
