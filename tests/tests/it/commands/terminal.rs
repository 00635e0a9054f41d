//! What commands say and where: how far they have come where somebody looks; an answer that is lost
//! is no success.

use std::process::{Command, Output, Stdio};

use relay_tests::Process;

use super::Place;

#[test]
fn a_bar_is_shown_on_a_terminal() {
    let place = Place::filled();
    let command =
        format!("{} export {} --storage-path {}", crate::PROGRAM, place.text("x"), place.text("store"));
    let ended =
        Process::run("script", &["--quiet", "--return", "--command", &command, "/dev/null"], &[]).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stdout);
    assert!(ended.stdout.contains("exporting"), "{}", ended.stdout);
}

#[test]
fn elsewhere_there_are_log_lines_alone() {
    let place = Place::filled();
    let mut seen = Vec::new();
    for (store, command, name) in [
        ("store", "export", "x"),
        ("store", "backup", "b"),
        ("other", "restore", "b"),
        ("third", "import", "x"),
        ("store", "compact", ""),
    ] {
        let ended = place.run(store, &[command], name);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        seen.extend(ended.stderr.lines().map(str::to_owned));
    }
    assert!(seen.iter().all(|line| line.starts_with('{')), "{seen:?}");
}

/// Runs the program with this as its standard output.
fn printing_to(place: &Place, words: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut command = Command::new(crate::PROGRAM);
    command.args(words).args(["--storage-path", &place.text("store")]).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let place = Place::filled();
    for words in [
        ["stats"].as_slice(),
        &["stats", "--json"],
        &["verify"],
        &["check-config"],
        &["compact"],
        &["--help"],
        &["--version"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = printing_to(&place, words, full);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{words:?}: {told}");
        assert!(
            told.contains("cannot be written to standard output: No space left on device"),
            "{words:?}: {told}"
        );
    }
}

#[test]
fn who_has_closed_the_output_wants_no_more() {
    let place = Place::filled();
    for words in [["stats"].as_slice(), &["verify"], &["check-config"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = printing_to(&place, words, writer);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{words:?}: {told}");
        assert!(!told.contains("cannot be written"), "{words:?}: {told}");
    }
}
