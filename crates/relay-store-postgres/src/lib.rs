//! Queues in PostgreSQL. Any number of relays share one database, or several that hold a part of
//! the queues each. A standby has each message before its push is answered.
//!
//! The rules are those of relay-core. A request joins a batch, whose queues are locked and read in
//! one round trip; the rules run in memory; a second round trip writes what they changed and
//! commits.

mod admin;
mod assign;
mod backlog;
mod changes;
mod clock;
mod connect;
mod convert;
mod error;
mod figures;
mod flights;
mod health;
mod hosts;
mod image;
mod job;
mod lane;
mod migrate;
mod monitor;
mod naming;
mod open;
mod options;
mod page;
mod reads;
mod relay;
mod shard;
mod shared;
mod slots;
mod statements;
mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;
mod wakes;

pub use admin::{Admin, Contents};
pub use assign::{Assigned, set_slots};
pub use error::PostgresError;
pub use migrate::{Migrated, migrate};
pub use options::{Durability, Options, Password, RecipientNames, ShardOptions, Tls};
pub use relay::PostgresRelay;
pub use slots::{SHARDS_MAX, SlotMap, Slots, SlotsError};
