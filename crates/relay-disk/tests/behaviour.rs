//! Behaviour that both disks share. Durability is not tested here, because no test can observe it
//! on the real disk.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::io::{self, ErrorKind};

use relay_disk::{Directory, Disk, SimDisk};

/// Runs a check on an empty disk of each kind.
fn check(run: impl Fn(&dyn Disk)) {
    run(&SimDisk::new());
    let parent = tempfile::tempdir().unwrap();
    run(&Directory::open(&parent.path().join("store")).unwrap());
}

fn names(disk: &dyn Disk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.sort();
    names
}

fn read(disk: &dyn Disk, name: &str) -> String {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn write(disk: &dyn Disk, name: &str, text: &str) {
    disk.create(name).unwrap().write_all_at(&[text.as_bytes()], 0).unwrap();
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn files_are_created_listed_and_removed() {
    check(|disk| {
        assert_eq!(names(disk), [""; 0]);
        write(disk, "a", "1");
        write(disk, "b", "2");
        assert_eq!(names(disk), ["a", "b"]);
        disk.remove("a").unwrap();
        disk.sync().unwrap();
        assert_eq!(names(disk), ["b"]);
        assert_eq!(read(disk, "b"), "2");
    });
}

#[test]
fn missing_files_are_not_found() {
    check(|disk| {
        assert_eq!(kind(disk.open("a")), Some(ErrorKind::NotFound));
        assert_eq!(kind(disk.remove("a")), Some(ErrorKind::NotFound));
        assert_eq!(kind(disk.rename("a", "b")), Some(ErrorKind::NotFound));
    });
}

#[test]
fn create_fails_if_the_name_exists() {
    check(|disk| {
        write(disk, "a", "kept");
        assert_eq!(kind(disk.create("a")), Some(ErrorKind::AlreadyExists));
        assert_eq!(read(disk, "a"), "kept");
    });
}

#[test]
fn a_rename_replaces_the_target_and_keeps_handles_valid() {
    check(|disk| {
        write(disk, "new", "new");
        write(disk, "old", "old");
        let (new, old) = (disk.open("new").unwrap(), disk.open("old").unwrap());
        disk.rename("new", "old").unwrap();
        assert_eq!(names(disk), ["old"]);
        assert_eq!(read(disk, "old"), "new");

        new.write_all_at(&[b"N"], 0).unwrap();
        assert_eq!(read(disk, "old"), "New");
        let mut bytes = [0; 3];
        old.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"old", "the handle of the replaced file stays valid");
    });
}

#[test]
fn a_removed_file_stays_readable_through_open_handles() {
    check(|disk| {
        write(disk, "a", "first");
        let first = disk.open("a").unwrap();
        disk.remove("a").unwrap();
        disk.sync().unwrap();
        write(disk, "a", "second");
        let mut bytes = [0; 5];
        first.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"first");
        assert_eq!(read(disk, "a"), "second");
    });
}

#[test]
fn parts_are_written_in_sequence() {
    check(|disk| {
        let file = disk.create("a").unwrap();
        file.write_all_at(&[b"", b"ab", b"", b"cd", b"e", b""], 0).unwrap();
        file.write_all_at(&[b"B"], 1).unwrap();
        file.write_all_at(&[b"", b""], 4000).unwrap();
        file.write_all_at(&[], 4000).unwrap();
        file.sync().unwrap();
        assert_eq!(read(disk, "a"), "aBcde");
        assert!(!file.is_empty().unwrap());
    });
}

#[test]
fn more_parts_than_one_system_call_accepts_are_written() {
    check(|disk| {
        let numbers: Vec<[u8; 4]> = (0..5000_u32).map(u32::to_be_bytes).collect();
        let parts: Vec<&[u8]> = numbers.iter().map(<[u8; 4]>::as_slice).collect();
        let file = disk.create("a").unwrap();
        file.write_all_at(&parts, 3).unwrap();
        let mut bytes = vec![0; 20_000];
        file.read_exact_at(&mut bytes, 3).unwrap();
        assert_eq!(bytes, numbers.concat());
        assert_eq!(file.len().unwrap(), 20_003);
    });
}

#[test]
fn a_gap_reads_as_zeros() {
    check(|disk| {
        let file = disk.create("a").unwrap();
        file.write_all_at(&[b"x"], 2).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(read(disk, "a"), "\0\0x\0");
        file.set_len(2).unwrap();
        file.set_len(3).unwrap();
        assert_eq!(read(disk, "a"), "\0\0\0", "truncated bytes do not return");
    });
}

#[test]
fn a_read_past_the_end_fails() {
    check(|disk| {
        write(disk, "a", "abc");
        let file = disk.open("a").unwrap();
        assert_eq!(kind(file.read_exact_at(&mut [0; 2], 2)), Some(ErrorKind::UnexpectedEof));
        assert_eq!(kind(file.read_exact_at(&mut [0; 1], 9)), Some(ErrorKind::UnexpectedEof));
        file.read_exact_at(&mut [], 3).unwrap();
        file.read_exact_at(&mut [0; 3], 0).unwrap();
    });
}
