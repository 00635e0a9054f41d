//! Tests that take long, load the machine or measure time. nextest runs them one at a time.

mod drain;
mod kept_in_memory;
mod kill;
mod malformed;
mod memory;
mod parallel;
mod restart;
mod subscribers;
mod sweep;
mod trickle;
