//! The rules of a store-and-forward relay: quotas, idempotency, order and expiry.
//!
//! The relay keeps opaque messages for recipients that are offline. A sender *pushes* an item. The
//! recipient *pulls* pages in arrival order and *acks* the items that it has. The relay removes
//! acked and expired items. This crate does no I/O, reads no clock, starts no thread and knows no
//! wire format, so it can be used and tested alone.
//!
//! - [`message`]: messages and their parts. Constructors validate, so values are always valid.
//! - [`queue`]: the rules, written once over a storage transaction; [`import`] for items that keep
//!   their times.
//! - [`store`]: the lower interface. [`ReadTx`], [`WriteTx`] and [`SweepTx`] are what a store
//!   implements.
//! - [`relay`]: the upper interface. [`Relay`] is the service.
//! - [`waiters`]: who waits for arrivals in which queue.
//! - [`limits`]: all quota arithmetic.
//! - [`memory`]: a complete relay in memory.
//! - [`figures`]: statistics that a store reports.
//! - [`verify`]: checks a store for inconsistencies.
//! - `testing` (feature `testing`): a manual clock, a naive model, scenarios as text, and the
//!   conformance suite that every store has to pass.
//!
//! ```
//! use std::sync::Arc;
//! use relay_core::{
//!     Chunk, Clock, Envelope, Kind, Limits, MemoryRelay, MessageId, Recipient, Timestamp,
//! };
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
//!     ttl_ms: None,
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
pub mod operation;
pub mod queue;
pub mod relay;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod verify;
pub mod waiters;

pub use error::{Error, QuotaKind, Rejection};
pub use excerpt::excerpt;
pub use figures::{DatabaseFigures, Distribution, Figures, FileUse, Histogram, SpaceFigures, WakeFigures};
pub use import::{ImportItem, ImportOutcome, Imported};
pub use limits::{Limits, SharedLimits, Usage};
pub use memory::MemoryRelay;
pub use message::{Chunk, Envelope, ItemId, Kind, MessageId, Recipient, Seq};
pub use operation::Operation;
pub use queue::{Ack, AckOutcome, Page, Pull, PushOutcome, SweepStep, Swept};
pub use relay::{Relay, Unavailable};
pub use store::{
    Due, DueItems, Forgotten, Front, Item, ItemStatus, Queued, ReadTx, RemovedThrough, SweepTx, WriteTx,
};
pub use time::{Clock, Reading, StoreClock, Timestamp};
pub use waiters::{TooManyWaiters, Waiter, Waiters};
