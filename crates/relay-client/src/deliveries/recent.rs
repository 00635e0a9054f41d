//! The last messages of many, each with a value.

use std::collections::{HashMap, VecDeque};

use super::key::MessageKey;

/// How many messages are remembered.
pub(crate) const REMEMBERED_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Recent<V> {
    values: HashMap<MessageKey, V>,
    order: VecDeque<MessageKey>,
}

impl<V> Recent<V> {
    pub(crate) fn get(&self, key: &MessageKey) -> Option<&V> {
        self.values.get(key)
    }

    pub(crate) fn insert(&mut self, key: &MessageKey, value: V) {
        if self.values.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key.clone());
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: &MessageKey) {
        if self.values.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}
