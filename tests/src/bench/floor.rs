//! The relay's HTTP server without a store, as a process.

use std::path::Path;
use std::process::Command;

use super::server::Server;

/// Starts this program of it; with a file, it answers every request with the file's bytes.
pub(super) fn start(program: &Path, body: Option<&Path>) -> anyhow::Result<Server> {
    let mut command = Command::new(program);
    if let Some(body) = body {
        command.arg("--body").arg(body);
    }
    Server::start(&mut command)
}
