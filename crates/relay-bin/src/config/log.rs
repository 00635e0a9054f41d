//! The keys of `[log]`.

use serde::Deserialize;

/// What the log contains besides the life of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LogConfig {
    /// Whether there is a line for each request.
    pub access: AccessLog,
    /// How these lines show the addresses of clients.
    pub access_addresses: AccessAddresses,
}

/// Whether there is a line for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// There is none.
    Off,
    /// There is one.
    On,
}

/// How an address is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessAddresses {
    /// As its network, /24 or /48.
    Truncated,
    /// As it is.
    Full,
}
