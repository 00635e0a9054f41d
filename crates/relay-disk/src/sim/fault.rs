//! Faults that a test plans ahead, and how they meet the calls.

use std::io;

/// What kind of call a method is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `list`, `open`, `len`, `file_len`, `read_exact_at`, `free_bytes`.
    Read,
    /// `create`, `remove`, `rename`, `write_all_at`, `set_len`, `reserve`, `write_back`.
    Write,
    /// `sync`, of the disk or of a file.
    Sync,
}

/// Calls that will fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The calls that count and fail; `None` for all.
    pub class: Option<Class>,
    /// How many calls of that class pass before the first that fails.
    pub at: u64,
    /// How many fail in a row; `u64::MAX` for all until [`SimDisk::heal`](crate::SimDisk::heal).
    pub times: u64,
    /// The error: `StorageFull`, or `Other` for one of the device.
    pub kind: io::ErrorKind,
    /// How many bytes of a `write_all_at` that fails are written all the same.
    pub partly: usize,
}

impl Fault {
    /// The next call of the class fails, once, and does nothing. The fields tell what else can be
    /// had.
    pub fn next(class: Option<Class>, kind: io::ErrorKind) -> Self {
        Self { class, at: 0, times: 1, kind, partly: 0 }
    }

    /// Counts a call; says whether it fails.
    pub(super) fn strikes(&mut self, class: Class) -> bool {
        if self.times == 0 || self.class.is_some_and(|own| own != class) {
            return false;
        }
        if self.at > 0 {
            self.at -= 1;
            return false;
        }
        if self.times != u64::MAX {
            self.times -= 1;
        }
        true
    }
}
