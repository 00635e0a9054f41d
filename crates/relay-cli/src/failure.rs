//! Why a command failed, and its exit code.

use std::io;

pub(crate) const EXIT_FAILED: u8 = 1;
pub(crate) const EXIT_USAGE: u8 = 2;
const EXIT_REFUSED: u8 = 3;
const EXIT_FULL: u8 = 4;
const EXIT_UNREACHABLE: u8 = 5;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The relay refused, or the client failed.
    #[error(transparent)]
    Client(#[from] relay_client::Error),
    /// The command cannot be meant like this.
    #[error("{0}")]
    Usage(String),
    /// A file of the user cannot be used.
    #[error("{0}")]
    File(String),
    /// Standard output cannot be written to, or the system fails.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Whoever read standard output has enough. No failure.
    #[error("the output is closed")]
    OutputClosed,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage(_) => EXIT_USAGE,
            Self::File(_) | Self::Io(_) => EXIT_FAILED,
            Self::Client(relay_client::Error::Options(_) | relay_client::Error::Credentials(_)) => EXIT_USAGE,
            Self::Client(error) => match error.code() {
                "quota_exceeded" | "message_too_large" => EXIT_FULL,
                _ if error.is_transient() => EXIT_UNREACHABLE,
                _ if error.refusal().is_some() => EXIT_REFUSED,
                _ => EXIT_FAILED,
            },
        }
    }

    /// The failure as a word, for scripts.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Client(error) => error.code(),
            Self::Usage(_) => "usage",
            Self::File(_) | Self::Io(_) => "io",
            Self::OutputClosed => "output_closed",
        }
    }
}
