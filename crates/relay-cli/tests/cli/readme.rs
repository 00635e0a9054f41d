//! The commands of README.md and the script of docs/clients.md work as they are printed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use relay_core::Limits;

use super::support::{command, end, relay, run_with, succeeds};

const README: &str = include_str!("../../README.md");
const CLIENTS: &str = include_str!("../../../../docs/clients.md");

/// The block of a document that has this text.
fn block<'a>(document: &'a str, text: &str) -> &'a str {
    let blocks = document.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    blocks.into_iter().find(|block| block.contains(text)).unwrap()
}

/// A shell in this directory, in which the program is `relay-cli`.
#[expect(clippy::disallowed_methods, reason = "the shell needs the search path of the test")]
fn shell(directory: &Path, url: &str, arguments: &[&str]) -> Command {
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_relay-cli"), directory.join("relay-cli")).unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(arguments).current_dir(directory).env("PATH", path).env("RELAY_URL", url);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn the_commands_of_the_readme_work() {
    let directory = tempfile::tempdir().unwrap();
    let commands = block(README, "keygen");
    let ended = run_with(shell(directory.path(), &relay(Limits::default()), &["-ec", commands]), b"");
    assert!(ended.code == 0 && ended.stdout.contains("hello"), "{ended:?}");
}

#[test]
fn the_chat_of_the_document_works() {
    let (directory, url) = (tempfile::tempdir().unwrap(), relay(Limits::default()));
    let script = block(CLIENTS, "watch");
    let mut chat = shell(directory.path(), &url, &["-ec", script, "chat.sh", "ann", "bob"]).spawn().unwrap();
    assert_eq!(run_with(command(&url, &["push", "--to", "ann", "-"]), b"hello").code, 0);
    let mut line = String::new();
    BufReader::new(chat.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with("  opaque  hello\n"), "{line}");
    chat.stdin.take().unwrap().write_all(b"how are you\n").unwrap();
    let heard = succeeds(&url, &["watch", "--recipient", "bob", "--count", "1"]).stdout;
    assert!(heard.ends_with("  opaque  how are you\n"), "{heard}");
    assert_eq!(end(chat).code, 0);
}
