//! Counts recipients that begin like a lock. A relay without locks takes them for plain names, and
//! so did 0.0.3; with locks they mean something else.

use relay_auth::Locks;
use relay_core::Recipient;

/// Recipients that a relay with locks treats in another way than one without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockLikeNames {
    /// They have a lock: nobody can read them without a proof.
    pub(crate) locked: u64,
    /// They begin like a lock and are none: every request to them is refused.
    pub(crate) malformed: u64,
}

impl LockLikeNames {
    /// Counts a recipient, if it is one of them.
    pub(crate) fn note(&mut self, recipient: &Recipient) {
        match Locks::of(recipient.as_str()) {
            Ok(Locks::NONE) => {}
            Ok(_) => self.locked = self.locked.saturating_add(1),
            Err(_) => self.malformed = self.malformed.saturating_add(1),
        }
    }

    /// A line for the operator; empty if there are none. `counted` is what was counted: items or
    /// queues.
    pub(crate) fn line(&self, counted: &str) -> String {
        let Self { locked, malformed } = self;
        match (locked, malformed) {
            (0, 0) => String::new(),
            _ => format!(
                "recipients that begin like a lock, by {counted}: {locked} have one, so reading needs a proof; {malformed} are malformed, \
                 so every request is refused; auth.locks = false keeps both plain (docs/auth.md)\n"
            ),
        }
    }
}
