//! Why a relay could not start, or failed. The messages are for operators.

use std::io;

use crate::config::ConfigErrors;
use crate::issuer_file::IssuerFileError;
use crate::key_file::KeyFileError;

/// The relay could not start, or failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// No relay runs where a command needs one: `EX_UNAVAILABLE` of sysexits.h.
#[cfg(feature = "redb")]
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;
/// A storage thread crashed: `EX_SOFTWARE` of sysexits.h.
const EXIT_BROKEN: u8 = 70;
/// The configuration has mistakes: `EX_CONFIG` of sysexits.h.
pub(crate) const EXIT_CONFIG: u8 = 78;

/// Why a relay could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The configuration has mistakes. The error lists all of them.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The relay cannot listen on the address for clients.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The key `address`.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The sockets of the service manager cannot be used.
    #[error("the sockets of the service manager cannot be used: {0}")]
    PassedSockets(#[source] io::Error),
    /// The relay cannot listen on the address for operators.
    #[error("cannot listen on {address} for metrics (key admin.address; \"\" turns it off): {source}")]
    ListenAdmin {
        /// The key `admin.address`.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The relay cannot create its control socket.
    #[error("cannot listen on {path} (key admin.control_path): {source}")]
    Control {
        /// The key `admin.control_path`.
        path: std::path::PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[cfg(feature = "redb")]
    #[error(transparent)]
    Store(#[from] relay_store_redb::OpenError),
    /// The database cannot be used.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Postgres(#[from] relay_store_postgres::PostgresError),
    /// The file with the database's password cannot be used.
    #[error("storage.postgres.password_path: {path}: {source}")]
    Password {
        /// The path of the file.
        path: std::path::PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The relay cannot use or create its key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The relay cannot use the certificates.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] relay_http::tls::TlsError),
    /// The relay cannot use the keys of the issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerFileError),
    /// The relay cannot call the gateway for wakes.
    #[error(transparent)]
    Wake(#[from] relay_wake::GatewayError),
    /// The store failed permanently; a restart may help.
    #[error("the store failed permanently: {}", cause(.0))]
    Broken(#[source] relay_core::Error),
    /// The server could not start, or failed.
    #[error("the server failed: {0}")]
    Serve(#[source] io::Error),
}

impl RelayError {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Broken(_) => EXIT_BROKEN,
            Self::Listen { .. }
            | Self::ListenAdmin { .. }
            | Self::PassedSockets(_)
            | Self::Control { .. }
            | Self::Key(_)
            | Self::Password { .. }
            | Self::Issuer(_)
            | Self::Wake(_)
            | Self::Serve(_) => EXIT_FAILED,
            #[cfg(feature = "redb")]
            Self::Store(_) => EXIT_FAILED,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => EXIT_FAILED,
            #[cfg(feature = "tls")]
            Self::Tls(_) => EXIT_FAILED,
        }
    }
}

/// The cause of an error, which is for operators and not for clients.
pub(crate) fn cause(error: &relay_core::Error) -> String {
    std::error::Error::source(error).unwrap_or(error).to_string()
}
