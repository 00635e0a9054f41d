//! What the store writes, byte by byte: keys and values of the index, and records of the journal.
//! Nothing here knows transactions, files or threads. `docs/storage.md` is the specification.
//!
//! Numbers in keys are big-endian, so byte order is number order. Numbers in values are LEB128,
//! because most are small. Recipients appear in two places only: as keys of [`RECIPIENTS`], and in
//! the owner row of their queue. Everything else refers to a queue by its number, and the rows of
//! its items are neighbours.

pub(crate) mod fields;
mod item;
mod key;
mod meta;
pub(crate) mod packed_items;
mod queue;
pub(crate) mod record;
mod segments;

pub(crate) use item::*;
pub(crate) use key::*;
pub(crate) use meta::*;
pub(crate) use queue::*;
pub(crate) use segments::*;

#[cfg(test)]
#[path = "tests/format.rs"]
mod tests;
