//! Tests of the relay over TLS, as clients and operators use it: certificates on disk, real
//! clients, renewal while it serves.

mod certified;
pub(crate) mod handshake;
mod keys;
mod openssl;
pub(crate) mod pki;
mod proxied;
mod reload;
mod standing;
mod trust;
pub(crate) mod wire;

use relay_bin::config::{Mode, RelayConfig};
use relay_tests::Relay;

use self::pki::TlsFiles;

/// Starts a relay in memory that serves with these files.
pub(crate) fn relay(files: &TlsFiles) -> Relay {
    relay_with(files, |_| {})
}

fn relay_with(files: &TlsFiles, change: impl FnOnce(&mut RelayConfig)) -> Relay {
    Relay::with(|config| {
        config.mode = Mode::Tls;
        config.tls = Some(files.config());
        change(config);
    })
}
