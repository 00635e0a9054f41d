//! The tests that the clients in other languages bring along.

use std::path::Path;
use std::process::Command;

use super::driver::{Language, python};

/// Runs a program in the folder of a client. It finds the relay's program in `RELAY_BIN`.
fn succeeds(mut command: Command, client: &str) {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("clients");
    let output = command.current_dir(clients.join(client)).env("RELAY_BIN", crate::PROGRAM).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}

#[test]
fn those_of_typescript_pass() {
    if !Language::TypeScript.is_here() {
        return;
    }
    let mut node = Command::new("sh");
    node.args(["-c", "exec node --test test/*.test.mjs"]);
    succeeds(node, "typescript");
}

#[test]
fn those_of_python_pass() {
    let Some(python) = python() else { return };
    let mut unittest = Command::new(python);
    unittest.args(["-m", "unittest", "discover", "-t", ".", "-s", "tests"]).env("PYTHONPATH", "src");
    succeeds(unittest, "python");
}
