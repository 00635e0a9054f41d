//! Tests of the store on real servers. Without PostgreSQL they are left out, with a word.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod conformance;
mod failover;
mod hostile;
mod queues;
mod shards;
mod split;
mod standby;
mod start;
mod support;
mod two_relays;
mod unknown;
mod waits;
