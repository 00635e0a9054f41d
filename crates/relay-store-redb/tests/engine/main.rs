//! Tests of the whole store on a simulated disk that loses power, fails, fills up and corrupts data
//! on demand. They use the public API of the store, and read and change its files directly.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod backup;
mod blobs;
mod containment;
mod crash;
mod deep_expired;
mod faults;
mod figures;
mod flips;
mod floors;
mod formats;
mod fronts;
mod golden;
mod hash_recipients;
mod heal;
mod index;
mod lock;
mod many_files;
mod mixed;
mod names;
mod naming;
mod numbers;
mod pressure;
mod push_all;
mod reclaim;
mod replay;
mod rewrite;
mod space;
mod space_monitor;
mod stalls;
mod story;
mod sweep;
mod verify;
mod waiters;
mod world;
mod write_back;
