//! Tests of the program: each runs it against a relay in this process.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod demo;
mod failures;
mod keys;
mod messages;
mod readme;
mod support;
mod texts;
