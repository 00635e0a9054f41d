//! The rules of a store-and-forward relay: who may queue what, in which order it comes out, when it
//! is gone.
//!
//! The relay keeps opaque messages for recipients that are offline. A sender *pushes* an item, the
//! recipient *pulls* a page in arrival order and *acks* what it has; what is acked or too old is
//! gone. This crate decides: quotas, idempotency, order, expiry. It does no I/O, reads no clock,
//! runs no thread and knows no wire format, so that it can be used alone and tested to the bottom.
//!
//! - [`message`]: what travels. Types that are checked once, when they are made.
//! - [`queue`]: the rules, written once over a storage transaction.
//! - [`store`]: the seam below. [`ReadTx`] and [`WriteTx`] are what a store must remember.
//! - [`relay`]: the seam above. [`Relay`] is the service.
//! - [`limits`]: the one place of quota arithmetic.
//! - [`memory`]: a complete relay in memory.
//! - [`figures`]: what a store can tell of its own work.
//! - [`verify`]: recounts a store and lists what does not add up.
//! - `testing` (feature `testing`): a clock moved by hand, a naive model, scenarios as text, and
//!   the conformance suite that every store has to pass.
//!
//! ```
//! use std::sync::Arc;
//! use relay_core::{Chunk, Clock, Envelope, Kind, Limits, MemoryRelay, MessageId, Recipient, Timestamp};
//!
//! struct Noon;
//! impl Clock for Noon {
//!     fn now(&self) -> Timestamp {
//!         Timestamp::from_ms(43_200_000)
//!     }
//!
//!     fn elapsed_ms(&self) -> u64 {
//!         0
//!     }
//! }
//!
//! let relay = MemoryRelay::new(Limits::default(), Arc::new(Noon));
//! let envelope = Envelope {
//!     recipient: Recipient::parse("alice")?,
//!     message_id: MessageId::parse("6f2c2f0e-8c6b-4c29-9b1f-0a6a7c9b1d11")?,
//!     chunk: Chunk::new(0, 1)?,
//!     kind: Kind::parse("opaque")?,
//!     total_len: 5,
//!     sent_ms: 0,
//!     payload: "hello".into(),
//! };
//! assert!(relay.push_now(envelope)?.is_stored());
//! # Ok::<(), relay_core::Error>(())
//! ```

#![warn(missing_docs)]

pub mod error;
mod excerpt;
pub mod figures;
pub mod import;
pub mod limits;
pub mod memory;
pub mod message;
pub mod queue;
pub mod relay;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod verify;

pub use error::{Error, QuotaKind, Rejection};
pub use excerpt::excerpt;
pub use figures::{Distribution, Figures, FileUse, Histogram};
pub use import::{ImportItem, ImportOutcome};
pub use limits::{Limits, Usage};
pub use memory::MemoryRelay;
pub use message::{Chunk, Envelope, ItemId, Kind, MessageId, Recipient, Seq};
pub use queue::{Ack, AckOutcome, Page, Pull, PushOutcome, SweepStep, Swept};
pub use relay::Relay;
pub use store::{Due, DueItems, Forgotten, Front, Item, ItemStatus, Queued, ReadTx, SweepTx, WriteTx};
pub use time::{Clock, Reading, StoreClock, Timestamp};
