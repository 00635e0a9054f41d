//! What the disk can do alone: the bound of everything that is durable.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::load::now;

use super::lab::Lab;

/// What a batch of pushes appends, roughly.
const BATCH_BYTES: usize = 64 * 1024;

/// What one push of 1 KiB appends, roughly.
const PUSH_BYTES: usize = 1200;

/// How much is written at once when the rate is measured.
const BLOCK_BYTES: usize = 8 * 1024 * 1024;

/// How long appends of one size take to be on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

/// Appends as a batch of pushes makes them.
pub(super) fn batch_syncs(lab: &Lab) -> io::Result<Syncs> {
    syncs(lab, BATCH_BYTES, 500)
}

/// Appends as a single push makes them.
pub(super) fn push_syncs(lab: &Lab) -> io::Result<Syncs> {
    syncs(lab, PUSH_BYTES, 2000)
}

/// Bytes a second of large writes, each synced.
pub(super) fn sequential_rate(lab: &Lab) -> io::Result<f64> {
    let count = lab.at_length(64, 8);
    let times = appends(lab.directory()?.path(), BLOCK_BYTES, count)?;
    let total: Duration = times.iter().sum();
    Ok((BLOCK_BYTES * times.len()) as f64 / total.as_secs_f64())
}

fn syncs(lab: &Lab, bytes: usize, count: usize) -> io::Result<Syncs> {
    let mut times = appends(lab.directory()?.path(), bytes, lab.at_length(count, count / 10))?;
    times.sort_unstable();
    let at = |percent| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Ok(Syncs { median: at(50), p99: at(99) })
}

/// The times of appends to one file, each with an fdatasync.
fn appends(directory: &Path, bytes: usize, count: usize) -> io::Result<Vec<Duration>> {
    let mut file = File::create(directory.join("appends"))?;
    let block: Vec<u8> = (0..bytes).map(|index| u8::try_from(index % 251).unwrap_or_default()).collect();
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(now() - start);
    }
    Ok(times)
}
