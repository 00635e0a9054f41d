//! Other options for a server that runs.

use std::fmt;

use crate::options::Options;

/// Gives a running server other options. It keeps nothing of the server alive.
pub struct Reload(Box<dyn Fn(Options) + Send + Sync>);

impl Reload {
    pub(super) fn new(apply: impl Fn(Options) + Send + Sync + 'static) -> Self {
        Self(Box::new(apply))
    }

    /// Puts other options in force. Each request, and each connection for its times, is served by
    /// the earlier options or by these, never by both; streams and waiting pulls ask again who may
    /// read. What clients have used stays counted, and bans stay within the bounds of the new ones.
    ///
    /// Some options stay as they are: [`Options::inflight_bytes_max`], [`Options::cursor_key`],
    /// [`Options::readiness`], [`RateLimit::ipv6_prefix`](crate::RateLimit::ipv6_prefix) and
    /// [`RateLimit::tracked_addresses_max`](crate::RateLimit::tracked_addresses_max). Calls must
    /// not overlap. It does nothing when the server has ended.
    pub fn apply(&mut self, options: Options) {
        (self.0)(options);
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}
