//! A load generator: one thread and many connections. It shares the machine with the relay that it
//! measures, so it does little work per request: bodies are assembled from prepared pieces, and
//! responses are only parsed for what is counted.
//!
//! - Closed loop ([`Pace::Closed`]): each connection sends its next request when it has its
//!   response. This finds the highest rate. Its latencies look better than they are: while the
//!   relay stalls, nothing is sent, so a stall counts once per connection, and not once per request
//!   that would have come (coordinated omission).
//! - Open loop ([`Pace::PerSecond`]): requests are due at fixed instants, and a latency counts from
//!   the instant when the request was due, even if no connection was idle. A stall shows in full.
//!
//! A seed and an item number determine a request ([`ItemIds`]), so an ack needs no list of what was
//! pushed.

mod ack;
mod answer;
mod append;
mod clock;
pub mod command;
mod connection;
mod cycle;
mod drive;
mod format;
mod locks;
mod mixed;
mod names;
mod pace;
mod pull;
mod push;
mod recipients;
mod report;
mod request;
mod scramble;

pub use ack::{Ack, Groups};
pub use answer::ResponseSummary;
pub use append::Append;
pub use clock::{now, thread_cpu, unix_seconds};
pub use cycle::Cycle;
pub use drive::{Plan, Stop, run};
pub use format::Format;
pub use locks::{Owner, random_bytes};
pub use mixed::Mixed;
pub use names::ItemIds;
pub use pace::Pace;
pub use pull::{Page, Pull, pull_request, walk};
pub use push::{Push, PushBatches};
pub use recipients::{Recipients, authorization};
pub use report::{Report, Tally};
pub use request::{Kind, Request, post};
pub use scramble::mix;

/// Decides which requests are sent, and counts what their responses have done.
pub trait Workload {
    /// Writes the next request into `request`, if there is one.
    fn next(&mut self, request: &mut Request) -> Next;

    /// Processes the response to `request`. Returns how many items it stored, returned or deleted.
    fn answered(&mut self, request: &Request, response: &ResponseSummary) -> u64;
}

/// What a workload wants to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send the request that was written.
    Send,
    /// Send nothing until another response arrives.
    Wait,
    /// The workload has ended.
    End,
}
