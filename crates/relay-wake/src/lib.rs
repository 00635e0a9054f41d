//! Wakes clients that sleep: when an item arrives and nobody waits for it, one call without content
//! tells a gateway, which passes it on to UnifiedPush, APNs or FCM.
//!
//! A call says which queue, as a keyed hash that only the gateway can compute, and how many items
//! wait. It never contains a recipient, a payload or anything else that a client has sent. The
//! requests of the relay never wait for a call, and everything that waits for one is bounded: the
//! queues that are tracked, the calls at a time and in a second, the attempts, and the time of
//! each. What does not fit is dropped; what nobody got is then counted. Nothing is stored: after a
//! restart, the next arrival wakes again.
//!
//! - [`WakingRelay`] is a relay that notes arrivals and what clients do.
//! - [`Wakes`] is what it shares with the task that calls the gateway,
//!   [`WakingRelay::call_gateway`].

#![warn(missing_docs)]

mod drops;
mod gateway;
mod options;
mod pace;
mod relay;
mod signature;
mod table;
#[cfg(feature = "testing")]
pub mod testing;
mod url;
mod wakes;

pub use gateway::GatewayError;
pub use options::{Options, Rules};
pub use relay::WakingRelay;
pub use signature::WakeKey;
pub use url::{GatewayUrl, UrlFault};
pub use wakes::Wakes;
