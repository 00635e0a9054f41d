//! The lines of the control socket, for both of its sides.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the protocol. A relay refuses requests of another one.
pub(crate) const VERSION: u32 = 1;

/// The longest request. A path of 4,096 bytes can be six times as long in JSON.
pub(super) const REQUEST_BYTES_MAX: usize = 32 * 1024;

/// The only line of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) command: String,
    /// The arguments of the command.
    #[serde(flatten)]
    pub(crate) arguments: Map<String, Value>,
}

/// A line of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Line {
    Progress(Progress),
    /// One of many results.
    Row(Value),
    /// The command ended; this is its result.
    Done(Value),
    /// The command failed.
    Error(Refusal),
}

/// How far a command is, in units that the command knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// A word for programs. It keeps its meaning for ever.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Display) -> Self {
        Self { code: code.to_owned(), message: message.to_string() }
    }

    /// The command itself failed.
    pub(super) fn failed(message: impl Display) -> Self {
        Self::new("failed", message)
    }

    /// The client has disconnected, so nobody reads this.
    pub(super) fn gone() -> Self {
        Self::new("gone", "the client has disconnected")
    }
}
