//! The commands of README.md work as they are printed.

use std::process::Command;

use relay_core::Limits;

use super::support::relay;

const README: &str = include_str!("../../README.md");

#[test]
#[expect(clippy::disallowed_methods, reason = "the shell needs the search path of the test")]
fn the_commands_of_the_readme_work() {
    let block = README.split("```sh\n").nth(1).unwrap().split_once("```").unwrap().0;
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_relay-cli"), directory.path().join("relay-cli")).unwrap();
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", block])
        .current_dir(&directory)
        .env("PATH", path)
        .env("RELAY_URL", relay(Limits::default()));
    let output = shell.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("hello"), "{stdout}\n{stderr}");
}
