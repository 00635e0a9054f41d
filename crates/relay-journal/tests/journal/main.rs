//! The journal from outside, on a disk that crashes, fails and rots when told to.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod batches;
mod chain;
mod crash;
mod damage;
mod faults;
mod properties;
mod reading;
mod script;
mod support;
mod unread;
