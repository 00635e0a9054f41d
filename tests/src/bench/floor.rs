//! The relay's HTTP server without a store, as a process.

use std::path::Path;
use std::process::Command;

use super::lab::Lab;
use super::server::Server;

/// Starts it; with a file, it answers every request with the file's bytes.
pub(super) fn start(lab: &Lab, body: Option<&Path>) -> anyhow::Result<Server> {
    let mut command = Command::new(lab.program("relay-floor"));
    if let Some(body) = body {
        command.arg("--body").arg(body);
    }
    Server::start(&mut command)
}
