//! Behaviour of the real disk alone: locking, file modes, rejected names and free space.

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
fn only_one_value_at_a_time_holds_the_directory() {
    let path = tempfile::tempdir().unwrap();
    let first = Directory::open(path.path()).unwrap();
    assert!(matches!(Directory::open(path.path()), Err(DirectoryError::InUse)));
    drop(first);
    Directory::open(path.path()).unwrap();
}

#[test]
fn new_entries_are_private_and_existing_directories_keep_their_mode() {
    let parent = tempfile::tempdir().unwrap();
    let existing = parent.path().join("existing");
    fs::create_dir(&existing).unwrap();
    fs::set_permissions(&existing, fs::Permissions::from_mode(0o750)).unwrap();
    let path = existing.join("created").join("store");
    let directory = Directory::open(&path).unwrap();
    directory.create("a").unwrap();
    let modes = [&existing, &existing.join("created"), &path, &path.join("a"), &path.join("lock")]
        .map(|path| mode(path));
    assert_eq!(modes, [0o750, 0o700, 0o700, 0o600, 0o600]);

    drop(directory);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Directory::open(&path).unwrap();
    assert_eq!(mode(&path), 0o755);
}

#[test]
fn a_file_instead_of_the_directory_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("file");
    fs::write(&path, "").unwrap();
    for path in [path.join("store"), path] {
        let Err(DirectoryError::Io(error)) = Directory::open(&path) else { panic!("{}", path.display()) };
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
    }
}

#[test]
fn only_files_are_listed() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    fs::create_dir(path.path().join("subdirectory")).unwrap();
    directory.create("a").unwrap();
    assert_eq!(directory.list().unwrap(), ["a"]);
}

#[test]
fn links_and_pipes_are_not_opened_as_files() {
    let path = tempfile::tempdir().unwrap();
    let (store, elsewhere) = (path.path().join("store"), path.path().join("elsewhere"));
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.join("lock")).unwrap();
    assert!(matches!(Directory::open(&store), Err(DirectoryError::Io(_))));
    assert!(!elsewhere.exists(), "the lock file was created behind the link");

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
fn a_directory_that_others_can_change_is_not_private() {
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
    // Only root can change the owner.
    if std::os::unix::fs::chown(&made, Some(12_345), None).is_ok() {
        fs::remove_file(made.join("lock")).unwrap();
        assert!(matches!(Directory::open_private(&made), Err(DirectoryError::NotOurs)));
        assert!(!made.join("lock").exists());
    }
}

#[test]
fn unlisted_entries_are_detected() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    directory.create("a").unwrap();
    assert!(!directory.has_unlisted().unwrap());
    let check = |make: &dyn Fn(&Path)| {
        let entry = path.path().join("entry");
        make(&entry);
        assert!(directory.has_unlisted().unwrap());
        drop(fs::remove_dir(&entry));
        drop(fs::remove_file(&entry));
        assert!(!directory.has_unlisted().unwrap());
    };
    check(&|path| fs::create_dir(path).unwrap());
    check(&|path| std::os::unix::fs::symlink("a", path).unwrap());
    check(&|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    let not_utf8 = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(path.path().join(not_utf8), "").unwrap();
    assert!(directory.has_unlisted().unwrap());
}

#[test]
fn names_that_are_not_plain_are_rejected() {
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
fn write_back_changes_nothing_and_requires_an_existing_range() {
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

/// Also passes on file systems that cannot reserve space.
#[test]
fn reserved_space_does_not_change_the_length_and_set_len_frees_it() {
    let path = tempfile::tempdir().unwrap();
    let file = Directory::open(path.path()).unwrap().create("a").unwrap();
    file.write_all_at(&[b"0123456789"], 0).unwrap();
    file.sync().unwrap();
    let allocated = || fs::metadata(path.path().join("a")).unwrap().blocks() * 512;
    let initial = allocated();
    if file.reserve(1 << 20).is_ok() {
        assert!(allocated() >= 1 << 20, "{} bytes are allocated", allocated());
    }
    file.set_len(10).unwrap();
    let mut bytes = [0; 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, file.len().unwrap()), (b"0123456789", 10));
    assert!(allocated() <= initial.max(4096), "{initial} bytes were allocated, now {}", allocated());
}

#[test]
fn free_bytes_matches_df() {
    let path = tempfile::tempdir().unwrap();
    let directory = Directory::open(path.path()).unwrap();
    let free_bytes = directory.free_bytes().unwrap().unwrap();
    let output = std::process::Command::new("df").args(["-Pk"]).arg(path.path()).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let columns: Vec<&str> = output.lines().next_back().unwrap().split_whitespace().collect();
    let free_kib: u64 = columns[3].parse().unwrap();
    // Other processes use the file system at the same time.
    let tolerance = free_bytes / 4 + (64 << 20);
    assert!(free_bytes.abs_diff(free_kib * 1024) < tolerance, "{free_bytes} bytes, but df shows {output}");
}
