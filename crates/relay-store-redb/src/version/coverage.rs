//! How much of a queue an excerpt of a memtable contains. Reads beyond that fail, so that a view
//! never shows too little.

use relay_core::ItemId;

use crate::format::{Key, ParsedKey};

/// The rows that an excerpt contains of its queue, if not all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coverage {
    /// The first item of the queue.
    pub(super) first: Key,
    /// The start of the items that it contains.
    pub(super) from: Key,
    /// Their end, exclusive.
    pub(super) to: Key,
    /// The only item id whose rows it contains.
    pub(super) id: Option<ItemId>,
    /// The start of the items that expire early, of those that it contains, and their end.
    pub(super) early: (Key, Key),
}

impl Coverage {
    /// Whether the memtable may have a row that the excerpt lacks.
    pub(super) fn lacks(&self, key: &Key) -> bool {
        match key.parse() {
            Ok(ParsedKey::Item(..)) => *key != self.first && !(self.from..self.to).contains(key),
            Ok(ParsedKey::ById(_, id) | ParsedKey::Acked(_, _, id)) => self.id != Some(id),
            Ok(ParsedKey::Queue(_) | ParsedKey::Block(..)) => false,
            Ok(ParsedKey::Early(..)) => !(self.early.0..self.early.1).contains(key),
            Ok(ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Due(..) | ParsedKey::Floor(_))
            | Err(_) => true,
        }
    }

    /// The end of the covered rows in the range from `from` to before `to`; `None` if the excerpt
    /// does not cover the first one.
    pub(super) fn covered_to(&self, from: &Key, to: &Key) -> Option<Key> {
        let queue = from.queue_number();
        if *from >= Key::early_start(queue) && *to <= Key::rows_end(queue) {
            return (self.early.0 <= *from).then(|| self.early.1.min(*to));
        }
        if *from >= Key::by_id_end(queue) && *to <= Key::early_start(queue) {
            return Some(*to);
        }
        (self.from <= *from && *to <= Key::items_end(queue)).then(|| self.to.min(*to))
    }
}
