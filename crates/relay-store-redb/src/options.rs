//! How a store uses memory and the disk.

use std::num::NonZero;

use crate::progress::OpenProgress;

/// How the store uses memory and the disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// The memory of the index's page cache, in bytes. Two thirds of it are pages.
    /// A checkpoint that changes more than half of those writes its pages twice.
    pub cache_bytes: usize,
    /// The most requests that wait for the writer; one more is answered [`Error::Overloaded`].
    pub waiting_jobs_max: usize,
    /// The most bytes that wait for the writer, payloads and what acks weigh, except that a single
    /// request may always wait.
    pub waiting_bytes_max: u64,
    /// The most pages that are read at the same time; further pulls wait.
    pub readers_max: usize,
    /// How many changed rows in memory make a checkpoint due, some 130 bytes each: one for a push
    /// to a queue of few items and three for one to a queue of many, one for each acked name, and
    /// one more for each four items in the row of a queue. While one is written, twice as many may
    /// pile up.
    pub checkpoint_rows: usize,
    /// How many bytes of the journal, which a restart would read, make a checkpoint due.
    pub checkpoint_bytes: u64,
    /// How many threads replay the journal at a start that has much to replay, at most.
    pub replay_threads: usize,
    /// The length of a segment of the journal, in bytes. Space is given back in such pieces.
    pub segment_bytes: u64,
    /// From this length on a payload has a file of its own, which is written before its push is
    /// decided, so that nothing small waits for it.
    pub blob_bytes: u64,
    /// While less than this is free on the disk, in bytes, what is new is refused with
    /// [`Error::StorageFull`]; acks and all that frees space go on, and have this room for what
    /// they write. 0: as long as the disk takes it.
    pub free_bytes_min: u64,
    /// While the files of the store together take more than this, in bytes, the same. What was
    /// acked counts until its space is reclaimed, which some of it is only with time: half of what
    /// lives, and 48 MiB. 0: as much as there is.
    pub store_bytes_max: u64,
    /// The operator says that the machine's clock is right: the store begins with its time, however
    /// much later that is than the one it had come to, and what is due by it has expired. Otherwise
    /// a clock that is more than a week ahead is taken for wrong.
    pub trust_clock: bool,
    /// Told how far a start has come, if somebody wants to know.
    pub progress: Option<OpenProgress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 128 * 1024 * 1024,
            waiting_jobs_max: 4096,
            waiting_bytes_max: 128 * 1024 * 1024,
            readers_max: 8,
            checkpoint_rows: 400_000,
            checkpoint_bytes: 192 * 1024 * 1024,
            replay_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            segment_bytes: 32 * 1024 * 1024,
            blob_bytes: 256 * 1024,
            free_bytes_min: 0,
            store_bytes_max: 0,
            trust_clock: false,
            progress: None,
        }
    }
}
