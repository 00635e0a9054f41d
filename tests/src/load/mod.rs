//! A load generator: one thread, many connections, as little work for each request as it takes. It
//! shares the machine with what it measures, so bodies are put together from prepared pieces and
//! answers are not parsed beyond what is counted.
//!
//! - Closed loop ([`Pace::Closed`]): each connection sends its next request when it has its answer.
//!   This finds the highest rate. Its latencies flatter: while the relay stalls nothing is sent, so
//!   a stall is counted once for each connection and not for each request that would have come
//!   (coordinated omission).
//! - Open loop ([`Pace::PerSecond`]): requests are due at fixed instants, whatever the relay does,
//!   and a latency counts from the instant when the request was due, also when no connection was
//!   free. A stall shows in full.
//!
//! All that a request holds follows from a seed and a number ([`Names`]), so that an ack can name
//! what was pushed without a list of it.

mod ack;
mod answer;
mod append;
mod clock;
pub mod command;
mod connection;
mod drive;
mod mixed;
mod names;
mod pace;
mod pull;
mod push;
mod report;
mod request;

pub use ack::{Ack, Groups};
pub use answer::Answer;
pub use append::Append;
pub use clock::{now, thread_cpu};
pub use drive::{Plan, Stop, run};
pub use mixed::Mixed;
pub use names::{Names, mix};
pub use pace::Pace;
pub use pull::{Page, Pull, walk};
pub use push::Push;
pub use report::{Report, Tally};
pub use request::{Kind, Request};

/// What is sent next, and what an answer is worth.
pub trait Workload {
    /// Writes the next request into `request`, if there is one.
    fn next(&mut self, request: &mut Request) -> Next;

    /// Notes the answer to `request`. Returns how many items were stored, shown or acked by it.
    fn answered(&mut self, request: &Request, answer: &Answer) -> u64;
}

/// What a workload has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The request that was written.
    Send,
    /// Nothing before another answer is there.
    Wait,
    /// Nothing any more.
    End,
}
