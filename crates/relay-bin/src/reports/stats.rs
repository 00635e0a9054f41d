//! `stats`: what a store holds and takes.

use relay_core::{Figures, Timestamp};
use relay_store_redb::{Files, Naming, RedbRelay, StoreError};
use serde::{Deserialize, Serialize};

use super::ContentsReport;

/// What a store holds and takes. What its kind of store does not know is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StatsReport {
    /// `plain` or `hashed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipients: Option<String>,
    /// The id of the key of which recipients are hashes.
    pub(crate) recipients_key: Option<String>,
    #[serde(flatten)]
    pub(crate) contents: Option<ContentsReport>,
    #[serde(flatten)]
    pub(crate) on_disk: Option<OnDisk>,
    #[serde(flatten)]
    pub(crate) in_memory: Option<InMemory>,
    /// The size of the tables and their indexes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table_bytes: Option<u64>,
    /// Each database, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) shards: Vec<ShardReport>,
}

/// What only the store on disk knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OnDisk {
    pub(crate) expired_items: u64,
    pub(crate) expired_bytes: u64,
    pub(crate) oldest_arrival_ms: Option<u64>,
    pub(crate) next_deadline_ms: Option<u64>,
    pub(crate) files: FilesReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FilesReport {
    pub(crate) index: FileUse,
    pub(crate) journal: FileUse,
    pub(crate) payloads: FileUse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileUse {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// What the store in memory knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InMemory {
    pub(crate) memory_items: u64,
    pub(crate) memory_bytes: u64,
}

/// One of several databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardReport {
    #[serde(flatten)]
    pub(crate) contents: ContentsReport,
    pub(crate) table_bytes: u64,
}

impl StatsReport {
    /// Reads the first item of each queue.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn of_redb(store: &RedbRelay) -> Result<Self, StoreError> {
        let (stats, naming) = (store.stats()?, store.naming());
        let files = |files: Files| FileUse { files: files.files, bytes: files.bytes };
        let on_disk = OnDisk {
            expired_items: stats.expired.items,
            expired_bytes: stats.expired.bytes,
            oldest_arrival_ms: stats.oldest_arrival.map(Timestamp::as_ms),
            next_deadline_ms: stats.next_deadline.map(Timestamp::as_ms),
            files: FilesReport {
                index: files(stats.index),
                journal: files(stats.journal),
                payloads: files(stats.payloads),
            },
        };
        Ok(Self {
            recipients: Some(if naming == Naming::Plain { "plain" } else { "hashed" }.to_owned()),
            recipients_key: naming.key_id().map(|id| id.to_string()),
            contents: Some(stats.contents.into()),
            on_disk: Some(on_disk),
            ..Self::default()
        })
    }

    /// The figures of a store in memory.
    pub(crate) fn of_memory(figures: &Figures) -> Self {
        let live = figures.live.unwrap_or_default();
        let in_memory = InMemory { memory_items: live.items, memory_bytes: live.bytes };
        Self { in_memory: Some(in_memory), ..Self::default() }
    }
}
