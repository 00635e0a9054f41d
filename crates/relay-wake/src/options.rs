//! What an operator decides about wakes.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::signature::WakeKey;
use crate::url::GatewayUrl;

/// How the relay calls a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where calls go.
    pub url: GatewayUrl,
    /// The secret that the gateway shares.
    pub key: WakeKey,
    /// The authorities that may sign the certificate of the gateway, in PEM format. `None`: those
    /// that the system trusts.
    pub ca_path: Option<PathBuf>,
    /// When to call, and how often.
    pub rules: Rules,
    /// How long one call may take, from the look-up of the host to the head of the response.
    pub timeout: Duration,
}

/// When to call a gateway, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long an item waits for its client before the gateway is called. It covers the gap
    /// between two waiting pulls.
    pub grace: Duration,
    /// How long a client that was handed an item may do nothing before the gateway is called. Zero:
    /// such an item never leads to a call.
    pub confirm: Duration,
    /// The shortest time between two wakes of one queue.
    pub quiet: Duration,
    /// How often a failing call is tried in all.
    pub attempts_max: NonZeroU32,
    /// How many queues are tracked: those that wait for a call, and those in their quiet period.
    pub queues_max: NonZeroUsize,
    /// How many calls run at a time.
    pub calls_max: NonZeroUsize,
    /// How many calls begin in a second.
    pub calls_per_second: NonZeroU32,
}
