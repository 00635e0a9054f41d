//! Long commands show how far they have come where somebody looks, and are silent elsewhere.

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
