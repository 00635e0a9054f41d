//! A client of the relay. It pushes messages of any length, in chunks, and delivers those of a
//! recipient, put together again, until they are acked. What it repeats is never stored or
//! delivered twice within a session; a message that was not acked comes again in the next one.
//!
//! It knows the wire alone: nothing of the relay's own crates, but where TLS finds its roots. It
//! encrypts nothing. Payloads, recipients and proofs are never logged.
//!
//! - [`Client`]: [`push`](Client::push), [`push_reader`](Client::push_reader),
//!   [`push_all`](Client::push_all), [`deliveries`](Client::deliveries), and the raw requests
//!   [`pull`](Client::pull), [`ack`](Client::ack), [`purge`](Client::purge) and
//!   [`info`](Client::info).
//! - [`Credentials`]: what opens a recipient. [`Secret`] and [`Key`] know its name.
//! - [`Options`]: bounds and times. [`Error`]: one type, with a stable [`code`](Error::code).
//!
//! ```no_run
//! use relay_client::{Client, Credentials, Options, Secret, Transport};
//!
//! # async fn example() -> Result<(), relay_client::Error> {
//! let client = Client::new("https://relay.example.org", Options::default())?;
//! let secret = Secret::generate()?;
//! client.push(secret.recipient(), "hello").await?;
//!
//! let credentials = Credentials::secret(&secret);
//! let mut deliveries = client.deliveries(secret.recipient(), credentials, Transport::Wait);
//! while let Some(message) = deliveries.next().await {
//!     let message = message?;
//!     println!("{} bytes", message.payload.len());
//!     message.ack().await?;
//! }
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod batch;
mod client;
mod clock;
mod credentials;
mod deliveries;
mod error;
mod http;
mod options;
mod pace;
mod push;
mod retry;
mod wire;

pub use client::{Client, Pull};
pub use credentials::{Credentials, Key, Secret};
pub use deliveries::{Deliveries, Message, Transport};
pub use error::{Error, Refusal};
pub use options::{Identity, OnSkipped, Options, Roots, SkipReason};
pub use push::{Outgoing, Push, Pushed};
pub use uuid::Uuid;
pub use wire::{Acked, Info, Item, Page};

/// The code of the README and of docs/clients.md is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/clients.md")]
struct Documents;
