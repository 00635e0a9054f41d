//! Faults that a test plans in advance.

use std::io;

/// The kinds of calls that faults and counters distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `list`, `open`, `len`, `file_len`, `read_exact_at`, `free_bytes`.
    Read,
    /// `create`, `remove`, `rename`, `write_all_at`, `set_len`, `reserve`, `write_back`.
    Write,
    /// `sync` of the disk or of a file.
    Sync,
}

/// A planned series of failing calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The class of calls that the fault counts and fails; `None` for all calls.
    pub class: Option<Class>,
    /// How many calls of the class succeed before the first failure.
    pub at: u64,
    /// How many calls fail in a row; `u64::MAX` for all until
    /// [`SimDisk::heal`](crate::SimDisk::heal).
    pub times: u64,
    /// The error: `StorageFull`, or `Other` for a device error.
    pub kind: io::ErrorKind,
    /// How many bytes a failing `write_all_at` still writes.
    pub partly: usize,
}

impl Fault {
    /// Fails the next call of the class, once and without effect. Change the fields for other
    /// faults.
    pub fn next(class: Option<Class>, kind: io::ErrorKind) -> Self {
        Self { class, at: 0, times: 1, kind, partly: 0 }
    }

    /// Counts a call, and returns whether it fails.
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
