//! The tables of `[[listen]]`: further addresses, and how clients connect to each.

use std::path::PathBuf;

use serde::Deserialize;

use super::peer::PeerNetwork;
use super::{Mode, RelayConfig, TlsConfig};

/// The most tables.
pub(super) const LISTENERS_MAX: usize = 64;

/// A further address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListenConfig {
    /// As [`RelayConfig::address`].
    pub address: String,
    /// Clear text or TLS.
    #[serde(default = "clear_text")]
    pub mode: Mode,
    /// As [`RelayConfig::proxy_protocol`].
    #[serde(default)]
    pub proxy_protocol: Vec<PeerNetwork>,
    /// The certificate of this address; `None` for that of the relay, with [`Mode::Tls`].
    #[serde(default)]
    pub tls: Option<TlsConfig>,
}

const fn clear_text() -> Mode {
    Mode::Http
}

impl RelayConfig {
    /// All addresses of this relay, `address` first, each with its own certificate if it has TLS.
    pub(crate) fn listeners(&self) -> Vec<ListenConfig> {
        let own = ListenConfig {
            address: self.address.clone(),
            mode: self.mode,
            proxy_protocol: self.proxy_protocol.clone(),
            tls: None,
        };
        let all =
            Some(own).filter(|own| !own.address.is_empty()).into_iter().chain(self.listen.iter().cloned());
        let with_certificate = |listener: ListenConfig| match listener.mode {
            Mode::Http => ListenConfig { tls: None, ..listener },
            Mode::Tls => ListenConfig { tls: listener.tls.or_else(|| self.tls.clone()), ..listener },
        };
        all.map(with_certificate).collect()
    }
}

/// The paths of a certificate, with their keys.
pub(super) fn paths(tls: &TlsConfig) -> [(&'static str, Option<&PathBuf>); 4] {
    [
        ("cert_pem_path", Some(&tls.cert_pem_path)),
        ("key_pem_path", Some(&tls.key_pem_path)),
        ("client_ca_pem_path", tls.client_ca_pem_path.as_ref()),
        ("client_crl_pem_path", tls.client_crl_pem_path.as_ref()),
    ]
}
