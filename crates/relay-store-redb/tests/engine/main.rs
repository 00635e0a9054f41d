//! The proofs of the engine, on a disk in memory that loses power, fails, fills up and rots when a
//! test says so. They look at a store through its public face, and at its files as an outsider
//! would.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod backup;
mod blobs;
mod containment;
mod crash;
mod faults;
mod figures;
mod flips;
mod formats;
mod fronts;
mod golden;
mod heal;
mod lock;
mod many_files;
mod mixed;
mod names;
mod numbers;
mod pressure;
mod reclaim;
mod replay;
mod rewrite;
mod space;
mod space_monitor;
mod stalls;
mod story;
mod sweep;
mod verify;
mod world;
mod write_back;
