//! The chats of docs/clients.md, as its readers would run them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::driver::{Language, python};
use super::messages::Relay;

const DOCUMENT: &str = include_str!("../../../../docs/clients.md");

/// The program in this language, for this relay.
fn program(language: &str, url: &str) -> String {
    let block = DOCUMENT.split(&format!("```{language}\n")).nth(1).unwrap();
    block.split_once("```\n").unwrap().0.replace("http://127.0.0.1:7000", url)
}

/// A chat that runs, and is killed when it is dropped.
struct Chat {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Chat {
    fn start(command: &mut Command, names: [&str; 2]) -> Self {
        let mut child = command.args(names).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn say(&mut self, text: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn end(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_chats_in_typescript_and_python_understand_each_other() {
    let Some(python) = python() else { return };
    if !Language::TypeScript.is_here() {
        return;
    }
    let (relay, directory) = (Relay::start(), tempfile::tempdir().unwrap());
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("clients");
    let modules = directory.path().join("node_modules");
    std::fs::create_dir(&modules).unwrap();
    symlink(clients.join("typescript"), modules.join("relay-client")).unwrap();
    let file = directory.path().join("chat.mjs");
    std::fs::write(&file, program("js", relay.url())).unwrap();

    let mut of_python = Command::new(python);
    of_python.arg("-uc").arg(program("python", relay.url())).env("PYTHONPATH", clients.join("python/src"));
    let mut ann = Chat::start(&mut of_python, ["ann", "bob"]);
    let mut bob = Chat::start(Command::new("node").arg(&file), ["bob", "ann"]);
    ann.say("h\u{e9}llo\u{1b}[2J");
    assert_eq!(bob.hear(), "ann: \"h\u{e9}llo\\u001b[2J\"\n");
    bob.say("hi\u{1b}");
    assert_eq!(ann.hear(), "bob: 'hi\\x1b'\n");
    ann.end();
    bob.end();
    relay.is_emptied("ann");
    relay.is_emptied("bob");
}
