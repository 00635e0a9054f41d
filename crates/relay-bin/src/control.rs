//! The control socket: a running relay answers the operator's commands on a Unix socket.
//!
//! A request is one line, `{"version":1,"command":"status"}` with the arguments of the command as
//! further fields. The response is lines: `{"progress":{"done":1,"total":2}}` and `{"row":...}` any
//! number of times, and finally `{"done":...}` or `{"error":{"code":"...","message":"..."}}`.
//! Between them there may be empty lines, which say that the relay still works on it.
//!
//! Only the user of the relay and root are answered. A client that disconnects stops its command.
//! Only `backup` writes files, and no command sends payloads.
//!
//! To add a command: a file here with its `run`, a line in `commands.rs`, and the other side in
//! `crate::commands`, which asks through `commands/running.rs`.

mod backup;
mod commands;
mod drain;
mod log_level;
mod output;
mod protocol;
mod relay;
mod server;
mod socket;
mod stats;
pub(crate) mod status;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use self::backup::{Backup, Written};
pub(crate) use self::log_level::{LogLevel, LogsNow};
pub(crate) use self::protocol::{Line, Progress, Refusal, Request, VERSION};
pub(crate) use self::relay::{ControlledRelay, ControlledStore, Ending, Facts};
pub(crate) use self::server::serve;
pub(crate) use self::socket::{Binding, Socket, is_configured, path};
