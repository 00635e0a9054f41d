//! Changes to file names and file contents, and how a crash can tear them.

use std::collections::BTreeMap;

use super::random::Random;
use super::versions::Change;

/// A crash keeps or loses a write in units of this size.
const SECTOR_BYTES: usize = 512;

/// Identifies a file regardless of its name.
pub(super) type NodeId = u64;
pub(super) type Names = BTreeMap<String, NodeId>;

#[derive(Debug)]
pub(super) enum NameChange {
    Create(String, NodeId),
    Remove(String),
    Rename { from: String, to: String, node: NodeId },
}

#[derive(Debug)]
pub(super) enum ByteChange {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change<Names> for NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                // `from` is missing if a crash undid the creation.
                names.retain(|name, named| name != from || named != node);
                names.insert(to.clone(), *node);
            }
        }
    }

    fn apply_torn(&self, names: &mut Names, random: &mut Random) {
        if random.coin() {
            self.apply(names);
        }
    }
}

impl Change<Vec<u8>> for ByteChange {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(file, *offset, bytes),
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }

    fn apply_torn(&self, file: &mut Vec<u8>, random: &mut Random) {
        match (self, random.below(4)) {
            (_, 0) => {}
            (Self::Write { offset, bytes }, 1) => {
                let kept = usize::try_from(random.below(bytes.len().max(1) as u64)).unwrap_or(0);
                let (prefix, _) = bytes.split_at(kept);
                write(file, *offset, prefix);
            }
            (Self::Write { offset, bytes }, 2) => write_some_sectors(file, *offset, bytes, random),
            _ => self.apply(file),
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end && !bytes.is_empty() {
        file.resize(end, 0);
    }
    if let Some(target) = file.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

/// Extends the file for the whole write. Lost sectors keep their old bytes, or are zeros.
fn write_some_sectors(file: &mut Vec<u8>, offset: usize, bytes: &[u8], random: &mut Random) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    let (first, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
    let mut at = offset;
    for sector in [first].into_iter().chain(rest.chunks(SECTOR_BYTES)) {
        if random.coin() {
            write(file, at, sector);
        }
        at += sector.len();
    }
}
