//! The options of a store.

use std::num::NonZero;

use crate::naming::KeyId;
use crate::progress::OpenProgress;

/// How the store uses memory and the disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// The memory of the index's page cache, in bytes. Two thirds of it hold pages. A checkpoint
    /// that changes more than half of those pages writes its pages twice.
    pub cache_bytes: usize,
    /// The maximum number of requests that wait for the writer. Further ones fail with
    /// [`Error::Overloaded`](relay_core::Error::Overloaded).
    pub waiting_jobs_max: usize,
    /// The maximum cost of the requests that wait for the writer, in bytes: payloads, and a fixed
    /// cost per push and per acked item. A single request may always wait.
    pub waiting_bytes_max: u64,
    /// The maximum number of concurrent reads; further pulls wait.
    pub readers_max: usize,
    /// The number of changed rows in memory that makes a checkpoint due; a row takes about 130
    /// bytes. A push changes one row in an inline queue and three in a spilled one. Each acked item
    /// id is a row, and four inline items count as one more. While a checkpoint is written, memory
    /// may hold twice as many.
    pub checkpoint_rows: usize,
    /// The number of bytes in the journal that makes a checkpoint due; a restart replays them.
    pub checkpoint_bytes: u64,
    /// The maximum number of threads that replay the journal, if there is much to replay.
    pub replay_threads: usize,
    /// The size of a journal segment, in bytes. The store frees whole segments.
    pub segment_bytes: u64,
    /// A payload of at least this many bytes is a blob. It is written to a file of its own before
    /// the writer decides its push, so that small requests do not wait for it.
    pub blob_bytes: u64,
    /// While the disk has less free space than this, in bytes, new items fail with
    /// [`Error::StorageFull`](relay_core::Error::StorageFull). Acks and maintenance continue, and
    /// use this reserve for their own writes. 0 means no reserve.
    pub free_bytes_min: u64,
    /// While the files of the store take more than this, in bytes, new items fail in the same way.
    /// Acked items count until their space is reclaimed. Reclaiming takes time, and may leave as
    /// much as half of the live bytes plus 48 MiB. 0 means no limit.
    pub store_bytes_max: u64,
    /// The operator confirms that the machine's clock is right. The store then starts with its
    /// time, however far it is ahead of the store's last time, and expires items accordingly.
    /// Otherwise the store ignores a clock that is more than a week ahead.
    pub trust_clock: bool,
    /// What the recipients of requests are, and so what a new store holds.
    pub recipients: RecipientNames,
    /// Receives the progress of the start.
    pub progress: Option<OpenProgress>,
}

/// What the caller of a store passes as recipients. The store decides by it whether to open, and
/// [`RedbRelay::naming`](crate::RedbRelay::naming) tells the caller whether to hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecipientNames {
    /// Recipients as clients know them. A store with hashed recipients does not open, because it
    /// would find none of them.
    #[default]
    Plain,
    /// Hashes by this key for a store with hashed recipients, which must be by the same key. Other
    /// stores get recipients as clients know them.
    Keyed {
        /// The id of the key.
        id: KeyId,
        /// Whether a store that never had a queue gets hashed recipients.
        hash_new: bool,
    },
    /// None, because the caller works on the store as a whole. Any store opens. A new one is plain,
    /// until it is opened in another way.
    AsStored,
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
            recipients: RecipientNames::Plain,
            progress: None,
        }
    }
}
