//! What only the real disk promises: whom it keeps out, with which modes it makes things, and which
//! names it refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use relay_disk::{Directory, DirectoryError, Disk};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn one_at_a_time_has_the_directory() {
    let path = tempfile::tempdir().unwrap();
    let first = Directory::open(path.path()).unwrap();
    assert!(matches!(Directory::open(path.path()), Err(DirectoryError::InUse)));
    drop(first);
    Directory::open(path.path()).unwrap();
}

#[test]
fn what_is_made_is_private_and_what_is_there_keeps_its_mode() {
    let parent = tempfile::tempdir().unwrap();
    let there = parent.path().join("there");
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o750)).unwrap();
    let path = there.join("made").join("store");
    let directory = Directory::open(&path).unwrap();
    directory.create("a").unwrap();
    let modes =
        [&there, &there.join("made"), &path, &path.join("a"), &path.join("lock")].map(|path| mode(path));
    assert_eq!(modes, [0o750, 0o700, 0o700, 0o600, 0o600]);

    drop(directory);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Directory::open(&path).unwrap();
    assert_eq!(mode(&path), 0o755);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("file");
    fs::write(&path, "").unwrap();
    for path in [path.join("store"), path] {
        let Err(DirectoryError::Io(error)) = Directory::open(&path) else { panic!("{}", path.display()) };
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
    }
}

#[test]
fn only_files_of_the_store_are_listed() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    fs::create_dir(path.path().join("subdirectory")).unwrap();
    directory.create("a").unwrap();
    assert_eq!(directory.list().unwrap(), ["a"]);
}

#[test]
fn no_link_and_no_pipe_is_opened_as_a_file() {
    let path = tempfile::tempdir().unwrap();
    let (store, elsewhere) = (path.path().join("store"), path.path().join("elsewhere"));
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.join("lock")).unwrap();
    assert!(matches!(Directory::open(&store), Err(DirectoryError::Io(_))));
    assert!(!elsewhere.exists(), "the lock was made where a link leads to");

    fs::remove_file(store.join("lock")).unwrap();
    let directory = Directory::open(&store).unwrap();
    fs::write(&elsewhere, "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.join("a")).unwrap();
    assert!(directory.open("a").is_err() && directory.create("a").is_err());
    assert!(directory.file_len("a").is_err());
    let pipe = std::process::Command::new("mkfifo").arg(store.join("b")).status().unwrap();
    assert!(pipe.success() && directory.open("b").is_err() && directory.create("b").is_err());
    assert!(directory.file_len("b").is_err());
    assert_eq!(directory.file_len("c").unwrap_err().kind(), ErrorKind::NotFound);
    directory.create("c").unwrap().set_len(7).unwrap();
    assert_eq!(directory.file_len("c").unwrap(), 7);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
}

#[test]
fn what_others_may_change_is_not_private() {
    let path = tempfile::tempdir().unwrap();
    let made = path.path().join("made");
    drop(Directory::open_private(&made).unwrap());
    for (mode, is_private) in [(0o700, true), (0o755, true), (0o770, false), (0o702, false), (0o1777, false)]
    {
        fs::set_permissions(&made, fs::Permissions::from_mode(mode)).unwrap();
        let opened = Directory::open_private(&made);
        assert!(
            if is_private { opened.is_ok() } else { matches!(opened, Err(DirectoryError::Open)) },
            "{mode:o}"
        );
        drop(opened);
        assert_eq!(Directory::open(&made).unwrap().may_others_write().unwrap(), !is_private, "{mode:o}");
    }
    fs::set_permissions(&made, fs::Permissions::from_mode(0o700)).unwrap();
    // Only root can give a directory away.
    if std::os::unix::fs::chown(&made, Some(12_345), None).is_ok() {
        fs::remove_file(made.join("lock")).unwrap();
        assert!(matches!(Directory::open_private(&made), Err(DirectoryError::NotOurs)));
        assert!(!made.join("lock").exists());
    }
}

#[test]
fn what_is_not_listed_is_noticed() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    directory.create("a").unwrap();
    assert!(!directory.has_unlisted().unwrap());
    let check = |make: &dyn Fn(&Path)| {
        let there = path.path().join("there");
        make(&there);
        assert!(directory.has_unlisted().unwrap());
        drop(fs::remove_dir(&there));
        drop(fs::remove_file(&there));
        assert!(!directory.has_unlisted().unwrap());
    };
    check(&|path| fs::create_dir(path).unwrap());
    check(&|path| std::os::unix::fs::symlink("a", path).unwrap());
    check(&|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(path.path().join(no_text), "").unwrap();
    assert!(directory.has_unlisted().unwrap());
}

#[test]
fn a_name_that_leads_elsewhere_is_refused() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(&path.path().join("store")).unwrap();
    directory.create("a").unwrap();
    for name in ["", ".", "..", "../a", "/a", "b/c", "a\0b", "lock"] {
        let kinds = [
            directory.create(name).map(drop),
            directory.open(name).map(drop),
            directory.remove(name),
            directory.rename(name, "b"),
            directory.rename("a", name),
        ]
        .map(|result| result.unwrap_err().kind());
        assert_eq!(kinds, [ErrorKind::InvalidInput; 5], "{name:?}");
    }
    assert_eq!(directory.list().unwrap(), ["a"]);
}

#[test]
fn writing_back_changes_nothing_and_needs_a_range_that_is_there() {
    let path = tempfile::tempdir().unwrap();
    let file = Directory::open(path.path()).unwrap().create("a").unwrap();
    file.write_all_at(&[b"0123456789"], 0).unwrap();
    file.write_back(2, 5).unwrap();
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, file.len().unwrap()), (b"0123456789", 10));
    if cfg!(target_os = "linux") {
        assert_eq!(file.write_back(6, 5).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.len().unwrap(), 10);
    }
}

/// Where the file system knows no such thing, there is nothing to give back.
#[test]
fn what_is_set_aside_does_not_show_and_a_cut_to_the_same_length_gives_it_back() {
    let path = tempfile::tempdir().unwrap();
    let file = Directory::open(path.path()).unwrap().create("a").unwrap();
    file.write_all_at(&[b"0123456789"], 0).unwrap();
    file.sync().unwrap();
    let taken = || fs::metadata(path.path().join("a")).unwrap().blocks() * 512;
    let before = taken();
    if file.reserve(1 << 20).is_ok() {
        assert!(taken() >= 1 << 20, "{} bytes are taken", taken());
    }
    file.set_len(10).unwrap();
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, file.len().unwrap()), (b"0123456789", 10));
    assert!(taken() <= before.max(4096), "{before} bytes were taken before, and {} are now", taken());
}

#[test]
fn free_space_is_that_of_its_file_system() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    let told = directory.free_bytes().unwrap().unwrap();
    let shown = std::process::Command::new("df").args(["-Pk"]).arg(path.path()).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let columns: Vec<&str> = shown.lines().next_back().unwrap().split_whitespace().collect();
    let free_kib: u64 = columns[3].parse().unwrap();
    // Others use the file system meanwhile.
    assert!(told.abs_diff(free_kib * 1024) < told / 4 + (64 << 20), "{told} bytes, and df shows {shown}");
}
