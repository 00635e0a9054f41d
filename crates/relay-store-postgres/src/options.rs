//! What the caller of a store chooses.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::slots::Slots;

/// How a relay uses its databases.
#[derive(Clone)]
pub struct Options {
    /// The databases. Together they hold each slot once.
    pub shards: Vec<ShardOptions>,
    /// The password, if it is not in the connection strings.
    pub password: Option<Password>,
    /// The certificates of the authorities that may sign the database's; `None`: the system's.
    pub ca_path: Option<PathBuf>,
    /// Whether connections are encrypted.
    pub tls: Tls,
    /// Where an item must be before its push is answered.
    pub durability: Durability,
    /// What the database holds in place of recipients.
    pub recipients: RecipientNames,
    /// The connections to each database that write. Each writes one batch of requests at a time.
    pub lanes: usize,
    /// The connections to each that write large payloads and long acks, so that these delay no
    /// others.
    pub large_lanes: usize,
    /// The connections to each that read.
    pub readers: usize,
    /// The most bytes of requests that wait for the databases. Further ones are refused. Each
    /// database has an equal part, or 64 MiB if that is more, so that one that stalls leaves the
    /// others space.
    pub waiting_bytes_max: u64,
    /// The largest size of each database in bytes. Above it, pushes to its queues are refused. 0:
    /// no bound but the disk.
    pub bytes_max: u64,
    /// How long a request waits for the database, before its outcome is reported as unknown.
    pub patience: Duration,
    /// How long an open waits for databases that cannot be reached.
    pub open_patience: Duration,
    /// How often the relay looks for arrivals that other relays have not told it of.
    pub poll_interval: Duration,
}

/// A database, and the queues that it holds.
#[derive(Clone)]
pub struct ShardOptions {
    /// The connection string, such as `host=a,b port=5432 user=relay dbname=relay`, or a URL. With
    /// several hosts, the relay uses the one that accepts writes.
    pub dsn: String,
    /// The slots of its queues.
    pub slots: Slots,
}

/// A password, which `Debug` hides.
#[derive(Clone)]
pub struct Password(pub Vec<u8>);

/// Whether connections to the database are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tls {
    /// They are, and the database proves its name with a certificate.
    #[default]
    VerifyFull,
    /// They are not.
    Off,
}

/// Where an item must be before its push is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On the disks of the server and of a synchronous standby. The server has to be set up so.
    #[default]
    Replicated,
    /// Where the operator of the database says, who takes care of replication.
    Managed,
    /// On the disk of the one server.
    Single,
}

/// What the database holds in place of recipients. All relays of a database share the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientNames {
    /// Identifies the key of the relays.
    pub key_id: [u8; 8],
    /// Whether a new database holds keyed hashes. One that is in use stays as it is.
    pub hash_new: bool,
}

impl ShardOptions {
    /// The only database of a store.
    #[must_use]
    pub fn alone(dsn: String) -> Self {
        Self { dsn, slots: Slots::all() }
    }
}

impl Options {
    /// The number of a shard for operators, from 1, unless it is alone.
    pub(crate) fn number(&self, index: usize) -> Option<usize> {
        (self.shards.len() > 1).then_some(index + 1)
    }

    /// The databases with their numbers for operators.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (Option<usize>, &ShardOptions)> {
        self.shards.iter().enumerate().map(|(index, shard)| (self.number(index), shard))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shards, durability, .. } = self;
        f.debug_struct("Options")
            .field("shards", shards)
            .field("durability", durability)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ShardOptions {
    /// Without the connection string, which may contain a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardOptions").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: Vec::new(),
            password: None,
            ca_path: None,
            tls: Tls::default(),
            durability: Durability::default(),
            recipients: RecipientNames { key_id: [0; 8], hash_new: false },
            lanes: 2,
            large_lanes: 1,
            readers: 4,
            waiting_bytes_max: 256 << 20,
            bytes_max: 0,
            patience: Duration::from_secs(10),
            open_patience: Duration::from_secs(60),
            poll_interval: Duration::from_secs(1),
        }
    }
}
