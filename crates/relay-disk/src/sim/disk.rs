//! The effect of each [`Disk`] and [`DiskFile`] call on the simulated disk.

use std::io;
use std::sync::{Arc, MutexGuard};

use super::SimDisk;
use super::changes::{ByteChange, NameChange, NodeId};
use super::fault::Class;
use super::state::{Outcome, State};
use crate::{Disk, DiskFile};

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    /// Marks the node as open.
    _open: Arc<()>,
}

impl SimDisk {
    fn begin_read(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.begin(Class::Read).result()?;
        Ok(state)
    }

    fn file(&self, state: &State, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let node = state.find(name)?;
        Ok(Arc::new(SimFile { disk: self.clone(), node, _open: state.open_marker(node) }))
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.begin_read()?.names.current().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let outcome = state.begin(Class::Write);
        if state.find(name).is_ok() {
            return outcome.result().and(Err(io::ErrorKind::AlreadyExists.into()));
        }
        if outcome.has_effect() {
            state.create(name);
        }
        outcome.result()?;
        self.file(&state, name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.begin_read()?;
        self.file(&state, name)
    }

    fn file_len(&self, name: &str) -> io::Result<u64> {
        let state = self.begin_read()?;
        Ok(state.bytes(state.find(name)?).len() as u64)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().change_name(name, |_| NameChange::Remove(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let change = |node| NameChange::Rename { from: from.to_owned(), to: to.to_owned(), node };
        self.state().change_name(from, change)
    }

    /// A failed sync leaves the names pending: file systems journal their names, so the next sync
    /// writes them.
    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Class::Sync).result()?;
        state.sync_names();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.begin_read()?.free_bytes())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.begin_read()?.bytes(self.node).len() as u64)
    }

    fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.begin_read()?;
        let start = to_usize(offset)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::InvalidInput)?;
        out.copy_from_slice(state.bytes(self.node).get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut bytes = parts.concat();
        let mut state = self.disk.state();
        let outcome = state.begin(Class::Write);
        state.written_bytes += bytes.len() as u64;
        let offset = to_usize(offset)?;
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        match outcome {
            Outcome::Failure { partly, .. } => bytes.truncate(partly),
            Outcome::Success => state.check_space(self.node, end)?,
            Outcome::PowerCut => {}
        }
        if !bytes.is_empty() {
            state.node(self.node).bytes.change(ByteChange::Write { offset, bytes });
        }
        outcome.result()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin(Class::Write);
        let len = to_usize(len)?;
        if outcome.has_effect() {
            state.check_space(self.node, len)?;
            let node = state.node(self.node);
            if len <= node.bytes.current().len() {
                node.reserved = 0;
            }
            node.bytes.change(ByteChange::SetLen(len));
        }
        outcome.result()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin(Class::Write);
        let Some(free) = state.free_bytes().filter(|_| outcome.has_effect()) else { return outcome.result() };
        let (free, wanted) = (to_usize(free)?, to_usize(bytes)?);
        let node = state.node(self.node);
        let allocated = node.allocated();
        node.reserved = wanted.min(allocated.saturating_add(free)).max(node.reserved);
        if wanted > node.allocated() { Err(io::ErrorKind::StorageFull.into()) } else { outcome.result() }
    }

    /// Makes nothing durable. But if it fails, a later sync does not report that.
    fn write_back(&self, offset: u64, len: usize) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin(Class::Write);
        let end = to_usize(offset)?.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        if end > state.bytes(self.node).len() {
            return outcome.result().and(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if matches!(outcome, Outcome::Failure { .. }) && !state.power_cut {
            state.node(self.node).bytes.fail_sync();
        }
        outcome.result()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin(Class::Sync);
        let bytes = &mut state.node(self.node).bytes;
        match outcome {
            Outcome::Success => bytes.sync(),
            Outcome::Failure { .. } => bytes.fail_sync(),
            Outcome::PowerCut => {}
        }
        outcome.result()
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
