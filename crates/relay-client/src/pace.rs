//! How many chunks go in one request. On a slow network, a large one takes too long each time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::error::Error;

/// The most chunks that are sent at once.
pub(crate) const CHUNKS_MAX: usize = 64;

/// After a request that took too long, the next one has this part of its chunks.
const SHRINK: usize = 4;

/// The most chunks in one request of a client. It grows again with success.
#[derive(Debug)]
pub(crate) struct Pace(AtomicUsize);

impl Pace {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(CHUNKS_MAX))
    }

    pub(crate) fn chunks(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Learns from a request with this many chunks.
    pub(crate) fn adapt(&self, sent: usize, failure: Option<&Error>) {
        match failure {
            Some(error) if error.is_too_slow() => self.0.store(sent.div_ceil(SHRINK), Relaxed),
            Some(_) => {}
            None => self.0.store((self.chunks() * 2).min(CHUNKS_MAX), Relaxed),
        }
    }
}
