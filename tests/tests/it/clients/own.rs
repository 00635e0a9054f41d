//! The tests that the clients in other languages bring along.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::driver::{Language, python};

fn folder(client: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("clients").join(client)
}

/// Starts a program in the folder of a client. It finds the relay's program in `RELAY_BIN`.
fn start(mut command: Command, client: &str) -> Child {
    command.current_dir(folder(client)).env("RELAY_BIN", crate::PROGRAM);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeeds(child: Child) {
    let output = child.wait_with_output().unwrap();
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
    succeeds(start(node, "typescript"));
}

/// They wait for more time than they work, so each file has a process, and all run at once.
#[test]
fn those_of_python_pass() {
    let Some(python) = python() else { return };
    let files = std::fs::read_dir(folder("python").join("tests")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let modules: Vec<String> = names
        .filter(|name| name.starts_with("test_"))
        .filter_map(|name| Some(format!("tests.{}", name.strip_suffix(".py")?)))
        .collect();
    assert!(modules.contains(&"tests.test_push".to_owned()), "{modules:?}");
    let run = |module: &String| {
        let mut unittest = Command::new(&python);
        unittest.args(["-m", "unittest", module]).env("PYTHONPATH", "src");
        start(unittest, "python")
    };
    let running: Vec<Child> = modules.iter().map(run).collect();
    running.into_iter().for_each(succeeds);
}
