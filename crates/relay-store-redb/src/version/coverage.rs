//! How much of a queue an excerpt says. A view fails for rows beyond that, instead of showing too
//! little.

use relay_core::ItemId;

use crate::format::{Key, ParsedKey};

/// What an excerpt says of its queue, if it does not say all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coverage {
    /// The first item of the queue.
    pub(crate) first: Key,
    /// The items from here on and before there.
    pub(crate) from: Key,
    pub(crate) to: Key,
    /// And this name.
    pub(crate) id: Option<ItemId>,
}

impl Coverage {
    /// Whether nothing is known of a row that was not copied.
    pub(crate) fn lacks(&self, key: &Key) -> bool {
        match key.parse() {
            Ok(ParsedKey::Item(..)) => *key != self.first && !(self.from..self.to).contains(key),
            Ok(ParsedKey::ById(_, id) | ParsedKey::Acked(_, _, id)) => self.id != Some(id),
            Ok(ParsedKey::Queue(_) | ParsedKey::Block(..)) => false,
            Ok(ParsedKey::Owner(_) | ParsedKey::Dead(_) | ParsedKey::Due(..)) | Err(_) => true,
        }
    }

    /// As far as all is known of the rows from `from` on and before `to`; `None` if not even of the
    /// first one.
    pub(crate) fn known_to(&self, from: &Key, to: &Key) -> Option<Key> {
        let queue = from.about();
        if *from >= Key::by_id_end(queue) && *to <= Key::items_start(queue.saturating_add(1)) {
            return Some(*to);
        }
        (self.from <= *from && *to <= Key::items_end(queue)).then(|| self.to.min(*to))
    }
}
