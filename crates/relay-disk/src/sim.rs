//! A disk in memory that fails any call, runs full or loses power when a test wants it to, and then
//! shows what may be left. It promises a program as little as the interface does, and invents no
//! failure on its own.

mod fault;
mod random;
mod state;
mod versions;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fault::{Class, Fault};
use state::{NodeId, State};

use crate::{Disk, DiskFile};

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What a crash leaves of that which is not known to be durable: pending since the last `sync`, or
/// what a failed `sync` of a file has left undecided. What a successful `sync` covers is always
/// left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    None,
    /// Everything, as after the death of the process alone.
    All,
    /// A random choice, the same for the same seed: any subset of the writes, changes of length and
    /// changes of names, and of a write perhaps only a prefix, or not all of its 512-byte sectors.
    Torn(u64),
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    /// Shared with the node, which so knows that it is open.
    _open: Arc<()>,
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls so far, of all methods of [`Disk`] and [`DiskFile`], failed ones included.
    pub fn calls(&self) -> u64 {
        self.state().counts.calls
    }

    /// Calls of [`Class::Write`] so far.
    pub fn writes(&self) -> u64 {
        self.state().counts.writes
    }

    /// The bytes of all calls of `write_all_at` so far, failed ones included.
    pub fn written_bytes(&self) -> u64 {
        self.state().counts.written_bytes
    }

    /// Calls of [`Class::Sync`] so far.
    pub fn syncs(&self) -> u64 {
        self.state().counts.syncs
    }

    /// Plans a fault, besides those planned already. Of two that meet in one call, the older one
    /// shows.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes all planned faults back. A power cut is for good.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Bounds the bytes of all files together, with what is set aside for them. A write or
    /// `set_len` that would pass the bound does nothing and fails with
    /// [`io::ErrorKind::StorageFull`]; a `reserve` keeps what there was, as that of ext4 does.
    /// Without a bound `reserve` does nothing.
    pub fn space_limit(&self, bytes: Option<u64>) {
        self.state().space_limit = bytes;
    }

    /// Cuts the power when the `n`-th sync from now begins, the next one being 0: it and all later
    /// calls fail. What it should have made durable stays pending.
    pub fn cut_at_sync(&self, n: u64) {
        self.state().cut_at(Class::Sync, n);
    }

    /// Cuts the power while the `n`-th call of [`Class::Write`] from now is under way, the next one
    /// being 0: it and all later calls fail. What it changes is pending.
    pub fn cut_at_write(&self, n: u64) {
        self.state().cut_at(Class::Write, n);
    }

    /// Whether the power is gone.
    pub fn power_cut(&self) -> bool {
        self.state().power_cut
    }

    /// The disk as it is found after a crash at this instant, without faults and limits. This one
    /// stays as it is.
    pub fn after_crash(&self, survival: Survival) -> Self {
        Self { state: Arc::new(Mutex::new(self.state().after_crash(survival))) }
    }

    /// Changes the bytes of a file, durably, behind everybody's back. The file must be there.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let node = state.find(name).expect("the test damages a file that is there");
        state.edit(node, change);
    }

    /// The bytes of a file as a read would find them, not counted as a call; `None` if there is no
    /// such file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.bytes(state.find(name).ok()?).to_vec())
    }

    /// The bytes of all files, removed ones that are still open included. What is set aside for
    /// them is none of these.
    pub fn bytes_used(&self) -> u64 {
        self.state().bytes_used()
    }

    /// A test that panics under the lock has failed already, so a poisoned one is used on.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, state: &State, node: NodeId) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), node, _open: state.hold(node) })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.state().list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let node = state.create(name)?;
        Ok(self.file(&state, node))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let node = state.open(name)?;
        Ok(self.file(&state, node))
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        self.state().file_len(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state().rename(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.state().sync_names()
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        self.state().free_bytes()
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state().len(self.node)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.state().read(self.node, out, offset)
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        self.disk.state().write(self.node, parts.concat(), offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.state().set_len(self.node, len)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().reserve(self.node, bytes)
    }

    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        self.disk.state().write_back(self.node, offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync_file(self.node)
    }
}
