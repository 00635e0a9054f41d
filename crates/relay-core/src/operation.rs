//! What a request does with a queue.

/// What a request does with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Puts an item into the queue.
    Push,
    /// Reads the queue.
    Pull,
    /// Removes items from the queue.
    Ack,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 3] = [Self::Push, Self::Pull, Self::Ack];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Ack => "ack",
        }
    }
}
