//! Why a relay could not start, or ended other than by its own will. Texts are for the operator.

use std::io;

use crate::config::ConfigErrors;

/// Why a relay could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The configuration has mistakes; all of them are listed.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address of the configuration.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The address for whoever runs the relay cannot be listened on.
    #[error("cannot listen on {address} for metrics (admin.address, empty for none): {source}")]
    ListenAdmin {
        /// The address of the configuration.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[cfg(feature = "redb")]
    #[error(transparent)]
    Store(#[from] relay_store_redb::OpenError),
    /// The certificates cannot be used.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] relay_http::tls::TlsError),
    /// The store has broken for good; a restart may help.
    #[error("the store has broken: {}", cause(.0))]
    Broken(#[source] relay_core::Error),
    /// The server could not be started, or failed while it ran.
    #[error("the server failed: {0}")]
    Serve(#[source] io::Error),
}

/// The reason behind an error, which is for the operator and not for a client.
pub(crate) fn cause(error: &relay_core::Error) -> String {
    std::error::Error::source(error).unwrap_or(error).to_string()
}
