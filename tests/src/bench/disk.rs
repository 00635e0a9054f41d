//! Measures the disk alone, which bounds everything durable.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::load::now;

use super::lab::Lab;

/// About what a batch of pushes appends.
const BATCH_BYTES: usize = 64 * 1024;

/// About what one push of 1 KiB appends.
const PUSH_BYTES: usize = 1200;

/// The size of the writes that measure the sequential rate.
const BLOCK_BYTES: usize = 8 * 1024 * 1024;

/// How long appends of one size take until they are on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

/// Measures appends of the size of a batch of pushes.
pub(super) fn batch_syncs(lab: &Lab) -> io::Result<Syncs> {
    syncs(lab, BATCH_BYTES, 500)
}

/// Measures appends of the size of a single push.
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

/// Times appends to one file, each with an fdatasync.
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
