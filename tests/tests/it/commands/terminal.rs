//! Tests of the output of commands: progress appears on a terminal only, and output that cannot be
//! written is a failure.

use std::process::{Command, Output, Stdio};

use relay_tests::Process;

use super::TestDir;

#[test]
fn a_terminal_shows_a_progress_bar() {
    let dir = TestDir::with_store();
    let command = format!("{} export {} --storage-path {}", crate::PROGRAM, dir.text("x"), dir.text("store"));
    let ended =
        Process::run("script", &["--quiet", "--return", "--command", &command, "/dev/null"], &[]).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stdout);
    assert!(ended.stdout.contains("exporting"), "{}", ended.stdout);
}

#[test]
fn without_a_terminal_there_are_only_log_lines() {
    let dir = TestDir::with_store();
    let mut seen = Vec::new();
    for (store, command, name) in [
        ("store", "export", "x"),
        ("store", "backup", "b"),
        ("other", "restore", "b"),
        ("third", "import", "x"),
        ("store", "compact", ""),
    ] {
        let ended = dir.run(store, &[command], name);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        seen.extend(ended.stderr.lines().map(str::to_owned));
    }
    assert!(seen.iter().all(|line| line.starts_with('{')), "{seen:?}");
}

/// Runs the program with `stdout` as its standard output.
fn run_with_stdout(dir: &TestDir, arguments: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(crate::PROGRAM);
    command.args(arguments).args(["--storage-path", &dir.text("store")]).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let dir = TestDir::with_store();
    for arguments in [
        ["stats"].as_slice(),
        &["stats", "--json"],
        &["verify"],
        &["check-config"],
        &["compact"],
        &["--help"],
        &["--version"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = run_with_stdout(&dir, arguments, full);
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("cannot write to standard output: No space left on device"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn a_closed_output_is_no_failure() {
    let dir = TestDir::with_store();
    for arguments in [["stats"].as_slice(), &["verify"], &["check-config"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = run_with_stdout(&dir, arguments, writer);
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {stderr}");
        assert!(!stderr.contains("cannot be written"), "{arguments:?}: {stderr}");
    }
}
