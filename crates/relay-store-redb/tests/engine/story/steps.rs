//! The requests of a story.

/// One step of a story.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Concurrent pushes, to all queues in turn: how many, and the bytes of each.
    Push(u64, usize),
    /// One ack per queue, concurrently, of all items except every n-th.
    AckAllBut(u64),
    /// Advances the clock by so many milliseconds.
    Advance(u64),
    Sweep,
}

/// Fills several segments, empties some and leaves others sparse, lets items and item ids expire,
/// and does all of that again. Twice the queues become so large that they are spilled. They become
/// inline again, once because of acks, once because items expire.
pub(crate) const STORY: &[Step] = &[
    Step::Push(12, 200),
    Step::Push(12, 300),
    Step::Push(135, 40),
    Step::AckAllBut(6),
    Step::Sweep,
    Step::Advance(400),
    Step::Push(12, 250),
    Step::AckAllBut(5),
    Step::Sweep,
    Step::Advance(1_100),
    Step::Sweep,
    Step::Push(9, 600),
    Step::Push(140, 40),
    Step::Advance(400),
    Step::Push(12, 250),
    Step::AckAllBut(3),
    Step::Sweep,
    Step::Advance(700),
    Step::Sweep,
    Step::Push(6, 150),
    Step::Push(3, 2_500),
];

/// What a story does when a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The request may or may not have had an effect. The story stops.
    Stop,
    /// The request must have had no effect. The story sends it again.
    Retry,
}
