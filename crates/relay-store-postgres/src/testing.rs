//! PostgreSQL servers for tests, on loopback: alone, under Patroni, and behind PgBouncer. Each ends
//! with its owner.
//!
//! A server refuses to run as root, so root runs it as the user `postgres`, or `nobody`.

mod patroni;
mod pgbouncer;
mod processes;
mod programs;
mod server;

pub use patroni::Cluster;
pub use pgbouncer::Pooler;
pub use programs::{execute, is_left_out, program};
pub use server::{Server, options};
