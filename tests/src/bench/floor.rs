//! What a response costs at least, as a process: the relay's HTTP server without a store, or a
//! server that answers with prepared bytes.

use std::path::Path;
use std::process::Command;

use super::server::Server;

/// Starts this program. With `body`, it answers every request with the contents of that file.
pub(super) fn start(program: &Path, body: Option<&Path>) -> anyhow::Result<Server> {
    let mut command = Command::new(program);
    if let Some(body) = body {
        command.arg("--body").arg(body);
    }
    Server::start(&mut command)
}
