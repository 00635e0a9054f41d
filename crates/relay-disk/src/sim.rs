//! A disk in memory that fails calls, runs full or loses power on demand, and shows the files that
//! a crash could leave. It guarantees only what the traits guarantee, and never fails by itself.

mod changes;
mod disk;
mod fault;
mod random;
mod state;
mod versions;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Class, Fault};
use state::State;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What survives a crash of the changes that are not durable: those not synced yet, and those in an
/// unknown state after a failed `sync` of a file. Synced changes always survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything, as when only the process dies.
    All,
    /// A random choice that depends on the seed alone: any subset of the writes, length changes and
    /// name changes. A write may survive as a prefix, or without some of its 512-byte sectors.
    Torn(u64),
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of calls so far, of all methods of [`Disk`](crate::Disk) and
    /// [`DiskFile`](crate::DiskFile), including failed ones.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The number of [`Class::Write`] calls so far.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// The bytes of all `write_all_at` calls so far, including failed ones.
    pub fn written_bytes(&self) -> u64 {
        self.state().written_bytes
    }

    /// The number of [`Class::Sync`] calls so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Plans a fault in addition to earlier ones. If two hit the same call, the call returns the
    /// error of the older one.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Cancels all planned faults. A power cut is permanent.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Limits the bytes of all files, including reserved space. A write or `set_len` that would
    /// exceed the limit changes nothing and fails with
    /// [`StorageFull`](std::io::ErrorKind::StorageFull). A failing `reserve` keeps the available
    /// space, as on ext4. Without a limit, `reserve` does nothing.
    pub fn space_limit(&self, bytes: Option<u64>) {
        self.state().space_limit = bytes;
    }

    /// Cuts the power when the `n`-th sync from now begins; 0 is the next sync. That call and all
    /// later ones fail. The changes that the sync covers stay pending.
    pub fn cut_at_sync(&self, n: u64) {
        self.state().planned_cut = Some((Class::Sync, n));
    }

    /// Cuts the power during the `n`-th [`Class::Write`] call from now; 0 is the next one. That
    /// call and all later ones fail. The changes of the call stay pending.
    pub fn cut_at_write(&self, n: u64) {
        self.state().planned_cut = Some((Class::Write, n));
    }

    /// Whether the power has failed.
    pub fn power_cut(&self) -> bool {
        self.state().power_cut
    }

    /// A new disk with the files that a crash at this moment leaves, without faults and limits.
    /// This disk does not change.
    pub fn after_crash(&self, survival: Survival) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().after_crash(survival))) }
    }

    /// Changes the bytes of a file durably, without a counted call. Panics if the file does not
    /// exist.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let node = state.find(name).expect("the edited file exists");
        state.edit(node, change);
    }

    /// The current bytes of a file, without a counted call. `None` if the file does not exist.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.bytes(state.find(name).ok()?).to_vec())
    }

    /// The bytes of all files, including removed files that are still open. Reserved space does not
    /// count.
    pub fn bytes_used(&self) -> u64 {
        self.state().bytes_used()
    }

    /// Ignores poisoning: a test that panics under the lock has failed already.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
