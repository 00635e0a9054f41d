//! The keys of `[wake]`.

use std::path::PathBuf;

use serde::Deserialize;

/// The gateway that wakes clients which sleep.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WakeConfig {
    /// The URL of the gateway. Empty: there is none.
    pub url: String,
    /// The file with the key that the gateway shares.
    pub key_path: PathBuf,
    /// The authorities that may sign the gateway's certificate, in PEM format. Empty: those of the
    /// system.
    pub ca_path: PathBuf,
    /// Whether calls to other machines may be in clear text.
    pub allow_http: bool,
    /// Milliseconds that an item waits for its client before the gateway is called.
    pub grace_ms: u64,
    /// Seconds after which an item that a client got, and did not confirm, leads to a call; 0:
    /// never.
    pub confirm_seconds: u64,
    /// The fewest seconds between two calls for one queue.
    pub quiet_seconds: u64,
    /// Seconds that one call may take.
    pub timeout_seconds: u64,
    /// How often a failing call is tried in all.
    pub attempts: u32,
    /// The most queues that wait for a call or are in their quiet period.
    pub max_queues: u64,
    /// The most calls at a time.
    pub max_concurrent_calls: u64,
    /// The most calls that begin in a second.
    pub max_calls_per_second: u32,
}
