//! Why a relay could not start, or ended other than by its own will. Texts are for the operator.

use std::io;

use crate::config::ConfigErrors;
use crate::key_file::KeyFileError;

/// Could not start, or ended by a failure.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Something of the relay has ended that must not, and it does not go on without: `EX_SOFTWARE` of
/// sysexits.h.
const EXIT_BROKEN: u8 = 70;
/// The configuration has mistakes: `EX_CONFIG` of sysexits.h.
pub(crate) const EXIT_CONFIG: u8 = 78;

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
    /// The file of the relay's own secret cannot be used or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
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

impl RelayError {
    /// With which code a process should end that ends by this error, so that whoever started it
    /// knows what to make of it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Broken(_) => EXIT_BROKEN,
            Self::Listen { .. } | Self::ListenAdmin { .. } | Self::Serve(_) | Self::Key(_) => EXIT_FAILED,
            #[cfg(feature = "redb")]
            Self::Store(_) => EXIT_FAILED,
            #[cfg(feature = "tls")]
            Self::Tls(_) => EXIT_FAILED,
        }
    }
}

/// The reason behind an error, which is for the operator and not for a client.
pub(crate) fn cause(error: &relay_core::Error) -> String {
    std::error::Error::source(error).unwrap_or(error).to_string()
}
