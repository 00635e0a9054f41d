//! The slots of queues: 256, by the first byte of a queue's key. Each database of a store holds
//! some of them, and all together hold each slot once.

use std::collections::BTreeSet;
use std::fmt;

use uuid::Uuid;

/// How many databases a store may have.
pub const SHARDS_MAX: usize = 64;

/// The longest valid text, 256 numbers and their commas, has less.
const TEXT_BYTES_MAX: usize = 2_048;

/// Some of the 256 slots, and at least one. Their text is as short as can be, such as `0-127,200`.
#[derive(Clone, PartialEq, Eq)]
pub struct Slots(BTreeSet<u8>);

/// Which shard has which slot.
#[derive(Clone)]
pub struct SlotMap([u8; 256]);

/// Slots that cannot be used. The messages continue a sentence that begins with the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// The text does not list slots.
    #[error("slots must be numbers and ranges from 0 to 255, such as \"0-127\" or \"0-63,200\"")]
    Text,
    /// A slot is listed twice.
    #[error("slot {0} is listed twice; each must be in one shard")]
    Twice(u8),
    /// Some slots are in no shard.
    #[error("slots {0} are in no shard; all from 0 to 255 must be")]
    Missing(Slots),
    /// Some slots belong to a database that is not listed.
    #[error("slots {0} belong to a database that is not among these; list all of the store")]
    Elsewhere(Slots),
    /// There are too many shards.
    #[error("{found} shards are more than the {SHARDS_MAX} that a store may have")]
    Shards {
        /// How many there are.
        found: usize,
    },
}

impl Slots {
    /// All of them, as a database alone has.
    #[must_use]
    pub fn all() -> Self {
        Self((0..=u8::MAX).collect())
    }

    /// Parses numbers and inclusive ranges, with commas between them.
    ///
    /// # Errors
    /// [`SlotsError::Text`] or [`SlotsError::Twice`].
    pub fn parse(text: &str) -> Result<Self, SlotsError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(SlotsError::Text);
        }
        let mut slots = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(SlotsError::Text);
            }
            for slot in first..=last {
                if !slots.insert(slot) {
                    return Err(SlotsError::Twice(slot));
                }
            }
        }
        Ok(Self(slots))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn contains(&self, slot: u8) -> bool {
        self.0.contains(&slot)
    }

    /// Refuses if some slots are in none of these texts of databases. New ones have none.
    pub(crate) fn all_are_in(texts: &[String]) -> Result<(), SlotsError> {
        let mut missing = Self::all();
        for text in texts {
            let known = Self::parse(text)?;
            missing.0.retain(|slot| !known.contains(*slot));
        }
        if texts.is_empty() || missing.0.is_empty() { Ok(()) } else { Err(SlotsError::Elsewhere(missing)) }
    }

    /// The first and the last keys of the queues that do *not* belong to these slots, range by
    /// range.
    pub(crate) fn foreign_keys(&self) -> (Vec<Uuid>, Vec<Uuid>) {
        let key = |slot: u8, rest: u8| {
            let mut bytes = [rest; 16];
            bytes[0] = slot;
            Uuid::from_bytes(bytes)
        };
        ranges((0..=u8::MAX).filter(|slot| !self.contains(*slot)))
            .into_iter()
            .map(|(first, last)| (key(first, 0), key(last, u8::MAX)))
            .unzip()
    }
}

fn number(text: &str) -> Result<u8, SlotsError> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or(SlotsError::Text)
}

/// Ascending slots as ranges, first and last.
fn ranges(slots: impl Iterator<Item = u8>) -> Vec<(u8, u8)> {
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    for slot in slots {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(slot) => *last = slot,
            _ => ranges.push((slot, slot)),
        }
    }
    ranges
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in ranges(self.0.iter().copied()).into_iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({self})")
    }
}

impl SlotMap {
    /// The map of shards with these slots.
    ///
    /// # Errors
    /// [`SlotsError`], unless each slot is in exactly one of them.
    pub fn new<'a>(shards: impl IntoIterator<Item = &'a Slots>) -> Result<Self, SlotsError> {
        let shards: Vec<&Slots> = shards.into_iter().collect();
        if shards.len() > SHARDS_MAX {
            return Err(SlotsError::Shards { found: shards.len() });
        }
        let (mut map, mut missing) = ([0; 256], BTreeSet::new());
        for (slot, entry) in (0..=u8::MAX).zip(&mut map) {
            let mut holders = (0..).zip(&shards).filter(|(_, slots)| slots.contains(slot));
            match (holders.next(), holders.next()) {
                (Some((index, _)), None) => *entry = index,
                (Some(_), Some(_)) => return Err(SlotsError::Twice(slot)),
                (None, _) => _ = missing.insert(slot),
            }
        }
        if missing.is_empty() { Ok(Self(map)) } else { Err(SlotsError::Missing(Slots(missing))) }
    }

    /// The index of the shard of a queue.
    pub(crate) fn shard(&self, queue: Uuid) -> usize {
        self.0.get(usize::from(slot(queue))).copied().unwrap_or_default().into()
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMap").finish_non_exhaustive()
    }
}

/// The slot of a queue.
pub(crate) const fn slot(queue: Uuid) -> u8 {
    let [slot, ..] = *queue.as_bytes();
    slot
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn slots(text: &str) -> Slots {
        Slots::parse(text).unwrap()
    }

    #[test]
    fn slots_have_one_text() {
        for (text, canonical) in [
            ("0-255", "0-255"),
            ("0", "0"),
            ("255", "255"),
            ("5-5", "5"),
            ("200,0-127", "0-127,200"),
            ("1,2, 3 ,5 - 6", "1-3,5-6"),
            ("007", "7"),
            ("0-127,128-255", "0-255"),
        ] {
            assert_eq!(slots(text).to_string(), canonical, "{text}");
        }
        assert_eq!(slots("0-255"), Slots::all());
        let each: Vec<String> = (0..=255).map(|slot| slot.to_string()).collect();
        assert_eq!(slots(&each.join(",")), Slots::all());
    }

    #[test]
    fn other_texts_are_refused() {
        let huge = "1,".repeat(1 << 20);
        let wrong = [
            "", " ", ",", "1,", "1-", "-1", "-", "256", "0-256", "2-1", "1-2-3", "+1", "a", "1 2", "٣", &huge,
        ];
        for text in wrong {
            assert_eq!(Slots::parse(text), Err(SlotsError::Text), "{}", text.get(..9).unwrap_or(text));
        }
        assert_eq!(Slots::parse("0-9,7"), Err(SlotsError::Twice(7)));
        assert_eq!(Slots::parse("3,3"), Err(SlotsError::Twice(3)));
    }

    #[test]
    fn each_slot_is_in_exactly_one_shard() {
        let map = |texts: &[&str]| {
            let shards: Vec<Slots> = texts.iter().map(|text| slots(text)).collect();
            SlotMap::new(&shards)
        };
        let two = map(&["0-127,200", "128-199,201-255"]).unwrap();
        let shard = |slot: u8| two.shard(Uuid::from_bytes([slot; 16]));
        assert_eq!([0, 127, 128, 199, 200, 201, 255].map(shard), [0, 0, 1, 1, 0, 1, 1]);

        assert_eq!(map(&["0-128", "128-255"]).unwrap_err(), SlotsError::Twice(128));
        let gaps = map(&["1-99", "110-254"]).unwrap_err();
        assert_eq!(gaps.to_string(), "slots 0,100-109,255 are in no shard; all from 0 to 255 must be");
        assert_eq!(SlotMap::new([]).unwrap_err(), SlotsError::Missing(Slots::all()));
        let many: Vec<Slots> = (0..=255).map(|slot| Slots([slot].into())).collect();
        assert_eq!(SlotMap::new(&many).unwrap_err(), SlotsError::Shards { found: 256 });
    }

    #[test]
    fn foreign_keys_are_those_of_all_other_slots() {
        let (first, last) = slots("0-127,200").foreign_keys();
        let slots_of = |keys: &[Uuid]| keys.iter().map(|key| slot(*key)).collect::<Vec<_>>();
        assert_eq!((slots_of(&first), slots_of(&last)), (vec![128, 201], vec![199, 255]));
        assert_eq!(first[0].as_u128() << 8, 0);
        assert_eq!(last[1], Uuid::max());
        assert_eq!(Slots::all().foreign_keys(), (vec![], vec![]));
    }
}
